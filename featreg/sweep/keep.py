"""Put the state of keys into bytes, and take it out again: what the online store holds.

The state of a key, int64 words in this order: FORM, S (rows seen before it are folded),
RUN that wrote it, words of HEAP, bytes of TEXT, tiles per level; tile numbers by level;
records by slot, in the order of the tiles; heap; text.  Handles and texts are relative
to its own heap and text, so it can lie anywhere.  Dead tiles, left-behind maps and
texts are not written: the bytes of a key depend on its live tiles alone.
"""

import numpy as np
from numba import njit

from featreg.algebra import flags
from featreg.algebra.exact import DSUM_WORDS as _  # noqa: F401  exact arithmetic must be there before cached kernels are
from featreg.algebra.exact import MOMENTS_WIDE_WORDS, SUM_WIDE_WORDS
from featreg.algebra.frame import bundles
from featreg.algebra.pools import copy_items, copy_text
from featreg.algebra.ranked import PART_TEXT
from featreg.algebra.schedule import (
    GROUP_FIRST_LEVEL,
    GROUP_FIRST_SLOT,
    GROUP_HOP,
    GROUP_LEVELS,
    GROUP_SLOTS,
    GROUP_SPAN,
    LENGTH_BITS,
    MOMENTS,
    NO_START,
    RANKED,
    SLOT_BYTES,
    SLOT_FIRST_PART,
    SLOT_KIND,
    SLOT_LIMIT,
    SLOT_MODE,
    SLOT_PARTS,
    SLOT_SPAN,
    SLOT_WIDTH,
    SUM,
    TALLY,
    TOP_HEAP,
    TOP_OUT_TEXT,
    TOP_TEXT,
)
from featreg.algebra.tally import ENTRY, HEADER
from featreg.sweep.tiles import FEW, STATE_CAPACITY, STATE_FREE, STATE_KEY, STATE_NEXT

FORM = 1
TEXT_COPIES = 8
AT_FORM, AT_S, AT_RUN, AT_HEAP, AT_TEXT, AT_COUNTS = range(6)
READY, SHORT_TILES, SHORT_RECORDS, SHORT_HEAP, SHORT_TEXT = range(5)


@njit(**flags.INTERNAL)
def _handle_place(kind):
    """Where in a record its handle into the heap is; -1 for none."""
    if kind == SUM:
        return 4
    if kind == MOMENTS:
        return 8
    return 0 if kind == TALLY else -1


@njit(**flags.INTERNAL)
def _move_records(program, slot, records, at, count, heap, heap_by, text_by):
    """Make `count` records that were copied with their whole heap and text point to where those are now."""
    kind, width, is_text = program.slots[slot, SLOT_KIND], program.slots[slot, SLOT_WIDTH], program.slots[slot, SLOT_BYTES] > 0
    if kind == RANKED:
        first, n = program.slots[slot, SLOT_FIRST_PART], program.slots[slot, SLOT_PARTS]
        for part in range(n):
            if program.parts[first + part, PART_TEXT]:
                for record in range(at, at + count * width, width):
                    for begin in range(record + 1, record + 1 + records[record] * (n + 1), n + 1):
                        if (records[begin] >> part) & 1:
                            records[begin + 1 + part] += text_by << LENGTH_BITS
    elif kind == TALLY:
        for record in range(at, at + count):
            if records[record] > 0:
                records[record] += heap_by
                block = records[record] - 1
                if is_text:
                    for entry in range(block + HEADER, block + HEADER + ENTRY * heap[block], ENTRY):
                        if heap[entry] != 0:
                            heap[entry + 1] += text_by << LENGTH_BITS
    elif kind == SUM or kind == MOMENTS:
        for handle in range(at + _handle_place(kind), at + count * width, width):
            if records[handle] >> 3 > 0:
                records[handle] += heap_by << 3


@njit(**flags.ENTRY)
def load_keys(frame, words, starts, more):
    """Take the states of m keys (key k at `words[starts[k]:starts[k + 1]]`, none when empty) into the state of the frame at this address.

    more [m]: how many rows will come to a key, each a tile at most.
    Returns READY, or what there is too little room for; then nothing that was loaded counts.
    """
    program, _chunk, state = bundles(frame)
    n_levels, n_groups = program.shifts.shape[0], program.groups.shape[0]
    tops = state.tops
    tops[TOP_HEAP] = tops[TOP_TEXT] = 0
    for g in range(n_groups):
        state.group_state[g, STATE_NEXT], state.group_state[g, STATE_FREE], state.group_state[g, STATE_KEY] = 1, 0, -1
    place, coming = np.int64(0), np.int64(0)
    texts = words.view(np.uint8)
    for k in range(starts.shape[0] - 1):
        coming += more[k] + FEW + 2
        at = starts[k]
        known = starts[k + 1] > at
        number_at = at + AT_COUNTS + n_levels
        for level in range(n_levels):
            count = words[at + AT_COUNTS + level] if known else np.int64(0)
            room = count + more[k] + FEW + 2  # beginning the coarser tiles makes one of each of a few fine ones
            if place + room > state.tile_number.shape[0]:
                return SHORT_TILES
            state.carried[k, level, 0], state.carried[k, level, 1], state.carried[k, level, 2] = place, count, room
            copy_items(state.tile_number, place, words, number_at, count)
            number_at += count
            place += room
        heap_by, text_by = tops[TOP_HEAP], tops[TOP_TEXT]
        heap_words = words[at + AT_HEAP] if known else np.int64(0)
        text_bytes = words[at + AT_TEXT] if known else np.int64(0)
        if heap_by + heap_words > state.heap.shape[0]:
            return SHORT_HEAP
        if text_by + text_bytes > state.text.shape[0]:
            return SHORT_TEXT
        heap_at = number_at
        for g in range(n_groups):
            total = np.int64(0)
            for level in range(
                program.groups[g, GROUP_FIRST_LEVEL], program.groups[g, GROUP_FIRST_LEVEL] + program.groups[g, GROUP_LEVELS]
            ):
                total += state.carried[k, level, 1]
            for slot in range(program.groups[g, GROUP_FIRST_SLOT], program.groups[g, GROUP_FIRST_SLOT] + program.groups[g, GROUP_SLOTS]):
                heap_at += total * program.slots[slot, SLOT_WIDTH]
        copy_items(state.heap, heap_by, words, heap_at, heap_words)
        copy_items(state.text, text_by, texts, 8 * (heap_at + heap_words), text_bytes)
        tops[TOP_HEAP], tops[TOP_TEXT] = heap_by + heap_words, text_by + text_bytes
        record_at = number_at
        for g in range(n_groups):
            n_group_levels = program.groups[g, GROUP_LEVELS]
            first = state.group_state[g, STATE_NEXT]
            total = np.int64(0)
            for level in range(program.groups[g, GROUP_FIRST_LEVEL], program.groups[g, GROUP_FIRST_LEVEL] + n_group_levels):
                for i in range(state.carried[k, level, 1]):
                    state.tile_record[state.carried[k, level, 0] + i] = first + total
                    total += 1
            if first + total + coming * n_group_levels > state.group_state[g, STATE_CAPACITY]:
                return SHORT_RECORDS
            state.group_state[g, STATE_NEXT] = first + total
            for slot in range(program.groups[g, GROUP_FIRST_SLOT], program.groups[g, GROUP_FIRST_SLOT] + program.groups[g, GROUP_SLOTS]):
                width = program.slots[slot, SLOT_WIDTH]
                to = state.slot_base[slot] + first * width
                copy_items(state.records, to, words, record_at, total * width)
                record_at += total * width
                if heap_words > 0 or text_bytes > 0:
                    _move_records(program, slot, state.records, to, total, state.heap, heap_by, text_by)
    return READY


@njit(**flags.INTERNAL)
def _live_words(program, state, k, s):
    """Drop the tiles of key k that no window at or after `s` sees; the words that its state takes, at most, without text."""
    n_levels = program.shifts.shape[0]
    size = np.int64(AT_COUNTS) + n_levels
    for g in range(program.groups.shape[0]):
        hop, span = program.groups[g, GROUP_HOP], program.groups[g, GROUP_SPAN]
        for level in range(program.groups[g, GROUP_FIRST_LEVEL], program.groups[g, GROUP_FIRST_LEVEL] + program.groups[g, GROUP_LEVELS]):
            if span >= 0:
                bound = ((s - span) // hop) >> program.shifts[level]
                while state.carried[k, level, 1] > 0 and state.tile_number[state.carried[k, level, 0]] < bound:
                    state.carried[k, level, 0] += 1
                    state.carried[k, level, 1] -= 1
            count = state.carried[k, level, 1]
            size += count
            for slot in range(program.groups[g, GROUP_FIRST_SLOT], program.groups[g, GROUP_FIRST_SLOT] + program.groups[g, GROUP_SLOTS]):
                width, place = program.slots[slot, SLOT_WIDTH], _handle_place(program.slots[slot, SLOT_KIND])
                size += count * width
                if place < 0:
                    continue
                for i in range(count):
                    at = state.slot_base[slot] + state.tile_record[state.carried[k, level, 0] + i] * width
                    size += _block_words(program.slots[slot, SLOT_KIND], state.records[at + place], state.heap)
    return size


@njit(**flags.INTERNAL)
def _block_words(kind, handle, heap):
    if kind == TALLY:
        return HEADER + ENTRY * heap[handle - 1] if handle > 0 else np.int64(0)
    if handle >> 3 == 0:
        return np.int64(0)
    return np.int64(SUM_WIDE_WORDS) if kind == SUM else np.int64(MOMENTS_WIDE_WORDS)


@njit(**flags.INTERNAL)
def _write_record(program, slot, state, at, out, to, heap_at, heap_used, s):
    """Copy a record to `out[to]`, what it holds behind it; texts go to `out_text`.  Returns the words of heap used now."""
    kind, width, is_text = program.slots[slot, SLOT_KIND], program.slots[slot, SLOT_WIDTH], program.slots[slot, SLOT_BYTES] > 0
    records, heap, tops = state.records, state.heap, state.tops
    for i in range(width):
        out[to + i] = records[at + i]
    if kind == RANKED:
        first, n = program.slots[slot, SLOT_FIRST_PART], program.slots[slot, SLOT_PARTS]
        for entry in range(records[at], program.slots[slot, SLOT_LIMIT]):
            for i in range(n + 1):
                out[to + 1 + entry * (n + 1) + i] = 0
        for entry in range(records[at]):
            begin = 1 + entry * (n + 1)
            for i in range(n):
                if program.parts[first + i, PART_TEXT] and (records[at + begin] >> i) & 1:
                    out[to + begin + 1 + i] = copy_text(state.text, records[at + begin + 1 + i], state.out_text, tops, TOP_OUT_TEXT)
    elif kind == TALLY and records[at] > 0:
        return _write_map(program, slot, state, records[at] - 1, out, to, heap_at, heap_used, s, is_text)
    elif kind == SUM or kind == MOMENTS:
        place = _handle_place(kind)
        size = _block_words(kind, records[at + place], heap)
        if size > 0:
            block = (records[at + place] >> 3) - 1
            copy_items(out, heap_at + heap_used, heap, block, size)
            out[to + place] = (records[at + place] & 7) | (heap_used + 1) << 3
            return heap_used + size
    return heap_used


@njit(**flags.INTERNAL)
def _write_map(program, slot, state, block, out, to, heap_at, heap_used, s, is_text):
    """Copy the live entries of a map into one that fits them."""
    heap = state.heap
    span = program.slots[slot, SLOT_SPAN]
    oldest = s - span if program.slots[slot, SLOT_MODE] > 0 and span >= 0 else np.int64(NO_START)
    live = np.int64(0)
    for i in range(heap[block]):
        entry = block + HEADER + ENTRY * i
        if heap[entry] != 0 and heap[entry + 2] >= oldest:
            live += 1
    capacity = np.int64(4)
    while 3 * capacity < 4 * live:
        capacity *= 2
    new = heap_at + heap_used
    out[new], out[new + 1] = capacity, live
    for i in range(ENTRY * capacity):
        out[new + HEADER + i] = 0
    for i in range(heap[block]):
        entry = block + HEADER + ENTRY * i
        if heap[entry] != 0 and heap[entry + 2] >= oldest:
            place = (heap[entry] >> 1) & (capacity - 1)
            while out[new + HEADER + ENTRY * place] != 0:
                place = (place + 1) & (capacity - 1)
            free = new + HEADER + ENTRY * place
            out[free], out[free + 1], out[free + 2] = heap[entry], heap[entry + 1], heap[entry + 2]
            if is_text:
                out[free + 1] = copy_text(state.text, heap[entry + 1], state.out_text, state.tops, TOP_OUT_TEXT)
    out[to] = heap_used + 1
    return heap_used + HEADER + ENTRY * capacity


@njit(**flags.ENTRY)
def dump_keys(frame, k, keys, s, run, out, ends):
    """Write the states of keys from k on into `out`, key i ending at `ends[i]`; returns the first key there was no room for.

    The first of a call begins at `ends[k - 1]`, or 0.  Texts pass through `out_text`, which must hold
    TEXT_COPIES times `text`, for every level has its own.
    """
    program, _chunk, state = bundles(frame)
    n_levels = program.shifts.shape[0]
    while k < keys:
        begin = ends[k - 1] if k > 0 else np.int64(0)
        text_most = (TEXT_COPIES * state.tops[TOP_TEXT] + 7) >> 3
        if begin + _live_words(program, state, k, s) + text_most > out.shape[0]:
            return k
        state.tops[TOP_OUT_TEXT] = 0
        at = begin + AT_COUNTS + n_levels
        for level in range(n_levels):
            start, count = state.carried[k, level, 0], state.carried[k, level, 1]
            out[begin + AT_COUNTS + level] = count
            copy_items(out, at, state.tile_number, start, count)
            at += count
        heap_at = at
        for g in range(program.groups.shape[0]):
            for level in range(
                program.groups[g, GROUP_FIRST_LEVEL], program.groups[g, GROUP_FIRST_LEVEL] + program.groups[g, GROUP_LEVELS]
            ):
                for slot in range(
                    program.groups[g, GROUP_FIRST_SLOT], program.groups[g, GROUP_FIRST_SLOT] + program.groups[g, GROUP_SLOTS]
                ):
                    heap_at += state.carried[k, level, 1] * program.slots[slot, SLOT_WIDTH]
        heap_used = np.int64(0)
        for g in range(program.groups.shape[0]):
            for slot in range(program.groups[g, GROUP_FIRST_SLOT], program.groups[g, GROUP_FIRST_SLOT] + program.groups[g, GROUP_SLOTS]):
                width = program.slots[slot, SLOT_WIDTH]
                for level in range(
                    program.groups[g, GROUP_FIRST_LEVEL], program.groups[g, GROUP_FIRST_LEVEL] + program.groups[g, GROUP_LEVELS]
                ):
                    for i in range(state.carried[k, level, 1]):
                        record = state.slot_base[slot] + state.tile_record[state.carried[k, level, 0] + i] * width
                        heap_used = _write_record(program, slot, state, record, out, at, heap_at, heap_used, s)
                        at += width
        text_bytes = state.tops[TOP_OUT_TEXT]
        end = heap_at + heap_used + ((text_bytes + 7) >> 3)
        texts = out.view(np.uint8)
        if text_bytes > 0:
            out[end - 1] = 0
            copy_items(texts, 8 * (heap_at + heap_used), state.out_text, np.int64(0), text_bytes)
        out[begin + AT_FORM], out[begin + AT_S], out[begin + AT_RUN] = FORM, s, run
        out[begin + AT_HEAP], out[begin + AT_TEXT] = heap_used, text_bytes
        ends[k] = end
        k += 1
    return k
