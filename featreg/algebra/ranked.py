"""Keep the first or last few rows in an order: first, last, first_n, last_n, top_n, arg_min, arg_max, min and max of text.

A partial is (count, count entries); an entry is a word of presence bits and one word
for each part of the order, the value last.  The order is lexicographic over the parts,
a NULL below every value, texts by their bytes.  MODE 1 keeps the last entries, -1 the
first; the best stands first.  Rows that tie in every part are the same to every reader.
"""

import numpy as np
from numba import njit

from featreg.algebra.bigdigits import keep_inside
from featreg.algebra.flags import INTERNAL
from featreg.algebra.frame import Kernel, bundles
from featreg.algebra.pools import compare_text, copy_text, plain_word, short_of
from featreg.algebra.schedule import (
    AS_LIST,
    LENGTH_BITS,
    LONGEST_TEXT,
    NULL,
    OUTPUT_COLUMN,
    OUTPUT_DOUBLE,
    OUTPUT_FINAL,
    ROWS_DONE,
    SLOT_FIRST_PART,
    SLOT_LIMIT,
    SLOT_MASK,
    SLOT_MODE,
    SLOT_PARTS,
    SLOT_WIDTH,
    TOP_OUT_HEAP,
    TOP_OUT_TEXT,
    TOP_TEXT,
    VALUE,
)

# A row of `Program.parts`: where the word comes from, whether it is text, whether a NULL there skips the row.
PART_SOURCE, PART_TEXT, PART_REQUIRED = range(3)
FROM_EVENT_TIME, FROM_VISIBLE = -1, -2
_ZERO, _OWN, _SHARED = np.int64(0), np.bool_(True), np.bool_(False)  # numba compiles a function again for every literal


@njit(**INTERNAL)
def _compare_entries(parts, first, n, words, a, a_text, other, b, b_text):
    """Order entry `a` of `words` (texts in a_text) against entry `b` of `other` (texts in b_text)."""
    a_bits, b_bits = words[a], other[b]
    for i in range(n):
        a_here, b_here = (a_bits >> i) & 1, (b_bits >> i) & 1
        if a_here != b_here:
            return a_here - b_here
        if a_here:
            x, y = words[a + 1 + i], other[b + 1 + i]
            if parts[first + i, PART_TEXT]:
                difference = compare_text(a_text, x, b_text, y)
                if difference != 0:
                    return difference
            elif x != y:
                return np.int64(1) if x > y else np.int64(-1)
    return np.int64(0)


@njit(**INTERNAL)
def _insert(parts, first, n, limit, mode, records, at, text, other, entry, other_text, tops, own):
    """Put an entry into its place in a partial, or leave it out; texts are copied when `own` (the caller saw to the room)."""
    count, size = records[at], n + 1
    place = count
    while place > 0:
        order = _compare_entries(parts, first, n, other, entry, other_text, records, at + 1 + (place - 1) * size, text)
        if order * mode <= 0:
            break
        place -= 1
    if place >= limit:
        return
    for i in range(min(count, limit - 1) - 1, place - 1, -1):
        for j in range(size):
            records[at + 1 + (i + 1) * size + j] = records[at + 1 + i * size + j]
    records[at] = min(count + 1, limit)
    to = at + 1 + place * size
    for j in range(size):
        records[to + j] = other[entry + j]
    if own:
        for i in range(n):
            if parts[first + i, PART_TEXT] and (other[entry] >> i) & 1:
                records[to + 1 + i] = copy_text(other_text, other[entry + 1 + i], text, tops, TOP_TEXT)


@njit(**INTERNAL)
def _is_better(parts, first, n, mode, by_time, records, at, other, text):
    """Whether the one entry of partial `other` stands before the one of partial `at`: most often their event times tell."""
    if by_time and records[other + 2] != records[at + 2]:
        return (records[other + 2] > records[at + 2]) == (mode > 0)
    return _compare_entries(parts, first, n, records, other + 1, text, records, at + 1, text) * mode > 0


@njit(**INTERNAL)
def _merge(parts, first, n, limit, mode, by_time, records, at, other, text, tops):
    """Bring the entries of one partial into another, whose texts are in the same pool."""
    if limit > 1:
        for e in range(records[other]):
            _insert(parts, first, n, limit, mode, records, at, text, records, other + 1 + e * (n + 1), text, tops, _SHARED)
    elif records[other] > 0 and (records[at] == 0 or _is_better(parts, first, n, mode, by_time, records, at, other, text)):
        for i in range(n + 2):
            records[at + i] = records[other + i]


@njit(**INTERNAL)
def _read_entry(parts, first, n, chunk, row, entry):
    """Make an entry of a row; False where a NULL skips it."""
    entry[0] = 0
    for i in range(n):
        source = parts[first + i, PART_SOURCE]
        if source == FROM_EVENT_TIME:
            entry[1 + i] = chunk.event_time[row]
        elif source == FROM_VISIBLE:
            entry[1 + i] = chunk.instant[row]
        else:
            if not chunk.valid[source, row]:
                if parts[first + i, PART_REQUIRED]:
                    return False
                entry[1 + i] = 0
                continue
            entry[1 + i] = chunk.inputs[source, row]
        entry[0] |= 1 << i
    return True


@njit(**INTERNAL)
def _text_room(parts, first, n, entry, at):
    room = np.int64(0)
    for i in range(n):
        if parts[first + i, PART_TEXT] and (entry[at] >> i) & 1:
            room += entry[at + 1 + i] & LONGEST_TEXT
    return room


@njit(**INTERNAL)
def _give(program, state, o, row, at, start, first, n, time_part):
    """Write a result; False when the pools of results lack room."""
    keep_inside()
    records, tops, size = state.records, state.tops, n + 1
    out = program.outputs[o, OUTPUT_COLUMN]
    is_text = program.parts[first + n - 1, PART_TEXT]
    count, text_room = np.int64(0), np.int64(0)
    while count < records[at]:
        entry = at + 1 + count * size
        if time_part >= 0 and records[entry + 1 + time_part] < start:
            break
        if is_text:
            text_room += records[entry + n] & LONGEST_TEXT
        count += 1
    is_list = program.outputs[o, OUTPUT_FINAL] == AS_LIST
    if short_of(tops, TOP_OUT_TEXT, state.out_text.shape[0], text_room) or (
        is_list and short_of(tops, TOP_OUT_HEAP, state.out_heap.shape[0], count)
    ):
        return False
    state.out_words[out, row] = 0
    if count == 0 or (not is_list and (records[at + 1] >> (n - 1)) & 1 == 0):
        state.out_valid[out, row] = NULL
        return True
    state.out_valid[out, row] = VALUE
    if is_list:
        state.out_words[out, row] = tops[TOP_OUT_HEAP] << LENGTH_BITS | count
    for i in range(count if is_list else 1):
        word = plain_word(records[at + 1 + i * size + n], program.outputs[o, OUTPUT_DOUBLE])
        if is_text:
            word = copy_text(state.text, word, state.out_text, tops, TOP_OUT_TEXT)
        if is_list:
            state.out_heap[tops[TOP_OUT_HEAP]] = word
            tops[TOP_OUT_HEAP] += 1
        else:
            state.out_words[out, row] = word
    return True


@njit(**INTERNAL)
def _is_out(mode, moment, worst):
    """Whether a row of this event time is worse than the worst that is kept."""
    return moment < worst if mode > 0 else moment > worst


@Kernel
def run_ranked(slot: int, op: int, n_ops: int, frame: int) -> int:
    """Walk the schedule for one ranked slot; stops early when a pool lacks room."""
    program, chunk, state = bundles(frame)
    ops, records, base, text, tops = state.ops, state.records, state.slot_base[slot], state.text, state.tops
    width, limit, mode = program.slots[slot, SLOT_WIDTH], program.slots[slot, SLOT_LIMIT], program.slots[slot, SLOT_MODE]
    first, n, mask = program.slots[slot, SLOT_FIRST_PART], program.slots[slot, SLOT_PARTS], program.slots[slot, SLOT_MASK]
    parts = program.parts
    time_part = np.int64(-1)
    for i in range(n):
        if parts[first + i, PART_SOURCE] == FROM_EVENT_TIME:
            time_part = i
    by_time = parts[first, PART_SOURCE] == FROM_EVENT_TIME
    entry = state.scratch
    while op < n_ops:
        word = ops[op]
        if word & 1 == 0:
            row, end = word >> 33, ops[op + 1]
            at = base + width * ((word >> 2) & 0x7FFFFFFF)
            done, tops[ROWS_DONE] = tops[ROWS_DONE], 0
            if word & 2 and done == 0:
                records[at] = 0
            worst = at + 1 + (limit - 1) * (n + 1)
            for i in range(done, end - row):
                here = end - 1 - i if mode > 0 else row + i  # the best is likely the newest, or the oldest: the others need a look
                if by_time and records[at] == limit and _is_out(mode, chunk.event_time[here], records[worst + 1]):
                    continue
                if (mask < 0 or chunk.valid[mask, here]) and _read_entry(parts, first, n, chunk, here, entry):
                    if short_of(tops, TOP_TEXT, text.shape[0], _text_room(parts, first, n, entry, _ZERO)):
                        tops[ROWS_DONE] = i
                        return op
                    _insert(parts, first, n, limit, mode, records, at, text, entry, _ZERO, chunk.text, tops, _OWN)
            op += 2
        elif word & 2:
            at = base + width * ((word >> 3) & 0x3FFFFFFF)
            if word & 4:
                records[at] = 0
            _merge(parts, first, n, limit, mode, by_time, records, at, base + width * (word >> 33), text, tops)
            op += 1
        else:
            count = word >> 33
            window = (word >> 2) & 0x7FFFFFFF
            if program.routes[slot, window, 1] > 0:
                at = base
                records[at] = 0
                if count == 1:
                    at = base + width * ops[op + 3]
                elif limit == 1:  # the best where it is, uncopied
                    for i in range(op + 3, op + 3 + count):
                        other = base + width * ops[i]
                        if records[other] > 0 and (
                            records[at] == 0 or _is_better(parts, first, n, mode, by_time, records, at, other, text)
                        ):
                            at = other
                else:
                    for i in range(op + 3, op + 3 + count):
                        _merge(parts, first, n, limit, mode, by_time, records, at, base + width * ops[i], text, tops)
                for o in range(program.routes[slot, window, 0], program.routes[slot, window, 0] + program.routes[slot, window, 1]):
                    if not _give(program, state, o, ops[op + 1], at, ops[op + 2], first, n, time_part):
                        return op
            op += 3 + count
    return op
