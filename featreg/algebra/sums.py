"""Add numbers exactly and round once: sum and avg, with the count and, in MODE 1, the extremes of the same values.

The arithmetic is in `exact`; here the schedule is walked.  A partial is the sum's
words, then the smallest and the largest value where they are asked for.
"""

import numpy as np
from numba import njit

from featreg.algebra.bigdigits import keep_inside
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
    sum_fold_rows,
    sum_init,
    sum_merge,
)
from featreg.algebra.extremes import WHERE_VALID, begin_extremes, fold_extremes, give_extreme, merge_extremes
from featreg.algebra.flags import INTERNAL
from featreg.algebra.frame import Kernel, bundles
from featreg.algebra.pools import one_nan, put_wide, short_of, word_of
from featreg.algebra.schedule import (
    AS_AVG,
    AS_COUNT,
    AS_HIGHEST,
    AS_LOWEST,
    AS_WIDE_SUM,
    NULL,
    OUTPUT_COLUMN,
    OUTPUT_FINAL,
    OUTPUT_SCALE,
    OVERFLOW,
    SLOT_INPUT,
    SLOT_MODE,
    SLOT_WIDTH,
    TOP_HEAP,
    TOP_OUT_TEXT,
    VALUE,
)


@Kernel
def run_sums(slot: int, op: int, n_ops: int, frame: int) -> int:
    """Walk the schedule for one slot that sums doubles; stops early when the heap lacks room for wide accumulators."""
    program, chunk, state = bundles(frame)
    ops, records, base, heap, tops = state.ops, state.records, state.slot_base[slot], state.heap, state.tops
    floats, width, extremes = records.view(np.float64), program.slots[slot, SLOT_WIDTH], program.slots[slot, SLOT_MODE] > 0
    values, valid = chunk.inputs[program.slots[slot, SLOT_INPUT]], chunk.valid[program.slots[slot, SLOT_INPUT]]
    while op < n_ops:
        word = ops[op]
        if short_of(tops, TOP_HEAP, heap.shape[0], 2 * SUM_WIDE_WORDS):
            return op
        if word & 1 == 0:
            row, end = word >> 33, ops[op + 1]
            at = base + width * ((word >> 2) & 0x7FFFFFFF)
            if word & 2:
                _begin(records, floats, at, extremes)
            sum_fold_rows(records, floats, at, values, valid, row, end, heap, tops)
            if extremes:
                fold_extremes(records, at + SUM_WORDS, values, valid, WHERE_VALID, row, end)
            op += 2
        elif word & 2:
            at = base + width * ((word >> 3) & 0x3FFFFFFF)
            if word & 4:
                _begin(records, floats, at, extremes)
            _merge(records, floats, at, base + width * (word >> 33), heap, tops, extremes)
            op += 1
        else:
            n = word >> 33
            window = (word >> 2) & 0x7FFFFFFF
            first, count = program.routes[slot, window, 0], program.routes[slot, window, 1]
            if count > 0:
                at, top = base, tops[TOP_HEAP]
                if n == 1:
                    at = base + width * ops[op + 3]
                else:
                    _begin(records, floats, at, extremes)
                    for i in range(op + 3, op + 3 + n):
                        _merge(records, floats, at, base + width * ops[i], heap, tops, extremes)
                row, seen = ops[op + 1], records[at]
                total = sum_final(records, floats, at, heap, state.scratch) if seen > 0 else 0.0
                for o in range(first, first + count):
                    out, final = program.outputs[o, OUTPUT_COLUMN], program.outputs[o, OUTPUT_FINAL]
                    if final == AS_LOWEST or final == AS_HIGHEST:
                        give_extreme(program, state, o, row, at + SUM_WORDS, seen > 0)
                        continue
                    state.out_valid[out, row] = VALUE if seen > 0 or final == AS_COUNT else NULL
                    if final == AS_COUNT:
                        state.out_words[out, row] = seen
                    else:
                        value = (total / seen if final == AS_AVG and seen > 0 else total) + 0.0  # no -0.0
                        state.out_words[out, row] = one_nan(word_of(value))
                tops[TOP_HEAP] = top
            op += 3 + n
    return op


@njit(**INTERNAL)
def _begin(records, floats, at, extremes):
    sum_init(records, floats, at)
    if extremes:
        begin_extremes(records, at + SUM_WORDS)


@njit(**INTERNAL)
def _merge(records, floats, into, other, heap, tops, extremes):
    keep_inside()
    sum_merge(records, floats, into, records, floats, other, heap, tops, heap)
    if extremes:
        merge_extremes(records, into + SUM_WORDS, other + SUM_WORDS)


@Kernel
def run_integer_sums(slot: int, op: int, n_ops: int, frame: int) -> int:
    """Walk the schedule for one slot that sums BIGINT or DECIMAL of up to 18 digits in 128 bits."""
    program, chunk, state = bundles(frame)
    ops, records, base, tops = state.ops, state.records, state.slot_base[slot], state.tops
    floats, width, extremes = records.view(np.float64), program.slots[slot, SLOT_WIDTH], program.slots[slot, SLOT_MODE] > 0
    values, valid = chunk.inputs[program.slots[slot, SLOT_INPUT]], chunk.valid[program.slots[slot, SLOT_INPUT]]
    while op < n_ops:
        word = ops[op]
        if word & 1 == 0:
            row, end = word >> 33, ops[op + 1]
            at = base + width * ((word >> 2) & 0x7FFFFFFF)
            if word & 2:
                _begin_integers(records, floats, at, extremes)
            for i in range(row, end):
                if valid[i]:
                    isum_fold(records, floats, at, values[i])
            if extremes:
                fold_extremes(records, at + ISUM_WORDS, values, valid, WHERE_VALID, row, end)
            op += 2
        elif word & 2:
            at = base + width * ((word >> 3) & 0x3FFFFFFF)
            if word & 4:
                _begin_integers(records, floats, at, extremes)
            _merge_integers(records, floats, at, base + width * (word >> 33), extremes)
            op += 1
        else:
            n = word >> 33
            window = (word >> 2) & 0x7FFFFFFF
            first, count = program.routes[slot, window, 0], program.routes[slot, window, 1]
            if count > 0:
                if short_of(tops, TOP_OUT_TEXT, state.out_text.shape[0], 16 * count):
                    return op
                _begin_integers(records, floats, base, extremes)
                for i in range(op + 3, op + 3 + n):
                    _merge_integers(records, floats, base, base + width * ops[i], extremes)
                row, seen = ops[op + 1], records[base]
                for o in range(first, first + count):
                    out, final = program.outputs[o, OUTPUT_COLUMN], program.outputs[o, OUTPUT_FINAL]
                    state.out_words[out, row] = 0
                    if final == AS_COUNT:
                        state.out_words[out, row], state.out_valid[out, row] = seen, VALUE
                    elif seen == 0:
                        state.out_valid[out, row] = NULL
                    elif final == AS_LOWEST or final == AS_HIGHEST:
                        give_extreme(program, state, o, row, base + ISUM_WORDS, seen > 0)
                    elif final == AS_AVG:
                        mean = isum_to_double(records, base, program.outputs[o, OUTPUT_SCALE], state.scratch) / seen + 0.0
                        state.out_words[out, row], state.out_valid[out, row] = word_of(mean), VALUE
                    elif final == AS_WIDE_SUM:
                        low, high, fits = isum_to_i128(records, base)
                        put_wide(state, out, row, low, high)
                        state.out_valid[out, row] = VALUE if fits else OVERFLOW
                    else:
                        total, fits = isum_to_i64(records, base)
                        state.out_words[out, row], state.out_valid[out, row] = total, VALUE if fits else OVERFLOW
            op += 3 + n
    return op


@njit(**INTERNAL)
def _begin_integers(records, floats, at, extremes):
    isum_init(records, floats, at)
    if extremes:
        begin_extremes(records, at + ISUM_WORDS)


@njit(**INTERNAL)
def _merge_integers(records, floats, into, other, extremes):
    isum_merge(records, floats, into, records, floats, other)
    if extremes:
        merge_extremes(records, into + ISUM_WORDS, other + ISUM_WORDS)
