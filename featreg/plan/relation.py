"""Rows of a source as an engine finds them: what an engine tells and a scan is spelled over."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

ARRIVED = "featreg arrived at"  # the column of a push log that says when featreg got a row; no declared name has blanks
MARKED = SEGMENT, END = "featreg segment", "featreg end"  # where in a push log the record of a row is; there when asked for


@dataclass(frozen=True)
class Form:
    """Parquet files that have the same columns of the same types, these."""

    files: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ParquetFiles:
    """What a text reads that reads Parquet files and does no more.  options: of the reader, as a profile has them."""

    forms: tuple[Form, ...]
    options: Mapping[str, object]

    @property
    def paths(self) -> list[str]:
        return sorted(file for form in self.forms for file in form.files)


@dataclass(frozen=True)
class Relation:
    """The text after FROM, and the columns that are there with their DuckDB types.

    loose: the file carries no types (CSV, JSON), so every text is tried as the declared type.
    since, before: only rows visible in `[since, before)` are the source's, UTC microseconds; None is without bound.
    beside: other rows of the same source, such as those that were pushed.
    files: what the text reads, for an engine that reads some of it at a time; None of a table, of text files, and of a query.
    """

    text: str
    columns: tuple[tuple[str, str], ...]
    loose: bool = False
    since: int | None = None
    before: int | None = None
    beside: "Relation | None" = None
    files: ParquetFiles | None = None

    @property
    def parts(self) -> "Iterator[Relation]":
        """This and what is beside it."""
        part: Relation | None = self
        while part is not None:
            yield part
            part = part.beside


def quote(name: str) -> str:
    """A name as DuckDB reads it back, whatever is in it.

    >>> print(quote('a "b" c'))
    "a ""b"" c"
    """
    return '"' + name.replace('"', '""') + '"'
