"""Keep the newest rows of a key as they are: those that are not folded yet.

A head is int64 words: SHAPE, bytes of TEXT, the RUN that wrote it, then visible instants, event times where they are others,
and for each input a word of each row, then validities where one is not 1; the text behind.  Texts are relative to it.
SHAPE is the number of rows, and bits for what is left out: the event times, and the validities of each of the first inputs.
"""

import numpy as np
from numba import njit

from featreg.algebra.flags import ENTRY, INTERNAL
from featreg.algebra.pools import copy_items
from featreg.algebra.schedule import LENGTH_BITS, LONGEST_TEXT

HEAD_SHAPE, HEAD_TEXT, HEAD_RUN, HEAD_VALUES = range(4)
NO_RUN = -1
_ROWS = np.int64((1 << 40) - 1)  # bits of SHAPE that are the number of rows
_NO_EVENTS = np.int64(1 << 40)
_WHOLE, _MOST_WHOLE = 41, 20  # the bit of the first input without validities, and how many inputs have one


def head_rows(heads: np.ndarray, starts: np.ndarray) -> int:
    """How many rows m heads have, key k's at `heads[starts[k]:starts[k + 1]]`."""
    known = starts[:-1][starts[1:] > starts[:-1]]
    return int((heads[known + HEAD_SHAPE] & _ROWS).sum())


def head_runs(heads: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The run that wrote each of m heads, key k's at `heads[starts[k]:starts[k + 1]]`; NO_RUN where there is none."""
    known = starts[1:] > starts[:-1]
    runs = np.full(len(known), NO_RUN, np.int64)
    runs[known] = heads[starts[:-1][known] + HEAD_RUN]
    return runs


@njit(**INTERNAL)
def rows_of(heads, starts, k):
    """How many rows the head of key k has."""
    return heads[starts[k] + HEAD_SHAPE] & _ROWS if starts[k + 1] > starts[k] else np.int64(0)


@njit(**ENTRY)
def lay_out_rows(heads, starts, cutoffs, chunk):
    """Write the head rows of m keys with `v < cutoffs[k]`, and behind each key's rows its spine row k (unless cutoffs are empty).

    Without cutoffs every row is written.  Returns the number of rows, or -1 when the chunk is too small.
    """
    row, text_at = np.int64(0), np.int64(0)
    texts = heads.view(np.uint8)
    asked = cutoffs.shape[0] > 0
    n_inputs = chunk.inputs.shape[0]
    for k in range(starts.shape[0] - 1):
        at = starts[k]
        n = rows_of(heads, starts, k)
        shape = heads[at + HEAD_SHAPE] if n > 0 else np.int64(0)
        text_bytes = heads[at + HEAD_TEXT] if n > 0 else np.int64(0)
        if row + n + 1 > chunk.key_index.shape[0] or text_at + text_bytes > chunk.text.shape[0]:
            return -1
        first, visible_at = row, at + HEAD_VALUES
        event_at = visible_at if shape & _NO_EVENTS else visible_at + n
        place = event_at + n
        for i in range(n):
            visible = heads[visible_at + i]
            if asked and visible >= cutoffs[k]:
                continue
            chunk.key_index[row], chunk.spine_row[row] = k, -1
            chunk.instant[row], chunk.event_time[row] = visible, heads[event_at + i]
            row += 1
        for column in range(n_inputs):
            is_whole = column < _MOST_WHOLE and (shape >> (_WHOLE + column) & 1) == 1
            moved, to = chunk.shift[column] * (text_at << LENGTH_BITS), first
            for i in range(n):
                if asked and heads[visible_at + i] >= cutoffs[k]:
                    continue
                chunk.inputs[column, to] = heads[place + i] + moved
                chunk.valid[column, to] = 1 if is_whole else heads[place + n + i]
                to += 1
            place += n if is_whole else 2 * n
        copy_items(chunk.text, text_at, texts, 8 * place, text_bytes)
        text_at += text_bytes
        if asked:
            chunk.key_index[row], chunk.spine_row[row], chunk.instant[row] = k, k, cutoffs[k]
            row += 1
    return row


@njit(**ENTRY)
def count_rows(heads, begins, ends, before, counts):
    """counts [2, m]: how many rows each head has, and how many of them are visible before an instant.  As in `pack_heads`."""
    for k in range(begins.shape[0]):
        at = begins[k]
        n = heads[at + HEAD_SHAPE] & _ROWS if ends[k] > at else np.int64(0)
        seen = 0
        for i in range(n):
            seen += heads[at + HEAD_VALUES + i] < before
        counts[0, k], counts[1, k] = n, seen


@njit(**ENTRY)
def pack_heads(heads, begins, ends, order, keys, runs, chunk, out, out_ends):
    """Write the heads of all keys, some of no row: what the head of key k has now, at `heads[begins[k]:ends[k]]`, and behind it those of
    the rows `order` of the chunk (sorted by key) that are the key's; False when `out` is too small.

    runs [keys]: what each head says of the run that wrote it.  Costs a copy of each head, and a step for each row.
    """
    n_inputs, place, to = chunk.inputs.shape[0], np.int64(0), np.int64(0)
    sources, texts = heads.view(np.uint8), out.view(np.uint8)
    for k in range(keys):
        first = place
        while place < order.shape[0] and chunk.key_index[order[place]] == k:
            place += 1
        at, had, more = begins[k], ends[k] > begins[k], place - first
        old_shape = heads[at + HEAD_SHAPE] if had else np.int64(-1) & ~_ROWS
        old = old_shape & _ROWS
        if old == 0:
            old_shape = np.int64(-1) & ~_ROWS
        n, shape = old + more, old_shape & ~_ROWS & ((np.int64(1) << (_WHOLE + _MOST_WHOLE)) - 1)
        for i in range(first, place):
            row = order[i]
            if chunk.event_time[row] != chunk.instant[row]:
                shape &= ~_NO_EVENTS
            for column in range(min(n_inputs, _MOST_WHOLE)):
                if chunk.valid[column, row] != 1:
                    shape &= ~(np.int64(1) << (_WHOLE + column))
        if to + HEAD_VALUES + 2 * n * (1 + n_inputs) > out.shape[0]:
            return False
        old_at, new_at = at + HEAD_VALUES, to + HEAD_VALUES
        copy_items(out, new_at, heads, old_at, old)
        for i in range(more):
            out[new_at + old + i] = chunk.instant[order[first + i]]
        old_events = old_at if old_shape & _NO_EVENTS else old_at + old
        new_at += n
        if not shape & _NO_EVENTS:
            copy_items(out, new_at, heads, old_events, old)
            for i in range(more):
                out[new_at + old + i] = chunk.event_time[order[first + i]]
            new_at += n
        old_at = old_events + old
        words_at = new_at
        for column in range(n_inputs):
            was_whole = column < _MOST_WHOLE and (old_shape >> (_WHOLE + column) & 1) == 1
            is_whole = column < _MOST_WHOLE and (shape >> (_WHOLE + column) & 1) == 1
            copy_items(out, new_at, heads, old_at, old)
            old_at += old
            for i in range(more):
                row = order[first + i]
                out[new_at + old + i] = chunk.inputs[column, row] if chunk.valid[column, row] else 0
            new_at += n
            if not is_whole:
                if was_whole:
                    for i in range(old):
                        out[new_at + i] = 1
                else:
                    copy_items(out, new_at, heads, old_at, old)
                for i in range(more):
                    out[new_at + old + i] = chunk.valid[column, order[first + i]]
                new_at += n
            if not was_whole:
                old_at += old
        used = heads[at + HEAD_TEXT] if old > 0 else np.int64(0)
        if 8 * new_at + used + 8 > texts.shape[0]:
            return False
        copy_items(texts, 8 * new_at, sources, 8 * old_at, used)
        for column in range(n_inputs):
            if chunk.shift[column]:
                for i in range(more):
                    row = order[first + i]
                    if chunk.valid[column, row]:
                        word = chunk.inputs[column, row]
                        length = word & LONGEST_TEXT
                        if 8 * new_at + used + length + 8 > texts.shape[0]:
                            return False
                        copy_items(texts, 8 * new_at + used, chunk.text, word >> LENGTH_BITS, length)
                        out[words_at + old + i] = used << LENGTH_BITS | length
                        used += length
            words_at += n if column < _MOST_WHOLE and (shape >> (_WHOLE + column) & 1) == 1 else 2 * n
        out[to + HEAD_SHAPE], out[to + HEAD_TEXT], out[to + HEAD_RUN] = n | shape, used, runs[k]
        padding = (8 - used % 8) % 8
        for j in range(padding):
            texts[8 * new_at + used + j] = 0
        to = new_at + ((used + 7) >> 3)
        out_ends[k] = to
    return True
