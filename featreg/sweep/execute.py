"""Run a program over a chunk: for each group write the schedule, then let each slot walk it.

`advance` knows the slots that most programs have; `advance_rare` the others, so that
only what a program uses is compiled.  Both are resumable: they stop with a status
when a pool lacks room or the other one is needed, and go on where the cursor stands.
"""

from numba import njit

from featreg.algebra.counts import run_counts
from featreg.algebra.extremes import run_extremes
from featreg.algebra.moments import run_moments, run_wide_moments
from featreg.algebra.ranked import run_ranked
from featreg.algebra.schedule import (
    COUNT,
    EXTREME,
    GROUP_FIRST_SLOT,
    GROUP_SLOTS,
    INTEGER_SUM,
    MOMENTS,
    RANKED,
    SLOT_KIND,
    SUM,
    TALLY,
)
from featreg.algebra.sums import run_integer_sums, run_sums
from featreg.algebra.tally import run_tally
from featreg.sweep.head import lay_out_rows
from featreg.sweep.keep import READY, load_keys
from featreg.sweep.tiles import put_down_key, schedule

DONE, NEEDS_ROOM, NEEDS_RARE = range(3)
SHORT = 16  # `answer` gives 16 + what `load_keys` or `lay_out_rows` lacked room for
CURSOR_GROUP, CURSOR_ROW, CURSOR_OPS, CURSOR_SLOT, CURSOR_OP, CURSOR_ROWS = range(6)
CURSOR_FIELDS = 6


@njit(cache=True, nogil=True)
def advance(program, chunk, state):
    """Go on from the cursor: DONE, or why not."""
    cursor, groups = state.cursor, program.groups
    n_rows = cursor[CURSOR_ROWS]
    while cursor[CURSOR_GROUP] < groups.shape[0]:
        g = cursor[CURSOR_GROUP]
        end = groups[g, GROUP_FIRST_SLOT] + groups[g, GROUP_SLOTS]
        while cursor[CURSOR_SLOT] < end:
            slot, op, n_ops = cursor[CURSOR_SLOT], cursor[CURSOR_OP], cursor[CURSOR_OPS]
            kind = program.slots[slot, SLOT_KIND]
            if op < n_ops:
                if kind == COUNT:
                    op = run_counts(slot, op, n_ops, program, chunk, state)
                elif kind == SUM:
                    op = run_sums(slot, op, n_ops, program, chunk, state)
                elif kind == INTEGER_SUM:
                    op = run_integer_sums(slot, op, n_ops, program, chunk, state)
                elif kind == EXTREME:
                    op = run_extremes(slot, op, n_ops, program, chunk, state)
                elif kind == RANKED:
                    op = run_ranked(slot, op, n_ops, program, chunk, state)
                else:
                    return NEEDS_RARE
                if op < n_ops:
                    cursor[CURSOR_OP] = op
                    return NEEDS_ROOM
            cursor[CURSOR_SLOT] = slot + 1
            cursor[CURSOR_OP] = 0
        if cursor[CURSOR_ROW] < n_rows:
            cursor[CURSOR_ROW], cursor[CURSOR_OPS] = schedule(g, cursor[CURSOR_ROW], n_rows, program, chunk, state)
            if cursor[CURSOR_OPS] == 0 and cursor[CURSOR_ROW] < n_rows:  # none at the end: no window of this group sees these rows
                return NEEDS_ROOM
            cursor[CURSOR_SLOT] = groups[g, GROUP_FIRST_SLOT]
        else:
            if state.carried.shape[0] > 0:
                put_down_key(g, program, state)
            cursor[CURSOR_GROUP] = g + 1
            cursor[CURSOR_ROW] = cursor[CURSOR_OPS] = 0
            cursor[CURSOR_SLOT] = end
    return DONE


@njit(cache=True, nogil=True)
def advance_rare(program, chunk, state):
    """Let one slot of the rarer kinds walk the schedule at hand."""
    cursor = state.cursor
    slot, op, n_ops = cursor[CURSOR_SLOT], cursor[CURSOR_OP], cursor[CURSOR_OPS]
    kind = program.slots[slot, SLOT_KIND]
    if kind == MOMENTS:
        op = run_moments(slot, op, n_ops, program, chunk, state)
    elif kind == TALLY:
        op = run_tally(slot, op, n_ops, program, chunk, state)
    else:
        op = run_wide_moments(slot, op, n_ops, program, chunk, state)
    cursor[CURSOR_OP] = op
    return DONE if op == n_ops else NEEDS_ROOM


@njit(cache=True, nogil=True)
def answer(program, chunk, state, words, starts, heads, head_starts, more, cutoffs):
    """Read m keys at their cutoffs: take their states, bring the head rows below each cutoff, then its one spine row.

    words, heads: the stored values one behind another, key k from `starts[k]` to `starts[k + 1]`.
    Returns as `advance` does, or SHORT + what there was too little room for, and then nothing counts.
    """
    short = load_keys(program, state, words, starts, more)
    if short != READY:
        return SHORT + short
    rows = lay_out_rows(heads, head_starts, cutoffs, chunk)
    if rows < 0:
        return SHORT
    cursor = state.cursor
    for i in range(cursor.shape[0]):
        cursor[i] = 0
    cursor[CURSOR_ROWS] = rows
    return advance(program, chunk, state)
