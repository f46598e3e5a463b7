"""Sum doubles and integers exactly, and round the result once.

A partial is a few consecutive int64 words of a flat array.  Every kernel takes `(words, floats, at)`: `floats` is
`words.view(float64)`, the same memory, and `at` is where the partial begins.  What a partial stands for is exact, so folding in any
order and merging in any tree give the same result to the bit; the words themselves may differ.

    sum       count  s c cc                extra                 doubles
    moments   count  s c cc  q c cc ccc    extra                 doubles and their squares
    isum      count  low high                                    int64, in 128-bit two's complement
    dsum      count  5 loose digits                              int128
    dmoments  count  5 loose digits  9 loose digits              int128 and their squares

Doubles are added in a cascade of two-sums (Klein 2006) whose last step must lose nothing.  Where it would, or where a number is
large or small enough for the arithmetic to leave the range of doubles, the partial *spills*: it allocates fixed-point digits in a
heap that cover every double (or product of two), moves there and stays.  `extra` has the handle + 1 of those digits from bit 3 up
and, in bits 0 to 2, whether a NaN, a +inf or a -inf was seen; these decide the result alone, so finite values are no longer kept.

A fold or merge that spills takes at most WIDE_WORDS from the heap by moving `heap_top[0]`; the caller makes room before.  The
doubles must be normalised: no -0.0.  `scratch` is SCRATCH_WORDS of anything.
"""

import math

import numpy as np
from numba import njit

from featreg.algebra.bigdigits import (
    DIGIT_BITS,
    MASK,
    WORK_DIGITS,
    add_double,
    add_product,
    keep_apart,
    keep_inside,
    ratio_to_double,
    settle,
    take_magnitude,
)
from featreg.algebra.flags import INTERNAL
from featreg.algebra.pools import double_of, plain_word

SUM_WORDS = 5
MOMENTS_WORDS = 9
ISUM_WORDS = 3
DSUM_WORDS = 6
DMOMENTS_WORDS = 15

SUM_DIGITS = 74  # 30 * 74 bits: from 2^-1110 to above 2^1024 times 2^60
SQUARE_DIGITS = 2 * SUM_DIGITS  # from 2^-2220; digit 2i is the square of digit i
SUM_SHIFT = 37 * DIGIT_BITS
SQUARE_SHIFT = 2 * SUM_SHIFT
SUM_WIDE_WORDS = SUM_DIGITS
MOMENTS_WIDE_WORDS = SUM_DIGITS + SQUARE_DIGITS
WIDE_WORDS = MOMENTS_WIDE_WORDS

# what kernels pass on is int64, not int: numba compiles a function again for every literal
_ZERO, _ONE, _THREE, _FIVE, _SIX, _NINE, _TEN_DIGITS, _IN_SUM, _IN_MOMENTS = map(np.int64, (0, 1, 3, 5, 6, 9, 10, 4, 8))
_SUM_DIGITS, _SUM_SHIFT, _SQUARE_DIGITS, _SQUARE_SHIFT = map(np.int64, (SUM_DIGITS, SUM_SHIFT, SQUARE_DIGITS, SQUARE_SHIFT))
_LOW26 = (1 << 26) - 1

_FIRST, _SECOND = 0, SUM_DIGITS + 2  # scratch: the sum, the sum of squares,
_NUMERATOR = _SECOND + SQUARE_DIGITS + 2  # the numerator,
_COUNT = _NUMERATOR + SQUARE_DIGITS + 8  # the count as three digits,
_WORK = _COUNT + 3  # and room for divisions
SCRATCH_WORDS = _WORK + WORK_DIGITS
_FIRST, _SECOND, _NUMERATOR, _COUNT, _WORK = map(np.int64, (_FIRST, _SECOND, _NUMERATOR, _COUNT, _WORK))

_NAN, _PLUS, _MINUS, _FLAGS, _HANDLE_BIT = 1, 2, 4, 7, 3
_LARGE = 2.0**1000  # two-sums of smaller numbers cannot overflow
_SQUARE_LARGE, _SQUARE_SMALL = 2.0**490, 2.0**-480  # between them x*x and its rounding error are doubles, the error exact
_SPLITTER = 134217729.0  # 2^27 + 1 (Dekker 1971)
_LOOSE_COUNT = 1 << 28  # a count adds at most 8 * 2^30 to a digit: carry in time
_TEN = 10.0 ** np.arange(23)  # the powers of ten that are doubles
_SIGN = np.int64(-(1 << 63))
_LIMIT_LOW, _LIMIT_HIGH = 10**38 % 2**64 + int(_SIGN), 10**38 >> 64  # 10^38; the low half biased for a signed comparison

_W1, _W2, _W3, _W4 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)  # unsigned: numba then tests no sign
_W5, _W6, _W7, _W8 = np.uint64(5), np.uint64(6), np.uint64(7), np.uint64(8)


@njit(**INTERNAL)
def _two_sum(a: float, b: float) -> tuple[float, float]:
    """The rounded sum and its error, exact (Knuth 1969)."""
    keep_inside()
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@njit(**INTERNAL)
def _two_square(x: float) -> tuple[float, float]:
    """x*x rounded and its error, exact within the safe range (Dekker 1971); no FMA, so every machine does the same."""
    keep_inside()
    scaled = _SPLITTER * x
    high = scaled - (scaled - x)
    low = x - high
    square = x * x
    return square, ((high * high - square) + 2.0 * high * low) + low * low


# sum ----------------------------------------------------------------------------------------------------------------------------


@njit(**INTERNAL)
def sum_init(words: np.ndarray, floats: np.ndarray, at: int) -> None:
    keep_inside()
    for i in range(SUM_WORDS):
        words[at + i] = 0


@njit(**INTERNAL)
def sum_fold_rows(
    words: np.ndarray,
    floats: np.ndarray,
    at: int,
    values: np.ndarray,
    valid: np.ndarray,
    row: int,
    end: int,
    heap: np.ndarray,
    heap_top: np.ndarray,
) -> None:
    """More doubles, ordered words in `values[row:end]` where `valid`: two two-sums each, or three where `c` loses a bit: 2 ns."""
    keep_inside()
    a = np.uint64(at)
    s, c, cc, count = floats[a + _W1], floats[a + _W2], floats[a + _W3], words[a]
    for i in range(row, end):
        if not valid[i]:
            continue
        x = double_of(plain_word(values[i], True))
        count += 1
        if words[a + _W4] == 0 and abs(x) < _LARGE:
            total, e = _two_sum(s, x)
            rest, e = _two_sum(c, e)
            third, lost = _two_sum(cc, e)
            if lost == 0.0 and abs(total) < _LARGE:
                s, c, cc = total, rest, third
                continue
        floats[a + _W1], floats[a + _W2], floats[a + _W3], words[a] = s, c, cc, count
        _sum_fold_wide(words, floats, at, x, heap, heap_top)
        s, c, cc = floats[a + _W1], floats[a + _W2], floats[a + _W3]
    floats[a + _W1], floats[a + _W2], floats[a + _W3], words[a] = s, c, cc, count


@njit(**INTERNAL)
def _spill(words: np.ndarray, floats: np.ndarray, at: int, extra: int, heap: np.ndarray, heap_top: np.ndarray) -> int:
    """Move a partial to fixed-point digits if it is not there yet; where they are.

    extra: where that word of the partial is, by which a sum (4) is told from moments (8).
    """
    keep_apart()
    wide = (words[at + extra] >> _HANDLE_BIT) - 1
    if wide < 0:
        wide = heap_top[0]
        heap_top[0] = wide + (SUM_WIDE_WORDS if extra == _IN_SUM else MOMENTS_WIDE_WORDS)
        words[at + extra] |= (wide + 1) << _HANDLE_BIT
        for i in range(wide, heap_top[0]):
            heap[i] = 0
        _add_parts(floats, at, extra, heap, wide)
        for i in range(at + 1, at + extra):
            words[i] = 0
    return wide


@njit(**INTERNAL)
def _add_parts(floats: np.ndarray, at: int, extra: int, digits: np.ndarray, wide: int) -> None:
    """Add the doubles of a partial to digits: the first three to the sum, the others to the squares."""
    keep_apart()
    for i in range(1, extra):
        square = i > 3
        add_double(digits, wide + SUM_DIGITS if square else wide, floats[at + i], _SQUARE_SHIFT if square else _SUM_SHIFT)


@njit(**INTERNAL)
def _sum_fold_wide(words: np.ndarray, floats: np.ndarray, at: int, x: float, heap: np.ndarray, heap_top: np.ndarray) -> None:
    keep_apart()
    if math.isnan(x):
        words[at + 4] |= _NAN
    elif math.isinf(x):
        words[at + 4] |= _PLUS if x > 0.0 else _MINUS
    elif words[at + 4] & _FLAGS == 0:
        wide = _spill(words, floats, at, _IN_SUM, heap, heap_top)
        add_double(heap, wide, x, _SUM_SHIFT)
        if words[at] >= _LOOSE_COUNT:
            settle(heap, wide, _SUM_DIGITS)


@njit(**INTERNAL)
def _merge_wide(
    words: np.ndarray,
    floats: np.ndarray,
    into: int,
    other_words: np.ndarray,
    other_floats: np.ndarray,
    other_at: int,
    heap: np.ndarray,
    heap_top: np.ndarray,
    other_heap: np.ndarray,
    extra: int,
) -> None:
    keep_apart()
    words[into + extra] |= other_words[other_at + extra] & _FLAGS
    if words[into + extra] & _FLAGS != 0:
        return
    wide = _spill(words, floats, into, extra, heap, heap_top)
    other = (other_words[other_at + extra] >> _HANDLE_BIT) - 1
    if other >= 0:
        for i in range(SUM_WIDE_WORDS if extra == _IN_SUM else MOMENTS_WIDE_WORDS):
            heap[wide + i] += other_heap[other + i]
    else:
        _add_parts(other_floats, other_at, extra, heap, wide)
    if words[into] >= _LOOSE_COUNT:
        settle(heap, wide, _SUM_DIGITS)
        if extra != _IN_SUM:
            settle(heap, wide + SUM_DIGITS, _SQUARE_DIGITS)


@njit(**INTERNAL)
def sum_merge(
    words: np.ndarray,
    floats: np.ndarray,
    into: int,
    other_words: np.ndarray,
    other_floats: np.ndarray,
    other_at: int,
    heap: np.ndarray,
    heap_top: np.ndarray,
    other_heap: np.ndarray,
) -> None:
    """Add the partial at `other_at`, whose digits are in `other_heap`, to the one at `into`: three two-sums, or six: 5 ns.

    The arrays may be the same, the partials not.  Parts of the other meet first, so that a run of merges into one partial
    waits for one addition per part and not for three.
    """
    keep_inside()
    a, b = np.uint64(into), np.uint64(other_at)
    words[a] += other_words[b]
    if words[a + _W4] | other_words[b + _W4] == 0:
        s, e = _two_sum(floats[a + _W1], other_floats[b + _W1])
        d, e = _two_sum(other_floats[b + _W2], e)
        c, f = _two_sum(floats[a + _W2], d)
        if abs(s) < _LARGE:
            lost = 0.0
            if abs(e) + abs(f) + abs(other_floats[b + _W3]) != 0.0:
                cc, lost = _sum_four(floats[a + _W3], other_floats[b + _W3], e, f)
                if lost == 0.0:
                    floats[a + _W3] = cc
            if lost == 0.0:
                floats[a + _W1] = s
                floats[a + _W2] = c
                return
    _merge_wide(words, floats, into, other_words, other_floats, other_at, heap, heap_top, other_heap, _IN_SUM)


@njit(**INTERNAL)
def _sum_four(a: float, b: float, c: float, d: float) -> tuple[float, float]:
    """a + b + c + d, and something that is 0 if and only if nothing was lost."""
    keep_inside()
    c, lost = _two_sum(c, d)
    b, also = _two_sum(b, c)
    a, too = _two_sum(a, b)
    return a, abs(lost) + abs(also) + abs(too)


@njit(**INTERNAL)
def sum_final(words: np.ndarray, floats: np.ndarray, at: int, heap: np.ndarray, scratch: np.ndarray) -> float:
    """The exact sum rounded once, ties to even; +0.0 for nothing or for zero.  1 ns, and 10 ns where `cc` is used.

    Beyond the range of doubles it is an infinity; NaN if one was seen or both infinities were.
    """
    keep_inside()
    a = np.uint64(at)
    if words[a + _W4] != 0:
        return _sum_final_wide(words, at, heap, scratch)
    if floats[a + _W3] == 0.0:
        return floats[a + _W1] + floats[a + _W2] + 0.0
    return _round_three(floats[a + _W1], floats[a + _W2], floats[a + _W3])


@njit(**INTERNAL)
def _round_three(s: float, c: float, cc: float) -> float:
    """s + c + cc rounded once.

    After three two-sums the total is high + low + rest, where high is high + low rounded and low a multiple of the last bit that
    `rest` is half of at most.  So `rest` matters only where low is 0, or exactly half a step and `rest` on its side (as in
    Python's fsum).
    """
    keep_inside()
    c, cc = _two_sum(c, cc)
    s, low = _two_sum(s, c)
    low, rest = _two_sum(low, cc)
    high, low = _two_sum(s, low)
    if low == 0.0:
        return high + rest + 0.0
    if (low < 0.0 and rest < 0.0) or (low > 0.0 and rest > 0.0):
        step = low * 2.0
        beyond = high + step
        if beyond - high == step:
            return beyond
    return high


@njit(**INTERNAL)
def _sum_final_wide(words: np.ndarray, at: int, heap: np.ndarray, scratch: np.ndarray) -> float:
    keep_apart()
    extra = words[at + 4]
    flags = extra & _FLAGS
    if flags == _PLUS:
        return np.inf
    if flags == _MINUS:
        return -np.inf
    if flags != 0:
        return np.nan
    wide = (extra >> _HANDLE_BIT) - 1
    for i in range(SUM_DIGITS):
        scratch[_FIRST + i] = heap[wide + i]
    negative = take_magnitude(scratch, _FIRST, _SUM_DIGITS)
    return ratio_to_double(scratch, _FIRST, _SUM_DIGITS, -_SUM_SHIFT, _ONE, _ONE, _ZERO, negative, _WORK)


# isum ---------------------------------------------------------------------------------------------------------------------------


@njit(**INTERNAL)
def isum_init(words: np.ndarray, floats: np.ndarray, at: int) -> None:
    keep_inside()
    for i in range(ISUM_WORDS):
        words[at + i] = 0


@njit(**INTERNAL)
def isum_fold(words: np.ndarray, floats: np.ndarray, at: int, value: int) -> None:
    """One more int64: 1 ns."""
    keep_inside()
    a = np.uint64(at)
    low = np.int64(np.uint64(words[a + _W1]) + np.uint64(value))  # unsigned: LLVM takes signed sums never to wrap
    words[a] += 1
    words[a + _W1] = low
    words[a + _W2] += (value >> 63) + np.int64(np.uint64(low) < np.uint64(value))


@njit(**INTERNAL)
def isum_merge(words: np.ndarray, floats: np.ndarray, into: int, other_words: np.ndarray, other_floats: np.ndarray, other_at: int) -> None:
    keep_inside()
    a, b = np.uint64(into), np.uint64(other_at)
    more = other_words[b + _W1]
    low = np.int64(np.uint64(words[a + _W1]) + np.uint64(more))
    words[a] += other_words[b]
    words[a + _W1] = low
    words[a + _W2] += other_words[b + _W2] + np.int64(np.uint64(low) < np.uint64(more))


@njit(**INTERNAL)
def isum_to_i64(words: np.ndarray, at: int) -> tuple[int, bool]:
    """The sum, and whether it is an int64."""
    keep_inside()
    return words[at + 1], words[at + 2] == words[at + 1] >> 63


@njit(**INTERNAL)
def isum_to_i128(words: np.ndarray, at: int) -> tuple[int, int, bool]:
    """The sum as (low, high), and whether it has at most 38 digits."""
    return words[at + 1], words[at + 2], _fits_decimal(words[at + 1], words[at + 2])


@njit(**INTERNAL)
def _fits_decimal(low: int, high: int) -> bool:
    """Whether |value| < 10^38."""
    low, high = _magnitude(low, high)
    return 0 <= high < _LIMIT_HIGH or (high == _LIMIT_HIGH and (low ^ _SIGN) < _LIMIT_LOW)


@njit(**INTERNAL)
def _magnitude(low: int, high: int) -> tuple[int, int]:
    """|value|, unsigned."""
    if high >= 0:
        return low, high
    return -low, ~high + np.int64(low == 0)


@njit(**INTERNAL)
def isum_to_double(words: np.ndarray, at: int, scale: int, scratch: np.ndarray) -> float:
    """The sum / 10^scale rounded once, 0 <= scale <= 38: 2 ns below 2^53 and scale 22, else 60 ns."""
    keep_inside()
    low, high = words[at + 1], words[at + 2]
    if high == low >> 63 and -(1 << 53) <= low <= 1 << 53 and scale <= 22:
        return low / _TEN[scale]
    _split(low, high, scratch, _FIRST)
    return ratio_to_double(scratch, _FIRST, _FIVE, _ZERO, _ONE, _ONE, scale, high < 0, _WORK)


@njit(**INTERNAL)
def _split(low: int, high: int, digits: np.ndarray, at: int) -> None:
    """|value| as five proper digits."""
    keep_apart()
    low, high = _magnitude(low, high)
    digits[at] = low & MASK
    digits[at + 1] = (low >> 30) & MASK
    digits[at + 2] = ((low >> 60) & 15) | ((high & _LOW26) << 4)
    digits[at + 3] = (high >> 26) & MASK
    digits[at + 4] = (high >> 56) & 255


# moments ------------------------------------------------------------------------------------------------------------------------


@njit(**INTERNAL)
def moments_init(words: np.ndarray, floats: np.ndarray, at: int) -> None:
    keep_inside()
    for i in range(MOMENTS_WORDS):
        words[at + i] = 0


@njit(**INTERNAL)
def moments_fold(words: np.ndarray, floats: np.ndarray, at: int, x: float, heap: np.ndarray, heap_top: np.ndarray) -> None:
    """One more double and its square: 8 ns, or 14 where all parts are used.

    The squares have four parts, since theirs are twice as many bits.
    """
    keep_inside()
    a = np.uint64(at)
    words[a] += 1
    size = abs(x)
    if words[a + _W8] == 0 and size < _SQUARE_LARGE and (size > _SQUARE_SMALL or size == 0.0):
        s, e = _two_sum(floats[a + _W1], x)
        c, e = _two_sum(floats[a + _W2], e)
        square, low = _two_square(x)
        q, f = _two_sum(floats[a + _W4], square)
        f, g = _two_sum(f, low)
        qc, h = _two_sum(floats[a + _W5], f)
        if abs(s) < _LARGE and q < _LARGE:
            lost = 0.0
            if abs(e) + abs(g) + abs(h) != 0.0:
                lost = _fold_rest(floats, a, e, g, h)
            if lost == 0.0:
                floats[a + _W1], floats[a + _W2], floats[a + _W4], floats[a + _W5] = s, c, q, qc
                return
    _moments_fold_wide(words, floats, at, x, heap, heap_top)


@njit(**INTERNAL)
def _fold_rest(floats: np.ndarray, a: int, e: float, g: float, h: float) -> float:
    """Add e to `cc`, g + h to `qcc` and `qccc`, unless bits would be lost: then nothing changes and the result is not 0."""
    keep_inside()
    cc, lost = _two_sum(floats[a + _W3], e)
    g, h = _two_sum(g, h)
    qcc, g = _two_sum(floats[a + _W6], g)
    g, also = _two_sum(g, h)
    qccc, too = _two_sum(floats[a + _W7], g)
    lost = abs(lost) + abs(also) + abs(too)
    if lost == 0.0:
        floats[a + _W3], floats[a + _W6], floats[a + _W7] = cc, qcc, qccc
    return lost


@njit(**INTERNAL)
def _moments_fold_wide(words: np.ndarray, floats: np.ndarray, at: int, x: float, heap: np.ndarray, heap_top: np.ndarray) -> None:
    keep_apart()
    if math.isnan(x):
        words[at + 8] |= _NAN
    elif math.isinf(x):
        words[at + 8] |= _PLUS if x > 0.0 else _MINUS
    elif words[at + 8] & _FLAGS == 0:
        wide = _spill(words, floats, at, _IN_MOMENTS, heap, heap_top)
        add_double(heap, wide, x, _SUM_SHIFT)
        fraction, exponent = math.frexp(x)
        square, low = _two_square(fraction)
        shift = _SQUARE_SHIFT + 2 * np.int64(exponent)
        add_double(heap, wide + SUM_DIGITS, square, shift)
        add_double(heap, wide + SUM_DIGITS, low, shift)
        if words[at] >= _LOOSE_COUNT:
            settle(heap, wide, _SUM_DIGITS)
            settle(heap, wide + SUM_DIGITS, _SQUARE_DIGITS)


@njit(**INTERNAL)
def moments_merge(
    words: np.ndarray,
    floats: np.ndarray,
    into: int,
    other_words: np.ndarray,
    other_floats: np.ndarray,
    other_at: int,
    heap: np.ndarray,
    heap_top: np.ndarray,
    other_heap: np.ndarray,
) -> None:
    """Add the partial at `other_at`, whose digits are in `other_heap`, to the one at `into`: 8 ns, or 23 where all parts are used."""
    keep_inside()
    a, b = np.uint64(into), np.uint64(other_at)
    words[a] += other_words[b]
    if words[a + _W8] | other_words[b + _W8] == 0:
        s, e = _two_sum(floats[a + _W1], other_floats[b + _W1])
        d, e = _two_sum(other_floats[b + _W2], e)
        c, f = _two_sum(floats[a + _W2], d)
        q, g = _two_sum(floats[a + _W4], other_floats[b + _W4])
        d, g = _two_sum(other_floats[b + _W5], g)
        qc, h = _two_sum(floats[a + _W5], d)
        if abs(s) < _LARGE and q < _LARGE:
            lost = 0.0
            lower = abs(other_floats[b + _W3]) + abs(other_floats[b + _W6]) + abs(other_floats[b + _W7])
            if lower + abs(e) + abs(f) + abs(g) + abs(h) != 0.0:
                lost = _merge_rest(floats, a, other_floats, b, e, f, g, h)
            if lost == 0.0:
                floats[a + _W1], floats[a + _W2], floats[a + _W4], floats[a + _W5] = s, c, q, qc
                return
    _merge_wide(words, floats, into, other_words, other_floats, other_at, heap, heap_top, other_heap, _IN_MOMENTS)


@njit(**INTERNAL)
def _merge_rest(floats: np.ndarray, a: int, other_floats: np.ndarray, b: int, e: float, f: float, g: float, h: float) -> float:
    """Add the lower parts, e + f to `cc`, g + h to `qcc` and `qccc`, unless bits would be lost, as `_fold_rest` does."""
    keep_apart()
    cc, lost = _sum_four(floats[a + _W3], other_floats[b + _W3], e, f)
    g, h = _two_sum(g, h)
    g, e = _two_sum(other_floats[b + _W6], g)
    qcc, f = _two_sum(floats[a + _W6], g)
    h, also = _two_sum(h, e)
    qccc, too = _sum_four(floats[a + _W7], other_floats[b + _W7], h, f)
    lost += abs(also) + too
    if lost == 0.0:
        floats[a + _W3], floats[a + _W6], floats[a + _W7] = cc, qcc, qccc
    return lost


@njit(**INTERNAL)
def moments_final(words: np.ndarray, floats: np.ndarray, at: int, heap: np.ndarray, scratch: np.ndarray) -> tuple[float, bool]:
    """The sample variance rounded once, and whether there is one (two values or more): 200 ns, 10 us where it spilled.

    NaN where a NaN or an infinity was seen.  The standard deviation is its square root.
    """
    n, extra = words[at], words[at + 8]
    if n < 2:
        return 0.0, False
    if extra & _FLAGS != 0:
        return np.nan, True
    wide = (extra >> _HANDLE_BIT) - 1
    if wide >= 0:
        for i in range(SUM_DIGITS):
            scratch[_FIRST + i] = heap[wide + i]
        for i in range(SQUARE_DIGITS):
            scratch[_SECOND + i] = heap[wide + SUM_DIGITS + i]
        return _variance(scratch, _ZERO, _SUM_DIGITS, _ZERO, _SQUARE_DIGITS, n, -_SQUARE_SHIFT, _ZERO), True
    low, high = _place(floats, at + 1, at + 4, _SUM_SHIFT, scratch, _FIRST)
    low_square, high_square = _place(floats, at + 4, at + 8, _SQUARE_SHIFT, scratch, _SECOND)
    return _variance(scratch, low, high, low_square, high_square, n, -_SQUARE_SHIFT, _ZERO), True


@njit(**INTERNAL)
def _place(floats: np.ndarray, begin: int, end: int, shift: int, digits: np.ndarray, at: int) -> tuple[int, int]:
    """Put the sum of a few doubles at `digits[at:]` and say which digits, from low to before high, it uses; only those are set."""
    keep_apart()
    low, high = 1 << 20, 0
    for i in range(begin, end):
        exponent = (np.float64(floats[i]).view(np.int64) >> 52) & 2047
        if floats[i] != 0.0:
            digit = (max(exponent, 1) - 1075 + shift) // DIGIT_BITS
            low, high = min(low, digit), max(high, digit + 4)
    for i in range(low, high):
        digits[at + i] = 0
    for i in range(begin, end):
        add_double(digits, at, floats[i], shift)
    return low, high


@njit(**INTERNAL)
def _variance(digits: np.ndarray, low: int, high: int, low_square: int, high_square: int, n: int, exponent: int, tens: int) -> float:
    """(n * squares - sum^2) * 2^exponent / (n (n - 1) 10^tens), rounded once; n >= 2.

    The sum is in the loose digits [low, high) from _FIRST, the squares in [low_square, high_square) from _SECOND; a digit of the
    numerator that has the number 2i is worth the square of digit i of the sum.
    """
    keep_apart()
    if low < high:
        take_magnitude(digits, _FIRST + low, high - low)
    if low_square >= high_square:
        return 0.0
    settle(digits, _SECOND + low_square, high_square - low_square)
    while low < high and digits[_FIRST + low] == 0:
        low += 1
    while low < high and digits[_FIRST + high - 1] == 0:
        high -= 1
    while low_square < high_square and digits[_SECOND + low_square] == 0:
        low_square += 1
    base = min(2 * low, low_square) if low < high else low_square
    top = max(2 * high, high_square + 3) + 1
    for i in range(top - base):
        digits[_NUMERATOR + i] = 0
    for i in range(3):
        digits[_COUNT + i] = (n >> (DIGIT_BITS * i)) & MASK
    add_product(digits, _NUMERATOR + low_square - base, _COUNT, _THREE, _SECOND + low_square, high_square - low_square, _ONE)
    add_product(digits, _NUMERATOR + 2 * low - base, _FIRST + low, high - low, _FIRST + low, high - low, -_ONE)
    settle(digits, _NUMERATOR, top - base)
    return ratio_to_double(digits, _NUMERATOR, top - base, exponent + DIGIT_BITS * base, n, n - 1, tens, False, _WORK)


# dsum and dmoments --------------------------------------------------------------------------------------------------------------


@njit(**INTERNAL)
def dsum_init(words: np.ndarray, floats: np.ndarray, at: int) -> None:
    for i in range(DSUM_WORDS):
        words[at + i] = 0


@njit(**INTERNAL)
def dsum_fold(words: np.ndarray, floats: np.ndarray, at: int, low: int, high: int) -> None:
    """One more int128: 3 ns."""
    keep_inside()
    words[at] += 1
    sign = 1 if high >= 0 else -1
    low, high = _magnitude(low, high)
    words[at + 1] += sign * (low & MASK)
    words[at + 2] += sign * ((low >> 30) & MASK)
    words[at + 3] += sign * (((low >> 60) & 15) | ((high & _LOW26) << 4))
    words[at + 4] += sign * ((high >> 26) & MASK)
    words[at + 5] += sign * ((high >> 56) & 255)
    if words[at] >= _LOOSE_COUNT:
        settle(words, at + 1, _FIVE)


@njit(**INTERNAL)
def dsum_merge(words: np.ndarray, floats: np.ndarray, into: int, other_words: np.ndarray, other_floats: np.ndarray, other_at: int) -> None:
    keep_inside()
    for i in range(DSUM_WORDS):
        words[into + i] += other_words[other_at + i]
    if words[into] >= _LOOSE_COUNT:
        settle(words, into + 1, _FIVE)


@njit(**INTERNAL)
def dsum_to_i128(words: np.ndarray, at: int, scratch: np.ndarray) -> tuple[int, int, bool]:
    """The sum as (low, high), and whether it has at most 38 digits; of a dsum or a dmoments partial."""
    negative = _take_sum(words, at, scratch)
    low = scratch[_FIRST] | (scratch[_FIRST + 1] << 30) | (scratch[_FIRST + 2] << 60)
    high = (scratch[_FIRST + 2] >> 4) | (scratch[_FIRST + 3] << 26) | (scratch[_FIRST + 4] << 56)
    fits = scratch[_FIRST + 4] < 128 and _fits_decimal(low, high)
    if negative:
        low, high = -low, ~high + np.int64(low == 0)
    return low, high, fits


@njit(**INTERNAL)
def dsum_to_double(words: np.ndarray, at: int, scale: int, scratch: np.ndarray) -> float:
    """The sum / 10^scale rounded once, 0 <= scale <= 38; of a dsum or a dmoments partial: 100 ns."""
    negative = _take_sum(words, at, scratch)
    scratch[_FIRST + 5] = scratch[_FIRST + 4] >> DIGIT_BITS
    scratch[_FIRST + 4] &= MASK
    return ratio_to_double(scratch, _FIRST, _SIX, _ZERO, _ONE, _ONE, scale, negative, _WORK)


@njit(**INTERNAL)
def _take_sum(words: np.ndarray, at: int, digits: np.ndarray) -> bool:
    keep_apart()
    for i in range(5):
        digits[_FIRST + i] = words[at + 1 + i]
    return take_magnitude(digits, _FIRST, _FIVE)


@njit(**INTERNAL)
def dmoments_init(words: np.ndarray, floats: np.ndarray, at: int) -> None:
    for i in range(DMOMENTS_WORDS):
        words[at + i] = 0


@njit(**INTERNAL)
def dmoments_fold(words: np.ndarray, floats: np.ndarray, at: int, low: int, high: int) -> None:
    """One more int128 and its square: 6 ns.  Of an int64, high = low >> 63."""
    keep_inside()
    dsum_fold(words, floats, at, low, high)
    low, high = _magnitude(low, high)
    a = low & MASK
    b = (low >> 30) & MASK
    c = ((low >> 60) & 15) | ((high & _LOW26) << 4)
    d = (high >> 26) & MASK
    e = (high >> 56) & 255
    carry = _put(words, at + 6, a * a)
    carry = _put(words, at + 7, carry + 2 * a * b)
    carry = _put(words, at + 8, carry + 2 * a * c + b * b)
    carry = _put(words, at + 9, carry + 2 * (a * d + b * c))
    carry = _put(words, at + 10, carry + 2 * (a * e + b * d) + c * c)
    carry = _put(words, at + 11, carry + 2 * (b * e + c * d))
    carry = _put(words, at + 12, carry + 2 * c * e + d * d)
    carry = _put(words, at + 13, carry + 2 * d * e)
    words[at + 14] += carry + e * e
    if words[at] >= _LOOSE_COUNT:
        settle(words, at + 6, _NINE)


@njit(**INTERNAL)
def _put(digits: np.ndarray, at: int, amount: int) -> int:
    """Add the low digit of `amount`; what carries over."""
    digits[at] += amount & MASK
    return amount >> DIGIT_BITS


@njit(**INTERNAL)
def dmoments_merge(
    words: np.ndarray, floats: np.ndarray, into: int, other_words: np.ndarray, other_floats: np.ndarray, other_at: int
) -> None:
    keep_inside()
    for i in range(DMOMENTS_WORDS):
        words[into + i] += other_words[other_at + i]
    if words[into] >= _LOOSE_COUNT:
        settle(words, into + 1, _FIVE)
        settle(words, into + 6, _NINE)


@njit(**INTERNAL)
def dmoments_final(words: np.ndarray, at: int, scale: int, scratch: np.ndarray) -> tuple[float, bool]:
    """The sample variance of value / 10^scale rounded once, and whether there is one; 0 <= scale <= 38: 200 ns."""
    n = words[at]
    if n < 2:
        return 0.0, False
    for i in range(5):
        scratch[_FIRST + i] = words[at + 1 + i]
    for i in range(9):
        scratch[_SECOND + i] = words[at + 6 + i]
    scratch[_FIRST + 5] = 0
    scratch[_SECOND + 9] = 0
    return _variance(scratch, _ZERO, _SIX, _ZERO, _TEN_DIGITS, n, _ZERO, 2 * scale), True
