"""Bring all rows of a key to one place, without Spark looking into them, and sort them there."""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featreg.engines.kept import Kept, from_bytes
from featreg.engines.worker import LIMITS, ROWS, query_batches

PLACED = "slot long, again long, rows binary"  # again: how many of the rows are in another place too
_HELD = (1 << 17, 1 << 19)  # least and most rows of a worker's input that are put in their places together


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

    Row by row through the JVM, and sorted there, they would cost it 2.7 us each.
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
        with duckdb.connect(config={**LIMITS, "temp_directory": spilled}) as connection:
            connection.execute("SET TimeZone='UTC'; SET preserve_insertion_order=false")
            connection.register(ROWS, pa.RecordBatchReader.from_batches(schema, found))
            yield from connection.sql(f"SELECT * FROM {ROWS} ORDER BY {order}").to_arrow_reader(rows)
