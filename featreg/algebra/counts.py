"""Count rows: the partial is one word."""

import numpy as np
from numba import njit

from featreg.algebra.flags import INTERNAL
from featreg.algebra.schedule import OUTPUT_COLUMN, SLOT_INPUT, VALUE


@njit(**INTERNAL)
def fold_count(records, at, one):
    records[at] += one


@njit(**INTERNAL)
def merge_count(records, into, other):
    records[into] += records[other]


@njit(**INTERNAL)
def run_counts(slot, op, n_ops, program, chunk, state):
    """Walk the schedule for one count slot: rows where its input is not NULL, or all rows without an input."""
    ops, records, base = state.ops, state.records, state.slot_base[slot]
    column = program.slots[slot, SLOT_INPUT]
    while op < n_ops:
        word = ops[op]
        if word & 1 == 0:
            at = base + ((word >> 2) & 0x7FFFFFFF)
            if word & 2:
                records[at] = 0
            fold_count(records, at, np.int64(1) if column < 0 else np.int64(chunk.valid[column, word >> 33]))
            op += 1
        elif word & 2:
            at = base + ((word >> 3) & 0x3FFFFFFF)
            if word & 4:
                records[at] = 0
            merge_count(records, at, base + (word >> 33))
            op += 1
        else:
            n = word >> 33
            window = (word >> 2) & 0x7FFFFFFF
            first, count = program.routes[slot, window, 0], program.routes[slot, window, 1]
            if count > 0:
                records[base] = 0
                for i in range(op + 3, op + 3 + n):
                    merge_count(records, base, base + ops[i])
                row = ops[op + 1]
                for o in range(first, first + count):
                    state.out_words[program.outputs[o, OUTPUT_COLUMN], row] = records[base]
                    state.out_valid[program.outputs[o, OUTPUT_COLUMN], row] = VALUE
            op += 3 + n
    return op
