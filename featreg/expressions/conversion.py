"""Decide which types meet in which, and convert a checked node to a type.

Conversions that the language makes by itself never fail: BIGINT to DECIMAL and
DOUBLE, DECIMAL to a wider DECIMAL and DOUBLE, DATE to TIMESTAMP (a DATE is its
first instant).  Text and numbers never meet without a cast.
"""

from collections.abc import Sequence

from featreg.expressions.tree import NULL, Cast, ExpressionError, Literal, Node
from featreg.instants import DAY
from featreg.vocabulary import DOUBLE, TIMESTAMP, VARCHAR, DataType, decimal

MOST_DIGITS = 38
BIGINT_DIGITS = 19


def decimal_shape(node: Node) -> tuple[int, int]:
    """(digits, scale) of a number in DECIMAL company; an integer literal counts the digits it has."""
    if node.type.name == "DECIMAL":
        return node.type.precision, node.type.scale
    if isinstance(node, Literal) and isinstance(node.value, int):
        return len(str(abs(node.value))), 0
    return BIGINT_DIGITS, 0


def common_type(nodes: Sequence[Node], where: str) -> DataType:
    """The type all `nodes` convert to; NULLs take any.

    Raises: ExpressionError, with `where` in its text, when there is none.
    """
    known = [node for node in nodes if node.type != NULL]
    types = {node.type for node in known}
    names = {kind.name for kind in types}
    if not known:
        return NULL
    if len(types) == 1:
        return known[0].type
    if names <= {"BIGINT", "DOUBLE", "DECIMAL"}:
        return DOUBLE if "DOUBLE" in names else _common_decimal(known, where)
    if names == {"DATE", "TIMESTAMP"}:
        return TIMESTAMP
    raise ExpressionError(f"{where} mixes {' and '.join(sorted(map(str, types)))}.", _mixing_hint(names))


def _common_decimal(nodes: Sequence[Node], where: str) -> DataType:
    shapes = [decimal_shape(node) for node in nodes]
    scale = max(scale for _, scale in shapes)
    digits = max(digits - scale for digits, scale in shapes) + scale
    if digits > MOST_DIGITS:
        raise ExpressionError(f"{where} needs DECIMAL({digits},{scale}), and a DECIMAL has at most 38 digits.", "Cast one side to DOUBLE.")
    return decimal(max(digits, 1), scale)


def _mixing_hint(names: set[str]) -> str:
    if "VARCHAR" in names and names & {"DATE", "TIMESTAMP"}:
        return "Write a constant as TIMESTAMP '2013-01-31 18:00:00' or DATE '2013-01-31', or cast: cast(x AS TIMESTAMP)."
    return "Cast one of them, as in cast(x AS DOUBLE)."


def convert(node: Node, target: DataType) -> Node:
    """`node` as `target`: itself when it has that type, a literal when it is one, else a `Cast`."""
    if node.type == target:
        return node
    if isinstance(node, Literal):
        folded = _fold(node, target)
        if folded is not None:
            return folded
    return Cast(node, target)


def _fold(literal: Literal, target: DataType) -> Literal | None:
    value = literal.value
    if value is None:
        return Literal(None, target)
    match literal.type.name, target.name:
        case "BIGINT", "DOUBLE":
            return Literal(float(value), DOUBLE)  # nearest, ties to even, as the cast of a column
        case "BIGINT", "DECIMAL":
            digits = value * 10**target.scale
            return Literal(digits, target) if abs(digits) < 10**target.precision else None
        case "DATE", "TIMESTAMP":
            return Literal(value * DAY, TIMESTAMP)
    return None


def check_cast(source: DataType, target: DataType) -> None:
    """Raises: ExpressionError when no value of `source` could become a `target`."""
    numbers = {"BIGINT", "DOUBLE", "DECIMAL", "BOOLEAN"}
    instants = {"DATE", "TIMESTAMP"}
    pair = {source.name, target.name}
    if source == NULL or "VARCHAR" in pair or pair <= numbers or pair <= instants:
        return
    hint = (
        "Write epoch(x) for seconds since 1970."
        if source.name in instants
        else "Declare the column as TIMESTAMP in the source, or compare epoch(x) with a number."
    )
    raise ExpressionError(f"a {source} cannot be cast to {target}.", hint)


def cast_can_fail(source: DataType, target: DataType) -> bool:
    """Whether some value of `source` has no form in `target` and becomes NULL."""
    match source.name, target.name:
        case (_, "VARCHAR") | (_, "BOOLEAN") if source != VARCHAR:
            return False
        case ("BIGINT" | "BOOLEAN" | "DECIMAL", "DOUBLE") | ("BOOLEAN", "BIGINT"):
            return False
        case "DECIMAL", "DECIMAL":
            return target.precision - target.scale < source.precision - source.scale or target.scale < source.scale
    return source != target
