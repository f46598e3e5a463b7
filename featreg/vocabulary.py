"""Name the value types that a feature can have.

A type is declared as SQL text (`"DECIMAL(10,2)"`) and parsed here once; every
other module compares `DataType` values.
"""

import re
from dataclasses import dataclass

from featreg.errors import UsageError

SCALAR_NAMES = ("BIGINT", "INTEGER", "DOUBLE", "FLOAT", "DECIMAL", "BOOLEAN", "VARCHAR", "DATE", "TIMESTAMP")
KEY_NAMES = ("BIGINT", "INTEGER", "VARCHAR", "BOOLEAN", "DATE", "TIMESTAMP")


@dataclass(frozen=True)
class DataType:
    """A scalar type, or the LIST or MAP that an aggregation returns.

    precision, scale: of a DECIMAL, else 0.  element: what a LIST holds, or the
    key of a MAP (its values are BIGINT counts).
    """

    name: str
    precision: int = 0
    scale: int = 0
    element: "DataType | None" = None

    def __str__(self) -> str:
        match self.name:
            case "DECIMAL":
                return f"DECIMAL({self.precision},{self.scale})"
            case "LIST":
                return f"{self.element}[]"
            case "MAP":
                return f"MAP({self.element}, BIGINT)"
        return self.name

    @property
    def is_numeric(self) -> bool:
        return self.name in ("BIGINT", "INTEGER", "DOUBLE", "FLOAT", "DECIMAL")

    @property
    def widened(self) -> "DataType":
        """What a value of this type is read as: INTEGER as BIGINT, FLOAT as DOUBLE."""
        return {"INTEGER": BIGINT, "FLOAT": DOUBLE}.get(self.name, self)


BIGINT = DataType("BIGINT")
INTEGER = DataType("INTEGER")
DOUBLE = DataType("DOUBLE")
FLOAT = DataType("FLOAT")
BOOLEAN = DataType("BOOLEAN")
VARCHAR = DataType("VARCHAR")
DATE = DataType("DATE")
TIMESTAMP = DataType("TIMESTAMP")

_DECIMAL = re.compile(r"DECIMAL\s*\(\s*(\d{1,9})\s*,\s*(\d{1,9})\s*\)", re.IGNORECASE)


def decimal(precision: int, scale: int) -> DataType:
    return DataType("DECIMAL", precision, scale)


def list_of(element: DataType) -> DataType:
    return DataType("LIST", element=element)


def map_of(key: DataType) -> DataType:
    return DataType("MAP", element=key)


def parse_type(text: str) -> DataType:
    """Read a declared type.

    Raises: UsageError that lists the types when `text` names none of them, or
    when a DECIMAL is wider than 38 digits.

    >>> str(parse_type("decimal(10, 2)"))
    'DECIMAL(10,2)'
    """
    name = text.strip().upper()
    if name in SCALAR_NAMES and name != "DECIMAL":
        return DataType(name)
    found = _DECIMAL.fullmatch(name)
    if found is None:
        raise UsageError(f"unknown type {text!r}. Types are: {', '.join(SCALAR_NAMES).replace('DECIMAL', 'DECIMAL(p,s)')}.")
    precision, scale = int(found[1]), int(found[2])
    if not 1 <= precision <= 38 or scale > precision:
        raise UsageError(f"{text!r}: a DECIMAL has 1 to 38 digits, and no more of them behind the point than it has.")
    return decimal(precision, scale)
