"""List every operator and function: what it takes, what it gives, how DuckDB spells it.

`OPERATORS` is the whole language beside columns, constants, CASE and casts.
DuckDB's text is written to featreg's rules (x/0 is NULL, no -0.0, nothing
raises), so it is longer than the operator where DuckDB's own habit differs.
"""

from collections.abc import Callable
from dataclasses import dataclass

from featreg.expressions.conversion import MOST_DIGITS, common_type, decimal_shape
from featreg.expressions.tree import NULL, Call, ExpressionError, Literal, Node
from featreg.vocabulary import BIGINT, BOOLEAN, DATE, DOUBLE, TIMESTAMP, VARCHAR, DataType, decimal

Nodes = tuple[Node, ...]
Texts = tuple[str, ...]
Signature = tuple[tuple[DataType, ...], DataType]  # what each argument is converted to, and the result

LEAST_BIGINT = -(1 << 63)
LEAST_TEXT = f"({LEAST_BIGINT})::BIGINT"
ROUND_DIGITS = 15


@dataclass(frozen=True)
class Operator:
    """One operator or function.

    least, most: how many arguments; most None is any number.
    resolve: typed arguments -> signature, or ExpressionError.
    text: the checked call and its arguments' DuckDB texts -> DuckDB text that never raises.
    overflow: the same -> DuckDB text, TRUE where this call (not its arguments) overflows; None when it cannot.
    """

    name: str
    least: int
    most: int | None
    resolve: Callable[[str, Nodes], Signature]
    text: Callable[[Call, Texts], str]
    overflow: Callable[[Call, Texts], str | None] = lambda call, texts: None


# ---- what it takes and gives


def _same_type(name: str, arguments: Nodes) -> Signature:
    """All arguments become one type, which is the result."""
    common = common_type(arguments, _shown(name, arguments))
    return (common,) * len(arguments), common


def _comparison(name: str, arguments: Nodes) -> Signature:
    common = common_type(arguments, _shown(name, arguments))
    return (BOOLEAN if common == NULL else common,) * len(arguments), BOOLEAN


def _is_null(name: str, arguments: Nodes) -> Signature:
    return (BOOLEAN if arguments[0].type == NULL else arguments[0].type,), BOOLEAN


def _additive(name: str, arguments: Nodes) -> Signature:
    _numeric(name, arguments)
    common = _number_or_bigint(common_type(arguments, _shown(name, arguments)))
    if common.name == "DECIMAL":
        return (common, common), decimal(min(common.precision + 1, MOST_DIGITS), common.scale)
    return (common, common), common


def _product(name: str, arguments: Nodes) -> Signature:
    _numeric(name, arguments)
    common = _number_or_bigint(common_type([a for a in arguments if a.type.name != "DECIMAL"], name))
    if common == DOUBLE or not any(a.type.name == "DECIMAL" for a in arguments):
        return (common, common), common
    shapes = [(1, 0) if argument.type == NULL else decimal_shape(argument) for argument in arguments]
    digits, scale = (sum(part) for part in zip(*shapes, strict=True))
    if scale > MOST_DIGITS:
        raise ExpressionError(
            f"{_shown(name, arguments)} needs {scale} digits behind the point; a DECIMAL has 38.", "Cast one side to DOUBLE."
        )
    return tuple(decimal(*shape) for shape in shapes), decimal(min(digits, MOST_DIGITS), scale)


def _doubles(name: str, arguments: Nodes) -> Signature:
    _numeric(name, arguments)
    return (DOUBLE,) * len(arguments), DOUBLE


def _whole_division(name: str, arguments: Nodes) -> Signature:
    _numeric(name, arguments)
    if any(argument.type.name == "DECIMAL" for argument in arguments):
        raise ExpressionError(f"{_shown(name, arguments)}: {name} takes BIGINT or DOUBLE.", "Cast the DECIMAL to one of them.")
    common = _number_or_bigint(common_type(arguments, name))
    return (common, common), common


def _one_number(name: str, arguments: Nodes) -> Signature:
    _numeric(name, arguments)
    kind = _number_or_bigint(arguments[0].type)
    return (kind,), kind


def _whole(name: str, arguments: Nodes) -> Signature:
    """floor and ceil: a DECIMAL loses its scale and keeps its digits."""
    _numeric(name, arguments)
    kind = _number_or_bigint(arguments[0].type)
    return (kind,), decimal(kind.precision, 0) if kind.name == "DECIMAL" else kind


def _rounding(name: str, arguments: Nodes) -> Signature:
    _numeric(name, arguments)
    if len(arguments) == 1:
        return _whole(name, arguments)
    kind, digits = _number_or_bigint(arguments[0].type), arguments[1]
    if not isinstance(digits, Literal) or digits.type != BIGINT or not -ROUND_DIGITS <= int(digits.value or 0) <= ROUND_DIGITS:
        raise ExpressionError(
            f"round(x, digits): digits is an integer constant from -{ROUND_DIGITS} to {ROUND_DIGITS}.", "Write round(x, 2)."
        )
    if kind != DOUBLE and int(digits.value or 0) < 0:
        raise ExpressionError(f"round of a {kind} takes no negative digits.", "Cast to DOUBLE: round(cast(x AS DOUBLE), -2).")
    if kind.name == "DECIMAL":
        return (kind, BIGINT), decimal(kind.precision, min(int(digits.value or 0), kind.scale))
    return (kind, BIGINT), kind


def _fixed(*targets: DataType, result: DataType) -> Callable[[str, Nodes], Signature]:
    """Arguments of exactly these types; the last type repeats."""

    def resolve(name: str, arguments: Nodes) -> Signature:
        wanted = tuple(targets[min(i, len(targets) - 1)] for i in range(len(arguments)))
        for number, (argument, target) in enumerate(zip(arguments, wanted, strict=True), 1):
            if argument.type not in (target, NULL):
                raise ExpressionError(
                    f"argument {number} of {_plain(name)} is {argument.type} and must be {target}.", f"Cast it: cast(x AS {target})."
                )
        return wanted, result

    return resolve


def _condition(name: str, arguments: Nodes) -> Signature:
    for argument in arguments:
        if argument.type not in (BOOLEAN, NULL):
            raise ExpressionError(f"{name.upper()} takes BOOLEAN and has {argument.type}.", "Compare it, as in x <> 0 or x IS NOT NULL.")
    return (BOOLEAN,) * len(arguments), BOOLEAN


def _instant(kept: bool, result: DataType) -> Callable[[str, Nodes], Signature]:
    """A DATE or TIMESTAMP; `kept` False reads a DATE as its first instant."""

    def resolve(name: str, arguments: Nodes) -> Signature:
        kind = arguments[0].type
        if kind not in (DATE, TIMESTAMP, NULL):
            raise ExpressionError(f"{name}() takes a DATE or TIMESTAMP and has {kind}.", "Cast it: cast(x AS TIMESTAMP).")
        return (DATE if kept and kind == DATE else TIMESTAMP,), result

    return resolve


def _numeric(name: str, arguments: Nodes) -> None:
    for argument in arguments:
        if argument.type.is_numeric or argument.type == NULL:
            continue
        hint = f"Cast it: cast(x AS {'BIGINT' if argument.type == BOOLEAN else 'DOUBLE'})."
        if argument.type in (DATE, TIMESTAMP):
            hint = "Write epoch(a) - epoch(b) for the seconds between two instants."
        if name == "+" and argument.type == VARCHAR:
            hint = "Write a || b to join texts."
        raise ExpressionError(f"{_plain(name)} takes numbers and has {argument.type}.", hint)


def _number_or_bigint(kind: DataType) -> DataType:
    return BIGINT if kind == NULL else kind


def _plain(name: str) -> str:
    return f"{name}()" if name[0].isalpha() else name


def _shown(name: str, arguments: Nodes) -> str:
    types = [str(argument.type) for argument in arguments]
    return (
        f"{types[0]} {name.upper()} {types[1]}"
        if len(types) == 2 and (not name[0].isalpha() or name in ("in", "like"))
        else f"{_plain(name)}"
    )


# ---- how DuckDB spells it


def _infix(spelling: str) -> Callable[[Call, Texts], str]:
    return lambda call, texts: f"({f' {spelling} '.join(texts)})"


def _function(spelling: str) -> Callable[[Call, Texts], str]:
    return lambda call, texts: f"{spelling}({', '.join(texts)})"


def _no_negative_zero(text: str) -> str:
    """-0.0 + 0.0 is 0.0 and nothing else changes."""
    return f"({text} + 0e0)"


def _operand(call: Call) -> DataType:
    return call.arguments[0].type


def _constant(node: Node) -> object:
    """The value of a literal; ... when the node is none."""
    return node.value if isinstance(node, Literal) else ...


def _checked(call: Call, raw: str) -> str:
    return f"TRY{raw}" if _may_overflow(call) else raw


def _may_overflow(call: Call) -> bool:
    if call.type == BIGINT:
        return True
    if call.type.name != "DECIMAL":
        return False
    digits = [argument.type.precision for argument in call.arguments]
    return sum(digits) > MOST_DIGITS if call.operator == "*" else call.operator in "+-" and digits[0] == MOST_DIGITS


def _try_overflow(raw: Callable[[Call, Texts], str]) -> Callable[[Call, Texts], str | None]:
    """Overflow is a NULL out of arguments that are none."""

    def overflow(call: Call, texts: Texts) -> str | None:
        if not _may_overflow(call):
            return None
        known = "".join(f"{text} IS NOT NULL AND " for node, text in zip(call.arguments, texts, strict=True) if _constant(node) is ...)
        return "FALSE" if None in map(_constant, call.arguments) else f"({known}TRY{raw(call, texts)} IS NULL)"

    return overflow


def _arithmetic_text(spelling: str) -> Callable[[Call, Texts], str]:
    raw = _infix(spelling)
    return lambda call, texts: _checked(call, raw(call, texts))


def _product_raw(call: Call, texts: Texts) -> str:
    """DuckDB keeps a product of short DECIMALs at 18 digits; a longer operand first makes room."""
    left, right = texts
    first, second = (argument.type for argument in call.arguments)
    if call.type.name == "DECIMAL" and max(first.precision, second.precision) <= 18 < call.type.precision:
        return f"(CAST(CAST({left} AS {decimal(19, first.scale)}) * {right} AS {call.type}))"
    return f"({left} * {right})"


def _product_text(call: Call, texts: Texts) -> str:
    raw = _product_raw(call, texts)
    return _no_negative_zero(raw) if call.type == DOUBLE else _checked(call, raw)


def _negate_raw(call: Call, texts: Texts) -> str:
    """Zero less x: no -0.0, and no HUGEINT, which DuckDB makes of a minus before the least BIGINT."""
    zero = {"DOUBLE": "0e0 - ", "BIGINT": "0::BIGINT - "}.get(call.type.name, "-")
    return f"({zero}{texts[0]})"


def _negate_text(call: Call, texts: Texts) -> str:
    return _checked(call, _negate_raw(call, texts))


def _abs_raw(call: Call, texts: Texts) -> str:
    return f"(abs({texts[0]}))"


def _abs_text(call: Call, texts: Texts) -> str:
    return _checked(call, _abs_raw(call, texts))


def _divisor(call: Call, text: str) -> str:
    if _constant(call.arguments[1]) in (..., 0, None):
        return f"nullif({text}, {'0e0' if _operand(call) == DOUBLE else '0'})"
    return text


def _quotient_text(call: Call, texts: Texts) -> str:
    return _no_negative_zero(f"{texts[0]} / {_divisor(call, texts[1])}")


def _whole_quotient_text(call: Call, texts: Texts) -> str:
    """Towards zero; DuckDB's own // keeps the fraction of a DOUBLE."""
    if call.type == DOUBLE:
        return _no_negative_zero(f"trunc({texts[0]} / {_divisor(call, texts[1])})")
    return f"TRY({texts[0]} // {_divisor(call, texts[1])})"


def _whole_quotient_overflow(call: Call, texts: Texts) -> str | None:
    if call.type == DOUBLE or _constant(call.arguments[1]) not in (..., -1):
        return None
    return f"coalesce({texts[0]} = {LEAST_TEXT} AND {texts[1]} = -1, FALSE)"


def _remainder_text(call: Call, texts: Texts) -> str:
    """The sign of the dividend; x % -1 is x % 1, which cannot raise."""
    if call.type == DOUBLE:
        return _no_negative_zero(f"{texts[0]} % {_divisor(call, texts[1])}")
    left, right = texts
    divisor = _constant(call.arguments[1])
    if divisor is ...:
        return f"({left} % CASE {right} WHEN 0 THEN NULL WHEN -1 THEN 1 ELSE {right} END)"
    return f"({left} % {'1::BIGINT' if divisor == -1 else _divisor(call, right)})"


def _whole_text(spelling: str) -> Callable[[Call, Texts], str]:
    def text(call: Call, texts: Texts) -> str:
        kind = _operand(call)
        if kind == BIGINT:
            return texts[0]
        plain = f"{spelling}({texts[0]})"
        return _no_negative_zero(plain) if kind == DOUBLE else plain

    return text


def rounding_digits(call: Call) -> int:
    """The constant second argument of round, 0 without one."""
    last = call.arguments[-1]
    return last.value if len(call.arguments) == 2 and isinstance(last, Literal) and isinstance(last.value, int) else 0


def _round_text(call: Call, texts: Texts) -> str:
    if len(texts) == 1:
        return _whole_text("round")(call, texts)
    kind, digits = _operand(call), rounding_digits(call)
    if kind == BIGINT or (kind.name == "DECIMAL" and digits >= kind.scale):
        return texts[0]
    if kind != DOUBLE:
        return f"round({texts[0]}, {digits})"
    return _no_negative_zero(_scaled_round(texts[0], digits))


def _scaled_round(text: str, digits: int) -> str:
    """Scaled by a power of ten, rounded half away from zero, scaled back; what overflows has no such digits and stays.

    DuckDB's own round(x, digits) means another thing in 2.0.1 (2.675 to 2.67) than in 2.0.0 (2.68), and a value must not.
    """
    scale = f"1e{abs(digits)}"
    rounded = f"round(({text}) * {scale}) / {scale}" if digits >= 0 else f"round(({text}) / {scale}) * {scale}"
    return f"CASE WHEN isfinite({rounded}) THEN {rounded} ELSE {text} END"


def _substr_text(call: Call, texts: Texts) -> str:
    """Start and length are held to 32 bits, beyond which DuckDB raises and no text reaches."""
    return f"substr({', '.join((texts[0], *(_limited(n, t) for n, t in zip(call.arguments[1:], texts[1:], strict=True))))})"


def _limited(node: Node, text: str) -> str:
    value = _constant(node)
    if isinstance(value, int) and abs(value) < 1 << 31:
        return text
    return text if value is None else f"least(greatest({text}, -2147483647), 2147483647)"


def _nothing_below(spelling: str, outside: str) -> Callable[[Call, Texts], str]:
    return lambda call, texts: f"CASE WHEN {texts[0]} {outside} 0e0 THEN NULL ELSE {spelling}({texts[0]}) END"


def _milliseconds_text(call: Call, texts: Texts) -> str:
    """Floored: DuckDB rounds."""
    return f"((epoch_us({texts[0]}) - CASE WHEN {texts[0]} < TIMESTAMP '1970-01-01' THEN 999 ELSE 0 END) // 1000)"


# ---- the table

DATE_PARTS = ("year", "quarter", "month", "day", "hour", "minute", "second", "dayofweek", "dayofyear", "week")
_OF_THE_CLOCK = ("hour", "minute", "second")

_TABLE = (
    Operator("+", 2, 2, _additive, _arithmetic_text("+"), _try_overflow(_infix("+"))),
    Operator("-", 2, 2, _additive, _arithmetic_text("-"), _try_overflow(_infix("-"))),
    Operator("*", 2, 2, _product, _product_text, _try_overflow(_product_raw)),
    Operator("/", 2, 2, _doubles, _quotient_text),
    Operator("//", 2, 2, _whole_division, _whole_quotient_text, _whole_quotient_overflow),
    Operator("%", 2, 2, _whole_division, _remainder_text),
    Operator("negate", 1, 1, _one_number, _negate_text, _try_overflow(_negate_raw)),
    *(Operator(name, 2, 2, _comparison, _infix(name)) for name in ("=", "<>", "<", "<=", ">", ">=")),
    Operator("and", 2, None, _condition, _infix("AND")),
    Operator("or", 2, None, _condition, _infix("OR")),
    Operator("not", 1, 1, _condition, lambda call, texts: f"(NOT {texts[0]})"),
    Operator("is null", 1, 1, _is_null, lambda call, texts: f"({texts[0]} IS NULL)"),
    Operator("in", 2, None, _comparison, lambda call, texts: f"({texts[0]} IN ({', '.join(texts[1:])}))"),
    Operator("like", 2, 2, _fixed(VARCHAR, result=BOOLEAN), _infix("LIKE")),
    Operator("||", 2, 2, _fixed(VARCHAR, result=VARCHAR), _infix("||")),
    Operator("coalesce", 1, None, _same_type, _function("coalesce")),
    Operator("nullif", 2, 2, _same_type, _function("nullif")),
    Operator("least", 1, None, _same_type, _function("least")),
    Operator("greatest", 1, None, _same_type, _function("greatest")),
    Operator("abs", 1, 1, _one_number, _abs_text, _try_overflow(_abs_raw)),
    Operator("round", 1, 2, _rounding, _round_text),
    Operator("floor", 1, 1, _whole, _whole_text("floor")),
    Operator("ceil", 1, 1, _whole, _whole_text("ceil")),
    Operator("sqrt", 1, 1, _doubles, _nothing_below("sqrt", "<")),
    Operator("ln", 1, 1, _doubles, _nothing_below("ln", "<=")),
    Operator("exp", 1, 1, _doubles, _function("exp")),
    Operator("power", 2, 2, _doubles, lambda call, texts: _no_negative_zero(f"pow({texts[0]} + 0e0, {texts[1]})")),
    Operator("length", 1, 1, _fixed(VARCHAR, result=BIGINT), _function("length")),
    Operator("lower", 1, 1, _fixed(VARCHAR, result=VARCHAR), _function("lower")),
    Operator("upper", 1, 1, _fixed(VARCHAR, result=VARCHAR), _function("upper")),
    Operator("substr", 2, 3, _fixed(VARCHAR, BIGINT, result=VARCHAR), _substr_text),
    Operator("concat", 1, None, _fixed(VARCHAR, result=VARCHAR), _function("concat")),
    Operator("trim", 1, 1, _fixed(VARCHAR, result=VARCHAR), _function("trim")),
    Operator("starts_with", 2, 2, _fixed(VARCHAR, result=BOOLEAN), _function("starts_with")),
    Operator("contains", 2, 2, _fixed(VARCHAR, result=BOOLEAN), _function("contains")),
    *(Operator(part, 1, 1, _instant(part not in _OF_THE_CLOCK, BIGINT), _function(part)) for part in DATE_PARTS),
    Operator("epoch", 1, 1, _instant(False, DOUBLE), lambda call, texts: f"(CAST(epoch_us({texts[0]}) AS DOUBLE) / 1e6)"),
    Operator("epoch_ms", 1, 1, _instant(False, BIGINT), _milliseconds_text),
    Operator("epoch_us", 1, 1, _instant(False, BIGINT), _function("epoch_us")),
)

OPERATORS = {operator.name: operator for operator in _TABLE}
NOT_CALLED = ("negate", "and", "or", "not", "is null", "in", "like")
FUNCTIONS = tuple(name for name in OPERATORS if name[0].isalpha() and name not in NOT_CALLED)

# Other spellings of the same function: they have the same meaning and the same id.
ALIASES = {
    "substring": "substr", "ceiling": "ceil", "pow": "power", "dow": "dayofweek", "weekday": "dayofweek", "doy": "dayofyear",
    "date_part": "date_part", "strlen": "length", "len": "length",
}  # fmt: skip
