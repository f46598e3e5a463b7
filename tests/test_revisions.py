"""Definitions are read as they were at a commit, from git objects alone; what is no single commit is refused in words."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import featreg
from featreg.cli import main
from featreg.compile import compile_definitions
from featreg.errors import DefinitionError, UsageError
from featreg.load import load_files
from featreg.load.git import MOST_BYTES, read_revision
from tests.shop import REALTIME_SHOP, WHOLE_SHOP, Shop

ROOT = Path(__file__).parent.parent
# Every aggregation over every type it takes, as far as one feature a pair shows it, and each way to say when and which rows.
EVERY_AGGREGATION = """
from featreg import REALTIME, Delay, Entity, EventSource, Every, FeatureView, agg, derive

thing = Entity(name="thing", key={"a": "VARCHAR", "b": "BIGINT"})
nobody = Entity(name="nobody", key={})
facts = EventSource(
    name="facts",
    columns={
        "a": "VARCHAR", "b": "BIGINT", "i": "INTEGER", "n": "BIGINT", "f": "FLOAT", "x": "DOUBLE", "d": "DECIMAL(10,2)",
        "w": "DECIMAL(38,0)", "p": "BOOLEAN", "s": "VARCHAR", "day": "DATE", "at": "TIMESTAMP", "seen": "TIMESTAMP",
    },
    event_time="at", available="seen", tie_break=["s", "n"],
)
slow = EventSource(name="slow", columns={"a": "VARCHAR", "x": "DOUBLE", "at": "TIMESTAMP"}, event_time="at", available=Delay("1h"))
TYPES = ["i", "n", "f", "x", "d", "w", "p", "s", "day", "seen"]
NUMBERS = ["i", "n", "f", "x", "d", "w"]
everything = FeatureView(
    name="everything", entity=thing, source=facts, where="s IS NULL OR s LIKE 'a%'", freshness=REALTIME,
    features={
        "count": agg.count().over("1s", "1h", "30d", None),
        **{f"count_{t}": agg.count(t).over("1d") for t in TYPES},
        **{f"sum_{t}": agg.sum(t).over("1d") for t in NUMBERS},
        **{f"avg_{t}": agg.avg(t, where="p").over("1d", hop="exact") for t in NUMBERS},
        **{f"min_{t}": agg.min(t).over("1d") for t in TYPES},
        **{f"max_{t}": agg.max(t).over("1d") for t in TYPES},
        **{f"var_{t}": agg.var(t).over("7d", hop="1d") for t in NUMBERS},
        **{f"stddev_{t}": agg.stddev(t).over("1d") for t in NUMBERS},
        "any": agg.any("p").over("1d"), "all": agg.all("n > 3").over("1d"),
        **{f"distinct_{t}": agg.count_distinct(t).over("1d") for t in TYPES},
        **{f"first_{t}": agg.first(t) for t in TYPES},
        **{f"last_{t}": agg.last(t, ignore_nulls=True).over("1d") for t in TYPES},
        **{f"first_n_{t}": agg.first_n(t, 2).over("1d") for t in TYPES},
        **{f"last_n_{t}": agg.last_n(t, 3) for t in TYPES},
        **{f"top_{t}": agg.top_n(t, 4).over("1d") for t in TYPES},
        **{f"least_{t}": agg.arg_min(t, by="x").over("1d") for t in TYPES},
        **{f"most_{t}": agg.arg_max(t, by="seen").over("1d") for t in TYPES},
        **{f"histogram_{t}": agg.histogram(t, k=5).over("1d") for t in TYPES},
        "share": derive("CASE WHEN count_1h > 2 THEN sum_x_1d / count_1h ELSE coalesce(avg_x_1d, 0.0) END"),
        "late": derive("epoch(last_seen_1d) - epoch(first_seen) BETWEEN 0 AND 60 AND first_s IN ('a', 'b')"),
    },
)
nightly = FeatureView(
    name="nightly", entity=nobody, source=slow, freshness=Every("1d", offset="2h", delay="90m"),
    features={"sum": agg.sum("ln(x) * 2").over("7d")},
)
"""
GOLDEN = Path(__file__).parent / "golden_ids.json"


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Two commits: v1 has one view, v2 two."""
    root = tmp_path / "shop"
    shop = Shop(root)
    (root / ".gitignore").write_text(".featreg/\n")
    git(root, "init", "-q", "-b", "main")
    commit(root, "v1")
    (shop.root / "features" / "shop.py").write_text(WHOLE_SHOP)
    commit(root, "v2")
    return root


def commit(root: Path, tag: str) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", tag)
    git(root, "tag", tag)


def views_at(root: Path, revision: str) -> set[str]:
    return set(compile_definitions(load_files(read_revision(root, revision)[0])).views)


def test_definitions_are_those_of_the_commit_whatever_the_working_tree_holds(history: Path) -> None:
    spec = history / "features" / "shop.py"
    spec.write_text("not python at all (")
    before = git(history, "status", "--porcelain")
    assert views_at(history, "v1") == {"recent"} and views_at(history, "v2") == views_at(history, "main") == {"recent", "daily"}
    assert views_at(history, "main~1") == views_at(history, git(history, "rev-parse", "v1")[:10]) == {"recent"}
    with featreg.open(history, revision="v1") as registry:
        assert set(registry.compile().views) == {"recent"} and registry.applied().revision["commit"] == git(history, "rev-parse", "v1")
    assert git(history, "status", "--porcelain") == before and spec.read_text() == "not python at all ("


def test_a_bare_clone_has_history_too(history: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(history), "bare.git")
    assert views_at(tmp_path / "bare.git", "v1") == {"recent"}


def _same_name(root: Path) -> str:
    git(root, "branch", "v1", "v2")
    return "v1"


def _tag_of_a_file(root: Path) -> str:
    git(root, "tag", "file", git(root, "rev-parse", "HEAD:features/shop.py"))
    return "file"


def _link(root: Path) -> str:
    (root / "features" / "link.py").symlink_to("shop.py")
    commit(root, "linked")
    return "linked"


def _submodule(root: Path) -> str:
    git(root, "submodule", "add", "-q", str(root), "features/more")
    commit(root, "nested")
    return "nested"


def _large(root: Path) -> str:
    (root / "features" / "large.py").write_text("#" * (MOST_BYTES + 1))
    commit(root, "large")
    return "large"


def _no_folder(root: Path) -> str:
    git(root, "mv", "features", "elsewhere")
    commit(root, "moved")
    return "moved"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda root: "v3", "there is no revision 'v3'.\n  There are: main, v1, v2."),
        (lambda root: "main~9", "there is no revision 'main~9'"),
        (lambda root: "--help", "there is no revision '--help'"),
        (_same_name, "can mean more than one thing here.\n  Write refs/heads/v1 or refs/tags/v1"),
        (_tag_of_a_file, "revision 'file' is a blob, not a commit"),
        (_link, "features/link.py is a symbolic link; specs are plain files"),
        (_submodule, "features/more is a submodule; specs are plain files"),
        (_large, "features/large.py has 4,000,001 bytes"),
        (_no_folder, "at moved there is no folder 'features'"),
    ],
)
def test_what_is_no_single_commit_of_plain_specs_is_refused(history: Path, make: Callable[[Path], str], told: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_revision(history, make(history))
    assert told in str(raised.value)


def test_a_repository_without_commits_and_a_shallow_clone_say_what_to_do(history: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    with pytest.raises(UsageError, match="nothing is committed yet"):
        read_revision(tmp_path / "empty", "HEAD")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{history}", "shallow")
    with pytest.raises(UsageError, match="git fetch --unshallow"):
        read_revision(tmp_path / "shallow", git(history, "rev-parse", "v1"))
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="is no git repository"):
        read_revision(tmp_path / "none", "HEAD")


def _object(root: Path, name: str) -> Path:
    sha = git(root, "rev-parse", name)
    return root / ".git" / "objects" / sha[:2] / sha[2:]


@pytest.mark.parametrize("name", ["v1:features/shop.py", "v1:features", "v1^{tree}"])
@pytest.mark.parametrize("is_there", [False, True])
def test_an_object_that_is_missing_or_damaged_is_named(history: Path, name: str, is_there: bool) -> None:
    path = _object(history, name)
    path.chmod(0o644)
    path.write_bytes(b"not an object") if is_there else path.unlink()
    with pytest.raises(UsageError) as raised:
        read_revision(history, "v1")
    assert f"at v1, object {path.parent.name}{path.name} is not in this clone, or is damaged" in str(raised.value)
    assert "git fetch --refetch" in str(raised.value)


def test_more_files_than_specs_are_refused(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (history / "features" / f"more{number}.py").write_text("")
    commit(history, "more")
    monkeypatch.setattr("featreg.load.git.MOST_FILES", 5)
    with pytest.raises(UsageError, match="at more there are more than 5 spec files"):
        read_revision(history, "more")
    assert read_revision(history, "v1")[0]


def test_links_are_refused_in_the_working_tree_too(history: Path) -> None:
    (history / "features" / "secret.py").symlink_to("/etc/passwd")
    with featreg.open(history) as registry, pytest.raises(UsageError, match=r"features/secret\.py is a symbolic link"):
        registry.compile()
    (history / "features" / "secret.py").rename(history / "features" / ".secret.py")
    with featreg.open(history) as registry:
        registry.compile()


def test_every_verb_says_at_which_revision_specs_do_not_hold_together(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = history / "features" / "shop.py"
    spec.write_text(spec.read_text().replace('agg.last("shop")', 'agg.last("shpo")'))
    commit(history, "broken")
    git(history, "checkout", "-q", "v1")
    with pytest.raises(DefinitionError, match=r"features/shop\.py at broken:\d+: recent\.last_shop"):
        featreg.open(history, revision="broken")
    for verb in ("check --revision", "ls features --revision", "plan --revision", "diff", "show recent --revision"):
        capsys.readouterr()
        assert main(["--root", str(history), *verb.split(), "broken"]) == 1
        assert "features/shop.py at broken:" in capsys.readouterr().err, verb


def test_no_definition_id_moves() -> None:
    """Ids of the example repository and of a shop, as they were written down: no upgrade and no rewriting moves one in silence."""
    example = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in sorted((ROOT / "features").glob("*.*"))}
    shop = {"features/shop.py": (REALTIME_SHOP.replace("model =", "first =").replace('"model"', '"first"')).encode()}
    found = {
        "example": compile_definitions(load_files(example)).feature_ids(),
        "shop": compile_definitions(load_files(shop)).feature_ids(),
        "every aggregation": compile_definitions(load_files({"features/all.py": EVERY_AGGREGATION.encode()})).feature_ids(),
        "whole shop": compile_definitions(load_files({"features/shop.py": WHOLE_SHOP.encode()})).feature_ids(),
    }
    assert found == json.loads(GOLDEN.read_text())
