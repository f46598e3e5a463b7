"""What is asked is held against what is there before anything is scanned, and nothing that is missing becomes empty."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featreg
from featreg.errors import CoverageError
from featreg.instants import DAY, HOUR, parse_instant
from featreg.session.drift import drift
from featreg.snapshots.coverage import Kind, Need, window_coverage
from featreg.snapshots.manifest import File, Partition, Snapshot
from featreg.snapshots.numbers import Numbers
from featreg.snapshots.scheme import read_scheme
from tests.shop import ENTITY, ORDERS, Shop, at, order, spine_of
from tests.test_snapshots import PROFILE, put

DAYS = """
days = FeatureView(name="days", entity=customer, source=orders, freshness=REALTIME, features={"n": agg.count().over(WINDOW)})
model = FeatureSet(name="model", features=[days.all()])
"""
ANN = [{"customer": "ann"}]
NOON = 12 * 60


def spec(more: str = 'partition="day=%Y-%m-%d",', window: str = '"1d", hop="1h"') -> str:
    return ENTITY + ORDERS.replace('tie_break="shop",', f'tie_break="shop", {more}') + DAYS.replace("WINDOW", window)


def shop_of(tmp_path: Path, text: str | None = None, days: int = 5) -> Shop:
    """One order at 10:00 of each day from the first of March 2024 on."""
    shop = Shop(tmp_path, text or spec(), PROFILE).applied()
    for day in range(1, days + 1):
        put(shop, day, [order(1440 * (day - 1) + 600)])
    return shop


def noon_of(day: int) -> datetime:
    return at(1440 * (day - 1) + NOON)


def asked(registry: Any, day: int, **options: Any) -> int:
    """How many orders Ann had within a day, as of noon."""
    return registry.training_set("model", spine_of(ANN, noon_of(day)), time="as_of", **options).to_arrow()["n_1d"][0].as_py()


def refused(registry: Any, day: int, **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(CoverageError) as raised:
        asked(registry, day, **options)
    told = str(raised.value)
    for one in raised.value.coverage.failing:  # each says all that it has to
        assert all(part in told for part in (one.source, one.partition, one.expected, one.found, one.remedy, one.last_event))
        assert one.remedy and one.expected and one.found and one.last_event
    return [(str(one.kind), one.partition) for one in raised.value.coverage.failing]


def test_a_whole_source_is_filled_from_its_snapshot_as_from_its_location(tmp_path):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        taken = registry.snapshot("orders")
        assert asked(registry, 3) == asked(registry, 3, snapshot=taken.id) == asked(registry, 3, snapshot="latest") == 1
        assert asked(registry, 3, snapshot={"orders": taken.id[:10]}) == asked(registry, 3, snapshot=[taken.id]) == 1


def test_a_snapshot_is_read_whatever_became_of_the_source(tmp_path):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        taken = registry.snapshot("orders")
        for day in (2, 3):
            next((tmp_path / "data" / f"day=2024-03-0{day}").iterdir()).unlink()
        assert asked(registry, 3, snapshot=taken.id) == 1
        assert refused(registry, 3) == [("PARTITION_MISSING", "day=2024-03-03")]  # it had no row of the 2nd after noon


def test_only_what_is_needed_must_be_there(tmp_path):
    """A day's window as of the 5th at noon has no row of the 4th, which were before noon."""
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        registry.snapshot("orders")
        for day in (1, 2, 3, 4):
            next((tmp_path / "data" / f"day=2024-03-0{day}").iterdir()).unlink()
        assert asked(registry, 5) == 1
        assert refused(registry, 4) == [("PARTITION_MISSING", "day=2024-03-04")]


def test_without_a_snapshot_a_scheme_says_what_is_missing(tmp_path):
    shop = shop_of(tmp_path)
    next((tmp_path / "data" / "day=2024-03-03").iterdir()).unlink()
    with shop.open() as registry:
        assert refused(registry, 3) == [("PARTITION_MISSING", "day=2024-03-03")]
        assert refused(registry, 4) == [("PARTITION_MISSING", "day=2024-03-03")]
        assert asked(registry, 5) == 1


def test_a_window_that_reaches_before_the_data_is_told_of(tmp_path):
    """Noon of the first day, a day back: the 29th of February."""
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        assert refused(registry, 1) == [("WINDOW_NOT_COVERED", "before 2024-03-01T00:00:00Z")]
    (tmp_path / "features" / "shop.py").write_text(spec('partition="day=%Y-%m-%d", starts="2024-03-01",'))
    with shop.applied().open() as registry:
        assert asked(registry, 1) == 1


def test_a_source_that_begins_later_than_it_is_declared_to_was_cut(tmp_path):
    shop = Shop(tmp_path, spec('starts="2024-02-01",', '"30d"'), '[sources]\norders = "data/*.parquet"\n').applied()
    shop.put("one", [order(0), order(600)])
    with shop.open() as registry:
        taken = registry.snapshot("orders")
        with pytest.raises(CoverageError, match=r"WINDOW_NOT_COVERED orders .*declared to start at 2024-02-01T00:00:00Z") as raised:
            registry.training_set("model", spine_of(ANN, at(720)), time="as_of", snapshot=taken.id)
    assert raised.value.kinds == ("WINDOW_NOT_COVERED",)


def test_a_source_that_was_never_kept_and_begins_later_than_declared_was_cut(tmp_path):
    """Footers alone tell it, in whatever order the files come; one of them has no rows."""
    shop = Shop(tmp_path, spec('starts="2024-02-01",', '"30d"'), '[sources]\norders = "data/*.parquet"\n').applied()
    shop.put("a", [order(1440 + 600)])
    shop.put("b", [order(0), order(600)])
    shop.put("c", [])
    with shop.open() as registry:
        assert refused(registry, 2) == [("WINDOW_NOT_COVERED", "before 2024-03-01T00:00:00Z")]
        shop.put("c", [order(-29 * 1440)])  # the first of February, of which a window of 30 days sees nothing
        made = registry.training_set("model", spine_of(ANN, noon_of(2)), time="as_of")
        assert made.to_arrow()["n_30d"].to_pylist() == [3] and not made.manifest["coverage"]


def test_a_source_that_was_never_kept_and_begins_within_the_window_is_noted(tmp_path):
    """There may never have been more, as in a first example: it is said, and nothing is refused."""
    shop = Shop(tmp_path, spec("", '"30d"'), '[sources]\norders = "data/*.parquet"\n').applied()
    shop.put("one", [order(0), order(600)])
    with shop.open() as registry:
        made = registry.training_set("model", spine_of(ANN, noon_of(1)), time="as_of")
        assert [one["kind"] for one in made.manifest["coverage"]] == ["WINDOW_NOT_COVERED"]
        shop.put("two", [order(-31 * 1440)])
        assert not registry.training_set("model", spine_of(ANN, noon_of(1)), time="as_of").manifest["coverage"]


def test_an_instant_after_the_last_partition_is_not_yet_complete(tmp_path):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        taken = registry.snapshot("orders")
        assert refused(registry, 6) == [("NOT_YET_COMPLETE", "from 2024-03-06T00:00:00Z")]
        assert refused(registry, 6, snapshot=taken.id) == [("NOT_YET_COMPLETE", "from 2024-03-06T00:00:00Z")]


def test_without_a_scheme_an_instant_after_the_last_row_is_noted(tmp_path):
    """A source of few rows may well have had none since; the manifest says that nobody knows."""
    shop = Shop(tmp_path, spec("", '"1d"'), '[sources]\norders = "data/*.parquet"\n').applied()
    shop.put("one", [order(600), order(1440 + 600)])
    with shop.open() as registry:
        registry.snapshot("orders")
        made = registry.training_set("model", spine_of(ANN, noon_of(3)), time="as_of")
    assert [one["kind"] for one in made.manifest["coverage"]] == ["NOT_YET_COMPLETE"]


def test_a_feature_without_a_window_is_unbounded_until_the_source_says_when_it_starts(tmp_path):
    shop = shop_of(tmp_path, spec(window="None"))
    with shop.open() as registry:
        registry.snapshot("orders")
        made = registry.training_set("model", spine_of(ANN, noon_of(3)), time="as_of")
    assert [one["kind"] for one in made.manifest["coverage"]] == ["UNBOUNDED"] and made.to_arrow()["n"].to_pylist() == [3]
    (tmp_path / "features" / "shop.py").write_text(spec('partition="day=%Y-%m-%d", starts="2024-03-01",', "None"))
    with shop.applied().open() as registry:
        assert not registry.training_set("model", spine_of(ANN, noon_of(3)), time="as_of").manifest["coverage"]


def test_other_bytes_of_the_same_rows_pass_and_are_noted(tmp_path):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        taken = registry.snapshot("orders")
        put(shop, 3, [order(1440 * 2 + 600)], compression="zstd")
        made = registry.training_set("model", spine_of(ANN, noon_of(3)), time="as_of")
        assert [(one["kind"], one["partition"]) for one in made.manifest["coverage"]] == [("REWRITTEN_SAME", "day=2024-03-03")]
        assert made.manifest["snapshots"] == {}  # these are not its files
        assert made.manifest["content_id"] == registry.training_set(
            "model", spine_of(ANN, noon_of(3)), time="as_of", snapshot=taken.id
        ).manifest["content_id"]


def test_changed_rows_are_counted(tmp_path):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        registry.snapshot("orders")
        put(shop, 3, [order(1440 * 2 + 600, amount=5.0), order(1440 * 2 + 601)])
        with pytest.raises(CoverageError, match=r"CONTENT_DRIFT orders day=2024-03-03: .*rows \+2 −1"):
            asked(registry, 3)
        assert asked(registry, 5) == 1  # it does not read that day


def test_rows_that_are_later_than_all_that_was_there_are_growth(tmp_path):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        registry.snapshot("orders")
        put(shop, 5, [order(1440 * 4 + 600), order(1440 * 4 + 660)])
        made = registry.training_set("model", spine_of(ANN, noon_of(5)), time="as_of")
        assert [one["kind"] for one in made.manifest["coverage"]] == ["GROWN"] and made.to_arrow()["n_1d"].to_pylist() == [2]
        put(shop, 5, [order(1440 * 4 + 300), order(1440 * 4 + 600), order(1440 * 4 + 660)])  # 05:00 is late, not growth
        assert refused(registry, 5) == [("CONTENT_DRIFT", "day=2024-03-05")]


def test_other_columns_are_told_apart_from_other_rows(tmp_path):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        registry.snapshot("orders")
        path = put(shop, 3, [order(1440 * 2 + 600)])
        table = pq.ParquetFile(path).read()
        put(shop, 3, table.set_column(table.column_names.index("cents"), "cents", table["cents"].cast(pa.string())))
        with pytest.raises(CoverageError, match=r"SCHEMA_DRIFT orders day=2024-03-03: .*column 'cents' is VARCHAR, not BIGINT"):
            asked(registry, 3)
        put(shop, 3, table.drop_columns(["shop"]))
        with pytest.raises(CoverageError, match=r"SCHEMA_DRIFT orders day=2024-03-03: .*column 'shop' is gone"):
            asked(registry, 3)


def test_a_truncated_file_is_named(tmp_path):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        registry.snapshot("orders")
        path = next((tmp_path / "data" / "day=2024-03-03").iterdir())
        path.write_bytes(path.read_bytes()[:-20])
        assert refused(registry, 3) == [("CONTENT_DRIFT", "day=2024-03-03")]


def test_a_snapshot_that_is_gone_is_told_of_with_what_it_had(tmp_path):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        taken = registry.snapshot("orders").snapshot
        (tmp_path / ".featreg" / "objects" / taken.files[0].sha256).unlink()
        assert refused(registry, 3, snapshot=taken.id) == [("SNAPSHOT_GONE", f"snapshot {taken.id[:12]}")]
        assert registry.snapshot("orders").id == taken.id  # the source still has it: it is put back
        assert asked(registry, 3, snapshot=taken.id) == 1
        registry.remove_snapshot(taken.id)
        with pytest.raises(CoverageError, match=r"SNAPSHOT_GONE orders snapshot .*5 rows in 5 files.*\n +Last event: .*removed"):
            asked(registry, 3, snapshot=taken.id)


def test_without_a_scheme_only_a_file_that_was_listed_can_be_missing(tmp_path):
    shop = Shop(tmp_path, spec("", '"1d"'), '[sources]\norders = "data/*.parquet"\n').applied()
    for day in (1, 2, 4):
        shop.put(f"d{day}", [order(1440 * (day - 1) + 600)])
    with shop.open() as registry:
        registry.snapshot("orders")
        assert asked(registry, 4) == 1
        (tmp_path / "data" / "d4.parquet").unlink()
        with pytest.raises(CoverageError, match=r"(?s)PARTITION_MISSING orders data/d4.parquet.*Not checked: orders: without partition="):
            asked(registry, 4)


def test_files_put_together_without_a_scheme_are_the_same_rows(tmp_path):
    shop = Shop(tmp_path, spec("", '"1d"'), '[sources]\norders = "data/*.parquet"\n').applied()
    rows = [order(1440 * (day - 1) + 600) for day in (1, 2, 3)]
    paths = [shop.put(f"d{number}", [row]) for number, row in enumerate(rows)]
    with shop.open() as registry:
        registry.snapshot("orders")
        for path in paths:
            path.unlink()
        shop.put("all", rows)
        made = registry.training_set("model", spine_of(ANN, noon_of(3)), time="as_of")
    assert {one["kind"] for one in made.manifest["coverage"]} == {"REWRITTEN_SAME"} and made.to_arrow()["n_1d"].to_pylist() == [1]


def test_no_event_but_the_last_is_told(tmp_path):
    """A verdict names the last recorded event that touched the source: here the second snapshot."""
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        registry.snapshot("orders")
        put(shop, 4, [order(1440 * 3 + 601)])
        second = registry.snapshot("orders")
        next((tmp_path / "data" / "day=2024-03-03").iterdir()).unlink()
        with pytest.raises(CoverageError, match=rf"Last event: snapshot {second.id[:12]} at 20\d\d-.* by "):
            asked(registry, 3)


def test_ten_thousand_partitions_are_checked_within_a_second():
    """Metadata only: hours of more than a year, one of them missing."""
    scheme = read_scheme("%Y-%m-%d-%H", "events")
    assert scheme is not None
    start = parse_instant("2013-01-01")
    slots = list(scheme.slots(start, start + 10_000 * HOUR))
    file = File("x", 1, "0" * 64, 0, Numbers(1), start, start)
    partitions = tuple(Partition(slot.name, (file,), slot) for slot in slots if slot.start != start + 5_000 * HOUR)
    began = time.process_time()  # of this process, whatever else the machine does
    found = window_coverage("events", Need(start + DAY, start + 10_000 * HOUR), partitions, scheme, None)
    seconds = time.process_time() - began
    assert [(one.kind, one.partition) for one in found.verdicts] == [(Kind.PARTITION_MISSING, "2013-07-28-08")]
    assert seconds < 1


def test_ten_thousand_files_are_held_against_their_snapshot_within_a_second(tmp_path):
    """A snapshot of 10,000 files, one of them gone from the location: nothing of the others is read, for there is nothing to read."""
    scheme = read_scheme("%Y-%m-%d-%H", "orders")
    assert scheme is not None
    start = parse_instant("2024-03-01")
    files = tuple(
        File(f"data/{slot.name}.parquet", 1, f"{number:064x}", 0, Numbers(1), slot.start, slot.start)
        for number, slot in enumerate(scheme.slots(start, start + 10_000 * HOUR))
    )
    with Shop(tmp_path, spec('partition="%Y-%m-%d-%H",')).open() as registry:
        source = registry.compile().sources["orders"]
        snapshot = Snapshot("orders", files, ((("bought_at", "TIMESTAMP"),),), "bought_at:timestamp")
        live = {file.path: (file.sha256, tmp_path / file.path) for file in files if file.path != "data/2024-03-02-20.parquet"}
        began = time.process_time()  # of this process, whatever else the machine does
        found = drift(registry.engine, source, snapshot, {}, live, scheme, Need(start + 30 * HOUR, start + 5_000 * HOUR))
        seconds = time.process_time() - began
    assert [(one.kind, one.partition) for one in found.verdicts] == [(Kind.PARTITION_MISSING, "2024-03-02-20")]
    assert seconds < 1


@pytest.mark.parametrize(
    ("scheme", "path", "name", "start", "end"),
    [
        ("year=%Y/month=%m", "data/year=2013/month=02/part-0.parquet", "year=2013/month=02", "2013-02-01", "2013-03-01"),
        ("%Y-%m-%d", "data/x-2013-12-31.parquet", "2013-12-31", "2013-12-31", "2014-01-01"),
        ("%Y/%j", "data/2013/032/a.parquet", "2013/032", "2013-02-01", "2013-02-02"),
        ("dt=%Y%m%d/h=%H", "s/dt=20130101/h=23/a", "dt=20130101/h=23", "2013-01-01T23:00:00", "2013-01-02"),
    ],
)
def test_a_scheme_reads_a_stretch_of_time_from_a_path(scheme, path, name, start, end):
    slot = read_scheme(scheme, "s").slot_of(path)
    assert (slot.name, slot.start, slot.end) == (name, parse_instant(start), parse_instant(end))
    assert [one.name for one in read_scheme(scheme, "s").slots(slot.start, slot.end)] == [name]


@pytest.mark.parametrize("scheme", ["month=%m", "data", "%Y-%d", "%Y-%q", "%Y %H"])
def test_a_scheme_that_says_no_stretch_is_refused(scheme):
    with pytest.raises(featreg.UsageError, match="says no stretch of time"):
        read_scheme(scheme, "s")
