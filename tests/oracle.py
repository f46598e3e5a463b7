"""Say what every cell of a training set is: the definition of a value, read as a double loop.

For each spine row it looks at every event row and asks the membership rule.  Standard library only,
exact numbers (`Fraction`), no cleverness: it is the witness that every fast path is compared with,
so it shares no code with any of them.

    v(r)       = max(event_time, available), a NULL available falls back to the event time
    cutoff(t)  = t, or the last run tau_k with tau_k + delay <= t
    r counts   iff key(r) = key and v(r) < c and floor_h(c - W) <= event_time(r)
"""

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

Row = Mapping[str, object]
Lift = Callable[[Row], object]

SECOND = 1_000_000
LADDER = tuple(s * SECOND for s in (1, 10, 30, 60, 300, 900, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
QUIET_NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000000))[0]


class OracleOverflow(Exception):
    """A BIGINT sum outside 64 bits, or a DECIMAL sum of more than 38 digits."""


class Rejected(Exception):
    """Raised by a row expression that overflows: the row counts nowhere."""


@dataclass(frozen=True)
class Feature:
    """One aggregation over one window.

    column, by, where: functions of a row; `where` counts when it is True (not NULL).
    scale: of a DECIMAL column.  window: microseconds or None.
    hop: microseconds, "exact", or None for the default of the window.
    """

    name: str
    aggregation: str
    column: Lift | None = None
    by: Lift | None = None
    n: int | None = None
    k: int | None = None
    ignore_nulls: bool = False
    where: Lift | None = None
    window: int | None = None
    hop: int | str | None = None
    scale: int = 0


@dataclass(frozen=True)
class Derived:
    """A function of values named earlier (features, earlier derived ones, request columns)."""

    name: str
    inputs: tuple[str, ...]
    function: Callable[..., object]


@dataclass(frozen=True)
class View:
    """Features of one entity from one source.

    period 0 is realtime; else runs at offset + k * period are served `served_after` microseconds later.
    available: a column; or None and the row arrives `arrives_after` microseconds after its event time.
    """

    key: tuple[str, ...]
    event_time: str
    features: tuple[Feature, ...]
    derived: tuple[Derived, ...] = ()
    available: str | None = None
    arrives_after: int = 0
    tie_break: tuple[str, ...] = ()
    where: Lift | None = None
    period: int = 0
    offset: int = 0
    served_after: int = 0


@dataclass(frozen=True)
class Fact:
    """A row that was not rejected: instants, tie-break ranks, and (value, by) per feature it counts for."""

    key: tuple[object, ...]
    event_at: int
    visible_at: int
    ties: tuple[object, ...]
    inputs: Mapping[str, tuple[object, object]]


# Instants


def instant(value: object) -> int | None:
    """UTC microseconds; naive is UTC, a date is its first instant."""
    match value:
        case None | int():
            return value
        case datetime():
            zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
            return (zoned - EPOCH) // timedelta(microseconds=1)
        case date():
            return (value - EPOCH.date()).days * 86400 * SECOND
    raise TypeError(f"not an instant: {value!r}")


def visible_at(event_at: int, available: int | None) -> int:
    return event_at if available is None else max(event_at, available)


def cutoff_at(view: View, as_of: int, known_at: int | None = None) -> int:
    """Up to when serving knew the world at `as_of`; a store filled up to `known_at` has no later run than that."""
    if view.period == 0:
        return as_of
    last_run = (as_of - view.served_after - view.offset) // view.period
    if known_at is not None:
        last_run = min(last_run, (known_at - view.offset) // view.period)
    return view.offset + last_run * view.period


def hop_of(feature: Feature) -> int:
    if feature.hop == "exact":
        return 1
    if feature.hop is not None:
        return int(feature.hop)
    fitting = [step for step in LADDER if step * 48 <= (feature.window or 0)]
    return fitting[-1] if fitting else SECOND


def floor_to(at: int, hop: int) -> int:
    return at - at % hop


def counts(event_at: int, visible: int, cutoff: int, window: int | None, hop: int) -> bool:
    """The membership rule, all three comparisons of it."""
    if not (visible < cutoff and event_at < cutoff):
        return False
    return window is None or floor_to(cutoff - window, hop) <= event_at


# Values


def normal(value: object) -> object:
    """One zero, one NaN, instants with a zone."""
    if isinstance(value, float):
        return QUIET_NAN if math.isnan(value) else value + 0.0 if value else 0.0
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def rank(value: object) -> tuple[int, object]:
    """Where a value stands among those of its type: NULL lowest, NaN highest, text by its UTF-8 bytes."""
    value = normal(value)
    if value is None:
        return (0, 0)
    if isinstance(value, float) and math.isnan(value):
        return (2, 0)
    return (1, value.encode() if isinstance(value, str) else value)


def rounded(exact: Fraction) -> float:
    """The nearest double, ties to even; beyond range an infinity."""
    try:
        return exact.numerator / exact.denominator
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def special_sum(values: Sequence[object]) -> float | None:
    """What NaN and infinities make of a sum; None when all values are finite."""
    odd = {value for value in values if isinstance(value, float) and not math.isfinite(value)}
    if not odd:
        return None
    return next(iter(odd)) if len(odd) == 1 else QUIET_NAN


def exact_sum(values: Iterable[object]) -> Fraction:
    return sum((Fraction(value) for value in values), Fraction(0))


def sum_of(values: Sequence[object], scale: int) -> object:
    first = values[0]
    if isinstance(first, float):
        special = special_sum(values)
        return rounded(exact_sum(values)) if special is None else special
    total = exact_sum(values)
    if isinstance(first, Decimal):
        unscaled = total * 10**scale
        assert unscaled.denominator == 1, "a DECIMAL value with more digits than its scale"
        if abs(unscaled.numerator) >= 10**38:
            raise OracleOverflow(str(unscaled))
        digits = tuple(map(int, str(abs(unscaled.numerator))))
        return Decimal((int(total < 0), digits, -scale))
    if not -(2**63) <= total < 2**63:
        raise OracleOverflow(str(total))
    return int(total)


def avg_of(values: Sequence[object]) -> float:
    """The sum as one rounded double, divided by the count; a wide integer sum is no overflow here, and no result is -0.0."""
    special = special_sum(values)
    return normal((rounded(exact_sum(values)) if special is None else special) / len(values))


def var_of(values: Sequence[object]) -> float | None:
    n = len(values)
    if n < 2:
        return None
    if special_sum(values) is not None:
        return QUIET_NAN
    squares = sum((Fraction(value) ** 2 for value in values), Fraction(0))
    return rounded((n * squares - exact_sum(values) ** 2) / (n * (n - 1)))


def distinct(values: Iterable[object]) -> dict[object, list[object]]:
    groups: dict[object, list[object]] = {}
    for value in values:
        groups.setdefault(rank(value), []).append(value)
    return groups


def histogram_of(values: Sequence[object], k: int | None) -> list[tuple[object, int]]:
    """The most frequent first, ties by value ascending."""
    pairs = sorted(distinct(values).items(), key=lambda item: (-len(item[1]), item[0]))
    return [(group[0], len(group)) for _, group in pairs[:k]]


def aggregate(feature: Feature, facts: Sequence[Fact]) -> object:
    """The value over the facts in the window, in whatever order they come."""

    def tie_order(fact: Fact) -> tuple[object, ...]:
        return (fact.event_at, fact.visible_at, fact.ties, rank(fact.inputs[feature.name][0]))

    name = feature.aggregation
    ordered = [fact.inputs[feature.name] for fact in sorted(facts, key=tie_order)]
    values = [value for value, _ in ordered if value is not None]
    if name == "count":
        return len(ordered) if feature.column is None else len(values)
    if name == "count_distinct":
        return len(distinct(values))
    if name in ("first", "last"):
        chosen = values if feature.ignore_nulls else [value for value, _ in ordered]
        return None if not chosen else chosen[0] if name == "first" else chosen[-1]
    if name in ("arg_min", "arg_max"):
        pairs = [(value, by) for value, by in ordered if value is not None and by is not None]
        pairs.sort(key=lambda pair: rank(pair[1]))  # stable: the tie order stays within equal `by`
        return None if not pairs else pairs[0][0] if name == "arg_min" else pairs[-1][0]
    if not values:
        return None
    match name:
        case "sum":
            return sum_of(values, feature.scale)
        case "avg":
            return avg_of(values)
        case "var":
            return var_of(values)
        case "stddev":
            variance = var_of(values)
            return None if variance is None else math.sqrt(variance)
        case "min":
            return min(values, key=rank)
        case "max":
            return max(values, key=rank)
        case "any":
            return any(values)
        case "all":
            return all(values)
        case "first_n":
            return values[: feature.n]
        case "last_n":
            return values[::-1][: feature.n]
        case "top_n":
            return sorted(values, key=rank, reverse=True)[: feature.n]
        case "histogram":
            return histogram_of(values, feature.k)
    raise ValueError(f"no aggregation {name!r}")


# Rows


def lift(view: View, row: Row) -> Fact | None:
    """The row as the view sees it; None when it is filtered out or rejected."""
    event_at = instant(row[view.event_time])
    if event_at is None:
        return None
    available = event_at + view.arrives_after if view.available is None else instant(row[view.available])
    inputs: dict[str, tuple[object, object]] = {}
    try:
        if view.where is not None and view.where(row) is not True:
            return None
        for feature in view.features:
            if feature.where is None or feature.where(row) is True:
                value = None if feature.column is None else normal(feature.column(row))
                inputs[feature.name] = (value, None if feature.by is None else normal(feature.by(row)))
    except Rejected:
        return None
    key = tuple(normal(row[column]) for column in view.key)
    ties = tuple(rank(row[column]) for column in view.tie_break)
    return Fact(key, event_at, visible_at(event_at, available), ties, inputs)


def lift_all(view: View, rows: Iterable[Row], known_at: int | None = None) -> list[Fact]:
    facts = [fact for row in rows if (fact := lift(view, row)) is not None]
    return facts if known_at is None else [fact for fact in facts if fact.visible_at < known_at]


def of_key(facts: Iterable[Fact], key: tuple[object, ...]) -> list[Fact]:
    """The facts of one key, compared as typed tuples.  A NULL in either key makes them different."""
    wanted = [(type(part), part) for part in map(normal, key)]
    return [fact for fact in facts if None not in fact.key and [(type(part), part) for part in fact.key] == wanted]


def in_window(feature: Feature, facts: Iterable[Fact], cutoff: int) -> list[Fact]:
    hop = hop_of(feature)
    return [fact for fact in facts if feature.name in fact.inputs and counts(fact.event_at, fact.visible_at, cutoff, feature.window, hop)]


def derive_all(derived: Iterable[Derived], values: dict[str, object]) -> None:
    """Add each derived value; an `OracleOverflow` among its inputs is its value too."""
    for each in derived:
        inputs = [values[name] for name in each.inputs]
        failed = next((value for value in inputs if isinstance(value, OracleOverflow)), None)
        values[each.name] = normal(each.function(*inputs)) if failed is None else failed


def answer(view: View, facts: Sequence[Fact], key: tuple[object, ...], as_of: int, known_at: int | None = None) -> dict[str, object]:
    """One spine row: feature name -> value, or an `OracleOverflow` (not raised) for a cell without one."""
    cutoff, facts = cutoff_at(view, as_of, known_at), of_key(facts, key)
    values: dict[str, object] = {}
    for feature in view.features:
        try:
            values[feature.name] = aggregate(feature, in_window(feature, facts, cutoff))
        except OracleOverflow as overflow:
            values[feature.name] = overflow
    derive_all(view.derived, values)
    return values


def training_rows(
    view: View, events: Iterable[Row], spine: Iterable[tuple[tuple[object, ...], object]], known_at: int | None = None
) -> list[dict[str, object]]:
    """One dict per spine row (key, as-of), same order, duplicates kept.

    known_at: only rows that were visible before it, and only runs up to it.
    Raises: OracleOverflow when any cell has no value.
    """
    facts = lift_all(view, events, known_at)
    rows = [answer(view, facts, key, instant(as_of), known_at) for key, as_of in spine]
    for value in (value for row in rows for value in row.values()):
        if isinstance(value, OracleOverflow):
            raise value
    return rows
