"""Decide what an instant sees: durations, hops, cutoffs and the one membership rule.

Instants are UTC microseconds since 1970 (int64) and intervals are `[start, end)`.
Every offline, online and test path calls `window_sees`, or is compared with it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from featreg.errors import UsageError

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY

HOPS = (SECOND, 10 * SECOND, 30 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY)
EXACT = 1  # floor to one microsecond is the identity
NEVER = -(1 << 62)  # before every instant of a row
MOST_TILES = 100_000

_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": WEEK}
_DURATION = re.compile(r"0*(\d+)([smhdw])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration(text: str) -> int:
    """Microseconds of an integer and a unit: s, m, h, d or w.

    Raises: UsageError for anything else, and for a duration that no int64 instant can be moved by.

    >>> parse_duration("90m") == 90 * MINUTE
    True
    """
    found = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise UsageError(f"{text!r} is not a duration. Write an integer and a unit, such as '30s', '15m', '1h', '7d' or '2w'.")
    if len(found[1]) > 20:  # Python refuses to read 4,300 digits
        raise UsageError(f"a duration of {len(found[1]):,} digits is longer than any history.")
    micros = int(found[1]) * _UNITS[found[2]]
    if micros > 1 << 61:
        raise UsageError(f"{text!r} is longer than any history.")
    return micros


def format_duration(micros: int) -> str:
    """The shortest text that `parse_duration` reads back.

    >>> format_duration(7 * DAY), format_duration(90 * MINUTE)
    ('7d', '90m')
    """
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)):
        if micros % size == 0:
            return f"{micros // size}{unit}"
    return f"{micros}us"


def default_hop(window: int) -> int:
    """The largest hop on the ladder that is at most a 48th of `window`; one second if none is."""
    return max((hop for hop in HOPS if hop <= window // 48), default=SECOND)


def floor_to(instant: int, hop: int) -> int:
    """The hop grid's last instant at or before `instant`, anchored at the Unix epoch."""
    return instant // hop * hop


def visible_instant(event_time: int, available: int | None) -> int:
    """When a row could first be read and had happened; no available time falls back to the event time."""
    return event_time if available is None else max(event_time, available)


def window_start(cutoff: int, window: int | None, hop: int) -> int | None:
    """The first event time that a window ending at `cutoff` sees; None is all of history."""
    return None if window is None else floor_to(cutoff - window, hop)


def window_sees(event_time: int, visible: int, cutoff: int, window: int | None, hop: int) -> bool:
    """The membership rule: whether a row counts for an as-of instant with this cutoff.

    Strict at the top: a row at the very instant of the prediction is the future.
    `visible < cutoff` implies `event_time < cutoff`, for visible is the later of
    event and available time, so the sweep has only the start left to check.
    """
    start = window_start(cutoff, window, hop)
    return visible < cutoff and (start is None or event_time >= start)


@dataclass(frozen=True)
class Cadence:
    """When serving learns: `period` 0 is realtime, else runs at `offset + k * period`, served `delay` later."""

    period: int = 0
    offset: int = 0
    delay: int = 0

    @property
    def is_realtime(self) -> bool:
        return self.period == 0

    def cutoff(self, as_of: int) -> int:
        """The instant up to which serving knew the world at `as_of`.

        >>> Cadence(DAY, 0, 2 * HOUR).cutoff(DAY + HOUR), Cadence(DAY, 0, 2 * HOUR).cutoff(DAY + 2 * HOUR) == DAY
        (0, True)
        """
        if self.is_realtime:
            return as_of
        return floor_to(as_of - self.delay - self.offset, self.period) + self.offset


def parse_instant(value: str | int | datetime) -> int:
    """UTC microseconds of an instant that a person wrote; no zone means UTC.

    Raises: UsageError when it cannot be read or has digits below the microsecond.
    """
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        if re.search(r"\.\d{7,}", value):
            raise UsageError(f"{value!r} has digits below the microsecond; instants are microseconds.")
        try:
            if re.fullmatch(r"\d{9,}", value):  # Python reads 1711121112345 as 1711-12-11, with a 1 for the T
                raise ValueError
            value = datetime.fromisoformat(value)
        except ValueError:
            raise UsageError(f"{value!r} is not an instant. Write it as 2013-01-31T18:00:00Z.") from None
    if not isinstance(value, datetime):
        raise UsageError(f"{value!r} is not an instant. Give text, a datetime or UTC microseconds.")
    zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (zoned - _EPOCH) // timedelta(microseconds=1)


def iso_text(moment: datetime) -> str:
    """ISO 8601, where there is a zone in UTC with Z."""
    return (moment.astimezone(UTC) if moment.tzinfo else moment).isoformat().replace("+00:00", "Z")


def format_instant(instant: int) -> str:
    """ISO 8601 with Z; an instant outside the calendar is given as microseconds."""
    try:
        return iso_text(_EPOCH + timedelta(microseconds=instant))
    except OverflowError:
        return f"{instant}us"


def earliest(instants: Iterable[int | None]) -> int | None:
    """The earliest of some instants; None when one of them is not known, or there is none.

    >>> earliest([3, 1]), earliest([3, None]), earliest([])
    (1, None, None)
    """
    known = list(instants)
    return None if None in known else min((one for one in known if one is not None), default=None)
