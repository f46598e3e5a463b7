"""Rows of a source as an engine finds them: what an engine tells and a scan is spelled over."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """The text after FROM, and the columns that are there with their DuckDB types.

    loose: the file carries no types (CSV, JSON), so every text is tried as the declared type.
    """

    text: str
    columns: tuple[tuple[str, str], ...]
    loose: bool = False


def quote(name: str) -> str:
    """A name as DuckDB reads it back, whatever is in it.

    >>> print(quote('a "b" c'))
    "a ""b"" c"
    """
    return '"' + name.replace('"', '""') + '"'
