"""Write a checked expression as DuckDB SQL that keeps featreg's rules and never raises.

Where an integer or DECIMAL overflows the text gives NULL; `duckdb_overflow` is
the text that is TRUE on exactly those rows, for the scan to reject them.
"""

from collections.abc import Callable
from datetime import date, datetime, timedelta

from featreg.expressions.conversion import cast_can_fail
from featreg.expressions.functions import LEAST_BIGINT, LEAST_TEXT, OPERATORS
from featreg.expressions.tree import Call, Case, Cast, Column, ExpressionError, Literal, Node, Typed, children
from featreg.vocabulary import DOUBLE, TIMESTAMP, VARCHAR

MOST_TEXT = 1_000_000  # a rule such as ln's domain names its argument twice, so nesting multiplies

ColumnText = Callable[[str], str]


def duckdb_text(typed: Typed, column: ColumnText) -> str:
    """SQL of the expression's type, NULL where it overflows.

    column: the text of a declared name; its DuckDB type must be the widened declared type, a DOUBLE as `clean_double` writes it.
    Raises: ExpressionError when the text grows beyond a megabyte.
    """
    return _Writer(column).text(typed.node)


def duckdb_overflow(typed: Typed, column: ColumnText) -> str | None:
    """SQL that is TRUE where evaluating the expression overflows, else FALSE; None when it never does.

    Every operand counts, those of AND and OR included; of CASE and coalesce only what is evaluated, in order.
    """
    return _Writer(column).overflow(typed.node)


class _Writer:
    def __init__(self, column: ColumnText):
        self.column = column
        self.texts: dict[int, str] = {}  # by id: the tree is held by the caller, and a part is often asked for twice

    def text(self, node: Node) -> str:
        known = self.texts.get(id(node))
        if known is None:
            known = self.texts[id(node)] = _bounded(self._write(node))
        return known

    def _write(self, node: Node) -> str:
        match node:
            case Column(name=name):
                return self.column(name)
            case Literal():
                return literal_text(node)
            case Cast(value=value):
                return _cast_text(node, self.text(value))
            case Case(branches=branches, otherwise=otherwise):
                whens = " ".join(f"WHEN {self.text(condition)} THEN {self.text(value)}" for condition, value in branches)
                return f"CASE {whens} ELSE {self.text(otherwise)} END"
            case Call(operator=operator, arguments=arguments):
                return OPERATORS[operator].text(node, tuple(map(self.text, arguments)))

    def overflow(self, node: Node) -> str | None:
        match node:
            case Case():
                return self._case_overflow(node)
            case Call(operator="coalesce", arguments=arguments):
                return self._coalesce_overflow(arguments)
            case Call(operator=operator, arguments=arguments):
                own = OPERATORS[operator].overflow(node, tuple(map(self.text, arguments)))
                return _any([*map(self.overflow, arguments), own])
        return _any([self.overflow(child) for child in children(node)])

    def _case_overflow(self, node: Case) -> str | None:
        parts = [(self.overflow(condition), self.text(condition), self.overflow(value)) for condition, value in node.branches]
        last = self.overflow(node.otherwise)
        if last is None and not any(condition or value for condition, _, value in parts):
            return None
        whens = "".join(
            (f"WHEN {condition_overflows} THEN TRUE " if condition_overflows else "")
            + f"WHEN {condition} THEN {value_overflows or 'FALSE'} "
            for condition_overflows, condition, value_overflows in parts
        )
        return _bounded(f"CASE {whens}ELSE {last or 'FALSE'} END")

    def _coalesce_overflow(self, arguments: tuple[Node, ...]) -> str | None:
        rest: str | None = None
        for argument in reversed(arguments):
            here = self.overflow(argument)
            rest = _any([here, None if rest is None else f"({self.text(argument)} IS NULL AND {rest})"])
        return rest


def clean_double(text: str) -> str:
    """A DOUBLE column as expressions must see it: -0.0 is 0.0 and every NaN the one quiet NaN.

    The CASE is needed: a Parquet file's statistics leave NaN out, and DuckDB drops by
    them the rows of `x > 5`, and of `x + 0e0 > 5`, whose x is NaN.  They do not reach through a CASE.
    """
    return f"CASE WHEN isnan({text}) THEN 'nan'::DOUBLE ELSE {text} + 0e0 END"


def literal_text(literal: Literal) -> str:
    """A constant of exactly its type: DuckDB alone reads 2 as INTEGER and 1.5 as DECIMAL."""
    value = literal.value
    if value is None:
        return f"CAST(NULL AS {literal.type})"
    match literal.type.name:
        case "BIGINT":
            return LEAST_TEXT if value == LEAST_BIGINT else f"({value})::BIGINT" if int(value) < 0 else f"{value}::BIGINT"
        case "DOUBLE":
            text = repr(value) if "e" in repr(value) else f"{value!r}e0"
            return f"({text})" if float(value) < 0 else text
        case "BOOLEAN":
            return "TRUE" if value else "FALSE"
        case "VARCHAR":
            return "'" + str(value).replace("'", "''") + "'"
        case "DATE":
            return f"DATE '{date(1970, 1, 1) + timedelta(days=int(value))}'"
        case "TIMESTAMP":
            return f"TIMESTAMP '{datetime(1970, 1, 1) + timedelta(microseconds=int(value))}'"
    digits = str(abs(int(value))).rjust(literal.type.scale + 1, "0")
    point = len(digits) - literal.type.scale
    fraction = f".{digits[point:]}" if literal.type.scale else ""
    return f"CAST('{'-' if int(value) < 0 else ''}{digits[:point]}{fraction}' AS {literal.type})"


def _cast_text(node: Cast, value: str) -> str:
    source, target = node.value.type, node.type
    if source == DOUBLE and target == VARCHAR:
        return f"CASE WHEN isnan({value}) THEN 'nan' ELSE CAST({value} + 0e0 AS VARCHAR) END"
    if source == VARCHAR and target == TIMESTAMP:
        return instant_of_text(value)
    text = f"{'TRY_CAST' if cast_can_fail(source, target) else 'CAST'}({value} AS {target})"
    return f"({text} + 0e0)" if source == VARCHAR and target == DOUBLE else text


def instant_of_text(text: str) -> str:
    """A text as TIMESTAMP, NULL for what is none: a zone counts, where DuckDB's own cast drops it; without one it is UTC."""
    return f"TRY(make_timestamp(epoch_us(TRY_CAST({text} AS TIMESTAMP WITH TIME ZONE))))"


def _any(conditions: list[str | None]) -> str | None:
    known = [condition for condition in conditions if condition is not None]
    if len(known) < 2:
        return known[0] if known else None
    return _bounded(f"({' OR '.join(known)})")


def _bounded(text: str) -> str:
    if len(text) > MOST_TEXT:
        raise ExpressionError("the expression is too large to be written as SQL.", "Derive it in steps.")
    return text
