"""Keep a map from value to a number: count_distinct (latest event time) and histogram (count).

A partial is one word, a handle + 1 into the heap (0: no map).  A map is a block
[capacity, count, capacity × (mark, value, number)], open addressing with linear
probing, capacity a power of two, at most three quarters full; mark is a hash that is
never 0.  MODE 1 keeps the largest number (the latest event time: entries older than
every window are left behind when the map grows), MODE 0 adds.
"""

import numpy as np
from numba import njit

from featreg.algebra.bigdigits import keep_inside
from featreg.algebra.flags import INTERNAL
from featreg.algebra.frame import Kernel, bundles
from featreg.algebra.pools import compare_text, copy_items, copy_text, eight_bytes, is_same_text, plain_word, short_of
from featreg.algebra.schedule import (
    AS_DISTINCT,
    LENGTH_BITS,
    LONGEST_TEXT,
    NO_START,
    NULL,
    OUTPUT_COLUMN,
    OUTPUT_DOUBLE,
    OUTPUT_FINAL,
    ROWS_DONE,
    SLOT_BYTES,
    SLOT_INPUT,
    SLOT_LIMIT,
    SLOT_MODE,
    SLOT_SPAN,
    TOP_HEAP,
    TOP_OUT_HEAP,
    TOP_OUT_TEXT,
    TOP_TEXT,
    VALUE,
)

HEADER, ENTRY, SMALLEST, FEW_PAIRS = 2, 3, 4, 24
_NEVER = np.int64(NO_START)  # numba compiles a function again for every literal


@njit(**INTERNAL)
def hash_word(value):
    """splitmix64's finalizer (Steele, Lea and Flood 2014)."""
    h = np.uint64(value) + np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64(h ^ (h >> np.uint64(31))) | np.int64(1)


@njit(**INTERNAL)
def hash_text(pool, text):
    """FNV-1a over eight bytes at a time, then over the bytes that are left."""
    h = np.uint64(0xCBF29CE484222325)
    at, end = text >> LENGTH_BITS, (text >> LENGTH_BITS) + (text & LONGEST_TEXT)
    while at + 8 <= end:
        h = (h ^ eight_bytes(pool, at)) * np.uint64(0x100000001B3)
        at += 8
    while at < end:
        h = (h ^ np.uint64(pool[at])) * np.uint64(0x100000001B3)
        at += 1
    return hash_word(np.int64(h))


@njit(**INTERNAL)
def _new_map(heap, tops, capacity):
    at = tops[TOP_HEAP]
    tops[TOP_HEAP] = at + HEADER + ENTRY * capacity
    heap[at], heap[at + 1] = capacity, 0
    for i in range(capacity):
        heap[at + HEADER + ENTRY * i] = 0
    return at


@njit(**INTERNAL)
def _locate(heap, at, mark, value, is_text, pool, text):
    """Where a value's entry is, or the empty place where it would be."""
    keep_inside()
    capacity = heap[at]
    place = (mark >> 1) & (capacity - 1)
    while True:
        entry = at + HEADER + ENTRY * place
        if heap[entry] == 0:
            return entry
        if heap[entry] == mark:
            if heap[entry + 1] == value if not is_text else is_same_text(text, heap[entry + 1], pool, value):
                return entry
        place = (place + 1) & (capacity - 1)


@njit(**INTERNAL)
def _grown(heap, tops, at, oldest):
    """A map with room for more, made of the entries whose number is at least `oldest`."""
    live = np.int64(0)
    for i in range(heap[at]):
        entry = at + HEADER + ENTRY * i
        if heap[entry] != 0 and heap[entry + 2] >= oldest:
            live += 1
    capacity = np.int64(SMALLEST)
    while capacity < 2 * (live + 1):
        capacity *= 2
    new = _new_map(heap, tops, capacity)
    for i in range(heap[at]):
        entry = at + HEADER + ENTRY * i
        if heap[entry] != 0 and heap[entry + 2] >= oldest:
            place = (heap[entry] >> 1) & (capacity - 1)
            while heap[new + HEADER + ENTRY * place] != 0:
                place = (place + 1) & (capacity - 1)
            for j in range(ENTRY):
                heap[new + HEADER + ENTRY * place + j] = heap[entry + j]
    heap[new + 1] = live
    return new


@njit(**INTERNAL)
def _fold(heap, tops, at, mode, mark, value, is_text, number, pool, text, oldest):
    """Bring a value's number into the map `at`; returns where the map is now, and the entry if it is new, else -1."""
    keep_inside()
    entry = _locate(heap, at, mark, value, is_text, pool, text)
    if heap[entry] != 0:
        heap[entry + 2] = max(heap[entry + 2], number) if mode > 0 else heap[entry + 2] + number
        return at, np.int64(-1)
    if 4 * (heap[at + 1] + 1) > 3 * heap[at]:
        at = _grown(heap, tops, at, oldest)
        entry = _locate(heap, at, mark, value, is_text, pool, text)
    heap[entry], heap[entry + 1], heap[entry + 2] = mark, value, number
    heap[at + 1] += 1
    return at, entry


@njit(**INTERNAL)
def _stands_before(value, number, other, other_number, is_text, text):
    """Whether a pair stands before another: the larger number first, then the smaller value."""
    if number != other_number:
        return number > other_number
    return compare_text(text, value, text, other) < 0 if is_text else value < other


@njit(**INTERNAL)
def _precedes(pairs, a, b, is_text, text):
    return _stands_before(pairs[2 * a], pairs[2 * a + 1], pairs[2 * b], pairs[2 * b + 1], is_text, text)


@njit(**INTERNAL)
def _sort_pairs(pairs, n, is_text, text):
    """Sort n (value, number) pairs in place: few by insertion, many by heapsort (Williams 1964)."""
    if n <= FEW_PAIRS:
        for i in range(1, n):
            value, number, at = pairs[2 * i], pairs[2 * i + 1], i
            while at > 0 and _stands_before(value, number, pairs[2 * at - 2], pairs[2 * at - 1], is_text, text):
                pairs[2 * at], pairs[2 * at + 1] = pairs[2 * at - 2], pairs[2 * at - 1]
                at -= 1
            pairs[2 * at], pairs[2 * at + 1] = value, number
        return
    end, start = n, n // 2
    while end > 1:
        if start > 0:
            start -= 1
        else:
            end -= 1
            pairs[0], pairs[2 * end] = pairs[2 * end], pairs[0]
            pairs[1], pairs[2 * end + 1] = pairs[2 * end + 1], pairs[1]
        root = start
        while 2 * root + 1 < end:
            child = 2 * root + 1
            if child + 1 < end and _precedes(pairs, child, child + 1, is_text, text):
                child += 1
            if not _precedes(pairs, root, child, is_text, text):
                break
            pairs[2 * root], pairs[2 * child] = pairs[2 * child], pairs[2 * root]
            pairs[2 * root + 1], pairs[2 * child + 1] = pairs[2 * child + 1], pairs[2 * root + 1]
            root = child


@njit(**INTERNAL)
def _give_histogram(state, out, row, at, limit, is_text, is_double):
    """Write the most frequent values with their counts; False when the pools of results lack room."""
    keep_inside()
    heap, tops = state.heap, state.tops
    if short_of(tops, TOP_HEAP, heap.shape[0], 2 * heap[at + 1]):
        return False
    pairs, n = heap[tops[TOP_HEAP] :], np.int64(0)  # the room behind the heap's top
    for i in range(heap[at]):
        entry = at + HEADER + ENTRY * i
        if heap[entry] != 0:
            pairs[2 * n], pairs[2 * n + 1] = heap[entry + 1], heap[entry + 2]
            n += 1
    _sort_pairs(pairs, n, is_text, state.text)
    count = n if limit <= 0 else min(n, limit)
    text_room = np.int64(0)
    if is_text:
        for i in range(count):
            text_room += pairs[2 * i] & LONGEST_TEXT
    if short_of(tops, TOP_OUT_TEXT, state.out_text.shape[0], text_room):
        return False
    if short_of(tops, TOP_OUT_HEAP, state.out_heap.shape[0], 2 * count):
        return False
    state.out_valid[out, row] = VALUE
    state.out_words[out, row] = tops[TOP_OUT_HEAP] << LENGTH_BITS | count
    for i in range(count):
        value = pairs[2 * i]
        if is_text:
            value = copy_text(state.text, value, state.out_text, tops, TOP_OUT_TEXT)
        state.out_heap[tops[TOP_OUT_HEAP]] = plain_word(value, is_double)
        state.out_heap[tops[TOP_OUT_HEAP] + 1] = pairs[2 * i + 1]
        tops[TOP_OUT_HEAP] += 2
    return True


@njit(**INTERNAL)
def _give_distinct(state, out, row, at, start):
    heap, count = state.heap, np.int64(0)
    if at >= 0:
        for i in range(heap[at]):
            entry = at + HEADER + ENTRY * i
            if heap[entry] != 0 and heap[entry + 2] >= start:
                count += 1
    state.out_words[out, row] = count
    state.out_valid[out, row] = VALUE


@njit(**INTERNAL)
def _pour(heap, tops, into, other, mode, is_text, text):
    """Merge map `other` into map `into`, whose texts are in the same pool; returns where the map is now."""
    keep_inside()
    for i in range(heap[other]):
        entry = other + HEADER + ENTRY * i
        mark, value, number = heap[entry], heap[entry + 1], heap[entry + 2]
        if mark != 0:
            into, _ = _fold(heap, tops, into, mode, mark, value, is_text, number, text, text, _NEVER)
    return into


@njit(**INTERNAL)
def _copied(heap, tops, other):
    """A map like another, at the heap's top."""
    into, size = tops[TOP_HEAP], HEADER + ENTRY * heap[other]
    copy_items(heap, into, heap, other, size)
    tops[TOP_HEAP] = into + size
    return into


@njit(**INTERNAL)
def _merged(ops, op, n, records, base, mode, heap, tops, is_text, text):
    """Merge the maps of n records into one behind the heap's top, where the next fold will overwrite it; -1 for none."""
    there, largest = np.int64(0), np.int64(-1)
    for i in range(op + 3, op + 3 + n):
        other = records[base + ops[i]] - 1
        if other >= 0:
            there += 1
            if largest < 0 or heap[other] > heap[largest]:
                largest = other
    if there < 2:
        return largest
    into = _copied(heap, tops, largest)  # and the others poured into it
    for i in range(op + 3, op + 3 + n):
        other = records[base + ops[i]] - 1
        if other >= 0 and other != largest:
            into = _pour(heap, tops, into, other, mode, is_text, text)
    return into


@njit(**INTERNAL)
def _merge_room(ops, op, n, records, base, heap):
    total = np.int64(SMALLEST)
    for i in range(op + 3, op + 3 + n):
        other = records[base + ops[i]] - 1
        if other >= 0:
            total += heap[other + 1]
    return 16 * ENTRY * total


@Kernel
def run_tally(slot: int, op: int, n_ops: int, frame: int) -> int:
    """Walk the schedule for one count_distinct or histogram slot; stops early when a pool lacks room."""
    program, chunk, state = bundles(frame)
    ops, records, base, heap, text, tops = state.ops, state.records, state.slot_base[slot], state.heap, state.text, state.tops
    column, mode, span = program.slots[slot, SLOT_INPUT], program.slots[slot, SLOT_MODE], program.slots[slot, SLOT_SPAN]
    is_text = program.slots[slot, SLOT_BYTES] > 0
    while op < n_ops:
        word = ops[op]
        if word & 1 == 0:
            at = base + ((word >> 2) & 0x7FFFFFFF)
            done, tops[ROWS_DONE] = tops[ROWS_DONE], 0
            if word & 2 and done == 0:
                records[at] = 0
            for row in range((word >> 33) + done, ops[op + 1]):
                if not chunk.valid[column, row]:
                    continue
                value = chunk.inputs[column, row]
                held = HEADER + ENTRY * heap[records[at] - 1] if records[at] > 0 else np.int64(0)
                if short_of(tops, TOP_HEAP, heap.shape[0], 4 * held + 4 * (HEADER + ENTRY * SMALLEST)) or (
                    is_text and short_of(tops, TOP_TEXT, text.shape[0], value & LONGEST_TEXT)
                ):
                    tops[ROWS_DONE] = row - (word >> 33)
                    return op
                if records[at] == 0:
                    records[at] = _new_map(heap, tops, np.int64(SMALLEST)) + 1
                mark = hash_text(chunk.text, value) if is_text else hash_word(value)
                number = chunk.event_time[row] if mode > 0 else np.int64(1)
                oldest = chunk.instant[row] - span if mode > 0 and span >= 0 else _NEVER
                place, entry = _fold(heap, tops, records[at] - 1, mode, mark, value, is_text, number, chunk.text, text, oldest)
                if is_text and entry >= 0:
                    heap[entry + 1] = copy_text(chunk.text, value, text, tops, TOP_TEXT)
                records[at] = place + 1
            op += 2
        elif word & 2:
            into, other = base + ((word >> 3) & 0x3FFFFFFF), records[base + (word >> 33)] - 1
            if word & 4:
                records[into] = 0
            if other >= 0:
                total = SMALLEST + heap[other + 1] + (heap[records[into] - 1 + 1] if records[into] > 0 else 0)
                if short_of(tops, TOP_HEAP, heap.shape[0], 16 * ENTRY * total):
                    return op
                if records[into] > 0:
                    records[into] = _pour(heap, tops, records[into] - 1, other, mode, is_text, text) + 1
                else:
                    records[into] = _copied(heap, tops, other) + 1
            op += 1
        else:
            n = word >> 33
            window = (word >> 2) & 0x7FFFFFFF
            if program.routes[slot, window, 1] > 0:
                if n > 1 and short_of(tops, TOP_HEAP, heap.shape[0], _merge_room(ops, op, n, records, base, heap)):
                    return op
                top = tops[TOP_HEAP]
                at = _merged(ops, op, n, records, base, mode, heap, tops, is_text, text)
                for o in range(program.routes[slot, window, 0], program.routes[slot, window, 0] + program.routes[slot, window, 1]):
                    out, row = program.outputs[o, OUTPUT_COLUMN], ops[op + 1]
                    if program.outputs[o, OUTPUT_FINAL] == AS_DISTINCT:
                        _give_distinct(state, out, row, at, ops[op + 2])
                    elif at < 0:
                        state.out_words[out, row], state.out_valid[out, row] = 0, NULL
                    elif not _give_histogram(
                        state, out, row, at, program.slots[slot, SLOT_LIMIT], is_text, program.outputs[o, OUTPUT_DOUBLE]
                    ):
                        tops[TOP_HEAP] = top
                        return op
                tops[TOP_HEAP] = top
            op += 3 + n
    return op
