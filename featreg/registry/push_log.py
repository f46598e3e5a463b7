"""Keep every row that was pushed to a source, in the order in which it was accepted: the source of record of what no file has.

A log is a folder of segments (segments.py) with one writer at a time, who holds the source's lease and goes on where the last
one stopped.  So all records have one order, and a position in it says exactly which rows a view holds.  A record is one push,
or a part of it: u32 length of a JSON head, the head, then the rows as an Arrow IPC stream.  A segment that is full, or of an
earlier day, is sealed (sealed_log.py): so what is read row by row into memory is never more than the newest one.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from featreg.errors import StoreError
from featreg.registry.pushed import START, Position, Pushed
from featreg.registry.sealed_log import last_end, read_sealed, remove_drafts, seal, sealed_segments
from featreg.registry.segments import HEADER, Damage, Entry, SegmentWriter, read_segment, segments_of

FORM = 1
_LENGTH_BYTES = 4
NO_ROWS = pa.table({})
SEGMENT_BYTES = 64 << 20  # and so what a reader has of a log in memory, at most
_LEFT_BEHIND = 3600.0  # seconds after which nobody is sealing any more


class PushLog:
    """The log in a folder.  Who appends holds the source's lease; anyone reads at any time."""

    def __init__(self, folder: Path, clock: Callable[[], int] = lambda: time.time_ns() // 1000):
        self.folder = folder
        self._writer = _SharedWriter(folder, fsync=True, most_bytes=SEGMENT_BYTES, clock=clock)
        self._boundary: int | None = None
        self._newest = ""
        self._sealing: threading.Thread | None = None

    def append(self, records: list[Pushed]) -> list[Position]:
        """Add records in one write; on the disk when this returns.  Raises: StoreError; then none is there."""
        placed = [Position(entry.segment, entry.end) for entry in self._writer.append_many(map(_encoded, records))]
        if placed:
            self._seal_beside(placed[-1].segment)
        return placed

    def read(self, after: Position = START, to: Position | None = None) -> Iterator[Pushed]:
        """The records behind a position, in order, up to another one; one is in memory, or a row group of them.

        Raises: StoreError when a record is damaged: rows of the source of record are gone then.
        """
        return self._records(after, to, _decoded, rows=True)

    def heads(self, after: Position = START, to: Position | None = None) -> Iterator[Pushed]:
        """As `read`, without the rows."""
        return self._records(after, to, _head, rows=False)

    def parts(self, after: Position = START, to: Position | None = None) -> tuple[list[Path], Iterator[Pushed]]:
        """The same in two: sealed files that have records of the range, others too, and those records that are in none."""
        forms = [form for form in self._forms() if after.segment <= form.segment <= (form.segment if to is None else to.segment)]
        files = [file for form in forms for file in form.sealed]
        live = (form for form in forms if not form.sealed)
        return files, chain.from_iterable(self._live(form.segment, after, to, _decoded) for form in live)

    def end(self, after: Position = START) -> Position:
        """Behind the last whole record; `after` is a position known to be in the log, from which to look."""
        for form in reversed([form for form in self._forms() if form.segment >= after.segment]):
            if form.sealed:
                return max(after, Position(form.segment, last_end(form.sealed[-1])))
            found = START
            for record in self._live(form.segment, after, None, _head):
                found = record.position
            if found > after:
                return found
        return after

    def lengths(self, to: Position) -> dict[str, int]:
        """The segments up to a position, and how many bytes of each: what `lost` finds missing later."""
        named = [form for form in self._forms() if form.segment <= to.segment]
        return {form.segment: to.end if form.segment == to.segment else self._whole(form) for form in named}

    def _whole(self, form: "_Form") -> int:
        """The end of a segment's last whole record: what a kill left behind it is not sealed."""
        if form.sealed:
            return last_end(form.sealed[-1])
        return max((record.position.end for record in self._live(form.segment, START, None, _head)), default=HEADER)

    def lost(self, lengths: Mapping[str, int]) -> list[str]:
        """Segments that are not there any more, or are shorter than they were."""
        there = {form.segment: self._length(form) for form in self._forms() if form.segment in lengths}
        return [name for name, length in lengths.items() if there.get(name, -1) < length]

    def _length(self, form: "_Form") -> int:
        """The bytes of a segment, or those it had when it was sealed."""
        if not form.sealed:
            with suppress(FileNotFoundError):
                return (self.folder / form.segment).stat().st_size
        files = form.sealed or sealed_segments(self.folder).get(form.segment)  # sealed since it was seen
        return last_end(files[-1]) if files else -1

    def boundary(self) -> int | None:
        """The first visible instant of the first record, where files end if the log is the truth; None of an empty log."""
        if self._boundary is None:
            first = next(self.heads(), None)
            self._boundary = None if first is None else first.first
        return self._boundary

    def seal(self) -> int:
        """Put every segment but the newest, which grows, into Parquet; how many.  Anyone may, at any time, and two at once."""
        count = 0
        remove_drafts(self.folder, time.time() - _LEFT_BEHIND)
        for path in segments_of(self.folder)[:-1]:
            try:
                seal(path, partial(self._of_segment, path, START, None, _decoded))
            except FileNotFoundError:  # someone else has
                continue
            count += 1
        return count

    def close(self) -> None:
        if self._sealing is not None:
            self._sealing.join()
        self._writer.close()

    def _seal_beside(self, segment: str) -> None:
        """Seal in a thread what an append has left behind, at most one at a time; what cannot be sealed is read as it is."""
        if segment == self._newest or (self._sealing is not None and self._sealing.is_alive()):
            return
        self._newest = segment
        if len(segments_of(self.folder)) > 1:
            self._sealing = threading.Thread(target=self._try_to_seal, name="featreg seals", daemon=True)
            self._sealing.start()

    def _try_to_seal(self) -> None:
        with suppress(StoreError, OSError):
            self.seal()

    def _forms(self) -> list["_Form"]:
        """Every segment as it is now.  Looked at before the sealed ones: what is sealed in between is found there."""
        live = [path.name for path in segments_of(self.folder)]
        sealed = {name: files for name, files in sealed_segments(self.folder).items() if name not in live}
        return sorted([*(_Form(name) for name in live), *(_Form(name, tuple(files)) for name, files in sealed.items())])

    def _records(self, after: Position, to: Position | None, form: "_Decode", rows: bool) -> Iterator[Pushed]:
        for one in self._forms():
            if one.segment < after.segment or (to is not None and one.segment > to.segment):
                continue
            if one.sealed:
                yield from _of_sealed(one, after, to, rows)
            else:
                yield from self._live(one.segment, after, to, form)

    def _live(self, segment: str, after: Position, to: Position | None, decode: "_Decode") -> Iterator[Pushed]:
        """The records of a segment; of its sealed form where it has been sealed since it was seen."""
        try:
            yield from self._of_segment(self.folder / segment, after, to, decode)
        except FileNotFoundError:
            files = sealed_segments(self.folder).get(segment)
            if not files:
                raise StoreError(f"{self.folder / segment} is gone: pushed rows that were accepted cannot be read.") from None
            yield from _of_sealed(_Form(segment, tuple(files)), after, to, decode is _decoded)

    def _of_segment(self, path: Path, after: Position, to: Position | None, decode: "_Decode") -> Iterator[Pushed]:
        begin = after.end if path.name == after.segment else HEADER
        for entry in read_segment(path, begin, partial(_refuse, path)):
            if to is not None and Position(entry.segment, entry.end) > to:
                break
            yield decode(path, entry)


@dataclass(frozen=True, order=True)
class _Form:
    """A segment: its file, or what it was sealed into."""

    segment: str
    sealed: tuple[Path, ...] = ()


_Decode = Callable[[Path, Entry], Pushed]


def _of_sealed(form: _Form, after: Position, to: Position | None, rows: bool) -> Iterator[Pushed]:
    begin = after.end if form.segment == after.segment else -1
    end = to.end if to is not None and to.segment == form.segment else None
    for file in form.sealed:
        yield from read_sealed(file, begin, end, rows)


class _SharedWriter(SegmentWriter):
    """Goes on with the newest segment, whoever wrote it: a lease lets one append at a time."""

    def _room_for(self, count: int) -> tuple[str, int]:
        if self._descriptor >= 0:
            newest = segments_of(self.folder)[-1:]
            if not newest or newest[0].name != self._name or os.fstat(self._descriptor).st_size != self._size:
                self._end()
        return super()._room_for(count)

    def _begin(self, now: int, day: int) -> None:
        live = segments_of(self.folder)
        newest = max([path.name for path in live[-1:]] + list(sealed_segments(self.folder)), default=None)
        if newest is not None:
            path = self.folder / newest
            started = int(newest.split(".")[1])
            is_live = bool(live) and live[-1] == path
            if is_live and started // 86_400_000_000 == day and path.stat().st_size < self.most_bytes and self._goes_on(path, day):
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
    return any(path.stat().st_size > HEADER for path in segments_of(folder)) or bool(sealed_segments(folder))


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
    record, length = _head(path, entry), int.from_bytes(entry.payload[:_LENGTH_BYTES], "little")
    rows = pa.ipc.open_stream(pa.py_buffer(entry.payload)[_LENGTH_BYTES + length :]).read_all()
    return replace(record, rows=rows)


def _head(path: Path, entry: Entry) -> Pushed:
    length = int.from_bytes(entry.payload[:_LENGTH_BYTES], "little")
    head: dict[str, Any] = json.loads(entry.payload[_LENGTH_BYTES : _LENGTH_BYTES + length])
    if head["form"] > FORM:
        raise StoreError(f"{path} was written by a newer featreg (form {head['form']}; this one reads up to {FORM}). Install that one.")
    position = Position(entry.segment, entry.end)
    return Pushed(NO_ROWS, head["at"], head["first"], head["last"], head["id"], head["digest"], tuple(head["part"]), position)


def _refuse(path: Path, damage: Damage) -> None:
    """A torn end was never acknowledged; anything else was, and is gone."""
    if not damage.is_torn:
        raise StoreError(
            f"{path}: {damage.bytes:,} bytes from byte {damage.offset} on are damaged: pushed rows that were accepted cannot be read.\n"
            f"  Put the file back from a backup; what follows it in the log is not read past it in silence."
        )
