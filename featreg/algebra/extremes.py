"""Keep the smallest and the largest of values that are one ordered word: numbers, booleans, dates, instants.

The partial is three words, (count, low, high); beside a sum, which counts itself, it is
the last two.  Doubles come in as words in their order (`featreg.sweep.words`), so one
comparison of integers serves every type.  The largest event time of all rows tells
whether a trailing window has a row at all.
"""

import numpy as np
from numba import njit

from featreg.algebra.flags import INTERNAL
from featreg.algebra.frame import Kernel, bundles
from featreg.algebra.pools import plain_word
from featreg.algebra.schedule import (
    AS_COUNT,
    AS_LOWEST,
    AS_PRESENCE,
    NULL,
    OUTPUT_COLUMN,
    OUTPUT_DOUBLE,
    OUTPUT_FINAL,
    SLOT_INPUT,
    VALUE,
)

EXTREME_WORDS = 3
_LARGEST, _SMALLEST = np.int64((1 << 63) - 1), np.int64(-(1 << 63))
WHERE_VALID = np.bool_(False)


@njit(**INTERNAL)
def begin_extremes(records, at):
    records[at], records[at + 1] = _LARGEST, _SMALLEST


@njit(**INTERNAL)
def fold_extremes(records, at, values, valid, everywhere, row, end):
    """Bring in the values of rows, those that are valid or all; returns how many."""
    low, high, count = records[at], records[at + 1], np.int64(0)
    for i in range(row, end):
        if everywhere or valid[i]:
            low, high = min(low, values[i]), max(high, values[i])
            count += 1
    records[at], records[at + 1] = low, high
    return count


@njit(**INTERNAL)
def merge_extremes(records, into, other):
    records[into], records[into + 1] = min(records[into], records[other]), max(records[into + 1], records[other + 1])


@njit(**INTERNAL)
def give_extreme(program, state, o, row, at, seen):
    """Write the smallest or the largest of `seen` values, as the output says."""
    word = state.records[at if program.outputs[o, OUTPUT_FINAL] == AS_LOWEST else at + 1]
    out = program.outputs[o, OUTPUT_COLUMN]
    state.out_words[out, row] = plain_word(word, program.outputs[o, OUTPUT_DOUBLE]) if seen else 0
    state.out_valid[out, row] = VALUE if seen else NULL


@Kernel
def run_extremes(slot: int, op: int, n_ops: int, frame: int) -> int:
    """Walk the schedule for one min, max, any, all or presence slot; input -1 is the event time."""
    program, chunk, state = bundles(frame)
    ops, records, base, column = state.ops, state.records, state.slot_base[slot], program.slots[slot, SLOT_INPUT]
    values, valid = chunk.event_time if column < 0 else chunk.inputs[column], chunk.valid[max(column, 0)]
    while op < n_ops:
        word = ops[op]
        if word & 1 == 0:
            at = base + EXTREME_WORDS * ((word >> 2) & 0x7FFFFFFF)
            if word & 2:
                records[at] = 0
                begin_extremes(records, at + 1)
            records[at] += fold_extremes(records, at + 1, values, valid, column < 0, word >> 33, ops[op + 1])
            op += 2
        elif word & 2:
            at, other = base + EXTREME_WORDS * ((word >> 3) & 0x3FFFFFFF), base + EXTREME_WORDS * (word >> 33)
            if word & 4:
                records[at] = 0
                begin_extremes(records, at + 1)
            records[at] += records[other]
            merge_extremes(records, at + 1, other + 1)
            op += 1
        else:
            n = word >> 33
            window = (word >> 2) & 0x7FFFFFFF
            first, count = program.routes[slot, window, 0], program.routes[slot, window, 1]
            if count > 0:
                row, seen = ops[op + 1], np.int64(0)
                begin_extremes(records, base + 1)
                for i in range(op + 3, op + 3 + n):
                    other = base + EXTREME_WORDS * ops[i]
                    seen += records[other]
                    merge_extremes(records, base + 1, other + 1)
                for o in range(first, first + count):
                    final = program.outputs[o, OUTPUT_FINAL]
                    if final == AS_COUNT:
                        state.out_words[program.outputs[o, OUTPUT_COLUMN], row] = seen
                        state.out_valid[program.outputs[o, OUTPUT_COLUMN], row] = VALUE
                    elif final == AS_PRESENCE:
                        give_extreme(program, state, o, row, base + 1, seen > 0 and records[base + 2] >= ops[op + 2])
                    else:
                        give_extreme(program, state, o, row, base + 1, seen > 0)
            op += 3 + n
    return op
