"""Say whether the data that is there covers what is asked, before anything is scanned.

Asked is a stretch of event times: the spine's cutoffs, widened by the longest window.  There is what partitions say of
themselves: their stretch by the location's scheme, or the days of their first and last event.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from featreg.instants import DAY, floor_to, format_instant
from featreg.snapshots.manifest import Partition
from featreg.snapshots.scheme import Scheme


class Kind(StrEnum):
    WINDOW_NOT_COVERED = "WINDOW_NOT_COVERED"  # the data begins later than the windows reach
    PARTITION_MISSING = "PARTITION_MISSING"  # a part that was there, or that the scheme expects, is not
    SNAPSHOT_GONE = "SNAPSHOT_GONE"  # what featreg had kept is not there
    CONTENT_DRIFT = "CONTENT_DRIFT"  # other rows than in the snapshot
    SCHEMA_DRIFT = "SCHEMA_DRIFT"  # other columns than in the snapshot
    NOT_YET_COMPLETE = "NOT_YET_COMPLETE"  # asked as of an instant that the data has not reached
    UNBOUNDED = "UNBOUNDED"  # a feature without a window, of a source that does not say when it starts
    REWRITTEN_SAME = "REWRITTEN_SAME"  # other bytes, the same rows
    GROWN = "GROWN"  # rows that are later than all of the snapshot's


@dataclass(frozen=True)
class Verdict:
    """One thing that was found.  fails: whether a training set must not be made of it · last_event: what last touched the partition."""

    kind: Kind
    source: str
    partition: str
    expected: str
    found: str
    remedy: str
    fails: bool = True
    last_event: str = "nothing is recorded"

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.source} {self.partition}: expected {self.expected}; found {self.found}.\n"
            f"    Last event: {self.last_event}.\n    {self.remedy}"
        )


@dataclass(frozen=True)
class Need:
    """Which rows a training set reads of a source: event times in `[earliest, before)`, all up to `before` when `earliest` is None."""

    earliest: int | None
    before: int

    def merged(self, other: "Need") -> "Need":
        bounded = None if self.earliest is None or other.earliest is None else min(self.earliest, other.earliest)
        return Need(bounded, max(self.before, other.before))

    def since(self, starts: int | None) -> int | None:
        """The earliest event time that is needed of a source that starts then; None is all of a history whose start nobody knows."""
        return max((bound for bound in (self.earliest, starts) if bound is not None), default=None)

    def touches(self, first: int | None, last: int | None) -> bool:
        """Whether a partition whose event times go from `first` to `last` has rows that are needed."""
        if first is None or last is None:
            return False
        return first < self.before and (self.earliest is None or last >= self.earliest)


@dataclass(frozen=True)
class Coverage:
    """All verdicts, and in words what could not be checked."""

    verdicts: tuple[Verdict, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def failing(self) -> tuple[Verdict, ...]:
        return tuple(one for one in self.verdicts if one.fails)

    def __add__(self, other: "Coverage") -> "Coverage":
        return Coverage(self.verdicts + other.verdicts, self.unchecked + other.unchecked)


def window_coverage(
    source: str, need: Need, partitions: Sequence[Partition], scheme: Scheme | None, starts: int | None, taken_at: int | None = None
) -> Coverage:
    """What the partitions lack of the stretch that is needed.

    starts: when the source's history begins, as it is declared · taken_at: when the partitions were looked at.
    Cost: one pass over the partitions and one over the scheme's stretch; nothing is read.
    """
    verdicts: list[Verdict] = []
    unchecked: list[str] = []
    begins, ends = _reach(partitions)
    earliest = need.since(starts)
    if earliest is None:
        verdicts.append(_unbounded(source, begins))
    if begins is None or ends is None:
        if earliest is None or earliest < need.before:
            verdicts.append(_no_rows(source, need))
        return Coverage(tuple(verdicts))
    verdicts += late_begin(source, need, begins, starts)
    if scheme is not None:
        verdicts += _gaps(source, need, earliest, partitions, scheme)
    else:
        unchecked.append(f"{source}: without partition= no gap between files can be seen, only files that a snapshot listed.")
    verdicts += _not_yet(source, need, ends, scheme, taken_at)
    return Coverage(tuple(verdicts), tuple(unchecked))


def _reach(partitions: Iterable[Partition]) -> tuple[int | None, int | None]:
    """From where to where the partitions hold data, by their slots where they have them, else by whole days of their rows."""
    begins: list[int] = []
    ends: list[int] = []
    for one in partitions:
        if one.slot is not None:
            begins.append(one.slot.start)
            ends.append(one.slot.end)
        elif one.first is not None and one.last is not None:
            begins.append(floor_to(one.first, DAY))
            ends.append(floor_to(one.last, DAY) + DAY)
    return min(begins, default=None), max(ends, default=None)


def _gaps(source: str, need: Need, earliest: int | None, partitions: Sequence[Partition], scheme: Scheme) -> list[Verdict]:
    there = {one.slot.name: one.slot for one in partitions if one.slot is not None}
    if not there:
        return []
    start = min(slot.start for slot in there.values())
    end = min(max(slot.end for slot in there.values()), need.before)
    start = start if earliest is None else max(start, earliest)
    missing = [slot for slot in scheme.slots(start, end) if slot.name not in there] if start < end else []
    return [
        Verdict(
            Kind.PARTITION_MISSING, source, slot.name, f"a partition of {_span(slot.start, slot.end)}", "no file there",
            "Put it back. If nothing happened then, write a file without rows there: what is gone looks like what is empty.",
        )
        for slot in missing
    ]  # fmt: skip


def late_begin(source: str, need: Need, begins: int, starts: int | None) -> list[Verdict]:
    """Whether data that begins then begins a day or more later than what is needed of all that there ever was."""
    earliest = need.since(starts)
    if earliest is None or earliest >= need.before or floor_to(begins, DAY) <= floor_to(earliest, DAY):
        return []
    declared = "" if starts is None else f" ({source} is declared to start at {format_instant(starts)})"
    return [
        Verdict(
            Kind.WINDOW_NOT_COVERED, source, f"before {format_instant(begins)}", f"rows from {format_instant(earliest)} on{declared}",
            f"none before {format_instant(begins)}",
            "Put the older data back, read a snapshot that has it (snapshot=), or let the spine begin later. If there never was any, "
            f'declare EventSource(starts="{format_instant(begins)[:10]}").',
        )
    ]  # fmt: skip


def _no_rows(source: str, need: Need) -> Verdict:
    earliest = "the beginning" if need.earliest is None else format_instant(need.earliest)
    return Verdict(
        Kind.WINDOW_NOT_COVERED, source, "all", f"rows from {earliest} to {format_instant(need.before)}", "no rows at all",
        "Put the data there, or read a snapshot that has it (snapshot=).",
    )  # fmt: skip


def _unbounded(source: str, begins: int | None) -> Verdict:
    found = "no rows" if begins is None else f"rows from {format_instant(begins)} on"
    day = "2013-01-01" if begins is None else format_instant(begins)[:10]
    return Verdict(
        Kind.UNBOUNDED, source, "all", "all of history, for a feature without a window", f"{found}, and no word on when history begins",
        f'Declare EventSource(starts="{day}"), so that older data that is lost can be told from data that never was.', fails=False,
    )  # fmt: skip


def _not_yet(source: str, need: Need, ends: int, scheme: Scheme | None, taken_at: int | None) -> list[Verdict]:
    complete, why = ends, f"complete up to {format_instant(ends)}, the end of its newest partition"
    if scheme is None:
        why = f"its newest row is of {format_instant(ends - DAY)[:10]}"
    fails = scheme is not None
    if taken_at is not None and need.before > taken_at:
        complete, why, fails = taken_at, f"taken at {format_instant(taken_at)}", True
    if need.before <= complete:
        return []
    return [
        Verdict(
            Kind.NOT_YET_COMPLETE, source, f"from {format_instant(complete)}", f"rows up to {format_instant(need.before)}", why,
            "Wait for the data and take a snapshot again, or leave the later rows out of the spine.", fails,
        )
    ]  # fmt: skip


def _span(start: int, end: int) -> str:
    return f"{format_instant(start)} to {format_instant(end)}"


def with_last_event(coverage: Coverage, told: dict[str, str]) -> Coverage:
    """The verdicts, each with what last touched its source.  told: source -> the event in words."""
    return replace(
        coverage,
        verdicts=tuple(
            replace(one, last_event=f"{one.last_event}; {told[one.source]}" if one.last_event != Verdict.last_event else told[one.source])
            if one.source in told
            else one
            for one in coverage.verdicts
        ),
    )
