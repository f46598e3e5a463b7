"""Retention says until when what was trained can be made again, and deletes nothing but featreg's own copies that nobody needs."""

import json
from pathlib import Path
from typing import Any

import pytest

from featreg.cli import main
from featreg.instants import DAY, parse_instant
from tests.shop import REALTIME_SHOP, Shop, at, order, spine_of
from tests.test_snapshots import PROFILE, put
from tests.test_time_travel import _commit

BOUNDED = REALTIME_SHOP.replace(', "1d", None)', ', "1d")').replace('"last_shop": agg.last("shop"),', "")
WITH = 'tie_break="shop", partition="day=%Y-%m-%d", retention="90d",'
NOW = parse_instant("2030-01-01")


def shop_of(tmp_path: Path, spec: str = BOUNDED, more: str = WITH) -> Shop:
    shop = Shop(tmp_path, spec.replace('tie_break="shop",', more), PROFILE)
    for day in (1, 2, 3):
        put(shop, day, [order(1440 * (day - 1) + minute) for minute in range(0, 1440, 100)])
    _commit(tmp_path)
    return shop.applied()


def write(registry: Any, root: Path, name: str = "train", **options: Any) -> str:
    ts = registry.training_set("model", spine_of([{"customer": "ann"}], at(1440 * 2 + 60)), time="as_of", **options)
    ts.write(root / f"{name}.parquet")
    return ts.manifest["id"]


def test_the_last_day_is_the_first_needed_row_and_the_retention(tmp_path):
    """A day's window as of the 3rd of March 01:00 begins on the 2nd, on the grid of its hop; 90 days later is the 31st of May."""
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        identity = write(registry, tmp_path)
        registry.pin("churn:1", "model", tmp_path / "train.parquet")
        last = parse_instant("2024-05-31")
        before, after = registry.retention(at=last + DAY - 1), registry.retention(at=last + DAY)
    assert [(one.what, one.source, one.last_day) for one in before.replays] == [
        ("pin churn:1", "orders", last), (f"training set {identity[:12]}", "orders", last),
    ]  # fmt: skip
    assert not before.breaks and len(after.breaks) == 2


def test_what_a_snapshot_holds_has_no_last_day(tmp_path):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        taken = registry.snapshot("orders").id
        write(registry, tmp_path)
        found = registry.retention(at=NOW)
    assert [(one.held_by, one.last_day) for one in found.replays] == [(taken, None)] and not found.breaks and not found.deletions


def test_features_without_a_window_or_a_start_come_first(tmp_path):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        bounded = write(registry, tmp_path, "a")
    (tmp_path / "features" / "shop.py").write_text(REALTIME_SHOP.replace('tie_break="shop",', WITH))
    with shop.applied().open() as registry:
        unbounded = write(registry, tmp_path, "b")
        found = registry.retention(at="2024-03-04")
    told = [(one.what, one.unbounded) for one in found.replays]
    assert told == [(f"training set {unbounded[:12]}", True), (f"training set {bounded[:12]}", False)]


def test_only_own_copies_that_nothing_holds_are_deleted(tmp_path):
    """Three snapshots: of the first a training set was made, the third is the newest. The second goes, and no file of the source."""
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        held = registry.snapshot("orders").id
        write(registry, tmp_path)
        put(shop, 3, [order(1440 * 2 + 1)])
        loose = registry.snapshot("orders").snapshot
        put(shop, 3, [order(1440 * 2 + 2)])
        newest = registry.snapshot("orders").id
        files = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*.parquet")}
        assert not registry.retention().deletions  # taken just now
        assert [one.snapshot for one in registry.retention(at=NOW).deletions] == [loose.id]
        plan, freed = registry.apply_retention(at=NOW)
        assert [one.snapshot for one in plan.deletions] == [loose.id] and freed > 0
        assert {one.id: one.removed_at is None for one in registry.snapshots()} == {held: True, loose.id: False, newest: True}
        assert {path: path.read_bytes() for path in (tmp_path / "data").rglob("*.parquet")} == files
        assert registry.verify_snapshot(held).is_sound and registry.verify_snapshot(newest).is_sound
        again, freed = registry.apply_retention(at=NOW)
        assert not again.deletions and freed == 0


def test_a_source_without_retention_keeps_all(tmp_path):
    shop = shop_of(tmp_path, more='tie_break="shop",')
    with shop.open() as registry:
        registry.snapshot("orders")
        put(shop, 3, [order(1440 * 2 + 1)])
        registry.snapshot("orders")
        assert not registry.retention(at=NOW).deletions


@pytest.mark.parametrize("verb", ["plan", "apply"])
def test_the_command_line_plans_and_applies(tmp_path, capsys, verb):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        identity = write(registry, tmp_path)
    capsys.readouterr()
    assert main(["retention", verb, "--at", "2025-01-01", "--json", "-C", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(one["what"], one["last_day"], one["is_past"]) for one in said["breaks"]] == [
        (f"training set {identity[:12]}", "2024-05-31", True)
    ]
    assert main(["retention", verb, "-C", str(tmp_path)]) == 0
