"""Count rows: the partial is one word."""

from featreg.algebra.frame import Kernel, bundles
from featreg.algebra.schedule import OUTPUT_COLUMN, SLOT_INPUT, VALUE


@Kernel
def run_counts(slot: int, op: int, n_ops: int, frame: int) -> int:
    """Walk the schedule for one count slot: rows where its input is not NULL, or all rows without an input."""
    program, chunk, state = bundles(frame)
    ops, records, base = state.ops, state.records, state.slot_base[slot]
    column = program.slots[slot, SLOT_INPUT]
    while op < n_ops:
        word = ops[op]
        if word & 1 == 0:
            at = base + ((word >> 2) & 0x7FFFFFFF)
            if word & 2:
                records[at] = 0
            row, end = word >> 33, ops[op + 1]
            if column < 0:
                records[at] += end - row
            else:
                for i in range(row, end):
                    records[at] += chunk.valid[column, i]
            op += 2
        elif word & 2:
            at = base + ((word >> 3) & 0x3FFFFFFF)
            if word & 4:
                records[at] = 0
            records[at] += records[base + (word >> 33)]
            op += 1
        else:
            n = word >> 33
            window = (word >> 2) & 0x7FFFFFFF
            first, count = program.routes[slot, window, 0], program.routes[slot, window, 1]
            if count > 0:
                row, seen = ops[op + 1], 0
                for i in range(op + 3, op + 3 + n):
                    seen += records[base + ops[i]]
                for o in range(first, first + count):
                    state.out_words[program.outputs[o, OUTPUT_COLUMN], row] = seen
                    state.out_valid[program.outputs[o, OUTPUT_COLUMN], row] = VALUE
            op += 3 + n
    return op
