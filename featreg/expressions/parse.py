"""Read expression text into our own tree, and refuse what the language does not have.

sqlglot splits the text and knows precedence, nothing more: function names reach
us as written (its own function table is emptied), so an upgrade of sqlglot
cannot turn one function into another.  An argument of a sqlglot node that is not
listed here is an error, never dropped.
"""

import math
import re
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from typing import ClassVar

import sqlglot
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ParseError, TokenError

from featreg.errors import UsageError
from featreg.expressions.functions import ALIASES, DATE_PARTS, FUNCTIONS
from featreg.expressions.tree import NULL, Call, Case, Cast, Column, ExpressionError, Literal, Node, walk
from featreg.vocabulary import BIGINT, BOOLEAN, DOUBLE, VARCHAR, DataType, parse_type

MOST_CHARACTERS = 100_000
MOST_NODES = 5_000
DEEPEST = 64

_LEAST_BIGINT, _MOST_BIGINT = -(1 << 63), (1 << 63) - 1


class _Parser(DuckDB.Parser):  # type: ignore[valid-type, misc]
    FUNCTIONS: ClassVar[dict] = {}
    FUNCTION_PARSERS: ClassVar[dict] = {name: DuckDB.Parser.FUNCTION_PARSERS[name] for name in ("CAST", "TRY_CAST", "EXTRACT")}
    NO_PAREN_FUNCTIONS: ClassVar[dict] = {}
    NO_PAREN_FUNCTION_PARSERS: ClassVar[dict] = {"CASE": DuckDB.Parser.NO_PAREN_FUNCTION_PARSERS["CASE"]}


class Dialect(DuckDB):
    """DuckDB's tokens and precedence without its functions; parse SQL with it to keep function names as written."""

    Parser = _Parser


def parse(text: str) -> Node:
    """The untyped tree of one expression.

    Raises: ExpressionError when `text` is no expression of the language.
    """
    if not isinstance(text, str) or not text.strip():
        raise ExpressionError("the expression is empty.", "Write SQL, such as 'dep_delay > 15'.")
    if len(text) > MOST_CHARACTERS:
        raise ExpressionError(f"the expression has {len(text)} characters; at most {MOST_CHARACTERS} are read.")
    if "\0" in text or not _is_unicode(text):
        raise ExpressionError("the expression holds a zero byte or half a character.")
    node = _read(_with_a_fresh_stack(text), 0)
    if sum(1 for _ in walk(node)) > MOST_NODES:
        raise ExpressionError(
            f"the expression has more than {MOST_NODES} parts.", "Compute a part of it in the source, or derive it in steps."
        )
    return node


def references(text: str) -> frozenset[str]:
    """The names an expression reads, as written; what they are is not asked."""
    return frozenset(node.name for node in walk(parse(text)) if isinstance(node, Column))


def _with_a_fresh_stack(text: str) -> exp.Expr:
    """sqlglot takes some 25 frames per parenthesis; how deep the caller is must not decide what can be read."""
    try:
        return _tokens_to_tree(text)
    except RecursionError:
        pass
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(_tokens_to_tree, text).result()
        except RecursionError:
            raise _too_deep() from None


def _tokens_to_tree(text: str) -> exp.Expr:
    try:
        trees = sqlglot.Dialect.get_or_raise(Dialect).parse_into(exp.Condition, text)
    except (ParseError, TokenError) as error:
        raise ExpressionError(f"cannot read {_shorten(text)}: {_first_line(error)}") from None
    if len(trees) != 1 or trees[0] is None:
        raise ExpressionError(f"{_shorten(text)} is not one expression.")
    return trees[0]


_BINARY: dict[type, str] = {
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.IntDiv: "//", exp.Mod: "%",
    exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=", exp.DPipe: "||",
}  # fmt: skip

# For each sqlglot node the arguments that are read or carry no meaning; any other that is set is an error.
_ARGUMENTS: dict[type, tuple[str, ...]] = {
    exp.Column: ("this",), exp.Identifier: ("this", "quoted"), exp.Literal: ("this", "is_string"), exp.Boolean: ("this",),
    exp.Null: (), exp.Paren: ("this",), exp.Neg: ("this",), exp.Not: ("this",), exp.And: ("this", "expression"),
    exp.Or: ("this", "expression"), exp.Is: ("this", "expression"), exp.In: ("this", "expressions"), exp.Between: ("this", "low", "high"),
    exp.Like: ("this", "expression", "negate"),
    exp.Cast: ("this", "to"), exp.TryCast: ("this", "to", "safe"), exp.Case: ("this", "ifs", "default"), exp.If: ("this", "true"),
    exp.Anonymous: ("this", "expressions"), exp.Extract: ("this", "expression"),
    **{kind: ("this", "expression", "typed", "safe") for kind in _BINARY},
}  # fmt: skip


def _read(tree: exp.Expr, depth: int) -> Node:
    if depth > DEEPEST:
        raise _too_deep()
    kind = type(tree)
    if kind not in _ARGUMENTS or any(value not in (None, False, []) and name not in _ARGUMENTS[kind] for name, value in tree.args.items()):
        raise _unsupported(tree)

    def read(name: str) -> Node:
        return _read(tree.args[name], depth + 1)

    if kind in _BINARY:
        return Call(_BINARY[kind], (read("this"), read("expression")))
    match tree:
        case exp.Paren():
            return _read(tree.this, depth)
        case exp.Column():
            return Column(tree.name)
        case exp.Literal():
            return Literal(tree.this, VARCHAR) if tree.is_string else _number(tree.this, negative=False)
        case exp.Boolean():
            return Literal(bool(tree.this), BOOLEAN)
        case exp.Null():
            return Literal(None, NULL)
        case exp.Neg():
            return _negative(tree.this, depth)
        case exp.Not():
            return Call("not", (read("this"),))
        case exp.And() | exp.Or():
            return Call("and" if kind is exp.And else "or", tuple(_read(part, depth + 1) for part in tree.flatten(unnest=True)))
        case exp.Is():
            return _is(read("this"), tree.expression)
        case exp.In():
            if not tree.expressions:
                raise _unsupported(tree)
            return Call("in", (read("this"), *(_read(item, depth + 1) for item in tree.expressions)))
        case exp.Between():
            value = read("this")
            return Call("and", (Call(">=", (value, read("low"))), Call("<=", (value, read("high")))))
        case exp.Like():
            like = Call("like", (read("this"), read("expression")))
            return Call("not", (like,)) if tree.args.get("negate") else like
        case exp.Cast():
            return Cast(read("this"), _target(tree.to))
        case exp.Case():
            return _case(tree, depth)
        case exp.Extract():
            return _date_part(tree.name, read("expression"))
        case exp.Anonymous():
            return _function(tree, depth)
    raise _unsupported(tree)


def _negative(tree: exp.Expr, depth: int) -> Node:
    """A minus before a number is part of the number: -9223372036854775808 is a BIGINT."""
    if isinstance(tree, exp.Literal) and not tree.is_string:
        return _number(tree.this, negative=True)
    return Call("negate", (_read(tree, depth + 1),))


def _number(text: str, negative: bool) -> Literal:
    signed = f"-{text}" if negative else text
    if re.fullmatch(r"\d+", text):
        signed = f"-{text.lstrip('0') or 0}" if negative else text.lstrip("0") or "0"
        if len(signed) > 20 or not _LEAST_BIGINT <= int(signed) <= _MOST_BIGINT:  # Python refuses to read 4,300 digits
            raise ExpressionError(f"{signed} is out of range of BIGINT.", f"Write it as DOUBLE: {signed}e0.")
        return Literal(int(signed), BIGINT)
    try:
        value = float(signed) + 0.0  # no -0.0
    except ValueError:
        raise ExpressionError(f"cannot read the number {signed}.") from None
    if math.isinf(value):
        raise ExpressionError(f"{signed} is out of range of DOUBLE.")
    return Literal(value, DOUBLE)


def _is(value: Node, tested: exp.Expr) -> Node:
    match tested:
        case exp.Null():
            return Call("is null", (value,))
        case exp.Boolean(this=wanted):  # x IS TRUE is never NULL
            return Call("coalesce", (value if wanted else Call("not", (value,)), Literal(False, BOOLEAN)))
    raise _unsupported(tested)


def _case(tree: exp.Case, depth: int) -> Node:
    subject = _read(tree.this, depth + 1) if tree.this is not None else None
    branches = []
    for branch in tree.args["ifs"]:
        if type(branch) is not exp.If:
            raise _unsupported(branch)
        condition = _read(branch.this, depth + 1)
        branches.append((condition if subject is None else Call("=", (subject, condition)), _read(branch.args["true"], depth + 1)))
    otherwise = tree.args.get("default")
    return Case(tuple(branches), Literal(None, NULL) if otherwise is None else _read(otherwise, depth + 1))


def _function(tree: exp.Anonymous, depth: int) -> Node:
    written = str(tree.this)
    name = written.lower()
    name = ALIASES.get(name, name)
    if name == "date_part":
        if len(tree.expressions) != 2 or not (isinstance(tree.expressions[0], exp.Literal) and tree.expressions[0].is_string):
            raise ExpressionError(
                "date_part takes the part as text and a date.", "Write date_part('year', departed_at), or year(departed_at)."
            )
        return _date_part(tree.expressions[0].this, _read(tree.expressions[1], depth + 1))
    if name not in FUNCTIONS:
        raise _unknown_function(written)
    return Call(name, tuple(_read(argument, depth + 1) for argument in tree.expressions))


def _date_part(written: str, value: Node) -> Node:
    name = ALIASES.get(written.lower(), written.lower())
    if name == "epoch" or name in DATE_PARTS:
        return Call(name, (value,))
    raise ExpressionError(f"unknown date part '{written}'.", f"The parts are: {', '.join((*DATE_PARTS, 'epoch'))}.")


# The language has one integer and one floating type; the narrow spellings are read as them (design 3, "Numbers").
_TARGETS = {
    "INT": "BIGINT", "BIGINT": "BIGINT", "DOUBLE": "DOUBLE", "FLOAT": "DOUBLE", "BOOLEAN": "BOOLEAN",
    "TEXT": "VARCHAR", "VARCHAR": "VARCHAR", "DATE": "DATE", "TIMESTAMP": "TIMESTAMP", "TIMESTAMPNTZ": "TIMESTAMP",
}  # fmt: skip


def _target(to: exp.DataType) -> DataType:
    name = to.this.name if isinstance(to.this, exp.DType) else str(to.this)
    if name in _TARGETS and not to.args.get("nested"):
        return DataType(_TARGETS[name])
    if name == "DECIMAL" and len(to.expressions) == 2:
        try:
            return parse_type(f"DECIMAL({','.join(parameter.name for parameter in to.expressions)})")
        except UsageError as error:
            raise ExpressionError(str(error)) from None
    raise ExpressionError(
        f"cannot cast to {to.sql(dialect='duckdb')}.",
        "Cast to BIGINT, DOUBLE, DECIMAL(p,s), BOOLEAN, VARCHAR, DATE or TIMESTAMP.",
    )


_UNSUPPORTED: dict[type, tuple[str, str]] = {
    exp.Subquery: ("a subquery", "An expression reads one row. Put the other table in a source and a feature view of its own."),
    exp.Select: ("a subquery", "An expression reads one row. Put the other table in a source and a feature view of its own."),
    exp.Exists: ("a subquery", "An expression reads one row. Put the other table in a source and a feature view of its own."),
    exp.Window: ("a window", "Aggregate with agg.*, and give the window with .over(...)."),
    exp.Filter: ("FILTER", "Aggregate with agg.*, and give the condition with where=."),
    exp.Interval: ("an interval", "Compare seconds: epoch(a) - epoch(b) > 3600."),
    exp.ILike: ("ILIKE", "Write lower(x) LIKE '...'."),
    exp.Escape: ("LIKE ... ESCAPE", "Use contains(x, '...') or starts_with(x, '...')."),
    exp.Pow: ("^", "Write power(x, y)."),
    exp.NullSafeNEQ: ("IS DISTINCT FROM", "Write a <> b OR (a IS NULL) <> (b IS NULL)."),
    exp.NullSafeEQ: ("IS NOT DISTINCT FROM", "Write coalesce(a = b, a IS NULL AND b IS NULL)."),
    exp.Star: ("*", "Name a column."),
}

_AGGREGATES = (
    "sum",
    "count",
    "avg",
    "mean",
    "min",
    "max",
    "stddev",
    "variance",
    "var",
    "median",
    "first",
    "last",
    "any_value",
    "string_agg",
    "arg_min",
)
_UNSTABLE = (
    "now",
    "random",
    "today",
    "uuid",
    "gen_random_uuid",
    "current_date",
    "current_timestamp",
    "current_time",
    "nextval",
    "setseed",
    "get_current_timestamp",
)


def _unsupported(tree: exp.Expr) -> ExpressionError:
    if isinstance(tree, exp.Column) and tree.args.get("table") is not None:
        return ExpressionError(
            f"{tree.sql(dialect='duckdb')} names a table.", "Name the column alone; an expression reads one row of one source."
        )
    if isinstance(tree, exp.In) and tree.args.get("query") is not None:
        return _unsupported(exp.Subquery())
    what, hint = _UNSUPPORTED.get(
        type(tree),
        (_shorten(tree.sql(dialect="duckdb")), "Operators: + - * / // %, comparisons, AND OR NOT, IN, BETWEEN, LIKE, IS NULL, CASE, CAST."),
    )
    return ExpressionError(f"{what} is not part of the expression language.", hint)


def _unknown_function(written: str) -> ExpressionError:
    name = written.lower()
    if name in _UNSTABLE:
        return ExpressionError(
            f"{name}() is not part of the expression language.", "A value may depend on its row only, else training and serving differ."
        )
    if name in _AGGREGATES:
        return ExpressionError(
            f"{name}() aggregates, and an expression reads one row.", f"Write agg.{name}(...) as a feature, if agg has it."
        )
    near = get_close_matches(name, sorted({*FUNCTIONS, *ALIASES}), n=4, cutoff=0.5)
    nearest = f"Did you mean {' or '.join(near)}? " if near else ""
    return ExpressionError(f"unknown function '{written}'.", f"{nearest}Functions are: {', '.join(FUNCTIONS)}.")


def _too_deep() -> ExpressionError:
    return ExpressionError("the expression is nested too deep.", "Derive it in steps.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return f"'{line if len(line) <= 80 else line[:77] + '...'}'"


def _first_line(error: Exception) -> str:
    details = getattr(error, "errors", None)
    if details:
        description = re.sub(r"for <class '.*\.(\w+)'>", r"for \1", details[0]["description"]).rstrip(".")
        return f"{description} at line {details[0]['line']}, column {details[0]['col']}."
    return str(error).splitlines()[0]
