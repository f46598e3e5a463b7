"""Read, shuffle and write with Spark; it knows no features and computes no value.

Only what means the same everywhere is asked of Spark: columns by name, a lower bound on
time, and where to take bytes.  No expression of it looks at a time zone or at the ANSI
setting, so neither matters.
"""

import os
import re
import shutil
import sys
import uuid
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from featreg.engines.duckdb import DuckDB, widest
from featreg.engines.java import use_java
from featreg.engines.kept import to_bytes
from featreg.engines.lake import is_here
from featreg.engines.pieces import Piece, cut, in_paths
from featreg.engines.spread import Split, Spread
from featreg.engines.worker import ROWS, Checked, Held, InFiles, Task, error_of, told_in, versions
from featreg.errors import DataError, UsageError
from featreg.instants import DAY
from featreg.kernels import use_cache
from featreg.plan.relation import Relation, quote

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

OWN = ("master", "remote", "scratch", "partitions", "split")  # settings of [spark] that are ours; all others are Spark's
_QUIET = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.log.level": "ERROR"}
_MEANWHILE = {  # what the session is set to while a job of ours runs, whatever its owner chose
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(1 << 16),
    "spark.sql.execution.arrow.maxBytesPerBatch": str(64 << 20),
    "spark.sql.execution.arrow.useLargeVarTypes": "false",
    "spark.sql.files.ignoreCorruptFiles": "false",  # a file that is gone or damaged is an error, never no rows
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.sql.legacy.parquet.nanosAsLong": "false",
    "spark.sql.parquet.binaryAsString": "false",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",  # days before 1582 as they are
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # not INT96, which readers take for nanoseconds
    "spark.sql.parquet.writeLegacyFormat": "false",
}
AS_WRITTEN = {"datetimeRebaseMode": "CORRECTED", "int96RebaseMode": "CORRECTED"}
_FILES = ("parquet", "csv", "json")
_FIRST_DAY, _LAST_DAY = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
_CHUNK = 1 << 16  # rows of a table in one blob
_NO_READER = re.compile(r"\[DATA_SOURCE_NOT_FOUND\] Failed to find the data source: (\S+?)\.")
_ABSENT = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_NANOSECONDS = ("TIMESTAMP(NANOS", "PARQUET_TYPE_ILLEGAL", "timestamp[ns]")


@dataclass(frozen=True)
class Rows:
    """A source's rows for workers: in a frame, or in files that workers read.

    relation: what a scan over some of them is spelled over · packed: the frame's last column holds tables as bytes, else its columns are
    the rows' · found: the files, as the driver's DuckDB reads them · paths: columns that stand in their paths, see `in_paths`.
    """

    relation: Relation
    frame: "DataFrame | None" = None
    packed: bool = False
    found: Relation | None = None
    paths: Mapping[str, str] | None = None


class Spark:
    """One session; a scratch folder that executors and driver see; a DuckDB on the driver, for what is small."""

    def __init__(self, settings: Mapping[str, object], state: Path, duckdb: DuckDB, session: "SparkSession | None" = None):
        self.state, self.duckdb = state, duckdb
        self.session = _start(settings, state) if session is None else session
        master = self.session.conf.get("spark.master", None)
        if "scratch" not in settings and not str(master).startswith("local"):
            raise UsageError(
                f"[spark] in conf: say where executors of {master or 'this session'} and this process both read and write: "
                'scratch = "s3a://lake/scratch", or a folder that all of them mount.\n'
                "  What is staged between two steps of a run lies there, and is taken away when the registry is closed."
            )
        self.name = f"spark-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self.scratch = f"{str(settings.get('scratch', state / 'tmp')).rstrip('/')}/{self.name}"
        self.is_local = not is_uri(self.scratch)
        self.is_one_machine = self.is_local and str(master).startswith("local")
        self.storage = Storage(self.session)
        self.partitions, self.split = (int(str(settings.get(name, 0))) for name in ("partitions", "split"))
        self._staged = 0
        self._slots: dict[int, tuple[int, ...]] = {}

    def close(self) -> None:
        """Take away what was staged.  The session stays, as Spark has one for each process."""
        if self.is_local:
            shutil.rmtree(self.scratch, ignore_errors=True)
        elif self._staged:
            self.storage.remove(self.scratch)
        self.duckdb.close()

    # Reading ---------------------------------------------------------------------------------

    def given(self, table: pa.Table) -> Rows:
        """Rows that the driver holds."""
        name = f"given_{uuid.uuid4().hex}"
        described = self.duckdb.register(name, table)
        self.duckdb.unregister(name)
        chunks = (table.slice(at, _CHUNK) for at in range(0, table.num_rows, _CHUNK))
        return Rows(Relation(ROWS, described.columns), self.ship(enumerate(chunks)), packed=True)

    def reads_itself(self, location: object) -> bool:
        """Whether a location of a profile is one that Spark alone can read: a table, a URI, another format than files of ours.

        A Delta or Iceberg table that the driver can list is files of ours.
        """
        settings: Mapping[str, Any] = {"path": location} if isinstance(location, str) else dict(location)  # type: ignore[call-overload]
        if is_here(settings):
            return False
        return "table" in settings or is_uri(str(settings.get("path"))) or str(settings.get("format", "parquet")).lower() not in _FILES

    def located(self, source: str, location: object) -> Rows:
        """Rows at a location that Spark alone can read.  Raises: DataError when it cannot."""
        settings: dict[str, Any] = {"path": location} if isinstance(location, str) else dict(location)  # type: ignore[call-overload]
        options = {key: str(value) for key, value in dict(settings.get("options", {})).items()}
        with self.told(f"source '{source}'"):
            if "table" in settings:
                return self.frame_rows(self._table(str(settings["table"])))
            reader = self.session.read.format(str(settings.get("format", "parquet"))).options(**AS_WRITTEN, **options)
            return self.frame_rows(reader.load(settings.get("path")))

    def _table(self, name: str) -> "DataFrame":
        """A table or view as it is now; a session keeps which files a table had when it first met it."""
        from pyspark.errors import AnalysisException

        self.session.table(name)  # or it is an error that says so
        with suppress(AnalysisException):  # what is in no catalog, and of which nothing is kept
            self.session.catalog.refreshTable(name)
        return self.session.table(name)

    def files(self, relation: Relation) -> Rows:
        """Rows that the driver's DuckDB has found: in Parquet files, which workers read, or by a text that it reads itself."""
        paths = None if relation.files is None else in_paths(self.duckdb, relation)
        if paths is None:
            return self._through_driver(relation)
        return Rows(Relation(ROWS, relation.columns), found=relation, paths=paths)

    def spine(self, files: list[str]) -> "tuple[DataFrame, InFiles, pa.Schema]":
        """Parquet files that are a spine, for workers to read, and every column that one of them has.  Raises: DataError."""
        found = self.duckdb.parquet_files(files, {}, "the spine")
        assert found.files is not None
        kinds: dict[str, set[str]] = {name.lower(): set() for name, _ in found.columns}
        for form in found.files.forms:
            for name, kind in form.columns:
                kinds[name.lower()].add(kind)
        columns = tuple((name, widest(kinds[name.lower()])) for name, _ in found.columns)
        if unlike := [f"'{name}' is {' here and '.join(sorted(kinds[name.lower()]))} there" for name, kind in columns if kind is None]:
            raise DataError(f"the spine: column {unlike[0]}. Write its files with one type.")
        typed = tuple((name, str(kind)) for name, kind in columns)
        pieces = cut(self.duckdb, replace(found, columns=typed), [name for name, _ in typed], self.cores)
        schema = self.duckdb.table(f"SELECT {', '.join(f'NULL::{kind} AS {quote(name)}' for name, kind in typed)} LIMIT 0").schema
        return *self._numbers(pieces), schema

    def _through_driver(self, relation: Relation) -> Rows:
        """Text is parsed by one parser alone, DuckDB's, on the driver: batch by batch, never whole."""
        batches = self.duckdb.batches(f"SELECT * FROM {relation.text}", _CHUNK)
        frame = self.ship(enumerate(pa.Table.from_batches([batch]) for batch in batches))
        return Rows(Relation(ROWS, relation.columns, relation.loose), frame, packed=True)

    def frame_rows(self, frame: "DataFrame") -> Rows:
        """The rows of a DataFrame; its columns as a worker's DuckDB will see them."""
        with self.told("a DataFrame"):
            return Rows(Relation(ROWS, self.duckdb_columns(arrow_schema(frame))), frame)

    def duckdb_columns(self, schema: pa.Schema) -> tuple[tuple[str, str], ...]:
        name = f"given_{uuid.uuid4().hex}"
        columns = self.duckdb.register(name, schema.empty_table()).columns
        self.duckdb.unregister(name)
        return columns

    def chosen(self, rows: Rows, names: Collection[str], since: tuple[str, int] | None = None) -> "tuple[DataFrame, Held | InFiles]":
        """A frame of the columns of these names, upper and lower case alike, and how a worker gets at its rows.

        since: (column, instant): Rows before it may be left out, NULL and what is before year 1 stay.  A scan applies its own, exact
        bound; this is for passing over files and row groups.
        """
        if rows.found is not None:
            return self._numbers(cut(self.duckdb, rows.found, names, self.cores, since, rows.paths))
        assert rows.frame is not None
        if rows.packed:
            return rows.frame, Held(packed=True)
        frame = rows.frame if since is None or (day := _day_before(since[1])) is None else _not_before(rows.frame, since[0], day)
        wanted = {name.lower() for name in names}
        return frame.select(*(quoted(name) for name in frame.columns if name.lower() in wanted)), Held(packed=False)

    def _numbers(self, pieces: tuple[Piece, ...]) -> "tuple[DataFrame, InFiles]":
        """A task for each piece."""
        return self.session.range(0, len(pieces), 1, max(1, len(pieces))), InFiles.of(pieces)

    # Moving ----------------------------------------------------------------------------------

    def ship(self, tables: Iterable[tuple[int, pa.Table]]) -> "DataFrame":
        """Tables of the driver as a frame of (number, bytes).  One of them is in memory."""
        self._staged += 1
        schema = pa.schema([("number", pa.int64()), ("rows", pa.binary())])
        name = f"given_{self._staged}.parquet"
        folder = Path(self.scratch if self.is_local else self.state / "tmp" / self.name)
        folder.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(folder / name, schema, compression="none", use_dictionary=False, write_statistics=False) as writer:
            for number, table in tables:
                writer.write_batch(pa.record_batch([pa.array([number]), pa.array([to_bytes(table)], pa.binary())], schema=schema))
        uri = f"file://{folder / name}"
        if not self.is_local:
            uri = f"{self.scratch}/{name}"
            with self.told(f"writing {uri}"):
                self.storage.move(folder / name, uri)
            shutil.rmtree(folder)
        return self.session.read.schema("number long, rows binary").parquet(uri)

    def run(self, frame: "DataFrame", task: Task, schema: str | Any) -> "DataFrame":
        """The task over each partition's batches, in the Python workers."""
        checked = Checked(task, versions(), str(use_cache(self.state).parent.parent))

        def run_task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            yield from checked(batches)

        with _without_pandas_warnings():
            return frame.mapInArrow(run_task, schema)

    def spread(self, keys: Sequence[str], rows: int | None, split: Split | None = None) -> Spread:
        """Where each key goes, of about so many rows."""
        places = self.partitions_for(rows) if keys else 1
        slots = self.slots(places if split is None else max(places, split.parts))
        return Spread(tuple(keys), slots, split, self.folder("placed") if self.is_one_machine else None)

    def together(self, frames: "Sequence[DataFrame]", spread: Spread) -> "DataFrame":
        """All that was spread, each place a partition.

        The number of partitions is given, so that adaptive execution does not put them together again.
        """
        whole = frames[0]
        for frame in frames[1:]:
            whole = whole.unionByName(frame)
        return whole.repartition(len(spread.slots), "slot")

    def partitions_for(self, rows: int | None) -> int:
        """How many partitions `rows` rows are worth: a million and a half in each, and work for every core.  None: as Spark is set."""
        if rows is None:
            return self.partitions or int(str(self.session.conf.get("spark.sql.shuffle.partitions", "200")))
        return self.partitions or max(self.cores, min(10_000, -(-rows // 1_500_000)))

    @property
    def cores(self) -> int:
        try:
            return int(self.session.sparkContext.defaultParallelism)
        except Exception:  # Spark Connect has no context
            return int(self.session.conf.get("spark.default.parallelism", "8") or 8)

    def slots(self, count: int) -> tuple[int, ...]:
        """For each of `count` partitions a number that Spark hashes into it: `repartition(count, number)` is then a placing."""
        if count == 1:
            return (0,)
        if count not in self._slots:
            from pyspark.sql import functions as F

            found: dict[int, int] = {}
            tried, step = 0, 16 * count + 64
            while len(found) < count:
                numbers = self.session.range(tried, tried + step)
                places = numbers.groupBy(F.expr(f"pmod(hash(id), {count})")).agg(F.min("id"))
                found = {place: number for place, number in places.collect()} | found
                tried += step
            self._slots[count] = tuple(found[place] for place in range(count))
        return self._slots[count]

    def folder(self, what: str) -> str | None:
        """A new folder that workers keep tables in; None where scratch is no folder."""
        if not self.is_local:
            return None
        self._staged += 1
        folder = Path(self.scratch, f"{what}_{self._staged}").absolute()
        folder.mkdir(parents=True)
        return str(folder)

    def done(self, spread: Spread) -> None:
        """Take away what was spread, when it has been read."""
        if spread.folder is not None:
            shutil.rmtree(spread.folder, ignore_errors=True)

    def stage(self, frame: "DataFrame", schema: str) -> "DataFrame":
        """Write a frame to scratch, each partition once whatever is retried, and read it from there."""
        self._staged += 1
        path = f"{'file://' if self.is_local else ''}{self.scratch}/staged_{self._staged}"
        with self.told("Spark"):
            frame.write.option("compression", "uncompressed").parquet(path)
        return self.session.read.schema(schema).parquet(path)

    def collected(self, frame: "DataFrame") -> list[Any]:
        """Few rows."""
        with self.told("Spark"):
            return frame.collect()

    def streamed(self, frame: "DataFrame") -> Iterator[Any]:
        """Rows partition by partition, in their order; one partition is in memory, and the next on its way."""
        with self.told("Spark"):
            yield from frame.toLocalIterator(prefetchPartitions=True)

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Failures of Spark in our words; the session is set for our jobs meanwhile, and as it was afterwards."""
        from pyspark.errors import PySparkException

        with self._settings():
            try:
                yield
            except PySparkException as error:
                raise _in_our_words(error, what) from None
            except Exception as error:
                if type(error).__module__.startswith("py4j"):
                    raise _in_our_words(error, what) from None
                raise

    @contextmanager
    def _settings(self) -> Iterator[None]:
        before = {name: self.session.conf.get(name, None) for name in _MEANWHILE}
        try:
            for name, value in _MEANWHILE.items():
                self.session.conf.set(name, value)
            yield
        finally:
            for name, old in before.items():
                self.session.conf.unset(name) if old is None else self.session.conf.set(name, old)


class Storage:
    """Small things at URIs, where only Spark can look: through Hadoop's file systems, or what Spark Connect has in their place."""

    def __init__(self, session: "SparkSession"):
        self.session = session
        self.context: Any = getattr(session, "_jsc", None)  # None with Spark Connect

    def write_text(self, uri: str, text: str) -> None:
        """A file; with Spark Connect a folder with that file in it."""
        if self.context is None:
            self.session.createDataFrame([(text,)], "value string").coalesce(1).write.mode("overwrite").text(uri, lineSep="\n")
            return
        stream = self._system(uri).create(self._path(uri), True)
        stream.write(bytearray(text.encode()))
        stream.close()

    def move(self, file: Path, uri: str) -> None:
        """A local file to a URI.  Spark Connect takes it to where its server's settings allow that."""
        if self.context is None:
            self.session.copyFromLocalToFs(str(file), uri)  # type: ignore[attr-defined]
            file.unlink()
        else:
            self._system(uri).copyFromLocalFile(True, True, self._path(f"file://{file}"), self._path(uri))

    def is_there(self, uri: str) -> bool:
        """Whether something is; Spark Connect cannot look, and says it when that is written over."""
        return self.context is not None and bool(self._system(uri).exists(self._path(uri)))

    def remove_made(self, uri: str) -> None:
        """Take away a folder that was not there before.  Who cannot look takes nothing: of a failed write Spark leaves no part file."""
        if self.context is not None:
            self.remove(uri)

    def remove(self, uri: str) -> None:
        """Take a folder away, whatever is in it; Spark Connect, which deletes nothing, leaves it empty."""
        if self.context is None:
            self.session.createDataFrame([], "nothing string").write.mode("overwrite").parquet(uri)
        else:
            self._system(uri).delete(self._path(uri), True)

    def _path(self, uri: str) -> Any:
        jvm: Any = self.session._jvm
        return jvm.org.apache.hadoop.fs.Path(uri)

    def _system(self, uri: str) -> Any:
        return self._path(uri).getFileSystem(self.context.hadoopConfiguration())


def is_frame(value: object) -> bool:
    return type(value).__module__.startswith("pyspark.sql")


def is_uri(location: str) -> bool:
    """Whether a location is one for Hadoop's file systems: `s3a://lake/x`, `dbfs:/x`.

    A path of a file system that all machines mount is none.
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", location) is not None


def _not_before(frame: "DataFrame", column: str, day: str) -> "DataFrame":
    found = next((name for name in frame.columns if name.lower() == column.lower()), None)
    kind = "" if found is None else frame.schema[found].dataType.typeName()
    literal = {"timestamp": "TIMESTAMP '{} 00:00:00Z'", "timestamp_ntz": "TIMESTAMP_NTZ '{} 00:00:00'", "date": "DATE '{}'"}.get(kind)
    if literal is None or found is None:
        return frame
    name, low, first = quoted(found), literal.format(day), literal.format("0001-01-01")
    return frame.where(f"{name} >= {low} OR {name} IS NULL OR {name} < {first}")


def _day_before(instant: int) -> str | None:
    """A day that begins before the instant, for a bound that need not be sharp; None beyond the years that have four digits."""
    if not _FIRST_DAY.timestamp() * 1e6 < instant < _LAST_DAY.timestamp() * 1e6:
        return None
    return datetime.fromtimestamp((instant - DAY) // 1_000_000, UTC).date().isoformat()


def quoted(name: str) -> str:
    """A column's name as Spark reads it, whatever is in it."""
    return "`" + name.replace("`", "``") + "`"


def arrow_schema(frame: "DataFrame") -> pa.Schema:
    """A frame's columns as workers get them; an instant's zone is a label, UTC here."""
    from pyspark.sql.pandas.types import to_arrow_schema

    return to_arrow_schema(frame.schema, timezone="UTC")


def _in_our_words(error: Exception, what: str) -> Exception:
    text = str(error)
    facts = told_in(text)
    if facts is not None:
        return error_of(facts) or Overflown(facts)
    if any(word in text for word in _NANOSECONDS):
        return DataError(
            f"{what} cannot be read: Spark does not read timestamps in nanoseconds.\n"
            "  Write the column in microseconds: date_trunc('microsecond', t), or cast it to timestamp[us]."
        )
    absent = _ABSENT.search(text)
    if absent is not None:
        return UsageError(
            f"a Spark worker has no Python package '{absent[1]}'.\n"
            "  Install there what the driver has, or ship the driver's environment (spark.archives, or the cluster's image)."
        )
    unread = _NO_READER.search(text)
    if unread is not None:
        return UsageError(
            f"{what}: this Spark has no reader for '{unread[1]}'.\n"
            "  Name its package in conf under [spark] (\"spark.jars.packages\"). Or, for a Delta or Iceberg table whose files this machine "
            "sees, give\n  its path without file:// and install what reads its log: pip install 'featreg[delta]' or 'featreg[iceberg]'."
        )
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("SQLSTATE")] or [type(error).__name__]
    if lines[0].startswith("An error occurred while calling") and len(lines) > 1:  # py4j's own line; the next is of the JVM's error
        lines[0] = lines[1].removeprefix(": ")
    return DataError(f"{what}: Spark failed: {lines[-1] if 'Python worker' in lines[0] else lines[0]}")


class Overflown(Exception):
    """A result out of range, as a worker told it: which column, which row."""

    def __init__(self, facts: Mapping[str, Any]):
        self.facts = facts
        super().__init__(str(facts))


@contextmanager
def _without_pandas_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _start(settings: Mapping[str, object], state: Path) -> "SparkSession":
    """The process's session, or a new one with the profile's settings."""
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise UsageError("engine = \"spark\" needs PySpark: pip install 'featreg[spark]'.") from None
    conf = dict(_flat(settings))
    builder = SparkSession.builder
    if "remote" in settings:
        builder = builder.remote(str(settings["remote"]))
    else:
        master = str(settings.get("master", "local[*]"))
        builder = builder.master(master).appName("featreg")
        use_java(state)
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        conf = _QUIET | conf
    for name, value in conf.items():
        builder = builder.config(name, value)
    with _without_pandas_warnings():
        try:
            return builder.getOrCreate()
        except ImportError as error:
            raise UsageError(f"[spark] in conf: {error}\n  For Spark Connect: pip install 'featreg[spark-connect]'.") from None
        except Exception as error:
            raise UsageError(f"[spark] in conf: Spark does not start: {str(error).splitlines()[0]}") from None


def _flat(settings: Mapping[str, object], prefix: str = "spark") -> Iterator[tuple[str, str]]:
    """Spark's settings: `"spark.executor.memory" = "4g"`, or executor.memory = "4g", or a table [spark.executor]."""
    for key, value in settings.items():
        name = key if key.startswith("spark.") else f"{prefix}.{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        elif prefix != "spark" or key not in OWN:
            yield name, str(value).lower() if isinstance(value, bool) else str(value)
