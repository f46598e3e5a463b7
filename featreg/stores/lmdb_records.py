"""Lay keys and values out in LMDB, and read and write them inside a transaction.

A key of up to 510 bytes is stored as it is.  A longer one is stored as its first 479 bytes and its SHA-256, 511 bytes that
no other key has, with the key in front of the value: so it stands among its neighbours and a scan finds it under any prefix.

A value is stored in pieces of one page each.  LMDB gives a long value pages that stand side by side, and lets the file grow
when no free ones do: where values of two and three pages change all day, there are ever fewer, and a file grows for hours.
Any free page will do for a piece.
"""

from __future__ import annotations  # lmdb.Transaction takes its argument in type stubs only

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat, takewhile
from operator import itemgetter
from typing import TYPE_CHECKING

import lmdb

from featreg.errors import StoreError
from featreg.stores.contract import StoreConflict

LONG = 511  # LMDB's longest key; a stored key has this length if and only if its key is longer
HEAD = LONG - hashlib.sha256().digest_size
OWN, BEHIND_OWN = b"\0\0", b"\0\1"  # names that begin so are those of pieces, all but the first of a value
_PAGE_HEAD = 16  # bytes of a page that are LMDB's

Row = tuple[bytes, bytes]
if TYPE_CHECKING:
    Transaction = lmdb.Transaction[bytes]


class Records:
    """How keys and values are stored where pages have `page` bytes.

    A value that fills its first piece goes on in the next, and the last piece is one that is not full.  (Before there were
    pieces, longer values were stored whole: they are read so.)
    """

    def __init__(self, page: int):
        self.full = page - _PAGE_HEAD

    def get(self, transaction: Transaction, keys: Sequence[bytes], default: bytes | None = None) -> list:
        """The values of keys, same order."""
        if max(map(len, keys), default=0) < LONG:
            names = keys
        else:
            names = list(map(stored_key, keys))
        values = list(map(transaction.get, names, repeat(default)))
        if self.full in map(len, filter(None, values)):
            for place, value in enumerate(values):
                if value is not None and len(value) == self.full:
                    values[place] = self._whole(transaction, names[place], value)
        return values if names is keys else [value if value is None else _read_row(name, value)[1] for name, value in zip(names, values)]

    def _whole(self, transaction: Transaction, name: bytes, first: bytes) -> bytes:
        """The value whose first piece is full."""
        pieces = [first]
        while len(pieces[-1]) == self.full and (piece := transaction.get(_piece(name, len(pieces)))) is not None:
            pieces.append(piece)
        return b"".join(pieces)

    def compare(self, transaction: Transaction, expected: Mapping[bytes, bytes | None]) -> None:
        """Raises: StoreConflict when a key does not hold what is expected of it."""
        found = self.get(transaction, list(expected))
        if found != list(expected.values()):
            raise next(StoreConflict(key, value, one) for (key, value), one in zip(expected.items(), found) if one != value)

    def change(
        self, transaction: Transaction, rows: Sequence[Row], gone: Iterable[bytes], known: Mapping[bytes, bytes | None]
    ) -> None:
        """Delete keys, then put rows.  rows: as `stored_rows` gives them · known: what some keys hold now."""
        for name in sorted(set(map(stored_key, gone))):
            value = transaction.pop(name)
            if value is not None and len(value) == self.full:
                self._end(transaction, name, 1)
        if not rows:
            return
        first, more = rows, list[Row]()
        if self.full <= max(map(len, map(itemgetter(1), rows))):
            first = [row if len(row[1]) < self.full else (row[0], row[1][: self.full]) for row in rows]
            more = sorted(piece for row in rows if len(row[1]) >= self.full for piece in self._more(*row))
        with transaction.cursor() as cursor:
            has_pieces = cursor.set_range(OWN) and cursor.key() < BEHIND_OWN
        if has_pieces:
            for name, value in rows:
                if name not in known or len(known[name] or b"") >= self.full:
                    self._end(transaction, name, 1 + len(value) // self.full)
        _put_sorted(transaction, more)
        _put_sorted(transaction, first)

    def _more(self, name: bytes, value: bytes) -> Iterator[Row]:
        """The pieces of a value behind its first, and an empty one behind a last that is full."""
        for number in range(1, 1 + len(value) // self.full):
            yield _piece(name, number), value[number * self.full : (number + 1) * self.full]

    def _end(self, transaction: Transaction, name: bytes, number: int) -> None:
        """Forget the pieces of a value from one on."""
        while transaction.delete(_piece(name, number)):
            number += 1

    def walk(self, transaction: Transaction, prefix: bytes, start: bytes) -> Iterator[Row]:
        """Entries under `prefix` from `start` on, in order of key.

        Long keys lie in order by their first 479 bytes; those that agree in them are
        held back until all are read.
        """
        first, head = max(prefix, start), prefix[:HEAD]
        together: list[Row] = []
        with transaction.cursor() as cursor:
            is_there = cursor.set_range(first[:HEAD])
            while is_there:
                name = cursor.key()
                if name.startswith(OWN):
                    is_there = cursor.set_range(BEHIND_OWN)
                    continue
                if together and name[:HEAD] != together[0][0][:HEAD]:
                    yield from sorted(together)
                    together = []
                if not name.startswith(head):
                    break
                value = cursor.value()
                if len(value) == self.full:
                    value = self._whole(transaction, name, value)
                is_there = cursor.next()
                key, plain = _read_row(name, value)
                if key < first or not key.startswith(prefix):
                    continue
                if len(key) <= HEAD:
                    yield key, plain
                else:
                    together.append((key, plain))
        yield from sorted(together)

    def pieces(self, transaction: Transaction) -> int:
        """How many records of a transaction's store are pieces behind a first one."""
        with transaction.cursor() as cursor:
            if not cursor.set_range(OWN):
                return 0
            return sum(1 for _ in takewhile(lambda name: name < BEHIND_OWN, cursor.iternext(values=False)))


def stored_key(key: bytes) -> bytes:
    return key if len(key) < LONG else key[:HEAD] + hashlib.sha256(key).digest()


def stored_rows(puts: Iterable[Row]) -> list[Row]:
    """Rows as they are stored, sorted: LMDB writes neighbours together.  Raises: StoreError for a key that is none of a caller's."""
    rows = dict(puts)
    for key in [key for key in rows if len(key) >= LONG]:
        rows[stored_key(key)] = len(key).to_bytes(4, "big") + key + rows.pop(key)
    found = sorted(rows.items(), key=itemgetter(0))
    at = bisect_left(found, OWN, key=itemgetter(0))
    if at < len(found) and found[at][0] < BEHIND_OWN:
        raise StoreError("a key does not begin with two zero bytes: such names are the store's own.")
    return found


def _piece(name: bytes, number: int) -> bytes:
    """What a piece of a value is called; of a long name, by its SHA-256."""
    if len(name) <= LONG - len(OWN) - 4:
        return OWN + name + number.to_bytes(4, "big")
    return OWN + hashlib.sha256(name).digest() + (number | 1 << 31).to_bytes(4, "big")


def _read_row(name: bytes, value: bytes) -> Row:
    if len(name) < LONG:
        return name, value
    end = 4 + int.from_bytes(value[:4], "big")
    return value[4:end], value[end:]


def _put_sorted(transaction: Transaction, rows: Sequence[Row]) -> None:
    """Put rows sorted by key, each key once; those behind the last key are appended without a search."""
    if not rows:
        return
    with transaction.cursor() as cursor:
        is_behind = not cursor.last() or cursor.key() < rows[0][0]
        cursor.putmulti(rows, append=is_behind)
