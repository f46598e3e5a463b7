"""Remember what pushes were called, so that one that is sent again is not taken in again.

Ids stand in the online store, with how far in the push log they were read; what a kill left out is read from the log.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from featreg.errors import RefusedError
from featreg.instants import NEVER, format_duration, format_instant
from featreg.registry.pushed import START, Position, Pushed
from featreg.stores.contract import Store

_Put = tuple[bytes, bytes]


@dataclass(frozen=True)
class Seen:
    """What is known of an id.  parts: how many records of the push are in the log, of how many."""

    digest: str
    at: int
    parts: int
    of: int


@dataclass(frozen=True)
class Known:
    """Up to where the store knows a log.  at: when its newest record was accepted · newest: its newest visible instant, not beyond then."""

    position: Position = START
    at: int = NEVER
    newest: int = NEVER

    def after(self, record: Pushed) -> "Known":
        return Known(record.position, max(self.at, record.at), max(self.newest, min(record.last, record.at)))


class PushIds:
    """The ids of one source.  kept: microseconds for which an id may be sent again."""

    def __init__(self, store: Store, source: str, kept: int):
        self.store, self.source, self.kept = store, source, kept
        name = hashlib.sha256(source.encode()).digest()[:16]
        self._position, self._prefix = b"\0pushed" + name, b"\0push id" + name

    def known(self) -> Known:
        stored = self.store.get([self._position])[0]
        if stored is None:
            return Known()
        segment, end, at, newest = json.loads(stored)
        return Known(Position(segment, end), at, newest)

    def entries(self, records: Iterable[Pushed], known: Known) -> list[_Put]:
        """What to write to know the ids of these records, and that all up to `known` is."""
        puts = [
            (self._prefix + record.id.encode(), json.dumps([record.digest, record.at, record.part[0] + 1, record.part[1]]).encode())
            for record in records
            if record.id
        ]
        return [*puts, (self._position, json.dumps([known.position.segment, known.position.end, known.at, known.newest]).encode())]

    def look(self, name: str, digest: str, now: int) -> Seen | None:
        """What an id was used for; None when it is new.

        Raises: RefusedError when it named other rows, or so long ago that nobody would send it again.
        """
        stored = self.store.get([self._prefix + name.encode()])[0]
        if stored is None:
            return None
        seen = Seen(*json.loads(stored))
        if now - seen.at > self.kept:
            raise RefusedError(
                f"push '{name}' to '{self.source}' was taken in at {format_instant(seen.at)}, and an id may be sent again for "
                f"{format_duration(self.kept)}; nothing was done.\n  For new rows take a new id; or raise [online] push_ids."
            )
        if seen.digest != digest:
            raise RefusedError(
                f"push '{name}' to '{self.source}' was taken in at {format_instant(seen.at)} with other rows; nothing was done.\n"
                f"  An id names its rows: for other rows take another id."
            )
        return seen
