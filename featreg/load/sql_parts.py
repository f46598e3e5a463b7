"""Take the pieces of a SELECT apart: a window's length, an aggregate's arguments, a key column."""

from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from featreg.define import Aggregate, Entity, EntityOn, Window
from featreg.define.aggregate import AGGREGATIONS
from featreg.errors import did_you_mean
from featreg.expressions import Dialect
from featreg.instants import format_duration, parse_duration

# How SQL spells an aggregation; the rest are spelled as in Python.
SPELLINGS = {
    "var_samp": "var",
    "stddev_samp": "stddev",
    "bool_or": "any",
    "bool_and": "all",
    "first_value": "first",
    "last_value": "last",
}
FUNCTIONS = tuple(sorted({*AGGREGATIONS, *SPELLINGS} - {"all"}))  # ALL(x) is SQL's own word: write bool_and
SECOND_ARGUMENT = {"first_n": "n", "last_n": "n", "top_n": "n", "arg_min": "by", "arg_max": "by", "histogram": "k"}
UNITS = {unit + plural: letter for unit, letter in zip(("SECOND", "MINUTE", "HOUR", "DAY", "WEEK"), "smhdw") for plural in ("", "S")}


class Wrong(Exception):
    """A part of the SELECT that means nothing.  at: the node to point to."""

    def __init__(self, at: exp.Expression | None, message: str, hint: str | None = None):
        self.at, self.message, self.hint = at, message, hint


@dataclass(frozen=True)
class Frame:
    """What every window of the view must say: its key columns in the source and its event time, in lower case."""

    keys: tuple[str, ...]
    event_time: str

    @property
    def spelled(self) -> str:
        partition = f"PARTITION BY {', '.join(self.keys)} " if self.keys else ""
        return f"({partition}ORDER BY {self.event_time})"


def text_of(node: exp.Expression) -> str:
    """The node as expression text, function names as written, without comments."""
    return node.sql(dialect=Dialect, comments=False, normalize_functions=False)


def line_of(node: exp.Expression | None, default: int = 1) -> int:
    """The first line on which the parser saw a name of this node; `default` when it has none."""
    lines = [] if node is None else [found.meta["line"] for found in node.walk() if "line" in found.meta]
    return min(lines, default=default)


def line_of_item(item: exp.Expression) -> int:
    """The line on which a select item is named."""
    alias = item.args.get("alias")
    return line_of(alias if isinstance(alias, exp.Identifier) else item)


def key_of(item: exp.Expression, entity: Entity) -> str | None:
    """The entity key that a select item is: a plain column that is called like one."""
    if not isinstance(item.unalias(), exp.Column):
        return None
    return {key.lower(): key for key in entity.key_names}.get(item.alias_or_name.lower())


def mapped(entity: Entity, mapping: dict[str, str]) -> Entity | EntityOn:
    """The entity, found under the source columns of `mapping` where a name differs."""
    return entity if all(key.lower() == column.lower() for key, column in mapping.items()) else entity.on(**mapping)


def unqualify(select: exp.Select, source: str) -> None:
    """Drop the source's name before its columns: `departures.origin` is `origin`."""
    for column in select.find_all(exp.Column):
        if column.table.lower() == source.lower():
            column.set("table", None)


def read_window(over: exp.Window, frame: Frame, hop: str | None) -> Window:
    """A window that is written out: what it partitions and orders by, and how far back it goes.

    hop: from the header.  Raises: Wrong for any window that a feature cannot have.
    """
    _check_partition(over, frame)
    _check_order(over, frame)
    spec = over.args.get("spec")
    micros = None if spec is None else _length(over, spec)
    return Window() if micros is None else Window(format_duration(micros), hop)


def _check_partition(over: exp.Window, frame: Frame) -> None:
    parts = over.args.get("partition_by") or []
    named = sorted(part.name.lower() if isinstance(part, exp.Column) else text_of(part) for part in parts)
    if over.args.get("alias") is not None:
        raise Wrong(over, "a window builds on another one.", "Write it out.")
    if named != sorted(frame.keys):
        said = f"PARTITION BY {', '.join(named)}" if named else "no PARTITION BY"
        raise Wrong(over, f"a window has {said}; it must have the key columns.", f"Write {frame.spelled}.")


def _check_order(over: exp.Window, frame: Frame) -> None:
    order = over.args.get("order")
    terms = order.expressions if order is not None else []
    plain = len(terms) == 1 and isinstance(terms[0].this, exp.Column) and not terms[0].args.get("desc")
    if not plain or terms[0].this.name.lower() != frame.event_time:
        said = text_of(order).strip() if order is not None else "no ORDER BY"
        raise Wrong(over, f"a window has {said}; it must be in the order of the event time.", f"Write {frame.spelled}.")


def _length(over: exp.Window, spec: exp.Expression) -> int | None:
    """Microseconds between the window's ends; None when it has no beginning."""
    hint = "Write RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW."
    if str(spec.args.get("kind")).upper() != "RANGE":
        raise Wrong(over, f"a window counts {spec.args.get('kind')}; it must be a length of time.", hint)
    if spec.args.get("exclude"):
        raise Wrong(over, "a window has an EXCLUDE.", hint)
    if spec.args.get("start_side") != "PRECEDING" or spec.args.get("end") not in (None, "CURRENT ROW"):
        raise Wrong(over, "a window does not end at the current row.", hint)
    start = spec.args.get("start")
    if start == "UNBOUNDED":
        return None
    if not isinstance(start, exp.Interval):
        raise Wrong(over, "a window's length is no interval.", hint)
    unit = UNITS.get(str(start.args.get("unit") or "").upper())
    amount = start.this.unnest() if start.this is not None else None
    if unit is None or not isinstance(amount, exp.Literal) or not amount.this.isdecimal():
        raise Wrong(over, f"{text_of(start)} is not read.", "Write a whole number of seconds, minutes, hours, days or weeks.")
    return parse_duration(f"{amount.this}{unit}")


def read_aggregate(call: exp.Expression, window: Window) -> Aggregate:
    """An aggregate as its Python call would give it, named in full by the SELECT, so without a suffix.

    call: what stands before OVER.  Raises: Wrong for a call that is no aggregation.
    """
    where: str | None = None
    ignore_nulls = False
    while not isinstance(call, exp.Anonymous):
        match call:
            case exp.Filter():
                where = text_of(call.expression.this)
            case exp.IgnoreNulls():
                ignore_nulls = True
            case exp.RespectNulls():
                pass  # what first and last do anyway
            case _:
                raise Wrong(call, f"`{text_of(call)}` is no aggregation.", f"Aggregations are: {', '.join(FUNCTIONS)}.")
        call = call.this
    name = _aggregation(call)
    arguments = list(call.expressions)
    if arguments and isinstance(arguments[0], exp.IgnoreNulls | exp.RespectNulls):
        ignore_nulls = ignore_nulls or isinstance(arguments[0], exp.IgnoreNulls)
        arguments[0] = arguments[0].this
    if name == "count" and arguments and isinstance(arguments[0], exp.Distinct):
        name, arguments = "count_distinct", list(arguments[0].expressions)
    if name == "count" and len(arguments) == 1 and isinstance(arguments[0], exp.Star):
        arguments = []
    given = _arguments(call, name, arguments)
    return Aggregate(aggregation=name, where=where, ignore_nulls=ignore_nulls, windows=(window,), suffixed=False, **given)


def is_aggregate(call: exp.Expression) -> bool:
    return isinstance(call, exp.Filter) or (isinstance(call, exp.Anonymous) and call.name.lower() in FUNCTIONS)


def _aggregation(call: exp.Anonymous) -> str:
    name = call.name.lower()
    if name not in FUNCTIONS:
        raise Wrong(call, f"there is no aggregation '{call.name}'.", did_you_mean(name, FUNCTIONS, "Aggregations are"))
    return SPELLINGS.get(name, name)


def _arguments(call: exp.Expression, name: str, arguments: list[exp.Expression]) -> dict[str, Any]:
    """The arguments by their Python names."""
    names = ["column", *([SECOND_ARGUMENT[name]] if name in SECOND_ARGUMENT else [])]
    if len(arguments) > len(names):
        raise Wrong(call, f"{name} takes {' and '.join(names)}, and {len(arguments)} arguments are given.")
    odd = next((argument for argument in arguments if isinstance(argument, exp.Distinct | exp.Order | exp.Star)), None)
    if odd is not None:
        raise Wrong(call, f"{name} takes no `{text_of(odd).strip()}`.", "Ties are broken by the source's tie_break.")
    given: dict[str, Any] = {}
    for argument, node in zip(names, arguments):
        given[argument] = _whole_number(call, name, argument, node) if argument in ("n", "k") else text_of(node)
    return given


def _whole_number(call: exp.Expression, name: str, argument: str, node: exp.Expression) -> int:
    if not isinstance(node, exp.Literal) or node.is_string or not node.this.isdecimal():
        raise Wrong(call, f"{name}: {argument} is `{text_of(node)}`; it must be a whole number.")
    return int(node.this)
