"""Keep records in append-only files that no two processes share, so that writing needs no lock and a kill loses only the record at hand.

A segment is a file of one writer and one UTC day: `featreg\\0`, the form as u32, then records: u32 length, u32 CRC-32 of the
length and the payload, payload; all little-endian.  An append is one write(2) at the end.  Segments are called
`2026-11-25.<start in µs>.<16 hex digits>.segment`, so their names sort by time.  Readers look at what is there: what a kill or
a lost power supply left behind the last whole record is torn, and passed over; anything else that does not add up is damage.
"""

import os
import secrets
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from featreg.durable import sync_folder
from featreg.errors import StoreError

FORM = 1
MAGIC = b"featreg\0"
HEADER = len(MAGIC) + 4
SUFFIX = ".segment"
MOST_BYTES = 64 << 20  # after which a writer begins another segment
_FRAME = struct.Struct("<II")
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Entry:
    """A record where it stands.  offset: of its frame; end: of the next one's, where a reader goes on."""

    segment: str
    offset: int
    end: int
    payload: bytes


@dataclass(frozen=True)
class Damage:
    """Bytes of a segment that are no record.  is_torn: they are its end, as a kill in the middle of a write leaves it."""

    segment: str
    offset: int
    bytes: int
    is_torn: bool

    def __str__(self) -> str:
        if self.is_torn:
            return f"{self.segment}: the last record was cut off at byte {self.offset}"
        return f"{self.segment}: {self.bytes:,} bytes from byte {self.offset} on are no record"


class SegmentWriter:
    """Append to segments of one's own in a folder; the file is made by the first append.

    Threads share a writer; a forked child that goes on with it gets a file of its own.
    fsync: whether an append is on the disk when it returns.  clock: UTC microseconds.
    """

    def __init__(
        self, folder: Path, *, fsync: bool = False, most_bytes: int = MOST_BYTES, clock: Callable[[], int] = lambda: time.time_ns() // 1000
    ):
        self.folder, self.fsync, self.most_bytes, self.clock = folder, fsync, most_bytes, clock
        self._begin_anew()

    def append(self, payload: bytes) -> Entry:
        """Add a record.  Raises: StoreError when it cannot be written; nothing of it is read then."""
        return self.append_many((payload,))[0]

    def append_many(self, payloads: Iterable[bytes]) -> list[Entry]:
        """Add records in one write: after a kill a reader finds the first n of them, n from none to all."""
        records = list(payloads)
        data = b"".join(part for payload in records for part in (_frame(payload), payload))
        if not records:
            return []
        if os.getpid() != self._pid:
            self._begin_anew()
        with self._lock:
            segment, offset = self._room_for(len(data))
            self._write(data)
            if self.fsync:
                os.fsync(self._descriptor)
        entries = []
        for payload in records:
            end = offset + _FRAME.size + len(payload)
            entries.append(Entry(segment, offset, end, payload))
            offset = end
        return entries

    def close(self) -> None:
        """End the segment; the next append begins another."""
        with self._lock:
            self._end()

    def __reduce__(self) -> tuple[Callable[..., "SegmentWriter"], tuple[Path, bool]]:
        return _writer, (self.folder, self.fsync)

    def _begin_anew(self) -> None:
        self._pid, self._lock, self._descriptor = os.getpid(), threading.Lock(), -1
        self._name, self._size, self._day = "", 0, -1

    def _room_for(self, count: int) -> tuple[str, int]:
        """The segment to write to, and its end: the one at hand while it is today's, not full, and still in its place."""
        now = self.clock()
        day = now // 86_400_000_000
        if self._descriptor >= 0:
            is_full = self._size > HEADER and self._size + count > self.most_bytes
            if day != self._day or is_full or os.fstat(self._descriptor).st_nlink == 0:
                self._end()
        if self._descriptor < 0:
            self._begin(now, day)
        return self._name, self._size

    def _begin(self, now: int, day: int) -> None:
        name = f"{day_text(now)}.{now:017d}.{secrets.token_hex(8)}{SUFFIX}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self.folder / name, flags, 0o644)
            self._name, self._size, self._day = name, 0, day
            self._write(MAGIC + _LENGTH.pack(FORM))
            if self.fsync:
                sync_folder(self.folder)
        except OSError as error:
            raise StoreError(f"{self.folder / name} could not be made: {error.strerror}.") from error

    def _write(self, data: bytes) -> None:
        """One write(2).  What a full disk cuts off is the segment's torn end: it is left, and the next append begins another."""
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            self._end()
            raise StoreError(f"{self.folder / self._name} could not be written: {error.strerror}.") from error
        if written < len(data):
            self._end()
            raise StoreError(f"{self.folder / self._name} could not be written to its end: the disk is full.")
        self._size += written

    def _end(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def segments_of(folder: Path) -> list[Path]:
    """The segments of a folder in the order of their names, which is that of their beginnings."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX))
    except FileNotFoundError:
        return []


def read_segments(
    folder: Path, begin: Mapping[str, int] | None = None, on_damage: Callable[[Damage], None] = lambda damage: None
) -> Iterator[Entry]:
    """All records, in order of segment name and offset.

    begin: segment -> where to go on in it (the `end` of the last entry that was read); the others are read from their start.
    on_damage: told what is no record, torn ends too.
    Raises: StoreError for a segment of a newer form, or a file that is none.
    """
    for path in segments_of(folder):
        try:
            yield from read_segment(path, (begin or {}).get(path.name, HEADER), on_damage)
        except FileNotFoundError:  # sealed since the folder was listed
            continue


def read_segment(path: Path, begin: int = HEADER, on_damage: Callable[[Damage], None] = lambda damage: None) -> Iterator[Entry]:
    """The records of one segment from an offset on.  Memory: a record; a segment that is damaged is looked at as a whole."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < HEADER:
            if size:
                on_damage(Damage(path.name, 0, size, is_torn=True))
            return
        _refuse_other_forms(path, file.read(HEADER))
        file.seek(begin)
        offset = begin
        while offset < size:
            payload = _record_of(file, size - offset)
            if payload is None:
                file.seek(0)
                yield from _around_damage(path, file.read(size), offset, on_damage)
                return
            end = offset + _FRAME.size + len(payload)
            yield Entry(path.name, offset, end, payload)
            offset = end


def _record_of(file: BinaryIO, left: int) -> bytes | None:
    """The record that begins where the file stands; None when what is there is none.  left: bytes of the file from there on."""
    frame = file.read(_FRAME.size)
    if len(frame) < _FRAME.size:
        return None
    length, crc = _FRAME.unpack(frame)
    if length > left - _FRAME.size:
        return None
    payload = file.read(length)
    return payload if zlib.crc32(payload, zlib.crc32(frame[: _LENGTH.size])) == crc else None


def _around_damage(path: Path, data: bytes, offset: int, on_damage: Callable[[Damage], None]) -> Iterator[Entry]:
    """The records of a segment from a damaged one on, and what is none."""
    while offset < len(data):
        payload = _record_at(data, offset)
        if payload is not None:
            end = offset + _FRAME.size + len(payload)
            yield Entry(path.name, offset, end, payload)
        else:
            end = _next_record(data, offset)
            claimed = _LENGTH.unpack_from(data, offset)[0] if offset + _FRAME.size <= len(data) else len(data)
            is_end = end == len(data) and (offset + _FRAME.size + claimed > len(data) or not any(memoryview(data)[offset:]))
            on_damage(Damage(path.name, offset, end - offset, is_torn=is_end))
        offset = end


def day_text(at: int) -> str:
    """The UTC day of an instant in microseconds, as segments are called: 2026-11-25."""
    return datetime.fromtimestamp(at // 1_000_000, UTC).strftime("%Y-%m-%d")


def _frame(payload: bytes) -> bytes:
    """The length, and the CRC of it and the payload: so zeros, which file systems leave behind, are no record."""
    length = _LENGTH.pack(len(payload))
    return length + _LENGTH.pack(zlib.crc32(payload, zlib.crc32(length)))


def _record_at(data: bytes, offset: int) -> bytes | None:
    if offset + _FRAME.size > len(data):
        return None
    length, crc = _FRAME.unpack_from(data, offset)
    begin = offset + _FRAME.size
    if begin + length > len(data):
        return None
    payload = data[begin : begin + length]
    return payload if zlib.crc32(payload, zlib.crc32(data[offset : offset + 4])) == crc else None


def _next_record(data: bytes, offset: int) -> int:
    """Where the next whole record begins behind a damaged one, or the end.  A length that was damaged makes this a search, byte by byte."""
    if offset + _FRAME.size <= len(data):
        begin = offset + _FRAME.size
        stated = begin + _LENGTH.unpack_from(data, offset)[0]
        if stated == len(data) or (stated < len(data) and _record_at(data, stated) is not None):
            # A damaged length may point behind a later record; the CRC tells which one was written.
            passed = (at for at in range(begin, stated) if _record_at(data, at) is not None and _was_length(data, offset, at - begin))
            return next(passed, stated)
    return next((at for at in range(offset + 1, len(data) - _FRAME.size + 1) if _record_at(data, at) is not None), len(data))


def _was_length(data: bytes, offset: int, length: int) -> bool:
    """Whether the record at `offset` is whole but for its length, which was this."""
    begin = offset + _FRAME.size
    return zlib.crc32(data[begin : begin + length], zlib.crc32(_LENGTH.pack(length))) == _FRAME.unpack_from(data, offset)[1]


def _refuse_other_forms(path: Path, data: bytes) -> None:
    if data[: len(MAGIC)] != MAGIC:
        raise StoreError(f"{path} is no segment of featreg: it does not begin as one. Take it out of that folder.")
    form = _LENGTH.unpack_from(data, len(MAGIC))[0]
    if form > FORM:
        raise StoreError(f"{path} was written by a newer featreg (form {form}; this one reads up to {FORM}). Install that one.")


def _writer(folder: Path, fsync: bool) -> SegmentWriter:
    return SegmentWriter(folder, fsync=fsync)
