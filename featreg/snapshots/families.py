"""Sort the types of engines into the nine families that a content id knows.

INTEGER and BIGINT are one family, so widening a column moves no content id; a type without a family is an error, not a guess.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from featreg.errors import DataError

_DUCKDB = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"), "integer"),
    **dict.fromkeys(("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"), "integer"),
    **dict.fromkeys(("FLOAT", "DOUBLE"), "double"),
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), "timestamp"),
    **dict.fromkeys(("VARCHAR", "JSON"), "string"),
    "BOOLEAN": "bool",
    "DATE": "date",
}
_SPARK = {
    **dict.fromkeys(("tinyint", "smallint", "int", "bigint"), "integer"),
    **dict.fromkeys(("float", "double"), "double"),
    **dict.fromkeys(("timestamp", "timestamp_ntz"), "timestamp"),
    "string": "string",
    "boolean": "bool",
    "date": "date",
}
_DECIMAL = re.compile(r"decimal\((\d+),\s*(\d+)\)", re.IGNORECASE)
_ARRAY = re.compile(r"(.*)\[\d*\]", re.DOTALL)
_KEYS = ("integer", "double", "bool", "string", "date", "timestamp", "decimal")


@dataclass(frozen=True)
class Family:
    """What the cells of a column are.

    type: the engine's own name · scale: of a decimal · parts: the element of a list; the key and the value of a map.
    """

    name: str
    type: str
    scale: int = 0
    parts: tuple["Family", ...] = ()


@dataclass(frozen=True)
class Column:
    name: str
    family: Family


def absent(name: str) -> Column:
    """A column that other files of the source have: NULL in every row."""
    return Column(name, Family("absent", ""))


class _NoFamily(Exception):
    """A type, or a part of one, that no family holds."""


def duckdb_columns(columns: Iterable[tuple[str, str]], what: str) -> tuple[Column, ...]:
    """The columns of a DuckDB relation, sorted by name.  Raises: DataError that names every column without a family."""
    return _sorted(columns, _duckdb_family, what)


def spark_columns(columns: Iterable[tuple[str, str]], what: str) -> tuple[Column, ...]:
    """The columns of a Spark frame (`DataFrame.dtypes`), sorted by name.  Raises: DataError."""
    return _sorted(columns, _spark_family, what)


def shape_text(columns: Iterable[Column]) -> str:
    """`name:family` of each column, in their order.

    >>> shape_text(duckdb_columns([("n", "INTEGER"), ("at", "TIMESTAMP")], "here"))
    'at:timestamp,n:integer'
    """
    return ",".join(f"{column.name}:{column.family.name}" for column in columns)


def _sorted(columns: Iterable[tuple[str, str]], family_of: Callable[[str], Family], what: str) -> tuple[Column, ...]:
    found, problems = [], []
    for name, kind in columns:
        try:
            found.append(Column(name, family_of(kind)))
        except _NoFamily as unknown:
            inside = "" if str(unknown) == kind else f" (for its {unknown})"
            problems.append(f"\n  column '{name}' is {kind}{inside}")
    if problems:
        raise DataError(
            f"{what}: a content id has no form for" + "".join(problems) + "\n  It knows integers, doubles, booleans, text, dates, "
            "timestamps, decimals, lists and maps. Cast those columns where the data is written, or leave them out."
        )
    return tuple(sorted(found, key=lambda column: column.name))


def _duckdb_family(text: str) -> Family:
    if array := _ARRAY.fullmatch(text):
        return Family("list", text, parts=(_duckdb_family(array[1]),))
    if text.startswith("MAP(") and text.endswith(")"):
        return _map(text, text[4:-1], _duckdb_family)
    if text.startswith("ENUM("):
        return Family("string", text)
    return _scalar(text, _DUCKDB)


def _spark_family(text: str) -> Family:
    if text.startswith("array<") and text.endswith(">"):
        return Family("list", text, parts=(_spark_family(text[6:-1]),))
    if text.startswith("map<") and text.endswith(">"):
        return _map(text, text[4:-1], _spark_family)
    return _scalar(text, _SPARK)


def _scalar(text: str, known: dict[str, str]) -> Family:
    if found := _DECIMAL.fullmatch(text):
        return Family("decimal", text, scale=int(found[2]))
    if text not in known:
        raise _NoFamily(text)
    return Family(known[text], text)


def _map(text: str, inside: str, family_of: Callable[[str], Family]) -> Family:
    depth = 0
    for place, letter in enumerate(inside):
        depth += (letter in "(<[") - (letter in ")>]")
        if letter == "," and depth == 0:
            key, value = family_of(inside[:place].strip()), family_of(inside[place + 1 :].strip())
            if key.name not in _KEYS:
                raise _NoFamily(inside[:place].strip())
            return Family("map", text, parts=(key, value))
    raise _NoFamily(text)
