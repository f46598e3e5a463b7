"""Run a finish program: one compiled loop over rows, the same offline and for one row online.

Every branch of a CASE is computed and one is chosen: an error is a status that
only the chosen branch hands on, so this equals evaluating that branch alone.
No fast-math; `-0.0` leaves every operation as 0.0 and NaN as the one quiet NaN.
"""

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from featreg.algebra.flags import ALLOCATING, INTERNAL
from featreg.expressions import opcodes as op

NUMBERING = 1  # of `opcodes`
_LEAST = np.int64(-(1 << 63))
_MOST = np.int64((1 << 63) - 1)
_QUIET_NAN = np.int64(0x7FF8 << 48)
_EXACT_IN_DOUBLE = np.int64(1 << 53)
_DAY = np.int64(86_400_000_000)
_LAST_DAY = np.int64(106_751_991)  # the last whole day of int64 microseconds
_INFINITE_DATE = np.int64((1 << 31) - 1)
_TWO_63, _TWO_64 = 2.0**63, 2.0**64

_VALUE, _NOTHING, _ERROR = np.uint8(op.IS_VALUE), np.uint8(op.IS_NOTHING), np.uint8(op.IS_ERROR)


@intrinsic
def _double(typingctx, bits):  # type: ignore[no-untyped-def]
    """The DOUBLE with these IEEE bits."""
    return types.float64(types.int64), lambda context, builder, signature, args: builder.bitcast(args[0], ir.DoubleType())


@intrinsic
def _raw_bits(typingctx, value):  # type: ignore[no-untyped-def]
    return types.int64(types.float64), lambda context, builder, signature, args: builder.bitcast(args[0], ir.IntType(64))


def _with_overflow(operation: str):  # type: ignore[no-untyped-def]
    """int64, int64 -> (wrapped result, whether it wrapped).

    Not written in Python: numba marks signed arithmetic as never wrapping, and LLVM then deletes a check made afterwards.
    """

    @intrinsic
    def checked(typingctx, left, right):  # type: ignore[no-untyped-def]
        pair = types.Tuple((types.int64, types.boolean))

        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            both = getattr(builder, operation)(*args)
            return context.make_tuple(builder, signature.return_type, (builder.extract_value(both, 0), builder.extract_value(both, 1)))

        return pair(types.int64, types.int64), generate

    return checked


_checked_add = _with_overflow("sadd_with_overflow")
_checked_subtract = _with_overflow("ssub_with_overflow")
_checked_multiply = _with_overflow("smul_with_overflow")


@njit(**INTERNAL)
def _bits(value):  # type: ignore[no-untyped-def]
    return _QUIET_NAN if math.isnan(value) else _raw_bits(value + 0.0)


@njit(**ALLOCATING)
def run_finish(codes, constants, words, valid, row_start, row_end):  # type: ignore[no-untyped-def]
    """Compute the outputs of rows `[row_start, row_end)` into their slots.

    codes, constants: `FinishProgram.arrays`.
    words: int64[slots, rows].  valid: uint8[slots, rows]; 0 NULL, 1 a value, 2 an error (a number out of range of its type).
    A slot written as 0 or 2 has word 0.  Cost: a few nanoseconds per instruction and row.
    """
    depth = constants[0]
    stack = np.empty(depth, np.int64)
    status = np.empty(depth, np.uint8)
    for row in range(row_start, row_end):
        top = 0  # how many are on the stack
        for at in range(codes.shape[0]):
            kind, operation, operand = codes[at, 0], codes[at, 1], codes[at, 2]
            if kind == op.SLOT:
                stack[top], status[top] = words[operand, row], valid[operand, row]
                top += 1
            elif kind == op.CONSTANT:
                stack[top], status[top] = constants[operand], _VALUE
                top += 1
            elif kind == op.BINARY:
                top -= 1
                left, right = status[top - 1], status[top]
                if left == _VALUE and right == _VALUE:
                    stack[top - 1], status[top - 1] = _binary(operation, stack[top - 1], stack[top])
                else:
                    stack[top - 1], status[top - 1] = 0, _ERROR if left == _ERROR or right == _ERROR else _NOTHING
            elif kind == op.UNARY:
                if status[top - 1] == _VALUE:
                    stack[top - 1], status[top - 1] = _unary(operation, operand, constants, stack[top - 1])
            elif kind == op.MANY:
                top -= operand - 1
                stack[top - 1], status[top - 1] = _many(operation, stack, status, top - 1, top - 1 + operand)
            elif kind == op.STORE:
                top -= 1
                words[operand, row], valid[operand, row] = stack[top] if status[top] == _VALUE else 0, status[top]
            elif kind == op.WIDE:
                stack[top], status[top] = _wide_to_double(words[operand, row], words[operand + 1, row], operation), valid[operand, row]
                top += 1
            else:
                stack[top], status[top] = 0, _NOTHING
                top += 1


@njit(**INTERNAL)
def _unary(operation, operand, constants, word):  # type: ignore[no-untyped-def]
    """(word, status) of a whole number or, from F_NEGATE on, a DOUBLE."""
    if operation >= op.F_NEGATE:
        return _double_unary(operation, operand, constants, _double(word))
    if operation == op.NEGATE or operation == op.ABSOLUTE:
        if word == _LEAST:
            return np.int64(0), _ERROR
        return (-word if operation == op.NEGATE or word < 0 else word), _VALUE
    if operation == op.NOT:
        return np.int64(1) - word, _VALUE
    if operation == op.TO_DOUBLE:
        return _bits(float(word)), _VALUE
    if operation == op.TO_BOOLEAN:
        return np.int64(word != 0), _VALUE
    if operation == op.DECIMAL_TO_DOUBLE:
        return _bits(_decimal_to_double(word, constants[operand])), _VALUE
    if operation == op.SCALE_UP:
        return _or_status(_NOTHING, _checked_multiply(word, constants[operand]))
    if operation == op.ROUND_DOWN_TO:
        return _divide_half_away(word, constants[operand]), _VALUE
    if operation == op.FLOOR_TO:
        return word // constants[operand], _VALUE  # numba's // floors, as Python's
    if operation == op.CEIL_TO:
        return -(-word // constants[operand]), _VALUE
    if operation == op.WITHIN:
        fits = -constants[operand] < word < constants[operand]
        return (word, _VALUE) if fits else (np.int64(0), _NOTHING)
    if operation == op.DATE_TO_TIMESTAMP:
        return _date_to_timestamp(word)
    return _epoch(operation, word)


@njit(**INTERNAL)
def _epoch(operation, micros):  # type: ignore[no-untyped-def]
    if micros == _MOST or micros == -_MOST:  # an infinite instant has no seconds
        return np.int64(0), _NOTHING
    if operation == op.EPOCH:
        return _bits(float(micros) / 1e6), _VALUE
    return (micros // 1000 if operation == op.EPOCH_MS else micros), _VALUE


@njit(**INTERNAL)
def _date_to_timestamp(days):  # type: ignore[no-untyped-def]
    if days == _INFINITE_DATE or days == -_INFINITE_DATE:
        return (_MOST if days > 0 else -_MOST), _VALUE
    if days > _LAST_DAY or days < -_LAST_DAY:
        return np.int64(0), _NOTHING
    return days * _DAY, _VALUE


@njit(**INTERNAL)
def _double_unary(operation, operand, constants, value):  # type: ignore[no-untyped-def]
    if operation == op.F_NEGATE:
        return _bits(-value), _VALUE
    if operation == op.F_ABSOLUTE:
        return _bits(abs(value)), _VALUE
    if operation == op.F_ROUND:
        return _bits(_round_to(value, operand)), _VALUE
    if operation == op.F_FLOOR:
        return _bits(np.floor(value)), _VALUE
    if operation == op.F_CEIL:
        return _bits(np.ceil(value)), _VALUE
    if operation == op.F_SQRT:
        return (np.int64(0), _NOTHING) if value < 0.0 else (_bits(math.sqrt(value)), _VALUE)
    if operation == op.F_LN:
        return (np.int64(0), _NOTHING) if value <= 0.0 else (_bits(math.log(value)), _VALUE)
    if operation == op.F_EXP:
        return _bits(math.exp(value)), _VALUE
    if operation == op.F_TO_BOOLEAN:
        return np.int64(value != 0.0), _VALUE
    if operation == op.F_SCALE:
        return _nearest(_half_away(value * float(constants[operand])))
    return _nearest(np.rint(value))


@njit(**INTERNAL)
def _nearest(whole):  # type: ignore[no-untyped-def]
    """A whole DOUBLE as BIGINT; NULL where it has none."""
    if not -_TWO_63 <= whole < _TWO_63:
        return np.int64(0), _NOTHING
    return np.int64(whole), _VALUE


@njit(**INTERNAL)
def _half_away(value):  # type: ignore[no-untyped-def]
    """C's round(): to the nearest whole number, halves away from zero."""
    whole = np.trunc(value)
    if abs(value - whole) >= 0.5:  # exact: both are within a factor of two, or whole is 0
        return whole + math.copysign(1.0, value)
    return whole


@njit(**INTERNAL)
def _round_to(value, digits):  # type: ignore[no-untyped-def]
    """Scale by a power of ten, round half away from zero, scale back; what has no such digits stays."""
    if digits == 0:
        rounded = _half_away(value)
    elif digits > 0:
        scale = _power_of_ten(digits)
        rounded = _half_away(value * scale) / scale
    else:
        scale = _power_of_ten(-digits)
        rounded = _half_away(value / scale) * scale
    return rounded if math.isfinite(rounded) else value


@njit(**INTERNAL)
def _power_of_ten(digits):  # type: ignore[no-untyped-def]
    power = 1.0
    for _ in range(digits):
        power *= 10.0  # exact to 10**22
    return power


@njit(**INTERNAL)
def _decimal_to_double(digits, scale):  # type: ignore[no-untyped-def]
    """One rounding to 2**53; beyond, the whole part and the fraction are rounded apart and added, as DuckDB does."""
    if scale == 1 or -_EXACT_IN_DOUBLE <= digits <= _EXACT_IN_DOUBLE:
        return float(digits) / float(scale)
    whole = _truncated(digits, scale)
    return float(whole) + float(digits - whole * scale) / float(scale)


@njit(**INTERNAL)
def _wide_to_double(low, high, scale):  # type: ignore[no-untyped-def]
    """A 128-bit DECIMAL; one that fits a word converts as a short one."""
    if high == low >> 63 and scale <= 18:
        power = np.int64(1)
        for _ in range(scale):
            power *= 10
        return _bits(_decimal_to_double(low, power))
    unsigned_low = float(low) if low >= 0 else float(low) + _TWO_64
    return _bits((float(high) * _TWO_64 + unsigned_low) / math.pow(10.0, float(scale)))


@njit(**INTERNAL)
def _divide_half_away(word, divisor):  # type: ignore[no-untyped-def]
    whole = abs(word) // divisor
    if abs(word) - whole * divisor >= divisor - divisor // 2:
        whole += 1
    return whole if word >= 0 else -whole


@njit(**INTERNAL)
def _or_status(status, checked):  # type: ignore[no-untyped-def]
    return (np.int64(0), status) if checked[1] else (checked[0], _VALUE)


@njit(**INTERNAL)
def _truncated(left, right):  # type: ignore[no-untyped-def]
    """Whole division towards zero; right is neither 0 nor, with the least BIGINT on the left, -1."""
    quotient = left // right
    if quotient < 0 and quotient * right != left:
        quotient += 1
    return quotient


@njit(**INTERNAL)
def _binary(operation, left, right):  # type: ignore[no-untyped-def]
    """(word, status) of two whole numbers or, from F_ADD on, two DOUBLEs."""
    if operation >= op.F_ADD:
        return _double_binary(operation, _double(left), _double(right))
    if operation == op.ADD:
        return _or_status(_ERROR, _checked_add(left, right))
    if operation == op.SUBTRACT:
        return _or_status(_ERROR, _checked_subtract(left, right))
    if operation == op.MULTIPLY:
        return _or_status(_ERROR, _checked_multiply(left, right))
    if operation == op.DIVIDE or operation == op.REMAINDER:
        return _whole_division(operation, left, right)
    return np.int64(_compare(operation, (left > right) - (left < right))), _VALUE


@njit(**INTERNAL)
def _whole_division(operation, left, right):  # type: ignore[no-untyped-def]
    if right == 0:
        return np.int64(0), _NOTHING
    if right == -1:
        if operation == op.REMAINDER:
            return np.int64(0), _VALUE
        return (np.int64(0), _ERROR) if left == _LEAST else (-left, _VALUE)
    quotient = _truncated(left, right)
    return (quotient if operation == op.DIVIDE else left - quotient * right), _VALUE


@njit(**INTERNAL)
def _double_binary(operation, left, right):  # type: ignore[no-untyped-def]
    if operation == op.F_ADD:
        return _bits(left + right), _VALUE
    if operation == op.F_SUBTRACT:
        return _bits(left - right), _VALUE
    if operation == op.F_MULTIPLY:
        return _bits(left * right), _VALUE
    if operation == op.F_POWER:
        return _bits(math.pow(left, right)), _VALUE
    if operation == op.F_DIVIDE or operation == op.F_WHOLE_DIVIDE or operation == op.F_REMAINDER:
        if right == 0.0:
            return np.int64(0), _NOTHING
        if operation == op.F_REMAINDER:
            return _bits(np.fmod(left, right)), _VALUE
        return _bits(left / right if operation == op.F_DIVIDE else np.trunc(left / right)), _VALUE
    return np.int64(_compare(operation - op.F_ADD, _order(left, right))), _VALUE


@njit(**INTERNAL)
def _order(left, right):  # type: ignore[no-untyped-def]
    """-1, 0 or 1; NaN equals itself and is above every number."""
    if math.isnan(left) or math.isnan(right):
        return int(math.isnan(left)) - int(math.isnan(right))
    return int(left > right) - int(left < right)


@njit(**INTERNAL)
def _compare(operation, order):  # type: ignore[no-untyped-def]
    if operation == op.EQUAL:
        return order == 0
    if operation == op.UNEQUAL:
        return order != 0
    if operation == op.LESS:
        return order < 0
    if operation == op.LESS_EQUAL:
        return order <= 0
    if operation == op.GREATER:
        return order > 0
    return order >= 0


@njit(**INTERNAL)
def _many(operation, stack, status, start, end):  # type: ignore[no-untyped-def]
    """(word, status) from the values in `[start, end)` of the stack."""
    if operation == op.CASE:
        return _case(stack, status, start, end)
    if operation == op.COALESCE:
        for at in range(start, end):
            if status[at] != _NOTHING:
                return stack[at], status[at]
        return np.int64(0), _NOTHING
    for at in range(start, end):  # the rest are strict in errors
        if status[at] == _ERROR:
            return np.int64(0), _ERROR
    if operation == op.IS_NULL:
        return np.int64(status[start] == _NOTHING), _VALUE
    if operation == op.AND or operation == op.OR:
        return _logic(np.int64(operation == op.OR), stack, status, start, end)
    if operation == op.IN or operation == op.F_IN:
        return _within(operation == op.F_IN, stack, status, start, end)
    if operation == op.NULLIF or operation == op.F_NULLIF:
        doubles = operation == op.F_NULLIF
        if status[start] == _VALUE and status[start + 1] == _VALUE and _order_of(doubles, stack[start], stack[start + 1]) == 0:
            return np.int64(0), _NOTHING
        return stack[start], status[start]
    doubles = operation == op.F_LEAST or operation == op.F_GREATEST
    sign = -1 if operation == op.LEAST or operation == op.F_LEAST else 1
    return _extreme(sign, doubles, stack, status, start, end)


@njit(**INTERNAL)
def _case(stack, status, start, end):  # type: ignore[no-untyped-def]
    """condition, value, ..., otherwise: the first TRUE, or an error met on the way."""
    for at in range(start, end - 1, 2):
        if status[at] == _ERROR:
            return np.int64(0), _ERROR
        if status[at] == _VALUE and stack[at] != 0:
            return stack[at + 1], status[at + 1]
    return stack[end - 1], status[end - 1]


@njit(**INTERNAL)
def _logic(decisive, stack, status, start, end):  # type: ignore[no-untyped-def]
    """Three-valued AND (decided by 0) and OR (decided by 1)."""
    known = True
    for at in range(start, end):
        if status[at] == _NOTHING:
            known = False
        elif stack[at] == decisive:
            return decisive, _VALUE
    return (np.int64(1) - decisive, _VALUE) if known else (np.int64(0), _NOTHING)


@njit(**INTERNAL)
def _within(doubles, stack, status, start, end):  # type: ignore[no-untyped-def]
    if status[start] == _NOTHING:
        return np.int64(0), _NOTHING
    known = True
    for at in range(start + 1, end):
        if status[at] == _NOTHING:
            known = False
        elif _order_of(doubles, stack[start], stack[at]) == 0:
            return np.int64(1), _VALUE
    return np.int64(0), (_VALUE if known else _NOTHING)


@njit(**INTERNAL)
def _extreme(sign, doubles, stack, status, start, end):  # type: ignore[no-untyped-def]
    """least (sign -1) or greatest (1) of those that are not NULL."""
    best = -1
    for at in range(start, end):
        if status[at] == _VALUE and (best < 0 or _order_of(doubles, stack[at], stack[best]) == sign):
            best = at
    return (stack[best], _VALUE) if best >= 0 else (np.int64(0), _NOTHING)


@njit(**INTERNAL)
def _order_of(doubles, left, right):  # type: ignore[no-untyped-def]
    return _order(_double(left), _double(right)) if doubles else int(left > right) - int(left < right)
