"""Keep the newest rows of a key as they are: those that are not folded yet.

A head is int64 words: rows n, bytes of TEXT, the RUN that wrote it, then visible instants, event times, and
for each input n words and n validities; the text behind.  Texts are relative to it.
"""

import numpy as np
from numba import njit

from featreg.algebra.pools import copy_items
from featreg.algebra.schedule import LENGTH_BITS, LONGEST_TEXT

HEAD_ROWS, HEAD_TEXT, HEAD_RUN, HEAD_VALUES = range(4)
NO_RUN = -1


def head_runs(heads: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The run that wrote each of m heads, key k's at `heads[starts[k]:starts[k + 1]]`; NO_RUN where there is none."""
    known = starts[1:] > starts[:-1]
    runs = np.full(len(known), NO_RUN, np.int64)
    runs[known] = heads[starts[:-1][known] + HEAD_RUN]
    return runs


@njit(cache=True, nogil=True)
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
        n = heads[at + HEAD_ROWS] if starts[k + 1] > at else np.int64(0)
        text_bytes = heads[at + HEAD_TEXT] if n > 0 else np.int64(0)
        if row + n + 1 > chunk.key_index.shape[0] or text_at + text_bytes > chunk.text.shape[0]:
            return -1
        begin = 8 * (at + HEAD_VALUES + 2 * n * (1 + n_inputs))
        copy_items(chunk.text, text_at, texts, begin, text_bytes)
        for i in range(n):
            visible = heads[at + HEAD_VALUES + i]
            if asked and visible >= cutoffs[k]:
                continue
            chunk.key_index[row], chunk.spine_row[row] = k, -1
            chunk.instant[row], chunk.event_time[row] = visible, heads[at + HEAD_VALUES + n + i]
            for column in range(n_inputs):
                place = at + HEAD_VALUES + 2 * n * (1 + column) + i
                chunk.inputs[column, row] = heads[place] + chunk.shift[column] * (text_at << LENGTH_BITS)
                chunk.valid[column, row] = heads[place + n]
            row += 1
        text_at += text_bytes
        if asked:
            chunk.key_index[row], chunk.spine_row[row], chunk.instant[row] = k, k, cutoffs[k]
            row += 1
    return row


@njit(cache=True, nogil=True)
def pack_heads(key_index, order, keys, runs, chunk, out, ends):
    """Write the heads of all keys from rows `order` (sorted by key) of the chunk, some of no row; False when `out` is too small.

    runs [keys]: what each head says of the run that wrote it.
    """
    n_inputs, place, to = chunk.inputs.shape[0], np.int64(0), np.int64(0)
    for k in range(keys):
        first = place
        while place < order.shape[0] and key_index[order[place]] == k:
            place += 1
        n = place - first
        if to + HEAD_VALUES + 2 * n * (1 + n_inputs) > out.shape[0]:
            return False
        text_at = to + HEAD_VALUES + 2 * n * (1 + n_inputs)
        texts, used = out.view(np.uint8), np.int64(0)
        for i in range(n):
            row = order[first + i]
            out[to + HEAD_VALUES + i] = chunk.instant[row]
            out[to + HEAD_VALUES + n + i] = chunk.event_time[row]
            for column in range(n_inputs):
                at = to + HEAD_VALUES + 2 * n * (1 + column) + i
                word = chunk.inputs[column, row]
                there = chunk.valid[column, row]
                if chunk.shift[column] and there:
                    length = word & LONGEST_TEXT
                    if 8 * text_at + used + length + 8 > texts.shape[0]:
                        return False
                    copy_items(texts, 8 * text_at + used, chunk.text, word >> LENGTH_BITS, length)
                    word = used << LENGTH_BITS | length
                    used += length
                out[at] = word if there else 0
                out[at + n] = there
        out[to + HEAD_ROWS], out[to + HEAD_TEXT], out[to + HEAD_RUN] = n, used, runs[k]
        padding = (8 - used % 8) % 8
        for j in range(padding):
            texts[8 * text_at + used + j] = 0
        to = text_at + ((used + 7) >> 3)
        ends[k] = to
    return True
