"""Write entity keys as bytes that compare as the typed tuples do: ("ab", "c") is not ("a", "bc"), 1 is not "1"."""

import struct
from collections.abc import Callable, Sequence

from featreg.vocabulary import DataType

_BIGINT = struct.Struct(">Q")
_SIGN = 1 << 63


def _integer(value: int) -> bytes:
    return _BIGINT.pack(value + _SIGN)


def _text(value: str) -> bytes:
    return value.encode().replace(b"\0", b"\0\xff") + b"\0\0"


def _boolean(value: bool) -> bytes:
    return b"\1" if value else b"\0"


def part_encoder(kind: DataType) -> Callable[..., bytes]:
    """How one part of a key becomes bytes; dates come as days, instants as microseconds."""
    return {"VARCHAR": _text, "BOOLEAN": _boolean}.get(kind.name, _integer)


def key_encoder(kinds: Sequence[DataType]) -> Callable[[Sequence], bytes]:
    """How a key's parts become bytes; every part says where it ends."""
    encoders = tuple(part_encoder(kind) for kind in kinds)
    if len(encoders) == 1:
        only = encoders[0]
        return lambda parts: only(parts[0])
    return lambda parts: b"".join(encode(part) for encode, part in zip(encoders, parts))
