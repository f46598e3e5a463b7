"""Record what happened, at any rate and without waiting for anybody: runs, receipts, served values, metrics.

An event is JSON in a segment.  Old segments are sealed to Parquet, which holds the same events and is read as if nothing had
happened.  No decision reads this plane: what must be agreed on stands in the control log.
"""

import heapq
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from featreg.errors import StoreError
from featreg.registry.sealed import Sealed, read_sealed, sealed_files, write_sealed
from featreg.registry.segments import Damage, Entry, SegmentWriter, day_text, read_segment, segments_of
from featreg.registry.who import writer_name

FORM = 1
SEALED_AFTER = 3600  # seconds after its day and its last write in which a segment stays as it is: its writer may be slow


@dataclass(frozen=True)
class Event:
    """One thing that happened.  at: UTC microseconds · by: who wrote it · segment, offset: where it stands."""

    kind: str
    at: int
    by: str
    body: Mapping[str, Any]
    segment: str
    offset: int


@dataclass(frozen=True)
class EventPlane:
    """The events of a folder.  Any number of processes write and read at once.

    fsync: whether a record is on the disk when `record` returns.
    """

    folder: Path
    fsync: bool = False
    _writer: SegmentWriter = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_writer", SegmentWriter(self.folder, fsync=self.fsync))

    def record(self, kind: str, body: Mapping[str, Any], at: int | None = None) -> Event:
        """Add an event; `at` is now unless told.  Raises: StoreError when it cannot be written."""
        instant, by = time.time_ns() // 1000 if at is None else at, writer_name()
        document = {"kind": kind, "form": FORM, "at": instant, "by": by, "body": body}
        entry = self._writer.append(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())
        return Event(kind, instant, by, body, entry.segment, entry.offset)

    def read(self, *kinds: str, on_damage: Callable[[Damage], None] = lambda damage: None) -> Iterator[Event]:
        """Events of these kinds (none: of every kind), sealed or not, in order of segment and offset.

        Raises: StoreError for an event, a segment or a sealed file of a newer form.
        """
        segments = segments_of(self.folder)  # looked at first: what is sealed from here on is found below
        owned, inside = self._sealed()
        live = chain.from_iterable(self._read_live(path, kinds, on_damage) for path in segments if path.name not in inside)
        sealed = (read_sealed(one, kinds, names) for one, names in owned)
        for kind, at, by, body, segment, offset in heapq.merge(*sealed, live, key=lambda row: row[4:]):
            yield Event(kind, at, by, json.loads(body) if isinstance(body, str) else body, segment, offset)

    def seal(self, now: int | None = None) -> list[Path]:
        """Put the segments of days that are over into one Parquet file a day; returns the new files.

        A kill in between leaves an event in both at most, and readers take it from the Parquet file.
        """
        instant = time.time_ns() // 1000 if now is None else now
        latest = day_text(instant - SEALED_AFTER * 1_000_000)
        _, inside = self._sealed()
        days: dict[str, list[Path]] = {}
        for path in segments_of(self.folder):
            day = path.name[:10]
            if path.name in inside:
                path.unlink(missing_ok=True)
            elif day < latest and path.stat().st_mtime < instant / 1e6 - SEALED_AFTER and _is_whole(path):
                days.setdefault(day, []).append(path)
        made = []
        for day, paths in days.items():
            rows = chain.from_iterable(self._read_live(path, (), lambda damage: None) for path in paths)
            made.append(write_sealed(self.folder, day, [path.name for path in paths], rows))
            for path in paths:
                path.unlink(missing_ok=True)
        return made

    def damage(self) -> list[Damage]:
        """What in the segments is no record."""
        found: list[Damage] = []
        for _ in self.read(on_damage=found.append):
            pass
        return found

    def close(self) -> None:
        self._writer.close()

    def _sealed(self) -> tuple[list[tuple[Sealed, set[str]]], set[str]]:
        """Sealed files, each with the segments that are read from it, and all of these.  Of two who sealed at once one is read."""
        owned: list[tuple[Sealed, set[str]]] = []
        inside: set[str] = set()
        for one in sealed_files(self.folder):
            names = set(one.segments) - inside
            owned.append((one, names))
            inside |= names
        return owned, inside

    def _read_live(self, path: Path, kinds: tuple[str, ...], on_damage: Callable[[Damage], None]) -> Iterator[tuple[Any, ...]]:
        beginnings = tuple(f'{{"kind":{json.dumps(kind, ensure_ascii=False)},'.encode() for kind in kinds)
        try:
            for entry in read_segment(path, on_damage=on_damage):
                if kinds and entry.payload.startswith(b'{"kind":') and not entry.payload.startswith(beginnings):
                    continue
                kind, at, by, body = _parsed(entry)
                if not kinds or kind in kinds:
                    yield kind, at, by, body, entry.segment, entry.offset
        except FileNotFoundError:  # sealed since the folder was listed
            for one in sealed_files(self.folder):
                if path.name in one.segments:
                    yield from read_sealed(one, kinds, {path.name})
                    return


def _is_whole(path: Path) -> bool:
    """Whether a segment has no damage but a torn end; what is damaged stays for who may mend it."""
    found: list[Damage] = []
    for _ in read_segment(path, on_damage=found.append):
        pass
    return all(damage.is_torn for damage in found)


def _parsed(entry: Entry) -> tuple[str, int, str, dict[str, Any]]:
    document = json.loads(entry.payload)
    if document["form"] > FORM:
        raise StoreError(
            f"{entry.segment}: the event at byte {entry.offset} is of form {document['form']}; this featreg reads up to {FORM}. Install "
            "the newer one."
        )
    return document["kind"], document["at"], document["by"], document["body"]
