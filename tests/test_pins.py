"""A pin is what a model was trained on, of a commit, and nothing else; a feature that a pin reads does not go."""

import json
from pathlib import Path
from typing import Any

import pytest

from featreg.cli import main
from featreg.errors import DataError, RefusedError, UsageError
from tests.shop import ENTITY, ORDERS, REALTIME_SHOP, RECENT, Shop, at, order, spine_of

NOW = at(60)
SHARED = ENTITY + ORDERS + RECENT + (
    'model = FeatureSet(name="model", features=[recent["n_1d", "share"]], request={"basket": "DOUBLE"}, '
    'derived={"per": derive("basket / n_1d")})\n'
    'other = FeatureSet(name="other", features=[recent["last_shop"]])\n'
)  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path).commit().applied()
    shop.put("one", [order(10), order(20, shop="b")])
    return shop


def rewrite(shop: Shop, spec: str) -> None:
    (shop.root / "features" / "shop.py").write_text(spec)


def trained(registry: Any, path: Path, **options: Any) -> Path:
    return registry.training_set("model", spine_of([{"customer": "ann"}], NOW), time="as_of", **options).write(path)


# What a pin takes


def test_a_pin_takes_a_training_set_of_these_very_definitions_and_no_other(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    with shop.open() as registry:
        trained(registry, path)
        pin = registry.pin("delay:1", "model", training_set=path)
        assert pin.training_set == str(path) and registry.log.last("pin").body["manifest"]
    rewrite(shop, REALTIME_SHOP.replace('agg.sum("cents")', 'agg.sum("cents + 1")'))
    with shop.commit().open() as registry:
        registry.apply()
        with pytest.raises(RefusedError, match=r"train\.parquet was made of other definitions than those that are applied: cents_1d\."):
            registry.pin("delay:2", "model", training_set=path)
        again = registry.rollback(1).generation
        assert registry.pin("delay:2", "model", training_set=path).generation == again
        trained(registry, path, pin="delay:1")
        registry.pin("delay:3", "model", training_set=path)


def test_what_is_no_training_set_of_the_set_is_refused(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    side = tmp_path / "train.parquet.manifest.json"
    with shop.open() as registry:

        def told(kind: type[Exception], text: str) -> None:
            with pytest.raises(kind, match=text):
                registry.pin("delay:1", "model", training_set=path)
            assert not registry.control().pins

        told(DataError, r"train\.parquet\.manifest\.json is not there")
        trained(registry, path)
        manifest = side.read_text()
        path.rename(tmp_path / "elsewhere")
        told(DataError, "only its manifest is")
        (tmp_path / "elsewhere").rename(path)
        for text in ("{", "[]", '{"set": "model"}'):
            side.write_text(text)
            told(DataError, "is no manifest of a training set")
        side.write_text(manifest.replace('"set": "model"', '"set": "modle"'))
        told(RefusedError, "is a training set of 'modle', not of 'model'")


@pytest.mark.parametrize("state", ["no repository", "dirty", "untracked"])
def test_a_pin_holds_a_commit(tmp_path: Path, state: str) -> None:
    shop = Shop(tmp_path)
    if state != "no repository":
        shop.commit()
        rewrite(shop, REALTIME_SHOP + "# a comment\n") if state == "dirty" else (tmp_path / "features" / "more.py").write_text("")
    with shop.applied().open() as registry:
        what = "without a commit" if state == "no repository" else "from changes that were not committed"
        with pytest.raises(RefusedError, match=f"generation 1 was applied {what}, and a pin holds a commit"):
            registry.pin("delay:1", "model")
        shop.commit()
        assert registry.apply().generation == 2 and registry.pin("delay:1", "model").generation == 2


def test_a_name_never_means_anything_else_not_even_when_the_pin_was_removed(shop: Shop) -> None:
    with shop.open() as registry:
        pin = registry.pin("delay:1", "model")
        assert registry.unpin("delay:1") == pin and registry.control().pins == {}
        with pytest.raises(UsageError, match="there is no pin 'delay:1'"):
            registry.unpin("delay:1")
        with pytest.raises(UsageError, match="there is no pin 'delay:1'"):
            registry.training_set("model", spine_of([], NOW), time="as_of", pin="delay:1")
    rewrite(shop, REALTIME_SHOP.replace('agg.last("shop")', 'agg.first("shop")'))
    with shop.commit().open() as registry:
        registry.apply()
        with pytest.raises(RefusedError, match="delay:1 is pinned already and removed since: 'model' of generation 1"):
            registry.pin("delay:1", "model")
        registry.rollback()
        assert dict(registry.pin("delay:1", "model").features) == dict(pin.features) and list(registry.control().pins) == ["delay:1"]


def test_cleaning_up_takes_what_only_a_removed_pin_reached(shop: Shop) -> None:
    with shop.open() as registry:
        registry.materialize(to=NOW)
        registry.pin("delay:1", "model")
    for number in (2, 3):
        # Another filter is another meaning of every feature: nothing of the pinned one is built upon.
        rewrite(shop, REALTIME_SHOP.replace("freshness=REALTIME,", f'freshness=REALTIME, where="cents > {number}",'))
        with shop.commit().open() as registry:
            registry.apply()
            registry.materialize(to=NOW)
    with shop.open() as registry:
        assert registry.gc() == []
        registry.unpin("delay:1")
        assert len(registry.gc(delete=True)) == 1 and registry.gc() == []


# What is to go


def test_a_feature_that_is_to_go_is_told_in_every_plan_that_touches_a_reader(shop: Shop) -> None:
    rewrite(shop, SHARED)
    with shop.commit().open() as registry:
        registry.apply()
        retirement = registry.retire("recent.n_10m", "2030-01-01")  # read by share, and so by the set 'model'
        assert (retirement.feature, retirement.on) == ("recent.n_10m", 1_893_456_000_000_000)
        assert registry.plan().warnings == ()
        for old, new, is_told in (
            ('derive("basket / n_1d")', 'derive("n_1d / basket")', True),  # a derived feature of the set that reads it
            ('derive("n_10m / n_1d")', 'derive("n_1d / n_10m")', True),  # what is derived from it
            ('agg.count_distinct("shop").over("1d")', 'agg.count_distinct("shop").over("2d")', False),  # no set has it
            ('agg.last("shop")', 'agg.first("shop")', False),  # another set's
        ):
            assert old in SHARED
            rewrite(shop, SHARED.replace(old, new))
            warnings = registry.plan().warnings
            assert bool(warnings) is is_told, (old, warnings)
            if is_told:
                assert warnings[0].startswith("recent.n_10m is retired on 2030-01-01T00:00:00")
                assert warnings[0].endswith("Still read by set model.")
        rewrite(shop, SHARED.replace('derive("basket / n_1d")', 'derive("n_1d / basket")'))
        assert registry.retire("recent.n_10m", None) is None and registry.plan().warnings == ()
        registry.retire("recent.n_10m", "2020-01-01")
        assert "was to be gone by 2020-01-01" in registry.plan().warnings[0]


def test_what_a_pin_reads_does_not_go_and_no_new_pin_takes_what_goes(shop: Shop) -> None:
    rewrite(shop, SHARED)
    with shop.commit().open() as registry:
        registry.apply()
        registry.pin("delay:1", "model")
        for feature in ("recent.n_1d", "recent.n_10m", "recent.share"):
            with pytest.raises(RefusedError, match=f"{feature} is read by delay:1"):
                registry.retire(feature, "2030-01-01")
        registry.retire("recent.last_shop", "2030-01-01")
        with pytest.raises(RefusedError, match=r"recent.last_shop is retired on 2030-01-01.*no new pin takes it"):
            registry.pin("shops:1", "other")
        registry.unpin("delay:1")
        registry.retire("recent.n_1d", "2030-01-01")
        with pytest.raises(UsageError, match=r"there is no feature 'recent\.n_2d' in what is applied"):
            registry.retire("recent.n_2d", "2030-01-01")
        with pytest.raises(UsageError, match=r"recent\.shops_1d is not being retired"):
            registry.retire("recent.shops_1d", None)
        with pytest.raises(UsageError, match="soon"):
            registry.retire("recent.shops_1d", "soon")


def test_a_plan_names_the_pins_that_hold_what_it_changes(shop: Shop) -> None:
    with shop.open() as registry:
        registry.pin("delay:1", "model")
        rewrite(shop, REALTIME_SHOP.replace('agg.last("shop")', 'agg.first("shop")'))
        changed = {change.name: change.dependants for change in registry.plan().changes if change.kind != "none"}
        assert changed == {"recent.last_shop": ("set model", "pin delay:1")}


def test_pins_and_retirement_on_the_command_line(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(shop.root)

    def run(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == code
        printed = capsys.readouterr()
        return printed.out + printed.err

    with shop.open() as registry:
        trained(registry, shop.root / "train.parquet")
    assert "pinned" in run("pin", "create", "delay:1", "--set", "model", "--training-set", "train.parquet")
    assert "is read by delay:1" in run("retire", "recent.n_1d", "--on", "2030-01-01", code=4)
    assert "removed  delay:1" in run("pin", "rm", "delay:1")
    assert json.loads(run("pin", "ls", "--json")) == []
    assert "goes on 2030-01-01" in run("retire", "recent.n_1d", "--on", "2030-01-01")
    assert "--cancel" in run("retire", "recent.n_1d", code=2) + run("retire", "recent.n_1d", "--on", "2030-01-01", "--cancel", code=2)
    rewrite(shop, REALTIME_SHOP.replace('agg.last("shop")', 'agg.first("shop")'))
    assert "warning  recent.n_1d is retired on 2030-01-01" in run("plan")
    assert "- **warning**: recent.n_1d is retired" in run("plan", "--format", "markdown")
    assert json.loads(run("plan", "--json"))["warnings"]
    assert "stays" in run("retire", "recent.n_1d", "--cancel")
    assert json.loads(run("plan", "--json"))["warnings"] == []
