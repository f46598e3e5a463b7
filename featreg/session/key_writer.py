"""Bring sorted rows to the keys of a space: the one way by which rows get into an online store.

A key has two records.  Its *head* holds rows as they are and is written each time; its
*state* holds tiles, is some times larger, and is written when the head has more than
FOLD_ROWS rows that can be folded.  So a write costs its rows, whatever the key has behind
it, and a key's bytes depend on its live tiles and its head, never on how often it was written.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from featreg.algebra.schedule import Chunk
from featreg.compile import CompiledView
from featreg.compile.program import SweepProgram
from featreg.session.keys import HEAD_RECORD, STATE_RECORD, key_prefix, tick_key
from featreg.stores.codec import key_encoder
from featreg.stores.contract import Store, StoreConflict
from featreg.sweep.head import head_runs
from featreg.sweep.kept import KeptSweeper, head_bytes, joined, rows_together, take_rows
from featreg.sweep.stream import Layout, Tally, chunks, first_border, key_borders

FOLD_ROWS = 32  # a read folds so many rows in a few microseconds; a write of the tiles is spread over so many rows
KEYS_A_WRITE = 2048
_SLOW = 0.06  # seconds of a write from which the next one is made smaller
_Put = tuple[bytes, bytes]


class KeyWriter:
    """Writes rows of one space.

    s: rows visible before it may be folded; no read before it is answered afterwards.  run: what this write is called;
    a key that has its name is passed over, so that a write that was cut off can be done again.
    expect: what must be in the store for this write to go on.  watermark: rows visible before it are counted as late.
    """

    def __init__(
        self,
        store: Store,
        space: str,
        view: CompiledView,
        program: SweepProgram,
        s: int,
        run: int,
        expect: Mapping[bytes, bytes | None],
        watermark: int | None = None,
    ):
        self.store, self.prefix, self.tick, self.s, self.run = store, key_prefix(space), tick_key(space), s, run
        self.expect, self.watermark = expect, watermark
        self.key_types = tuple(kind for _, kind in view.key)
        self.input_types = tuple(item.type for item in program.inputs)
        self.encode = key_encoder(self.key_types)
        self.sweeper = KeptSweeper(program)
        self.tally = Tally()
        self.rows = self.keys = self.late_rows = self.bytes = 0
        self.keys_a_write = KEYS_A_WRITE

    def write(self, batch: pa.RecordBatch, event_is_visible: bool) -> None:
        """Bring a batch of whole keys, sorted by key and visible instant; some keys a transaction.

        Raises: StoreConflict when what is expected of the store is there no more.
        """
        layout = Layout(self.key_types, self.input_types, event_is_visible)
        for chunk, _, rows in chunks([batch], layout, self.tally):
            firsts = np.flatnonzero(np.diff(chunk.key_index, prepend=-1))
            encoded = self._encoded(rows, firsts)
            begin = 0
            while begin < len(encoded):
                end = min(begin + self.keys_a_write, len(encoded))
                low = firsts[begin]
                high = firsts[end] if end < len(firsts) else len(chunk.key_index)
                some = take_rows(chunk, np.arange(low, high))
                some.key_index[:] -= begin
                try:
                    if self._write_keys(encoded[begin:end], some) > _SLOW:
                        self.keys_a_write = max(64, self.keys_a_write // 2)
                except StoreConflict as conflict:
                    if conflict.key != self.tick:
                        raise
                    continue  # another writer was at the space between our look and our write: look again
                begin = end

    def _encoded(self, rows: pa.RecordBatch, firsts: np.ndarray) -> list[bytes]:
        parts = [_plain_parts(rows.column(i).take(pa.array(firsts))) for i in range(len(self.key_types))]
        return [self.encode(key) for key in zip(*parts)] if parts else [b""] * len(firsts)

    def _write_keys(self, keys: list[bytes], chunk: Chunk) -> float:
        """One transaction: the rows of `keys`, key i's having `key_index` i.  Returns the seconds it had the store's lease."""
        names = [self.prefix + key for key in keys]
        tick, *heads = self.store.get([self.tick, *(name + HEAD_RECORD for name in names)])
        words, starts = joined(heads)
        todo = np.flatnonzero(head_runs(words, starts) != self.run)
        if len(todo) < len(names):
            chunk = _some_keys(chunk, todo, len(names))
            names = [names[i] for i in todo]
            words, starts = joined([heads[i] for i in todo])
        count = len(names)
        if count == 0:
            return 0.0
        every = rows_together(self.sweeper.old_rows(words, starts), chunk)
        puts, keep = self._fold(names, every)
        head, ends = head_bytes(every, keep, count, self.run)
        puts += _records(names, HEAD_RECORD, head, ends)
        size = sum(len(value) for _, value in puts)
        puts.append((self.tick, _after(tick)))
        seconds = self.store.write(puts, (), {**self.expect, self.tick: tick})
        self.rows += len(chunk.key_index)
        if self.watermark is not None:
            self.late_rows += int(np.count_nonzero(chunk.instant < self.watermark))
        self.keys += count
        self.bytes += size
        return seconds

    def _fold(self, names: list[bytes], every: Chunk) -> tuple[list[_Put], np.ndarray]:
        """Records of the states that take rows in, and the rows that stay in heads."""
        can_fold = every.instant < self.s
        folds = np.bincount(every.key_index[can_fold], minlength=len(names)) > FOLD_ROWS
        chosen = np.flatnonzero(folds)
        if len(chosen) == 0:
            return [], np.arange(len(every.key_index))
        goes = can_fold & folds[every.key_index]
        names = [names[i] for i in chosen]
        words, starts = joined(self.store.get([name + STATE_RECORD for name in names]))
        self.sweeper.bring(words, starts, _some_keys(take_rows(every, np.flatnonzero(goes)), chosen, len(folds)), len(chosen))
        state, ends = self.sweeper.dump(len(chosen), self.s, self.run)
        return _records(names, STATE_RECORD, state, ends), np.flatnonzero(~goes)


def whole_keys(batches: Iterator[pa.RecordBatch], n_keys: int) -> Iterator[pa.RecordBatch]:
    """Cut the stream where a key ends; memory is bounded by a batch and the rows of one key."""
    kept: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows == 0:
            continue
        cut = _last_border(batch, n_keys)
        if kept and (cut > 0 or not _same_key(kept[-1], batch, n_keys)):
            if cut == 0:
                yield _one(kept)
                kept = []
            else:
                first = first_border(batch, n_keys) if _same_key(kept[-1], batch, n_keys) else 0
                yield _one([*kept, batch.slice(0, first)])
                kept = []
                if cut > first:
                    yield batch.slice(first, cut - first)
                kept = [batch.slice(cut)]
                continue
        elif cut > 0:
            yield batch.slice(0, cut)
        kept.append(batch.slice(cut))
    if kept:
        yield _one(kept)


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.concat_batches([batch for batch in batches if batch.num_rows]) if len(batches) > 1 else batches[0]


def _last_border(batch: pa.RecordBatch, n_keys: int) -> int:
    borders = key_borders(batch, n_keys)
    return int(borders[-1]) if len(borders) else 0


def _same_key(before: pa.RecordBatch, after: pa.RecordBatch, n_keys: int) -> bool:
    return all(before.column(i)[before.num_rows - 1].as_py() == after.column(i)[0].as_py() for i in range(n_keys))


def _some_keys(chunk: Chunk, chosen: np.ndarray, count: int) -> Chunk:
    """The rows of the chosen keys (ascending) of `count`, which are numbered anew."""
    number = np.full(count, -1)
    number[chosen] = np.arange(len(chosen))
    rows = take_rows(chunk, np.flatnonzero(number[chunk.key_index] >= 0))
    rows.key_index[:] = number[rows.key_index]
    return rows


def _records(names: Sequence[bytes], ending: bytes, data: memoryview, ends: np.ndarray) -> list[_Put]:
    """Values that stand one behind another, each with its key's name."""
    borders = [0, *(8 * ends).tolist()]
    return [(name + ending, bytes(data[low:high])) for name, low, high in zip(names, borders, borders[1:])]


def _after(tick: bytes | None) -> bytes:
    """The number of the next write to a space: who looked before another one's write must look again."""
    return (int.from_bytes(tick or b"", "little") + 1).to_bytes(8, "little")


def _plain_parts(array: pa.Array) -> list:
    """Key parts as the codec takes them: dates as days, instants as microseconds."""
    if pa.types.is_date32(array.type):
        array = array.cast(pa.int32())
    return array.to_pylist()
