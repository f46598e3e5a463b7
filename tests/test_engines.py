"""What every engine does: the same contract for DuckDB and for Spark (local[2], zones that are not UTC)."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import featreg
from tests.shop import ENTITY, ORDERS, WHOLE_SHOP, Shop, at, order, order_table
from tests.test_spark import SPARK
from tests.test_worlds import bits

ENGINES = {"duckdb": "", "spark": SPARK}
SOURCES = '[sources]\norders = "data/*.parquet"\n'


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


def shop_of(root: Path, engine: str, spec: str = WHOLE_SHOP, sources: str = SOURCES) -> Shop:
    return Shop(root, spec, ENGINES[engine] + sources)


def spine(*rows: tuple[Any, float]) -> pa.Table:
    """(customer, minutes after the shop opened)."""
    return pa.table(
        {
            "row": pa.array(range(len(rows)), pa.int32()),
            "customer": pa.array([customer for customer, _ in rows], pa.string()),
            "as_of": pa.array([at(minutes) for _, minutes in rows], pa.timestamp("us", "UTC")),
        }
    )


def fill(shop: Shop, rows: Any, **more: Any) -> list[dict[str, Any]]:
    with shop.open() as registry:
        return registry.training_set("model", rows, time="as_of", draft=True, **more).to_arrow().to_pylist()


def one_view(features: str, columns: str = '"customer": "VARCHAR", "value": "BIGINT", "at": "TIMESTAMP"', more: str = "") -> str:
    return (
        ENTITY
        + f'orders = EventSource(name="orders", columns={{{columns}}}, event_time="at"{more})\n'
        + f'recent = FeatureView(name="recent", entity=customer, source=orders, features={{{features}}})\n'
        + 'model = FeatureSet(name="model", features=[recent.all()])\n'
    )


def test_rows_come_back_in_the_spines_order_duplicates_and_null_keys_too(tmp_path: Path, engine: str) -> None:
    shop = shop_of(tmp_path, engine)
    shop.put("one", [order(1), order(2, "bob", 7.0), order(3, None)])
    found = fill(shop, spine(("bob", 10), ("ann", 10), (None, 10), ("eve", 10), ("ann", 2), ("bob", 10)))
    assert [row["row"] for row in found] == list(range(6))
    assert [row["n_1d"] for row in found] == [1, 1, 0, 0, 1, 1]
    assert [row["spent_1d"] for row in found] == [7.0, 1.0, None, None, 1.0, 7.0]
    assert found[0] | {"row": 5} == found[5]


def test_no_rows_give_no_rows_with_every_column(tmp_path: Path, engine: str) -> None:
    shop = shop_of(tmp_path, engine)
    shop.put("one", [order(1)])
    with shop.open() as registry:
        table = registry.training_set("model", spine(), time="as_of", draft=True).to_arrow()
    assert (table.num_rows, table.column_names[:3], table.column_names[-1]) == (0, ["row", "customer", "as_of"], "largest_2d")


def test_a_rejected_row_fails_the_scan_with_examples_or_is_counted(tmp_path: Path, engine: str) -> None:
    bad = [order(1), {**order(2), "bought_at": None}, {**order(3, "bob"), "bought_at": None}]
    strict = shop_of(tmp_path / "strict", engine)
    strict.put("one", bad)
    with pytest.raises(featreg.RejectedRowsError, match="2 rows were rejected") as told:
        fill(strict, spine(("ann", 10)))
    assert len(told.value.examples) == 2 and "ann" in "".join(told.value.examples)
    mild = shop_of(tmp_path / "mild", engine, WHOLE_SHOP.replace('tie_break="shop",', 'tie_break="shop", max_rejected=2,'))
    mild.put("one", bad)
    with mild.open() as registry:
        made = registry.training_set("model", spine(("ann", 10), ("bob", 10)), time="as_of", draft=True)
        assert made.to_arrow()["n_1d"].to_pylist() == [1, 0]
    assert [(one.view, one.events, one.rejected) for one in made.receipts] == [("recent", 1, 2), ("daily", 0, 2)]


def test_a_sum_out_of_range_names_feature_key_and_instant(tmp_path: Path, engine: str) -> None:
    shop = shop_of(tmp_path, engine, one_view('"total": agg.sum("value").over("1d")'))
    rows = {"customer": ["ann", "bob", "bob"], "value": [1, 2**63 - 1, 1], "at": pa.array([at(1), at(2), at(3)], pa.timestamp("us", "UTC"))}
    with pytest.raises(featreg.OverflowDataError) as told:
        fill(shop, spine(("ann", 10), ("bob", 2.5), ("bob", 10)), sources={"orders": pa.table(rows)})
    assert (told.value.feature, told.value.key, told.value.as_of) == ("total_1d", {"customer": "bob"}, "2024-03-01T00:10:00Z")


def test_digits_below_the_microsecond_are_an_error_with_the_remedy(tmp_path: Path, engine: str) -> None:
    shop = shop_of(tmp_path, engine, one_view('"n": agg.count().over("1d")'))
    rows = pa.table({"customer": ["ann"], "value": [1], "at": pa.array([1_709_251_200_000_000_001], pa.timestamp("ns"))})
    with pytest.raises(featreg.DataError, match="microsecond"):
        fill(shop, spine(("ann", 10)), sources={"orders": rows})
    pq.write_table(rows, tmp_path / "data/one.parquet")
    with pytest.raises(featreg.DataError, match="microsecond"):
        fill(shop, spine(("ann", 10)))


def test_a_spine_that_lacks_its_key_or_an_instant_is_refused(tmp_path: Path, engine: str) -> None:
    shop = shop_of(tmp_path, engine)
    shop.put("one", [order(1)])
    with pytest.raises(featreg.DataError, match="customer"):
        fill(shop, spine(("ann", 10)).drop_columns(["customer"]))
    with pytest.raises(featreg.DataError, match="NULL in 1 rows: 1"):
        rows = spine(("ann", 10), ("ann", 11))
        fill(shop, rows.set_column(2, "as_of", pa.array([at(10), None], pa.timestamp("us", "UTC"))))
    with pytest.raises(featreg.DataError, match="compared as its type"):
        fill(shop, spine(("ann", 10)).set_column(1, "customer", pa.array([1])))


def test_columns_may_be_called_like_words_of_sql_and_types_may_be_wider_or_narrower(tmp_path: Path, engine: str) -> None:
    columns = '"customer": "VARCHAR", "select": "INTEGER", "r": "DOUBLE", "at": "DATE"'
    shop = shop_of(tmp_path, engine, one_view('"total": agg.sum("\\"select\\" + 1").over("7d"), "r": agg.max("r").over("7d")', columns))
    rows = pa.table(
        {
            "CUSTOMER": pa.array(["ann", "ann"]).dictionary_encode(),
            "Select": pa.array([1, 2], pa.int16()),
            "r": pa.array([1, None], pa.float32()),
            "at": pa.array([date(2024, 2, 29), date(1969, 12, 31)]),
        }
    )
    pq.write_table(rows, tmp_path / "data/one.parquet")
    wanted = {"total_7d": 2, "r_7d": 1.0}
    for given in ({}, {"sources": {"orders": rows}}):
        (found,) = fill(shop, spine(("ann", 10)), **given)
        assert {name: found[name] for name in wanted} == wanted


def test_files_may_differ_in_width_and_a_column_may_stand_in_their_paths(tmp_path: Path, engine: str) -> None:
    columns = '"customer": "VARCHAR", "value": "BIGINT", "size": "DOUBLE", "shop": "VARCHAR", "floor": "INTEGER", "at": "TIMESTAMP"'
    features = '"total": agg.sum("value"), "sizes": agg.last_n("size", 3), "shops": agg.last_n("shop", 3), "floors": agg.sum("floor")'
    shop = shop_of(tmp_path, engine, one_view(features, columns), '[sources]\norders = "data/*/*/*.parquet"\n')
    instants = [pa.array([at(minute)], pa.timestamp("us", "UTC")) for minute in (1, 2)]
    narrow = pa.table({"customer": ["ann"], "value": pa.array([2], pa.int16()), "size": pa.array([0.5], pa.float32()), "at": instants[0]})
    wide = pa.table({"at": instants[1], "value": [2**40], "size": [0.1], "customer": ["ann"]})
    for path, rows in (("shop=north sea/floor=1", narrow), ("shop=west/floor=20", wide)):
        (tmp_path / "data" / path).mkdir(parents=True)
        pq.write_table(rows, tmp_path / "data" / path / "one.parquet")
    (found,) = fill(shop, spine(("ann", 10)))
    wanted = {"total": 2**40 + 2, "sizes": [0.1, 0.5], "shops": ["west", "north sea"], "floors": 21}
    assert {name: found[name] for name in wanted} == wanted


def test_files_may_differ_in_width_and_lack_a_column_that_is_not_declared(tmp_path: Path, engine: str) -> None:
    shop = shop_of(tmp_path, engine, one_view('"total": agg.sum("value")'))
    for name, value in (("one", pa.array([2], pa.int32())), ("two", pa.array([2**40]))):
        more = {} if name == "one" else {"note": [1.5]}
        rows = {"customer": ["ann"], "value": value, "at": pa.array([at(1)], pa.timestamp("us", "UTC")), **more}
        pq.write_table(pa.table(rows), tmp_path / f"data/{name}.parquet")
    assert fill(shop, spine(("ann", 10)))[0]["total"] == 2**40 + 2
    rows = {"customer": ["ann"], "value": ["2"], "at": pa.array([at(1)], pa.timestamp("us", "UTC"))}
    pq.write_table(pa.table(rows), tmp_path / "data/three.parquet")
    with pytest.raises(featreg.DataError, match=r"value.*VARCHAR in three\.parquet"):
        fill(shop, spine(("ann", 10)))


def test_text_files_are_read_as_duckdb_reads_them(tmp_path: Path, engine: str) -> None:
    shop = shop_of(tmp_path, engine, sources='[sources]\norders = "data/*.csv"\n')
    pyarrow.csv.write_csv(order_table([order(1, 'a "b", c', 0.1), order(2, "bob", None, shop="")]), tmp_path / "data/one.csv")
    found = fill(shop, spine(('a "b", c', 10), ("bob", 10)))
    assert [(row["n_1d"], row["spent_1d"]) for row in found] == [(1, 0.1), (1, None)]


def test_instants_at_the_ends_of_the_calendar_and_values_at_the_ends_of_doubles(tmp_path: Path, engine: str) -> None:
    columns = '"customer": "VARCHAR", "value": "DOUBLE", "at": "TIMESTAMP", "day": "DATE"'
    features = '"n": agg.count(), "low": agg.min("value"), "high": agg.max("value"), "all": agg.last_n("value", 5), "day": agg.last("day")'
    shop = shop_of(tmp_path, engine, one_view(features, columns))
    instants = [datetime(1, 1, 1), datetime(1582, 10, 10), datetime(1969, 12, 31, 23, 59, 59, 999999), datetime(9999, 12, 31, 23, 59, 59)]
    rows = pa.table(
        {
            "customer": ["ann"] * 4,
            "value": [float("nan"), -0.0, 5e-324, float("-inf")],
            "at": pa.array(instants, pa.timestamp("us")),
            "day": pa.array([one.date() for one in instants]),
        }
    )
    pq.write_table(rows, tmp_path / "data/one.parquet")
    asked = pa.table(
        {"customer": ["ann"] * 2, "as_of": pa.array([datetime(1970, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 1)], pa.timestamp("us"))}
    )
    nan = float("nan")
    wanted = [
        (3, 0.0, nan, [5e-324, 0.0, nan], date(1969, 12, 31)),
        (4, float("-inf"), nan, [float("-inf"), 5e-324, 0.0, nan], date(9999, 12, 31)),
    ]
    found = [tuple(row[name] for name in ("n", "low", "high", "all", "day")) for row in fill(shop, asked)]
    assert bits(found) == bits(wanted)


def test_the_store_after_the_same_runs_answers_the_same_and_agrees_with_a_backfill(tmp_path: Path, engine: str) -> None:
    """Two runs, a late row among the second's; then parity, and cell by cell with a shop that DuckDB filled."""
    first = [order(n, customer, n / 3) for n in range(1, 40) for customer in ("ann", "bob")]
    second = [order(60, "cem"), order(5, "ann", 9.0), order(90, "bob", 1.0, loaded=200)]
    shops = [shop_of(tmp_path / folder, name).applied() for folder, name in (("this", engine), ("other", "duckdb"))]
    answers = []
    for shop in shops:
        receipts = []
        for name, rows, minutes in (("one", first, 50), ("two", second, 100)):
            shop.put(name, rows)
            with shop.open() as registry:
                receipts += [(one.view, one.rows, one.keys, one.late_rows, one.watermark) for one in registry.materialize(to=at(minutes))]
        with shop.open() as registry:
            keys = [{"customer": name} for name in ("ann", "bob", "cem", "eve")]
            answers.append((receipts, [vector.values for vector in registry.online("model", keys, at=at(101))]))
            parity = registry.parity("model")
            assert parity.cells > 0 and parity.differing == 0
    assert answers[0] == answers[1]


def test_a_run_that_would_fail_writes_nothing(tmp_path: Path, engine: str) -> None:
    shop = shop_of(tmp_path, engine, ENTITY + ORDERS + WHOLE_SHOP.split(ORDERS)[1]).applied()
    shop.put("one", [order(1), {**order(2), "bought_at": None}])
    with shop.open() as registry, pytest.raises(featreg.RejectedRowsError):
        registry.materialize(to=at(50))
    assert not any(key.startswith(b"\1") for key in shop.stored())
