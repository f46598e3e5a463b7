"""Bring sorted rows to the keys of a space: the one way by which rows get into an online store.

A key has two records.  Its *head* holds rows as they are and is written each time; its
*state* holds tiles, is some times larger, and is written when the head has more than
FOLD_ROWS rows that can be folded, and they are more than a FOLD_SHARE-th of it.  So a
write costs its rows, whatever the key has behind it, and a key's bytes depend on its
live tiles and its head, never on how often it was written.  A head of many rows that
reads of the past still want is closed into pieces (see `busy_keys`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import pyarrow as pa

from featreg.algebra.schedule import Chunk
from featreg.compile import CompiledView
from featreg.compile.program import SweepProgram
from featreg.session import busy_keys
from featreg.session.busy_keys import BusyKeys, some_keys
from featreg.session.keys import records_of
from featreg.stores.codec import encoded_column
from featreg.stores.contract import Store, StoreConflict
from featreg.sweep.head import head_runs
from featreg.sweep.kept import KeptSweeper, head_bytes, head_counts, joined, newest_s, rows_together, take_rows
from featreg.sweep.stream import Layout, Tally, chunks, first_border, key_borders

FOLD_ROWS = 16  # a read folds so many rows in a few microseconds; a write of the tiles is spread over so many rows
FOLD_SHARE = 8  # and over such a part of a long head, which is taken apart for it
KEYS_A_WRITE = 2048
_FEW_KEYS = 64
_SLOW = 0.06  # seconds of a write from which the next one is made smaller
_Put = tuple[bytes, bytes]


@dataclass(frozen=True)
class Change:
    """What a write does to some keys: what it puts and deletes, and what must still be there when it does."""

    puts: list[_Put]
    deletes: list[bytes]
    expect: dict[bytes, bytes | None]
    rows: int
    keys: int
    late_rows: int


class KeyWriter:
    """Writes rows of one space.

    s: rows visible before it may be folded; no read before it is answered afterwards.  soon: rows visible before it may be
    folded where their key is busy, for few reads are as of an instant before it; None makes no key busy.  run: what this write is called;
    a key that has its name is passed over, so that a write that was cut off can be done again; None for rows that come
    with their own mark of what was done.  expect: what must be in the store for this write to go on.
    watermark: rows visible before it are counted as late.
    replaces: rows that are there and visible in `[from, to)` give way to those that are written.
    """

    def __init__(
        self,
        store: Store,
        space: str,
        view: CompiledView,
        program: SweepProgram,
        s: int,
        run: int | None,
        expect: Mapping[bytes, bytes | None],
        watermark: int | None = None,
        replaces: tuple[int, int] | None = None,
    ):
        self.store, self.records, self.s, self.run = store, records_of(space), s, run
        self.expect, self.watermark, self.replaces = expect, watermark, replaces
        self.soon: int | None = None
        self.key_types = tuple(kind for _, kind in view.key)
        self.input_types = tuple(item.type for item in program.inputs)
        self.sweeper = KeptSweeper(program)
        self.tally = Tally()
        self.rows = self.keys = self.late_rows = self.bytes = 0
        self.keys_a_write = KEYS_A_WRITE

    def write(self, batch: pa.RecordBatch, event_is_visible: bool) -> None:
        """Bring a batch of whole keys, sorted by key and visible instant; some keys a transaction.

        Raises: StoreConflict when what is expected of the store is there no more.
        """
        for names, chunk in self.laid_out(batch, event_is_visible):
            firsts = np.flatnonzero(np.diff(chunk.key_index, prepend=-1))
            begin = 0
            while begin < len(names):
                end = min(begin + self.keys_a_write, len(names))
                low = firsts[begin]
                high = firsts[end] if end < len(firsts) else len(chunk.key_index)
                some = take_rows(chunk, np.arange(low, high))
                some.key_index[:] -= begin
                try:
                    if self._write_keys(names[begin:end], some) > _SLOW:
                        self.keys_a_write = max(_FEW_KEYS, self.keys_a_write // 2)
                except StoreConflict as conflict:
                    if conflict.key in self.expect:
                        raise
                    self.keys_a_write = max(_FEW_KEYS, self.keys_a_write // 2)
                    continue  # another writer was at one of these keys between our look and our write: look again
                begin = end

    def clear(self, names: list[bytes]) -> None:
        """Write keys that get no rows: so that what is there and gives way is gone."""
        nothing = take_rows(self.sweeper.chunk, np.zeros(0, np.int64))
        begin = 0
        while begin < len(names):
            try:
                self._write_keys(names[begin : begin + _FEW_KEYS], nothing)
            except StoreConflict as conflict:
                if conflict.key in self.expect:
                    raise
                continue
            begin += _FEW_KEYS

    def laid_out(self, batch: pa.RecordBatch, event_is_visible: bool) -> Iterator[tuple[list[bytes], Chunk]]:
        """The good rows of a batch of whole keys as words, and what each key is called in the names of its records."""
        layout = Layout(self.key_types, self.input_types, event_is_visible)
        for chunk, _, rows in chunks([batch], layout, self.tally):
            yield self.names(rows, np.flatnonzero(np.diff(chunk.key_index, prepend=-1))), chunk

    def names(self, rows: pa.RecordBatch, firsts: np.ndarray) -> list[bytes]:
        """What the keys of these rows are called."""
        parts = [encoded_column(kind, rows.column(i).take(pa.array(firsts))) for i, kind in enumerate(self.key_types)]
        if len(parts) == 1:
            return parts[0]
        return list(map(b"".join, zip(*parts))) if parts else [b""] * len(firsts)

    def _write_keys(self, names: list[bytes], chunk: Chunk) -> float:
        """One transaction: the rows of `names`, name i's having `key_index` i.  Returns the seconds it had the store's lease."""
        seen = self.store.instant()
        if seen is not None:  # the write compares nothing then, unless someone has written since
            for (key, value), found in zip(self.expect.items(), self.store.get(list(self.expect))):
                if found != value:
                    raise StoreConflict(key, value, found)
        change = self.change(names, chunk)
        if not change.puts:
            return 0.0
        seconds = self.store.write(change.puts, change.deletes, {**self.expect, **change.expect}, seen)
        self.rows += change.rows
        self.late_rows += change.late_rows
        self.keys += change.keys
        self.bytes += sum(map(len, map(itemgetter(1), change.puts)))
        return seconds

    def change(self, names: list[bytes], chunk: Chunk) -> Change:
        """What bringing these rows does, from what the keys hold now: what they held is expected, byte for byte."""
        records = [self.records.head + name for name in names]
        heads = self.store.get(records)
        words, starts = joined(heads)
        runs = head_runs(words, starts)
        if self.run is not None:
            todo = np.flatnonzero(runs != self.run)
            if len(todo) < len(names):
                chunk = some_keys(chunk, todo, len(names))
                names, records, heads = [names[i] for i in todo], [records[i] for i in todo], [heads[i] for i in todo]
                words, starts = joined(heads)
            runs = np.full(len(names), self.run, np.int64)
        if len(names) == 0:
            return Change([], [], {}, 0, 0, 0)
        expect: dict[bytes, bytes | None] = dict(zip(records, heads))
        late = 0 if self.watermark is None else int(np.count_nonzero(chunk.instant < self.watermark))
        puts, deletes = self._changed(names, heads, words, starts, runs, chunk, expect)
        return Change(puts, deletes, expect, len(chunk.key_index), len(names), late)

    def _changed(
        self, names: list[bytes], heads: Sequence[bytes | None], words: np.ndarray, starts: np.ndarray, runs: np.ndarray, chunk: Chunk,
        expect: dict[bytes, bytes | None],
    ) -> tuple[list[_Put], list[bytes]]:  # fmt: skip
        """The records of keys with their rows: most heads only grow; those of which enough can be folded are taken apart."""
        count = len(names)
        if self.replaces is not None:
            taken = np.ones(count, bool)
        else:
            rows, before = self._counts(words, starts, chunk, self.s)
            taken = _folds(before, rows)
            if self.soon is not None and rows.max(initial=0) > busy_keys.CLOSE_ROWS:
                taken |= self._counts(words, starts, chunk, self.soon)[1] > busy_keys.CLOSE_ROWS
        apart = np.flatnonzero(taken).tolist()
        if len(apart) == 0:
            return self._grown(names, words, np.stack((starts[:-1], starts[1:])), runs, chunk), []
        grown: list[_Put] = []
        if len(apart) < count:
            grow = np.flatnonzero(~taken).tolist()
            spans = np.stack((starts[:-1][grow], starts[1:][grow]))
            grown = self._grown([names[i] for i in grow], words, spans, runs[grow], some_keys(chunk, grow, count))
            names, (words, starts) = [names[i] for i in apart], joined([heads[i] for i in apart])
            chunk, runs = some_keys(chunk, apart, count), runs[apart]
        puts, deletes = self._apart(names, words, starts, runs, chunk, expect)
        return grown + puts, deletes

    def _counts(self, words: np.ndarray, starts: np.ndarray, chunk: Chunk, before: int) -> np.ndarray:
        """[2, keys]: rows of heads and of a chunk together, and those visible before an instant."""
        counts = head_counts(words, starts, before)
        counts[0] += np.bincount(chunk.key_index, minlength=len(starts) - 1)
        counts[1] += np.bincount(chunk.key_index[chunk.instant < before], minlength=len(starts) - 1)
        return counts

    def _grown(self, names: list[bytes], words: np.ndarray, spans: np.ndarray, runs: np.ndarray, chunk: Chunk) -> list[_Put]:
        """Heads with new rows behind theirs."""
        head, ends = head_bytes(chunk, np.arange(len(chunk.key_index)), len(names), runs, words, spans)
        return _puts(self.records.head, names, head, ends)

    def _apart(
        self, names: list[bytes], words: np.ndarray, starts: np.ndarray, runs: np.ndarray, chunk: Chunk, expect: dict[bytes, bytes | None]
    ) -> tuple[list[_Put], list[bytes]]:
        """The records of keys, some rows of which are folded or give way; and those that go."""
        old = self.sweeper.old_rows(words, starts)
        busy = BusyKeys(self.store, self.records, self.sweeper, names, self.s, self.run)
        expect |= busy.expected(all_of_them=self.replaces is not None)
        if self.replaces is not None:
            first, behind = self.replaces
            old = rows_together(busy.undo(), old)
            old = take_rows(old, np.flatnonzero((old.instant < first) | (old.instant >= behind)))
        else:
            busy.advance()
        every = rows_together(old, chunk)
        states, keep = self._fold(names, every, busy, expect)
        keep, expected = busy.close(every, keep, states, self.soon)
        expect |= expected
        head, ends = head_bytes(every, keep, len(names), runs)
        changed = [(self.records.state + names[place], state) for place, state in states.items() if state]
        gone = [self.records.state + names[place] for place, state in states.items() if not state]
        return _puts(self.records.head, names, head, ends) + changed + busy.puts, gone + busy.deletes

    def _fold(
        self, names: list[bytes], every: Chunk, busy: BusyKeys, expect: dict[bytes, bytes | None]
    ) -> tuple[dict[int, bytes], np.ndarray]:
        """States of the keys that take rows in, or were busy, and the rows that stay in heads.  What states were is expected.

        Another writer may have folded up to a later instant than ours; an S never goes back.
        """
        before = np.bincount(every.key_index[every.instant < self.s], minlength=len(names))
        rows = np.bincount(every.key_index, minlength=len(names))
        folds = _folds(before, rows)
        if self.soon is not None:
            folds |= (before > 0) & (rows > busy_keys.CLOSE_ROWS)  # so a head is busy by the rows only that reads of the past want
        folds[list(busy.bases)] = False
        chosen, known = np.flatnonzero(folds).tolist(), busy.states
        if len(chosen) == 0:
            return dict(known), np.arange(len(every.key_index))
        asked = [place for place in chosen if place not in known]
        records = [self.records.state + names[place] for place in asked]
        found = dict(zip(asked, self.store.get(records)))
        expect |= zip(records, found.values())
        states = [known[place] if place in known else found[place] for place in chosen]
        s = max(self.s, newest_s(*joined(states)))
        goes = (every.instant < s) & folds[every.key_index]
        folded = busy.fold(chosen, states, take_rows(every, np.flatnonzero(goes)), s)
        return known | dict(zip(chosen, folded)), np.flatnonzero(~goes)


def _folds(before: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Whether keys with so many rows, so many of them before S, are folded: what waits costs a read a share of what it folds anyway."""
    return before > np.maximum(FOLD_ROWS, rows // FOLD_SHARE)


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


def _puts(kind: bytes, names: Sequence[bytes], data: memoryview, ends: np.ndarray) -> list[_Put]:
    """Records of a kind, whose values stand one behind another."""
    borders, whole = [0, *(8 * ends).tolist()], bytes(data)
    return [(kind + name, whole[low:high]) for name, low, high in zip(names, borders, borders[1:])]
