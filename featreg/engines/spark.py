"""Read, shuffle and write with Spark; it knows no features and computes no value.

Only what means the same everywhere is asked of Spark: columns by name, a lower bound on
time, and where to take bytes.  No expression of it looks at a time zone or at the ANSI
setting, so neither matters.
"""

import os
import shutil
import sys
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from featreg.engines.duckdb import DuckDB
from featreg.engines.java import use_java
from featreg.engines.worker import ROWS, Checked, Spread, Task, error_of, to_bytes, told_in, versions
from featreg.errors import DataError, UsageError
from featreg.kernels import use_cache
from featreg.plan.relation import Relation

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

OWN = ("master", "remote", "scratch", "partitions")  # settings of [spark] that are ours; all others are Spark's
_QUIET = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.log.level": "ERROR"}
_MEANWHILE = {  # what the session is set to while a job of ours runs
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(1 << 16),
    "spark.sql.execution.arrow.maxBytesPerBatch": str(64 << 20),
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # not INT96, which readers take for nanoseconds
}
_AS_WRITTEN = {"datetimeRebaseMode": "CORRECTED", "int96RebaseMode": "CORRECTED"}
_FILES = ("parquet", "csv", "json")
_CHUNK = 1 << 16  # rows of a table in one blob
_NANOSECONDS = ("TIMESTAMP(NANOS", "PARQUET_TYPE_ILLEGAL", "timestamp[ns]")


@dataclass(frozen=True)
class Rows:
    """A source's rows for workers.

    packed: the frame's last column holds tables as bytes; else its columns are the rows'.
    relation: what a scan over one batch is spelled over.
    """

    frame: "DataFrame"
    packed: bool
    relation: Relation


class Spark:
    """One session; a scratch folder that executors and driver see; a DuckDB on the driver, for what is small."""

    def __init__(self, settings: Mapping[str, object], state: Path, duckdb: DuckDB, session: "SparkSession | None" = None):
        self.state, self.duckdb = state, duckdb
        self.session = _start(settings, state) if session is None else session
        self.name = f"spark-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self.scratch = f"{settings.get('scratch', state / 'tmp')}/{self.name}"
        self.is_local = "://" not in self.scratch
        self.partitions = int(str(settings.get("partitions", 0)))
        self._staged = 0
        self._slots: dict[int, tuple[int, ...]] = {}

    def close(self) -> None:
        """Take away what was staged.  The session stays, as Spark has one for each process."""
        if self.is_local:
            shutil.rmtree(self.scratch, ignore_errors=True)
        self.duckdb.close()

    # Reading ---------------------------------------------------------------------------------

    def given(self, table: pa.Table) -> Rows:
        """Rows that the driver holds."""
        name = f"given_{uuid.uuid4().hex}"
        described = self.duckdb.register(name, table)
        self.duckdb.unregister(name)
        chunks = (table.slice(at, _CHUNK) for at in range(0, table.num_rows, _CHUNK))
        return Rows(self.ship(enumerate(chunks)), True, Relation(ROWS, described.columns))

    def reads_itself(self, location: object) -> bool:
        """Whether a location of a profile is one that Spark alone can read: a table, a URI, another format than files of ours."""
        settings: Mapping[str, Any] = {"path": location} if isinstance(location, str) else dict(location)  # type: ignore[call-overload]
        return "table" in settings or "://" in str(settings.get("path")) or str(settings.get("format", "parquet")).lower() not in _FILES

    def located(self, source: str, location: object) -> Rows:
        """Rows at a location that Spark alone can read.  Raises: DataError when it cannot."""
        settings: dict[str, Any] = {"path": location} if isinstance(location, str) else dict(location)  # type: ignore[call-overload]
        options = {key: str(value) for key, value in dict(settings.get("options", {})).items()}
        with self.told(f"source '{source}'"):
            if "table" in settings:
                return self.frame_rows(self.session.table(str(settings["table"])))
            reader = self.session.read.format(str(settings.get("format", "parquet"))).options(**_AS_WRITTEN, **options)
            return self.frame_rows(reader.load(settings["path"]))

    def files(self, relation: Relation, files: Sequence[str]) -> Rows:
        """Rows of files that the driver's DuckDB has found to fit each other."""
        if not relation.text.startswith("read_parquet"):
            return self._through_driver(relation)
        with self.told("a source"):
            reader = self.session.read.options(**_AS_WRITTEN, mergeSchema=str(len(files) > 1).lower())
            return self.frame_rows(reader.parquet(*(f"file://{file}" for file in files)))

    def _through_driver(self, relation: Relation) -> Rows:
        """Text is parsed by one parser alone, DuckDB's, on the driver: batch by batch, never whole."""
        batches = self.duckdb.batches(f"SELECT * FROM {relation.text}", _CHUNK)
        frame = self.ship(enumerate(pa.Table.from_batches([batch]) for batch in batches))
        return Rows(frame, True, Relation(ROWS, relation.columns, relation.loose))

    def frame_rows(self, frame: "DataFrame") -> Rows:
        """The rows of a DataFrame; its columns as a worker's DuckDB will see them."""
        return Rows(frame, False, Relation(ROWS, self.duckdb_columns(arrow_schema(frame))))

    def duckdb_columns(self, schema: pa.Schema) -> tuple[tuple[str, str], ...]:
        name = f"given_{uuid.uuid4().hex}"
        columns = self.duckdb.register(name, schema.empty_table()).columns
        self.duckdb.unregister(name)
        return columns

    def only(self, rows: Rows, names: Iterable[str]) -> Rows:
        """Columns by name, upper and lower case alike."""
        if rows.packed:
            return rows
        wanted = {name.lower() for name in names}
        kept = [name for name in rows.frame.columns if name.lower() in wanted]
        return Rows(rows.frame.select(*map(quoted, kept)), False, rows.relation)

    def not_before(self, rows: Rows, column: str, day: str) -> Rows:
        """Leave out rows whose `column` is before a day (ISO, of the years 1 to 9999); NULL and what is before year 1 stay.

        A scan applies its own, exact bound; this is for Spark to pass over files and row groups.
        """
        found = next((name for name in rows.frame.columns if name.lower() == column.lower()), None)
        kind = "" if rows.packed or found is None else rows.frame.schema[found].dataType.typeName()
        literal = {"timestamp": "TIMESTAMP '{} 00:00:00Z'", "timestamp_ntz": "TIMESTAMP_NTZ '{} 00:00:00'", "date": "DATE '{}'"}.get(kind)
        if literal is None or found is None:
            return rows
        name, low, first = quoted(found), literal.format(day), literal.format("0001-01-01")
        return Rows(rows.frame.where(f"{name} >= {low} OR {name} IS NULL OR {name} < {first}"), False, rows.relation)

    # Moving ----------------------------------------------------------------------------------

    def ship(self, tables: Iterable[tuple[int, pa.Table]]) -> "DataFrame":
        """Tables of the driver as a frame of (number, bytes)."""
        if not self.is_local:
            return self.session.createDataFrame([(number, to_bytes(table)) for number, table in tables], "number long, rows binary")
        self._staged += 1
        path = Path(self.scratch) / f"given_{self._staged}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = pa.schema([("number", pa.int64()), ("rows", pa.binary())])
        with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False, write_statistics=False) as writer:
            for number, table in tables:
                writer.write_batch(pa.record_batch([pa.array([number]), pa.array([to_bytes(table)], pa.binary())], schema=schema))
        return self.session.read.schema("number long, rows binary").parquet(f"file://{path}")

    def run(self, frame: "DataFrame", task: Task, schema: str | Any) -> "DataFrame":
        """The task over each partition's batches, in the Python workers."""
        checked = Checked(task, versions(), str(use_cache(self.state).parent.parent))

        def run_task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            yield from checked(batches)

        with _without_pandas_warnings():
            return frame.mapInArrow(run_task, schema)

    def spread(self, keys: Sequence[str], rows: int | None) -> Spread:
        """Where each key goes, of about so many rows."""
        return Spread(tuple(keys), self.slots(self.partitions_for(rows) if keys else 1))

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
                for number, place in numbers.select("id", F.expr(f"pmod(hash(id), {count})")).collect():
                    found.setdefault(place, number)
                tried += step
            self._slots[count] = tuple(found[place] for place in range(count))
        return self._slots[count]

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

    def write_text(self, uri: str, text: str) -> None:
        """A small file at a URI, through Hadoop's file systems; with Spark Connect, which has none, a folder with that file in it."""
        with self.told(f"writing {uri}"):
            context = getattr(self.session, "_jsc", None)
            if context is None:
                self.session.createDataFrame([(text,)], "value string").coalesce(1).write.text(uri, lineSep="\n")
                return
            jvm: Any = self.session._jvm
            path = jvm.org.apache.hadoop.fs.Path(uri)
            stream = path.getFileSystem(context.hadoopConfiguration()).create(path, True)
            stream.write(bytearray(text.encode()))
            stream.close()

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


def is_frame(value: object) -> bool:
    return type(value).__module__.startswith("pyspark.sql")


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
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return DataError(f"{what}: Spark failed: {first.strip()}")


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
