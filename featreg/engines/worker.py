"""Run in a Spark worker: SQL over Arrow batches and over pieces of files, and how a failure is told to the driver."""

import base64
import json
import os
import pickle
import re
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from featreg import errors
from featreg.engines.kept import from_bytes
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


_READ = 1 << 17  # rows of a batch that is read from files
LIMITS: dict[str, Any] = {"threads": 1, "memory_limit": "1GB"}  # of one worker, and Spark runs one for each core; what is more is spilled


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

    with duckdb.connect(config=LIMITS) as connection:
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
    """Rows in files that a worker reads itself; batches hold numbers of pieces.

    pieces: packed, each by itself.  All of them go to every task, which opens its own: of 20,000 files they are a megabyte.
    """

    pieces: tuple[bytes, ...]

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> "InFiles":
        return cls(tuple(map(_packed, pieces)))

    def query(self, sql: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return query_pieces(sql, (_unpacked(self.pieces[number]) for batch in batches for number in batch.column(0).to_pylist()))


def _packed(piece: Piece) -> bytes:
    return zlib.compress(pickle.dumps(piece))


def _unpacked(packed: bytes) -> Piece:
    piece = pickle.loads(zlib.decompress(packed))
    assert isinstance(piece, Piece)
    return piece
