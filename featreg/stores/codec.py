"""Write entity keys as bytes that compare as the typed tuples do: ("ab", "c") is not ("a", "bc"), 1 is not "1"."""

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa

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
    encoders: dict[str, Callable[..., bytes]] = {"VARCHAR": _text, "BOOLEAN": _boolean}
    return encoders.get(kind.name, _integer)


def encoded_column(kind: DataType, values: pa.Array) -> list[bytes]:
    """As `part_encoder`, of all of an Arrow array; dates and instants in their own types."""
    if kind.name in ("VARCHAR", "BOOLEAN"):
        return list(map(part_encoder(kind), values.to_pylist()))
    if pa.types.is_date32(values.type):
        values = values.cast(pa.int32())
    words = values.cast(pa.int64()).to_numpy().view(np.uint64) + np.uint64(_SIGN)
    data = words.astype(">u8").tobytes()
    return [data[at : at + 8] for at in range(0, len(data), 8)]


def key_encoder(kinds: Sequence[DataType]) -> Callable[[Sequence], bytes]:
    """How a key's parts become bytes; every part says where it ends."""
    encoders = tuple(part_encoder(kind) for kind in kinds)
    if len(encoders) == 1:
        only = encoders[0]
        return lambda parts: only(parts[0])
    return lambda parts: b"".join(encode(part) for encode, part in zip(encoders, parts))


def key_decoder(kinds: Sequence[DataType]) -> Callable[[bytes], tuple]:
    """The parts of an encoded key, as Python values."""

    def decode(data: bytes) -> tuple:
        parts: list[object] = []
        at = 0
        for kind in kinds:
            match kind.name:
                case "VARCHAR":
                    end = at
                    while data[end : end + 2] != b"\0\0":
                        end += 2 if data[end] == 0 else 1
                    parts.append(data[at:end].replace(b"\0\xff", b"\0").decode())
                    at = end + 2
                case "BOOLEAN":
                    parts.append(data[at] == 1)
                    at += 1
                case _:
                    parts.append(_python_value(_BIGINT.unpack_from(data, at)[0] - _SIGN, kind.name))
                    at += 8
        return tuple(parts)

    return decode


def _python_value(word: int, kind: str) -> object:
    if kind == "DATE":
        return date(1970, 1, 1) + timedelta(days=word)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=word) if kind == "TIMESTAMP" else word
