"""Cut each key's time into tiles, and write down which tile every row and window meets.

A group is the slots that share a hop.  Its tiles are kept at the hop and at coarser
multiples of it, 8 times each, each level a list sorted by tile number with holes where nothing
happened, so that a window merges a handful of tiles however long it is.  The newest
tile is *open*: it is merged into the coarser ones when the next one begins; and the
coarser ones exist only while a key has more than a few tiles.  A tile whose last
instant is out of the longest window is dropped, which bounds memory by live tiles.
"""

import numpy as np
from numba import njit

from featreg.algebra.flags import ENTRY, INTERNAL
from featreg.algebra.schedule import (
    GROUP_FIRST_LEVEL,
    GROUP_FIRST_WINDOW,
    GROUP_HOP,
    GROUP_LEVELS,
    GROUP_SPAN,
    GROUP_WINDOWS,
    NO_END,
    NO_START,
    WINDOW_HOP,
    WINDOW_WIDTH,
)

LEVEL_BASE, LEVEL_HEAD, LEVEL_COUNT, LEVEL_CAPACITY = range(4)
STATE_NEXT, STATE_FREE, STATE_FREE_BASE, STATE_KEY, STATE_CAPACITY, STATE_COARSE = range(6)
FEW = 12  # so few tiles are merged one by one


@njit(**ENTRY)
def measure(key_index, spine_row, event_time):
    """The most rows that one key has, and the time from the first to the last event; -1 without events."""
    most, first_row = np.int64(0), np.int64(0)
    earliest, newest = np.int64(NO_END), np.int64(NO_START)
    for row in range(key_index.shape[0]):
        if key_index[row] != key_index[first_row]:
            first_row = row
        most = max(most, row + 1 - first_row)
        if spine_row[row] < 0:
            earliest, newest = min(earliest, event_time[row]), max(newest, event_time[row])
    return most, newest - earliest if newest >= earliest else np.int64(-1)


@njit(**INTERNAL)
def _find(numbers, low, high, tile):
    """The first place in sorted `numbers[low:high]` that is not below `tile`: most often the very first."""
    if low < high and numbers[low] >= tile:
        return low
    while low < high:
        middle = (low + high) >> 1
        if numbers[middle] < tile:
            low = middle + 1
        else:
            high = middle
    return low


@njit(**INTERNAL)
def _take_record(group_state, g, free):
    count = group_state[g, STATE_FREE]
    if count > 0:
        group_state[g, STATE_FREE] = count - 1
        return free[group_state[g, STATE_FREE_BASE] + count - 1]
    record = group_state[g, STATE_NEXT]
    group_state[g, STATE_NEXT] = record + 1
    return record


@njit(**INTERNAL)
def _tile_of(tile, levels, level, numbers, records, group_state, g, free):
    """The record of a tile, and 2 when it is a new one, else 0.  O(1) at the end of the list, else O(live tiles)."""
    base = levels[level, LEVEL_BASE]
    low = base + levels[level, LEVEL_HEAD]
    end = low + levels[level, LEVEL_COUNT]
    if end > low:
        last = numbers[end - 1]
        if last == tile:
            return records[end - 1], 0
        at = end if last < tile else _find(numbers, low, end, tile)
        if at < end and numbers[at] == tile:
            return records[at], 0
    else:
        at = end
    if end == base + levels[level, LEVEL_CAPACITY] and low > base:  # room is left in front, where tiles were dropped
        for i in range(low, end):
            numbers[base + i - low], records[base + i - low] = numbers[i], records[i]
        levels[level, LEVEL_HEAD] = 0
        at -= low - base
        end -= low - base
    for i in range(end, at, -1):
        numbers[i], records[i] = numbers[i - 1], records[i - 1]
    record = _take_record(group_state, g, free)
    numbers[at], records[at] = tile, record
    levels[level, LEVEL_COUNT] += 1
    return record, 2


@njit(**INTERNAL)
def _drop_dead(bound, hop, shifts, levels, first_level, n_levels, numbers, records, group_state, g, free):
    """Forget the tiles that end at or before `bound`: no window from this instant on can see them."""
    for level in range(first_level, first_level + n_levels):
        at, end = levels[level, LEVEL_HEAD] + levels[level, LEVEL_BASE], levels[level, LEVEL_COUNT]
        end += at
        first, to = at, group_state[g, STATE_FREE_BASE] + group_state[g, STATE_FREE]
        while at < end and ((numbers[at] + 1) << shifts[level]) * hop <= bound:
            free[to] = records[at]
            to += 1
            at += 1
        levels[level, LEVEL_HEAD] += at - first
        levels[level, LEVEL_COUNT] -= at - first
        group_state[g, STATE_FREE] += at - first


@njit(**INTERNAL)
def _cover(start, coarse, shifts, levels, first_level, n_levels, numbers, records, ops, to):
    """Write the records of the tiles from number `start` on: fine ones up to the next coarse border, and so on up."""
    first = start
    for depth in range(n_levels):
        level = first_level + depth
        low = levels[level, LEVEL_BASE] + levels[level, LEVEL_HEAD]
        end = low + levels[level, LEVEL_COUNT]
        at = _find(numbers, low, end, first)
        if depth == n_levels - 1 or (depth == 0 and (end - at <= FEW or not coarse)):
            for i in range(at, end):
                ops[to] = records[i]
                to += 1
            break
        ratio = shifts[level + 1] - shifts[level]
        border = -((-first) >> ratio)
        while at < end and numbers[at] < border << ratio:
            ops[to] = records[at]
            to += 1
            at += 1
        first = border
    if depth > 0:
        ops[to] = records[levels[first_level, LEVEL_BASE] + levels[first_level, LEVEL_HEAD] + levels[first_level, LEVEL_COUNT] - 1]
        to += 1
    return to


@njit(**INTERNAL)
def _close(at, shifts, levels, first_level, n_levels, numbers, records, group_state, g, free, ops, to):
    """Merge the fine tile at place `at` into the coarser ones."""
    for level in range(first_level + 1, first_level + n_levels):
        into, fresh = _tile_of(numbers[at] >> shifts[level], levels, level, numbers, records, group_state, g, free)
        ops[to] = records[at] << 33 | into << 3 | fresh << 1 | 3
        to += 1
    return to


@njit(**INTERNAL)
def _close_all(shifts, levels, first_level, n_levels, numbers, records, group_state, g, free, ops, to):
    """Begin the coarser tiles: merge every fine tile but the open one into them."""
    low = levels[first_level, LEVEL_BASE] + levels[first_level, LEVEL_HEAD]
    for at in range(low, low + levels[first_level, LEVEL_COUNT] - 1):
        to = _close(at, shifts, levels, first_level, n_levels, numbers, records, group_state, g, free, ops, to)
    group_state[g, STATE_COARSE] = 1
    return to


@njit(**INTERNAL)
def begin_key(g, key, program, state):
    """Turn to another key: the one before is put down where `carried` says (when keys are kept), or forgotten."""
    first_level, n_levels = program.groups[g, GROUP_FIRST_LEVEL], program.groups[g, GROUP_LEVELS]
    keep = state.carried.shape[0] > 0
    if keep:
        put_down_key(g, program, state)
    for level in range(first_level, first_level + n_levels):
        if keep:
            state.levels[level, LEVEL_BASE] = state.carried[key, level, 0]
            state.levels[level, LEVEL_COUNT] = state.carried[key, level, 1]
            state.levels[level, LEVEL_CAPACITY] = state.carried[key, level, 2]
        else:
            state.levels[level, LEVEL_COUNT] = 0
        state.levels[level, LEVEL_HEAD] = 0
    state.group_state[g, STATE_COARSE] = n_levels > 1 and state.levels[first_level + 1, LEVEL_COUNT] > 0
    if not keep:
        state.group_state[g, STATE_NEXT] = 1
        state.group_state[g, STATE_FREE] = 0
    state.group_state[g, STATE_KEY] = key


@njit(**INTERNAL)
def put_down_key(g, program, state):
    """Write where the key at hand has its tiles now."""
    key = state.group_state[g, STATE_KEY]
    if key < 0:
        return
    first_level, n_levels = program.groups[g, GROUP_FIRST_LEVEL], program.groups[g, GROUP_LEVELS]
    for level in range(first_level, first_level + n_levels):
        state.carried[key, level, 0] = state.levels[level, LEVEL_BASE] + state.levels[level, LEVEL_HEAD]
        state.carried[key, level, 1] = state.levels[level, LEVEL_COUNT]
    state.group_state[g, STATE_KEY] = -1


@njit(**INTERNAL)
def schedule(g, row, n_rows, program, chunk, state):
    """Write operations for rows from `row` to `n_rows` until the room for them ends.

    Returns the next row and the number of words written.  O(1) a row, O(levels) a tile, plus moving
    the tiles behind a late row's, plus the tiles that each window covers.
    """
    hop, n_levels, span = program.groups[g, GROUP_HOP], program.groups[g, GROUP_LEVELS], program.groups[g, GROUP_SPAN]
    finest = program.groups[g, GROUP_FIRST_LEVEL]
    first_window, n_windows = program.groups[g, GROUP_FIRST_WINDOW], program.groups[g, GROUP_WINDOWS]
    levels, numbers, records = state.levels, state.tile_number, state.tile_record
    group_state, free, ops = state.group_state, state.free, state.ops
    key_index, spine_row, instants, event_times = chunk.key_index, chunk.spine_row, chunk.instant, chunk.event_time
    shifts, key = program.shifts, group_state[g, STATE_KEY]
    to = np.int64(0)
    # The finest tiles are numbers[low:end] while rows go by; `levels` has them again when another function looks there.
    low, end, room_end, dead_at = _look_up(levels, finest, numbers, hop, span)
    # The tile of the row before, for divisions are dear, and the instant from which no window sees it.
    tile, tile_start, tile_end, seen_until = np.int64(0), np.int64(0), np.int64(0), NO_END
    if hop == 0:
        tile_start, tile_end = NO_START, NO_END
    while row < n_rows:
        if key_index[row] != key:
            key = key_index[row]
            _put_back(levels, finest, low, end)
            begin_key(g, key, program, state)
            low, end, room_end, dead_at = _look_up(levels, finest, numbers, hop, span)
        instant = instants[row]
        if instant >= dead_at:
            _put_back(levels, finest, low, end)
            _drop_dead(instant - span, hop, shifts, levels, finest, n_levels, numbers, records, group_state, g, free)
            low, end, room_end, dead_at = _look_up(levels, finest, numbers, hop, span)
        if spine_row[row] < 0:
            if ops.shape[0] - to < n_levels * (FEW + 4):
                break
            event_time = event_times[row]
            if hop > 0 and not (tile_start <= event_time < tile_end):
                tile = event_time // hop
                tile_start = tile * hop
                tile_end = tile_start + hop
                seen_until = tile_end + span if span >= 0 else NO_END
            if instant >= seen_until:
                row += 1
                continue
            first = row  # the rows of one tile that stand together are one operation
            row += 1
            while (
                row < n_rows
                and key_index[row] == key
                and spine_row[row] < 0
                and tile_start <= event_times[row] < tile_end
                and instants[row] < seen_until
            ):
                row += 1
            if end > low and numbers[end - 1] == tile:
                record, fresh = records[end - 1], 0
            elif end < room_end and (end == low or numbers[end - 1] < tile):
                record, fresh = _take_record(group_state, g, free), 2
                numbers[end], records[end] = tile, record
                end += 1
                if end - low == 1:
                    dead_at = seen_until
            else:
                _put_back(levels, finest, low, end)
                record, fresh = _tile_of(tile, levels, finest, numbers, records, group_state, g, free)
                low, end, room_end, dead_at = _look_up(levels, finest, numbers, hop, span)
            ops[to], ops[to + 1] = first << 33 | record << 2 | fresh, row
            to += 2
            if n_levels > 1:
                if group_state[g, STATE_COARSE] == 0:
                    if end - low > FEW:
                        _put_back(levels, finest, low, end)
                        to = _close_all(shifts, levels, finest, n_levels, numbers, records, group_state, g, free, ops, to)
                elif record != records[end - 1]:  # late: its tile is closed
                    for level in range(finest + 1, finest + n_levels):
                        record, fresh = _tile_of(tile >> shifts[level], levels, level, numbers, records, group_state, g, free)
                        ops[to], ops[to + 1] = first << 33 | record << 2 | fresh, row
                        to += 2
                elif fresh and end - low > 1:
                    to = _close(end - 2, shifts, levels, finest, n_levels, numbers, records, group_state, g, free, ops, to)
        else:
            _put_back(levels, finest, low, end)
            most = 3
            for level in range(finest, finest + n_levels):
                most += levels[level, LEVEL_COUNT]
            if ops.shape[0] - to < n_windows * (most + FEW):
                break
            for window in range(n_windows):
                width = program.windows[first_window + window, WINDOW_WIDTH]
                window_hop = program.windows[first_window + window, WINDOW_HOP]
                start = NO_START if width < 0 else (instant - width) // window_hop * window_hop
                since = np.int64(0) if hop == 0 else NO_START >> 1 if width < 0 else (instant - width) // hop
                behind = _cover(since, group_state[g, STATE_COARSE], shifts, levels, finest, n_levels, numbers, records, ops, to + 3)
                ops[to] = (behind - to - 3) << 33 | window << 2 | 1
                ops[to + 1] = spine_row[row]
                ops[to + 2] = start
                to = behind
            row += 1
    _put_back(levels, finest, low, end)
    return row, to


@njit(**INTERNAL)
def _look_up(levels, finest, numbers, hop, span):
    """Where the finest tiles begin, end, and have room until; and the instant from which the oldest is dead."""
    base = levels[finest, LEVEL_BASE]
    low = base + levels[finest, LEVEL_HEAD]
    end = low + levels[finest, LEVEL_COUNT]
    dead_at = (numbers[low] + 1) * hop + span if span >= 0 and end > low else np.int64(NO_END)
    return low, end, base + levels[finest, LEVEL_CAPACITY], dead_at


@njit(**INTERNAL)
def _put_back(levels, finest, low, end):
    levels[finest, LEVEL_HEAD] = low - levels[finest, LEVEL_BASE]
    levels[finest, LEVEL_COUNT] = end - low
