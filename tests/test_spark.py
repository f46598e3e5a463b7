"""Spark gives DuckDB's bits: in random worlds, whatever form rows come in, in zones that are not UTC.

One session for the whole run, local[2].  The session's zone is Kolkata and the JVM's is New York.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featreg
from featreg.engines.kept import Kept, from_bytes
from featreg.engines.spark import Spark
from featreg.engines.spread import Split
from featreg.engines.worker import Checked, Told, error_of, kernels_folder, told_in, versions
from featreg.session import staged_spine
from featreg.session.filled import Filling
from featreg.session.output import write_parts
from tests.shop import ENTITY, ORDERS, REALTIME_SET, RECENT, Shop, at, order, spine_of
from tests.test_worlds import SET, check_table, draft, first_difference, in_python, repository, shown
from tests.worlds import World, seeded_world

SPARK = """
engine = "spark"
[spark]
master = "local[2,4]"
partitions = 3
split = 4
"spark.driver.memory" = "1g"
"spark.driver.extraJavaOptions" = "-Duser.timezone=America/New_York"
"spark.sql.session.timeZone" = "Asia/Kolkata"
"spark.sql.ansi.enabled" = false
"""
PROFILE = SPARK + '[sources]\nevents = "data/*.parquet"\n'


def as_tables(registry: Any, world: World, root: Path) -> pa.Table:
    """Rows that the driver holds."""
    return registry.training_set(SET, world.spine, time="as_of", draft=True, sources={"events": world.events}).to_arrow()


def as_files(registry: Any, world: World, root: Path) -> pa.Table:
    """Several files of events, a folder of spine files, a folder of results: what executors read and write."""
    half, third = world.events.num_rows // 2, world.spine.num_rows // 3
    for number, rows in enumerate((world.events.slice(0, half), world.events.slice(half))):
        _write(rows, root / f"data/part_{number}.parquet")
    for number, rows in enumerate((world.spine.slice(0, third), world.spine.slice(third))):
        _write(rows, root / f"spine/part_{number}.parquet")
    made = registry.training_set(SET, root / "spine", time="as_of", draft=True)
    assert len(made) == world.spine.num_rows
    made.write(root / "out")
    return pa.concat_tables([pq.read_table(file) for file in sorted((root / "out").glob("part-*.parquet"))])


def as_frames(registry: Any, world: World, root: Path) -> pa.Table:
    """DataFrames of a session."""
    for name, rows in (("events", world.events), ("spine", world.spine)):
        _write(rows, root / f"{name}.parquet")
    read = registry.spark.session.read
    events, spine = read.parquet(str(root / "events.parquet")), read.parquet(str(root / "spine.parquet"))
    return registry.training_set(SET, spine, time="as_of", draft=True, sources={"events": events}).to_arrow()


def as_catalog(registry: Any, world: World, root: Path) -> pa.Table:
    """A table of the session's catalog, that the profile names."""
    _write(world.events, root / "events.parquet")
    registry.spark.session.read.parquet(str(root / "events.parquet")).createOrReplaceTempView("events_of_the_world")
    return registry.training_set(SET, world.spine, time="as_of", draft=True).to_arrow()


def _write(rows: pa.Table, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(rows, path)


def as_spark_labels(table: pa.Table) -> pa.Table:
    """The same instants; Spark keeps no zone, so its label is UTC."""
    fields = [
        pa.field(one.name, pa.timestamp("us", "UTC")) if pa.types.is_timestamp(one.type) and one.type.tz is not None else one
        for one in table.schema
    ]
    return table.cast(pa.schema(fields))


def check_world(parent: Path, world: World, form: Callable[[Any, World, Path], pa.Table]) -> None:
    profile = SPARK + '[sources]\nevents = {table = "events_of_the_world"}\n' if form is as_catalog else PROFILE
    with shown(world), repository(parent, in_python(world) | {"conf/local.toml": profile}) as root:
        with featreg.open(root) as registry:
            if world.overflows:
                with pytest.raises(featreg.OverflowDataError):
                    form(registry, world, root)
                return
            found = form(registry, world, root)
        check_table(world, found, world.expected(), world.spine if form in (as_tables, as_catalog) else as_spark_labels(world.spine))
        (root / "conf/local.toml").unlink()
        columns = list(world.types)
        assert _same_bits(draft(root, world).select(columns), found.select(columns)), "DuckDB and Spark differ"


def _same_bits(left: pa.Table, right: pa.Table) -> bool:
    return first_difference(left.column_names, left.to_pylist(), right.to_pylist()) is None


def test_spark_gives_what_duckdb_and_the_definition_give_in_random_worlds(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Every cell, to the bit; `--worlds 11100` makes 300 of them."""
    first = 1000 * pytestconfig.getoption("--world-seed")
    forms = (as_tables, as_files, as_frames, as_catalog)
    for seed in range(first, first + max(4, pytestconfig.getoption("--worlds") // 37)):
        form = forms[seed % len(forms)]
        try:
            check_world(tmp_path, seeded_world(seed, most_events=24, most_spine=8, most_features=5), form)
        except AssertionError as error:
            raise AssertionError(f"seeded_world({seed}, 24, 8, 5), {form.__name__}\n{error}") from error


# What may go wrong on the way


SPEC = """
from featreg import Entity, EventSource, FeatureSet, FeatureView, agg
user = Entity(name="user", key={"user": "BIGINT"})
events = EventSource(name="events", columns={"user": "BIGINT", "value": "BIGINT", "text": "VARCHAR", "at": "TIMESTAMP"}, event_time="at")
seen = FeatureView(name="seen", entity=user, source=events, features={
    "n": agg.count().over("10m", "1d"), "total": agg.sum("value").over("1h"), "texts": agg.last_n("text", 3).over("1h", hop="exact"),
    "kinds": agg.count_distinct("text").over("1h"),
})
world_set = FeatureSet(name="world_set", features=[seen.all()])
"""
FEATURES = ["n_10m", "n_1d", "total_1h", "texts_1h", "kinds_1h"]


def busy(root: Path, rows: int = 200_000, asked: int = 2_000) -> tuple[dict[str, str], pa.Table]:
    """A repository with events, three in five of them of one key: it fills several Arrow batches.  And a spine."""
    rng = np.random.default_rng(4)
    user = np.where(rng.random(rows) < 0.6, 0, rng.integers(1, 500, rows))
    at = pa.array(np.sort(rng.integers(0, 86_400_000_000, rows))).cast(pa.timestamp("us"))
    text = pa.array([f"t{n}" for n in rng.integers(0, 40, rows)])
    _write(pa.table({"user": user, "value": rng.integers(-9, 9, rows), "text": text, "at": at}), root / "events.parquet")
    as_of = pa.array(rng.integers(0, 90_000_000_000, asked)).cast(pa.timestamp("us"))
    spine = pa.table({"user": np.where(rng.random(asked) < 0.5, 0, rng.integers(1, 600, asked)), "as_of": as_of})
    sources = f'[sources]\nevents = "{root}/events.parquet"\n'
    return {"features/world.py": SPEC, "conf/local.toml": sources, "conf/spark.toml": SPARK + sources}, spine


def test_keys_are_cut_in_time_and_nothing_changes_not_even_what_is_counted(tmp_path: Path) -> None:
    """Late rows, rejected ones, rows at the borders, and a view of the one global key; parts of two windows' length and of one."""
    minute, span = 60_000_000, 40
    rng = np.random.default_rng(5)
    rows = 4000
    at = rng.integers(-30, span, rows) * minute
    late = at + rng.choice([0, 0, 1, 7, 25], rows) * minute
    instants = pa.array(at, mask=rng.random(rows) < 0.01).cast(pa.timestamp("us"))
    events = {"user": rng.choice([0, 0, 0, 1, 2], rows), "value": rng.normal(size=rows), "at": instants}
    _write(pa.table(events | {"known": pa.array(late).cast(pa.timestamp("us"))}), tmp_path / "events.parquet")
    columns = '"user": "BIGINT", "value": "DOUBLE", "at": "TIMESTAMP", "known": "TIMESTAMP"'
    features = '''"n": agg.count().over("3m", "10m"), "sum": agg.sum("value").over("10m"),
        "last": agg.last_n("value", 4).over("10m", hop="exact"), "kinds": agg.count_distinct("user").over("5m")'''
    more = ', available="known"'
    spec = f"""
from featreg import Entity, EventSource, Every, FeatureSet, FeatureView, agg
user, world = Entity(name="user", key={{"user": "BIGINT"}}), Entity(name="world", key={{}})
events = EventSource(name="events", columns={{{columns}}}, event_time="at"{more}, max_rejected=100)
seen = FeatureView(name="seen", entity=user, source=events, features={{{features}}})
whole = FeatureView(name="whole", entity=world, source=events, freshness=Every("5m"), features={{{features}}})
world_set = FeatureSet(name="world_set", features=[seen.all(), whole.all().prefix("w_")])
"""
    profile = f'[sources]\nevents = "{tmp_path}/events.parquet"\n'
    as_of = pa.array([*rng.integers(0, span * minute, 300), *np.arange(0, span, 5) * minute]).cast(pa.timestamp("us"))
    spine = pa.table({"user": rng.integers(0, 4, len(as_of)), "as_of": as_of})
    files = {"features/world.py": spec, "conf/local.toml": profile, "conf/spark.toml": SPARK + profile}
    with repository(tmp_path, files) as root:
        found = []
        for name in ("local", "spark"):
            with featreg.open(root, profile=name) as registry:
                made = registry.training_set(SET, spine, time="as_of", draft=True)
                found.append((made.to_arrow(), [(one.view, one.events, one.rejected) for one in made.receipts]))
    assert _same_bits(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    assert found[0][1][0][2] > 0, "nothing was rejected"


@pytest.mark.parametrize(("instant", "parts"), [(0, [0]), (99, [0]), (100, [1]), (250, [2]), (-900, [0])])
def test_an_event_is_in_every_part_that_may_see_it(instant: int, parts: list[int]) -> None:
    """Borders at 100 and 200, and 60 back: an event of 90 that arrives at 150 is in the second part, and one of 190 in the third too."""
    split = Split((100, 200), 60, "e")
    listed = duckdb.sql(f"SELECT {split.sql()} FROM (SELECT {instant} AS t, 0 AS r, NULL::BIGINT AS e)").fetchall()
    assert listed == [(parts,)]
    rows = {(90, 90): [0, 1], (150, 90): [1], (150, 190): [1, 2], (10, 10): [0], (210, 90): [2], (39, 39): [0], (40, 40): [0, 1]}
    for (t, e), wanted in rows.items():
        assert duckdb.sql(f"SELECT {split.sql()} FROM (SELECT {t} AS t, -1 AS r, {e} AS e)").fetchall() == [(wanted,)]


def filled(root: Path, spine: Any, profile: str) -> pa.Table:
    with featreg.open(root, profile=profile) as registry:
        return registry.training_set(SET, spine, time="as_of", draft=True).to_arrow()


def test_workers_killed_in_the_middle_of_a_run_change_nothing(tmp_path: Path) -> None:
    """Three of this session's Python workers die while they work; a hot key's state crosses batches all the same."""
    files, spine = busy(tmp_path)
    with repository(tmp_path, files) as root:
        wanted = filled(root, spine, "local")
        with featreg.open(root, profile="spark") as registry:
            assert registry.spark.session.version
        over, killed = threading.Event(), list[int]()
        killer = threading.Thread(target=_kill_workers, args=(over, killed, 3))
        killer.start()
        try:
            found = filled(root, spine, "spark")
        finally:
            over.set()
            killer.join()
    assert killed, "no worker was met at work"
    assert _same_bits(wanted, found)


def _kill_workers(over: threading.Event, killed: list[int], most: int) -> None:
    """Kill workers of this process's Spark that are at work, one every half second."""
    while not over.wait(0.5) and len(killed) < most:
        at_work = [process for process in _python_workers() if process not in killed and _is_running(process)]
        if at_work:
            os.kill(at_work[0], signal.SIGKILL)
            killed.append(at_work[0])


def _python_workers() -> list[int]:
    """Processes that a pyspark daemon below this process forked."""
    parents, commands = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(entry.name)] = (entry / "cmdline").read_bytes()
        except OSError:
            continue

    def is_below(process: int) -> bool:
        while process > 1:
            process = parents.get(process, 0)
            if process == os.getpid():
                return True
        return False

    return [
        process
        for process, parent in parents.items()
        if b"pyspark.daemon" in commands.get(process, b"") and b"pyspark.daemon" in commands.get(parent, b"") and is_below(process)
    ]


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "R"
    except OSError:
        return False


def test_the_command_line_runs_on_spark_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The command does without pandas, and PySpark asks for it."""

    def command(*arguments: str) -> str:
        run = [sys.executable, "-c", "import sys; from featreg.cli import main; sys.exit(main())", "-C", str(tmp_path), *arguments]
        done = subprocess.run(run, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    command("init", str(tmp_path))
    (tmp_path / "conf" / "spark.toml").write_text(f'{SPARK}[sources]\norders = "data/orders.csv"\n')
    asked = ("training-set", "order_model", "--draft", "--spine", str(tmp_path / "data/asked.csv"), "--time", "asked_at", "--out")
    command(*asked, str(tmp_path / "one.parquet"))
    command("--profile", "spark", *asked, str(tmp_path / "two.parquet"))
    assert pq.read_table(tmp_path / "two.parquet").equals(pq.read_table(tmp_path / "one.parquet"))


def test_an_executor_killed_in_the_middle_changes_nothing_through_spark_connect_too(tmp_path: Path) -> None:
    """Two executors that are processes; one dies at work, another takes its place, and slow tasks run twice."""
    files, spine = busy(tmp_path, asked=500)
    with repository(tmp_path, files) as root:
        _write(spine, root / "spine.parquet")
        call = [sys.executable, "-m", "tests.spark_cluster", str(root), str(root / "spine.parquet"), str(root / "out")]
        # The Java that this process has may lie in a repository that an earlier test has taken away.
        there = {name: value for name, value in os.environ.items() if name != "JAVA_HOME" or Path(value).exists()}
        done = subprocess.run(call, capture_output=True, text=True, cwd=Path(__file__).parent.parent, env=there)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "killed 1 of 2 executors" in done.stdout
        assert _same_bits(filled(root, spine, "local"), pq.read_table(root / "out"))
        assert [file.name for file in (root / "out").iterdir()] == ["part-000000.parquet"], "what a lost attempt wrote is there"


def test_a_spine_of_no_rows_is_a_file_of_none(tmp_path: Path) -> None:
    files, spine = busy(tmp_path, rows=10, asked=1)
    with repository(tmp_path, files) as root, featreg.open(root, profile="spark") as registry:
        _write(spine.slice(0, 0), root / "spine.parquet")
        made = registry.training_set(SET, root / "spine.parquet", time="as_of", draft=True)
        made.write(root / "out")
        found = pq.read_table(root / "out")
        assert len(made) == found.num_rows == 0 and found.schema.names == made.to_arrow().schema.names == [*spine.column_names, *FEATURES]


def test_a_write_that_fails_leaves_nothing_and_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """The set's own feature is out of range for one row: it is found while executors write."""
    files, _ = busy(tmp_path, rows=50)
    files["features/world.py"] = SPEC.replace("[seen.all()])", '[seen.all()], derived={"beyond": "n_1d * 9223372036854775807"})')
    spine = pa.table({"user": [0, 7], "as_of": pa.array([86_400_000_000, 0]).cast(pa.timestamp("us"))})
    with repository(tmp_path, files) as root, featreg.open(root, profile="spark") as registry:
        registry.apply()
        before = sorted(root.iterdir())
        for draft, out in ((True, "one.parquet"), (False, "parts")):
            made = registry.training_set(SET, spine, time="as_of", draft=draft)
            with pytest.raises(featreg.OverflowDataError, match=r"beyond.*1970-01-02T00:00:00Z"):
                made.write(root / out)
            assert sorted(root.iterdir()) == before
        assert not registry.control().training_sets
        (root / "there").mkdir()
        with pytest.raises(featreg.UsageError, match="is there already"):
            made.write(root / "there")


def test_a_session_that_is_handed_in_is_used_and_left_as_it_was(tmp_path: Path) -> None:
    files, spine = busy(tmp_path, rows=300, asked=20)
    with repository(tmp_path, files) as root:
        with featreg.open(root, profile="spark") as registry:
            session = registry.spark.session
        name = "spark.sql.execution.arrow.maxRecordsPerBatch"
        session.conf.set(name, "777")
        try:
            with featreg.open(root, spark=session) as registry:
                found = registry.training_set(SET, spine, time="as_of", draft=True).to_arrow()
            assert session.conf.get(name) == "777"
        finally:
            session.conf.unset(name)
        assert _same_bits(filled(root, spine, "local"), found)
        assert not list((root / ".featreg/tmp").glob("spark-*")), "scratch is taken away"


def test_rows_go_by_uris_and_what_is_staged_there_is_taken_away(tmp_path: Path) -> None:
    """As in a cluster: scratch, spine and result are where Hadoop's file systems look alone."""
    files, spine = busy(tmp_path, rows=300, asked=20)
    files["conf/spark.toml"] = files["conf/spark.toml"].replace("[spark]", f'[spark]\nscratch = "file:{tmp_path}/scratch/"')
    with repository(tmp_path, files) as root:
        _write(spine, root / "spine/one.parquet")
        with featreg.open(root, profile="spark") as registry:
            made = registry.training_set(SET, f"file:{root}/spine", time="as_of", draft=True)
            assert made.write(f"file:{root}/out") == f"file:{root}/out" and (root / "out.manifest.json").is_file()
            with pytest.raises(featreg.UsageError, match="is there already"):
                made.write(f"file:{root}/out")
            given = registry.training_set(SET, spine, time="as_of", draft=True).to_arrow()
            assert list((tmp_path / "scratch").rglob("*.parquet")), "nothing was staged"
        assert not list((tmp_path / "scratch").iterdir()) and not list((root / ".featreg/tmp").glob("spark-*"))
        wanted = filled(root, spine, "local")
        assert _same_bits(wanted, given) and _same_bits(wanted, pq.read_table(root / "out"))


def test_a_failed_write_to_a_uri_leaves_nothing(tmp_path: Path) -> None:
    made: list[str] = []

    def fail(uri: str) -> None:
        Path(uri.removeprefix("file:")).mkdir()
        made.append(uri)
        raise featreg.DataError("no room")

    files, _ = busy(tmp_path, rows=2)
    with repository(tmp_path, files) as root, featreg.open(root, profile="spark") as registry:
        with pytest.raises(featreg.DataError, match="no room"):
            write_parts(fail, dict, f"file:{root}/out", registry.spark.storage)
        assert made and not (root / "out").exists() and not (root / "out.manifest.json").exists()


def test_a_damaged_file_is_an_error_in_a_session_that_would_pass_over_it(tmp_path: Path) -> None:
    files, spine = busy(tmp_path, rows=3000)
    written = bytearray((tmp_path / "events.parquet").read_bytes())
    written[20:-2000] = bytes(len(written) - 2020)
    (tmp_path / "events.parquet").write_bytes(written)
    with repository(tmp_path, files) as root, featreg.open(root, profile="spark") as registry:
        registry.spark.session.conf.set("spark.sql.files.ignoreCorruptFiles", "true")
        try:
            with pytest.raises(featreg.DataError, match=r"a scan failed: .*events.parquet"):
                registry.training_set(SET, spine, time="as_of", draft=True)
        finally:
            registry.spark.session.conf.unset("spark.sql.files.ignoreCorruptFiles")


@pytest.mark.parametrize(("first", "second"), [("local", "spark"), ("spark", "local")])
def test_what_one_engine_made_the_other_makes_again(tmp_path: Path, first: str, second: str) -> None:
    """The same content id and the same training set, by files and specs that the log holds."""
    files, spine = busy(tmp_path, rows=3000, asked=50)
    files["features/world.py"] = SPEC.replace('event_time="at"', 'event_time="at", starts="1970-01-01"')
    with repository(tmp_path, files) as root:
        _write(spine, root / "spine.parquet")
        with featreg.open(root, profile=first) as registry:
            registry.apply()
            registry.snapshot("events")
            out = root / ("out" if first == "spark" else "out.parquet")
            made = registry.training_set(SET, root / "spine.parquet", time="as_of")
            made.write(out)
            assert made.manifest["numbers"][0] == len(made) == 50
        for file in (root / "spine.parquet", tmp_path / "events.parquet"):
            file.unlink()
        with featreg.open(root, profile=second) as registry:
            again = root / ("again.parquet" if second == "local" else "again")
            found = registry.reproduce(made.manifest["id"], out=again)
            assert len(registry.control().training_sets) == 1
        assert found.identical and found.same_bytes is None
        assert {one.kind for one in found.differences} == {"engine"} and found.manifest["id"] == made.manifest["id"]
        assert _same_bits(pq.read_table(out), pq.read_table(again))


def test_rows_are_put_together_once_and_counted_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a folder and a file, block by block in the spine's order: the same rows and manifest as when they are counted alone.

    At a URI they are counted alone.
    """
    monkeypatch.setattr(staged_spine, "BLOCK_ROWS", 40)
    files, spine = busy(tmp_path, rows=300, asked=100)
    put_together: list[str] = []
    run = Filling._frame

    def counted(filling: Filling, task: Any, schema: Any) -> Any:
        put_together.append(type(task).__name__)
        return run(filling, task, schema)

    monkeypatch.setattr(Filling, "_frame", counted)
    with repository(tmp_path, files) as root, featreg.open(root, profile="spark") as registry:
        registry.apply()
        wanted = registry.training_set(SET, spine, time="as_of")
        rows, manifest = wanted.to_arrow(), wanted.manifest
        for out in (root / "out", root / "out.parquet", f"file:{root}/out_at_uri"):
            made = registry.training_set(SET, spine, time="as_of")
            put_together.clear()
            made.write(out)
            assert len(put_together) == (2 if isinstance(out, str) else 1), put_together
            place = Path(str(out).removeprefix("file:"))
            told = json.loads(place.with_name(f"{place.name}.manifest.json").read_text())
            assert told == json.loads(json.dumps(made.manifest))
            assert {**told, "views": 0} == {**json.loads(json.dumps(manifest)), "views": 0}, "but for seconds"
            parts = sorted(place.glob("part-*.parquet")) if place.is_dir() else [place]
            assert _same_bits(rows, pa.concat_tables(map(pq.read_table, parts)))
        assert len(parts) == 3 and len(registry.control().training_sets) == 1


def test_pushed_rows_that_gave_way_to_files_since_are_read_as_they_stood(tmp_path: Path) -> None:
    sources = '[sources]\norders = "data/*.parquet"\n'
    source = ORDERS.replace('tie_break="shop",', 'tie_break="shop", stream="until_batch",')
    shop = Shop(tmp_path, ENTITY + source + RECENT + REALTIME_SET, sources).applied()
    (tmp_path / "conf/spark.toml").write_text(SPARK + sources)
    rows = [order(minute, amount=0.25 * minute) for minute in range(0, 90, 10)]
    shop.put("one", rows[:6])
    with shop.open() as registry:
        registry.materialize(to=at(60))
        registry.push("orders", rows[6:])
        registry.snapshot("orders")
        made = registry.training_set("model", spine_of([{"customer": "ann"}], at(100)), time="as_of")
        made.write(tmp_path / "train.parquet")
        shop.put("two", rows[6:])
        registry.materialize(to=at(95))
    with featreg.open(tmp_path, profile="spark") as registry:
        found = registry.reproduce(made.manifest["id"], out=tmp_path / "again")
    assert found.identical and pq.read_table(tmp_path / "again").equals(made.to_arrow())


@pytest.mark.parametrize("in_folder", [True, False])
def test_tables_that_are_kept_are_read_as_they_were(tmp_path: Path, in_folder: bool) -> None:
    """Slices, NULLs, text, lists and none at all; where they lie, when there is a folder, and then little is moved."""
    rows = {"n": [1, None, 3], "text": ["a", None, "c" * 9], "list": [[1.5], None, []], "day": pa.array([1, 2, None], pa.date32())}
    whole = pa.table(rows | {"yes": [True, False, None]})
    tables = [whole, whole.slice(1, 1), whole.slice(0, 0), pa.table({"n": np.arange(100_000)}), pa.table({}), whole]
    with Kept(str(tmp_path) if in_folder else None) as kept:
        moved = [kept.put(table) for table in tables]
    assert all(from_bytes(pa.scalar(one, pa.binary())).equals(table) for one, table in zip(moved, tables))
    assert (len(moved[3]) < 200) == in_folder == len(list(tmp_path.iterdir()))
    lying = from_bytes(pa.scalar(moved[3], pa.binary())).column(0).chunk(0).buffers()[1]
    assert lying.address % 8 == 0 or not in_folder


def test_a_folder_that_a_machine_does_not_see_is_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    with Kept(str(tmp_path / "absent")) as kept, pytest.raises(featreg.UsageError, match=r"(?s)absent is not seen on .*scratch in conf"):
        kept.put(pa.table({"n": [1]}))
    with pytest.raises(featreg.UsageError, match="is not seen on"):
        from_bytes(pa.scalar(f"@0 8 {tmp_path}/gone".encode()))


def test_a_cluster_is_asked_for_a_place_that_all_of_it_sees(tmp_path: Path) -> None:
    session = SimpleNamespace(conf={"spark.master": "yarn"})
    with pytest.raises(featreg.UsageError, match=r'of yarn .* scratch = "s3a:'):
        Spark({}, tmp_path, None, session)  # type: ignore[arg-type]


def test_a_machine_without_the_drivers_folder_keeps_kernels_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert kernels_folder(tmp_path / "state") == tmp_path / "state"
    assert tempfile.gettempdir() in str(kernels_folder(tmp_path / "file/state"))


def test_a_worker_without_a_package_says_which(tmp_path: Path) -> None:
    class Absent:
        def __reduce__(self) -> Any:
            return __import__, ("featreg_is_not_here",)

    files, _ = busy(tmp_path, rows=2)
    with repository(tmp_path, files) as root, featreg.open(root, profile="spark") as registry:
        engine = registry.spark
        with pytest.raises(featreg.UsageError, match="no Python package 'featreg_is_not_here'"):
            engine.collected(engine.run(engine.session.range(1), Absent(), "id long"))  # type: ignore[arg-type]


def test_a_worker_with_other_packages_says_which(tmp_path: Path) -> None:
    with pytest.raises(Told) as told:
        list(Checked(iter, versions() | {"duckdb": "0.1"}, str(tmp_path))(iter([])))
    error = error_of(told_in(f"Traceback: {told.value}"))
    assert isinstance(error, featreg.UsageError) and "duckdb" in str(error) and "(driver: 0.1)" in str(error)
