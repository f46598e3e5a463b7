"""Compute derived features from results: the same postfix loop over columns offline and over one row online."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featreg.expressions import Typed, compile_finish, run_finish
from featreg.sweep.words import is_text, to_arrow
from featreg.vocabulary import DataType

_NO_ITEMS, _NO_TEXT = np.zeros(0, np.int64), np.zeros(0, np.uint8)


@dataclass
class Column:
    """Results of one feature: words and validity by row, and the pools that they point into."""

    words: np.ndarray
    valid: np.ndarray
    type: DataType
    items: np.ndarray
    text: np.ndarray

    def arrow(self) -> pa.Array:
        return to_arrow(self.words, self.valid, self.type, self.items, self.text)

    def known(self) -> pa.Array:
        """As Arrow, null also where a number is out of range."""
        return to_arrow(self.words, (self.valid == 1).astype(np.uint8), self.type, self.items, self.text)


class Derivation:
    """Derived features compiled once: where their inputs and outputs are, and the program.

    outputs: in an order in which each uses earlier ones only.  types: of every column they may use.
    """

    def __init__(self, outputs: Sequence[tuple[str, Typed]], types: Mapping[str, DataType]):
        self.outputs = tuple(outputs)
        own = {name for name, _ in outputs}
        self.used = tuple(name for name in types if name not in own and any(name in typed.columns for _, typed in outputs))
        self.slots: dict[str, int] = {}
        self.depth = 0
        for name in (*self.used, *(name for name, _ in outputs)):
            self.slots[name] = self.depth
            self.depth += 2 if name in types and _is_wide(types[name]) else 1
        self.program = compile_finish(outputs, self.slots)

    def run(self, columns: Mapping[str, Column], rows: int) -> dict[str, Column]:
        """The derived columns of `rows` rows."""
        words, valid = np.zeros((self.depth, rows), np.int64), np.zeros((self.depth, rows), np.uint8)
        for name in self.used:
            _fill(words, valid, self.slots[name], columns[name], self.program.strings)
        run_finish(*self.program.arrays, words, valid, 0, rows)
        return {
            name: Column(words[self.slots[name]], valid[self.slots[name]], typed.type, _NO_ITEMS, _NO_TEXT) for name, typed in self.outputs
        }


def derive_columns(outputs: Sequence[tuple[str, Typed]], columns: Mapping[str, Column], rows: int) -> dict[str, Column]:
    """The derived columns, computed in order; each may use earlier ones."""
    return Derivation(outputs, {name: column.type for name, column in columns.items()}).run(columns, rows)


def _is_wide(kind: DataType) -> bool:
    return kind.name == "DECIMAL" and is_text(kind)


def _fill(words: np.ndarray, valid: np.ndarray, slot: int, column: Column, strings: tuple[str, ...]) -> None:
    """Put a column into its slot; a text becomes a code, a wide decimal two words."""
    valid[slot] = column.valid
    if not is_text(column.type):
        words[slot] = np.where(column.valid == 1, column.words, 0)
        return
    array = column.known()
    if _is_wide(column.type):
        pair = np.frombuffer(array.buffers()[1], np.int64, 2 * len(array)).reshape(-1, 2)
        words[slot], words[slot + 1], valid[slot + 1] = pair[:, 0], pair[:, 1], column.valid
        return
    encoded = array.dictionary_encode()
    constants = {text: -1 - i for i, text in enumerate(strings)}
    codes = np.array([constants.get(text, i) for i, text in enumerate(encoded.dictionary.to_pylist())] or [0], np.int64)
    words[slot] = codes[encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)]
