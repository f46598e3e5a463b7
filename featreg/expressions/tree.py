"""Hold an expression as frozen values: five kinds of node, each with its type.

A tree that came from `parse` has `UNTYPED` nodes and names as written; one that
came from `check` has widened types, declared names and every conversion as a
`Cast` node, so that later stages decide nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from featreg.errors import UsageError
from featreg.vocabulary import DataType

UNTYPED = DataType("UNTYPED")
NULL = DataType("NULL")  # the literal NULL before it takes the type of its surroundings


class ExpressionError(UsageError):
    """An expression that is outside the language; `message` says what, `hint` the next step."""

    def __init__(self, message: str, hint: str | None = None):
        self.message, self.hint = message, hint
        super().__init__(f"{message}\n  {hint}" if hint else message)


@dataclass(frozen=True)
class Column:
    """A column of the row: its declared spelling once checked."""

    name: str
    type: DataType = UNTYPED


@dataclass(frozen=True)
class Literal:
    """A constant.

    value: None, bool, int, float or str.  A DATE is days and a TIMESTAMP microseconds
    since 1970, a DECIMAL its digits as an integer (12.50 at scale 2 is 1250).
    """

    value: bool | int | float | str | None
    type: DataType


@dataclass(frozen=True)
class Call:
    """An operator or function of `functions.OPERATORS` on its arguments."""

    operator: str
    arguments: "tuple[Node, ...]"
    type: DataType = UNTYPED


@dataclass(frozen=True)
class Cast:
    """A conversion to `type`; a value that has no such form becomes NULL."""

    value: "Node"
    type: DataType


@dataclass(frozen=True)
class Case:
    """The first branch (condition, value) whose condition is TRUE, else `otherwise`."""

    branches: "tuple[tuple[Node, Node], ...]"
    otherwise: "Node"
    type: DataType = UNTYPED


Node = Column | Literal | Call | Cast | Case


@dataclass(frozen=True)
class Typed:
    """An expression that holds together.

    type: widened (INTEGER reads as BIGINT, FLOAT as DOUBLE).
    columns: the names it reads, in their declared spelling.
    """

    node: Node
    type: DataType
    columns: frozenset[str]


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly under this one, in order of evaluation."""
    match node:
        case Call(arguments=arguments):
            return arguments
        case Cast(value=value):
            return (value,)
        case Case(branches=branches, otherwise=otherwise):
            return (*(part for branch in branches for part in branch), otherwise)
    return ()


def walk(node: Node) -> Iterator[Node]:
    """This node and all below it, outermost first."""
    yield node
    for child in children(node):
        yield from walk(child)
