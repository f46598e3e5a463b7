"""Hold scanned rows as words, dealt into shares of the keys.

A share is all rows of some keys, a few ten thousand, so that what is done with it stays
in a cache.  Each batch is dealt when it comes and lies share by share, so a share is a
slice of every batch, in the order of the scan.  Memory: four bytes for the key's number,
a word for each instant and input, and texts; what is always zero takes none, so that
NULLs are marked for free where there are none, and a small integer has half a word.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numba import njit

from featreg.algebra.flags import ALLOCATING, ENTRY
from featreg.sweep.words import WordWriter
from featreg.vocabulary import BIGINT, DataType

SHARE_ROWS, MOST_SHARE_BITS = 1 << 15, 9
LEAST_TEXT = 1 << 16


def share_bits_for(rows: int) -> int:
    """Shares are two to this power; the share of a key is in so many low bits of its number."""
    return min(MOST_SHARE_BITS, (rows // SHARE_ROWS).bit_length())


class Held:
    """One input of the rows held, as the two halves of its words, and where it is NULL [capacity]; zeros not written are no memory."""

    def __init__(self, capacity: int):
        self.low, self.high = np.zeros(capacity, np.uint32), np.zeros(capacity, np.int32)
        self.null = np.zeros(capacity, np.uint8)

    def put(self, words: np.ndarray, valid: np.ndarray, order: np.ndarray, held: slice) -> None:
        if _put_halves(words, order, self.low[held], self.high[held], np.False_):
            _put_halves(words, order, self.low[held], self.high[held], np.True_)
        if not valid.all():
            _put(valid ^ np.uint8(1), order, self.null[held])

    def take(self, source: np.ndarray, words: np.ndarray, valid: np.ndarray) -> None:
        """Write the words and validity of rows `source`, 0 and NULL for -1."""
        _take(source, self.low, self.high, self.null, words, valid)


class Shares:
    """Rows held: the number of the key, instants (so many as `instants` says), inputs.

    keys [capacity] · words [instants, capacity] · inputs · text: what words of text inputs point into.
    """

    def __init__(self, instants: int, inputs: Sequence[DataType], share_bits: int, capacity: int, most_text: int):
        self.types = (*[BIGINT] * instants, *inputs)
        self.instants, self.share_bits, self.most_text = instants, share_bits, most_text
        self.keys = np.empty(capacity, np.int32)  # memory is taken when it is written to
        self.words = np.empty((instants, capacity), np.int64)
        self.inputs = [Held(capacity) for _ in inputs]
        self.text = np.empty(0, np.uint8)
        self.text_used = self.rows = 0
        self._starts: list[np.ndarray] = []

    def starts(self) -> np.ndarray:
        """Where share s of batch b begins [batches, shares + 1]; it ends where the next share begins."""
        return np.array(self._starts, np.int64).reshape(len(self._starts), (1 << self.share_bits) + 1)

    def put(self, keys: np.ndarray, arrays: Sequence[pa.Array]) -> bool:
        """Take in the rows that have a key's number, not -1; False, and none is, where the room that was planned for ends."""
        starts, order = np.empty((1 << self.share_bits) + 1, np.int64), np.empty(len(keys), np.int32)
        order = order[: _deal(keys, self.share_bits, self.rows, starts, order)]
        if self.rows + len(order) > len(self.keys):
            return False
        held = slice(self.rows, self.rows + len(order))
        _put(keys, order, self.keys[held])
        for column, (array, kind) in enumerate(zip(arrays, self.types)):
            writer = WordWriter(1, len(keys), self.text_used)
            writer.put(0, array, kind)
            if not self._keep_text(writer.text()):
                return False
            if column < self.instants:
                _put(writer.words[0], order, self.words[column, held])
            else:
                self.inputs[column - self.instants].put(writer.words[0], writer.valid[0], order, held)
        self._starts.append(starts)
        self.rows += len(order)
        return True

    def _keep_text(self, text: np.ndarray) -> bool:
        used = self.text_used + len(text)
        if used > self.most_text and len(text):
            return False
        if used > len(self.text):
            grown = np.empty(min(self.most_text, max(2 * used, LEAST_TEXT)), np.uint8)
            grown[: self.text_used] = self.text[: self.text_used]
            self.text = grown
        self.text[self.text_used : used] = text
        self.text_used = used
        return True


@njit(**ALLOCATING)
def _deal(keys, share_bits, top, starts, order):
    """Order rows by share, as they come within one, without those of no key; returns how many.  `top` rows are held already."""
    shares, n = np.int64(1) << share_bits, np.int64(0)
    ends = np.zeros(shares + 1, np.int64)
    for row in range(keys.shape[0]):
        if keys[row] >= 0:
            ends[(keys[row] & (shares - 1)) + 1] += 1
    for share in range(shares):
        ends[share + 1] += ends[share]
    for share in range(shares + 1):
        starts[share] = top + ends[share]
    for row in range(keys.shape[0]):
        if keys[row] >= 0:
            share = keys[row] & (shares - 1)
            order[ends[share]] = row
            ends[share] += 1
            n += 1
    return n


@njit(**ENTRY)
def _put(values, order, out):
    for i in range(order.shape[0]):
        out[i] = values[order[i]]


@njit(**ENTRY)
def _put_halves(words, order, low, high, both):
    """Write the low halves, and with `both` the high ones; returns whether a high one is not 0."""
    bits = np.int64(0)
    for i in range(order.shape[0]):
        word = words[order[i]]
        low[i] = np.uint32(word)
        if both:
            high[i] = np.int32(word >> 32)
        bits |= word
    return bits >> 32 != 0


@njit(**ENTRY)
def _take(source, low, high, null, words, valid):
    for i in range(source.shape[0]):
        row = source[i]
        words[i] = np.int64(high[row]) << 32 | np.int64(low[row]) if row >= 0 else 0
        valid[i] = null[row] ^ 1 if row >= 0 else 0
