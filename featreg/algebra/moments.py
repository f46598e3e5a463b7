"""Variance from exact sums of values and squares; and sums of decimals too wide for 128 bits.

The arithmetic is in `exact`; here the schedule is walked.
"""

import numpy as np

from featreg.algebra.exact import (
    DMOMENTS_WORDS,
    MOMENTS_WIDE_WORDS,
    MOMENTS_WORDS,
    dmoments_final,
    dmoments_fold,
    dmoments_init,
    dmoments_merge,
    dsum_to_double,
    dsum_to_i128,
    moments_final,
    moments_fold,
    moments_init,
    moments_merge,
)
from featreg.algebra.frame import Kernel, bundles
from featreg.algebra.pools import double_of, eight_bytes, one_nan, plain_word, put_wide, short_of, word_of
from featreg.algebra.schedule import (
    AS_AVG,
    AS_COUNT,
    AS_STDDEV,
    AS_VAR,
    LENGTH_BITS,
    NULL,
    OUTPUT_COLUMN,
    OUTPUT_FINAL,
    OUTPUT_SCALE,
    OVERFLOW,
    SLOT_BYTES,
    SLOT_INPUT,
    TOP_HEAP,
    TOP_OUT_TEXT,
    VALUE,
)


@Kernel
def run_moments(slot: int, op: int, n_ops: int, frame: int) -> int:
    """Walk the schedule for one var or stddev slot over doubles; stops early when the heap lacks room."""
    program, chunk, state = bundles(frame)
    ops, records, base, heap, tops = state.ops, state.records, state.slot_base[slot], state.heap, state.tops
    floats, column = records.view(np.float64), program.slots[slot, SLOT_INPUT]
    scratch = state.scratch
    while op < n_ops:
        word = ops[op]
        if short_of(tops, TOP_HEAP, heap.shape[0], 2 * MOMENTS_WIDE_WORDS):
            return op
        if word & 1 == 0:
            at = base + MOMENTS_WORDS * ((word >> 2) & 0x7FFFFFFF)
            if word & 2:
                moments_init(records, floats, at)
            for row in range(word >> 33, ops[op + 1]):
                if chunk.valid[column, row]:
                    moments_fold(records, floats, at, double_of(plain_word(chunk.inputs[column, row], True)), heap, tops)
            op += 2
        elif word & 2:
            at = base + MOMENTS_WORDS * ((word >> 3) & 0x3FFFFFFF)
            if word & 4:
                moments_init(records, floats, at)
            moments_merge(records, floats, at, records, floats, base + MOMENTS_WORDS * (word >> 33), heap, tops, heap)
            op += 1
        else:
            n = word >> 33
            window = (word >> 2) & 0x7FFFFFFF
            first, count = program.routes[slot, window, 0], program.routes[slot, window, 1]
            if count > 0:
                at, top = base, tops[TOP_HEAP]
                if n == 1:
                    at = base + MOMENTS_WORDS * ops[op + 3]
                else:
                    moments_init(records, floats, at)
                    for i in range(op + 3, op + 3 + n):
                        moments_merge(records, floats, at, records, floats, base + MOMENTS_WORDS * ops[i], heap, tops, heap)
                variance, there = moments_final(records, floats, at, heap, scratch)
                for o in range(first, first + count):
                    out = program.outputs[o, OUTPUT_COLUMN]
                    value = np.sqrt(variance) if program.outputs[o, OUTPUT_FINAL] == AS_STDDEV else variance
                    state.out_words[out, ops[op + 1]] = one_nan(word_of(value)) if there else 0
                    state.out_valid[out, ops[op + 1]] = VALUE if there else NULL
                tops[TOP_HEAP] = top
            op += 3 + n
    return op


@Kernel
def run_wide_moments(slot: int, op: int, n_ops: int, frame: int) -> int:
    """Walk the schedule for one slot of integer digits: var and stddev of BIGINT and DECIMAL, sum and avg of wide DECIMAL."""
    program, chunk, state = bundles(frame)
    ops, records, base, tops = state.ops, state.records, state.slot_base[slot], state.tops
    floats, column, is_text = records.view(np.float64), program.slots[slot, SLOT_INPUT], program.slots[slot, SLOT_BYTES] > 0
    scratch = state.scratch
    while op < n_ops:
        word = ops[op]
        if word & 1 == 0:
            at = base + DMOMENTS_WORDS * ((word >> 2) & 0x7FFFFFFF)
            if word & 2:
                dmoments_init(records, floats, at)
            for row in range(word >> 33, ops[op + 1]):
                if chunk.valid[column, row]:
                    low = chunk.inputs[column, row]
                    high = low >> 63
                    if is_text:
                        place = low >> LENGTH_BITS
                        high = np.int64(eight_bytes(chunk.text, place)) ^ np.int64(-0x8000000000000000)
                        low = np.int64(eight_bytes(chunk.text, place + 8))
                    dmoments_fold(records, floats, at, low, high)
            op += 2
        elif word & 2:
            at = base + DMOMENTS_WORDS * ((word >> 3) & 0x3FFFFFFF)
            if word & 4:
                dmoments_init(records, floats, at)
            dmoments_merge(records, floats, at, records, floats, base + DMOMENTS_WORDS * (word >> 33))
            op += 1
        else:
            n = word >> 33
            window = (word >> 2) & 0x7FFFFFFF
            first, count = program.routes[slot, window, 0], program.routes[slot, window, 1]
            if count > 0:
                if short_of(tops, TOP_OUT_TEXT, state.out_text.shape[0], 16 * count):
                    return op
                dmoments_init(records, floats, base)
                for i in range(op + 3, op + 3 + n):
                    dmoments_merge(records, floats, base, records, floats, base + DMOMENTS_WORDS * ops[i])
                row, seen = ops[op + 1], records[base]
                for o in range(first, first + count):
                    out, final, scale = (
                        program.outputs[o, OUTPUT_COLUMN],
                        program.outputs[o, OUTPUT_FINAL],
                        program.outputs[o, OUTPUT_SCALE],
                    )
                    state.out_words[out, row], state.out_valid[out, row] = 0, VALUE if seen > 0 else NULL
                    if final == AS_COUNT:
                        state.out_words[out, row], state.out_valid[out, row] = seen, VALUE
                    elif final == AS_VAR or final == AS_STDDEV:
                        variance, there = dmoments_final(records, base, scale, scratch)
                        value = np.sqrt(variance) if final == AS_STDDEV else variance
                        state.out_words[out, row] = word_of(value) if there else 0
                        state.out_valid[out, row] = VALUE if there else NULL
                    elif seen > 0 and final == AS_AVG:
                        state.out_words[out, row] = word_of(dsum_to_double(records, base, scale, scratch) / seen + 0.0)
                    elif seen > 0:
                        low, high, fits = dsum_to_i128(records, base, scratch)
                        put_wide(state, out, row, low, high)
                        state.out_valid[out, row] = VALUE if fits else OVERFLOW
            op += 3 + n
    return op
