"""What was pushed is part of a snapshot and of a training set's record: read again to the very row, or it is said what is gone."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featreg.cli import main
from featreg.errors import CoverageError
from featreg.registry.push_log import PushLog
from tests import content_reference as reference
from tests.shop import BOTH_SET, COLUMNS, DAILY, ENTITY, ORDERS, REALTIME_SET, RECENT, Shop, at, order, order_table, spine_of

LOG = ORDERS.replace('tie_break="shop",', 'tie_break="shop", stream="log",')
UNTIL_BATCH = ORDERS.replace('tie_break="shop",', 'tie_break="shop", stream="until_batch",')
ARRIVAL = ORDERS.replace('available="loaded_at"', 'available="arrival"')
NO_FILES = "[online]\n"
FAMILIES = {
    "customer": "string", "amount": "double", "cents": "integer", "shop": "string", "bought_at": "timestamp", "loaded_at": "timestamp",
}  # fmt: skip
ANN = [{"customer": "ann"}]


def shop_of(root: Path, source: str = LOG, profile: str = NO_FILES, daily: bool = False) -> Shop:
    return Shop(root, ENTITY + source + RECENT + (DAILY + BOTH_SET if daily else REALTIME_SET), profile).applied()


def by_loop(rows: list[dict[str, Any]]) -> list[int]:
    table = order_table(rows)
    micros = {name: table[name].cast(pa.timestamp("us")).cast(pa.int64()) for name in COLUMNS if FAMILIES[name] == "timestamp"}
    columns = [(name, family, micros.get(name, table[name]).to_pylist()) for name, family in FAMILIES.items()]
    return reference.numbers(columns, table.num_rows)


def trained(registry: Any, **options: Any) -> Any:
    return registry.training_set("model", spine_of(ANN, at(100)), time="as_of", **options)


def segments(root: Path) -> list[Path]:
    return sorted((root / ".featreg" / "registry" / "push" / "orders").glob("*.segment"))


def test_a_snapshot_of_pushed_rows_alone_has_the_numbers_of_the_loop(tmp_path):
    rows = [order(minute, amount=0.5 * minute) for minute in range(9)]
    with shop_of(tmp_path).open() as registry:
        for begin in range(0, 9, 2):
            registry.push("orders", rows[begin : begin + 2])
        taken = registry.snapshot("orders").snapshot
        assert taken.numbers.listed() == by_loop(rows) and not taken.files
        assert (taken.first, taken.last) == tuple(round(at(minute).timestamp() * 1e6) for minute in (0, 8))
        assert registry.snapshot("orders").id == taken.id
        registry.push("orders", [order(9)])
        more = registry.snapshot("orders").snapshot
        assert more.numbers.listed() == by_loop([*rows, order(9)])
        found = registry.diff_snapshots(taken.id, more.id).partitions
        assert [tuple(vars(one).values()) for one in found] == [("push log", 9, 10, 1, 0, 0)]
        assert registry.diff_snapshots(taken.id).partitions == found
        assert registry.verify_snapshot(taken.id).is_sound


@pytest.mark.parametrize("daily", [False, True], ids=["realtime", "with every"])
def test_a_training_set_reads_the_log_up_to_the_snapshot(tmp_path, daily):
    """And again as it was, though rows came since, of the past too."""
    rows = [order(minute, amount=0.5 * minute) for minute in range(9)]
    with shop_of(tmp_path, daily=daily).open() as registry:
        registry.push("orders", rows)
        taken = registry.snapshot("orders")
        ts = trained(registry)
        ts.write(tmp_path / "train.parquet")
        before = ts.to_arrow()
        assert before.equals(trained(registry, sources={"orders": order_table(rows)}).to_arrow())
        registry.push("orders", [order(3.5, amount=100.0)])
        assert not trained(registry).to_arrow().equals(before)
        assert trained(registry, snapshot=taken.id).to_arrow().equals(before)
        assert registry.reproduce(ts.manifest["id"]).same_bytes
        held = trained(registry, snapshot=taken.id)
        held.write(tmp_path / "held.parquet")
        assert registry.reproduce(held.manifest["id"]).same_bytes


def test_what_was_made_before_the_first_push_is_made_again_without_it(tmp_path):
    shop = shop_of(tmp_path, profile='[sources]\norders = "data/*.parquet"\n')
    shop.put("one", [order(minute) for minute in range(5)])
    with shop.open() as registry:
        taken = registry.snapshot("orders")
        ts = trained(registry)
        ts.write(tmp_path / "train.parquet")
        registry.push("orders", [order(50, amount=9.0)])
        assert registry.reproduce(ts.manifest["id"]).same_bytes
        assert trained(registry, snapshot=taken.id).to_arrow().equals(ts.to_arrow())
        assert not trained(registry).to_arrow().equals(ts.to_arrow())


def test_files_and_pushed_rows_are_one_snapshot(tmp_path):
    """Of files that have a column more than what is pushed: it is NULL in pushed rows, and the numbers are those of all rows."""
    shop = shop_of(tmp_path, profile='[sources]\norders = "data/*.parquet"\n')
    old, new = [order(minute) for minute in range(5)], [order(50), order(51, amount=2.0)]
    shop.put("one", order_table(old).append_column("note", pa.array(list("abcde"))))
    with shop.open() as registry:
        registry.push("orders", new)
        taken = registry.snapshot("orders").snapshot
        table = order_table(old + new)
        micros = {name: table[name].cast(pa.timestamp("us")).cast(pa.int64()) for name in ("bought_at", "loaded_at")}
        columns = [(name, family, micros.get(name, table[name]).to_pylist()) for name, family in FAMILIES.items()]
        assert taken.numbers.listed() == reference.numbers([*columns, ("note", "string", [*"abcde", None, None])], 7)
        ts = trained(registry, snapshot=taken.id)
        assert ts.to_arrow().equals(trained(registry, sources={"orders": table}).to_arrow())
        ts.write(tmp_path / "train.parquet")
        shop.put("one", order_table(old[:2]).append_column("note", pa.array(list("ab"))))
        registry.push("orders", [order(52)])
        assert registry.reproduce(ts.manifest["id"]).same_bytes
        assert [str(one.kind) for one in registry.verify_snapshot(taken.id).drift.verdicts] == ["CONTENT_DRIFT"]


def test_until_batch_is_read_as_it_stood_when_the_snapshot_was_taken(tmp_path):
    """Pushed rows gave way to files up to 60 then; a later run covers more, and the snapshot's files have not those rows."""
    shop = shop_of(tmp_path, UNTIL_BATCH, '[sources]\norders = "data/*.parquet"\n')
    rows = [order(minute, amount=0.25 * minute) for minute in range(0, 90, 10)]
    shop.put("one", rows[:6])
    with shop.open() as registry:
        registry.materialize(to=at(60))
        registry.push("orders", rows[6:])
        taken = registry.snapshot("orders")
        ts = trained(registry)
        ts.write(tmp_path / "train.parquet")
        assert ts.to_arrow().equals(trained(registry, sources={"orders": order_table(rows)}).to_arrow())
        shop.put("two", rows[6:])
        registry.materialize(to=at(95))
        assert trained(registry, snapshot=taken.id).to_arrow().equals(ts.to_arrow())
        assert registry.reproduce(ts.manifest["id"]).same_bytes


def test_rows_stamped_on_arrival_come_back_with_their_stamp(tmp_path):
    with shop_of(tmp_path, ARRIVAL).open() as registry:
        registry.push("orders", [order(minute, amount=float(minute)) for minute in range(4)])
        taken = registry.snapshot("orders")
        assert "featreg arrived at:timestamp" in taken.snapshot.shape
        ts = registry.training_set("model", spine_of(ANN, taken.at), time="as_of", snapshot=taken.id)
        ts.write(tmp_path / "train.parquet")
        registry.push("orders", [order(4)])
        assert registry.reproduce(ts.manifest["id"]).same_bytes and registry.verify_snapshot(taken.id).is_sound


def test_a_log_that_lost_a_segment_or_a_byte_is_told_before_anything_is_scanned(tmp_path):
    """By name: the segment that is gone, the one that was cut off, and the rows of the one that was edited."""
    with shop_of(tmp_path).open() as registry:
        registry.push("orders", [order(1)])
        registry.push("orders", [order(2)])
        taken = registry.snapshot("orders")
        ts = trained(registry)
        ts.write(tmp_path / "train.parquet")
    (path,) = segments(tmp_path)
    whole = path.read_bytes()
    with shop_of(tmp_path).open() as registry:
        path.write_bytes(whole[:-40])
        verbs = lambda: registry.reproduce(ts.manifest["id"]), lambda: trained(registry, snapshot=taken.id), lambda: trained(registry)
        for verb in verbs:
            with pytest.raises(CoverageError, match=rf"PARTITION_MISSING orders push log {path.name}: expected 2 .*rows"):
                verb()
        assert registry.verify_snapshot(taken.id).damaged == ("push log",)
        path.unlink()
        with pytest.raises(CoverageError, match="PARTITION_MISSING orders push log"):
            registry.reproduce(ts.manifest["id"])
        path.write_bytes(whole)
        assert registry.verify_snapshot(taken.id).is_sound and registry.reproduce(ts.manifest["id"]).identical
        path.unlink()
        records = [order_table([order(1)]), order_table([order(2, amount=7.0)])]  # another log, whole in itself
        _forge(path, records)
        path.write_bytes(path.read_bytes() + b"\0" * max(0, len(whole) - path.stat().st_size))
        with pytest.raises(CoverageError, match="CONTENT_DRIFT orders push log: expected 2 rows"):
            registry.reproduce(ts.manifest["id"])
        assert registry.verify_snapshot(taken.id).damaged == ("push log",)


def _forge(path: Path, tables: list[pa.Table]) -> None:
    from featreg.registry.pushed import Pushed

    log = PushLog(path.parent)
    log.append([Pushed(table, 1, 1, 2) for table in tables])
    log.close()
    (made,) = segments(path.parents[4])
    made.rename(path)


def test_a_stream_is_never_not_yet_complete_where_it_is_read_live(tmp_path):
    """Days in files, the rest pushed: rows after the newest file's day are in the log."""
    source = LOG.replace('tie_break="shop",', 'tie_break="shop", partition="day=%Y-%m-%d", starts="2024-03-01",')
    shop = shop_of(tmp_path, source, '[sources]\norders = "data/**/*.parquet"\n')
    (tmp_path / "data" / "day=2024-03-01").mkdir()
    shop.put("day=2024-03-01/one", [order(minute) for minute in range(5)])
    with shop.open() as registry:
        registry.push("orders", [order(1440 + 5)])
        spine = spine_of(ANN, at(1440 * 2 + 10))
        assert registry.training_set("model", spine, time="as_of").to_arrow()["n_1d"].to_pylist() == [1]
        registry.snapshot("orders")
        registry.push("orders", [order(1440 * 2 + 5)])
        assert registry.training_set("model", spine, time="as_of").to_arrow()["n_1d"].to_pylist() == [2]


def test_the_command_line_takes_what_was_pushed(tmp_path, capsys):
    with shop_of(tmp_path).open() as registry:
        registry.push("orders", [order(1), order(2)])
    assert main(["snapshot", "take", "orders", "-C", str(tmp_path)]) == 0
    assert "2 rows, 0 files and 2 that were pushed" in capsys.readouterr().out


def test_sealing_moves_nothing_that_a_snapshot_knows(tmp_path):
    """Segments of several days, one of them torn at its end by a kill; sealed, they are what they were."""
    day, now = 86_400_000_000, [0]
    folder = tmp_path / ".featreg" / "registry" / "push" / "orders"
    with shop_of(tmp_path).open() as registry:
        from featreg.session.push import Pusher

        for number in range(4):
            now[0] = number * day + 1
            pusher = Pusher(registry, "orders", clock=lambda: now[0])
            pusher.push([order(number, amount=float(number)), order(number + 0.5)])
            pusher.close()
            if number == 1:
                live = sorted(folder.glob("*.segment"))[-1]
                live.write_bytes(live.read_bytes() + b"\x40\0\0\0torn")
        taken = registry.snapshot("orders")
        ts = trained(registry)
        ts.write(tmp_path / "train.parquet")
        PushLog(folder).seal()
        assert len(list(folder.glob("*.segment"))) == 1
        assert registry.verify_snapshot(taken.id).is_sound and registry.snapshot("orders").id == taken.id
        assert registry.reproduce(ts.manifest["id"]).same_bytes
        assert trained(registry, snapshot=taken.id).to_arrow().equals(ts.to_arrow())
