"""Run in a Spark worker: tables as bytes, SQL over Arrow batches, and how a failure is told to the driver."""

import base64
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from featreg import errors
from featreg.errors import DataError, FeatregError, UsageError
from featreg.kernels import use_cache

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
        use_cache(Path(self.state))
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


def to_bytes(rows: pa.Table | pa.RecordBatch) -> bytes:
    """Rows as an Arrow stream: every type as it is, whatever Spark makes of it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write(rows)
    return sink.getvalue().to_pybytes()


def from_bytes(value: pa.Scalar) -> pa.Table:
    return pa.ipc.open_stream(value.as_buffer()).read_all()


PLACED = "slot long, rows binary"
_HELD = 1 << 19  # rows of a worker's input that are put in their places together
_LIMITS: dict[str, Any] = {"threads": 1, "memory_limit": "1GB"}  # of one worker, and Spark runs one for each core; what is more is spilled


@dataclass(frozen=True)
class Spread:
    """Rows in, bytes for each partition out: all rows of a key have one place, and Spark moves them without looking into them.

    Row by row through the JVM, and sorted there, they cost it 2.7 us each, and so 1.5, most of which is its reading of Parquet.
    slots: by place, what Spark hashes into that partition.
    """

    keys: tuple[str, ...]
    slots: tuple[int, ...]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        place = f"hash({', '.join(self.keys)}) % {len(self.slots)}" if self.keys else "0"
        held: list[pa.RecordBatch] = []
        for batch in query_batches(f"SELECT *, ({place})::INTEGER FROM {ROWS}", batches, False):
            held.append(batch)
            if sum(one.num_rows for one in held) >= _HELD:
                yield self._placed(held)
                held = []
        if held:
            yield self._placed(held)

    def _placed(self, held: list[pa.RecordBatch]) -> pa.RecordBatch:
        rows = pa.Table.from_batches(held)
        places = rows.column(rows.num_columns - 1).to_numpy()
        order = np.argsort(places, kind="stable")
        ordered = rows.drop_columns(rows.column_names[-1:]).take(pa.array(order)).combine_chunks()
        borders = np.flatnonzero(np.diff(places[order], prepend=-1)).tolist()
        slots = [self.slots[places[order[border]]] for border in borders]
        blobs = [to_bytes(ordered.slice(low, high - low)) for low, high in pairwise([*borders, len(order)])]
        return pa.record_batch([pa.array(slots, pa.int64()), pa.array(blobs, pa.binary())], names=["slot", "rows"])


def sorted_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema, order: str, rows: int) -> Iterator[pa.RecordBatch]:
    """The rows that `Spread` sent to a partition, sorted.  Memory is bounded: DuckDB spills its sort."""
    import duckdb

    found = (batch for placed in batches for blob in placed.column(1) for batch in from_bytes(blob).to_batches())
    with tempfile.TemporaryDirectory(prefix="featreg-") as spilled:
        with duckdb.connect(config={**_LIMITS, "temp_directory": spilled}) as connection:
            connection.execute("SET TimeZone='UTC'; SET preserve_insertion_order=false")
            connection.register(ROWS, pa.RecordBatchReader.from_batches(schema, found))
            yield from connection.sql(f"SELECT * FROM {ROWS} ORDER BY {order}").to_arrow_reader(rows)


def query_batches(sql: str, batches: Iterable[pa.RecordBatch], packed: bool) -> Iterator[pa.RecordBatch]:
    """The query's rows over each batch; `packed`: the last column of a batch holds tables as bytes.

    The session is in UTC, as the driver's is; one thread, for Spark runs a worker for each core.
    """
    import duckdb

    with duckdb.connect(config=_LIMITS) as connection:
        connection.execute("SET TimeZone='UTC'")
        for batch in batches:
            for rows in map(from_bytes, batch.column(batch.num_columns - 1)) if packed else (pa.Table.from_batches([batch]),):
                connection.register(ROWS, rows)
                try:
                    yield from connection.sql(sql).to_arrow_table().to_batches()
                except duckdb.Error as error:
                    raise DataError(f"a scan failed: {str(error).strip().splitlines()[0]}") from None
                finally:
                    connection.unregister(ROWS)
