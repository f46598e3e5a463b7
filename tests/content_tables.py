"""Draw tables of every type that a content id has a form for, as Arrow and as the reference reads them."""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from tests import content_reference as reference

NAMES = ("a", "B", "b c", "ä", "h", "h0", "count", 'q"', "select", "n:integer", "é,1", "z")
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=9) | st.sampled_from(["", ";", "n;", "s1:a;", "\0", "a\0b", "ü" * 9])
DOUBLES = st.floats(width=64) | st.sampled_from([0.0, -0.0, math.nan, -math.nan, math.inf, -math.inf, 5e-324, 1.0, 0.1])


@dataclass(frozen=True)
class Kind:
    """A column's type: Arrow's, the reference's, and a strategy for (Arrow value, reference value)."""

    arrow: pa.DataType
    family: Any
    values: Any


def _same(strategy):
    return strategy.map(lambda value: (value, value))


def integers(arrow: pa.DataType, bits: int, signed: bool = True) -> Kind:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return Kind(arrow, "integer", _same(st.integers(low, high) | st.sampled_from([low, high, 0])))


def decimals(precision: int, scale: int) -> Kind:
    most = 10**precision - 1
    drawn = st.integers(-most, most) | st.sampled_from([0, 1, -1, most, -most])
    return Kind(
        pa.decimal128(precision, scale), ("decimal", scale), drawn.map(lambda n: (Decimal(f"{n}E-{scale}") if scale else Decimal(n), n))
    )


def timestamps(unit: str, zone: str | None = None) -> Kind:
    factor = {"s": 1_000_000, "ms": 1_000, "us": 1}[unit]
    drawn = st.integers(-(1 << 55), 1 << 55) | st.sampled_from([0, -1, 1_356_998_400_000_000])
    return Kind(pa.timestamp(unit, zone), "timestamp", drawn.map(lambda n: (n // factor, n // factor * factor)))


DATES = Kind(pa.date32(), "date", _same(st.integers(-700_000, 2_900_000) | st.sampled_from([0, -1])))
SCALARS = (
    integers(pa.int8(), 8), integers(pa.int16(), 16), integers(pa.int32(), 32), integers(pa.int64(), 64), integers(pa.uint64(), 64, False),
    Kind(pa.float64(), "double", _same(DOUBLES)), Kind(pa.float32(), "double", _same(st.floats(width=32))),
    Kind(pa.bool_(), "bool", _same(st.booleans())), Kind(pa.string(), "string", _same(TEXT)),
    DATES, timestamps("us"), timestamps("us", "UTC"), timestamps("ms"), timestamps("s"),
    decimals(4, 1), decimals(9, 9), decimals(18, 0), decimals(38, 10), decimals(38, 38),
)  # fmt: skip
SPARK_HAS = tuple(kind for kind in SCALARS if kind.arrow != pa.uint64())  # which it reads as a decimal


def lists(element: Kind) -> Kind:
    drawn = st.lists(st.none() | element.values, max_size=4)
    return Kind(
        pa.list_(element.arrow),
        ("list", element.family),
        drawn.map(lambda items: tuple([None if item is None else item[side] for item in items] for side in (0, 1))),
    )


def maps(key: Kind, value: Kind) -> Kind:
    pair = st.tuples(key.values, st.none() | value.values)
    drawn = st.lists(pair, max_size=4, unique_by=lambda one: one[0][1])
    return Kind(
        pa.map_(key.arrow, value.arrow),
        ("map", key.family, value.family),
        drawn.map(lambda pairs: tuple([(k[side], None if v is None else v[side]) for k, v in pairs] for side in (0, 1))),
    )


def kinds(scalars: tuple[Kind, ...] = SCALARS) -> st.SearchStrategy[Kind]:
    keys = tuple(kind for kind in scalars if pa.types.is_integer(kind.arrow) or pa.types.is_string(kind.arrow) or kind is DATES)
    scalar, key = st.sampled_from(scalars), st.sampled_from(keys)
    nested = scalar.map(lists) | st.builds(maps, key, scalar)
    return scalar | nested | nested.map(lists) | st.builds(maps, key, nested)


@dataclass(frozen=True)
class Drawn:
    """A table, and its columns as the reference takes them."""

    table: pa.Table
    columns: tuple[tuple[str, Any, list], ...]

    @property
    def numbers(self) -> list[int]:
        return reference.numbers(self.columns, self.table.num_rows)

    @property
    def content_id(self) -> str:
        return reference.content_id(self.columns, self.table.num_rows)


@st.composite
def tables(draw, most_rows: int = 6, most_columns: int = 5, scalars: tuple[Kind, ...] = SCALARS) -> Drawn:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=most_columns, unique_by=str.lower))
    rows = draw(st.integers(0, most_rows))
    arrays, columns = {}, []
    for name in names:
        kind = draw(kinds(scalars))
        values = draw(st.lists(st.none() | kind.values, min_size=rows, max_size=rows))
        arrays[name] = pa.array([None if value is None else value[0] for value in values], kind.arrow)
        columns.append((name, kind.family, [None if value is None else value[1] for value in values]))
    return Drawn(pa.table(arrays), tuple(columns))
