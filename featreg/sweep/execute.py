"""Run a program over a chunk: for each group write the schedule, then let the kernel of each slot walk it.

`advance` is resumable: it stops when a pool lacks room, and goes on where the cursor stands.
"""

from collections.abc import Iterable

import numpy as np
from numba import njit

from featreg.algebra import schedule as s
from featreg.algebra.counts import run_counts
from featreg.algebra.extremes import run_extremes
from featreg.algebra.flags import ENTRY
from featreg.algebra.frame import bundles, walk
from featreg.algebra.moments import run_moments, run_wide_moments
from featreg.algebra.ranked import run_ranked
from featreg.algebra.schedule import GROUP_FIRST_SLOT, GROUP_HOP, GROUP_SLOTS, SLOT_KIND
from featreg.algebra.sums import run_integer_sums, run_sums
from featreg.algebra.tally import run_tally
from featreg.sweep.cursor import (
    CURSOR_BEHIND,
    CURSOR_FIRST,
    CURSOR_GROUP,
    CURSOR_OP,
    CURSOR_OPS,
    CURSOR_ROW,
    CURSOR_ROWS,
    CURSOR_SLOT,
)
from featreg.sweep.head import lay_out_rows, rows_of
from featreg.sweep.keep import READY, load_keys
from featreg.sweep.spans import write_spans
from featreg.sweep.tiles import put_down_key, schedule

KERNELS = {
    s.COUNT: run_counts,
    s.SUM: run_sums,
    s.INTEGER_SUM: run_integer_sums,
    s.EXTREME: run_extremes,
    s.RANKED: run_ranked,
    s.MOMENTS: run_moments,
    s.WIDE_MOMENTS: run_wide_moments,
    s.TALLY: run_tally,
    s.SPANS: write_spans,
}
DONE, NEEDS_ROOM = range(2)
AT_HAND = np.int64(1 << 14)  # words of stored values that a read takes at once
SHORT = 16  # `answer` gives 16 + what `load_keys` or `lay_out_rows` lacked room for


def addresses(kinds: Iterable[int]) -> np.ndarray:
    """Where the machine code of these kinds' kernels is, by kind; they are compiled if they never were."""
    found = np.zeros(len(KERNELS), np.int64)
    for kind in kinds:
        found[kind] = KERNELS[kind].address
    return found


@njit(**ENTRY)
def advance(frame):
    """Go on from the cursor of the frame at this address: DONE, or NEEDS_ROOM."""
    program, chunk, state = bundles(frame)
    cursor, groups = state.cursor, program.groups
    n_rows = cursor[CURSOR_ROWS]
    while cursor[CURSOR_GROUP] < groups.shape[0]:
        g = cursor[CURSOR_GROUP]
        end = groups[g, GROUP_FIRST_SLOT] + groups[g, GROUP_SLOTS]
        while cursor[CURSOR_SLOT] < end:
            slot, op, n_ops = cursor[CURSOR_SLOT], cursor[CURSOR_OP], cursor[CURSOR_OPS]
            if op < n_ops:
                op = walk(state.kernels[program.slots[slot, SLOT_KIND]], slot, op, n_ops, frame)
                if op < n_ops:
                    cursor[CURSOR_OP] = op
                    return NEEDS_ROOM
            cursor[CURSOR_SLOT] = slot + 1
            cursor[CURSOR_OP] = 0
        if cursor[CURSOR_ROW] < n_rows:
            if groups[g, GROUP_HOP] < 0:
                cursor[CURSOR_ROW] = walk(state.kernels[s.SPANS], g, cursor[CURSOR_ROW], n_rows, frame)
            else:
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


@njit(**ENTRY)
def answer(frame, words, starts, heads, head_starts, more, cutoffs, first):
    """Read m keys from key `first` on: take the states, bring the head rows below each key's cutoff, then its one spine row.

    words, heads: the stored values one behind another, key k from `starts[k]` to `starts[k + 1]` · more [m]: room to count rows in.
    Some keys at a time, as many as `carried` and a core's cache hold: so the room that a read takes is bounded, and near.
    Returns as `advance` does, or SHORT + what there was too little room for, and then nothing counts of the keys at hand: those from
    CURSOR_FIRST to CURSOR_BEHIND; those before are answered.
    """
    _program, chunk, state = bundles(frame)
    cursor, m, most = state.cursor, cutoffs.shape[0], state.carried.shape[0]
    while first < m:
        behind, size = first, np.int64(0)
        while behind < m and behind - first < most and (size < AT_HAND or behind == first):
            more[behind] = rows_of(heads, head_starts, behind)
            size += starts[behind + 1] - starts[behind] + head_starts[behind + 1] - head_starts[behind]
            behind += 1
        for i in range(cursor.shape[0]):
            cursor[i] = 0
        cursor[CURSOR_FIRST], cursor[CURSOR_BEHIND] = first, behind
        short = load_keys(frame, words, starts[first : behind + 1], more[first:behind])
        if short != READY:
            return SHORT + short
        rows = lay_out_rows(heads, head_starts[first : behind + 1], cutoffs[first:behind], chunk)
        if rows < 0:
            return SHORT
        if first > 0:
            for row in range(rows):
                if chunk.spine_row[row] >= 0:
                    chunk.spine_row[row] += first
        cursor[CURSOR_ROWS] = rows
        if advance(frame) != DONE:
            return NEEDS_ROOM
        first = behind
    return DONE
