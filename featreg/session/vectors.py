"""Hold what an online read answered as columns, of which vectors are made when they are looked at."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from featreg.algebra.schedule import LENGTH_BITS, LONGEST_TEXT, OVERFLOW
from featreg.session.answer import STATUSES
from featreg.session.answer import Vector as Vector
from featreg.session.answer import Vectors as Vectors
from featreg.sweep.finish import Column
from featreg.vocabulary import DataType

MISSING, ERROR, STALE, EMPTY, OK = STATUSES
_MISSING, _ERROR, _STALE, _EMPTY, _OK = range(len(STATUSES))  # codes: the lower comes first
_TEXTS = pa.array(STATUSES)
_NUMBERS = {"BIGINT": pa.int64(), "DOUBLE": pa.float64()}  # whose words are Arrow's


class Place(NamedTuple):
    """Where a feature is: which group answers it, in which column, and which column tells whether its window has a row."""

    part: int
    column: int
    presence: int


@dataclass(frozen=True, slots=True)
class Swept:
    """What one column group answered for m rows: a copy of its own.

    words, valid [columns, m] · types: by column · items, text: the pools that words point into ·
    said: a status that comes before `empty` and `ok`.
    """

    words: np.ndarray
    valid: np.ndarray
    types: Sequence[DataType]
    items: np.ndarray
    text: np.ndarray
    said: str | None

    def column(self, column: int) -> Column:
        return Column(self.words[column], self.valid[column], self.types[column], self.items, self.text)

    def codes(self, column: int, presence: int) -> np.ndarray:
        """Status by row, as its place in STATUSES."""
        if self.said == MISSING:
            return np.full(self.valid.shape[1], _MISSING, np.uint8)
        valid = self.valid[column]
        there = (self.valid[presence] == 1) + np.uint8(_EMPTY) if self.said is None else np.full(len(valid), _STALE, np.uint8)
        return np.where(valid == OVERFLOW, np.uint8(_ERROR), there)

    def has_overflow(self, column: int) -> bool:
        return bool((self.valid[column] == OVERFLOW).any())

    def some(self, rows: slice) -> "Swept":
        return replace(self, words=np.ascontiguousarray(self.words[:, rows]), valid=np.ascontiguousarray(self.valid[:, rows]))

    def arrays(self) -> list[pa.Array]:
        """Arrow values by column.  Numbers share one buffer, and one of which of them are there."""
        rows = self.words.shape[1]
        there = self.valid == 1
        bits = np.packbits(there, axis=1, bitorder="little")
        nulls, wide = (rows - np.count_nonzero(there, axis=1)).tolist(), bits.shape[1]
        words, bitmaps = pa.py_buffer(self.words), pa.py_buffer(bits)
        return [
            pa.Array.from_buffers(
                _NUMBERS[kind.name], rows, [bitmaps.slice(wide * i, wide), words.slice(8 * rows * i, 8 * rows)], nulls[i]
            )
            if kind.name in _NUMBERS
            else self.column(i).known()
            for i, kind in enumerate(self.types)
        ]  # fmt: skip

    def values(self) -> list[list[Any]]:
        """Python values by column and row."""
        objects = np.empty(self.words.shape, object)
        names = [kind.name for kind in self.types]
        for numbers, kind in ((self.words, "BIGINT"), (self.words.view(np.float64), "DOUBLE")):
            chosen = [i for i, name in enumerate(names) if name == kind]
            objects[chosen] = numbers[chosen]
        objects[self.valid != 1] = None
        values: list[list[Any]] = objects.tolist()
        for i, name in enumerate(names):
            if name != "BIGINT" and name != "DOUBLE":
                values[i] = python_values(self.column(i))
        return values


class Derived(NamedTuple):
    """A feature that is derived: its values, and its status by row as a place in STATUSES."""

    column: Column
    codes: np.ndarray


class ColumnVectors(Vectors):
    """What a read answered.

    names: features in declared order · parts: what each group answered · places: of what is aggregated · derived: the others ·
    cutoff, watermark: by view, of all rows alike.
    """

    def __init__(
        self, names: Sequence[str], rows: int, parts: Sequence[Swept], places: Mapping[str, Place], derived: Mapping[str, Derived],
        cutoff: Mapping[str, int | None], watermark: Mapping[str, int | None],
    ):  # fmt: skip
        self.names, self.rows, self.parts, self.places, self.derived = names, rows, parts, places, derived
        self.cutoff, self.watermark = cutoff, watermark

    def __len__(self) -> int:
        return self.rows

    def column(self, name: str) -> tuple[Column, np.ndarray]:
        """Values and status codes of a feature."""
        if name in self.derived:
            return self.derived[name]
        part, column, presence = self.places[name]
        return self.parts[part].column(column), self.parts[part].codes(column, presence)

    def to_arrow(self) -> pa.Table:
        by_part = [part.arrays() for part in self.parts]
        columns = []
        for name in self.names:
            place = self.places.get(name)
            columns.append(self.derived[name].column.known() if place is None else by_part[place.part][place.column])
        return pa.table(columns, list(self.names))

    def status_to_arrow(self) -> pa.Table:
        codes = (pa.py_buffer(self.column(name)[1]) for name in self.names)
        columns = [pa.Array.from_buffers(pa.int8(), self.rows, [None, one]) for one in codes]
        return pa.table([pa.DictionaryArray.from_arrays(column, _TEXTS) for column in columns], list(self.names))

    def _some(self, rows: slice) -> "ColumnVectors":
        derived = {name: Derived(_some_of(column, rows), codes[rows]) for name, (column, codes) in self.derived.items()}
        parts = [part.some(rows) for part in self.parts]
        count = len(range(*rows.indices(self.rows)))
        some = ColumnVectors(self.names, count, parts, self.places, derived, self.cutoff, self.watermark)
        some._made = None if self._made is None else self._made[rows]
        return some

    def _make(self) -> list[Vector]:
        by_part = [part.values() for part in self.parts]
        values: list[list[Any]] = []
        codes: dict[object, list[int]] = {}  # of one window without an overflow: features share them
        kinds: list[object] = []
        for name in self.names:
            derived = self.derived.get(name)
            if derived is not None:
                values.append(python_values(derived.column))
                codes[name] = derived.codes.tolist()
                kinds.append(name)
                continue
            part, column, presence = self.places[name]
            values.append(by_part[part][column])
            kind: object = (part, presence) if not self.parts[part].has_overflow(column) else name
            if kind not in codes:
                codes[kind] = self.parts[part].codes(column, presence).tolist()
            kinds.append(kind)
        order = {kind: place for place, kind in enumerate(codes)}
        chosen = [(name, order[kind]) for name, kind in zip(self.names, kinds)]
        said: dict[tuple[int, ...], dict[str, str]] = {}  # few kinds of row are made, the others are copies
        made = []
        for row_values, row_codes in zip(zip(*values), zip(*codes.values())):
            status = said.get(row_codes)
            if status is None:
                status = said[row_codes] = {name: STATUSES[row_codes[place]] for name, place in chosen}
            made.append(Vector(dict(zip(self.names, row_values)), status.copy(), dict(self.cutoff), dict(self.watermark)))
        return made


def no_vectors(columns: Iterable[tuple[str, DataType]]) -> ColumnVectors:
    """The answer for no row."""
    words, valid, text = np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros(0, np.uint8)
    empty = {name: Derived(Column(words, valid, kind, words, text), valid) for name, kind in columns}
    return ColumnVectors(tuple(empty), 0, (), {}, empty, {}, {})


def derived_from(column: Column, inputs: Sequence[np.ndarray]) -> Derived:
    """A derived feature has its worst input's status, and `error` when it is out of range itself.  inputs: status codes by row."""
    rows = len(column.words)
    worst = np.minimum.reduce(inputs) if len(inputs) else np.full(rows, _OK, np.uint8)
    missing = worst == _MISSING
    codes = np.where((column.valid == OVERFLOW) & ~missing, np.uint8(_ERROR), worst)
    return Derived(replace(column, valid=np.where(missing, np.uint8(0), column.valid)), codes)


def python_values(column: Column) -> list[Any]:
    """Python values, as `known().to_pylist()` gives them."""
    if column.type.name == "VARCHAR":
        pool = memoryview(column.text)  # type: ignore[arg-type]
        return [
            str(pool[w >> LENGTH_BITS : (w >> LENGTH_BITS) + (w & LONGEST_TEXT)], "utf-8") if v == 1 else None
            for w, v in zip(column.words.tolist(), column.valid.tolist())
        ]
    return column.known().to_pylist()


def text_at(pool: np.ndarray, word: int) -> str:
    """The text that a word points to."""
    begin = word >> LENGTH_BITS
    return pool[begin : begin + (word & LONGEST_TEXT)].tobytes().decode()


def _some_of(column: Column, rows: slice) -> Column:
    return replace(column, words=np.ascontiguousarray(column.words[rows]), valid=column.valid[rows])
