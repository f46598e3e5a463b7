"""What Spark alone can read is materialized as files are: the same receipts, and the same bytes in the store as DuckDB puts there."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featreg
from featreg.engines.frame_files import files_in, rows_in
from featreg.instants import parse_instant
from featreg.plan.online import ViewState
from featreg.session import key_writer
from featreg.session.distributed_files import SparkRunFinder
from featreg.session.file_ids import FileIds
from featreg.session.run_files import RunFinder
from featreg.stores.lmdb import LmdbStore
from tests.shop import DAILY, ENTITY, ORDERS, REALTIME_SHOP, Shop, at, order, order_table
from tests.test_materialize import CUSTOMERS, a_few
from tests.test_spark import SPARK

ONE_VIEW = ENTITY + ORDERS + DAILY + 'model = FeatureSet(name="model", features=[daily.all()])\n'
TABLE = "orders_of_a_shop"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The suite's session."""
    shop = Shop(tmp_path_factory.mktemp("session"), profile=SPARK)
    with shop.open() as registry:
        yield registry.spark.session


class Place:
    """A shop whose orders are where Spark alone looks: `uri`, `table` over files, and `view` and `jdbc`, which tell no file."""

    def __init__(self, root: Path, form: str, session: Any, spec: str = REALTIME_SHOP):
        self.form, self.session, self.files = form, session, f"file://{root}/data"
        self.url = f"jdbc:derby:memory:{root.name};create=true"
        where = f'{{table = "{TABLE}"}}' if form != "uri" else f'"{self.files}"'
        if form == "jdbc":
            session._jvm.System.setProperty("derby.stream.error.file", str(root / "derby.log"))
            where = f'{{format = "jdbc", options = {{url = "{self.url}", dbtable = "{TABLE}"}}}}'
        self.shop = Shop(root, spec, f"{SPARK}[sources]\norders = {where}\n").applied()

    def put(self, name: str, rows: Sequence[Mapping[str, Any]] | pa.Table) -> Path:
        """One more file, by who knows nothing of Spark."""
        path = self.shop.put(name, rows)
        if self.form == "jdbc":
            self.session.read.parquet(f"file://{path}").write.mode("append").jdbc(self.url, TABLE)
        elif self.form == "view":
            self.session.read.parquet(self.files).createOrReplaceTempView(TABLE)
        elif self.form == "table" and not self.session.catalog.tableExists(TABLE):
            self.session.sql(f"CREATE TABLE {TABLE} USING parquet LOCATION '{self.files}'")
        return path

    def run(self, to: float, **more: Any) -> list[tuple]:
        with self.shop.open() as registry:
            return facts(registry.materialize(to=at(to), **more))


@pytest.fixture
def table(session: Any) -> Iterator[None]:
    """No table or view of the name, before and after."""
    yield
    session.sql(f"DROP VIEW IF EXISTS {TABLE}") if TABLE in [one.name for one in session.catalog.listTables() if one.isTemporary] else None
    session.sql(f"DROP TABLE IF EXISTS {TABLE}")


def facts(receipts: Sequence[Any]) -> list[tuple]:
    return [(one.view, one.rows, one.keys, one.late_rows, one.rejected, one.watermark) for one in receipts]


def keys_of(shop: Shop) -> dict[bytes, bytes]:
    """Every key's bytes; what a store says of its runs names files, and those are called otherwise."""
    return {key: value for key, value in shop.stored().items() if key.startswith(b"\1")}


STEPS = (("one", a_few(0, 60, 80, 1), 60), ("two", a_few(60, 120, 60, 2) + a_few(20, 60, 7, 3), 120))


def filled_by_duckdb(root: Path, steps: Sequence[tuple] = STEPS, spec: str = REALTIME_SHOP) -> tuple[Shop, list[list[tuple]]]:
    shop, told = Shop(root, spec).applied(), []
    for name, rows, to in steps:
        shop.put(name, rows)
        with shop.open() as registry:
            told.append(facts(registry.materialize(to=at(to))))
    return shop, told


@pytest.mark.parametrize("form", ["uri", "table"])
def test_a_uri_and_a_table_are_materialized_as_files_are(tmp_path: Path, session: Any, table: None, form: str) -> None:
    """Rows that came late in a new file too; and a run to the same instant does nothing."""
    other, wanted = filled_by_duckdb(tmp_path / "duckdb")
    place = Place(tmp_path / form, form, session)
    found = []
    for name, rows, to in STEPS:
        place.put(name, rows)
        found.append(place.run(to))
    assert found == wanted and found[1][0][3] == 7
    stored = place.shop.stored()
    assert keys_of(place.shop) == keys_of(other)
    (again,) = place.run(120)
    assert again[1:3] == (0, 0) and place.shop.stored() == stored
    with place.shop.open() as registry, other.open() as other_registry:
        for moment in (at(120), at(112)):
            here, there = (one.online("model", CUSTOMERS, at=moment) for one in (registry, other_registry))
            assert repr([one.values for one in here]) == repr([one.values for one in there])
        assert registry.parity("model").differing == 0


def test_rows_of_a_database_are_taken_as_they_come_and_one_that_comes_behind_them_is_refused(tmp_path: Path, session: Any) -> None:
    """A row after the newest one that was there counts, though it is visible before the watermark."""
    steps = (("one", [order(0), order(5, "bob")], 60), ("two", [order(50), order(70, "bob"), order(500)], 120))
    other, wanted = filled_by_duckdb(tmp_path / "duckdb", steps)
    place = Place(tmp_path / "jdbc", "jdbc", session)
    found = []
    for name, rows, to in steps:
        place.put(name, rows)
        found.append(place.run(to))
    assert found == wanted and found[1][0][1:4] == (2, 2, 1)
    assert keys_of(place.shop) == keys_of(other)
    before = place.shop.stored()
    place.put("late", [order(3)])
    with pytest.raises(
        featreg.RefusedError, match=r"rows of jdbc orders_of_a_shop .* before 2024-03-01T01:10:00.000001Z .*\(4 then, 5 now\)"
    ):
        place.run(180)
    assert place.shop.stored() == before
    place.run(180, rebuild=True)
    with place.shop.open() as registry:
        assert registry.online("model", {"customer": "ann"}, at=at(180)).values["n_1d"] == 3


KILLED = """
import sys
from tests.test_spark_runs import die

die(sys.argv[1], 3)
"""


def die(root: str, number: int) -> None:
    """Materialize, and be killed right behind a write."""
    run, seen = LmdbStore._run, [0]
    key_writer.KEYS_A_WRITE = 4

    def run_and_die(store: Any, change: Callable[..., None]) -> None:
        run(store, change)
        seen[0] += 1
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    LmdbStore._run = run_and_die  # type: ignore[method-assign]
    with featreg.open(root) as registry:
        registry.materialize(to=at(60))


def break_off(root: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what `die` leaves, without a driver of one's own."""
    run, seen = LmdbStore._run, [0]

    def run_and_stop(store: Any, change: Callable[..., None]) -> None:
        run(store, change)
        seen[0] += 1
        if seen[0] == number:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, featreg.open(root) as registry:
        patched.setattr(LmdbStore, "_run", run_and_stop)
        patched.setattr(key_writer, "KEYS_A_WRITE", 4)
        with pytest.raises(KeyboardInterrupt):
            registry.materialize(to=at(60))


def test_a_run_that_ends_between_two_keys_is_no_loss(
    tmp_path: Path, session: Any, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one finishes it with the files that it had, and goes on with those that came since; `--long` kills a driver for it."""
    other, _ = filled_by_duckdb(tmp_path / "duckdb")
    place = Place(tmp_path / "uri", "uri", session)
    place.put(*STEPS[0][:2])
    if pytestconfig.getoption("--long"):
        there = {name: value for name, value in os.environ.items() if name != "JAVA_HOME" or Path(value).exists()}
        call = [sys.executable, "-c", KILLED, str(place.shop.root)]
        died = subprocess.run(call, capture_output=True, text=True, cwd=Path(__file__).parent.parent, env=there)
        assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    else:
        break_off(str(place.shop.root), 3, monkeypatch)
    written = keys_of(place.shop)
    assert written and set(written) < set(keys_of(other))
    place.put(*STEPS[1][:2])
    with place.shop.open() as registry:
        (receipt,) = registry.materialize(to=at(120))
    assert "had been interrupted" in receipt.note and receipt.watermark == parse_instant(at(120))
    assert keys_of(place.shop) == keys_of(other)


def test_what_cannot_be_read_or_has_changed_is_an_error_and_nothing_is_written(tmp_path: Path, session: Any, table: None) -> None:
    place = Place(tmp_path, "table", session, ONE_VIEW)
    with pytest.raises(featreg.DataError, match=r"source 'orders': Spark failed: \[TABLE_OR_VIEW_NOT_FOUND\].*orders_of_a_shop"):
        place.run(60)
    place.put("one", order_table([order(0)]).drop_columns(["amount"]))
    with pytest.raises(featreg.DataError, match="column 'amount' is declared and not in the data"):
        place.run(60)
    assert not keys_of(place.shop)
    session.sql(f"DROP TABLE {TABLE}")
    place.put("one", [order(0), order(1) | {"bought_at": None}])
    with pytest.raises(featreg.RejectedRowsError):
        place.run(60)
    assert not keys_of(place.shop)
    file = place.put("one", [order(0)])
    place.run(2000)
    before = place.shop.stored()
    place.put("one", [order(0), order(1)])
    with pytest.raises(featreg.RefusedError, match=r"daily: file:.*/one.parquet has changed since it was read"):
        place.run(2100)
    file.unlink()
    place.put("two", [order(0)])
    with pytest.raises(featreg.RefusedError, match=r"daily: file:.*/one.parquet was read by an earlier run and is gone"):
        place.run(2100)
    assert place.shop.stored() == before


@pytest.mark.parametrize("form", ["uri", "view", "jdbc"])
def test_rows_that_come_while_a_run_reads_are_met(tmp_path: Path, session: Any, table: None, form: str) -> None:
    """A second look, before anything is written, finds another file of that name, or one row more behind the newest one."""
    place = Place(tmp_path, form, session, ONE_VIEW)
    place.put("one", [order(0), order(10)])
    with place.shop.open() as registry:
        finder = SparkRunFinder(registry.spark, registry.engine, registry.profile)
        view = registry.applied().compiled.views["daily"]
        taken = finder.taken(view, FileIds(), ViewState(), parse_instant(at(60)))
        place.put("two", [order(20)])
        finder.check_as_taken(view.scan.source, taken)
        place.put("one", [order(0), order(5), order(10)])
        with pytest.raises(featreg.DataError, match=r"while .* read; nothing was written"):
            finder.check_as_taken(view.scan.source, taken)


def test_a_log_cannot_begin_before_what_views_have_of_rows_that_spark_alone_reads(tmp_path: Path, session: Any) -> None:
    spec = REALTIME_SHOP.replace('tie_break="shop",', 'tie_break="shop", stream="log",')
    place = Place(tmp_path, "uri", session, spec)
    place.put("one", [order(0), order(5)])
    place.run(10)
    with place.shop.open() as registry:
        with pytest.raises(featreg.RefusedError, match=r"would begin at 2024-03-01T00:04:00Z, and views have 1 rows of files from then on"):
            registry.push("orders", [order(4)])
        assert registry.push("orders", [order(6), order(7)]).accepted == 2
        assert registry.online("model", {"customer": "ann"}, at=at(11)).values["n_1d"] == 4


def test_rows_of_a_file_that_no_run_has_read_are_late_and_nothing_differs(tmp_path: Path, session: Any) -> None:
    place = Place(tmp_path, "uri", session)
    place.put("one", [order(0), order(5, "bob")])
    place.run(10)
    place.put("late", [order(3)])
    with place.shop.open() as registry:
        found = registry.parity("model")
    assert found.differing == 0 and {one.key["customer"] for one in found.examples} == {"ann"}
    assert found.late_by_feature["n_1d"] == 1 and (found.examples[0].online, found.examples[0].offline) == (1, 2)
    place.run(20)
    with place.shop.open() as registry:
        assert registry.parity("model").late == registry.parity("model").differing == 0


def test_the_newest_row_of_files_is_found_as_duckdb_finds_it(tmp_path: Path, session: Any) -> None:
    """Up to where files take the place of pushed rows: of some of the files, between two instants."""
    place, other = Place(tmp_path / "uri", "uri", session, ONE_VIEW), Shop(tmp_path / "duckdb", ONE_VIEW).applied()
    for shop in (place, other):
        for name, rows, _ in STEPS:
            shop.put(name, rows)
    with place.shop.open() as registry, other.open() as other_registry:
        spark = SparkRunFinder(registry.spark, registry.engine, registry.profile)
        finders = (spark, RunFinder(other_registry.engine, other_registry.profile))
        view = registry.applied().compiled.views["daily"]
        found = []
        for finder in finders:
            files = sorted(finder.taken(view, FileIds(), ViewState(), 0).new)
            bounds = [(None, 60), (30, 130), (200, 300)]
            found.append(
                [
                    finder.newest(view.scan.source, some, None if low is None else parse_instant(at(low)), parse_instant(at(high)))
                    for some in (files, files[:1], [])
                    for low, high in bounds
                ]
            )
    assert found[0] == found[1] and None in found[0] and len(set(found[0])) > 3


def test_files_are_told_by_what_spark_knows_whatever_columns_are_called(tmp_path: Path, session: Any) -> None:
    rows = pa.table({"_metadata": ["x", "y"], "n": [1, 2]})
    (tmp_path / "day=a b").mkdir()
    for name in ("one", "t w%20o"):
        pq.write_table(rows, tmp_path / "day=a b" / f"{name}.parquet")
    pq.write_table(rows.slice(0, 0), tmp_path / "day=a b" / "none.parquet")
    frame = session.read.parquet(f"file://{tmp_path}")
    found = files_in(frame)
    assert found is not None and [(one.rows, one.bytes) for one in found.values()] == [
        (2, (tmp_path / "day=a b" / f"{name}.parquet").stat().st_size) for name in ("one", "t w%20o")
    ]
    assert rows_in(frame, list(found)[:1]).count() == 2 and rows_in(frame, found).count() == 4
    frame.createOrReplaceTempView("told_by_none")
    assert files_in(session.table("told_by_none")) is None and files_in(session.range(3)) is None
    session.catalog.dropTempView("told_by_none")
