"""What people do to it by mistake: each has its error, which says the next step, and nothing is written or lost."""

import json
import os
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pyarrow.csv
import pytest

import featreg
from featreg.cli.interrupt import every_ctrl_c
from featreg.engines.duckdb import DuckDB
from featreg.errors import (
    DataError,
    DefinitionError,
    FeatregError,
    LeaseHeldError,
    OverflowDataError,
    RejectedRowsError,
    StoreError,
    UsageError,
)
from featreg.stores.lmdb import open_store
from tests.shop import (
    BOTH_SET,
    COLUMNS,
    DAILY,
    ENTITY,
    ORDERS,
    REALTIME_SET,
    REALTIME_SHOP,
    RECENT,
    Forks,
    Shop,
    at,
    difference,
    kernel_folder,
    order,
    order_table,
    spine_of,
)

ANN = [{"customer": "ann"}]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    server = Forks(kernel_folder(tmp_path_factory.getbasetemp() / "kernels"))
    yield server
    server.close()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Applied, with three orders, of which the first file is materialized."""
    shop = Shop(tmp_path).applied()
    shop.put("one", [order(0), order(1, "bob")])
    with shop.open() as registry:
        registry.materialize(to=at(10))
    return shop


def written(shop: Shop) -> dict[str, bytes]:
    """What is kept beside the data: the online store's entries and the registry's records."""
    with shop.open() as registry:
        records = [repr(record) for record in registry.log.records()]
    return {name.hex(): value for name, value in shop.stored().items()} | {"records": "\n".join(records).encode()}


def refused(shop: Shop, kind: type[FeatregError], code: int, *texts: str, to: Any = None, spine: Any = None, time: str = "as_of") -> None:
    """Both a training set (when a spine is given, only that) and a materialization end in this error, and nothing is written."""
    before = written(shop)
    with shop.open() as registry:
        if spine is None:
            with pytest.raises(kind) as raised:
                registry.materialize(to=to or at(20))
            told(raised.value, kind, code, *texts)
            spine = spine_of(ANN, at(20))
        with pytest.raises(kind) as raised:
            registry.training_set("model", spine, time=time)
        told(raised.value, kind, code, *texts)
    assert written(shop) == before


def told(error: FeatregError, kind: type[FeatregError], code: int, *texts: str) -> None:
    assert type(error) is kind and error.exit_code == code
    for text in texts:
        assert text in str(error), f"{text!r} is not in: {error}"


# Definitions: every problem is told with its place, and apply records nothing

SPECS = {
    "unknown column": (
        REALTIME_SHOP.replace('agg.sum("cents")', 'agg.sum("cent")'),
        ["features/shop.py:", "recent.cents: column 'cent'", "Did you mean 'cents'?"],
    ),
    "type mismatch": (REALTIME_SHOP.replace('agg.sum("cents")', 'agg.sum("shop")'), ["VARCHAR", "a number"]),
    "filter that is no truth": (REALTIME_SHOP.replace("source=orders,", "source=orders, where='cents + 1',"), ["BOOLEAN"]),
    "unparsable file": ("from featreg import Entity\ncustomer = Entity(name=", ["features/shop.py:2"]),
    "duplicate names": (REALTIME_SHOP + RECENT.replace("recent = ", "again = "), ["'recent'", "twice"]),
    "cyclic derived features": (
        REALTIME_SHOP.replace('derive("n_10m / n_1d")', 'derive("part + 1"), "part": derive("share - 1")'),
        ["share", "part"],
    ),
    "a call that is not allowed": (REALTIME_SHOP + "import os\nos.system('touch pwned')\n", ["features/shop.py:"]),
    "a call of open": (REALTIME_SHOP + "secret = open('/etc/passwd').read()\n", ["features/shop.py:"]),
    "hop longer than the window": (
        REALTIME_SHOP.replace('.over("1h", hop="exact")', '.over("1h", hop="2h")'),
        ["hop '2h' is longer than the window '1h'"],
    ),
    "unknown function": (REALTIME_SHOP.replace('agg.sum("cents")', 'agg.sum("rand(cents)")'), ["rand"]),
    "two features of one name": (
        ENTITY + ORDERS + RECENT + DAILY.replace('"orders": agg', '"n_1d": agg').replace('.over("2d")', "", 1) + BOTH_SET,
        ["n_1d", ".prefix("],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SPECS)
def test_a_definition_that_does_not_hold_is_told_with_its_place_and_not_applied(tmp_path: Path, what: str) -> None:
    spec, texts = SPECS[what]
    shop = Shop(tmp_path, spec)
    with shop.open() as registry:
        for call in (
            registry.compile,
            registry.apply,
            lambda: registry.training_set("model", spine_of(ANN, at(0)), time="as_of", draft=True),
        ):
            with pytest.raises(DefinitionError) as raised:
                call()
            told(raised.value, DefinitionError, 1, "shop.py", *texts)
        assert registry.log.records() == []
    assert not (tmp_path / "pwned").exists()


def test_what_was_applied_goes_on_when_the_working_tree_is_broken(shop: Shop) -> None:
    (shop.root / "features/shop.py").write_text("this is no spec")
    with shop.open() as registry:
        assert registry.online("model", ANN[0], at=at(10)).values["n_1d"] == 1
        assert registry.training_set("model", spine_of(ANN, at(10)), time="as_of").table["n_1d"].to_pylist() == [1]


def test_nothing_applied_yet_is_told(tmp_path: Path) -> None:
    with Shop(tmp_path).open() as registry, pytest.raises(UsageError, match="featreg apply"):
        registry.materialize()


# Source files


def test_a_source_file_that_is_missing(shop: Shop) -> None:
    (shop.root / "data/one.parquet").unlink()
    refused(shop, DataError, 3, "no file at data/*.parquet", "[sources]")


def test_a_source_without_a_location(shop: Shop) -> None:
    (shop.root / "conf/local.toml").write_text("[sources]\nothers = 'x'\n")
    refused(shop, UsageError, 2, "does not say where source 'orders' is", "conf/local.toml", "[sources]")


@pytest.mark.parametrize("bytes_left", [0, 3, -20, -1000])
def test_a_source_file_that_was_cut_off_or_is_empty(shop: Shop, bytes_left: int) -> None:
    path = shop.put("two", [order(11)])
    path.write_bytes(path.read_bytes()[:bytes_left])
    refused(shop, DataError, 3, "source 'orders'", "two.parquet", *(["empty (0 bytes)"] if bytes_left == 0 else []))


def test_after_a_bad_file_was_mended_the_run_goes_on(shop: Shop) -> None:
    """A refused run has not begun: nobody has to rebuild because of a file that was cut off."""
    path = shop.put("two", [order(11)])
    path.write_bytes(path.read_bytes()[:-30])
    refused(shop, DataError, 3, "two.parquet")
    shop.put("two", [order(11), order(12)])
    with shop.open() as registry:
        assert registry.materialize(to=at(20))[0].rows == 2
        assert difference(registry, ANN, [at(20)], at(20)) is None


def test_pages_that_do_not_decode_are_found_before_anything_is_written(shop: Shop) -> None:
    """The footer is whole and the data is not."""
    path = shop.put("two", [order(11 + number / 100, f"customer{number}", number / 7) for number in range(500)])
    content = bytearray(path.read_bytes())
    content[200 : len(content) // 2] = bytes(len(content) // 2 - 200)
    path.write_bytes(content)
    refused(shop, DataError, 3, "a scan failed")


@pytest.mark.parametrize(
    "column, values, text",
    [
        ("amount", pa.array(["1"], pa.string()), "column 'amount' is declared DOUBLE and the data has"),
        ("cents", pa.array([1.5], pa.float64()), "column 'cents' is declared BIGINT and the data has"),
        ("shop", pa.array([1], pa.int64()), "column 'shop' is declared VARCHAR and the data has"),
        ("bought_at", pa.array(["2024"], pa.string()), "column 'bought_at' is declared TIMESTAMP and the data has"),
        ("amount", None, "column 'amount' is declared and"),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_a_column_of_another_type_or_none_in_one_file_or_in_all(
    tmp_path: Path, column: str, values: pa.Array | None, text: str, alone: bool
) -> None:
    """Files that do not agree are never cast to the first one's types in silence: 1.5 would become 2."""
    shop = Shop(tmp_path).applied()
    table = order_table([order(0)])
    place = table.schema.get_field_index(column)
    shop.put("two", table.remove_column(place) if values is None else table.set_column(place, column, values))
    if not alone:
        shop.put("one", [order(1)])
        text = f"column '{column}' is declared"
    refused(shop, DataError, 3, "source 'orders' does not fit its contract", text, *([] if alone else ["two.parquet"]))


def test_files_may_have_more_columns_and_narrower_numbers_in_another_order(tmp_path: Path) -> None:
    shop = Shop(tmp_path).applied()
    shop.put("one", [order(0, amount=1.5)])
    table = order_table([order(1, amount=2.0)])
    narrow = table.set_column(1, "amount", table["amount"].cast(pa.float32())).set_column(2, "cents", table["cents"].cast(pa.int16()))
    shop.put("two", narrow.append_column("extra", pa.array(["x"])).select(["extra", *reversed(COLUMNS)]))
    with shop.open() as registry:
        table = registry.training_set("model", spine_of(ANN, at(10)), time="as_of").to_arrow()
        assert (table["spent_1d"].to_pylist(), table["cents_1d"].to_pylist()) == ([3.5], [350])
        registry.materialize(to=at(10))
        assert difference(registry, ANN, [at(10)], at(10)) is None


def test_a_file_of_nanoseconds_among_files_of_microseconds_is_not_cut_off(tmp_path: Path) -> None:
    shop = Shop(tmp_path).applied()
    shop.put("one", [order(0)])
    fine = pa.array([at(1).timestamp() * 1e9 + 512], pa.float64()).cast(pa.int64()).cast(pa.timestamp("ns", "UTC"))
    shop.put("two", order_table([order(1)]).set_column(4, "bought_at", fine))
    refused(shop, DataError, 3, "column 'bought_at'", "two.parquet")


@pytest.mark.parametrize("max_rejected", [0, 5])
def test_digits_below_the_microsecond_in_a_source_are_an_error_before_anything_is_written(tmp_path: Path, max_rejected: int) -> None:
    """They are no rejected rows: DuckDB rounds them and Arrow cuts them off, so a limit cannot allow them."""
    shop = Shop(tmp_path, REALTIME_SHOP.replace('tie_break="shop"', f'tie_break="shop", max_rejected={max_rejected}')).applied()
    fine = pa.array([1_709_251_200_000_000_001], pa.timestamp("ns"))
    shop.put("one", order_table([order(0)]).set_column(4, "bought_at", fine))
    refused(shop, DataError, 3, "digits below the microsecond", "date_trunc('microsecond'")


@pytest.mark.parametrize("text", ["", "customer,amount,cents,shop,bought_at\nann,1,100,a,2024-03-01\n", '{"customer": "ann", "amount": '])
def test_csv_and_json_that_are_empty_lack_a_column_or_end_in_the_middle(tmp_path: Path, text: str) -> None:
    ending = "json" if text.startswith("{") else "csv"
    shop = Shop(tmp_path, profile=f'[sources]\norders = "data/*.{ending}"\n').applied()
    (tmp_path / f"data/one.{ending}").write_text(text)
    refused(shop, DataError, 3, "source 'orders'")


def test_a_csv_value_that_is_not_of_its_type_is_a_rejected_row(tmp_path: Path) -> None:
    shop = Shop(tmp_path, profile='[sources]\norders = "data/*.csv"\n').applied()
    pyarrow.csv.write_csv(order_table([order(0), order(1)]), tmp_path / "data/one.csv")
    text = (tmp_path / "data/one.csv").read_text()
    (tmp_path / "data/one.csv").write_text(text.replace(",100,", ",a hundred,", 1))
    refused(shop, RejectedRowsError, 3, "1 row was rejected and max_rejected is 0", "a hundred", "max_rejected=1")


# Rejected rows


def spoiled(count: int) -> list[dict[str, Any]]:
    return [order(2 + number) | {"bought_at": None} for number in range(count)]


def test_more_rejected_rows_than_allowed_fail_a_scan_and_fewer_are_told_with_examples(tmp_path: Path) -> None:
    """The limit counts what a scan meets; the receipt and the manifest have the number and three of the rows."""
    shop = Shop(tmp_path, REALTIME_SHOP.replace('tie_break="shop"', 'tie_break="shop", max_rejected=4')).applied()
    shop.put("one", [order(0), *spoiled(4)])
    with shop.open() as registry:
        (receipt,) = registry.materialize(to=at(10))
        assert (receipt.rows, receipt.rejected, len(receipt.examples)) == (1, 4, 3)
        assert all("'bought_at': NULL" in example and "ann" in example for example in receipt.examples)
        manifest = registry.training_set("model", spine_of(ANN, at(10)), time="as_of").manifest
        assert (manifest["views"][0]["rejected"], len(manifest["views"][0]["examples"])) == (4, 3)
        assert difference(registry, ANN, [at(10)], at(10)) is None
    shop.put("two", spoiled(1))
    refused(shop, RejectedRowsError, 3, "5 rows were rejected and max_rejected is 4", "nothing was written", "max_rejected=5")


def test_an_expression_that_overflows_rejects_its_row_and_no_other(tmp_path: Path) -> None:
    spec = REALTIME_SHOP.replace('agg.sum("cents")', 'agg.sum("cents * 2")').replace('tie_break="shop"', 'tie_break="shop", max_rejected=1')
    shop = Shop(tmp_path, spec).applied()
    shop.put("one", [order(0), order(1) | {"cents": 2**62}])
    with shop.open() as registry:
        (receipt,) = registry.materialize(to=at(10))
        assert (receipt.rejected, receipt.rows) == (1, 1)
        assert registry.online("model", ANN[0], at=at(10)).values["cents_1d"] == 200


def test_a_sum_beyond_bigint_is_an_error_that_names_the_cell_and_online_one_feature_s_status(tmp_path: Path) -> None:
    """A sum that leaves the range and comes back is none: only the result is checked."""
    shop = Shop(tmp_path).applied()
    huge = [order(number) | {"cents": 2**62} for number in range(2)]
    shop.put("one", [*huge, order(5) | {"cents": -1}, order(7) | {"cents": 3}])
    with shop.open() as registry:
        registry.materialize(to=at(10))
        assert registry.training_set("model", spine_of(ANN, at(6)), time="as_of").table["cents_1d"].to_pylist() == [2**63 - 1]
        with pytest.raises(OverflowDataError) as raised:
            registry.training_set("model", spine_of(ANN, at(9)), time="as_of")
        told(raised.value, OverflowDataError, 3, "cents_1d", "'ann'", "2024-03-01T00:09:00Z", "Cast the input to DOUBLE")
        assert (raised.value.feature, raised.value.key) == ("cents_1d", {"customer": "ann"})
        vector = registry.online("model", ANN[0], at=at(10))
        assert (vector.values["cents_1d"], vector.status["cents_1d"]) == (None, "error")
        assert (vector.values["n_1d"], vector.status["n_1d"]) == (4, "ok")


# Spines

ZONE = timezone(timedelta(hours=5, minutes=30))


@pytest.mark.parametrize(
    "spine, kind, code, texts",
    [
        ({"when": [at(5)]}, DataError, 3, ["no time column 'as_of'", "Its columns are: when"]),
        ({"as_of": [at(5)]}, DataError, 3, ["no key column 'customer'", "Its columns are: as_of"]),
        ({"customer": [1], "as_of": [at(5)]}, DataError, 3, ["key column 'customer' is int64", "VARCHAR", "Cast it"]),
        ({"customer": ["ann"], "as_of": ["2024-03-01"]}, DataError, 3, ["time column 'as_of' is string", "CAST(as_of AS TIMESTAMP)"]),
        ({"customer": ["ann"] * 9, "as_of": [at(1), None, *[at(1)] * 5, None, None]}, DataError, 3, ["NULL in 3 rows: 1, 7, 8"]),
        ({"customer": ["ann"], "as_of": [at(5)], "n_1d": [1]}, UsageError, 2, ["feature 'n_1d'", "spine's column 'n_1d'", ".prefix("]),
        ({"customer": ["ann"], "as_of": [at(5)], "SPENT": [1]}, UsageError, 2, ["feature 'spent'", "'SPENT'"]),
        (17, UsageError, 2, ["the spine is a int", "Arrow"]),
        ("spine.parquet", DataError, 3, ["no file spine.parquet"]),
        ("spine.xlsx", DataError, 3, ["no file spine.xlsx"]),
        ("SELECT nonsense FROM nowhere", DataError, 3, ["nowhere"]),
    ],
)
def test_a_spine_that_does_not_fit_is_an_error_that_says_how_it_would(
    shop: Shop, spine: Any, kind: type[FeatregError], code: int, texts: list[str]
) -> None:
    refused(shop, kind, code, *texts, spine=pa.table(spine) if isinstance(spine, dict) else spine)


def test_a_spine_with_a_time_zone_asks_at_the_same_instants(shop: Shop) -> None:
    moments = [at(0.5), at(3)]
    naive = pa.table({"customer": ["ann", "bob"], "as_of": pa.array([m.replace(tzinfo=None) for m in moments], pa.timestamp("us"))})
    zoned = naive.set_column(1, "as_of", pa.array([m.astimezone(ZONE) for m in moments], pa.timestamp("us", "Asia/Kolkata")))
    frame = pandas.DataFrame({"customer": ["ann", "bob"], "as_of": pandas.to_datetime(moments).tz_convert("America/New_York")})
    with shop.open() as registry:
        answers = [registry.training_set("model", spine, time="as_of").to_arrow() for spine in (naive, zoned, frame)]
    assert [answer["n_1d"].to_pylist() for answer in answers] == [[1, 1]] * 3
    assert str(answers[1].schema.field("as_of").type) == "timestamp[us, tz=Asia/Kolkata]"


def test_a_spine_of_nanoseconds_works_when_they_are_whole_microseconds_and_is_an_error_when_not(shop: Shop) -> None:
    whole = pandas.DataFrame({"customer": ["ann", "bob"], "as_of": pandas.to_datetime([at(3), at(4)]).as_unit("ns")})
    with shop.open() as registry:
        assert registry.training_set("model", whole, time="as_of").table["n_1d"].to_pylist() == [1, 1]
    whole["as_of"] += pandas.to_timedelta([0, 1], unit="ns")
    refused(shop, DataError, 3, "'as_of' has digits below the microsecond, first in row 1", "dt.floor('us')", spine=whole)


def test_an_empty_spine_gives_an_empty_training_set(shop: Shop) -> None:
    with shop.open() as registry:
        table = registry.training_set("model", spine_of([], at(0)), time="as_of").to_arrow()
        assert (table.num_rows, table.num_columns) == (0, 12)
        assert registry.online("model", []) == []


@pytest.mark.parametrize(
    "key, text",
    [({"customr": "ann"}, "key 'customer' of view 'recent' is missing"), ({"customer": 1}, "key 'customer' is VARCHAR, and 1 is a int")],
)
def test_a_key_that_does_not_fit_is_an_error_online(shop: Shop, key: dict[str, Any], text: str) -> None:
    with shop.open() as registry, pytest.raises(DataError) as raised:
        registry.online("model", key, at=at(10))
    told(raised.value, DataError, 3, text)


# Two writers


def hold_the_lease(path: str) -> None:
    store = open_store(Path(path))
    with store._lease.held():
        Path(path, "held").touch()
        time.sleep(60)


def test_a_second_writer_is_told_who_writes_and_reads_go_on(shop: Shop, forks: Forks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who hangs inside a transaction is named; when he ends, the same command works."""
    shop.put("two", [order(11)])
    online = shop.root / ".featreg/online"
    before = written(shop)
    pid = forks.start(f"{__name__}:hold_the_lease", str(online))
    try:
        while not (online / "held").exists():
            time.sleep(0.01)
        with open_store(online) as store, shop.open() as registry:
            monkeypatch.setattr(store._lease, "_timeout", 0.5)
            with pytest.raises(LeaseHeldError) as raised:
                registry.materialize(to=at(20))
            assert raised.value.exit_code == 4 and f"held by pid {pid}" in str(raised.value)
            assert registry.online("model", ANN[0], at=at(10)).values["n_1d"] == 1
    finally:
        os.kill(pid, signal.SIGKILL)
        forks.outcome()
    assert written(shop) == before
    with shop.open() as registry:
        assert registry.materialize(to=at(20))[0].rows == 1


# A full disk

MIB = 1 << 20


def materialize_on_a_small_disk(root: str, limit: int) -> None:
    """Every byte of a file behind the limit is refused by the kernel."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with featreg.open(root) as registry:
        try:
            registry.materialize(to=at(3000))
        except StoreError as error:
            assert error.exit_code == 1 and "Make room, then run the same command again" in str(error), error
            return
    raise AssertionError("the disk was large enough")


def test_a_disk_that_fills_up_during_materialize_loses_nothing_and_the_same_command_goes_on(tmp_path: Path, forks: Forks) -> None:
    shop = Shop(tmp_path).applied()
    shop.put("one", [order(number / 10, f"customer{number % 4000}", number / 7) for number in range(12_000)])
    with shop.open() as registry:
        registry.materialize(to=at(100))
        keys = [{"customer": f"customer{number}"} for number in range(0, 4000, 37)]
        assert difference(registry, keys, [at(100)], at(100)) is None
    size = (tmp_path / ".featreg/online/data.mdb").stat().st_size
    for more in (0, MIB // 4, MIB // 2):
        assert forks.run(f"{__name__}:materialize_on_a_small_disk", str(tmp_path), size + more) == 0
    with shop.open() as registry:
        registry.materialize(to=at(3000))
        assert difference(registry, keys, [at(3000), at(3010)], at(3000)) is None


def write_on_a_small_disk(root: str) -> None:
    with featreg.open(root) as registry:
        spine = spine_of([{"customer": f"customer{number}"} for number in range(50_000)], at(20))
        training_set = registry.training_set("model", spine, time="as_of")
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            training_set.write(Path(root, "out", "train.parquet"))
        except DataError as error:
            assert "could not be written" in str(error)
            return
    raise AssertionError("the disk was large enough")


def test_a_training_set_that_does_not_fit_on_the_disk_leaves_no_half_file(shop: Shop, forks: Forks) -> None:
    assert forks.run(f"{__name__}:write_on_a_small_disk", str(shop.root)) == 0
    assert list((shop.root / "out").iterdir()) == []


# Ctrl-C


def materialize_for_long(root: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import featreg.session.key_writer as steps

    steps.KEYS_A_WRITE = 2
    with every_ctrl_c(), featreg.open(root) as registry:
        Path(root, "ready").touch()
        registry.materialize(to=at(3000))
    raise AssertionError("it was not interrupted")


def train_for_long(root: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with every_ctrl_c(), featreg.open(root) as registry:
        Path(root, "ready").touch()
        while True:
            spine = spine_of([{"customer": f"customer{number % 4000}"} for number in range(100_000)], at(20))
            registry.training_set("model", spine, time="as_of").write(Path(root, "out", "train.parquet"))


def test_ctrl_c_waits_while_machine_code_is_made() -> None:
    """It strikes within numba's lock, where an exception can end the process; it comes out behind the call, and the kernel is whole."""
    from numba import njit
    from numba.core import event

    import featreg.algebra.flags  # noqa: F401

    struck: list[str] = []

    class Press(event.Listener):
        def on_start(self, event: Any) -> None:
            signal.raise_signal(signal.SIGINT)
            struck.append("in the lock")

        def on_end(self, event: Any) -> None:
            pass

    def double(number: int) -> int:
        return 2 * number

    kernel = njit(double)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a Spark session of another test hears it in its own way
    try:
        with event.install_listener("numba:run_pass", Press()), pytest.raises(KeyboardInterrupt):
            kernel(3)
        assert struck and kernel(3) == 6 and len(kernel.signatures) == 1
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def query_for_long(root: str, how: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    engine = DuckDB({"threads": 1}, Path(root))
    Path(root, "ready").touch()
    match how:
        case "rows":
            engine.rows("SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) % 7 = 3")
        case "table":
            engine.table("SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) % 7 = 3")
        case "batches":
            list(engine.batches("SELECT i FROM range(1000000000000) t(i) WHERE hash(i) % 1000000 = 3 ORDER BY hash(i)", 1000))
    raise AssertionError("it was not interrupted")


def drop_ctrl_c_for_long(root: str) -> None:
    """Press it where Python drops it, twice; then go on for long."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    class Dropping:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    with every_ctrl_c():
        for _ in range(2):
            Dropping()
        Path(root, "went_on").touch()
        while True:
            time.sleep(0.001)


def test_ctrl_c_that_strikes_in_a_destructor_is_heard_all_the_same(tmp_path: Path, forks: Forks) -> None:
    """Python drops it there; within `every_ctrl_c` it comes out of the code behind, after one press."""
    forks.start(f"{__name__}:drop_ctrl_c_for_long", str(tmp_path))
    assert forks.outcome() == 130
    assert (tmp_path / "went_on").exists(), "it was dropped at first"


def swallow_ctrl_c_for_long(root: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with every_ctrl_c():
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            Path(root, "went_on").touch()
        while True:
            time.sleep(0.001)


def test_ctrl_c_that_a_library_swallows_is_heard_all_the_same(tmp_path: Path, forks: Forks) -> None:
    """As pyarrow does, when it looks for pandas: any error there means that there is none."""
    began = time.monotonic()
    forks.start(f"{__name__}:swallow_ctrl_c_for_long", str(tmp_path))
    assert forks.outcome() == 130
    assert (tmp_path / "went_on").exists() and time.monotonic() - began < 5


def echo_ctrl_c(root: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with every_ctrl_c():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("a part failed to import") from None


def test_an_error_that_a_library_puts_in_the_place_of_ctrl_c_is_an_interruption(tmp_path: Path, forks: Forks) -> None:
    assert forks.run(f"{__name__}:echo_ctrl_c", str(tmp_path)) == 130
    with pytest.raises(ImportError), every_ctrl_c():
        raise ImportError("and without Ctrl-C it is an error")


def test_what_else_python_drops_is_told_as_ever_and_all_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    hook = told.append
    monkeypatch.setattr(sys, "unraisablehook", hook)
    handler = signal.getsignal(signal.SIGINT)

    class Failing:
        def __del__(self) -> None:
            raise ZeroDivisionError

    with every_ctrl_c():
        Failing()
        assert [one.exc_type for one in told] == [ZeroDivisionError]
    assert sys.unraisablehook is hook and signal.getsignal(signal.SIGINT) is handler
    told.clear()


@pytest.mark.parametrize("how", ["rows", "table", "batches"])
def test_ctrl_c_ends_a_query_that_would_run_for_hours(tmp_path: Path, forks: Forks, how: str) -> None:
    """DuckDB by itself looks for Ctrl-C seldom or never, and then raises a RuntimeError."""
    pid = forks.start(f"{__name__}:query_for_long", str(tmp_path), how)
    while not (tmp_path / "ready").exists():
        time.sleep(0.005)
    time.sleep(0.2)
    began = time.monotonic()
    os.kill(pid, signal.SIGINT)
    assert forks.outcome() == 130
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("verb", ["materialize_for_long", "train_for_long"])
def test_ctrl_c_ends_a_verb_at_once_and_the_same_command_goes_on(tmp_path: Path, forks: Forks, verb: str) -> None:
    """It comes out as KeyboardInterrupt wherever it strikes, in a scan or in a write; what was written is whole."""
    shop = Shop(tmp_path).applied()
    shop.put("one", [order(number / 10, f"customer{number % 4000}", number / 7) for number in range(20_000)])
    with shop.open() as registry:
        registry.materialize(to=at(20))
    for seconds in (0.02, 0.1, 0.3, 0.6):
        (tmp_path / "ready").unlink(missing_ok=True)
        pid = forks.start(f"{__name__}:{verb}", str(tmp_path))
        while not (tmp_path / "ready").exists():
            time.sleep(0.005)
        time.sleep(seconds)
        began = time.monotonic()
        os.kill(pid, signal.SIGINT)
        assert forks.outcome() == 130, "KeyboardInterrupt and nothing else"
        assert time.monotonic() - began < 5
    keys = [{"customer": f"customer{number}"} for number in range(0, 4000, 37)]
    with shop.open() as registry:
        registry.materialize(to=at(3000))
        assert difference(registry, keys, [at(3000)], at(3000)) is None
    if (tmp_path / "out").exists():
        assert {path.name for path in (tmp_path / "out").iterdir()} <= {"train.parquet", "train.parquet.manifest.json"}


# A folder of a newer version


def test_an_online_store_of_a_newer_version_is_refused_untouched(shop: Shop) -> None:
    note = shop.root / ".featreg/online/format.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"format": 99}))
    content = (shop.root / ".featreg/online/data.mdb").read_bytes()
    with shop.open() as registry:
        for call in (lambda: registry.materialize(to=at(20)), lambda: registry.online("model", ANN[0])):
            with pytest.raises(StoreError) as raised:
                call()
            told(raised.value, StoreError, 1, "format 99", "newer featreg", "Upgrade")
    assert (shop.root / ".featreg/online/data.mdb").read_bytes() == content


def test_a_registry_of_a_newer_version_is_refused_untouched(shop: Shop) -> None:
    path = shop.root / ".featreg/registry/control.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    content = path.read_bytes()
    with shop.open() as registry:
        for call in (registry.apply, lambda: registry.materialize(to=at(20)), lambda: registry.online("model", ANN[0])):
            with pytest.raises(StoreError) as raised:
                call()
            told(raised.value, StoreError, 1, "newer featreg", "form 99")
    assert path.read_bytes() == content


def test_a_registry_file_that_is_none_is_an_error_and_stays(shop: Shop) -> None:
    path = shop.root / ".featreg/registry/control.sqlite"
    for more in path.parent.glob("control.sqlite-*"):
        more.unlink()
    path.write_bytes(b"not SQLite at all" * 100)
    with shop.open() as registry, pytest.raises(StoreError, match=r"control\.sqlite"):
        registry.apply()
    assert path.read_bytes() == b"not SQLite at all" * 100


@pytest.mark.parametrize(
    "text, said",
    [
        ("[sources", "conf/local.toml"),
        ("[onlin]\n", "Did you mean 'online'?"),
        ('[online]\nreplay = "ten minutes"\n', "is not a duration"),
        ('engine = "sparc"\n', "Engines are"),
        ('[sources]\norders = "${NOT_THERE}"\n', "NOT_THERE"),
    ],
)
def test_a_profile_that_cannot_be_meant(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        Shop(tmp_path, profile=text).open()
    told(raised.value, UsageError, 2, said)


def test_sets_and_sources_that_are_not_there(shop: Shop) -> None:
    with shop.open() as registry:
        with pytest.raises(UsageError, match="Did you mean 'model'"):
            registry.training_set("modle", spine_of(ANN, at(0)), time="as_of")
        with pytest.raises(UsageError, match="Did you mean 'orders'"):
            registry.training_set("model", spine_of(ANN, at(0)), time="as_of", sources={"order": order_table([])})
        with pytest.raises(FeatregError, match="Did you mean 'model'"):
            registry.online("modle", ANN[0])
    assert REALTIME_SET in REALTIME_SHOP
