"""Compile expressions over results into one postfix program for `finish_loop.run_finish`.

The program works on (word, status) pairs.  A word is an int64: a BIGINT,
BOOLEAN, DATE (days), TIMESTAMP (microseconds) or DECIMAL of up to 18 digits
(unscaled) is itself, a DOUBLE its IEEE bits, a VARCHAR a code that is equal
where the texts are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from featreg.expressions import opcodes as op
from featreg.expressions.functions import rounding_digits
from featreg.expressions.tree import Call, Case, Cast, Column, ExpressionError, Literal, Node, Typed
from featreg.vocabulary import DOUBLE, VARCHAR, DataType

MOST_WORD_DIGITS = 18


@dataclass(frozen=True, eq=False)
class FinishProgram:
    """Postfix code that fills the outputs' slots of one row at a time.

    codes: int64[instructions, 3] of (kind, operation, operand), see `opcodes`.
    constants: int64[n]; the first is the depth of the stack.
    strings: the VARCHAR constants; the code of number i is -1 - i, and a slot value equal to it has that code.
    outputs: (name, type) in the order they are computed.
    """

    codes: np.ndarray
    constants: np.ndarray
    strings: tuple[str, ...]
    outputs: tuple[tuple[str, DataType], ...]

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The first arguments of `run_finish`."""
        return self.codes, self.constants


def compile_finish(outputs: Sequence[tuple[str, Typed]], slots: Mapping[str, int]) -> FinishProgram:
    """Postfix code for `outputs`, computed in order; each may read slots that an earlier one wrote.

    slots: where every column and every output lives.  A DECIMAL column of more than
    18 digits lives in two: the low word at its slot, the high word in the next.
    Raises: ExpressionError that names the output, for what only a row expression can do.
    """
    writer = _Writer(slots)
    for name, typed in outputs:
        try:
            _refuse_wide(typed.type)
            writer.write(typed.node)
        except ExpressionError as error:
            raise ExpressionError(f"{name}: {error.message}", error.hint) from None
        writer.emit(op.STORE, 0, slots[name], taken=1, given=0)
    codes = np.array(writer.codes, dtype=np.int64).reshape(-1, 3)
    constants = np.array([writer.deepest, *writer.constants], dtype=np.int64)
    return FinishProgram(codes, constants, tuple(writer.strings), tuple((name, typed.type) for name, typed in outputs))


_WHOLE = {
    "+": op.ADD, "-": op.SUBTRACT, "*": op.MULTIPLY, "//": op.DIVIDE, "%": op.REMAINDER,
    "=": op.EQUAL, "<>": op.UNEQUAL, "<": op.LESS, "<=": op.LESS_EQUAL, ">": op.GREATER, ">=": op.GREATER_EQUAL,
}  # fmt: skip
_DOUBLE = {
    "+": op.F_ADD, "-": op.F_SUBTRACT, "*": op.F_MULTIPLY, "//": op.F_WHOLE_DIVIDE, "%": op.F_REMAINDER,
    "/": op.F_DIVIDE, "power": op.F_POWER, "=": op.F_EQUAL, "<>": op.F_UNEQUAL, "<": op.F_LESS, "<=": op.F_LESS_EQUAL, ">": op.F_GREATER,
    ">=": op.F_GREATER_EQUAL,
}  # fmt: skip
_UNARY = {"negate": op.NEGATE, "abs": op.ABSOLUTE, "not": op.NOT, "epoch": op.EPOCH, "epoch_ms": op.EPOCH_MS, "epoch_us": op.EPOCH_US}
_DOUBLE_UNARY = {
    "negate": op.F_NEGATE,
    "abs": op.F_ABSOLUTE,
    "floor": op.F_FLOOR,
    "ceil": op.F_CEIL,
    "sqrt": op.F_SQRT,
    "ln": op.F_LN,
    "exp": op.F_EXP,
}
_MANY = {
    "and": (op.AND, op.AND), "or": (op.OR, op.OR), "in": (op.IN, op.F_IN), "coalesce": (op.COALESCE, op.COALESCE),
    "is null": (op.IS_NULL, op.IS_NULL), "nullif": (op.NULLIF, op.F_NULLIF), "least": (op.LEAST, op.F_LEAST),
    "greatest": (op.GREATEST, op.F_GREATEST),
}  # fmt: skip
_ORDERS = ("<", "<=", ">", ">=", "least", "greatest")
_ROUNDING = {"round": op.ROUND_DOWN_TO, "floor": op.FLOOR_TO, "ceil": op.CEIL_TO}


@dataclass
class _Writer:
    slots: Mapping[str, int]
    codes: list[tuple[int, int, int]] = field(default_factory=list)
    constants: list[int] = field(default_factory=list)
    strings: list[str] = field(default_factory=list)
    depth: int = 0
    deepest: int = 1

    def emit(self, kind: int, operation: int, operand: int, taken: int, given: int = 1) -> None:
        self.codes.append((kind, operation, operand))
        self.depth += given - taken
        self.deepest = max(self.deepest, self.depth)

    def constant(self, word: int) -> int:
        """Where `word` is in the constants; the first place is the stack's depth."""
        if word not in self.constants:
            self.constants.append(word)
        return self.constants.index(word) + 1

    def write(self, node: Node) -> None:
        """Code that leaves the value of `node` on the stack."""
        match node:
            case Column(name=name, type=kind):
                _refuse_wide(kind)
                self.emit(op.SLOT, 0, self.slots[name], taken=0)
            case Literal():
                self._literal(node)
            case Cast(value=Column(name=name, type=source), type=target) if _is_wide(source) and target == DOUBLE:
                self.emit(op.WIDE, source.scale, self.slots[name], taken=0)
            case Cast(value=value):
                self._cast(value, node.type)
            case Case(branches=branches, otherwise=otherwise):
                for part in (*(part for branch in branches for part in branch), otherwise):
                    self.write(part)
                self.emit(op.MANY, op.CASE, 2 * len(branches) + 1, taken=2 * len(branches) + 1)
            case Call():
                self._call(node)

    def _literal(self, literal: Literal) -> None:
        _refuse_wide(literal.type)
        value = literal.value
        if value is None:
            self.emit(op.NULL_VALUE, 0, 0, taken=0)
            return
        if isinstance(value, str):
            if value not in self.strings:
                self.strings.append(value)
            word = -1 - self.strings.index(value)
        else:
            word = int(np.float64(value).view(np.int64)) if literal.type == DOUBLE else int(value)
        self.emit(op.CONSTANT, 0, self.constant(word), taken=0)

    def _call(self, call: Call) -> None:
        name, arguments = call.operator, call.arguments
        kind = arguments[0].type
        if name == "is null" and isinstance(arguments[0], Column):  # true of a wide DECIMAL too: its low slot says so
            self.emit(op.SLOT, 0, self.slots[arguments[0].name], taken=0)
            self.emit(op.MANY, op.IS_NULL, 1, taken=1)
            return
        _refuse_wide(call.type)
        if kind == VARCHAR and name in _ORDERS:
            raise _only_in_a_row(f"'{name}' on VARCHAR")
        if (name in ("round", "floor", "ceil") and kind != DOUBLE) or name == "round":
            self._rounding(call)
            return
        for argument in arguments:
            self.write(argument)
        doubles = kind == DOUBLE
        if name in _MANY:
            self.emit(op.MANY, _MANY[name][doubles], len(arguments), taken=len(arguments))
        elif len(arguments) == 2 and name in (_DOUBLE if doubles else _WHOLE):
            self.emit(op.BINARY, (_DOUBLE if doubles else _WHOLE)[name], 0, taken=2)
        elif name in (_DOUBLE_UNARY if doubles else _UNARY):
            self.emit(op.UNARY, (_DOUBLE_UNARY if doubles else _UNARY)[name], 0, taken=1)
        else:
            raise _only_in_a_row(f"'{name}'")

    def _rounding(self, call: Call) -> None:
        value = call.arguments[0]
        kind = value.type
        self.write(value)
        if kind == DOUBLE:
            self.emit(op.UNARY, op.F_ROUND, rounding_digits(call), taken=1)
        elif kind.name == "DECIMAL" and call.type.scale < kind.scale:
            self.emit(op.UNARY, _ROUNDING[call.operator], self.constant(10 ** (kind.scale - call.type.scale)), taken=1)

    def _cast(self, value: Node, target: DataType) -> None:
        source = value.type
        _refuse_wide(target)
        self.write(value)
        match source.name, target.name:
            case ("BIGINT" | "BOOLEAN", "DOUBLE"):
                self._unary(op.TO_DOUBLE)
            case "DECIMAL", "DOUBLE":
                self._unary(op.DECIMAL_TO_DOUBLE, self.constant(10**source.scale))
            case "DOUBLE", "BIGINT":
                self._unary(op.F_TO_BIGINT)
            case "DOUBLE", "DECIMAL":
                self._unary(op.F_SCALE, self.constant(10**target.scale))
                self._unary(op.WITHIN, self.constant(10**target.precision))
            case "DOUBLE", "BOOLEAN":
                self._unary(op.F_TO_BOOLEAN)
            case ("BIGINT" | "DECIMAL", "BOOLEAN"):
                self._unary(op.TO_BOOLEAN)
            case "BOOLEAN", "BIGINT":
                pass
            case ("BIGINT" | "BOOLEAN" | "DECIMAL", "DECIMAL" | "BIGINT"):
                self._rescale(source, target)
            case "DATE", "TIMESTAMP":
                self._unary(op.DATE_TO_TIMESTAMP)
            case _:
                raise _only_in_a_row(f"the cast of {source} to {target}")

    def _rescale(self, source: DataType, target: DataType) -> None:
        """Digits behind the point are added exactly or rounded half away from zero; what does not fit is NULL."""
        if target.scale > source.scale:
            self._unary(op.SCALE_UP, self.constant(10 ** (target.scale - source.scale)))
        elif target.scale < source.scale:
            self._unary(op.ROUND_DOWN_TO, self.constant(10 ** (source.scale - target.scale)))
        if target.name == "DECIMAL":
            self._unary(op.WITHIN, self.constant(10**target.precision))

    def _unary(self, operation: int, operand: int = 0) -> None:
        self.emit(op.UNARY, operation, operand, taken=1)


def _is_wide(kind: DataType) -> bool:
    return kind.name == "DECIMAL" and kind.precision > MOST_WORD_DIGITS


def _refuse_wide(kind: DataType) -> None:
    if _is_wide(kind):
        raise ExpressionError(
            f"{kind} has more than 18 digits, and a derived feature computes with at most 18.", "Cast it first: cast(x AS DOUBLE)."
        )


def _only_in_a_row(what: str) -> ExpressionError:
    return ExpressionError(
        f"{what} cannot be used in a derived feature.",
        "Move it into a row expression: an aggregation's column or where=, or the view's where.",
    )
