"""Make chunks of sorted Arrow batches: keys numbered, order checked, values as words."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featreg.algebra.schedule import Chunk
from featreg.errors import DataError
from featreg.plan.scan_sql import TOO_FINE
from featreg.sweep.keys import number_keys
from featreg.sweep.words import WordWriter, is_text
from featreg.vocabulary import DataType

BATCH_ROWS = 1 << 16


@dataclass
class Layout:
    """What the columns of a batch are: key parts, t (instant), r (spine row or -1), e (event time, if apart), bad, inputs."""

    keys: tuple[DataType, ...]
    inputs: tuple[DataType, ...]
    event_is_visible: bool


@dataclass
class Tally:
    """What was counted on the way."""

    rejected: int = 0
    events: int = 0


class OutOfOrder(AssertionError):
    """The engine did not sort: our own mistake, never the author's."""


def chunks(batches: Iterable[pa.RecordBatch], layout: Layout, tally: Tally) -> Iterator[tuple[Chunk, bool, pa.RecordBatch]]:
    """Yield (chunk, whether its first key continues the chunk before, the batch).  Rejected rows are counted and left out.

    Raises: OutOfOrder when keys or instants step back; DataError at digits below the microsecond.
    """
    before: tuple | None = None
    n_keys = len(layout.keys)
    for batch in batches:
        batch = _without_rejected(batch, n_keys + (2 if layout.event_is_visible else 3), tally)
        if batch.num_rows == 0:
            continue
        chunk = make_chunk(batch, layout)
        first, last = (_border(batch, n_keys, row) for row in (0, batch.num_rows - 1))
        if before is not None and first < before:
            raise OutOfOrder(f"rows step back between batches: {before} then {first}")
        continues = before is not None and first[:n_keys] == before[:n_keys]
        before = last
        tally.events += int(np.count_nonzero(chunk.spine_row < 0))
        yield chunk, continues, batch


def make_chunk(batch: pa.RecordBatch, layout: Layout) -> Chunk:
    """Turn one sorted batch into words.  Raises: OutOfOrder."""
    n, n_keys = batch.num_rows, len(layout.keys)
    instant = _int64(batch.column(n_keys))
    spine_row = _int64(batch.column(n_keys + 1))
    event_time = instant if layout.event_is_visible else _int64(batch.column(n_keys + 2))
    at = n_keys + (3 if layout.event_is_visible else 4)
    keys = write_words(batch.columns[:n_keys], layout.keys, n)
    inputs = write_words(batch.columns[at:], layout.inputs, n)
    key_index = np.empty(n, np.int64)
    texts = np.array([is_text(kind) for kind in layout.keys], np.bool_)
    numbered = number_keys(keys.words, keys.valid, texts, keys.text(), instant, spine_row, key_index)
    if numbered < 0:
        raise OutOfOrder(f"row {-numbered - 1} steps back: {batch.slice(max(0, -numbered - 2), 2).to_pylist()}")
    return Chunk(key_index, spine_row, instant, event_time, inputs.words, inputs.valid, inputs.text(), shifts(layout.inputs))


def shifts(types: Sequence[DataType]) -> np.ndarray:
    """1 for each input whose words point into the chunk's text."""
    return np.array([is_text(kind) for kind in types], np.int64)


def write_words(arrays: Sequence[pa.Array], types: Sequence[DataType], rows: int) -> WordWriter:
    writer = WordWriter(len(types), rows)
    for column, (array, kind) in enumerate(zip(arrays, types)):
        writer.put(column, array, kind)
    return writer


def _int64(array: pa.Array) -> np.ndarray:
    """A copy, for kernels are compiled for writable arrays; NULL is 0."""
    if array.null_count:
        array = pc.fill_null(array, 0)
    return np.array(np.frombuffer(array.buffers()[1], np.int64, len(array), 8 * array.offset))


def _border(batch: pa.RecordBatch, n_keys: int, row: int) -> tuple:
    values = [batch.column(i)[row].as_py() for i in range(n_keys)]
    keys = tuple((False, b"") if v is None else (True, v.encode() if isinstance(v, str) else v) for v in values)
    return (*keys, batch.column(n_keys)[row].as_py(), -batch.column(n_keys + 1)[row].as_py())


def _without_rejected(batch: pa.RecordBatch, bad_at: int, tally: Tally) -> pa.RecordBatch:
    bad = batch.column(bad_at)
    worst = pc.max(bad).as_py()
    if not worst:
        return batch
    if worst == TOO_FINE:
        raise DataError(
            "an instant has digits below the microsecond, which would be rounded one way here and cut off there.\n"
            "  Write the column in microseconds: date_trunc('microsecond', t), or cast it to timestamp[us]."
        )
    good = pc.equal(bad, 0)
    tally.rejected += batch.num_rows - pc.sum(good).as_py()
    return batch.filter(good)
