"""Run in a Spark worker: tables as bytes, SQL over Arrow batches, and how a failure is told to the driver."""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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


def query_batches(sql: str, batches: Iterable[pa.RecordBatch], packed: bool) -> Iterator[pa.RecordBatch]:
    """The query's rows over each batch; `packed`: the last column of a batch holds tables as bytes.

    The session is in UTC, as the driver's is; one thread, for Spark runs a worker for each core.
    """
    import duckdb

    with duckdb.connect(config={"threads": 1, "memory_limit": "1GB"}) as connection:
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
