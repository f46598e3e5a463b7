"""Turn Arrow columns into words the sweep computes with, and back.

A value is one int64: integers, booleans, dates (days), instants (microseconds) and
decimals of up to 18 digits (unscaled) as they are; a double as its bits in *order*
(negative ones mirrored), so that integers compare as the doubles do, with -0.0 made
0.0 and every NaN the one quiet NaN, above infinity; text and wider decimals as
(offset << 24 | length) into a pool of bytes, a decimal big-endian with its sign
flipped, so that bytes compare as the numbers do.
"""

import numpy as np
import pyarrow as pa
from numba import njit

from featreg.algebra.flags import ENTRY
from featreg.algebra.schedule import LENGTH_BITS, LONGEST_TEXT, OVERFLOW
from featreg.errors import DataError
from featreg.vocabulary import DataType

QUIET_NAN = 0x7FF8000000000000
WIDE_DIGITS = 18


def is_text(data_type: DataType) -> bool:
    """Whether values of this type live in a pool of bytes."""
    return data_type.name == "VARCHAR" or (data_type.name == "DECIMAL" and data_type.precision > WIDE_DIGITS)


def arrow_type(data_type: DataType) -> pa.DataType:
    """The Arrow type of a result."""
    match data_type.name:
        case "BIGINT" | "INTEGER":
            return pa.int64()
        case "DOUBLE" | "FLOAT":
            return pa.float64()
        case "BOOLEAN":
            return pa.bool_()
        case "VARCHAR":
            return pa.string()
        case "DATE":
            return pa.date32()
        case "TIMESTAMP":
            return pa.timestamp("us", tz="UTC")
        case "DECIMAL":
            return pa.decimal128(data_type.precision, data_type.scale)
        case "LIST" if data_type.element is not None:
            return pa.list_(arrow_type(data_type.element))
        case "MAP" if data_type.element is not None:
            return pa.map_(arrow_type(data_type.element), pa.int64())
    raise AssertionError(data_type)


@njit(**ENTRY)
def encode_doubles(bits, words):
    """Put double bits in order, normalised."""
    for i in range(bits.shape[0]):
        word = bits[i]
        if (word & 0x7FFFFFFFFFFFFFFF) > 0x7FF0000000000000:
            word = QUIET_NAN
        elif word == np.int64(-0x8000000000000000):
            word = 0
        words[i] = word ^ ((word >> 63) & 0x7FFFFFFFFFFFFFFF)


@njit(**ENTRY)
def _encode_texts(offsets, base, words):
    for i in range(words.shape[0]):
        length = offsets[i + 1] - offsets[i]
        if length > LONGEST_TEXT:
            return i
        words[i] = (offsets[i] + base) << LENGTH_BITS | length
    return -1


def _buffer(array: pa.Array, index: int, dtype: type, count: int, offset: int) -> np.ndarray:
    """Not to be written to, whoever owns the memory: kernels are compiled once more for what may be."""
    buffer = array.buffers()[index]
    found: np.ndarray = np.zeros(count, dtype) if buffer is None else np.frombuffer(buffer, dtype, count, offset * np.dtype(dtype).itemsize)
    found.flags.writeable = False
    return found


def valid_of(array: pa.Array) -> np.ndarray:
    """One byte a row: 1 where a value is there."""
    bitmap = array.buffers()[0]
    if array.null_count == 0 or bitmap is None:
        return np.ones(len(array), np.uint8)
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)]


class WordWriter:
    """Collect the columns of a chunk as words, with one pool of bytes for all of them, which begins `base` bytes into another."""

    def __init__(self, columns: int, rows: int, base: int = 0):
        self.words = np.empty((columns, rows), np.int64)
        self.valid = np.empty((columns, rows), np.uint8)
        self._pools: list[np.ndarray] = []
        self._used = base

    def text(self) -> np.ndarray:
        return np.concatenate(self._pools) if len(self._pools) > 1 else self._pools[0] if self._pools else np.zeros(0, np.uint8)

    def put(self, column: int, array: pa.Array, data_type: DataType) -> None:
        """Write one column; `array` has the Arrow type of `data_type`, or one that holds the same words."""
        words, n, at = self.words[column], len(array), array.offset
        self.valid[column] = valid_of(array)
        if n == 0:
            return
        if is_text(data_type):
            self._put_text(words, array, data_type)
        elif pa.types.is_boolean(array.type):
            bits = np.unpackbits(np.frombuffer(array.buffers()[1], np.uint8), bitorder="little")
            words[:] = bits[at : at + n]
        elif pa.types.is_decimal(array.type):
            words[:] = _buffer(array, 1, np.int64, 2 * n, 2 * at)[::2]
        elif pa.types.is_floating(array.type):
            encode_doubles(_buffer(array, 1, np.int64, n, at), words)
        elif pa.types.is_date32(array.type) or pa.types.is_int32(array.type):
            words[:] = _buffer(array, 1, np.int32, n, at)
        else:
            words[:] = _buffer(array, 1, np.int64, n, at)

    def _put_text(self, words: np.ndarray, array: pa.Array, data_type: DataType) -> None:
        n = len(array)
        if data_type.name == "DECIMAL":
            raw = _buffer(array, 1, np.uint64, 2 * n, 2 * array.offset).reshape(n, 2)
            big = np.empty((n, 2), ">u8")
            big[:, 0] = raw[:, 1] ^ np.uint64(1 << 63)
            big[:, 1] = raw[:, 0]
            pool = big.view(np.uint8).reshape(-1)
            offsets = np.arange(0, 16 * n + 1, 16, dtype=np.int64)
        else:
            if not pa.types.is_large_string(array.type):
                array = array.cast(pa.large_string())
            offsets = _buffer(array, 1, np.int64, n + 1, array.offset)
            data = array.buffers()[2]
            pool = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
            pool, offsets = pool[offsets[0] : offsets[-1]], offsets - offsets[0]
        too_long = _encode_texts(offsets, self._used, words)
        if too_long >= 0:
            raise DataError(f"a text of {offsets[too_long + 1] - offsets[too_long]} bytes: the longest is {LONGEST_TEXT} bytes.")
        self._pools.append(pool)
        self._used += len(pool)


@njit(**ENTRY)
def _offsets_of(words, valid, offsets):
    total = 0
    for i in range(words.shape[0]):
        offsets[i] = total
        if valid[i] == 1:
            total += words[i] & LONGEST_TEXT
    offsets[words.shape[0]] = total
    return total


@njit(**ENTRY)
def _gather(words, valid, pool, stride, out):
    to = 0
    for i in range(words.shape[0]):
        if valid[i] == 1:
            at = words[i] >> LENGTH_BITS
            for j in range(at * stride, (at + (words[i] & LONGEST_TEXT) * stride)):
                out[to] = pool[j]
                to += 1


@njit(**ENTRY)
def _gather_items(words, valid, pool, step, field, out):
    to = 0
    for i in range(words.shape[0]):
        if valid[i] == 1:
            at = words[i] >> LENGTH_BITS
            for j in range(words[i] & LONGEST_TEXT):
                out[to] = pool[at + step * j + field]
                to += 1


def to_arrow(words: np.ndarray, valid: np.ndarray, data_type: DataType, items: np.ndarray, text: np.ndarray) -> pa.Array:
    """Build the Arrow column of a result: n words in, n values out, same order.

    valid: 0 NULL, 1 a value; `items` and `text` are the pools that lists and texts point into.
    """
    assert not (valid == OVERFLOW).any(), "overflow is an error before it is a column"
    n = len(words)
    nulls = int(n - np.count_nonzero(valid))
    bitmap = pa.py_buffer(np.packbits(valid, bitorder="little")) if nulls else None
    if data_type.name in ("LIST", "MAP"):
        offsets = np.empty(n + 1, np.int64)
        total = _offsets_of(words, valid, offsets)
        step = 2 if data_type.name == "MAP" else 1
        assert data_type.element is not None
        parts = [np.empty(total, np.int64) for _ in range(step)]
        for field, part in enumerate(parts):
            _gather_items(words, valid, items, step, field, part)
        values = to_arrow(parts[0], np.ones(total, np.uint8), data_type.element, items, text)
        small = pa.py_buffer(offsets.astype(np.int32))
        if data_type.name == "LIST":
            return pa.Array.from_buffers(arrow_type(data_type), n, [bitmap, small], nulls, 0, [values])
        pairs = pa.StructArray.from_arrays([values, pa.array(parts[1])], fields=list(_map_fields(data_type)))
        return pa.Array.from_buffers(arrow_type(data_type), n, [bitmap, small], nulls, 0, [pairs])
    if is_text(data_type):
        offsets = np.empty(n + 1, np.int64)
        data = np.empty(_offsets_of(words, valid, offsets), np.uint8)
        _gather(words, valid, text, 1, data)
        if data_type.name == "DECIMAL":
            whole = np.zeros((n, 2), np.uint64)
            big = data.view(">u8").reshape(-1, 2)
            there = valid == 1
            whole[there, 0] = big[:, 1]
            whole[there, 1] = big[:, 0] ^ np.uint64(1 << 63)
            return pa.Array.from_buffers(arrow_type(data_type), n, [bitmap, pa.py_buffer(whole)], nulls)
        if len(data) > 2**31 - 1:
            return pa.Array.from_buffers(pa.large_string(), n, [bitmap, pa.py_buffer(offsets), pa.py_buffer(data)], nulls)
        return pa.Array.from_buffers(pa.string(), n, [bitmap, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)], nulls)
    match data_type.name:
        case "DOUBLE":
            buffer = pa.py_buffer(np.ascontiguousarray(words))
        case "BOOLEAN":
            buffer = pa.py_buffer(np.packbits(words.astype(bool), bitorder="little"))
        case "DATE":
            buffer = pa.py_buffer(words.astype(np.int32))
        case "DECIMAL":
            whole = np.empty((n, 2), np.int64)
            whole[:, 0], whole[:, 1] = words, words >> 63
            buffer = pa.py_buffer(whole)
        case _:
            buffer = pa.py_buffer(np.ascontiguousarray(words))
    return pa.Array.from_buffers(arrow_type(data_type), n, [bitmap, buffer], nulls)


def _map_fields(data_type: DataType) -> tuple[pa.Field, pa.Field]:
    map_type = arrow_type(data_type)
    return map_type.key_field, map_type.item_field
