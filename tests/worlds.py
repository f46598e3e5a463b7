"""Make random worlds: specs in Python and in SQL, the same views for the oracle, events and a spine.

One builder draws from a `Chooser`: Hypothesis stands behind `worlds()`, so that a failing world shrinks,
and a seeded generator behind `seeded_world()`, which makes large ones cheaply.  Whatever stands first in
a pool is what a world shrinks to.  Instants are taken from the edges of the very windows the world asks for.
"""

import random
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from tests.oracle import (
    Derived,
    Feature,
    OracleOverflow,
    Rejected,
    View,
    answer,
    cutoff_at,
    derive_all,
    hop_of,
    instant,
    lift_all,
    normal,
    rank,
)

SECOND = 1_000_000
DAY = 86_400 * SECOND
UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": DAY, "w": 7 * DAY}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAN, INF = float("nan"), float("inf")
ODD_NAN = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000123))[0]


class Chooser:
    """Where a world's accidents come from."""

    def __init__(self, integer: Callable[[int, int], int]):
        self.integer = integer

    def pick(self, pool: Sequence[Any]) -> Any:
        return pool[self.integer(0, len(pool) - 1)] if len(pool) > 1 else pool[0]

    def some(self, pool: Sequence[Any], fewest: int, most: int) -> list[Any]:
        """Distinct positions of the pool, in the order drawn."""
        left, chosen = list(pool), []
        for _ in range(min(len(left), self.integer(fewest, most))):
            chosen.append(left.pop(self.integer(0, len(left) - 1)))
        return chosen

    def chance(self, percent: int) -> bool:
        return self.integer(0, 99) >= 100 - percent


# Columns: one name per type; a world takes those that its views use

COLUMNS = {
    "b": "BIGINT",
    "i": "INTEGER",
    "x": "DOUBLE",
    "f": "FLOAT",
    "d": "DECIMAL(9,2)",
    "e": "DECIMAL(30,4)",
    "g": "DECIMAL(38,2)",
    "p": "BOOLEAN",
    "s": "VARCHAR",
    "day": "DATE",
    "moment": "TIMESTAMP",
    "rank": "BIGINT",
}


def _single(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


_TEXTS = (
    "a",
    "b",
    "ab",
    "",
    "A",
    "é",
    "\ufb00",
    "\U00010000",
    "a\x00b",
    "a text of more than twelve bytes",
    "a text of more than twelve bites",
    "NULL",
)
_DATES = (date(1970, 1, 1), date(1969, 12, 31), date(2020, 2, 29), date(1, 1, 1), date(9999, 12, 31), date(2020, 3, 1))
_MOMENTS = (
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
    datetime(2020, 2, 29, 12, 0, 0, 1, UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
)
# Several pools for a type: tame values, then ever wilder ones.
POOLS: dict[str, tuple[tuple[Any, ...], ...]] = {
    "BIGINT": ((0, 1, 2, -1, 3, 7), (1, 2**53 + 1, -(2**53) - 1, 10**15, 0)),
    "INTEGER": ((0, 1, 2, -1), (2**31 - 1, -(2**31), 0)),
    "DOUBLE": (
        (0.0, 1.0, 1.5, 2.0, -2.5, 3.0),
        (0.1, 0.2, 0.3, -0.0, 1e16, -1e16, 1.0),
        (1e308, -1e308, 1.7e308, 5e-324, -5e-324, 1e-300, 2.0**-53, 1.0),
        (1.0, NAN, INF, -INF, ODD_NAN, -0.0, 0.0),
    ),
    "FLOAT": ((0.0, 0.5, 1.0, -1.5), (_single(0.1), _single(0.2), -0.0, 0.0), (_single(3e38), _single(1e-45), NAN, INF, -INF)),
    "DECIMAL(9,2)": (
        (Decimal("0.00"), Decimal("1.10"), Decimal("-1.10"), Decimal("0.01")),
        (Decimal("9999999.99"), Decimal("-9999999.99")),
    ),
    "DECIMAL(30,4)": (
        (Decimal("0.0000"), Decimal("1.1000"), Decimal("-0.0001")),
        (Decimal("9" * 26 + ".9999"), Decimal("-" + "9" * 26 + ".9999"), Decimal("1" * 20 + ".0001")),
    ),
    "DECIMAL(38,2)": ((Decimal("0.00"), Decimal("1.10"), Decimal("-2.00")), (Decimal("1" * 34 + ".01"), Decimal("-" + "3" * 34 + ".00"))),
    "BOOLEAN": ((False, True),),
    "VARCHAR": (_TEXTS[:5], ("\ufb00", "\U00010000", "", "z"), _TEXTS),
    "DATE": (_DATES,),
    "TIMESTAMP": (_MOMENTS,),
}
# Sums of these leave their type and `b + 1` overflows: few worlds have them.
EXTREMES: dict[str, tuple[Any, ...]] = {
    "BIGINT": (2**63 - 1, -(2**63), 1, 0, -1),
    "DECIMAL(38,2)": (Decimal("9" * 36 + ".99"), Decimal("-" + "9" * 36 + ".99"), Decimal("0.01")),
}
KEY_POOLS: dict[str, tuple[Any, ...]] = {
    "VARCHAR": ("a", "ab", "abc", "b", "bc", "c", "", "1", "a\x00", "a key of more than twelve bytes"),
    "BIGINT": (1, 0, -1, 2**63 - 1, -(2**63), 2**53 + 1),
    "INTEGER": (1, 0, -1, 2**31 - 1),
    "BOOLEAN": (True, False),
    "DATE": _DATES,
    "TIMESTAMP": _MOMENTS,
}
KEY_TYPES = (
    ("VARCHAR",), ("BIGINT",), ("VARCHAR", "VARCHAR"), ("BIGINT", "VARCHAR"), ("INTEGER",), ("BOOLEAN", "DATE"), ("TIMESTAMP",),
    ("DATE",), ("BOOLEAN",), ("VARCHAR", "INTEGER", "BOOLEAN"), (),
)  # fmt: skip


def arrow_type(text: str) -> pa.DataType:
    """The Arrow type of a declared type; a `[]` or a `MAP(…)` too."""
    if text.endswith("[]"):
        return pa.list_(arrow_type(text[:-2]))
    if text.startswith("MAP("):
        return pa.map_(arrow_type(text[4:-1]), pa.int64())
    if text.startswith("DECIMAL"):
        return pa.decimal128(*map(int, text[8:-1].split(",")))
    simple = {"BIGINT": pa.int64(), "INTEGER": pa.int32(), "DOUBLE": pa.float64(), "FLOAT": pa.float32(), "BOOLEAN": pa.bool_()}
    return simple.get(text) or {"VARCHAR": pa.string(), "DATE": pa.date32(), "TIMESTAMP": pa.timestamp("us", "UTC")}[text]


# Row expressions: a text and what it means


@dataclass(frozen=True)
class Expression:
    text: str
    type: str  # widened
    columns: tuple[str, ...]
    function: Callable[[Mapping[str, Any]], Any]

    @property
    def scale(self) -> int:
        return int(self.type[:-1].split(",")[1]) if self.type.startswith("DECIMAL") else 0


def _on(column: str, function: Callable[[Any], Any]) -> Callable[[Mapping[str, Any]], Any]:
    """`function` of a column's value where that is not NULL."""

    def lifted(row: Mapping[str, Any]) -> Any:
        value = normal(row[column])
        return None if value is None else function(value)

    return lifted


def _bigint(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise Rejected
    return value


def _above(left: Any, right: Any) -> bool:
    """`>` with NaN above every number and equal to itself."""
    return rank(left) > rank(right)


def _plain(column: str) -> Expression:
    return Expression(
        column, {"INTEGER": "BIGINT", "FLOAT": "DOUBLE"}.get(COLUMNS[column], COLUMNS[column]), (column,), _on(column, lambda v: v)
    )


EXPRESSIONS = (
    *(_plain(column) for column in COLUMNS if column != "rank"),
    Expression("b + 1", "BIGINT", ("b",), _on("b", lambda v: _bigint(v + 1))),
    Expression("b * 2", "BIGINT", ("b",), _on("b", lambda v: _bigint(v * 2))),
    Expression("coalesce(b, 5)", "BIGINT", ("b",), lambda row: 5 if row["b"] is None else row["b"]),
    Expression("i * i", "BIGINT", ("i",), _on("i", lambda v: v * v)),
    Expression("b / 2", "DOUBLE", ("b",), _on("b", lambda v: float(v) / 2.0)),
    Expression("x + 1", "DOUBLE", ("x",), _on("x", lambda v: v + 1.0)),
    Expression("x * 2.0", "DOUBLE", ("x",), _on("x", lambda v: v * 2.0)),
    Expression("-x", "DOUBLE", ("x",), _on("x", lambda v: -v)),
    Expression("1.0 / x", "DOUBLE", ("x",), _on("x", lambda v: None if v == 0 else 1.0 / v)),
    Expression("f * 2.0", "DOUBLE", ("f",), _on("f", lambda v: v * 2.0)),
    Expression("CASE WHEN x > 1 THEN x END", "DOUBLE", ("x",), _on("x", lambda v: v if _above(v, 1.0) else None)),
    Expression("CAST(d AS DOUBLE)", "DOUBLE", ("d",), _on("d", float)),
    Expression("s || 'a'", "VARCHAR", ("s",), _on("s", lambda v: v + "a")),
    Expression("coalesce(s, 'none')", "VARCHAR", ("s",), lambda row: "none" if row["s"] is None else row["s"]),
    Expression("x > 0", "BOOLEAN", ("x",), _on("x", lambda v: _above(v, 0.0))),
    Expression("NOT p", "BOOLEAN", ("p",), _on("p", lambda v: not v)),
    Expression("s > 'a'", "BOOLEAN", ("s",), _on("s", lambda v: _above(v, "a"))),
    Expression("b IS NULL", "BOOLEAN", ("b",), lambda row: row["b"] is None),
)
FILTERS = (
    Expression("b > 0", "BOOLEAN", ("b",), _on("b", lambda v: v > 0)),
    Expression("x IS NOT NULL", "BOOLEAN", ("x",), lambda row: row["x"] is not None),
    Expression("p", "BOOLEAN", ("p",), _on("p", lambda v: v)),
    Expression("x > 1 OR p", "BOOLEAN", ("x", "p"), lambda row: _either(_on("x", lambda v: _above(v, 1.0))(row), row["p"])),
    Expression("s <> 'a'", "BOOLEAN", ("s",), _on("s", lambda v: v != "a")),
    Expression("s IN ('a', 'b', '')", "BOOLEAN", ("s",), _on("s", lambda v: v in ("a", "b", ""))),
    Expression("b + 1 > 1", "BOOLEAN", ("b",), _on("b", lambda v: _bigint(v + 1) > 1)),
    Expression("f BETWEEN 0 AND 1", "BOOLEAN", ("f",), _on("f", lambda v: not _above(0.0, v) and not _above(v, 1.0))),
    Expression("day >= DATE '1970-01-01'", "BOOLEAN", ("day",), _on("day", lambda v: v >= date(1970, 1, 1))),
    Expression(
        "d <> 0 AND i > 0", "BOOLEAN", ("d", "i"), lambda row: _both(_on("d", lambda v: v != 0)(row), _on("i", lambda v: v > 0)(row))
    ),
    Expression("1 = 2", "BOOLEAN", (), lambda row: False),
)


def _either(left: bool | None, right: bool | None) -> bool | None:
    return True if left or right else None if left is None or right is None else False


def _both(left: bool | None, right: bool | None) -> bool | None:
    return False if left is False or right is False else None if left is None or right is None else True


ANY = ("count", "min", "max", "count_distinct", "first", "last", "first_n", "last_n", "top_n", "arg_min", "arg_max", "histogram")
NUMERIC = ("sum", "avg", "var", "stddev")
AGGREGATIONS = ("count()", *NUMERIC, *ANY, "any", "all", "latest")
STRAINED = ("sum", "sum", "avg", "var", "max")
SQL_NAMES = {
    "var": "var_samp", "stddev": "stddev_samp", "any": "bool_or", "all": "bool_and", "first": "first_value", "last": "last_value",
}  # fmt: skip


def result_type(aggregation: str, type: str) -> str:
    match aggregation:
        case "count" | "count_distinct":
            return "BIGINT"
        case "sum":
            return f"DECIMAL(38,{type[:-1].split(',')[1]})" if type.startswith("DECIMAL") else type
        case "avg" | "var" | "stddev":
            return "DOUBLE"
        case "first_n" | "last_n" | "top_n":
            return f"{type}[]"
        case "histogram":
            return f"MAP({type})"
    return type


# Parts of a view


@dataclass(frozen=True)
class Part:
    """One aggregate of a spec: its Python call, its SQL call, and the oracle's features, one per window."""

    python: str  # with .over(...)
    python_name: str | None  # None: a `**agg.latest(...)` entry
    sql: tuple[str, ...]  # select items but for the window's name
    features: tuple[Feature, ...]
    type: str
    columns: frozenset[str]


@dataclass(frozen=True)
class ViewParts:
    name: str
    oracle: View
    python: str
    sql: str
    types: dict[str, str]
    columns: frozenset[str]


NAMES = ("amount", "t", "key", "select", "value", "events", "order", "w", "Total", "n1")
RESERVED = {"select", "order", "key"}
WINDOWS = ("10s", "1m", "1h", "1d", "7d", "2w", "1s", "50s", "90m", None)
HOPS = (None, "exact", "1s", "7s", "1m", "10m", "1h", "1d")
WINDOW_TILES = 20_000  # a generous share of what is allowed, so that no world is slow


def micros(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]]


def _quoted(name: str) -> str:
    return f'"{name}"' if name in RESERVED else name


def _feature_name(base: str, window: str | None) -> str:
    return base if window is None else f"{base}_{window}"


def _hops_for(windows: Sequence[str | None]) -> list[str | None]:
    lengths = [micros(window) for window in windows if window is not None]
    if not lengths:
        return [None]
    fits = [hop for hop in HOPS if hop in (None, "exact") or max(lengths) / WINDOW_TILES <= micros(hop) <= min(lengths)]
    return fits or [None]


def _hop(text: str | None) -> int | str | None:
    return text if text in (None, "exact") else micros(text)


def _call(name: str, arguments: Sequence[str]) -> str:
    return f"agg.{name}({', '.join(arguments)})"


def _sql_call(aggregation: str, columns: Sequence[str], number: int | None, ignore_nulls: bool, where: str | None) -> str:
    inner = ", ".join([*columns, *([str(number)] if number is not None else [])]) or "*"
    name = SQL_NAMES.get(aggregation, aggregation)
    if aggregation == "count_distinct":
        name, inner = "count", f"DISTINCT {inner}"
    if ignore_nulls:
        inner += " IGNORE NULLS"
    return f"{name}({inner})" + (f" FILTER (WHERE {where})" if where else "")


def build_part(choose: Chooser, base: str, pinned_hop: str | None, extreme: bool) -> Part:
    aggregation = choose.pick(STRAINED if extreme and choose.chance(60) else AGGREGATIONS)
    if aggregation == "latest":
        return _build_latest(choose)
    takes = [e for e in EXPRESSIONS if _takes(aggregation, e.type)]
    if extreme and aggregation in STRAINED:
        takes = [e for e in takes if any(COLUMNS[column] in EXTREMES for column in e.columns)]
    column = None if aggregation == "count()" else choose.pick(takes)
    by = choose.pick(EXPRESSIONS) if aggregation.startswith("arg_") else None
    number = choose.integer(1, 3) if aggregation.endswith("_n") else None
    k = choose.pick((None, 1, 2)) if aggregation == "histogram" else None
    ignore_nulls = aggregation in ("first", "last") and choose.chance(40)
    where = choose.pick(FILTERS) if choose.chance(30) else None
    windows = choose.some(WINDOWS, 1, 2) if choose.chance(85) else [None]
    hop = choose.pick(_hops_for(windows)) if choose.chance(50) else None
    aggregation = aggregation.removesuffix("()")

    columns = [e.text for e in (column, by) if e is not None]
    number_or_k = k if number is None else number
    arguments = [repr(text) for text in columns] + ([str(number)] if number is not None else []) + ([f"k={k}"] if k is not None else [])
    arguments += ["ignore_nulls=True"] * ignore_nulls + ([f"where={where.text!r}"] if where else [])
    over = "" if windows == [None] else f".over({', '.join(map(repr, windows))}{f', hop={hop!r}' if hop else ''})"
    features = tuple(
        Feature(
            _feature_name(base, window), aggregation, column and column.function, by and by.function, number, k, ignore_nulls,
            where and where.function, None if window is None else micros(window), None if window is None else _hop(hop or pinned_hop),
            column.scale if column else 0,
        )
        for window in windows
    )  # fmt: skip
    sql = _sql_call(aggregation, columns, number_or_k, ignore_nulls, where and where.text)
    used = frozenset(name for e in (column, by, where) if e is not None for name in e.columns)
    type = result_type(aggregation, column.type if column else "BIGINT")
    return Part(_call(aggregation, arguments) + over, base, (sql,) * len(windows), features, type, used)


def _takes(aggregation: str, type: str) -> bool:
    if aggregation in NUMERIC:
        return type in ("BIGINT", "DOUBLE") or type.startswith("DECIMAL")
    return type == "BOOLEAN" if aggregation in ("any", "all") else True


def _build_latest(choose: Chooser) -> Part:
    """`**agg.latest("s")`: one `last`, named as its column."""
    column = choose.pick([e for e in EXPRESSIONS if e.text in ("s", "x", "b", "day")])
    within = choose.pick((None, "1h", "1d"))
    text = f"**agg.latest({column.text!r}{f', within={within!r}' if within else ''})"
    feature = Feature(column.text, "last", column.function, window=within and micros(within), scale=column.scale)
    return Part(text, None, (_sql_call("last", [column.text], None, False, None),), (feature,), column.type, frozenset(column.columns))


@dataclass(frozen=True)
class DerivedPart:
    oracle: Derived
    text: str
    type: str


def build_derived(choose: Chooser, name: str, types: Mapping[str, str]) -> DerivedPart | None:
    """A finish expression over numeric results named in `types`."""
    numeric = [feature for feature, type in types.items() if type in ("BIGINT", "DOUBLE")]
    if not numeric:
        return None
    a = choose.pick(numeric)
    b = choose.pick(numeric)
    left, right, type = _quoted(a), _quoted(b), types[a]

    def share(p: Any, q: Any) -> Any:
        return None if p is None or q is None or q == 0 else float(p) / float(q)

    forms: list[tuple[tuple[str, ...], str, str, Callable[..., Any]]] = [
        ((a,), f"{left} > 1", "BOOLEAN", lambda v: None if v is None else _above(v, 1)),
        ((a,), f"coalesce({left}, 0)", type, lambda v: v if v is not None else 0 if type == "BIGINT" else 0.0),
        ((a, b), f"CASE WHEN {right} > 0 THEN {left} END", type, lambda p, q: p if q is not None and _above(q, 0) else None),
        ((a,), f"{left} IS NULL", "BOOLEAN", lambda v: v is None),
    ]
    if (types[a], types[b]) in (("BIGINT", "BIGINT"), ("DOUBLE", "DOUBLE")):
        forms.append(((a, b), f"{left} = {right}", "BOOLEAN", lambda p, q: None if p is None or q is None else rank(p) == rank(q)))
        forms.append(((a, b), f"{left} / {right}", "DOUBLE", share))
    inputs, text, type_of, function = choose.pick(forms)
    return DerivedPart(Derived(name, inputs, function), text, type_of)


@dataclass(frozen=True)
class Source:
    """What every view of a world shares."""

    key: tuple[tuple[str, str], ...]  # (entity key, type)
    key_columns: tuple[str, ...]  # their columns in the source
    event_type: str
    available: str | None  # column name
    delay: str | None
    tie_break: tuple[str, ...]

    @property
    def entity_python(self) -> str:
        mapping = ", ".join(f"{name}={column!r}" for (name, _), column in zip(self.key, self.key_columns) if name != column)
        return f"thing.on({mapping})" if mapping else "thing"


EVERY = (
    ("1d", "0h", "0s"),
    ("1d", "0h", "2h"),
    ("1h", "10m", "5s"),
    ("10s", "3s", "0s"),
    ("1m", "0s", "150s"),
    ("7d", "1d", "1h"),
    ("1h", "90m", "0s"),
)


def build_view(
    choose: Chooser, name: str, source: Source, names: Sequence[str], latest_taken: set[str], extreme: bool = False
) -> ViewParts:
    every = choose.pick(EVERY) if choose.chance(35) else None
    where = choose.pick(FILTERS) if choose.chance(20) else None
    pinned_hop = "exact" if choose.chance(10) else None
    parts: list[Part] = []
    for base in names:
        part = build_part(choose, base, pinned_hop, extreme)
        if part.python_name is None:
            taken = part.features[0].name
            if taken in latest_taken:
                continue
            latest_taken.add(taken)
            part = replace(part, features=tuple(replace(f, hop=_hop(pinned_hop) if f.window else None) for f in part.features))
        parts.append(part)
    types = {feature.name: part.type for part in parts for feature in part.features}
    derived: list[DerivedPart] = []
    for index in range(choose.pick((0, 0, 1, 2))):
        made = build_derived(choose, f"derived_{name}_{index}", types)
        if made is not None:
            derived.append(made)
            types[made.oracle.name] = made.type
    oracle = View(
        key=source.key_columns,
        event_time="happened_at",
        features=tuple(feature for part in parts for feature in part.features),
        derived=tuple(each.oracle for each in derived),
        available=source.available,
        arrives_after=micros(source.delay) if source.delay else 0,
        tie_break=source.tie_break,
        where=where and where.function,
        period=micros(every[0]) if every else 0,
        offset=micros(every[1]) if every else 0,
        served_after=micros(every[2]) if every else 0,
    )
    columns = frozenset().union(*(part.columns for part in parts), where.columns if where else ())
    return ViewParts(
        name,
        oracle,
        _python_view(name, source, parts, derived, where, every, pinned_hop),
        _sql_view(name, source, parts, derived, where, every),
        types,
        columns,
    )


def _python_view(
    name: str,
    source: Source,
    parts: Sequence[Part],
    derived: Sequence[DerivedPart],
    where: Expression | None,
    every: tuple[str, str, str] | None,
    hop: str | None,
) -> str:
    lines = [f"{name} = FeatureView(", f"    name={name!r},", f"    entity={source.entity_python},", "    source=events,"]
    if where:
        lines.append(f"    where={where.text!r},")
    lines.append("    freshness=" + (f"Every({every[0]!r}, offset={every[1]!r}, delay={every[2]!r})," if every else "REALTIME,"))
    if hop:
        lines.append(f"    hop={hop!r},")
    lines.append("    features={")
    lines += [f"        {part.python}," if part.python_name is None else f"        {part.python_name!r}: {part.python}," for part in parts]
    lines += [f"        {each.oracle.name!r}: derive({each.text!r})," for each in derived]
    return "\n".join([*lines, "    },", ")", ""])


def _sql_view(
    name: str,
    source: Source,
    parts: Sequence[Part],
    derived: Sequence[DerivedPart],
    where: Expression | None,
    every: tuple[str, str, str] | None,
) -> str:
    """The same view in SQL; each (window, hop) is a named window of its own."""
    windows: dict[tuple[int | None, int | str | None], str] = {}
    items = [column if column == key else f"{column} AS {key}" for (key, _), column in zip(source.key, source.key_columns)]
    for part in parts:
        for call, feature in zip(part.sql, part.features):
            window = windows.setdefault((feature.window, feature.hop), f"w{len(windows)}")
            items.append(f"{call} OVER {window} AS {_quoted(feature.name)}")
    items += [f"{each.text} AS {each.oracle.name}" for each in derived]
    partition = f"PARTITION BY {', '.join(source.key_columns)} " if source.key_columns else ""
    clauses, hops = [], []
    for (length, hop), window in windows.items():
        frame = "" if length is None else f" RANGE BETWEEN INTERVAL {_interval(length)} PRECEDING AND CURRENT ROW"
        clauses.append(f"  {window} AS ({partition}ORDER BY happened_at{frame})")
        if hop is not None:
            hops.append(f"{window}: {hop if hop == 'exact' else _duration(int(hop))}")
    freshness = f"every {every[0]} offset {every[1]} delay {every[2]}" if every else "realtime"
    header = [
        "/* featreg",
        f"feature_view: {name}",
        "entity: thing",
        f"freshness: {freshness}",
        *([f"hop: {', '.join(hops)}"] if hops else []),
        "*/",
    ]
    body = ["SELECT", ",\n".join(f"  {item}" for item in items), "FROM events", *([f"WHERE {where.text}"] if where else [])]
    return "\n".join([*header, *body, "WINDOW", ",\n".join(clauses), ""])


def _duration(length: int) -> str:
    return next(f"{length // size}{unit}" for unit, size in reversed(UNITS.items()) if length % size == 0)


def _interval(length: int) -> str:
    text = _duration(length)
    unit = {"s": "SECOND", "m": "MINUTE", "h": "HOUR", "d": "DAY", "w": "WEEK"}[text[-1]]
    return f"{text[:-1]} {unit}"


# Worlds


@dataclass(frozen=True)
class Chosen:
    """One selection of the set: which view, which spine columns are its key, under which names its features come out."""

    view: ViewParts
    spine_columns: tuple[str, ...]
    prefix: str
    python: str


@dataclass(frozen=True, repr=False)
class World:
    """All a test needs.

    python: the specs in Python.  base, sql: the same repository with its views in SQL (file name -> text).
    types: output column -> declared type, in the order of the training set.
    """

    python: str
    base: str
    sql: dict[str, str]
    events: pa.Table
    spine: pa.Table
    event_rows: list[dict[str, Any]]
    spine_rows: list[dict[str, Any]]
    chosen: tuple[Chosen, ...]
    derived: tuple[Derived, ...]
    types: dict[str, str]
    request: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        return f"<world: {len(self.event_rows)} events, {len(self.spine_rows)} spine rows, {len(self.types)} features>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Hypothesis prints dataclasses field by field; `shown` tells it better."""
        printer.text(repr(self))

    def expected(
        self, known_at: int | None = None, rows: Sequence[Mapping[str, Any]] | None = None, spine: Sequence[Mapping[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        """What the oracle says: one dict per spine row; a cell may be an `OracleOverflow`."""
        facts = [lift_all(each.view.oracle, self.event_rows if rows is None else rows, known_at) for each in self.chosen]
        answers: list[dict[str, Any]] = []
        for row in self.spine_rows if spine is None else spine:
            values: dict[str, Any] = {}
            for each, seen in zip(self.chosen, facts):
                key = tuple(row[column] for column in each.spine_columns)
                found = answer(each.view.oracle, seen, key, instant(row["as_of"]), known_at)
                values |= {each.prefix + name: value for name, value in found.items()}
            answers.append(self._with_derived(values, row))
        return answers

    def _with_derived(self, values: dict[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
        seen = values | {name: normal(row[name]) for name in self.request}
        derive_all(self.derived, seen)
        return {name: seen[name] for name in self.types}

    @property
    def overflows(self) -> bool:
        return any(isinstance(value, OracleOverflow) for row in self.expected() for value in row.values())

    def shown(self) -> str:
        """The whole world on one screen: spec, events, spine."""
        return "\n".join([self.python, "events", _shown_rows(self.event_rows), "spine", _shown_rows(self.spine_rows)])


def _shown_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "  (none)"
    lines = ["  " + " | ".join(rows[0])]
    lines += ["  " + " | ".join(_shown(value) for value in row.values()) for row in rows[:40]]
    return "\n".join(lines + ([f"  … and {len(rows) - 40} more"] if len(rows) > 40 else []))


def _shown(value: Any) -> str:
    match value:
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case Decimal() | date():
            return str(value)
    return repr(value)


def from_micros(at: int) -> datetime:
    return EPOCH + timedelta(microseconds=at)


ANCHORS = (
    datetime(2020, 1, 1),
    datetime(1970, 1, 1),
    datetime(2020, 2, 29, 12, 0, 0, 1),
    datetime(1969, 12, 28, 23, 59, 59, 999999),
    datetime(1931, 3, 4, 5, 6, 7),
)
STEPS = (0, SECOND, -1, 1, 10 * SECOND, 59 * SECOND, 60 * SECOND, 3600 * SECOND, DAY - 1, DAY, 2 * DAY + 7 * 3600 * SECOND, 8 * DAY, -DAY)


def edges(view: View, as_of: int) -> set[int]:
    """Event times at and next to every edge that `as_of` has in this view."""
    cutoff = cutoff_at(view, as_of)
    found = {as_of, cutoff}
    for feature in view.features:
        if feature.window is not None:
            hop = hop_of(feature)
            start = cutoff - feature.window
            found |= {start, start // hop * hop, (start + cutoff) // 2, start // hop * hop + hop}
    return {at + step for at in found for step in (-1, 0, 1)} | {cutoff - view.arrives_after, cutoff - view.arrives_after - 1}


def _column_pools(choose: Chooser, columns: Sequence[str], extreme: bool) -> dict[str, list[Any]]:
    """A small alphabet for each column, so that values tie."""
    pools: dict[str, list[Any]] = {}
    for column in columns:
        type = COLUMNS[column]
        wild = EXTREMES[type] if extreme and type in EXTREMES else choose.pick(POOLS[type])
        pools[column] = choose.some(wild, 1, 5) + ([None] if choose.chance(60) else [])
    return pools


def _build_source(choose: Chooser) -> Source:
    types = choose.pick(KEY_TYPES)
    key = tuple(zip(("k", "l", "m"), types))
    mapped = choose.chance(30)
    timing = choose.pick(("none", "column", "delay", "column"))
    tie_break = choose.pick(((), ("rank",), ("x", "rank"), ("s",), ("d",), ("day",)))
    return Source(
        key,
        tuple(f"src_{name}" if mapped else name for name, _ in key),
        "DATE" if choose.chance(5) else "TIMESTAMP",
        "seen_at" if timing == "column" else None,
        choose.pick(("5s", "1h", "0s", "1d")) if timing == "delay" else None,
        tie_break,
    )


def build_world(choose: Chooser, most_events: int = 24, most_spine: int = 8, most_features: int = 5, extremes: bool = True) -> World:
    source = _build_source(choose)
    extreme = extremes and choose.chance(12)
    latest_taken: set[str] = set()
    views = []
    names = choose.some(NAMES, 1, most_features)
    views.append(build_view(choose, "first_view", source, names, latest_taken, extreme))
    if choose.chance(30):
        more = [f"{name}_too" for name in choose.some(NAMES, 1, 2)]
        views.append(build_view(choose, "second_view", source, more, latest_taken, extreme))
    views = [view for view in views if view.oracle.features]
    if not views:
        views = [build_view(choose, "first_view", source, names, set())]
    used = sorted(frozenset().union(*(view.columns for view in views), source.tie_break))

    keys, unknown = _keys(choose, source)
    spine_instants = [_landing(choose, views, instant(choose.pick(ANCHORS)) + choose.pick(STEPS))]
    spine_instants += [spine_instants[0] + choose.pick(STEPS) for _ in range(choose.integer(0, 3))]
    pool = sorted({edge for view in views for at in spine_instants for edge in edges(view.oracle, at)})
    newest = min(cutoff_at(view.oracle, spine_instants[0]) for view in views) - views[0].oracle.arrives_after - 1
    instants = [newest, newest - 2 * SECOND, *choose.some(pool, 1, 10)]
    event_rows = _event_rows(choose, source, used, keys, instants, extreme, most_events)
    chosen, spine_columns = _chosen(choose, source, views)
    types = {each.prefix + name: type for each in chosen for name, type in each.view.types.items()}
    request = ("distance",) if choose.chance(20) else ()
    derived: list[DerivedPart] = []
    if request or choose.chance(20):
        made = build_derived(choose, "set_derived", types | {name: "DOUBLE" for name in request})
        derived = [made] if made else []
        types |= {made.oracle.name: made.type} if made else {}
    spine_rows = _spine_rows(choose, spine_columns, keys + unknown, spine_instants, request, most_spine)

    head = _head(source, used, extreme or any(row["happened_at"] is None for row in event_rows))
    tail = _set_text(chosen, derived, request)
    by_name = tuple(replace(each, python=f"view({each.view.name!r})" + each.python.removeprefix(each.view.name)) for each in chosen)
    return World(
        python="\n".join([head, *(view.python for view in views), tail]),
        base="\n".join([head, _set_text(by_name, derived, request)]),
        sql={f"{view.name}.sql": view.sql for view in views},
        events=_event_table(choose, source, used, event_rows),
        spine=_spine_table(choose, source, spine_columns, request, spine_rows),
        event_rows=event_rows,
        spine_rows=spine_rows,
        chosen=chosen,
        derived=tuple(each.oracle for each in derived),
        types=types,
        request=request,
    )


def _landing(choose: Chooser, views: Sequence[ViewParts], at: int) -> int:
    """`at`, or the very instant at which the last run before it began to be served, or the one before."""
    view = next((view.oracle for view in views if view.oracle.period), None)
    if view is None or choose.chance(50):
        return at
    return cutoff_at(view, at) + view.served_after - choose.integer(0, 1)


def _keys(choose: Chooser, source: Source) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Keys that events have, and keys that only the spine has; NULLs in both."""
    types = [type for _, type in source.key]
    known = [tuple(choose.pick(KEY_POOLS[type]) for type in types) for _ in range(choose.integer(1, 4))]
    unknown = [tuple(choose.pick(KEY_POOLS[type][::-1]) for type in types)]
    if types and choose.chance(40):
        holed = list(known[0])
        holed[choose.integer(0, len(holed) - 1)] = None
        known.append(tuple(holed))
    return known, unknown


def _event_rows(
    choose: Chooser, source: Source, used: Sequence[str], keys: Sequence[tuple[Any, ...]], instants: Sequence[int], extreme: bool, most: int
) -> list[dict[str, Any]]:
    pools = _column_pools(choose, used, extreme)
    lateness = (0, 1, -SECOND, SECOND, 3600 * SECOND, DAY)
    rejects = choose.chance(8)
    rows: list[dict[str, Any]] = []
    for _ in range(choose.integer(0, most)):
        if rows and choose.chance(8):
            rows.append(dict(choose.pick(rows)))
            continue
        at = choose.pick(instants[:3] if choose.chance(50) else instants)
        moment: Any = from_micros(at)
        if source.event_type == "DATE":
            moment = moment.date()
        row = dict(zip(source.key_columns, keys[0] if choose.chance(50) else choose.pick(keys)))
        row["happened_at"] = None if rejects and choose.chance(15) else moment
        if source.available:
            seen = choose.pick(instants) if choose.chance(40) else at + choose.pick(lateness)
            row["seen_at"] = None if choose.chance(10) else from_micros(seen)
        rows.append(row | {column: choose.pick(pools[column]) for column in used})
    return rows


def _chosen(choose: Chooser, source: Source, views: Sequence[ViewParts]) -> tuple[tuple[Chosen, ...], tuple[tuple[str, str], ...]]:
    """The set's selections, and the spine's key columns with their types."""
    keys = [name for name, _ in source.key]
    renamed = bool(keys) and choose.chance(25)
    columns = tuple(f"spine_{name}" if renamed else name for name in keys)
    on = f".on({', '.join(f'{key}={column!r}' for key, column in zip(keys, columns))})" if renamed else ""
    chosen = [Chosen(view, columns, "", f"{view.name}.all(){on}") for view in views]
    spine = tuple((column, type) for column, (_, type) in zip(columns, source.key))
    if keys and choose.chance(20):  # the same view in a second role
        others = tuple(f"other_{name}" for name in keys)
        on = f".on({', '.join(f'{key}={column!r}' for key, column in zip(keys, others))})"
        chosen.append(Chosen(views[0], others, "o_", f"{views[0].name}.all(){on}.prefix('o_')"))
        spine += tuple((column, type) for column, (_, type) in zip(others, source.key))
    return tuple(chosen), spine


def _spine_rows(
    choose: Chooser,
    columns: Sequence[tuple[str, str]],
    keys: Sequence[tuple[Any, ...]],
    instants: Sequence[int],
    request: Sequence[str],
    most: int,
) -> list[dict[str, Any]]:
    width = len(keys[0])
    rows: list[dict[str, Any]] = []
    for number in range(choose.integer(0, most)):
        names = iter(columns)
        row: dict[str, Any] = {"row_label": f"r{number}"}
        for _ in range(len(columns) // width if width else 0):
            row |= {
                name: part
                for (name, _), part in zip([next(names) for _ in range(width)], keys[0] if choose.chance(60) else choose.pick(keys))
            }
        row |= {name: choose.pick((1.0, None, 0.5, 2.0, NAN)) for name in request}
        rows.append(row | {"as_of": from_micros(choose.pick(instants))})
    return rows


def _time_column(choose: Chooser, values: Sequence[datetime | None]) -> pa.Array:
    """The same instants, zoned or naive."""
    whole = pa.array([instant(value) for value in values], pa.int64())
    return whole.cast(pa.timestamp("us", choose.pick(("UTC", None, "Asia/Kolkata"))))


def _event_table(choose: Chooser, source: Source, used: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    data: dict[str, pa.Array] = {
        column: pa.array([row[column] for row in rows], arrow_type(type)) for column, (_, type) in zip(source.key_columns, source.key)
    }
    moments = [row["happened_at"] for row in rows]
    data["happened_at"] = pa.array(moments, pa.date32()) if source.event_type == "DATE" else _time_column(choose, moments)
    if source.available:
        data["seen_at"] = _time_column(choose, [row["seen_at"] for row in rows])
    for column in used:
        data[column] = pa.array([row[column] for row in rows], arrow_type(COLUMNS[column]))
    if choose.chance(20):
        data["undeclared"] = pa.array(range(len(rows)), pa.int64())
    return pa.table(data)


def _spine_table(
    choose: Chooser, source: Source, columns: Sequence[tuple[str, str]], request: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> pa.Table:
    data = {"row_label": pa.array([row["row_label"] for row in rows], pa.string())}
    data |= {column: pa.array([row[column] for row in rows], arrow_type(type)) for column, type in columns}
    data |= {name: pa.array([row[name] for row in rows], pa.float64()) for name in request}
    data["as_of"] = _time_column(choose, [row["as_of"] for row in rows])
    return pa.table(data)


def _head(source: Source, used: Sequence[str], rejects: bool) -> str:
    columns = dict(zip(source.key_columns, (type for _, type in source.key))) | {"happened_at": source.event_type}
    columns |= {"seen_at": "TIMESTAMP"} if source.available else {}
    columns |= {column: COLUMNS[column] for column in used}
    lines = [
        "from featreg import REALTIME, Delay, Entity, EventSource, Every, FeatureSet, FeatureView, agg, derive, view",
        "",
        f"thing = Entity(name='thing', key={dict(source.key)!r})",
        "",
        "events = EventSource(",
        "    name='events',",
        f"    columns={columns!r},",
        "    event_time='happened_at',",
    ]
    if source.available or source.delay:
        lines.append(f"    available={source.available!r}," if source.available else f"    available=Delay({source.delay!r}),")
    if source.tie_break:
        lines.append(f"    tie_break={source.tie_break!r},")
    if rejects:
        lines.append("    max_rejected=100_000,")
    return "\n".join([*lines, ")", ""])


def _set_text(chosen: Sequence[Chosen], derived: Sequence[DerivedPart], request: Sequence[str]) -> str:
    lines = ["world_set = FeatureSet(", "    name='world_set',", f"    features=[{', '.join(each.python for each in chosen)}],"]
    if request:
        lines.append(f"    request={ {name: 'DOUBLE' for name in request}!r},")
    if derived:
        lines.append(f"    derived={ {each.oracle.name: each.text for each in derived}!r},")
    return "\n".join([*lines, ")", ""])


# Steps of materialization


@dataclass(frozen=True, repr=False)
class Step:
    """More rows arrive as one file, then the store is filled up to `to`, then read at `reads`."""

    rows: tuple[int, ...]  # numbers of the event rows
    to: int
    reads: tuple[int, ...]


def build_steps(choose: Chooser, world: World) -> list[Step]:
    """A random order of arrival in which no row comes after an Every run that should have seen it."""
    views = [each.view.oracle for each in world.chosen]
    late_allowed = all(view.period == 0 for view in views)
    visible = [_last_visible(views, row) for row in world.event_rows]
    moments = sorted({instant(row["as_of"]) for row in world.spine_rows} | {at for at in visible if at is not None}) or [0]
    bounds = sorted({choose.pick(moments) + choose.pick((0, 1, 60 * SECOND, DAY)) for _ in range(choose.integer(1, 3))})
    left = list(range(len(visible)))
    steps: list[Step] = []
    for number, to in enumerate(bounds):
        due = [
            n
            for n in left
            if choose.chance(60) or number == len(bounds) - 1 or (not late_allowed and (visible[n] is None or visible[n] < to))
        ]
        left = [n for n in left if n not in due]
        reads = tuple(to + step for step in choose.some((0, 1, -1, -9 * 60 * SECOND, 3600 * SECOND, 3 * DAY, -SECOND), 1, 2))
        steps.append(Step(tuple(due), to, reads))
    return steps


def _last_visible(views: Sequence[View], row: Mapping[str, Any]) -> int | None:
    event_at = instant(row["happened_at"])
    if event_at is None:
        return None
    available = event_at + views[0].arrives_after if views[0].available is None else instant(row[views[0].available])
    return event_at if available is None else max(event_at, available)


# Where the accidents come from

_INTEGERS: dict[tuple[int, int], st.SearchStrategy[int]] = {}


def _drawn(draw: Callable[[st.SearchStrategy[int]], int]) -> Chooser:
    def integer(low: int, high: int) -> int:
        strategy = _INTEGERS.setdefault((low, high), st.integers(low, high))
        return draw(strategy)

    return Chooser(integer)


@st.composite
def worlds(draw: Callable[[Any], Any], most_events: int = 24, most_spine: int = 8, most_features: int = 5, extremes: bool = True) -> World:
    """Small worlds that shrink."""
    return build_world(_drawn(draw), most_events, most_spine, most_features, extremes)


@st.composite
def worlds_in_steps(
    draw: Callable[[Any], Any], most_events: int = 16, most_spine: int = 5, most_features: int = 4
) -> tuple[World, list[Step]]:
    choose = _drawn(draw)
    world = build_world(choose, most_events, most_spine, most_features)
    return world, build_steps(choose, world)


def seeded_world(seed: int, most_events: int = 300, most_spine: int = 80, most_features: int = 8) -> World:
    """A larger world, the same for the same seed."""
    return build_world(Chooser(random.Random(seed).randint), most_events, most_spine, most_features)


def numbered_worlds(first: int = 0) -> Any:
    """Seeded worlds without end, for those who want many in one process (a Spark session, a benchmark)."""
    return (seeded_world(seed) for seed in count(first))
