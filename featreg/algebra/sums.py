"""Add numbers exactly and round once: sum and avg, and the count beside them.

The arithmetic is in `exact`; here the schedule is walked.
"""

import numpy as np
from numba import njit

from featreg.algebra.exact import (
    ISUM_WORDS,
    SUM_WIDE_WORDS,
    SUM_WORDS,
    isum_fold,
    isum_init,
    isum_merge,
    isum_to_double,
    isum_to_i64,
    isum_to_i128,
    sum_final,
    sum_fold,
    sum_init,
    sum_merge,
)
from featreg.algebra.flags import INTERNAL
from featreg.algebra.pools import one_nan, plain_word, put_wide, short_of
from featreg.algebra.schedule import (
    AS_AVG,
    AS_COUNT,
    AS_WIDE_SUM,
    NULL,
    OUTPUT_COLUMN,
    OUTPUT_FINAL,
    OUTPUT_SCALE,
    OVERFLOW,
    SLOT_INPUT,
    TOP_HEAP,
    TOP_OUT_TEXT,
    VALUE,
)


@njit(**INTERNAL)
def run_sums(slot, op, n_ops, program, chunk, state):
    """Walk the schedule for one slot that sums doubles; stops early when the heap lacks room for wide accumulators."""
    ops, records, base, heap, tops = state.ops, state.records, state.slot_base[slot], state.heap, state.tops
    floats, column = records.view(np.float64), program.slots[slot, SLOT_INPUT]
    scratch, bits, double = state.scratch, state.word, state.word.view(np.float64)
    while op < n_ops:
        word = ops[op]
        if short_of(tops, TOP_HEAP, heap.shape[0], 2 * SUM_WIDE_WORDS):
            return op
        if word & 1 == 0:
            row = word >> 33
            at = base + SUM_WORDS * ((word >> 2) & 0x7FFFFFFF)
            if word & 2:
                sum_init(records, floats, at)
            if chunk.valid[column, row]:
                bits[0] = plain_word(chunk.inputs[column, row], True)
                sum_fold(records, floats, at, double[0], heap, tops)
            op += 1
        elif word & 2:
            at = base + SUM_WORDS * ((word >> 3) & 0x3FFFFFFF)
            if word & 4:
                sum_init(records, floats, at)
            sum_merge(records, floats, at, records, floats, base + SUM_WORDS * (word >> 33), heap, tops, heap)
            op += 1
        else:
            n = word >> 33
            window = (word >> 2) & 0x7FFFFFFF
            first, count = program.routes[slot, window, 0], program.routes[slot, window, 1]
            if count > 0:
                at, top = base, tops[TOP_HEAP]
                if n == 1:
                    at = base + SUM_WORDS * ops[op + 3]
                else:
                    sum_init(records, floats, at)
                    for i in range(op + 3, op + 3 + n):
                        sum_merge(records, floats, at, records, floats, base + SUM_WORDS * ops[i], heap, tops, heap)
                row, seen = ops[op + 1], records[at]
                total = sum_final(records, floats, at, heap, scratch) if seen > 0 else 0.0
                for o in range(first, first + count):
                    out, final = program.outputs[o, OUTPUT_COLUMN], program.outputs[o, OUTPUT_FINAL]
                    state.out_valid[out, row] = VALUE if seen > 0 or final == AS_COUNT else NULL
                    if final == AS_COUNT:
                        state.out_words[out, row] = seen
                    else:
                        double[0] = (total / seen if final == AS_AVG and seen > 0 else total) + 0.0  # no -0.0
                        state.out_words[out, row] = one_nan(bits[0])
                tops[TOP_HEAP] = top
            op += 3 + n
    return op


@njit(**INTERNAL)
def run_integer_sums(slot, op, n_ops, program, chunk, state):
    """Walk the schedule for one slot that sums BIGINT or DECIMAL of up to 18 digits in 128 bits."""
    ops, records, base, tops = state.ops, state.records, state.slot_base[slot], state.tops
    floats, column = records.view(np.float64), program.slots[slot, SLOT_INPUT]
    scratch, bits, double = state.scratch, state.word, state.word.view(np.float64)
    while op < n_ops:
        word = ops[op]
        if word & 1 == 0:
            row = word >> 33
            at = base + ISUM_WORDS * ((word >> 2) & 0x7FFFFFFF)
            if word & 2:
                isum_init(records, floats, at)
            if chunk.valid[column, row]:
                isum_fold(records, floats, at, chunk.inputs[column, row])
            op += 1
        elif word & 2:
            at = base + ISUM_WORDS * ((word >> 3) & 0x3FFFFFFF)
            if word & 4:
                isum_init(records, floats, at)
            isum_merge(records, floats, at, records, floats, base + ISUM_WORDS * (word >> 33))
            op += 1
        else:
            n = word >> 33
            window = (word >> 2) & 0x7FFFFFFF
            first, count = program.routes[slot, window, 0], program.routes[slot, window, 1]
            if count > 0:
                if short_of(tops, TOP_OUT_TEXT, state.out_text.shape[0], 16 * count):
                    return op
                isum_init(records, floats, base)
                for i in range(op + 3, op + 3 + n):
                    isum_merge(records, floats, base, records, floats, base + ISUM_WORDS * ops[i])
                row, seen = ops[op + 1], records[base]
                for o in range(first, first + count):
                    out, final = program.outputs[o, OUTPUT_COLUMN], program.outputs[o, OUTPUT_FINAL]
                    state.out_words[out, row] = 0
                    if final == AS_COUNT:
                        state.out_words[out, row], state.out_valid[out, row] = seen, VALUE
                    elif seen == 0:
                        state.out_valid[out, row] = NULL
                    elif final == AS_AVG:
                        double[0] = isum_to_double(records, base, program.outputs[o, OUTPUT_SCALE], scratch) / seen + 0.0
                        state.out_words[out, row], state.out_valid[out, row] = bits[0], VALUE
                    elif final == AS_WIDE_SUM:
                        low, high, fits = isum_to_i128(records, base)
                        put_wide(state, out, row, low, high)
                        state.out_valid[out, row] = VALUE if fits else OVERFLOW
                    else:
                        total, fits = isum_to_i64(records, base)
                        state.out_words[out, row], state.out_valid[out, row] = total, VALUE if fits else OVERFLOW
            op += 3 + n
    return op
