"""Number the keys that a spine names, so that events of other keys go no further and keys need not be kept beside rows."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numba import njit

from featreg.algebra.flags import ALLOCATING, ENTRY, INTERNAL
from featreg.algebra.pools import is_same_text
from featreg.algebra.tally import hash_text, hash_word
from featreg.sweep.words import WordWriter, is_text
from featreg.vocabulary import DataType

_FIRST_TABLE = 1 << 10


class AskedKeys:
    """Keys by number, from 0 in the order in which they are first named.  A key with a NULL part is numbered too, and no event has it."""

    def __init__(self, types: Sequence[DataType]):
        self.types = tuple(types)
        self.texts = np.array([is_text(kind) for kind in types], np.bool_)
        self.has_text = bool(self.texts.any())
        self.table = np.full(_FIRST_TABLE, -1, np.int32)  # by hash, open addressing
        self.words = np.zeros((len(self.types), 0), np.int64)
        self.marks = np.zeros(0, np.int64)
        self.text = np.zeros(0, np.uint8)
        self.count, self._keyless = 0, -1

    def name(self, arrays: Sequence[pa.Array], rows: int) -> np.ndarray:
        """The numbers of spine rows [rows]; keys that are new get one."""
        writer, keyless = self._words(arrays, rows, len(self.text))
        if self.has_text:
            self.text = np.concatenate([self.text, writer.text()])
        if keyless.any() and self._keyless < 0:
            self._keyless = self.count
            self._make_room(1)
            self.count += 1
        self._make_room(rows)
        numbers = np.empty(rows, np.int32)
        self.table, self.count = _name(
            writer.words, keyless, self.texts, self.has_text, self.text, self._keyless, self.table, self.words, self.marks, self.count,
            numbers,
        )  # fmt: skip
        return numbers

    def find(self, arrays: Sequence[pa.Array], rows: int) -> np.ndarray:
        """The numbers of event rows [rows], -1 where no spine row has the key."""
        writer, keyless = self._words(arrays, rows, 0)
        numbers = np.empty(rows, np.int32)
        _find(writer.words, keyless, self.texts, self.has_text, writer.text(), self.table, self.words, self.marks, self.text, numbers)
        return numbers

    def _words(self, arrays: Sequence[pa.Array], rows: int, base: int) -> tuple[WordWriter, np.ndarray]:
        writer = WordWriter(len(self.types), rows, base)
        for column, (array, kind) in enumerate(zip(arrays, self.types)):
            writer.put(column, array, kind)
        return writer, (writer.valid == 0).any(axis=0)

    def _make_room(self, coming: int) -> None:
        if self.count + coming > len(self.marks):
            more = max(2 * len(self.marks), self.count + coming) - len(self.marks)
            self.words = np.concatenate([self.words, np.zeros((len(self.types), more), np.int64)], axis=1)
            self.marks = np.concatenate([self.marks, np.zeros(more, np.int64)])


@njit(**INTERNAL)
def _hash_key(words, row, texts, pool):
    h = np.int64(0)
    for part in range(texts.shape[0]):
        word = words[part, row]
        h = hash_word((h * np.int64(31)) ^ (hash_text(pool, word) if texts[part] else word))
    return h


@njit(**INTERNAL)
def _is_key(words, row, pool, key_words, key, key_pool, texts):
    for part in range(texts.shape[0]):
        a, b = words[part, row], key_words[part, key]
        if a != b if not texts[part] else not is_same_text(pool, a, key_pool, b):
            return False
    return True


@njit(**INTERNAL)
def _place_of(words, row, texts, has_text, pool, mark, table, key_words, marks, key_pool):
    """Where in the table the key is, or the empty place where it would be.

    Of keys with text the marks are compared first; without, that is one more place in memory than needed.
    """
    place = (mark >> 1) & (table.shape[0] - 1)
    while table[place] >= 0:
        key = table[place]
        if (not has_text or marks[key] == mark) and _is_key(words, row, pool, key_words, key, key_pool, texts):
            break
        place = (place + 1) & (table.shape[0] - 1)
    return place


@njit(**ALLOCATING)
def _name(words, keyless, texts, has_text, pool, keyless_number, table, key_words, marks, count, numbers):
    for row in range(numbers.shape[0]):
        if keyless[row]:
            numbers[row] = keyless_number
            continue
        mark = _hash_key(words, row, texts, pool)
        place = _place_of(words, row, texts, has_text, pool, mark, table, key_words, marks, pool)
        if table[place] < 0:
            table[place], marks[count] = count, mark
            for part in range(texts.shape[0]):
                key_words[part, count] = words[part, row]
            numbers[row] = count
            count += 1
            if 2 * count > table.shape[0]:
                table = _grown(table, marks)
        else:
            numbers[row] = table[place]
    return table, count


@njit(**ALLOCATING)
def _grown(table, marks):
    grown = np.full(4 * table.shape[0], -1, np.int32)
    for old in range(table.shape[0]):
        if table[old] >= 0:
            place = (marks[table[old]] >> 1) & (grown.shape[0] - 1)
            while grown[place] >= 0:
                place = (place + 1) & (grown.shape[0] - 1)
            grown[place] = table[old]
    return grown


@njit(**ENTRY)
def _find(words, keyless, texts, has_text, pool, table, key_words, marks, key_pool, numbers):
    for row in range(numbers.shape[0]):
        numbers[row] = -1
        if not keyless[row]:
            mark = _hash_key(words, row, texts, pool)
            numbers[row] = table[_place_of(words, row, texts, has_text, pool, mark, table, key_words, marks, key_pool)]
