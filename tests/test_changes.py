"""A plan names what changed, of which kind and why; what means the same is never a change of meaning."""

import json
import subprocess
from pathlib import Path

import pytest

from featreg.cli import main
from featreg.compile import compile_definitions
from featreg.compile.difference import Change, ChangeKind, State, compare
from featreg.load import load_files

SPEC = """
from featreg import REALTIME, Delay, Entity, EventSource, Every, FeatureSet, FeatureView, agg, derive

customer = Entity(name="customer", key={"customer": "VARCHAR"})
orders = EventSource(
    name="orders",
    columns={"customer": "VARCHAR", "amount": "DOUBLE", "shop": "VARCHAR", "bought_at": "TIMESTAMP", "loaded_at": "TIMESTAMP"},
    event_time="bought_at",
    description="What was bought.",
)
recent = FeatureView(
    name="recent",
    entity=customer,
    source=orders,
    freshness=REALTIME,
    features={
        "n": agg.count().over("7d"),
        "spent": agg.sum("amount").over("7d"),
        "last_shop": agg.last("shop"),
        "mean": derive("spent_7d / n_7d"),
    },
    owner="shop",
)
model = FeatureSet(name="model", features=[recent.all()], request={"basket": "DOUBLE"}, derived={"share": derive("basket / spent_7d")})
"""


def state(spec: str = SPEC) -> State:
    definitions = load_files({"features/shop.py": spec.encode()})
    return State(definitions, compile_definitions(definitions))


def changed(*edits: tuple[str, str]) -> dict[str, Change]:
    """The changes that remain of editing the spec, by name."""
    spec = SPEC
    for old, new in edits:
        assert old in spec
        spec = spec.replace(old, new)
    return {change.name: change for change in compare(state(), state(spec)) if change.kind is not ChangeKind.NONE}


def test_what_is_the_same_is_no_change() -> None:
    assert {change.kind for change in compare(state(), state())} == {ChangeKind.NONE}
    assert changed(('agg.sum("amount")', 'agg.sum( "(amount)" )'), ('"n": agg.count()', '"n": agg.count(  )')) == {}


@pytest.mark.parametrize(
    ("edit", "name", "reason"),
    [
        (('agg.sum("amount").over("7d")', 'agg.sum("amount * 2").over("7d")'), "recent.spent_7d", "input amount → amount * 2"),
        (('agg.sum("amount")', 'agg.sum("amount", where="shop = \'a\'")'), "recent.spent_7d", "where added: shop = 'a'"),
        (('agg.sum("amount").over("7d")', 'agg.sum("amount").over("7d", hop="exact")'), "recent.spent_7d", "hop 3h → exact"),
        (('agg.last("shop")', 'agg.first("shop")'), "recent.last_shop", "aggregation last → first"),
        (('agg.last("shop")', 'agg.last("shop", ignore_nulls=True)'), "recent.last_shop", "ignore_nulls False → True"),
        (("freshness=REALTIME", 'freshness=Every("1d")'), "recent.n_7d", "freshness realtime → every 1d"),
        (('event_time="bought_at"', 'event_time="bought_at", available="loaded_at"'), "recent.n_7d", "available at once → from loaded_at"),
        (('event_time="bought_at"', 'event_time="loaded_at"'), "recent.n_7d", "event time bought_at → loaded_at"),
        (("source=orders", 'source=orders, where="amount > 0"'), "recent.n_7d", "the view's where added: amount > 0"),
        (('"amount": "DOUBLE"', '"amount": "BIGINT"'), "recent.spent_7d", "column amount DOUBLE → BIGINT"),
        (('key={"customer": "VARCHAR"}', 'key={"shop": "VARCHAR"}'), "recent.n_7d", "key customer VARCHAR → shop VARCHAR"),
        (('derive("spent_7d / n_7d")', 'derive("n_7d / spent_7d")'), "recent.mean", "expression spent_7d / n_7d → n_7d / spent_7d"),
        (('agg.sum("amount")', 'agg.sum("amount * 2")'), "recent.mean", "input spent_7d means something else now"),
        (('agg.sum("amount")', 'agg.sum("amount * 2")'), "model.share", "input spent_7d means something else now"),
    ],
)
def test_another_meaning_is_told_with_before_and_after(edit: tuple[str, str], name: str, reason: str) -> None:
    found = changed(edit)[name]
    assert found.kind is ChangeKind.SEMANTIC and found.before_id != found.after_id
    assert reason in found.reasons


def test_people_and_storage_are_kinds_of_their_own() -> None:
    owner = changed(('owner="shop"', 'owner="growth"'))
    assert {change.kind for change in owner.values()} == {ChangeKind.METADATA}
    assert owner["recent.n_7d"].reasons == ("the view's owner shop → growth",)
    limit = changed(('description="What was bought."', "max_rejected=5"))
    assert limit["recent.n_7d"].kind is ChangeKind.LAYOUT and limit["recent.n_7d"].reasons == ("orders's max_rejected 0 → 5",)


def test_a_feature_that_is_new_gone_or_renamed() -> None:
    added = changed(('"n": agg.count().over("7d")', '"n": agg.count().over("7d", "1d")'))
    assert list(added) == ["recent.n_1d"] and added["recent.n_1d"].kind is ChangeKind.ADDITIVE
    gone = changed(('        "last_shop": agg.last("shop"),\n', ""))
    assert list(gone) == ["recent.last_shop"] and gone["recent.last_shop"].kind is ChangeKind.REMOVED
    assert gone["recent.last_shop"].dependants == ("set model",) and gone["recent.last_shop"].after_id is None
    renamed = changed(('"last_shop"', '"newest_shop"'))
    assert renamed["recent.newest_shop"].kind is ChangeKind.METADATA and list(renamed) == ["recent.newest_shop"]
    assert renamed["recent.newest_shop"].reasons == ("renamed from recent.last_shop",)


def test_dependants_are_derived_features_and_sets() -> None:
    assert changed(('agg.sum("amount")', 'agg.sum("amount * 2")'))["recent.spent_7d"].dependants == ("recent.mean", "set model")


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with the spec committed and tagged v1, as the working directory."""
    (tmp_path / "features").mkdir()
    (tmp_path / "conf").mkdir()
    (tmp_path / "features" / "shop.py").write_text(SPEC)
    (tmp_path / "conf" / "local.toml").write_text('[sources]\norders = "data/*.parquet"\n')
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    git(tmp_path, "tag", "v1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(root: Path, old: str, new: str) -> None:
    path = root / "features" / "shop.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    found = main(list(arguments))
    printed = capsys.readouterr()
    assert found == code, printed.out + printed.err
    return printed.out + printed.err


def test_diff_compares_a_revision_with_the_working_tree_or_another(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(repository, 'agg.sum("amount")', 'agg.sum("amount * 2")')
    told = run(capsys, "diff", "v1", "--exit-code", code=5)
    assert "semantic  recent.spent_7d  features/shop.py:" in told and "input amount → amount * 2" in told
    assert "3 semantic; 3 as before" not in told and "3 semantic; 2 as before" in told
    git(repository, "commit", "-qam", "two")
    document = json.loads(run(capsys, "diff", "v1", "HEAD", "--json"))
    assert [(one["name"], one["kind"]) for one in document["changes"]] == [
        ("recent.spent_7d", "semantic"), ("recent.mean", "semantic"), ("model.share", "semantic"),
    ]  # fmt: skip
    assert document["unchanged"] == 2
    unknown = {"rows": None, "keys": None, "bytes": None, "seconds": None}
    assert document["work"] == [{"view": "recent", "features": ["spent_7d"], "source": "orders", "rebuilds": False, **unknown}]
    assert "| semantic | `recent.spent_7d` | input amount → amount * 2 |" in run(capsys, "diff", "v1", "HEAD", "--format", "markdown")
    assert "no change; 5 as before" in run(capsys, "diff", "HEAD", "--exit-code")


def test_plan_compares_what_is_applied_with_the_working_tree_or_a_revision(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing applied → the working tree" in run(capsys, "plan")
    run(capsys, "apply")
    assert "no change" in run(capsys, "plan", "--exit-code")
    edit(repository, '"n": agg.count().over("7d")', '"n": agg.count().over("1d", "7d")')
    assert "additive  recent.n_1d" in run(capsys, "plan", "--exit-code", code=5)
    assert "no change" in run(capsys, "plan", "--revision", "v1", "--exit-code")


def test_a_revision_that_is_unknown_or_does_not_compile_is_named(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no revision 'v9'" in run(capsys, "diff", "v9", code=2)
    edit(repository, 'agg.sum("amount")', 'agg.sum("amont")')
    git(repository, "commit", "-qam", "broken")
    git(repository, "tag", "broken")
    edit(repository, 'agg.sum("amont")', 'agg.sum("amount")')
    told = run(capsys, "diff", "broken", code=1)
    assert "features/shop.py at broken:" in told and "Did you mean 'amount'?" in told


def test_lineage_goes_from_columns_over_features_to_sets_and_pins(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "apply")
    run(capsys, "pin", "create", "delay:1", "--set", "model")
    document = json.loads(run(capsys, "lineage", "recent.spent_7d", "--json"))
    assert {(node["name"], node["kind"]) for node in document["nodes"]} == {
        ("orders.amount", "column"), ("orders.bought_at", "column"), ("orders.customer", "column"), ("recent.spent_7d", "feature"),
        ("recent.mean", "feature"), ("set model", "set"), ("pin delay:1", "pin"),
    }  # fmt: skip
    assert ["orders.amount", "recent.spent_7d"] in document["edges"] and ["recent.spent_7d", "recent.mean"] in document["edges"]
    assert ["orders.shop", "recent.last_shop"] not in document["edges"]
    dot = run(capsys, "lineage", "orders.shop", "--format", "dot")
    assert dot.startswith("digraph lineage {") and '"orders.shop" -> "recent.last_shop";' in dot and "spent_7d" not in dot
    mermaid = run(capsys, "lineage", "model", "--format", "mermaid")
    assert mermaid.startswith("flowchart LR") and '[["set model"]]' in mermaid and '(["pin delay:1"])' in mermaid
    assert "recent.last_shop" in run(capsys, "lineage")
    edit(repository, '"last_shop"', '"newest_shop"')
    assert "recent.newest_shop" in run(capsys, "lineage") and "recent.newest_shop" not in run(capsys, "lineage", "--applied")
    assert "recent.newest_shop" not in run(capsys, "lineage", "--revision", "v1")
    assert "give one" in run(capsys, "lineage", "--revision", "v1", "--applied", code=2)
    assert "nothing here is called 'recent.spend'" in run(capsys, "lineage", "recent.spend", code=2)


def test_listed_features_have_the_number_of_their_meaning_at_any_revision(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def listed(*arguments: str) -> dict[str, tuple[int | None, str]]:
        found = json.loads(run(capsys, "ls", "features", "--json", *arguments))
        assert all(one.keys() >= {"name", "definition_id", "version", "view", "file", "line"} for one in found)
        return {one["name"]: (one["version"], one["definition_id"]) for one in found}

    first = listed()
    assert {version for version, _ in first.values()} == {None}
    run(capsys, "apply")
    edit(repository, 'agg.sum("amount")', 'agg.sum("amount * 2")')
    assert listed()["recent.spent_7d"][0] is None and listed()["recent.n_7d"][0] == 1
    run(capsys, "apply")
    assert listed()["recent.spent_7d"][0] == 2 and listed("--applied") == listed()
    assert listed("--revision", "v1") == {name: (1, identity) for name, (_, identity) in first.items()}


def test_history_tells_versions_and_why(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "apply")
    edit(repository, 'agg.sum("amount")', 'agg.sum("amount * 2")')
    run(capsys, "apply")
    edit(repository, 'agg.last("shop")', 'agg.first("shop")')
    run(capsys, "apply")
    run(capsys, "rollback", "--to", "1")
    lives = json.loads(run(capsys, "history", "recent.spent_7d", "--json"))
    assert [(one["version"], one["generation"], one["reasons"]) for one in lives] == [
        (1, 1, ["new"]), (2, 2, ["input amount → amount * 2"]), (1, 4, ["input amount * 2 → amount"]),
    ]  # fmt: skip
    assert "aggregation last → first" in run(capsys, "history", "recent.last_shop")
    assert "was never applied" in run(capsys, "history", "recent.nothing", code=2)
