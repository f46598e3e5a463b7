"""Where the things of a view are in the online store.

A key's records are of four kinds, and those of a kind lie together: heads are small and change with every write, so
they fill few pages of the store among themselves, and would be a few in each page among the tiles.
"""

from typing import NamedTuple

META = b"\0view"  # before what is known of each view as a whole
STAMP_KEY, SERVED_KEY = b"\0serving", b"\0served"  # what is served: eight bytes that change with it, and the record
FED = b"\0fed"  # before what is known of the rows that were pushed into each


class Records(NamedTuple):
    """What stands before a key in the names of its records.

    state: its tiles · head: its newest rows · base: of a busy key, the tiles of the rows before S · piece: and rows that only
    its state has, in pieces, a number behind the key.
    """

    state: bytes
    head: bytes
    base: bytes
    piece: bytes

    def piece_of(self, key: bytes, number: int) -> bytes:
        return self.piece + key + number.to_bytes(8, "big")


def meta_key(space: str) -> bytes:
    """What is known of the view as a whole."""
    return META + bytes.fromhex(space)[:16]


def pushed_key(space: str) -> bytes:
    """What is known of the rows that were pushed into the view."""
    return FED + bytes.fromhex(space)[:16]


def key_prefix(space: str) -> bytes:
    """Before every record of every entity key of the view."""
    return b"\1" + bytes.fromhex(space)[:8]


def records_of(space: str) -> Records:
    """The names of the records of the view's keys."""
    before = key_prefix(space)
    return Records(before + b"\0", before + b"\1", before + b"\2", before + b"\3")
