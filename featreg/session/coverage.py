"""Check the sources of a training set before anything is scanned: against the snapshot that is read, or the newest of a live location."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featreg.compile import CompiledSet, CompiledView
from featreg.define import EventSource
from featreg.errors import CoverageError, DataError, UsageError
from featreg.instants import format_instant, parse_instant, window_start
from featreg.registry.kept import KeptSnapshot
from featreg.registry.push_log import has_rows
from featreg.session.drift import drift
from featreg.session.pushed_part import log_text, lost_verdicts
from featreg.session.snapshots import SnapshotRemovedError, placed_files, read_snapshot, scheme_of, snapshots_folder
from featreg.session.source_files import KnownFiles, first_event, is_files, list_files, location_of
from featreg.session.training_set import cutoffs
from featreg.snapshots.coverage import Coverage, Kind, Need, Verdict, late_begin, window_coverage, with_last_event
from featreg.snapshots.manifest import Partition, Snapshot
from featreg.snapshots.scheme import Scheme

if TYPE_CHECKING:
    from featreg.session.profile import Profile
    from featreg.session.registry import Registry

Named = str | Mapping[str, str] | Sequence[str]


@dataclass(frozen=True)
class Placed:
    """Where the rows of a source come from: a snapshot's own files, under names that end as they did."""

    snapshot: Snapshot
    at: int
    files: Mapping[str, Path]


def needs_of(
    compiled: CompiledSet, views: Mapping[str, CompiledView], asked: tuple[int, int] | None, known_at: int | None
) -> dict[str, Need]:
    """Which event times of each source a training set reads.

    asked: the first and the last as-of instant; None for a spine without rows, which needs nothing.
    """
    needs: dict[str, Need] = {}
    if asked is None:
        return needs
    for lookup in compiled.lookups:
        view = views[lookup.view]
        wanted = view.closure(tuple(feature for feature, _ in lookup.features))
        first, last = cutoffs(np.array(asked), view.cadence, known_at).tolist()
        source = view.scan.source
        before = (last if known_at is None else min(last, known_at)) - source.delay_micros
        windows = [(one.window, one.hop or 1) for name in wanted if (one := view.by_name[name]).aggregation]
        starts = [window_start(first, window, hop) for window, hop in windows]
        bounded = [start for start in starts if start is not None]
        need = Need(min(bounded, default=before) if len(bounded) == len(starts) else None, before)
        needs[source.name] = needs[source.name].merged(need) if source.name in needs else need
    return needs


def place_snapshots(registry: "Registry", named: "Named", sources: set[str]) -> dict[str, Placed]:
    """The snapshots to read, by source.

    named: an id or the beginning of one, several, source -> id, or `latest`: the newest of each source.
    Raises: UsageError; CoverageError (SNAPSHOT_GONE).
    """
    ids = _named(registry, named, sources)
    placed: dict[str, Placed] = {}
    gone: list[Verdict] = []
    for one in ids:
        try:
            kept, snapshot = read_snapshot(registry, one)
            if snapshot.source in placed:
                raise UsageError(f"two snapshots of '{snapshot.source}' are named; one is read.")
            if isinstance(named, Mapping) and named.get(snapshot.source) != one:
                raise UsageError(f"snapshot {one} is of '{snapshot.source}'.")
            placed[snapshot.source] = Placed(snapshot, kept.at, placed_files(registry.profile, snapshot))
        except DataError as error:
            gone.append(_gone(registry, one, error))
    if gone:
        raise CoverageError(told(registry, Coverage(tuple(gone))))
    return placed


def _named(registry: "Registry", named: "Named", sources: set[str]) -> list[str]:
    if named == "latest":
        state = registry.control()
        found = [state.newest_snapshot(source) for source in sorted(sources)]
        if not any(found):
            raise UsageError("there is no snapshot yet of what this set reads.\n  Take one: featreg snapshot take SOURCE")
        return [one.id for one in found if one is not None]
    if isinstance(named, str):
        return [named]
    return list(named.values()) if isinstance(named, Mapping) else list(named)


def _gone(registry: "Registry", named: str, error: DataError) -> Verdict:
    kept = next(one for one in registry.control().snapshots.values() if one.id.startswith(named))
    found, _, remedy = str(error).removeprefix("SNAPSHOT_GONE: ").partition("\n")
    return Verdict(
        Kind.SNAPSHOT_GONE, kept.source, f"snapshot {kept.id[:12]}", f"{kept.numbers[0]:,} rows in {kept.files} files", found.rstrip("."),
        remedy.strip() or "Put it back from a copy.",
        last_event=f"{'removed' if isinstance(error, SnapshotRemovedError) else 'taken'} at {format_instant(kept.removed_at or kept.at)}",
    )  # fmt: skip


def coverage_of(
    registry: "Registry", needs: Mapping[str, Need], sources: Mapping[str, EventSource], placed: Mapping[str, Placed], given: set[str]
) -> "tuple[Coverage, dict[str, str]]":
    """All verdicts of the sources that are needed, and the snapshots that each live source was found equal to, by source.

    given: sources whose rows were handed in; nothing is known of those.
    """
    coverage, equal = Coverage(), {}
    for name, need in needs.items():
        source = sources[name]
        if name in given:
            continue
        if name in placed:
            at = placed[name]
            coverage += _windows(source, need, at.snapshot.parts(scheme_of(source)), at.at) + _pushed(registry, at.snapshot)
        else:
            found, same = _live(registry, source, need)
            coverage += found
            if same is not None:
                equal[name] = same.id
    return told(registry, coverage), equal


def _windows(
    source: EventSource, need: Need, partitions: tuple[Partition, ...], taken_at: int | None, goes_on: bool = False
) -> Coverage:
    """goes_on: rows are being pushed, so that what came since is there whenever it is asked for."""
    starts = None if source.starts is None else parse_instant(source.starts)
    if starts is None and partitions and all(one.log is not None for one in partitions):
        starts = partitions[0].first  # before what was pushed first there never was anything
    found = window_coverage(source.name, need, partitions, scheme_of(source), starts, taken_at)
    if not goes_on:
        return found
    return replace(found, verdicts=tuple(one for one in found.verdicts if one.kind != Kind.NOT_YET_COMPLETE))


def _pushed(registry: "Registry", snapshot: Snapshot) -> Coverage:
    """Whether the push log still has what it had when a snapshot was taken."""
    if snapshot.log is None:
        return Coverage()
    return Coverage(tuple(lost_verdicts(registry.profile, snapshot.source, snapshot.log.lengths, log_text(snapshot.log))))


def _live(registry: "Registry", source: EventSource, need: Need) -> tuple[Coverage, KeptSnapshot | None]:
    """A location against its newest snapshot; without one only the scheme says what should be there."""
    profile, scheme = registry.profile, scheme_of(source)
    newest = registry.control().newest_snapshot(source.name)
    if source.stream_mode is not None and source.name not in profile.sources:
        if newest is None:
            return Coverage(), None
        snapshot = read_snapshot(registry, newest.id)[1]
        return _windows(source, need, snapshot.parts(scheme), None, True) + _pushed(registry, snapshot), None
    if newest is None and scheme is None:
        return _since_when(registry, source, need), None
    if not is_files(profile, source.name):
        return Coverage((), (f"{source.name}: its location is no files of this machine, so what is there cannot be checked.",)), None
    location = location_of(profile, source.name)
    files = list_files(location, profile.root).files
    goes_on = source.stream_mode is not None and has_rows(profile.push_path(source.name))
    if newest is None:
        assert scheme is not None
        named = {slot.name: Partition(slot.name, (), slot) for file in files if (slot := scheme.slot_of(file)) is not None}
        return _windows(source, need, tuple(named.values()), None, goes_on), None
    snapshot = read_snapshot(registry, newest.id)[1]
    known = KnownFiles(snapshots_folder(profile), source.name)
    live = {shown: (known.read(shown, file), file) for shown, file in files.items()}
    kept = _kept(profile, snapshot)
    found = drift(registry.engine, source, snapshot, kept, live, scheme, need)
    is_equal = {one.path: one.sha256 for one in snapshot.files} == {shown: sha256 for shown, (sha256, _) in live.items()}
    windows = _windows(source, need, _known_partitions(snapshot, live, scheme), None, goes_on)
    return found + windows + _pushed(registry, snapshot), newest if is_equal and kept else None


def _since_when(registry: "Registry", source: EventSource, need: Need) -> Coverage:
    """What footers alone say of a location that was never kept: whether its rows begin later than is needed.

    That fails where the source declares when it starts; where it does not, there may never have been more, and it is noted.
    """
    profile = registry.profile
    starts = None if source.starts is None else parse_instant(source.starts)
    earliest = need.since(starts)
    if earliest is None or not is_files(profile, source.name) or source.stream_mode is not None:
        return Coverage()
    files = list_files(location_of(profile, source.name), profile.root).files.values()
    begins = first_event(files, source.event_time, earliest)
    if begins is None:
        return Coverage()
    return Coverage(tuple(replace(one, fails=starts is not None) for one in late_begin(source.name, need, begins, starts)))


def _kept(profile: "Profile", snapshot: Snapshot) -> Mapping[str, Path]:
    """The snapshot's own files; none of them where some are gone."""
    with suppress(DataError):
        return placed_files(profile, snapshot)
    return {}


def _known_partitions(snapshot: Snapshot, live: Mapping[str, tuple[str, Path]], scheme: Scheme | None) -> tuple[Partition, ...]:
    """The snapshot's partitions, for those that are gone have verdicts of their own, and the new ones of the scheme."""
    before = snapshot.parts(scheme)
    if scheme is None:
        return before
    there = {one.name for one in before}
    slots = {slot.name: slot for shown in live if (slot := scheme.slot_of(shown)) is not None and slot.name not in there}
    return before + tuple(Partition(name, (), slot) for name, slot in slots.items())


def told(registry: "Registry", coverage: Coverage) -> Coverage:
    """The verdicts, each with the last event of its source; events are read only where something fails."""
    sources = {one.source for one in coverage.failing}
    return with_last_event(coverage, _last_events(registry, sources)) if sources else coverage


def _last_events(registry: "Registry", sources: set[str]) -> dict[str, str]:
    found: dict[str, tuple[int, str]] = {}
    for event in registry.events.read("receipt", "snapshot", "snapshot_removed", "retention"):
        body = event.body
        verb = str(body.get("verb", event.kind)).replace("_", " ")
        touched = {body.get("source"), *(view.get("source") for view in body.get("views", ()))}
        for source in touched & sources:
            if source is not None and event.at >= found.get(source, (0, ""))[0]:
                what = f" {str(body['id'])[:12]}" if "id" in body else ""
                found[source] = (event.at, f"{verb}{what} at {format_instant(event.at)} by {event.by}")
    return {source: text for source, (_, text) in found.items()}
