"""Turn a run of messages into pushes: JSON objects together, Arrow tables of one schema together, the unreadable by themselves.

What a run becomes depends on its messages alone, so that a run that is read again is the same pushes.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from featreg.define import EventSource
from featreg.serve.wire import row_reader

FORMATS = ("json", "arrow")
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


def portions(messages: Sequence[Message], source: EventSource, form: str) -> Iterator[Portion]:
    """The pushes of a run, in its order; a tombstone has no row, and ends no portion."""
    read = _json_of(source) if form == "json" else _table_of
    kept: list[tuple[int, Any]] = []
    for message in messages:
        if message.value is None:
            continue
        rows = read(message.value)
        if kept and not _together(kept[-1][1], rows):
            yield _portion(kept)
            kept = []
        kept.append((message.offset, rows))
    if kept:
        yield _portion(kept)


def _together(one: Any, other: Any) -> bool:
    if isinstance(one, pa.Table) and isinstance(other, pa.Table):
        return one.schema.equals(other.schema)
    return isinstance(one, dict) and isinstance(other, dict)


def _portion(kept: list[tuple[int, Any]]) -> Portion:
    rows = [one for _, one in kept]
    return Portion(kept[0][0], kept[-1][0], pa.concat_tables(rows) if isinstance(rows[0], pa.Table) else rows)


def _json_of(source: EventSource) -> Callable[[bytes], dict[str, Any]]:
    read = row_reader(source.columns, strict=False)

    def row(value: bytes) -> dict[str, Any]:
        try:
            found = json.loads(value, parse_constant=_no_number)
        except (ValueError, RecursionError):
            return _unreadable(value)
        return read(found) if isinstance(found, dict) else _unreadable(value)

    return row


def _no_number(text: str) -> float:
    raise ValueError(text)


def _table_of(value: bytes) -> pa.Table | dict[str, Any]:
    try:
        with pa.ipc.open_stream(value) as stream:
            table = stream.read_all()
        table.validate()
        return table.replace_schema_metadata(None)
    except (pa.ArrowException, ValueError, OSError):
        return _unreadable(value)


def _unreadable(value: bytes) -> dict[str, Any]:
    return {UNREADABLE: repr(value[:2000])}
