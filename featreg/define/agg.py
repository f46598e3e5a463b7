"""The aggregations, as an author calls them: `agg.count().over("1d", "7d")`.

`column` and `by` are any row expression; each function also takes `where=` (a
row expression: only these rows), `description=` and `tags=`.  Names of
builtins are taken on purpose: authors write `agg.sum`, never `from agg import`.
"""

from typing import Any, TypedDict, Unpack

from featreg.define.aggregate import Aggregate
from featreg.define.model import Fault, SpecError, nearest


class Common(TypedDict, total=False):
    """What every aggregation takes."""

    where: str | None
    description: str
    tags: tuple[str, ...] | list[str]


def _aggregate(aggregation: str, common: Common, **arguments: Any) -> Aggregate:
    faults = [
        Fault(f"there is no argument '{name}'.", hint=nearest(name, [*arguments, *Common.__annotations__], "Arguments are"))
        for name in common
        if name not in Common.__annotations__
    ]
    if faults:
        raise SpecError(faults, f"agg.{aggregation}")
    given: dict[str, Any] = {**arguments, **common}
    return Aggregate(aggregation=aggregation, **given)


def count(column: str | None = None, **common: Unpack[Common]) -> Aggregate:
    """How many rows, or how many with a value in `column`.  0 for an empty window."""
    return _aggregate("count", common, column=column)


def sum(column: str, **common: Unpack[Common]) -> Aggregate:
    """Exact, rounded once.  BIGINT, DOUBLE or DECIMAL(38,s)."""
    return _aggregate("sum", common, column=column)


def avg(column: str, **common: Unpack[Common]) -> Aggregate:
    """The rounded sum by the count."""
    return _aggregate("avg", common, column=column)


def min(column: str, **common: Unpack[Common]) -> Aggregate:
    """The smallest value of any type; NaN is above every number."""
    return _aggregate("min", common, column=column)


def max(column: str, **common: Unpack[Common]) -> Aggregate:
    """The largest value of any type; NaN is above every number."""
    return _aggregate("max", common, column=column)


def var(column: str, **common: Unpack[Common]) -> Aggregate:
    """Sample variance; NULL below two values."""
    return _aggregate("var", common, column=column)


def stddev(column: str, **common: Unpack[Common]) -> Aggregate:
    """Sample standard deviation; NULL below two values."""
    return _aggregate("stddev", common, column=column)


def any(column: str, **common: Unpack[Common]) -> Aggregate:
    """Whether a value is true."""
    return _aggregate("any", common, column=column)


def all(column: str, **common: Unpack[Common]) -> Aggregate:
    """Whether no value is false."""
    return _aggregate("all", common, column=column)


def count_distinct(column: str, **common: Unpack[Common]) -> Aggregate:
    """How many different values; NaN is one value and -0.0 is 0.0."""
    return _aggregate("count_distinct", common, column=column)


def first(column: str, ignore_nulls: bool = False, **common: Unpack[Common]) -> Aggregate:
    """The oldest row's value, NULL included unless `ignore_nulls`."""
    return _aggregate("first", common, column=column, ignore_nulls=ignore_nulls)


def last(column: str, ignore_nulls: bool = False, **common: Unpack[Common]) -> Aggregate:
    """The newest row's value, NULL included unless `ignore_nulls`."""
    return _aggregate("last", common, column=column, ignore_nulls=ignore_nulls)


def first_n(column: str, n: int, **common: Unpack[Common]) -> Aggregate:
    """The n oldest values, oldest first; NULLs are skipped."""
    return _aggregate("first_n", common, column=column, n=n)


def last_n(column: str, n: int, **common: Unpack[Common]) -> Aggregate:
    """The n newest values, newest first; NULLs are skipped."""
    return _aggregate("last_n", common, column=column, n=n)


def top_n(column: str, n: int, **common: Unpack[Common]) -> Aggregate:
    """The n largest values, duplicates kept, descending."""
    return _aggregate("top_n", common, column=column, n=n)


def arg_min(column: str, by: str, **common: Unpack[Common]) -> Aggregate:
    """`column` of the first row in (by, tie order); a NULL in either skips the row."""
    return _aggregate("arg_min", common, column=column, by=by)


def arg_max(column: str, by: str, **common: Unpack[Common]) -> Aggregate:
    """`column` of the last row in (by, tie order); a NULL in either skips the row."""
    return _aggregate("arg_max", common, column=column, by=by)


def histogram(column: str, k: int | None = None, **common: Unpack[Common]) -> Aggregate:
    """value -> count, the k most frequent (all if None), ties by value ascending."""
    return _aggregate("histogram", common, column=column, k=k)


def latest(*columns: str, within: str | None = None, **common: Unpack[Common]) -> dict[str, Aggregate]:
    """One `last` per column, named as the column and with no suffix: `features={**agg.latest("temp", "wind_speed", within="3h")}`."""
    named = {column: last(column, **common).over(within).replaced(suffixed=False) for column in columns}
    odd = [column for column in named if not column.isidentifier()]
    if odd or not columns:
        faults = [Fault(f'{column!r} is an expression and cannot name a feature. Write "name": agg.last(…).') for column in odd]
        raise SpecError(faults or [Fault("name at least one column.")], "agg.latest")
    return named
