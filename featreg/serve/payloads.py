"""Turn a run of messages into pushes: rows of JSON and Avro together, Arrow tables of one schema together, the unreadable by themselves.

What a run becomes depends on its messages alone, so that a run that is read again is the same pushes.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from featreg.define import EventSource
from featreg.serve.wire import row_reader

FORMATS = ("json", "arrow", "avro")
Read = Callable[[bytes], "list[dict[str, Any]] | pa.Table"]  # the rows of one message
UNREADABLE = "unreadable_message"  # the column of a row that stands for a message, so that it is rejected and kept as a dead letter


@dataclass(frozen=True)
class Message:
    """A message's place and what it holds; None is a tombstone."""

    offset: int
    value: bytes | None


@dataclass(frozen=True)
class Portion:
    """Messages of the offsets first to last (others may be missing between), and their rows."""

    first: int
    last: int
    rows: Any


def message_reader(source: EventSource, form: str, schema: Path | None = None, schema_registry: str | None = None) -> Read:
    """How messages of a source are read.  schema, schema_registry: where Avro's schemas are, if not in the contract.

    Raises: UsageError for a schema that is none.
    """
    match form:
        case "json":
            return _json_of(source)
        case "avro":
            return _avro_of(source, schema, schema_registry)
    return _table_of


def portions(messages: Sequence[Message], read: Read) -> Iterator[Portion]:
    """The pushes of a run, in its order; a tombstone has no row, and ends no portion."""
    kept: list[tuple[int, Any]] = []
    for message in messages:
        rows = read(message.value) if message.value is not None else []
        if isinstance(rows, list) and not rows:
            continue
        if kept and not _together(kept[-1][1], rows):
            yield _portion(kept)
            kept = []
        kept.append((message.offset, rows))
    if kept:
        yield _portion(kept)


def _together(one: Any, other: Any) -> bool:
    if isinstance(one, pa.Table) and isinstance(other, pa.Table):
        return one.schema.equals(other.schema)
    return isinstance(one, list) and isinstance(other, list)


def _portion(kept: list[tuple[int, Any]]) -> Portion:
    rows = [one for _, one in kept]
    together = pa.concat_tables(rows) if isinstance(rows[0], pa.Table) else [row for one in rows for row in one]
    return Portion(kept[0][0], kept[-1][0], together)


def _json_of(source: EventSource) -> Read:
    read = row_reader(source.columns, strict=False)

    def rows(value: bytes) -> list[dict[str, Any]]:
        try:
            found = json.loads(value, parse_constant=_no_number)
        except (ValueError, RecursionError):
            return _unreadable(value)
        return [read(found)] if isinstance(found, dict) else _unreadable(value)

    return rows


def _avro_of(source: EventSource, schema: Path | None, schema_registry: str | None) -> Read:
    from featreg.serve.avro import Unreadable, avro_reader

    read, read_row = avro_reader(source, schema, schema_registry), row_reader(source.columns, strict=False)

    def rows(value: bytes) -> list[dict[str, Any]]:
        try:
            return [read_row(row) for row in read(value)]
        except Unreadable as error:
            return _unreadable(value, f"{error}: ")

    return rows


def _no_number(text: str) -> float:
    raise ValueError(text)


def _table_of(value: bytes) -> "pa.Table | list[dict[str, Any]]":
    try:
        with pa.ipc.open_stream(value) as stream:
            table = stream.read_all()
        table.validate()
        return table.replace_schema_metadata(None)
    except (pa.ArrowException, ValueError, OSError):
        return _unreadable(value)


def _unreadable(value: bytes, why: str = "") -> list[dict[str, Any]]:
    return [{UNREADABLE: why + repr(value[:2000])}]
