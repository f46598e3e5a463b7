"""Add, multiply and round big integers held as digits in int64 arrays.

A number is digits of base 2^30, lowest first, each in an int64 word.  The words are *loose*: a digit may be negative or far above
the base, so that adding is one addition per digit and no carry runs; `settle` makes them proper.  Products of proper digits stay
below 2^60, which is why nothing here needs unsigned arithmetic.  `ratio_to_double` is the one place where anything is rounded.
"""

from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

from featreg.algebra.compiler import KernelCompiler
from featreg.algebra.flags import INTERNAL

DIGIT_BITS = 30
DIGIT = 1 << DIGIT_BITS
MASK = DIGIT - 1
WORK_DIGITS = 24  # what `ratio_to_double` divides in: 64 + 63 + 63 + 254 bits at most
_HIDDEN = 1 << 52
_LOWEST = -1074  # exponent of the last bit of a subnormal
_MOST_SIGNIFICANT = 60  # bits of the quotient that are looked at; the rest is the sticky bit


@intrinsic
def keep_apart(typing):
    """Tell LLVM not to inline the function that calls this: rare paths stay out of loops, and are compiled once."""
    return types.none(), _attribute("noinline")


@intrinsic
def keep_inside(typing):
    """Tell LLVM to inline the function that calls this: passing five arrays on the stack costs more than a two-sum."""
    return types.none(), _attribute("alwaysinline")


def _attribute(name: str) -> Callable:
    def mark(context, builder, signature, arguments):
        builder.function.attributes.add(name)
        return context.get_dummy_value()

    return mark


@njit(**INTERNAL)
def add_double(digits: np.ndarray, at: int, x: float, shift: int) -> None:
    """Add x * 2^shift to the loose digits that begin at `digits[at]`; x finite, its last mantissa bit at or above 2^-shift.

    Touches three digits, each by less than 2^30: about 3 ns.
    """
    keep_apart()
    if x == 0.0:
        return
    bits = np.float64(x).view(np.int64)
    exponent = (bits >> 52) & 2047
    mantissa = bits & (_HIDDEN - 1)
    if exponent == 0:
        exponent = 1
    else:
        mantissa |= _HIDDEN
    position = exponent - 1075 + shift
    digit = position // DIGIT_BITS
    within = position - digit * DIGIT_BITS
    low = (mantissa & MASK) << within
    high = (low >> DIGIT_BITS) + ((mantissa >> DIGIT_BITS) << within)
    sign = 1 if x > 0.0 else -1
    digits[at + digit] += sign * (low & MASK)
    digits[at + digit + 1] += sign * (high & MASK)
    digits[at + digit + 2] += sign * (high >> DIGIT_BITS)


@njit(**INTERNAL)
def settle(digits: np.ndarray, at: int, length: int) -> None:
    """Carry: every digit but the last in [0, 2^30); the last keeps the sign."""
    keep_apart()
    carry = 0
    for i in range(at, at + length - 1):
        digit = digits[i] + carry
        digits[i] = digit & MASK
        carry = digit >> DIGIT_BITS
    digits[at + length - 1] += carry


@njit(**INTERNAL)
def take_magnitude(digits: np.ndarray, at: int, length: int) -> bool:
    """Settle, and turn a negative number positive; whether it was negative."""
    keep_apart()
    settle(digits, at, length)
    if digits[at + length - 1] >= 0:
        return False
    for i in range(at, at + length):
        digits[i] = -digits[i]
    settle(digits, at, length)
    return True


@njit(**INTERNAL)
def add_product(digits: np.ndarray, at: int, left: int, left_length: int, right: int, right_length: int, sign: int) -> None:
    """Add sign * left * right, both proper digits in the same array, to the loose digits at `at`: left_length * right_length steps."""
    keep_apart()
    for i in range(left_length):
        factor = digits[left + i]
        if factor != 0:
            for j in range(right_length):
                product = factor * digits[right + j]
                digits[at + i + j] += sign * (product & MASK)
                digits[at + i + j + 1] += sign * (product >> DIGIT_BITS)


@njit(**INTERNAL)
def divide(digits: np.ndarray, at: int, length: int, divisor: int) -> bool:
    """Divide proper digits in place by 1 <= divisor < 2^63, rounding down; whether a remainder is left.

    One hardware division per digit below 2^32; a larger divisor goes bit by bit (counts of four billion rows).
    """
    keep_apart()
    remainder = 0
    if divisor < 1 << 32:
        for i in range(at + length - 1, at - 1, -1):
            part = (remainder << DIGIT_BITS) | digits[i]
            digits[i] = part // divisor
            remainder = part - digits[i] * divisor
        return remainder != 0
    for i in range(at + length - 1, at - 1, -1):
        quotient = 0
        for bit in range(DIGIT_BITS - 1, -1, -1):
            over = remainder - divisor + remainder + ((digits[i] >> bit) & 1)  # 2r + bit - d, and no step leaves int64
            quotient <<= 1
            if over >= 0:
                quotient |= 1
                remainder = over
            else:
                remainder = over + divisor
        digits[i] = quotient
    return remainder != 0


@njit(**INTERNAL)
def _bit_length(value: int) -> int:
    length = 0
    while value > 0:
        value >>= 1
        length += 1
    return length


@njit(**INTERNAL)
def _round_bits(leading: int, exponent: int, sticky: bool, negative: bool) -> float:
    """The double nearest to (leading + something below 1 if sticky) * 2^exponent, where 2^59 <= leading < 2^60."""
    if exponent + _MOST_SIGNIFICANT > 1024:
        return -np.inf if negative else np.inf
    last = max(exponent + _MOST_SIGNIFICANT - 53, _LOWEST)
    drop = last - exponent
    if drop > _MOST_SIGNIFICANT:
        return 0.0
    half = 1 << (drop - 1)
    rest = leading & (half + half - 1)
    mantissa = leading >> drop
    if rest > half or (rest == half and (sticky or mantissa & 1 == 1)):
        mantissa += 1
    if mantissa == 0:
        return 0.0
    bits = ((last - _LOWEST) << 52) + mantissa  # the hidden bit carries into the exponent
    value = np.int64(bits).view(np.float64)
    return -value if negative else value


_INT = types.int64
_RATIO = types.float64(types.CPointer(_INT), _INT, _INT, _INT, _INT, _INT, _INT, _INT, _INT)


@cfunc(_RATIO, cache=True, error_model="numpy", pipeline_class=KernelCompiler)
def _ratio_to_double(address, at, length, exponent, first, second, tens, negative, work):
    digits = carray(address, work + WORK_DIGITS)
    while length > 0 and digits[at + length - 1] == 0:
        length -= 1
    if length == 0:
        return 0.0
    if first < 1 << 16 and second < 1 << 16:
        first, second = first * second, 1
    keep = (64 + _bit_length(first) + _bit_length(second) + tens * 10 // 3 + 1) // DIGIT_BITS + 2
    sticky = False
    for i in range(length - keep):
        sticky |= digits[at + i] != 0
    for i in range(keep):
        source = length - keep + i
        digits[work + i] = digits[at + source] if source >= 0 else 0
    exponent += DIGIT_BITS * (length - keep)
    for divisor in (first, second):
        if divisor > 1:
            sticky |= divide(digits, work, keep, divisor)
    while tens > 0:
        power = 1
        for _ in range(min(tens, 9)):
            power *= 10
        sticky |= divide(digits, work, keep, power)
        tens -= 9
    top = work + keep - 1
    while digits[top] == 0:
        top -= 1
    below = _bit_length(digits[top])  # bits of the third digit that are not looked at
    leading = (digits[top] << (60 - below)) | (digits[top - 1] << (30 - below)) | (digits[top - 2] >> below)
    sticky |= (digits[top - 2] & ((1 << below) - 1)) != 0
    for i in range(work, top - 2):
        sticky |= digits[i] != 0
    return _round_bits(leading, exponent + DIGIT_BITS * (top - 2 - work) + below, sticky, negative != 0)


llvm.add_symbol("featreg_ratio_to_double", _ratio_to_double.address)
_call_ratio = types.ExternalFunction("featreg_ratio_to_double", _RATIO)


@njit(**INTERNAL)
def ratio_to_double(
    digits: np.ndarray, at: int, length: int, exponent: int, first: int, second: int, tens: int, negative: bool, work: int
) -> float:
    """Round the number at `at` * 2^exponent / (first * second * 10^tens) to the nearest double, ties to even.

    digits: proper, of any length, left as they are; first, second: 1 <= divisor < 2^63; 0 <= tens <= 76; digits[work:] has
    WORK_DIGITS words to overwrite.  Subnormals and overflow to infinity included; a zero is +0.0.
    Only as many leading digits as give 64 bits of quotient are divided; what is below them, and every remainder, can only
    break a tie, which one sticky bit does (floor(floor(a / b) / c) = floor(a / bc)).
    It is called by address: numba would otherwise compile this, the largest function here, again into each of its callers.
    """
    return _call_ratio(digits.ctypes, at, length, exponent, first, second, tens, negative, work)
