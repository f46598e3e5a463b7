"""Keep every row that was pushed to a source, in the order in which it was accepted: the source of record of what no file has.

A log is a folder of segments (segments.py) with one writer at a time, who holds the source's lease and goes on where the last
one stopped.  So all records have one order, and a position in it says exactly which rows a view holds.  A record is one push,
or a part of it: u32 length of a JSON head, the head, then the rows as an Arrow IPC stream.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from featreg.errors import StoreError
from featreg.registry.segments import HEADER, Damage, Entry, SegmentWriter, read_segment, segments_of

FORM = 1
_LENGTH_BYTES = 4


@dataclass(frozen=True, order=True)
class Position:
    """A place in a log: the rows before it are those of earlier segments, and of this one up to byte `end`."""

    segment: str = ""
    end: int = 0


START = Position()


@dataclass(frozen=True)
class Pushed:
    """A record.  at: when it was accepted · first, last: the visible instants its rows lie between (UTC microseconds).

    id, digest: what the push was called, and SHA-256 of its rows; empty without an id.
    part: a push of many rows is several records; (number of this one, of how many).
    """

    rows: pa.Table
    at: int
    first: int
    last: int
    id: str = ""
    digest: str = ""
    part: tuple[int, int] = (0, 1)
    position: Position = field(default=START, compare=False)


class PushLog:
    """The log in a folder.  Who appends holds the source's lease; anyone reads at any time."""

    def __init__(self, folder: Path, clock: Callable[[], int] = lambda: time.time_ns() // 1000):
        self.folder = folder
        self._writer = _SharedWriter(folder, fsync=True, clock=clock)
        self._boundary: int | None = None

    def append(self, records: list[Pushed]) -> list[Position]:
        """Add records in one write; on the disk when this returns.  Raises: StoreError; then none is there."""
        return [Position(entry.segment, entry.end) for entry in self._writer.append_many(map(_encoded, records))]

    def read(self, after: Position = START, to: Position | None = None) -> Iterator[Pushed]:
        """The records behind a position, in order, up to another one.

        Raises: StoreError when a record is damaged: rows of the source of record are gone then.
        """
        for path in segments_of(self.folder):
            if path.name < after.segment or (to is not None and path.name > to.segment):
                continue
            begin = after.end if path.name == after.segment else HEADER
            for entry in read_segment(path, begin, partial(_refuse, path)):
                if to is not None and Position(entry.segment, entry.end) > to:
                    break
                yield _decoded(path, entry)

    def end(self, after: Position = START) -> Position:
        """Behind the last whole record; `after` is a position known to be in the log, from which to look."""
        found = after
        for path in segments_of(self.folder):
            if path.name >= after.segment:
                begin = after.end if path.name == after.segment else HEADER
                for entry in read_segment(path, begin, partial(_refuse, path)):
                    found = Position(entry.segment, entry.end)
        return found

    def lengths(self, to: Position) -> dict[str, int]:
        """The segments up to a position, and how many bytes of each: what `lost` finds missing later.  Nothing is read."""
        named = [path for path in segments_of(self.folder) if path.name <= to.segment]
        return {path.name: to.end if path.name == to.segment else path.stat().st_size for path in named}

    def lost(self, lengths: Mapping[str, int]) -> list[str]:
        """Segments that are not there any more, or are shorter than they were.  Nothing is read."""
        there = {path.name: path.stat().st_size for path in segments_of(self.folder)}
        return [name for name, length in lengths.items() if there.get(name, -1) < length]

    def boundary(self) -> int | None:
        """The first visible instant of the first record, where files end if the log is the truth; None of an empty log."""
        if self._boundary is None:
            first = next(self.read(), None)
            self._boundary = None if first is None else first.first
        return self._boundary

    def close(self) -> None:
        self._writer.close()


class _SharedWriter(SegmentWriter):
    """Goes on with the newest segment, whoever wrote it: a lease lets one append at a time."""

    def _room_for(self, count: int) -> tuple[str, int]:
        if self._descriptor >= 0:
            newest = segments_of(self.folder)[-1:]
            if not newest or newest[0].name != self._name or os.fstat(self._descriptor).st_size != self._size:
                self._end()
        return super()._room_for(count)

    def _begin(self, now: int, day: int) -> None:
        newest = segments_of(self.folder)[-1:]
        if newest:
            path = newest[0]
            started = int(path.name.split(".")[1])
            if started // 86_400_000_000 == day and path.stat().st_size < self.most_bytes and self._goes_on(path, day):
                return
            now = max(now, started + 1)  # names sort by their beginning, and this one is behind all others
        super()._begin(now, now // 86_400_000_000)

    def _goes_on(self, path: Path, day: int) -> bool:
        """Open a segment behind its last whole record; what a kill left there is cut off."""
        end, torn = HEADER, False

        def cut_off(damage: Damage) -> None:
            nonlocal torn
            _refuse(path, damage)
            torn = True

        for entry in read_segment(path, on_damage=cut_off):
            end = entry.end
        size = path.stat().st_size
        if size < HEADER:
            return False
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            if torn or size > end:
                os.ftruncate(descriptor, end)
                os.fsync(descriptor)
        except OSError as error:
            raise StoreError(f"{path} could not be opened: {error.strerror}.") from error
        self._descriptor, self._name, self._size, self._day = descriptor, path.name, end, day
        return True


def has_rows(folder: Path) -> bool:
    """Whether anything was ever pushed into this log."""
    return any(path.stat().st_size > HEADER for path in segments_of(folder))


def _encoded(record: Pushed) -> bytes:
    head = {
        "form": FORM, "at": record.at, "first": record.first, "last": record.last, "id": record.id, "digest": record.digest,
        "part": list(record.part),
    }  # fmt: skip
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, record.rows.schema) as writer:
        writer.write_table(record.rows)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + sink.getvalue().to_pybytes()


def _decoded(path: Path, entry: Entry) -> Pushed:
    length = int.from_bytes(entry.payload[:_LENGTH_BYTES], "little")
    head: dict[str, Any] = json.loads(entry.payload[_LENGTH_BYTES : _LENGTH_BYTES + length])
    if head["form"] > FORM:
        raise StoreError(f"{path} was written by a newer featreg (form {head['form']}; this one reads up to {FORM}). Install that one.")
    rows = pa.ipc.open_stream(pa.py_buffer(entry.payload)[_LENGTH_BYTES + length :]).read_all()
    position = Position(entry.segment, entry.end)
    return Pushed(rows, head["at"], head["first"], head["last"], head["id"], head["digest"], tuple(head["part"]), position)


def _refuse(path: Path, damage: Damage) -> None:
    """A torn end was never acknowledged; anything else was, and is gone."""
    if not damage.is_torn:
        raise StoreError(
            f"{path}: {damage.bytes:,} bytes from byte {damage.offset} on are damaged: pushed rows that were accepted cannot be read.\n"
            f"  Put the file back from a backup; what follows it in the log is not read past it in silence."
        )
