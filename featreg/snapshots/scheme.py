"""Read from a path which stretch of time its partition holds: `partition="year=%Y/month=%m"`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from featreg.errors import UsageError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMS = {"Y": r"(?P<Y>\d{4})", "m": r"(?P<m>\d{2})", "d": r"(?P<d>\d{2})", "H": r"(?P<H>\d{2})", "j": r"(?P<j>\d{3})"}
_STEPS = (("H", "hour"), ("d", "day"), ("j", "day"), ("m", "month"), ("Y", "year"))


@dataclass(frozen=True)
class Slot:
    """One partition of a scheme: the part of the path that names it, and its stretch `[start, end)` in UTC microseconds."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Scheme:
    """A pattern of `%Y %m %d %H %j`; everything else in it stands for itself."""

    text: str
    step: str

    def slot_of(self, path: str) -> Slot | None:
        """The partition that a path is in; None for a path that names none."""
        return _slot_of(self, path)

    def slots(self, start: int, end: int) -> Iterator[Slot]:
        """The partitions that `[start, end)` touches, in order of time."""
        began = _floor(_EPOCH + timedelta(microseconds=start), self.step)
        while _micros(began) < end:
            after = _next(began, self.step)
            yield Slot(began.strftime(self.text), _micros(began), _micros(after))
            began = after


@lru_cache(1 << 16)  # each path is asked for a few times in a row
def _slot_of(scheme: Scheme, path: str) -> Slot | None:
    found = _expression(scheme.text).search(path)
    if found is None:
        return None
    try:
        began = _begin(found.groupdict())
    except ValueError:  # a 31st of February
        return None
    return Slot(found[0], _micros(began), _micros(_next(began, scheme.step)))


def read_scheme(text: str | None, source: str) -> Scheme | None:
    """Raises: UsageError for a pattern that no stretch of time follows from."""
    if text is None:
        return None
    used = set(re.findall(r"%(.)", text))
    step = next((step for letter, step in _STEPS if letter in used), None)
    whole = {"year": {"Y"}, "month": {"Y", "m"}, "day": {"Y", "m", "d"} if "d" in used else {"Y", "j"}, "hour": {"Y", "H"}}
    if step is None or used - set(_FORMS) or not whole[step] <= used or (step == "hour" and not ({"m", "d"} <= used or "j" in used)):
        raise UsageError(
            f"source '{source}': partition={text!r} says no stretch of time. Write it with %Y, %m, %d and %H, each with those before it,\n"
            '  as in partition="year=%Y/month=%m" or partition="%Y-%m-%d".'
        )
    _expression(text)
    return Scheme(text, step)


@lru_cache
def _expression(text: str) -> re.Pattern[str]:
    parts, seen = [], set[str]()
    for piece in re.split(r"(%.)", text):
        letter = piece[1:] if piece.startswith("%") else ""
        if letter in _FORMS:
            parts.append(f"(?P={letter})" if letter in seen else _FORMS[letter])
            seen.add(letter)
        else:
            parts.append(re.escape(piece))
    return re.compile(r"(?<![0-9A-Za-z])" + "".join(parts) + r"(?![0-9])")


def _begin(groups: dict[str, str]) -> datetime:
    year = int(groups["Y"])
    if "j" in groups:
        began = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=int(groups["j"]) - 1)
    else:
        began = datetime(year, int(groups.get("m", "1")), int(groups.get("d", "1")), tzinfo=UTC)
    return began.replace(hour=int(groups.get("H", "0")))


def _floor(instant: datetime, step: str) -> datetime:
    hour = instant.replace(minute=0, second=0, microsecond=0)
    match step:
        case "hour":
            return hour
        case "day":
            return hour.replace(hour=0)
        case "month":
            return hour.replace(hour=0, day=1)
    return hour.replace(hour=0, day=1, month=1)


def _next(began: datetime, step: str) -> datetime:
    match step:
        case "hour":
            return began + timedelta(hours=1)
        case "day":
            return began + timedelta(days=1)
        case "month":
            return began.replace(year=began.year + began.month // 12, month=began.month % 12 + 1)
    return began.replace(year=began.year + 1)


def _micros(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)
