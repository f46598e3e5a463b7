"""Append to pools of bytes and words that the driver makes larger when a kernel stops for room."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.cgutils import raw_memcpy
from numba.extending import intrinsic

from featreg.algebra.bigdigits import keep_inside
from featreg.algebra.flags import INTERNAL
from featreg.algebra.schedule import LENGTH_BITS, LONGEST_TEXT, NEED_POOL, NEED_ROOM, TOP_OUT_TEXT


@njit(**INTERNAL)
def short_of(tops, pool, capacity, room):
    """Whether a pool lacks `room`; if so, says it in `tops` for the driver to grow the pool and resume."""
    if tops[pool] + room <= capacity:
        return False
    tops[NEED_POOL] = pool
    tops[NEED_ROOM] = room
    return True


@intrinsic
def double_of(typing, word):
    """The double whose IEEE bits a word is."""
    return types.float64(types.int64), lambda context, builder, signature, values: builder.bitcast(
        values[0], context.get_value_type(types.float64)
    )


@intrinsic
def word_of(typing, double):
    """The IEEE bits of a double."""
    return types.int64(types.float64), lambda context, builder, signature, values: builder.bitcast(
        values[0], context.get_value_type(types.int64)
    )


@intrinsic
def copy_items(typing, target, at, source, begin, count):
    """Copy `count` items of a contiguous array into another of its type, which it does not overlap; a loop takes ten times as long."""

    def copy(context, builder, signature, values):
        places = []
        for array, kind, index in zip(values[0::2], signature.args[0::2], values[1::2]):
            data = context.make_array(kind)(context, builder, array).data
            places.append(builder.gep(data, [index]))
        raw_memcpy(builder, *places, values[4], target.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), copy


@njit(**INTERNAL)
def plain_word(word, is_double):
    """A result word: the ordered bits of a double become its IEEE bits, all else is as it was."""
    return word ^ ((word >> 63) & 0x7FFFFFFFFFFFFFFF) if is_double else word


@intrinsic
def eight_bytes(typing, pool, at):
    """Eight bytes of a pool as a big-endian word, so that words compare as the bytes do."""

    def load(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        place = builder.bitcast(builder.gep(data, [values[1]]), ir.IntType(64).as_pointer())
        return builder.bswap(builder.load(place, align=1))

    return types.uint64(pool, types.int64), load


@njit(**INTERNAL)
def compare_text(a_pool, a, b_pool, b):
    """Negative, zero or positive as text `a` is below, equal to or above `b`, by UTF-8 bytes."""
    a_at, b_at = a >> LENGTH_BITS, b >> LENGTH_BITS
    a_length, b_length = a & LONGEST_TEXT, b & LONGEST_TEXT
    common, i = min(a_length, b_length), np.int64(0)
    while i + 8 <= common:
        x, y = eight_bytes(a_pool, a_at + i), eight_bytes(b_pool, b_at + i)
        if x != y:
            return np.int64(1) if x > y else np.int64(-1)
        i += 8
    if i > 0 and i < common:  # the last eight again, of which the first are known to be the same
        x, y = eight_bytes(a_pool, a_at + common - 8), eight_bytes(b_pool, b_at + common - 8)
        if x != y:
            return np.int64(1) if x > y else np.int64(-1)
        i = common
    while i < common:
        difference = np.int64(a_pool[a_at + i]) - np.int64(b_pool[b_at + i])
        if difference != 0:
            return difference
        i += 1
    return a_length - b_length


@njit(**INTERNAL)
def is_same_text(a_pool, a, b_pool, b):
    """Whether two texts are the same bytes; most that are not differ in length, and most are short: no call for those."""
    keep_inside()
    if (a ^ b) & LONGEST_TEXT != 0:
        return False
    a_at, b_at, length = a >> LENGTH_BITS, b >> LENGTH_BITS, a & LONGEST_TEXT
    if length > 16:
        return compare_text(a_pool, a, b_pool, b) == 0
    if length >= 8:  # the first eight and the last eight
        a_end, b_end = a_at + length - 8, b_at + length - 8
        return eight_bytes(a_pool, a_at) == eight_bytes(b_pool, b_at) and eight_bytes(a_pool, a_end) == eight_bytes(b_pool, b_end)
    if a_at + 8 <= a_pool.shape[0] and b_at + 8 <= b_pool.shape[0]:  # with what is behind them, which does not count
        different = eight_bytes(a_pool, a_at) ^ eight_bytes(b_pool, b_at)
        return length == 0 or different >> np.uint64(64 - 8 * length) == 0
    for i in range(length):
        if a_pool[a_at + i] != b_pool[b_at + i]:
            return False
    return True


@njit(**INTERNAL)
def copy_text(source, text, pool, tops, top):
    """Append a text to a pool that has room for it; returns where it is."""
    at, length, to = text >> LENGTH_BITS, text & LONGEST_TEXT, tops[top]
    if length <= 8 and at + 8 <= source.shape[0] and to + 8 <= pool.shape[0]:  # with what is behind it: a move, no call
        copy_items(pool, to, source, at, np.int64(8))
    else:
        copy_items(pool, to, source, at, length)
    tops[top] = to + length
    return to << LENGTH_BITS | length


@njit(**INTERNAL)
def one_nan(bits):
    return np.int64(0x7FF8000000000000) if (bits & 0x7FFFFFFFFFFFFFFF) > 0x7FF0000000000000 else bits


@njit(**INTERNAL)
def put_wide(state, out, row, low, high):
    """Write a 128-bit decimal as text of 16 bytes, big-endian with its sign flipped; the caller saw to the room."""
    to = state.tops[TOP_OUT_TEXT]
    high ^= np.int64(-0x8000000000000000)
    for i in range(8):
        state.out_text[to + i] = (np.uint64(high) >> np.uint64(56 - 8 * i)) & np.uint64(255)
        state.out_text[to + 8 + i] = (np.uint64(low) >> np.uint64(56 - 8 * i)) & np.uint64(255)
    state.tops[TOP_OUT_TEXT] = to + 16
    state.out_words[out, row] = to << LENGTH_BITS | 16
