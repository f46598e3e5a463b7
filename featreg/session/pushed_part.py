"""Say what a push log holds up to a position: records, columns, nine numbers, earliest and latest event time.

A log only grows, and the numbers add up: what was measured is kept beside it, and only rows that came since are read again.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from featreg.define import EventSource
from featreg.durable import write_whole
from featreg.engines.duckdb import DuckDB
from featreg.errors import StoreError
from featreg.instants import format_instant
from featreg.plan.relation import quote
from featreg.registry.push_log import PushLog
from featreg.registry.pushed import START, Position
from featreg.session.pushed_rows import record_groups, together
from featreg.snapshots.coverage import Kind, Verdict
from featreg.snapshots.families import Column, absent, duckdb_columns, shape_text
from featreg.snapshots.manifest import PUSHED, Log, Schema
from featreg.snapshots.numbers import Numbers, content_id_of, read_numbers
from featreg.snapshots.row_sql import duckdb_numbers

if TYPE_CHECKING:
    from featreg.session.profile import Profile

_ROWS = 1 << 20  # that are hashed together


@dataclass(frozen=True)
class Measured:
    """Nine numbers and the extent of event times of rows."""

    numbers: Numbers = field(default_factory=Numbers)
    first: int | None = None
    last: int | None = None

    def __add__(self, other: "Measured") -> "Measured":
        firsts = [one for one in (self.first, other.first) if one is not None]
        lasts = [one for one in (self.last, other.last) if one is not None]
        return Measured(self.numbers + other.numbers, min(firsts, default=None), max(lasts, default=None))


@dataclass(frozen=True)
class _Known:
    """What is known of a log up to a position.  columns: of its rows, sorted by name · measured: by shape."""

    position: Position = START
    records: int = 0
    columns: Schema = ()
    measured: Mapping[str, Measured] = field(default_factory=dict)


class PushedPart:
    """The rows of a source's push log up to a position, by default its end.

    fresh: read all of them, whatever is known.  Raises: StoreError when the log is damaged.
    """

    def __init__(self, engine: DuckDB, profile: "Profile", source: EventSource, to: Position | None = None, fresh: bool = False):
        self.engine, self.source, self.log = engine, source, PushLog(profile.push_path(source.name))
        self._path = profile.state / "snapshots" / f"{source.name}.pushed.json"
        known = _Known() if fresh else self._kept(to)
        self._before, self.known = known, self._read_on(known, to)

    @property
    def position(self) -> Position:
        return self.known.position

    @property
    def columns(self) -> Schema:
        return self.known.columns

    def whole(self) -> tuple[Column, ...]:
        """Its own columns, sorted by name."""
        return duckdb_columns(self.columns, f"the push log of '{self.source.name}'")

    def measured(self, whole: tuple[Column, ...]) -> Measured:
        """Of its rows with these columns, which hold its own."""
        shape, found = shape_text(whole), self.known.measured.get(shape_text(whole))
        if found is not None:
            return found
        before = self._before if self._before.columns == self.columns and shape in self._before.measured else _Known()
        found = before.measured.get(shape, Measured())
        for records in record_groups(self.log.read(before.position, self.position), _ROWS):
            found += self._hashed(together(records), whole)
        self.known = replace(self.known, measured={**self.known.measured, shape: found})
        self._keep()
        return found

    def described(self) -> dict[str, Any]:
        """What a manifest says of it: the position, and what the rows are."""
        whole = self.whole()
        found = self.measured(whole)
        shape = shape_text(whole)
        return {
            "segment": self.position.segment, "end": self.position.end, "records": self.known.records, "rows": found.numbers.count,
            "columns": shape, "content_id": content_id_of(shape, found.numbers), "lengths": self.log.lengths(self.position),
        }  # fmt: skip

    def as_log(self, form: int, whole: tuple[Column, ...], batched: Mapping[str, int | None]) -> Log:
        """What a snapshot says of it."""
        found = self.measured(whole)
        position, lengths = self.position, self.log.lengths(self.position)
        return Log(position.segment, position.end, self.known.records, form, found.numbers, found.first, found.last, lengths, batched)

    def _read_on(self, known: _Known, to: Position | None) -> _Known:
        """Up to `to`; nothing is measured of what is new."""
        columns, types = dict(known.columns), dict[pa.Schema, Schema]()
        position, records = known.position, known.records
        for record in self.log.read(position, to):
            position, records, schema = record.position, records + 1, record.rows.schema
            if schema not in types:
                types[schema] = self.engine.register("featreg_log_part", schema.empty_table()).columns
                self.engine.unregister("featreg_log_part")
                for name, kind in types[schema]:
                    columns.setdefault(name, kind)
        return known if records == known.records else _Known(position, records, tuple(sorted(columns.items())))

    def _hashed(self, table: pa.Table, whole: tuple[Column, ...]) -> Measured:
        relation = self.engine.register("featreg_log_part", table)
        try:
            own = {column.name.lower(): column for column in duckdb_columns(relation.columns, f"the push log of '{self.source.name}'")}
            columns = [
                replace(own[name], name=column.name) if (name := column.name.lower()) in own else absent(column.name) for column in whole
            ]
            event = own.get(self.source.event_time.lower())
            micros = "NULL::BIGINT" if event is None else f"epoch_us({quote(event.name)}::TIMESTAMP)"
            also = (f"min({micros})", f"max({micros})")
            *nine, first, last = self.engine.rows(duckdb_numbers(columns, relation.text, also=also))[0]
            return Measured(read_numbers(nine), first, last)
        finally:
            self.engine.unregister("featreg_log_part")

    # What is kept, a cache and no more ----------------------------------------------------------

    def _kept(self, to: Position | None) -> _Known:
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._path.read_text(encoding="utf-8"))
            position = Position(*found["position"])
            if (to is None or position <= to) and not self.log.lost(found["lengths"]):
                measured = {shape: Measured(read_numbers(nine), *more) for shape, (nine, *more) in found["measured"].items()}
                columns = tuple((name, kind) for name, kind in found["columns"])
                return _Known(position, found["records"], columns, measured)
        return _Known()

    def _keep(self) -> None:
        """Best effort, and only what is newer than what is kept."""
        one = self.known
        document = {
            "position": [one.position.segment, one.position.end], "records": one.records, "columns": one.columns,
            "lengths": self.log.lengths(one.position),
            "measured": {shape: [it.numbers.listed(), it.first, it.last] for shape, it in one.measured.items()},
        }  # fmt: skip
        if self._kept(None).position > one.position:
            return
        with suppress(OSError):
            write_whole(self._path, json.dumps(document))


def lost_verdicts(profile: "Profile", source: str, lengths: Mapping[str, int], expected: str) -> list[Verdict]:
    """Segments of a push log that are gone or shorter than they were.  lengths: segment -> bytes; no byte of them is read."""
    folder = profile.push_path(source)
    return [
        Verdict(
            Kind.PARTITION_MISSING, source, f"{PUSHED} {name}", expected, "no such segment, or a shorter one",
            f"Put {folder / name} back from a copy: pushed rows are nowhere else.",
        )
        for name in PushLog(folder).lost(lengths)
    ]  # fmt: skip


def pushed_verdicts(engine: DuckDB, profile: "Profile", source: EventSource, then: Mapping[str, Any]) -> list[Verdict]:
    """Whether a push log still has what a manifest says was read of it (see `PushedPart.described`).  Reads all of it."""
    expected = f"{then['rows']:,} rows in {then['records']:,} records up to byte {then['end']:,} of {then['segment']}"
    lost = lost_verdicts(profile, source.name, then["lengths"], expected)
    if lost:
        return lost
    remedy = f"Put {profile.push_path(source.name)} back from a copy: pushed rows are nowhere else, and a log is never edited."
    try:
        part = PushedPart(engine, profile, source, Position(then["segment"], then["end"]), fresh=True)
        now = part.described()
    except StoreError as error:
        return [Verdict(Kind.CONTENT_DRIFT, source.name, PUSHED, expected, str(error).splitlines()[0].rstrip("."), remedy)]
    if now["content_id"] == then["content_id"]:
        return []
    found = f"{now['rows']:,} rows, content {now['content_id'][:12]} in place of {then['content_id'][:12]}"
    return [Verdict(Kind.CONTENT_DRIFT, source.name, PUSHED, expected, found, remedy)]


def log_text(log: Log) -> str:
    span = "" if log.first is None or log.last is None else f" of {format_instant(log.first)} to {format_instant(log.last)}"
    return f"{log.numbers.count:,} pushed rows{span}"
