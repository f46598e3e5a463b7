"""Run in a Spark worker: tables as bytes, SQL over Arrow batches, and how a failure is told to the driver."""

import base64
import json
import os
import re
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from featreg import errors
from featreg.engines.pieces import Piece, check_files
from featreg.errors import DataError, FeatregError, UsageError
from featreg.kernels import use_cache

if TYPE_CHECKING:
    import duckdb

Task = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
ROWS = "featreg_rows"  # what a scan over Arrow batches reads from
_TOLD = re.compile(r"featreg told \[([A-Za-z0-9+/=]*)\]")
_MUST_AGREE = ("featreg", "duckdb", "numba", "numpy", "pyarrow")


class Told(Exception):
    """A failure that is data: its facts survive Spark, which keeps of a worker's exception the text alone."""

    def __init__(self, **facts: Any):
        self.facts = facts
        super().__init__(f"featreg told [{base64.b64encode(json.dumps(facts).encode()).decode()}]")


def told_in(text: str) -> dict[str, Any] | None:
    """The facts of a `Told` within a text."""
    found = _TOLD.search(text)
    return None if found is None else json.loads(base64.b64decode(found[1]))


def error_of(facts: dict[str, Any]) -> FeatregError | None:
    """The error that a worker raised, when it was one of featreg's own that is made of its message."""
    kind = getattr(errors, str(facts.get("error")), None)
    return kind(facts["message"]) if kind is not None else None


def versions() -> dict[str, str]:
    """The versions of what decides values, here."""
    found = {}
    for name in _MUST_AGREE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


@dataclass(frozen=True)
class Checked:
    """A task for workers whose packages are the driver's; its own errors are told as facts."""

    task: Task
    expected: dict[str, str]
    state: str

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        use_cache(kernels_folder(Path(self.state)))
        try:
            here = versions()
            if here != self.expected:
                unlike = ", ".join(f"{name} {here[name]} (driver: {there})" for name, there in self.expected.items() if here[name] != there)
                raise UsageError(
                    f"a Spark worker has other packages than the driver: {unlike}.\n"
                    "  Install the same versions there, or ship the driver's environment (spark.archives, or the cluster's image)."
                )
            yield from self.task(batches)
        except Told:
            raise
        except (DataError, UsageError) as error:
            raise Told(error=type(error).__name__, message=str(error)) from None


def kernels_folder(state: Path) -> Path:
    """Where a worker keeps compiled kernels: where the driver does, or, on a machine that has no such place, among its temporary files."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        if os.access(state, os.W_OK):
            return state
    except OSError:
        pass
    return Path(tempfile.gettempdir(), f"featreg-{os.getuid()}")


def to_bytes(rows: pa.Table | pa.RecordBatch) -> bytes:
    """Rows as an Arrow stream: every type as it is, whatever Spark makes of it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write(rows)
    return sink.getvalue().to_pybytes()


class Kept:
    """Tables that a later step takes: in a file of their own below a folder that all machines see, and then Spark moves where they are.

    Without a folder it moves them as bytes.  What an attempt wrote that was given up is never asked for.
    """

    def __init__(self, folder: str | None):
        self.path = None if folder is None else os.path.join(folder, uuid.uuid4().hex)
        self._file: pa.NativeFile | None = None

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def put(self, rows: pa.Table | pa.RecordBatch) -> bytes:
        """What `from_bytes` reads as these rows, when this is closed."""
        if self.path is None:
            return to_bytes(rows)
        if self._file is None:
            self._file = _opened(self.path, lambda path: pa.OSFile(path, "wb"))
        self._file.write(bytes(-self._file.tell() % 8))  # values are read where they lie
        start = self._file.tell()
        with pa.ipc.new_stream(self._file, rows.schema) as writer:
            writer.write(rows)
        return f"@{start} {self._file.tell() - start} {self.path}".encode()


def from_bytes(value: pa.Scalar) -> pa.Table:
    """The table that was made to bytes, or kept."""
    buffer = value.as_buffer()
    if buffer[:1].to_pybytes() == b"@":
        start, length, path = buffer.to_pybytes()[1:].decode().split(" ", 2)
        file = _opened(path, pa.memory_map)
        file.seek(int(start))
        buffer = file.read_buffer(int(length))
    return pa.ipc.open_stream(buffer).read_all()


def _opened(path: str, opened: Callable[[str], pa.NativeFile]) -> pa.NativeFile:
    try:
        return opened(path)
    except FileNotFoundError:
        raise UsageError(
            f"{os.path.dirname(path)} is not seen on {socket.gethostname()} as it is by the driver.\n"
            "  Set [spark] scratch in conf to a folder that all machines mount, or to a URI of a file system that all of them reach."
        ) from None


PLACED = "slot long, again long, rows binary"  # again: how many of the rows are in another place too
_READ = 1 << 17  # rows of a batch that is read from files
_HELD = (1 << 17, 1 << 19)  # least and most rows of a worker's input that are put in their places together
_LIMITS: dict[str, Any] = {"threads": 1, "memory_limit": "1GB"}  # of one worker, and Spark runs one for each core; what is more is spilled


@dataclass(frozen=True)
class Split:
    """Each key's questions (rows whose r is not negative) in parts by their instant t, each with all events that one of its part may see.

    borders: where the next part begins · reach: an event counts for an instant t only from t - reach on · event_time: its column.
    """

    borders: tuple[int, ...]
    reach: int
    event_time: str

    @property
    def parts(self) -> int:
        return len(self.borders) + 1

    def sql(self) -> str:
        """The list of a row's parts, the one that counts it first."""
        first, last = self._part_of("t"), self._part_of(f"{self.event_time} + {self.reach}")
        return f"CASE WHEN r >= 0 THEN [{first}] WHEN r < -1 THEN [0] ELSE range({first}, greatest({first}, {last}) + 1) END"

    def _part_of(self, instant: str) -> str:
        return "(" + " + ".join(f"({instant} >= {border})::BIGINT" for border in self.borders) + ")"


@dataclass(frozen=True)
class Spread:
    """Rows in, bytes for each partition out: all rows of a key have one place, and Spark moves them without looking into them.

    Row by row through the JVM, and sorted there, they cost it 2.7 us each, and so 1.5, most of which is its reading of Parquet.
    slots: by place, what Spark hashes into that partition · split: where a key has several places, no more than there are ·
    folder: where rows wait for the next step, when it is on the same machine; else Spark carries them.
    """

    keys: tuple[str, ...]
    slots: tuple[int, ...]
    split: Split | None = None
    folder: str | None = None

    def sql(self) -> str:
        """The rows, each with its place and whether that is another one than its first."""
        places = len(self.slots)
        place = f"(hash({', '.join(self.keys)}) % {places})::BIGINT" if self.keys else "0"
        if self.split is None:
            return f"SELECT *, {place}, false FROM {ROWS}"
        parted = f"SELECT *, {self.split.sql()} AS parts FROM {ROWS}"
        parted = f"SELECT * EXCLUDE (parts), unnest(parts) AS part, part > parts[1] AS again FROM ({parted})"
        return f"SELECT * EXCLUDE (part, again), ({place} + part) % {places}, again FROM ({parted})"

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        least, most = _HELD  # memory that was just given back is quick to use again, and a place's blob should not be tiny
        enough = min(most, max(least, len(self.slots) << 13))
        held: list[pa.RecordBatch] = []
        with Kept(self.folder) as kept:
            for batch in query_batches(self.sql(), batches):
                held.append(batch)
                if sum(one.num_rows for one in held) >= enough:
                    yield self._placed(held, kept)
                    held = []
            if held:
                yield self._placed(held, kept)

    def _placed(self, held: list[pa.RecordBatch], kept: Kept) -> pa.RecordBatch:
        (rows,) = pa.Table.from_batches(held).combine_chunks().to_batches()
        places = rows.column(rows.num_columns - 2).to_numpy()
        order = np.argsort(places.astype(np.int16) if len(self.slots) < 1 << 15 else places, kind="stable")  # of 16 bits by radix
        ordered = rows.select(range(rows.num_columns - 2)).take(pa.array(order))
        met = np.bincount(places, minlength=len(self.slots))
        there = np.flatnonzero(met)
        ends = np.cumsum(met[there])
        again = np.bincount(places[rows.column(rows.num_columns - 1).to_numpy(zero_copy_only=False)], minlength=len(self.slots))
        blobs = [kept.put(ordered.slice(end - count, count)) for end, count in zip(ends.tolist(), met[there].tolist())]
        columns = [pa.array([self.slots[place] for place in there]), pa.array(again[there]), pa.array(blobs, pa.binary())]
        return pa.record_batch(columns, names=["slot", "again", "rows"])


def sorted_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema, order: str, rows: int) -> Iterator[pa.RecordBatch]:
    """The rows that `Spread` sent to a partition, sorted.  Memory is bounded: DuckDB spills its sort."""
    import duckdb

    found = (batch for placed in batches for blob in placed.column(2) for batch in from_bytes(blob).to_batches())
    with tempfile.TemporaryDirectory(prefix="featreg-") as spilled:
        with duckdb.connect(config={**_LIMITS, "temp_directory": spilled}) as connection:
            connection.execute("SET TimeZone='UTC'; SET preserve_insertion_order=false")
            connection.register(ROWS, pa.RecordBatchReader.from_batches(schema, found))
            yield from connection.sql(f"SELECT * FROM {ROWS} ORDER BY {order}").to_arrow_reader(rows)


def query_batches(sql: str, tables: Iterable[pa.Table | pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The query's rows over each table.  The session is in UTC, as the driver's is; one thread, for Spark runs a worker for each core."""
    with _scanning() as connection:
        for rows in tables:
            connection.register(ROWS, pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows)
            yield from connection.sql(sql).to_arrow_table().to_batches()
            connection.unregister(ROWS)


def query_pieces(sql: str, pieces: Iterable[Piece]) -> Iterator[pa.RecordBatch]:
    """The query's rows over each piece of some files, as they are read."""
    with _scanning() as connection:
        for piece in pieces:
            check_files(piece, connection)
            for text in piece.texts:
                connection.execute(f"CREATE OR REPLACE TEMP VIEW {ROWS} AS FROM {text}")
                yield from connection.sql(sql).to_arrow_reader(_READ)


@contextmanager
def _scanning() -> "Iterator[duckdb.DuckDBPyConnection]":
    import duckdb

    with duckdb.connect(config=_LIMITS) as connection:
        connection.execute("SET TimeZone='UTC'")
        try:
            yield connection
        except (duckdb.Error, pa.ArrowException) as error:
            raise DataError(f"a scan failed: {str(error).strip().splitlines()[0]}") from None


@dataclass(frozen=True)
class Held:
    """Rows that batches hold: as bytes of tables in their last column (`packed`), or as their columns."""

    packed: bool

    def query(self, sql: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if not self.packed:
            return query_batches(sql, batches)
        return query_batches(sql, (from_bytes(rows) for batch in batches for rows in batch.column(batch.num_columns - 1)))


@dataclass(frozen=True)
class InFiles:
    """Rows in files that a worker reads itself; batches hold numbers of pieces."""

    pieces: tuple[Piece, ...]

    def query(self, sql: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return query_pieces(sql, (self.pieces[number] for batch in batches for number in batch.column(0).to_pylist()))
