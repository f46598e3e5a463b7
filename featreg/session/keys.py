"""Where the things of a view are in the online store."""

META = b"\0view"  # before what is known of each view as a whole
STAMP_KEY, SERVED_KEY = b"\0serving", b"\0served"  # what is served: eight bytes that change with it, and the record
FED = b"\0fed"  # before what is known of the rows that were pushed into each
STATE_RECORD, HEAD_RECORD = b"\0", b"\1"  # behind a key's name: its tiles, and its newest rows
BASE_RECORD, PIECE = b"\2", b"\3"  # of a busy key: the tiles of the rows before S, and the rows that only its state has, in pieces


def meta_key(space: str) -> bytes:
    """What is known of the view as a whole."""
    return META + bytes.fromhex(space)[:16]


def pushed_key(space: str) -> bytes:
    """What is known of the rows that were pushed into the view."""
    return FED + bytes.fromhex(space)[:16]


def key_prefix(space: str) -> bytes:
    """Before every entity key of the view; behind the key comes which of its records it is."""
    return b"\1" + bytes.fromhex(space)[:8]


def piece_key(name: bytes, number: int) -> bytes:
    return name + PIECE + number.to_bytes(8, "big") + PIECE
