"""Verify a snapshot, against its own bytes and against the source; compare it with another, row by row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featreg.canonical import file_id
from featreg.define import EventSource
from featreg.errors import DataError, StoreError
from featreg.registry.push_log import PushLog
from featreg.registry.pushed import Position
from featreg.session.drift import by_partition, drift, row_changes, whole_columns
from featreg.session.measure import Found, Group, groups_of, measure
from featreg.session.pushed_part import PushedPart
from featreg.session.snapshots import damaged_files, placed_files, pushed_part, read_snapshot, scheme_of, source_of
from featreg.session.source_files import Listed, list_files, location_of
from featreg.snapshots.coverage import Coverage, Verdict
from featreg.snapshots.families import Column, shape_text
from featreg.snapshots.manifest import PUSHED, Log, Snapshot

if TYPE_CHECKING:
    from featreg.session.registry import Registry


@dataclass(frozen=True)
class Verified:
    """What verifying found.  damaged: files whose kept copy is gone or changed · drift: the source as it is now, file by file."""

    snapshot: Snapshot
    damaged: tuple[str, ...]
    drift: Coverage

    @property
    def is_sound(self) -> bool:
        return not self.damaged

    @property
    def differs(self) -> bool:
        return any(one.fails for one in self.drift.verdicts)


def verify(registry: "Registry", named: str) -> Verified:
    """Read every byte of the copies and of the source's files, whatever their times say; rows only where bytes differ.

    Raises: UsageError; DataError when the snapshot was removed.
    """
    snapshot = read_snapshot(registry, named)[1]
    source = source_of(registry, snapshot.source)
    damaged = tuple(file.path for file in damaged_files(registry.profile, snapshot))
    log = () if _has_log(registry, source, snapshot) else (PUSHED,)
    live = {shown: (file_id(file), file) for shown, file in _files_now(registry, source).files.items()}
    kept = {} if damaged else placed_files(registry.profile, snapshot)
    return Verified(snapshot, damaged + log, drift(registry.engine, source, snapshot, kept, live, scheme_of(source)))


def _files_now(registry: "Registry", source: EventSource) -> Listed:
    if source.stream_mode is not None and source.name not in registry.profile.sources:
        return Listed({}, {})
    return list_files(location_of(registry.profile, source.name), registry.profile.root)


def _has_log(registry: "Registry", source: EventSource, snapshot: Snapshot) -> bool:
    """Whether what was pushed before the snapshot is in the push log as it was.  Reads all of it."""
    if snapshot.log is None:
        return True
    if PushLog(registry.profile.push_path(source.name)).lost(snapshot.log.lengths):
        return False
    try:
        part = PushedPart(registry.engine, registry.profile, source, Position(snapshot.log.segment, snapshot.log.end), fresh=True)
    except StoreError:
        return False
    return part.measured(whole_columns(snapshot)).numbers == snapshot.log.numbers


@dataclass(frozen=True)
class PartitionDifference:
    """Rows of one partition that only one side has.  changed: same event time and tie_break columns, other values."""

    partition: str
    rows_before: int
    rows_after: int
    added: int
    removed: int
    changed: int


@dataclass(frozen=True)
class Difference:
    """From one snapshot to another, or to the source as it is now (after is None).

    schema: what happened to columns, in words; rows are compared in the columns that both have.
    rewritten: partitions of other bytes and the same rows.
    """

    source: str
    before: str
    after: str | None
    schema: tuple[str, ...]
    partitions: tuple[PartitionDifference, ...]
    rewritten: tuple[str, ...]

    @property
    def is_none(self) -> bool:
        return not self.partitions and not self.schema


def compare_snapshots(registry: "Registry", before: str, after: str | None = None) -> Difference:
    """What changed from a snapshot to another, or to the source now.

    Raises: UsageError; DataError for snapshots of two sources, or one that is gone.
    """
    old = read_snapshot(registry, before)[1]
    source = source_of(registry, old.source)
    places = placed_files(registry.profile, old)
    if after is not None:
        new = read_snapshot(registry, after)[1]
        new_places = placed_files(registry.profile, new)
    else:
        listed = _files_now(registry, source)
        new_places = dict(listed.files)
        found = {shown: Found(file, file.stat().st_size, file_id(file)) for shown, file in new_places.items()}
        new = measure(registry.engine, source, listed.reading, found, old, pushed_part(registry, source))
    if new.source != old.source:
        raise DataError(f"{before} is of source '{old.source}' and {after} of '{new.source}'; snapshots of one source are compared.")
    columns = _shared(whole_columns(old), whole_columns(new))
    sides = [by_partition({file.path: (file.sha256, there[file.path]) for file in one.files}, scheme_of(source))
             for one, there in ((old, places), (new, new_places))]  # fmt: skip
    changed, rewritten = _partitions(registry, source, (old, new), sides, columns)
    changed += _pushed_since(old.log, new.log)
    return Difference(source.name, old.id, None if after is None else new.id, _schema(old, new), tuple(changed), tuple(rewritten))


def _pushed_since(old: Log | None, new: Log | None) -> list[PartitionDifference]:
    """A log only grows: one has what the other has, and more."""
    before, after = (0 if one is None else one.numbers.count for one in (old, new))
    return [PartitionDifference(PUSHED, before, after, max(after - before, 0), max(before - after, 0), 0)] if before != after else []


def _partitions(
    registry: "Registry", source: EventSource, snapshots: tuple[Snapshot, Snapshot],
    sides: Sequence[Mapping[str, Mapping[str, tuple[str, Path]]]], columns: Sequence[Column],
) -> tuple[list[PartitionDifference], list[str]]:  # fmt: skip
    scheme = scheme_of(source)
    rows = [{part.name: part.numbers.count for part in one.partitions(scheme)} for one in snapshots]
    numbers = [{part.name: part.numbers for part in one.partitions(scheme)} for one in snapshots]
    same_columns = snapshots[0].shape == snapshots[1].shape == shape_text(columns)
    changed, rewritten = [], []
    for name in sorted(set(sides[0]) | set(sides[1])):
        files = [side.get(name, {}) for side in sides]
        if [(shown, sha) for shown, (sha, _) in files[0].items()] == [(shown, sha) for shown, (sha, _) in files[1].items()]:
            continue
        if same_columns and numbers[0].get(name) == numbers[1].get(name):
            rewritten.append(name)
            continue
        groups: list[list[Group]] = [
            groups_of(registry.engine, source, one.reading, [place for _, place in there.values()], columns)
            for one, there in zip(snapshots, files)
        ]
        change = row_changes(registry.engine, source, groups[0], groups[1])
        if change.is_none:
            rewritten.append(name)
        else:
            counts = (rows[0].get(name, 0), rows[1].get(name, 0))
            changed.append(PartitionDifference(name, *counts, change.added, change.removed, change.changed))
    return changed, rewritten


def _shared(old: Sequence[Column], new: Sequence[Column]) -> tuple[Column, ...]:
    families = {column.name.lower(): column.family.name for column in new}
    return tuple(column for column in old if families.get(column.name.lower()) == column.family.name)


def _schema(old: Snapshot, new: Snapshot) -> tuple[str, ...]:
    was, now = ({name: kind for form in one.forms for name, kind in form} for one in (old, new))
    told = [f"column '{name}' is gone ({was[name]})" for name in sorted(was.keys() - now.keys())]
    told += [f"column '{name}' is new ({now[name]})" for name in sorted(now.keys() - was.keys())]
    return tuple(told + [f"column '{name}': {was[name]} → {now[name]}" for name in sorted(was) if name in now and was[name] != now[name]])


def verdict_document(verdict: Verdict) -> dict[str, object]:
    """A verdict for JSON."""
    return {**vars(verdict), "kind": str(verdict.kind)}
