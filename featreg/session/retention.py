"""Say until when what was trained can still be made again, and delete featreg's own old copies that nothing holds.

A source's `retention=` says after how long its rows may be deleted where they lie.  featreg never deletes them: it says
what would break, and which of its own copies nobody needs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featreg.define import EventSource
from featreg.instants import DAY, floor_to, parse_duration, parse_instant
from featreg.registry.decided import append_decided
from featreg.registry.kept import KeptSnapshot, KeptTrainingSet
from featreg.registry.state import ControlState
from featreg.session.receipts import tell
from featreg.session.snapshots import find_kept, objects_of, unreached

if TYPE_CHECKING:
    from featreg.session.registry import Registry


@dataclass(frozen=True)
class Replay:
    """Until when a training set or pinned model can be made again as far as one source goes.

    what: `training set ID` or `pin NAME` · needs: the earliest event time that it reads, None is all of history ·
    unbounded: whether it reads all of history of a source that does not say when it starts · held_by: the snapshot that keeps it,
    and then there is no last day · last_day: the first instant of the last day on which the source itself still has all of it, by
    its retention; None without one · is_past: whether that day is over.
    """

    what: str
    set: str
    source: str
    needs: int | None
    unbounded: bool
    held_by: str | None
    last_day: int | None
    is_past: bool


@dataclass(frozen=True)
class Deletion:
    """A copy of featreg's own that is past its source's retention and that nothing holds."""

    snapshot: str
    source: str
    taken_at: int
    bytes: int


@dataclass(frozen=True)
class RetentionPlan:
    """replays: those of unbounded features first, then by their last day · breaks: replays that end when rows past the retention are
    deleted where they lie · deletions: what `apply` deletes, and of the source itself nothing · loose: objects that nothing names.
    """

    at: int
    replays: tuple[Replay, ...]
    breaks: tuple[Replay, ...]
    deletions: tuple[Deletion, ...]
    loose: tuple[str, ...]
    loose_bytes: int


def plan_retention(registry: "Registry", now: int) -> RetentionPlan:
    """now: UTC microseconds."""
    state = registry.control()
    sources = dict(registry.applied().compiled.sources if state.applied else registry.compile().sources)
    by_files = state.by_files()
    replays = sorted(
        (replay for made in state.kept_training_sets for replay in _replays(state, made, made.needed(by_files), sources, now)),
        key=lambda one: (not one.unbounded, one.last_day is None, one.last_day or 0, one.what),
    )
    breaks = tuple(one for one in replays if one.held_by is None and one.is_past)
    objects = objects_of(registry.profile)
    with objects.locked():
        loose = tuple(unreached(registry))
    sizes = objects.all()
    deletions = tuple(_deletions(state, sources.values(), now))
    return RetentionPlan(now, tuple(replays), breaks, deletions, loose, sum(sizes.get(one, 0) for one in loose))


def apply_retention(registry: "Registry", now: int) -> tuple[RetentionPlan, int]:
    """Delete what the plan says; gives it and the bytes that are free.  Never a file at a source's location.

    What is held since the plan was made stays: each deletion is decided at a generation of the log, alone among those who put.
    """
    plan, objects = plan_retention(registry, now), objects_of(registry.profile)
    with objects.locked(to_remove=True):
        for one in plan.deletions:
            _tombstone(registry, one.snapshot)
        freed = sum(objects.remove(sha256) for sha256 in unreached(registry))
    if plan.deletions or freed:
        tell(registry.events, "retention", {"snapshots": [one.snapshot for one in plan.deletions], "bytes": freed})
    return plan, freed


def _tombstone(registry: "Registry", snapshot: str) -> None:
    def while_loose(state: ControlState) -> dict | None:
        if snapshot in state.holders() or find_kept(state, snapshot, removed=True).removed_at is not None:
            return None
        return {"id": snapshot}

    append_decided(registry.log, registry.profile.control_cache, "snapshot_removed", while_loose)


def _replays(
    state: ControlState, made: KeptTrainingSet, needed: dict[str, str], sources: dict[str, EventSource], now: int
) -> Iterable[Replay]:
    """One for each source of a training set, and for each pin of a model that was trained on it.  needed: source -> snapshot.

    A pinned version of a table keeps nothing by itself: who cleans the table up does not ask.
    """
    pins = [f"pin {name}" for name in state.trained_on(made)]
    for name, read in made.sources.items():
        source, needs = sources.get(name), read["needs"]
        if needs is None:
            continue
        earliest = needs[0]
        starts = None if source is None or source.starts is None else source.starts
        unbounded = earliest is None and starts is None
        kept = state.snapshots.get(needed.get(name, ""))
        held = kept.id if kept is not None and kept.removed_at is None and kept.pin is None else None
        last = _last_day(state, name, source, earliest)
        past = last is not None and now >= last + DAY
        for what in (f"training set {made.id[:12]}", *pins):
            yield Replay(what, made.set, name, earliest, unbounded, held, None if held else last, past and held is None)


def _last_day(state: ControlState, name: str, source: EventSource | None, earliest: int | None) -> int | None:
    """The day on which the first row that is needed has its retention behind it."""
    if source is None or source.retention is None:
        return None
    begins = earliest
    if source.starts is not None:
        starts = parse_instant(source.starts)
        begins = starts if begins is None else max(begins, starts)
    if begins is None:
        firsts = [one.first for one in state.snapshots.values() if one.source == name and one.first is not None]
        begins = min(firsts, default=None)
    return None if begins is None else floor_to(begins + parse_duration(source.retention), DAY)


def _deletions(state: ControlState, sources: Iterable[EventSource], now: int) -> Iterable[Deletion]:
    """Snapshots that were taken before the source's retention began, that nothing holds, and that are not the source's newest."""
    holders = state.holders()
    for source in sources:
        if source.retention is None:
            continue
        newest = state.newest_snapshot(source.name)
        for kept in _of(state, source.name):
            if kept.at < now - parse_duration(source.retention) and kept is not newest and kept.id not in holders:
                yield Deletion(kept.id, source.name, kept.at, kept.bytes)


def _of(state: ControlState, source: str) -> list[KeptSnapshot]:
    return [one for one in state.snapshots.values() if one.source == source and one.removed_at is None]
