"""Keep the smallest or largest of values that are one ordered word: numbers, booleans, dates, instants.

The partial is two words, (seen, value).  Doubles come in as words in their order
(`featreg.sweep.words`), so one comparison of integers serves every type.  MODE is 1
for the largest and -1 for the smallest; the largest event time of all rows tells
whether a trailing window has a row at all.
"""

from numba import njit

from featreg.algebra.flags import INTERNAL
from featreg.algebra.pools import plain_word
from featreg.algebra.schedule import (
    AS_PRESENCE,
    NULL,
    OUTPUT_COLUMN,
    OUTPUT_DOUBLE,
    OUTPUT_FINAL,
    SCRATCH,
    SLOT_INPUT,
    SLOT_MODE,
    VALUE,
)


@njit(**INTERNAL)
def fold_extreme(records, at, mode, value):
    if records[at] == 0 or ((value > records[at + 1]) == (mode > 0) and value != records[at + 1]):
        records[at] = 1
        records[at + 1] = value


@njit(**INTERNAL)
def merge_extreme(records, into, mode, other):
    if records[other] != 0:
        fold_extreme(records, into, mode, records[other + 1])


@njit(**INTERNAL)
def run_extremes(slot, op, n_ops, program, chunk, state):
    """Walk the schedule for one min, max, any, all or presence slot; input -1 is the event time."""
    ops, records, base = state.ops, state.records, state.slot_base[slot]
    column, mode = program.slots[slot, SLOT_INPUT], program.slots[slot, SLOT_MODE]
    while op < n_ops:
        word = ops[op]
        if word & 1 == 0:
            row = word >> 33
            at = base + 2 * ((word >> 2) & 0x7FFFFFFF)
            if word & 2:
                records[at] = 0
            if column < 0:
                fold_extreme(records, at, mode, chunk.event_time[row])
            elif chunk.valid[column, row]:
                fold_extreme(records, at, mode, chunk.inputs[column, row])
            op += 1
        elif word & 2:
            at = base + 2 * ((word >> 3) & 0x3FFFFFFF)
            if word & 4:
                records[at] = 0
            merge_extreme(records, at, mode, base + 2 * (word >> 33))
            op += 1
        else:
            n = word >> 33
            window = (word >> 2) & 0x7FFFFFFF
            first, count = program.routes[slot, window, 0], program.routes[slot, window, 1]
            if count > 0:
                at = base + 2 * SCRATCH
                records[at] = 0
                for i in range(op + 3, op + 3 + n):
                    merge_extreme(records, at, mode, base + 2 * ops[i])
                row = ops[op + 1]
                for o in range(first, first + count):
                    out = program.outputs[o, OUTPUT_COLUMN]
                    seen = records[at] != 0
                    if program.outputs[o, OUTPUT_FINAL] == AS_PRESENCE:
                        seen = seen and records[at + 1] >= ops[op + 2]
                    state.out_words[out, row] = plain_word(records[at + 1], program.outputs[o, OUTPUT_DOUBLE]) if seen else 0
                    state.out_valid[out, row] = VALUE if seen else NULL
            op += 3 + n
    return op
