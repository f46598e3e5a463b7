"""Keep the rows that a source did not take in, each with its reason, beside its push log."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any

from featreg.instants import iso_text
from featreg.registry.events import EventPlane
from featreg.session.contract import Rejected

_KIND = "rejected"


@dataclass(frozen=True)
class DeadLetter:
    """A row that was not taken in.

    at: when, in UTC microseconds · id: what the push was called · row: its place in what was pushed at once, from 0 ·
    values: column -> what was given; what JSON cannot hold, as Python writes it.
    """

    at: int
    id: str | None
    row: int
    reason: str
    values: Mapping[str, Any]


class DeadLetters:
    """Those of one source.  folder: of its push log."""

    def __init__(self, folder: Path):
        self.events = EventPlane(folder / "rejected", fsync=True)

    def keep(self, source: str, name: str | None, rejected: Sequence[Rejected]) -> None:
        """name: what the push is called."""
        for one in rejected:
            values = {repr(key)[1:-1]: _as_json(value) for key, value in one.values.items()}
            self.events.record(_KIND, {"source": source, "id": name, "row": one.row, "reason": one.reason, "values": values})

    def read(self) -> Iterator[DeadLetter]:
        """Oldest first."""
        for event in self.events.read(_KIND):
            body = event.body
            yield DeadLetter(event.at, body["id"], body["row"], body["reason"], body["values"])

    def close(self) -> None:
        self.events.close()


def _as_json(value: Any) -> Any:
    """A value as a dead letter holds it."""
    match value:
        case str():
            return value if value.isascii() or not any(0xD800 <= ord(one) < 0xE000 for one in value) else repr(value)
        case None | bool() | int():
            return value
        case float() if isfinite(value):
            return value
        case Decimal():
            return str(value)
        case datetime():
            return iso_text(value)
        case date():
            return value.isoformat()
    return repr(value)
