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
    """What the columns of a batch are, in order.

    Key parts, t (instant), r (spine row; -1 an event, -2 a rejected one), e (event time, if apart), inputs.
    """

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


def accepted(batches: Iterable[pa.RecordBatch], n_keys: int, tally: Tally) -> Iterator[tuple[pa.RecordBatch, bool]]:
    """Yield (batch, whether its first key continues the batch before).  Rejected rows are counted and left out.

    Raises: OutOfOrder when rows step back from batch to batch; DataError at digits below the microsecond.
    """
    before: tuple | None = None
    for batch in batches:
        batch = without_rejected(batch, n_keys + 1, tally)
        if batch.num_rows == 0:
            continue
        first, last = (_border(batch, n_keys, row) for row in (0, batch.num_rows - 1))
        if before is not None and first < before:
            raise OutOfOrder(f"rows step back between batches: {before} then {first}")
        yield batch, before is not None and first[:n_keys] == before[:n_keys]
        before = last


def chunks(batches: Iterable[pa.RecordBatch], layout: Layout, tally: Tally) -> Iterator[tuple[Chunk, bool, pa.RecordBatch]]:
    """Yield (chunk, whether its first key continues the chunk before, the batch).  Raises: as `accepted`, and OutOfOrder within a batch."""
    for batch, continues in accepted(batches, len(layout.keys), tally):
        chunk = make_chunk(batch, layout)
        tally.events += int(np.count_nonzero(chunk.spine_row < 0))
        yield chunk, continues, batch


def first_border(batch: pa.RecordBatch, n_keys: int) -> int:
    """The first row at which another key begins; the number of rows when none does."""
    borders = key_borders(batch, n_keys)
    return int(borders[0]) if len(borders) else batch.num_rows


def key_borders(batch: pa.RecordBatch, n_keys: int) -> np.ndarray:
    """Rows at which another key begins, but the first."""
    n = batch.num_rows
    changed = np.zeros(max(n - 1, 0), bool)
    for column in batch.columns[:n_keys] if n > 1 else ():
        after, before = column.slice(1), column.slice(0, n - 1)
        same = pc.fill_null(pc.equal(after, before), False)
        if column.null_count:
            same = pc.or_(same, pc.and_(pc.is_null(after), pc.is_null(before)))
        changed |= ~same.to_numpy(zero_copy_only=False)
    return np.flatnonzero(changed) + 1


def make_chunk(batch: pa.RecordBatch, layout: Layout) -> Chunk:
    """Turn one sorted batch into words.  Raises: OutOfOrder."""
    n, n_keys = batch.num_rows, len(layout.keys)
    instant = _int64(batch.column(n_keys))
    spine_row = _int64(batch.column(n_keys + 1))
    event_time = instant if layout.event_is_visible else _int64(batch.column(n_keys + 2))
    at = n_keys + (2 if layout.event_is_visible else 3)
    keys = write_words(batch.columns[:n_keys], layout.keys, n)
    inputs = write_words(batch.columns[at:], layout.inputs, n)
    key_index = np.empty(n, np.int64)
    texts = np.array([is_text(kind) for kind in layout.keys], np.bool_)
    numbered = number_keys(keys.words, keys.valid, texts, _owned(keys.text()), instant, spine_row, key_index)
    if numbered < 0:
        raise OutOfOrder(f"row {-numbered - 1} steps back: {batch.slice(max(0, -numbered - 2), 2).to_pylist()}")
    return Chunk(key_index, spine_row, instant, event_time, inputs.words, inputs.valid, _owned(inputs.text()), shifts(layout.inputs))


def _owned(text: np.ndarray) -> np.ndarray:
    """A copy where it is not ours, for kernels are compiled for arrays that may be written to, and once more for others."""
    return text if text.flags.writeable else text.copy()


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
    if pa.types.is_int32(array.type):
        return np.frombuffer(array.buffers()[1], np.int32, len(array), 4 * array.offset).astype(np.int64)
    return np.array(np.frombuffer(array.buffers()[1], np.int64, len(array), 8 * array.offset))


def _border(batch: pa.RecordBatch, n_keys: int, row: int) -> tuple:
    values = [batch.column(i)[row].as_py() for i in range(n_keys)]
    keys = tuple((False, b"") if v is None else (True, v.encode() if isinstance(v, str) else v) for v in values)
    return (*keys, batch.column(n_keys)[row].as_py(), -batch.column(n_keys + 1)[row].as_py())


def without_rejected(batch: pa.RecordBatch, row_at: int, tally: Tally) -> pa.RecordBatch:
    """Leave rejected rows out, and count them.  Raises: DataError at digits below the microsecond."""
    rows = batch.column(row_at)
    worst = pc.min(rows).as_py()
    if worst is None or worst >= -1:
        return batch
    if worst == -1 - TOO_FINE:
        raise DataError(
            "an instant has digits below the microsecond, which would be rounded one way here and cut off there.\n"
            "  Write the column in microseconds: date_trunc('microsecond', t), or cast it to timestamp[us]."
        )
    good = pc.greater_equal(rows, -1)
    tally.rejected += batch.num_rows - pc.sum(good).as_py()
    return batch.filter(good)
