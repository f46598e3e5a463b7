"""Keep what a busy key answers of the past beside what it answers now.

A key with many rows since S has its state folded up to its newest rows, so that a push and a read of now touch few of
them.  For reads from S on there are its *base*, the tiles of the rows before S, and *pieces*: the rows folded since, in
the order in which they came.  A piece is written once, and deleted when its rows have gone into the base: a row is
written a bounded number of times, however many there are.  Base, pieces and head together are the key as it would be
with no piece, and `reach_back` reads them so.
"""

from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from struct import Struct
from typing import NamedTuple

import numpy as np

from featreg.algebra.schedule import Chunk
from featreg.errors import StoreError
from featreg.session.keys import Records
from featreg.stores.contract import Keys, Store, StoreConflict, Take, starts_of
from featreg.sweep.kept import KeptSweeper, head_bytes, head_counts, joined, newest_s, take_rows

CLOSE_ROWS = 128  # of a head that the state can take: a read folds so many in 3 µs a view; two states are written for so many
_PIECES_A_WRITE = 8  # that go into the base with one write of the key: more than come
_SPAN = Struct("=qq")
_MOST_LOOKS = 100

_Put = tuple[bytes, bytes]


class Base:
    """A key's base: the tiles of the rows before S, as of a state (empty where there were none), and which pieces are beside it."""

    def __init__(self, stored: bytes | None, first: int, behind: int, state: bytes):
        self.stored, self.first, self.behind, self.state = stored, first, behind, state

    @classmethod
    def of(cls, stored: bytes) -> "Base":
        first, behind = _SPAN.unpack_from(stored)
        return cls(stored, first, behind, stored[_SPAN.size :])

    def written(self) -> bytes:
        return _SPAN.pack(self.first, self.behind) + self.state

    def pieces(self, records: Records, name: bytes) -> list[bytes]:
        return [records.piece_of(name, number) for number in range(self.first, self.behind)]


class BusyKeys:
    """The busy ones of some keys that are written together, by their place among them.

    states: of keys that were busy and are no more, the state that they have now.  puts, deletes: what became of pieces and bases.
    """

    def __init__(self, store: Store, records: Records, sweeper: KeptSweeper, names: Sequence[bytes], s: int, run: int | None):
        self.store, self.records, self.sweeper, self.names, self.s, self.run = store, records, sweeper, names, s, run
        self.stored = store.get([records.base + name for name in names])
        self.bases = {place: Base.of(base) for place, base in enumerate(self.stored) if base is not None}
        self.states: dict[int, bytes] = {}
        self.puts: list[_Put] = []
        self.deletes: list[bytes] = []

    def expected(self, all_of_them: bool) -> dict[bytes, bytes | None]:
        """What must still be there: the bases that were found, and where it matters that there was none."""
        return {
            self.records.base + name: base for name, base in zip(self.names, self.stored) if all_of_them or base is not None
        }

    def undo(self) -> Chunk:
        """Make every key one that is not busy; returns the rows of all pieces, by key."""
        wanted = [(place, key) for place, base in self.bases.items() for key in base.pieces(self.records, self.names[place])]
        rows = self._rows(self._pieces(wanted), [place for place, _ in wanted])
        self.deletes += [key for _, key in wanted]
        for place in list(self.bases):
            self._end(place)
        return rows

    def advance(self) -> None:
        """Bring pieces to the bases whose rows are all before S; a key that has no other is busy no more."""
        gone: list[tuple[int, bytes, bytes]] = []
        asked = [place for place, base in self.bases.items() if base.first < base.behind]
        for _ in range(_PIECES_A_WRITE):
            wanted = [(place, self.records.piece_of(self.names[place], self.bases[place].first)) for place in asked]
            pieces = self._pieces(wanted)
            rows, before = head_counts(*joined(pieces), self.s) if pieces else np.zeros((2, 0), np.int64)
            old = [number for number in range(len(wanted)) if rows[number] == before[number]]
            gone += [(*wanted[number], pieces[number]) for number in old]
            for number in old:
                self.bases[wanted[number][0]].first += 1
            asked = [wanted[number][0] for number in old if self.bases[wanted[number][0]].first < self.bases[wanted[number][0]].behind]
            if not asked:
                break
        if gone:
            gone.sort(key=lambda one: one[0])  # stable: a key's pieces stay in order
            self.deletes += [key for _, key, _ in gone]
            places = sorted({place for place, _, _ in gone})
            rows_gone = self._rows([piece for _, _, piece in gone], [place for place, _, _ in gone])
            for place, state in zip(places, self.fold(places, [self.bases[place].state for place in places], rows_gone, self.s)):
                self.bases[place].state = state
        for place in [place for place, base in self.bases.items() if base.first == base.behind]:
            self._end(place)

    def close(
        self, every: Chunk, keep: np.ndarray, states: Mapping[int, bytes], soon: int | None
    ) -> tuple[np.ndarray, dict[bytes, bytes | None]]:
        """Fold rows of heads that can be into the states of busy keys, and of those that become busy, and close them into pieces.

        every, keep: rows by key, and which of them are in heads · states: those that are known, of keys that are not busy ·
        soon: rows before it are folded; None makes no key busy.  Returns the rows that stay in heads, and what was expected.
        """
        count = len(self.names)
        instants, keys = every.instant[keep], every.key_index[keep]
        until = max(self.s, self.s if soon is None else soon)
        closable = np.bincount(keys[instants < until], minlength=count)
        busy = np.zeros(count, bool)
        busy[list(self.bases)] = True
        closing = np.flatnonzero(np.where(busy, closable > 0, closable > (CLOSE_ROWS if soon is not None else count + len(keys)))).tolist()
        expect: dict[bytes, bytes | None] = {}
        if closing:
            asked = [place for place in closing if place not in states]
            records = [self.records.state + self.names[place] for place in asked]
            found = dict(zip(asked, self.store.get(records)))
            expect = dict(zip(records, found.values()))
            now = [states[place] if place in states else found[place] or b"" for place in closing]
            for place, state in zip(closing, now):
                if place not in self.bases:
                    self.bases[place] = Base(None, 0, 0, state)
            until = max(until, newest_s(*joined(now)))
            is_closing = np.zeros(count, bool)
            is_closing[closing] = True
            goes = is_closing[keys] & (instants < until)
            rows = take_rows(every, keep[goes])
            keep = keep[~goes]
            for place, state in zip(closing, self.fold(closing, now, rows, until)):
                self.puts.append((self.records.state + self.names[place], state))
            for place, piece in zip(closing, self._closed(closing, rows)):
                self.puts.append((self.records.piece_of(self.names[place], self.bases[place].behind), piece))
                self.bases[place].behind += 1
        self.puts += [
            (self.records.base + self.names[place], base.written()) for place, base in self.bases.items() if base.written() != base.stored
        ]
        return keep, expect

    def fold(self, places: Sequence[int], states: Sequence[bytes | None], rows: Chunk, s: int) -> list[bytes]:
        """States of some keys with rows of theirs folded in; S is `s`, or the newest that one of them has."""
        words, starts = joined(states)
        s = max(s, newest_s(words, starts))
        self.sweeper.bring(words, starts, some_keys(rows, places, len(self.names)), len(places))
        return _parts(*self.sweeper.dump(len(places), s, self.run or 0))

    def _closed(self, places: Sequence[int], rows: Chunk) -> list[bytes]:
        some = some_keys(rows, places, len(self.names))
        return _parts(*head_bytes(some, np.arange(len(some.key_index)), len(places), np.zeros(len(places), np.int64)))

    def _end(self, place: int) -> None:
        self.states[place] = self.bases.pop(place).state
        self.deletes.append(self.records.base + self.names[place])

    def _pieces(self, wanted: Sequence[tuple[int, bytes]]) -> list[bytes]:
        """Pieces of busy keys.  Raises: StoreConflict when another writer was at one of the keys."""
        bases = [self.records.base + self.names[place] for place, _ in wanted]
        found = self.store.get([*(key for _, key in wanted), *bases]) if wanted else []
        pieces = []
        for number, (place, _) in enumerate(wanted):
            piece, base = found[number], found[len(wanted) + number]
            if base != self.stored[place]:
                raise StoreConflict(bases[number], self.stored[place], base)
            if piece is None:
                raise _damaged()
            pieces.append(piece)
        return pieces

    def _rows(self, blobs: Sequence[bytes], places: Sequence[int]) -> Chunk:
        """The rows of stored heads or pieces, each of the key at its place (ascending)."""
        return rows_of(self.sweeper, blobs, np.array(places, np.int64))


def rows_of(sweeper: KeptSweeper, blobs: Sequence[bytes | None], keys: np.ndarray) -> Chunk:
    """The rows of stored heads, by key: blob n's are of `keys[n]`, which ascend."""
    rows = sweeper.old_rows(*joined(blobs))
    rows.key_index[:] = keys[rows.key_index]
    return rows


def some_keys(chunk: Chunk, chosen: Sequence[int] | np.ndarray, count: int) -> Chunk:
    """The rows of the chosen keys (ascending) of `count`, which are numbered anew."""
    number = np.full(count, -1)
    number[chosen] = np.arange(len(chosen))
    rows = take_rows(chunk, np.flatnonzero(number[chunk.key_index] >= 0))
    rows.key_index[:] = number[rows.key_index]
    return rows


class _Read(NamedTuple):
    """A key that is read: where its state and its head are among what was read."""

    state: int
    head: int
    sweeper: KeptSweeper
    records: Records
    name: bytes


def reach_back(store: Store, parts: Sequence[Keys], groups: Sequence[tuple[KeptSweeper, Records]], take: Take) -> None:
    """As `Store.gather`, each busy key as it would be with no piece.

    parts: one of other names, then for each group the states of its keys and their heads · groups: each one's sweeper and records.
    """
    names = [name for part in parts for name in part.listed()]
    keys: list[_Read] = []
    begin = parts[0].size
    for part, (sweeper, records) in zip(parts[1:], groups):
        keys += [_Read(place, place + len(part.ends), sweeper, records, key) for place, key in enumerate(part.ends, begin)]
        begin += part.size
    more: list[bytes] = []
    for _ in range(_MOST_LOOKS):
        found = iter(store.get([*names, *(key.records.base + key.name for key in keys), *more]))
        values = [next(found) or b"" for _ in names]
        busy = [(key, Base.of(base)) for key in keys if (base := next(found)) is not None]
        pieces, asked = dict(zip(more, found)), more
        more = list(dict.fromkeys(piece for key, held in busy for piece in held.pieces(key.records, key.name)))
        if set(more) <= set(asked):  # else the next look asks for them too
            if any(pieces[piece] is None for piece in more):
                raise _damaged()
            for key, held in busy:
                rows = [pieces[piece] for piece in held.pieces(key.records, key.name)] + [values[key.head]]
                values[key.state], values[key.head] = held.state, one_head(key.sweeper, rows)
            rest = iter(values)
            for number, part in enumerate(parts):
                own = list(islice(rest, part.size))
                take(number, bytearray().join(own), starts_of(own))
            return
    raise StoreError("a key is written too often to be read back.\n  Ask for a later instant, or training_set(…) for the past.")


def _damaged() -> StoreError:
    return StoreError("the online store lacks a part of a key: it is damaged.\n  Fill it anew: featreg materialize --rebuild")


def one_head(sweeper: KeptSweeper, heads: Sequence[bytes | None]) -> bytes:
    """One head with the rows of several of the same key, in their order."""
    rows = rows_of(sweeper, heads, np.zeros(len(heads), np.int64))
    return bytes(head_bytes(rows, np.arange(len(rows.key_index)), 1, np.zeros(1, np.int64))[0])


def _parts(data: memoryview, ends: np.ndarray) -> list[bytes]:
    """Values that stand one behind another, in words."""
    return [bytes(data[low:high]) for low, high in pairwise([0, *(8 * ends).tolist()])]
