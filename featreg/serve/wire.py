"""Write values as JSON and read them back, by declared type, so that no bit is lost on the way.

JSON has no NaN, no infinity, no decimals, instants or dates: texts stand for them.  Both sides read by the declared
type, so a VARCHAR "NaN" stays a text and the DOUBLE "NaN" becomes the number; a DOUBLE is written with the digits that
give it back, and 3 that is declared DOUBLE is read as 3.0.  A map is a list of pairs, for keys are not texts only.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from featreg.errors import DataError, UsageError
from featreg.instants import iso_text, parse_instant
from featreg.vocabulary import DataType, list_of, map_of, parse_type

Convert = Callable[[Any], Any]

INFINITY = float("inf")
SPECIAL = {"NaN": float("nan"), "Infinity": INFINITY, "-Infinity": -INFINITY}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAP = re.compile(r"MAP\((.+), BIGINT\)")
_LARGEST = (1 << 63) - 1


def read_type(text: str) -> DataType:
    """A type as `str` writes it, lists and maps included."""
    if text.endswith("[]"):
        return list_of(read_type(text[:-2]))
    found = _MAP.fullmatch(text)
    return map_of(read_type(found[1])) if found else parse_type(text)


def instant_text(micros: int | None) -> str | None:
    """ISO 8601 with Z."""
    if micros is None:
        return None
    return iso_text(_EPOCH + timedelta(microseconds=micros))


def instant_of(text: str | None) -> int | None:
    return None if text is None else (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND


# To JSON


def _double_text(value: float) -> Any:
    if -INFINITY < value < INFINITY:
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def writer(kind: DataType) -> Convert | None:
    """How a value that is not None becomes what JSON has; None where it is that already."""
    match kind.name:
        case "DOUBLE" | "FLOAT":
            return _double_text
        case "DECIMAL":
            return str
        case "DATE":
            return date.isoformat
        case "TIMESTAMP":
            return lambda value: value.isoformat().replace("+00:00", "Z")
        case "LIST":
            inner = writer(kind.element)  # type: ignore[arg-type]
            return None if inner is None else _list_of(inner)
        case "MAP":
            inner = writer(kind.element)  # type: ignore[arg-type]
            return _pairs_writer(inner)
    return None


def _list_of(inner: Convert) -> Convert:
    return lambda value: [None if one is None else inner(one) for one in value]


def _pairs_writer(inner: Convert | None) -> Convert:
    write = inner or _same
    return lambda value: [[write(key), count] for key, count in value]


def _pairs_reader(inner: Convert | None) -> Convert:
    read = inner or _same
    return lambda value: [(read(key), count) for key, count in value]


def _same(value: Any) -> Any:
    return value


def plain(value: Any) -> Any:
    """As `writer`, by the value's own type: what a caller gives, before anyone knows what is declared."""
    match value:
        case bool() | str() | int() | None:
            return value
        case float():
            return _double_text(value)
        case Decimal():
            return str(value)
        case datetime():
            return iso_text(value)
        case date():
            return value.isoformat()
    as_python = getattr(value, "item", None)  # a NumPy scalar
    if as_python is None:
        raise UsageError(f"a {type(value).__name__} has no place in a key or a row.")
    return plain(as_python())


# From JSON


def reader(kind: DataType) -> Convert | None:
    """How an answer's value that is not None is read, as the library gives it; None where it is that already."""
    match kind.name:
        case "DOUBLE" | "FLOAT":
            return lambda value: SPECIAL[value] if value.__class__ is str else float(value)
        case "DECIMAL":
            return Decimal
        case "DATE":
            return date.fromisoformat
        case "TIMESTAMP":
            return datetime.fromisoformat
        case "LIST":
            inner = reader(kind.element)  # type: ignore[arg-type]
            return None if inner is None else _list_of(inner)
        case "MAP":
            inner = reader(kind.element)  # type: ignore[arg-type]
            return _pairs_reader(inner)
    return None


def key_reader(name: str, kind: DataType) -> Convert | None:
    """How a key or request column that a caller wrote is read; what it is not passes, for the library to say so.

    Raises (when called): DataError for a text that is no such value, and a number that has no place in the type.
    """

    def wrong(value: Any) -> DataError:
        hint = {
            "TIMESTAMP": " Write it as \"2013-01-31T18:00:00Z\".", "DATE": " Write it as \"2013-01-31\".",
            "DECIMAL": " Write it as a text, as in \"12.50\".", "DOUBLE": " Texts are \"NaN\", \"Infinity\" and \"-Infinity\".",
        }.get(kind.name, "")  # fmt: skip
        return DataError(f"'{name}' is {kind}, and {value!r} is none.{hint}")

    def convert(value: Any) -> Any:
        try:
            return _read_given(value, kind)
        except (ValueError, KeyError, InvalidOperation, UsageError, OverflowError):
            raise wrong(value) from None

    return None if kind.name in ("VARCHAR", "BOOLEAN") else convert


def _read_given(value: Any, kind: DataType) -> Any:
    match kind.name:
        case "BIGINT" | "INTEGER" if value.__class__ is int and not -_LARGEST - 1 <= value <= _LARGEST:
            raise OverflowError
        case "DOUBLE" | "FLOAT" if value.__class__ is str:
            return SPECIAL[value]
        case "DOUBLE" | "FLOAT" if value.__class__ is int:
            return float(value)
        case "DECIMAL" if value.__class__ is str or value.__class__ is int:
            return _finite(Decimal(value))
        case "DECIMAL" if value.__class__ is float:
            return _finite(Decimal(repr(value)))
        case "DATE" if value.__class__ is str:
            return date.fromisoformat(value)
        case "TIMESTAMP" if value.__class__ is str:
            return _EPOCH + timedelta(microseconds=parse_instant(value))
    return value


def _finite(value: Decimal) -> Decimal:
    if not value.is_finite():
        raise ValueError
    return value


def row_reader(columns: Sequence[tuple[str, DataType]], strict: bool) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """How a row that came as JSON is read, in its own dict.

    strict: a value that cannot be read is an error; else it stays, for a push to reject.
    """
    converts = [(name, convert) for name, kind in columns if (convert := key_reader(name, kind)) is not None]

    def read(row: dict[str, Any]) -> dict[str, Any]:
        for name, convert in converts:
            value = row.get(name)
            if value is not None:
                try:
                    row[name] = convert(value)
                except DataError:
                    if strict:
                        raise
        return row

    return read


def types_of(columns: Sequence[tuple[str, DataType]]) -> Mapping[str, str]:
    return {name: str(kind) for name, kind in columns}
