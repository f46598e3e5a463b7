"""Write the schedule of a group without tiles: any span of a key's rows from a few partials, where event times never step back.

Rows are taken in blocks of 8, blocks in blocks of 8, and so on.  Of each block there is
a partial of its rows; of each finished block of blocks the partials of its ends (from
its second block on, from its third, ...), of the one at hand the partial of what is
finished in it.  A window is then some rows folded at its start, at most two partials a
level, and the block at hand: one structure for windows of any length and hop.  Blocks
begin at the first row that a question can see, and begin anew where none of them can be
seen any more, so what lies between is never read.

    rows       0......7 8.....15 16....23 24....31 ...        a block: partial `whole`
    ends           0-63     8-63    16-63    24-63 ... 56-63  of a finished block of blocks; the first is its `whole`
    so far                                                    of the block of blocks at hand: its finished blocks

Records: 0 scratch, 1 rows folded for a window, 2 + level what is finished at that level, then wholes, then ends by level.
"""

from numba import njit

from featreg.algebra.flags import INTERNAL
from featreg.algebra.frame import Kernel, bundles
from featreg.algebra.schedule import (
    GROUP_FIRST_LEVEL,
    GROUP_FIRST_WINDOW,
    GROUP_WINDOWS,
    WINDOW_HOP,
    WINDOW_WIDTH,
)
from featreg.sweep.cursor import CURSOR_OPS
from featreg.sweep.tiles import LEVEL_BASE, STATE_KEY

BITS = 3
SIZE, LAST = 1 << BITS, (1 << BITS) - 1
ROWS_AT_START, SO_FAR, LEVELS = 1, 2, 20
WHOLE = SO_FAR + LEVELS
# Of the key at hand, in `State.tile_number`: where its blocks begin, the next row to fold, most blocks of a key, each window's first row.
BEGIN, NEXT, BLOCKS, FIRST_ROWS = range(4)


def records_for(rows: int) -> tuple[int, int]:
    """How many blocks a key of so many rows has at most, and how many records that takes."""
    blocks = rows // SIZE + 1
    ends, size = 0, blocks
    for _ in range(LEVELS):
        ends += size
        size = (size >> BITS) + 1
    return blocks, WHOLE + blocks + ends


@njit(**INTERNAL)
def _fold(row, end, record, fresh, spine_row, ops, to):
    """Fold the events among rows row..end; spine rows between them part them."""
    if fresh and (row == end or spine_row[row] >= 0):
        ops[to], ops[to + 1] = row << 33 | record << 2 | 2, row  # of no row: it begins empty
        to += 2
        fresh = False
    while row < end:
        if spine_row[row] >= 0:
            row += 1
            continue
        first = row
        while row < end and spine_row[row] < 0:
            row += 1
        ops[to], ops[to + 1] = first << 33 | record << 2 | (2 if fresh else 0), row
        to += 2
        fresh = False
    return to


@njit(**INTERNAL)
def _merge(other, into, fresh, ops, to):
    ops[to] = other << 33 | into << 3 | (4 if fresh else 0) | 3
    return to + 1


@njit(**INTERNAL)
def _whole(level, block, ends):
    """The record of a whole block; of one of blocks, of all its ends the first."""
    return WHOLE + block if level == 0 else ends + (block << BITS)


@njit(**INTERNAL)
def _close(block, blocks, ops, to):
    """A block is finished: it counts among what is finished of the one above it, which may be finished with it; then its ends are made."""
    level, ends, above, size = 0, WHOLE + blocks, WHOLE + blocks, blocks
    while True:
        whole = _whole(level, block, ends)
        to = _merge(whole, SO_FAR + level, block & LAST == 0, ops, to)
        if block & LAST != LAST:
            return to
        behind = whole
        for one in range(block - 1, block - SIZE, -1):
            to = _merge(_whole(level, one, ends), above + one, True, ops, to)
            to = _merge(behind, above + one, False, ops, to)
            behind = above + one
        level, block, ends = level + 1, block >> BITS, above
        above += size
        size = (size >> BITS) + 1


@njit(**INTERNAL)
def _cover(block, behind, blocks, ops, to):
    """Write the records of the finished blocks block..behind, of which the last is before the one at hand."""
    level, ends, above, size = 0, WHOLE + blocks, WHOLE + blocks, blocks
    while block < behind:
        if block >> BITS == behind >> BITS:
            if block & LAST == 0:
                ops[to] = SO_FAR + level
                return to + 1
            for one in range(block, behind):
                ops[to] = _whole(level, one, ends)
                to += 1
            return to
        if block & LAST != 0:
            ops[to] = _whole(level, block, ends) if block & LAST == LAST else above + block
            to += 1
        if behind & LAST != 0:
            ops[to] = SO_FAR + level
            to += 1
        block, behind = (block + LAST) >> BITS, behind >> BITS
        level, ends = level + 1, above
        above += size
        size = (size >> BITS) + 1
    return to


@njit(**INTERNAL)
def _see(row, first_window, n_windows, windows, chunk, state, at):
    """Move each window's first row on to what the question in `row` sees; returns the first of all windows."""
    first_of_all, numbers = row, state.tile_number
    for window in range(n_windows):
        start = _start(chunk.instant[row], windows, first_window + window)
        first = numbers[at + FIRST_ROWS + window]
        while first < row and (chunk.spine_row[first] >= 0 or chunk.event_time[first] < start):
            first += 1
        numbers[at + FIRST_ROWS + window] = first
        first_of_all = min(first_of_all, first)
    return first_of_all


@njit(**INTERNAL)
def _start(cutoff, windows, window):
    hop = windows[window, WINDOW_HOP]
    return (cutoff - windows[window, WINDOW_WIDTH]) // hop * hop


@Kernel
def write_spans(g: int, row: int, n_rows: int, frame: int) -> int:
    """Write operations for rows from `row` until the room for them ends; returns the next row, and says in the cursor how many words.

    O(1) a row and O(levels) a question and window.
    """
    program, chunk, state = bundles(frame)
    first_window, n_windows = program.groups[g, GROUP_FIRST_WINDOW], program.groups[g, GROUP_WINDOWS]
    at = state.levels[program.groups[g, GROUP_FIRST_LEVEL], LEVEL_BASE]
    numbers, ops, windows = state.tile_number, state.ops, program.windows
    key_index, spine_row = chunk.key_index, chunk.spine_row
    blocks, key, to = numbers[at + BLOCKS], state.group_state[g, STATE_KEY], 0
    room = ops.shape[0] - n_windows * (3 + 2 * SIZE + (SIZE + 2) + 2 * LEVELS)
    room_to_fold = ops.shape[0] - 2 * SIZE - 2 * SIZE * LEVELS
    while row < n_rows:
        if key_index[row] != key:
            key = key_index[row]
            numbers[at + BEGIN] = numbers[at + NEXT] = row
            for window in range(n_windows):
                numbers[at + FIRST_ROWS + window] = row
        if spine_row[row] < 0:
            row += 1
            continue
        first = _see(row, first_window, n_windows, windows, chunk, state, at)
        if first >= numbers[at + NEXT]:
            numbers[at + BEGIN] = numbers[at + NEXT] = first
        begin, here = numbers[at + BEGIN], numbers[at + NEXT]
        while here < row and to < room_to_fold:
            block = (here - begin) >> BITS
            end = min(row, begin + ((block + 1) << BITS))
            to = _fold(here, end, WHOLE + block, (here - begin) & LAST == 0, spine_row, ops, to)
            here = end
            if (here - begin) & LAST == 0:
                to = _close(block, blocks, ops, to)
        numbers[at + NEXT] = here
        if here < row or to >= room:
            break
        at_hand = (row - begin) >> BITS
        for window in range(n_windows):
            first = numbers[at + FIRST_ROWS + window]
            emit = to
            if first < row:
                block = (first - begin) >> BITS
                is_cut = (first - begin) & LAST != 0
                if is_cut:
                    end = min(row, begin + ((block + 1) << BITS))
                    to = _fold(first, end, ROWS_AT_START, True, spine_row, ops, to)
                emit = to
                to += 3
                if is_cut:
                    ops[to] = ROWS_AT_START
                    to += 1
                    block += 1
                if block <= at_hand:
                    to = _cover(block, at_hand, blocks, ops, to)
                    if (row - begin) & LAST != 0:
                        ops[to] = WHOLE + at_hand
                        to += 1
            else:
                to += 3
            ops[emit] = (to - emit - 3) << 33 | window << 2 | 1
            ops[emit + 1] = spine_row[row]
            ops[emit + 2] = _start(chunk.instant[row], windows, first_window + window)
        row += 1
    state.group_state[g, STATE_KEY] = key
    state.cursor[CURSOR_OPS] = to
    return row
