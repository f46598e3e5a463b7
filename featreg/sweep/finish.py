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


def derive_columns(outputs: Sequence[tuple[str, Typed]], columns: Mapping[str, Column], rows: int) -> dict[str, Column]:
    """The derived columns, computed in order; each may use earlier ones."""
    used = [name for name in columns if any(name in typed.columns for _, typed in outputs)]
    slots: dict[str, int] = {}
    for name in (*used, *(name for name, _ in outputs)):
        slots[name] = len(slots) + sum(1 for other in slots if other in columns and _is_wide(columns[other].type))
    program = compile_finish(outputs, slots)
    depth = max(slots.values(), default=-1) + 3
    words, valid = np.zeros((depth, rows), np.int64), np.zeros((depth, rows), np.uint8)
    for name in used:
        _fill(words, valid, slots[name], columns[name], program.strings)
    run_finish(*program.arrays, words, valid, 0, rows)
    return {name: Column(words[slots[name]], valid[slots[name]], typed.type, _NO_ITEMS, _NO_TEXT) for name, typed in outputs}


def _is_wide(kind: DataType) -> bool:
    return kind.name == "DECIMAL" and is_text(kind)


def _fill(words: np.ndarray, valid: np.ndarray, slot: int, column: Column, strings: tuple[str, ...]) -> None:
    """Put a column into its slot; a text becomes a code, a wide decimal two words."""
    valid[slot] = column.valid
    if not is_text(column.type):
        words[slot] = np.where(column.valid == 1, column.words, 0)
        return
    array = Column(column.words, np.where(column.valid == 1, column.valid, 0).astype(np.uint8), column.type, column.items, column.text).arrow()
    if _is_wide(column.type):
        pair = np.frombuffer(array.buffers()[1], np.int64, 2 * len(array)).reshape(-1, 2)
        words[slot], words[slot + 1], valid[slot + 1] = pair[:, 0], pair[:, 1], column.valid
        return
    encoded = array.dictionary_encode()
    constants = {text: -1 - i for i, text in enumerate(strings)}
    codes = np.array([constants.get(text, i) for i, text in enumerate(encoded.dictionary.to_pylist())] or [0], np.int64)
    words[slot] = codes[encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)]
