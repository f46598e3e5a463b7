"""Give every part of an expression its type, and every name its declared spelling.

Conversions become `Cast` nodes here, so the checked tree says all that is
computed; texts, programs and ids are written from it and from nothing else.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from featreg.errors import did_you_mean
from featreg.expressions.conversion import check_cast, common_type, convert
from featreg.expressions.functions import OPERATORS
from featreg.expressions.parse import parse
from featreg.expressions.tree import NULL, Call, Case, Cast, Column, ExpressionError, Literal, Node, Typed, walk
from featreg.vocabulary import BOOLEAN, DATE, TIMESTAMP, VARCHAR, DataType

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CLOCK_WORDS = ("current_date", "current_timestamp", "current_time", "localtime", "localtimestamp")


def analyze(text: str, columns: Mapping[str, DataType], *, expect: DataType | None = None) -> Typed:
    """Read, resolve and type one expression over a row of `columns`.

    expect: the type it must have, such as BOOLEAN for a filter.
    Raises: ExpressionError for anything outside the language, a name that is not in
    `columns` (or is there in two spellings), and types that do not meet.
    """
    names = _Names(columns)
    node = _check(parse(text), names)
    if node.type == NULL:
        if expect is None:
            raise ExpressionError("the expression is always NULL and has no type.", "Give it one: cast(NULL AS DOUBLE).")
        node = convert(node, expect.widened)
    if expect is not None and node.type != expect.widened:
        hint = "Compare it, as in x <> 0 or x IS NOT NULL." if expect == BOOLEAN else f"Cast it: cast(... AS {expect.widened})."
        raise ExpressionError(f"{' '.join(text.split())!r} is {node.type} and must be {expect.widened}.", hint)
    return Typed(node, node.type, frozenset(part.name for part in walk(node) if isinstance(part, Column)))


class _Names:
    """Declared names by their lower case."""

    def __init__(self, columns: Mapping[str, DataType]):
        self.columns = columns
        self.by_lower: dict[str, list[str]] = {}
        for name in columns:
            self.by_lower.setdefault(name.lower(), []).append(name)

    def resolve(self, written: str) -> Column:
        found = self.by_lower.get(written.lower(), [])
        if len(found) > 1:
            raise ExpressionError(f"'{written}' could be {' or '.join(map(repr, found))}.", "Names ignore case; rename one of the columns.")
        if not found:
            if written.lower() in _CLOCK_WORDS:
                raise ExpressionError(
                    f"{written} is not part of the expression language.",
                    "A value may depend on its row only, else training and serving differ.",
                )
            raise ExpressionError(f"column '{written}' is not known here.", did_you_mean(written, self.columns, "The columns are"))
        kind = self.columns[found[0]].widened
        if kind.name in ("LIST", "MAP"):
            raise ExpressionError(
                f"'{found[0]}' is {kind}, and expressions take single values.", "Use an aggregation that gives one value."
            )
        return Column(found[0], kind)


def _check(node: Node, names: _Names) -> Node:
    match node:
        case Column(name=name):
            return names.resolve(name)
        case Literal():
            return node
        case Cast(value=value, type=target):
            return _cast(_check(value, names), target)
        case Case():
            return _case(node, names)
        case Call(operator=operator, arguments=arguments):
            return _call(operator, tuple(_check(argument, names) for argument in arguments))


def _call(name: str, arguments: tuple[Node, ...]) -> Node:
    operator = OPERATORS[name]
    if len(arguments) < operator.least or (operator.most is not None and len(arguments) > operator.most):
        wanted = (
            str(operator.least)
            if operator.most == operator.least
            else f"{operator.least} or more"
            if operator.most is None
            else f"{operator.least} to {operator.most}"
        )
        raise ExpressionError(f"{name}() takes {wanted} argument{'' if wanted == '1' else 's'} and has {len(arguments)}.")
    targets, result = operator.resolve(name, arguments)
    if result == NULL:
        return Literal(None, NULL)
    return Call(name, tuple(convert(argument, target) for argument, target in zip(arguments, targets, strict=True)), result)


def _case(node: Case, names: _Names) -> Node:
    conditions = []
    for condition, _ in node.branches:
        checked = _check(condition, names)
        if checked.type not in (BOOLEAN, NULL):
            raise ExpressionError(f"WHEN takes BOOLEAN and has {checked.type}.", "Compare it, as in WHEN x <> 0 THEN ...")
        conditions.append(convert(checked, BOOLEAN))
    values = [_check(value, names) for _, value in node.branches] + [_check(node.otherwise, names)]
    common = common_type(values, "CASE")
    if common == NULL:
        return Literal(None, NULL)
    converted = [convert(value, common) for value in values]
    return Case(tuple(zip(conditions, converted[:-1], strict=True)), converted[-1], common)


def _cast(value: Node, target: DataType) -> Node:
    check_cast(value.type, target)
    if isinstance(value, Literal) and value.type == VARCHAR and target in (DATE, TIMESTAMP):
        return _instant_literal(str(value.value), target)
    return convert(value, target)


def _instant_literal(text: str, target: DataType) -> Literal:
    """DATE '2013-01-31' or TIMESTAMP '2013-01-31 18:00:00', read here so that no engine's calendar decides."""
    wrong = ExpressionError(f"{text!r} is no {target}.", "Write DATE '2013-01-31' or TIMESTAMP '2013-01-31 18:00:00'.")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d(:?\d\d)?)?)?", text.strip()):
        raise wrong
    try:
        instant = datetime.fromisoformat(text.strip())
    except ValueError:
        raise wrong from None
    if target == DATE:
        if len(text.strip()) > 10:
            raise wrong
        return Literal((instant.date() - date(1970, 1, 1)).days, DATE)
    zoned = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return Literal((zoned - _EPOCH) // timedelta(microseconds=1), TIMESTAMP)
