"""Bring the rows of a share together by key: the spine's questions and the events that they can see, each key's in order of time.

Events behind a key's last question go no further.  What a scan finds is most often in
order of time already; only the rows of keys that are not are sorted.
"""

import numpy as np
from numba import njit

from featreg.algebra.flags import ALLOCATING, INTERNAL
from featreg.algebra.schedule import NO_START, Chunk
from featreg.sweep.shares import Shares

RUN = 12  # so many rows are sorted by insertion


def chunk_of(
    events: Shares, spine: Shares, event_starts: np.ndarray, spine_starts: np.ndarray, share: int, keys: int, shift: np.ndarray
) -> tuple[Chunk, bool]:
    """The rows of one share, sorted by (key, instant, spine before events), and whether no key's event times step back.

    *_starts: as `Shares.starts` gives · keys: how many there are in all shares · shift: as in `Chunk`.
    """
    bits = events.share_bits
    most = (keys >> bits) + 1
    seen, seen_begins = by_key(
        events.keys, events.words, event_starts[:, share], event_starts[:, share + 1], 0, events.instants - 1, bits, most
    )
    asked, asked_begins = by_key(spine.keys, spine.words, spine_starts[:, share], spine_starts[:, share + 1], 0, 0, bits, most)
    source, key_index, spine_row, instant, event_time, in_order = walk_together(
        events.words, seen, seen_begins, spine.words, asked, asked_begins
    )
    inputs, valid = np.empty((len(events.inputs), len(source)), np.int64), np.empty((len(events.inputs), len(source)), np.uint8)
    for column, held in enumerate(events.inputs):
        held.take(source, inputs[column], valid[column])
    return Chunk(key_index, spine_row, instant, event_time, inputs, valid, events.text, shift), in_order


@njit(**INTERNAL)
def _is_before(words, first, second, a, b):
    if words[first, a] != words[first, b]:
        return words[first, a] < words[first, b]
    return words[second, a] < words[second, b]


@njit(**INTERNAL)
def _is_sorted(rows, low, high, words, first, second):
    for at in range(low + 1, high):
        if _is_before(words, first, second, rows[at], rows[at - 1]):
            return False
    return True


@njit(**INTERNAL)
def _sort(rows, words, first, second, spare):
    """Sort row numbers by `words[first]`, then `words[second]`: runs by insertion, then merged where they are not in order already."""
    n = rows.shape[0]
    for begin in range(0, n, RUN):
        for i in range(begin + 1, min(begin + RUN, n)):
            row, to = rows[i], i
            while to > begin and _is_before(words, first, second, row, rows[to - 1]):
                rows[to] = rows[to - 1]
                to -= 1
            rows[to] = row
    width = RUN
    while width < n:
        for begin in range(0, n - width, 2 * width):
            middle, end = begin + width, min(begin + 2 * width, n)
            if not _is_before(words, first, second, rows[middle], rows[middle - 1]):
                continue
            for i in range(begin, middle):
                spare[i] = rows[i]
            left, right, to = begin, middle, begin
            while left < middle:
                if right < end and _is_before(words, first, second, rows[right], spare[left]):
                    rows[to] = rows[right]
                    right += 1
                else:
                    rows[to] = spare[left]
                    left += 1
                to += 1
        width *= 2


@njit(**ALLOCATING)
def by_key(keys, words, lows, highs, first, second, bits, most):
    """Rows lows[b]..highs[b] of all batches b by key and, of each key, in order of (words[first], words[second]).

    Returns their numbers, and where each key of the share begins [most + 1]; its number in the share is without the low `bits`.
    """
    begins, n = np.zeros(most + 1, np.int64), np.int64(0)
    for batch in range(lows.shape[0]):
        n += highs[batch] - lows[batch]
        for row in range(lows[batch], highs[batch]):
            begins[(keys[row] >> bits) + 1] += 1
    for key in range(most):
        begins[key + 1] += begins[key]
    ordered, to = np.empty(n, np.int32), begins[:-1].copy()
    for batch in range(lows.shape[0]):
        for row in range(lows[batch], highs[batch]):
            key = keys[row] >> bits
            ordered[to[key]] = row
            to[key] += 1
    spare = ordered[:0]
    for key in range(most):
        low, high = begins[key], begins[key + 1]
        if not _is_sorted(ordered, low, high, words, first, second):
            if spare.shape[0] < high - low:
                spare = np.empty(high - low, np.int32)
            _sort(ordered[low:high], words, first, second, spare)
    return ordered, begins


@njit(**ALLOCATING)
def walk_together(words, seen, seen_begins, spine_words, asked, asked_begins):
    """Lay out rows as a chunk has them: source (the event, -1 for a question), key_index, spine_row, instant, event_time.

    And whether no key's event times step back.  words: of events, the visible instant and, where it is another, the event time ·
    spine_words: cutoffs, and numbers of spine rows · seen, asked: which rows, by key, each key's from *_begins[key].
    """
    n = np.int64(asked.shape[0])
    for key in range(seen_begins.shape[0] - 1):
        if asked_begins[key] < asked_begins[key + 1]:
            cutoff, at = spine_words[0, asked[asked_begins[key + 1] - 1]], seen_begins[key]
            while at < seen_begins[key + 1] and words[0, seen[at]] < cutoff:
                at += 1
            n += at - seen_begins[key]
    source, key_index, spine_row, instant = np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    to = np.int64(0)
    for key in range(seen_begins.shape[0] - 1):
        at, end = seen_begins[key], seen_begins[key + 1]
        for question in range(asked_begins[key], asked_begins[key + 1]):
            cutoff = spine_words[0, asked[question]]
            while at < end and words[0, seen[at]] < cutoff:
                source[to], key_index[to], spine_row[to], instant[to] = seen[at], key, -1, words[0, seen[at]]
                at += 1
                to += 1
            source[to], key_index[to], spine_row[to], instant[to] = -1, key, spine_words[1, asked[question]], cutoff
            to += 1
    event_time, in_order, newest = instant, True, np.int64(NO_START)
    if words.shape[0] > 1:
        event_time = np.empty(n, np.int64)
        for i in range(n):
            event_time[i] = words[1, source[i]] if source[i] >= 0 else instant[i]
            if i == 0 or key_index[i] != key_index[i - 1]:
                newest = np.int64(NO_START)
            if source[i] >= 0:
                in_order &= event_time[i] >= newest
                newest = event_time[i]
    return source, key_index, spine_row, instant, event_time, in_order
