"""Say what every online store does: keep bytes by key.

A store knows no features.  `tests/test_store_contract.py` is this page as claims, run for each store.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np

from featreg.errors import LeaseHeldError, StoreError
from featreg.instants import format_instant

Take = Callable[[int, bytearray | memoryview, np.ndarray], None]


@dataclass(frozen=True)
class StoreStat:
    """bytes: what the live entries occupy, whole pages and tree included.  entries: their number."""

    bytes: int
    entries: int


@dataclass(frozen=True)
class Holder:
    """Who writes.  since: UTC microseconds at which its transaction took the lease."""

    pid: int
    host: str
    since: int
    what: str

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host} ({self.what}) since {format_instant(self.since)}"


class Keys(NamedTuple):
    """Keys of a store: each of `ends` behind the first of `prefixes`, then each behind the next.  A store need not build each name."""

    prefixes: Sequence[bytes]
    ends: Sequence[bytes]

    @property
    def size(self) -> int:
        return len(self.prefixes) * len(self.ends)

    def listed(self) -> list[bytes]:
        return [prefix + end for prefix in self.prefixes for end in self.ends]


class Beside:
    """Some keys that are read each time others are, and what they hold.

    values: in the order of `keys`, as of the last read that had them beside it · at: for a store to know when that was.
    """

    def __init__(self, keys: Sequence[bytes]):
        self.keys, self.at = keys, -1
        self.values: list[bytes | None] = [None] * len(keys)


class StoreConflict(StoreError):
    """A key did not hold what a write expected of it; nothing was written.  None stands for no value."""

    def __init__(self, key: bytes, expected: bytes | None, found: bytes | None):
        self.key, self.expected, self.found = key, expected, found
        super().__init__(
            f"key {_shown(key)} holds {_shown(found)} and {_shown(expected)} was expected; nothing was written.\n"
            f"  Another writer was first. Read the key again and decide anew."
        )


class WriteLeaseHeld(LeaseHeldError):
    """The wait for the write lease ended before the lease did; nothing was written.  holder: None when it left no name."""

    def __init__(self, store: str, holder: Holder | None, waited: float):
        self.store, self.holder, self.waited = store, holder, waited
        super().__init__(
            f"{store}: waited {waited:.1f} s to write; the lease is held by {holder or 'an unnamed writer'}.\n"
            f"  A lease is held for one transaction. See whether that process hangs; when it ends, its lease is free."
        )


class Store(Protocol):
    """Bytes by key.

    Keys are 1 byte or more, of any length and content but for two zero bytes at the beginning: such names are a store's own.
    Values may be empty.
    """

    def get(self, keys: Sequence[bytes], beside: Beside | None = None) -> list[bytes | None]:
        """The values of `keys`, same order, None for a key without one, all as of one instant.

        beside: is brought to that instant too.  A store that knows that nothing was written since need not look.
        """

    def gather(self, parts: Sequence[Keys], take: Take) -> None:
        """As `get` for all keys of all parts, which are handed over one after the other: `take(number of the part, values, starts)`.

        The values stand one behind another, value i at `values[starts[i]:starts[i + 1]]`, nothing for a key without one; they are
        there until `take` returns.  A store that is far away hands a part over while the next is on its way, and begins with the first
        again when it was lost meanwhile.  What `take` raises ends it.
        """

    def write(
        self,
        puts: Iterable[tuple[bytes, bytes]],
        deletes: Iterable[bytes] = (),
        expect: Mapping[bytes, bytes | None] | None = None,
        seen: int | None = None,
    ) -> float:
        """Delete, then put, in one transaction: all of it or nothing.

        puts: of one key named twice the last counts.  expect: what keys must hold
        before (None: no value), compared inside the transaction.  seen: what `instant`
        gave before all of `expect` was read: while it is still that, there is nothing to compare.
        Returns the seconds for which the lease was held; the caller sizes its next
        write by it, for no transaction should take longer than 100 ms.
        Raises: StoreConflict when a key of `expect` differs; LeaseHeldError when
        another writer does not end; StoreError when the disk is full.  Nothing is
        written then, and nothing lost.
        """

    def instant(self) -> int | None:
        """A number that every write to the store, by anyone, makes another; None of a store that has no such number."""

    def scan(self, prefix: bytes, start: bytes | None = None, limit: int = 10_000) -> list[tuple[bytes, bytes]]:
        """The first `limit` entries whose key begins with `prefix` and is at or after `start`, in order of key's bytes.

        As of one instant for one call.  The next page begins at `last_key + b"\\0"`.
        """

    def delete_prefix(self, prefix: bytes) -> int:
        """Delete the keys that begin with `prefix`, in short transactions; their number."""

    def stat(self) -> StoreStat: ...

    def bulk(self) -> AbstractContextManager[None]:
        """Put off making writes durable to the end of the block.

        A process killed inside loses no finished write; a machine that stops
        may lose the last ones, never a part of one.
        """

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: object) -> None: ...


def starts_of(values: Sequence[bytes]) -> np.ndarray:
    """Where each value begins, and the last one ends, when they stand one behind another."""
    starts = np.zeros(len(values) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=starts[1:])
    return starts


def _shown(data: bytes | None) -> str:
    if data is None:
        return "no value"
    return repr(data) if len(data) <= 40 else f"{data[:40]!r}… ({len(data)} bytes)"
