"""Take, read, compare and remove snapshots: immutable copies of a source's data, found again by what they are."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featreg.canonical import canonical_json, file_id
from featreg.define import EventSource
from featreg.define.source import UNTIL_BATCH
from featreg.engines.lake import pin_text
from featreg.errors import DataError, RefusedError, UsageError, did_you_mean
from featreg.instants import format_instant
from featreg.registry.decided import append_decided
from featreg.registry.kept import KeptSnapshot, find_one
from featreg.registry.push_log import has_rows
from featreg.registry.state import ControlState
from featreg.session.measure import Found, measure
from featreg.session.pushed_part import PushedPart
from featreg.session.receipts import tell
from featreg.session.source_files import KnownFiles, Listed, Location, list_files, location_of, stat_of
from featreg.session.sources import SourceFinder
from featreg.snapshots.manifest import File, Snapshot, read_document, written
from featreg.snapshots.numbers import content_id_of
from featreg.snapshots.objects import ObjectStore
from featreg.snapshots.scheme import Scheme, read_scheme

if TYPE_CHECKING:
    from featreg.session.profile import Profile
    from featreg.session.registry import Registry


@dataclass(frozen=True)
class Taken:
    """A snapshot, when it was taken (UTC microseconds), and what taking it cost: files and bytes that were read, the rest was known."""

    snapshot: Snapshot
    at: int
    is_new: bool
    files_read: int
    bytes_read: int
    seconds: float

    @property
    def id(self) -> str:
        return self.snapshot.id


def objects_of(profile: "Profile") -> ObjectStore:
    return ObjectStore(profile.state / "objects")


def snapshots_folder(profile: "Profile") -> Path:
    """What can be made again: links to objects, and which file had which bytes."""
    return profile.state / "snapshots"


def source_of(registry: "Registry", name: str) -> EventSource:
    """The source as it is applied, or else as the working tree has it.  Raises: UsageError for an unknown one."""
    known = dict(registry.applied().compiled.sources) if registry.revision or registry.log.last("apply") else {}
    if name not in known:
        known = dict(registry.compile().sources)
    if name not in known:
        raise UsageError(f"there is no source '{name}'.\n  {did_you_mean(name, known, 'Sources are')}")
    return known[name]


def scheme_of(source: EventSource) -> Scheme | None:
    return read_scheme(source.partition, source.name)


def take(registry: "Registry", name: str) -> Taken:
    """Keep the source's files as they are now.  Files that nobody touched since the last snapshot are not read again.

    Of a table that keeps its history the version is pinned, and its files are copied only where the profile says `copy = true`.

    A kill leaves either the snapshot or what was before, and at most objects that nothing names, which the next one clears.
    Raises: UsageError, DataError.
    """
    began, source, profile = time.perf_counter(), source_of(registry, name), registry.profile
    scheme_of(source)
    objects, pushed = objects_of(profile), pushed_part(registry, source)
    location = Location(name, "", {}, False) if pushed is not None and name not in profile.sources else location_of(profile, name)
    listed = list_files(location, profile.root) if location.path else Listed({}, {})
    files, copies = listed.files, listed.pin is None or listed.pin["copied"]
    if not files and pushed is None:
        raise DataError(f"source '{name}': no file at {location.path}.\n  Put the data there, or say where it is in conf under [sources].")
    known = KnownFiles(snapshots_folder(profile), name)
    with objects.locked():
        found, read, size = {}, 0, 0
        for shown, file in files.items():
            sha256, stat = known.sha256(shown, file), stat_of(file)
            if not copies:
                read, size = (read, size) if sha256 else (read + 1, size + stat[0])
                found[shown] = (known.read(shown, file), stat[0])
                continue
            if sha256 is None or not objects.holds(sha256, stat[0]):
                sha256, length = objects.put_file(file, link=location.immutable)
                known.note(shown, stat, sha256)
                read, size = read + 1, size + length
            found[shown] = (sha256, objects.path(sha256).stat().st_size)
        before = registry.control().newest_snapshot(name)
        tree = _linked(profile, objects, {shown: sha256 for shown, (sha256, _) in found.items()}) if copies else files
        placed = {shown: Found(tree[shown], length, sha256) for shown, (sha256, length) in found.items()}
        earlier = None if before is None else _known_document(objects, before)
        batched = {} if pushed is None else _batched(registry, source)
        snapshot = replace(measure(registry.engine, source, listed.reading, placed, earlier, pushed, batched), pin=listed.pin)
        document = objects.put_bytes(canonical_json(written(snapshot)))
        record = _recorded(registry, snapshot, document)
        known.save(set(files))
    taken = Taken(snapshot, record.at, record.is_new, read, size, time.perf_counter() - began)
    if taken.is_new:
        told = {"source": name, "id": snapshot.id, "rows": snapshot.numbers.count, "files": len(files), "bytes": size}
        tell(registry.events, "snapshot", told)
    return taken


def pushed_part(registry: "Registry", source: EventSource) -> PushedPart | None:
    """What has been pushed to a source; None when it takes no pushes or there were none."""
    if source.stream_mode is None or not has_rows(registry.profile.push_path(source.name)):
        return None
    return PushedPart(registry.engine, registry.profile, source)


def _batched(registry: "Registry", source: EventSource) -> dict[str, int | None]:
    """Up to where runs have brought files to each view of a source, where pushed rows count until they do."""
    if source.stream_mode != UNTIL_BATCH or not registry.log.last("apply"):
        return {}
    finder = SourceFinder(registry.engine, registry.profile, {})
    views = registry.applied().compiled.views
    return {name: finder.batched_until(view) for name, view in sorted(views.items()) if view.scan.source.name == source.name}


@dataclass(frozen=True)
class _Recorded:
    at: int
    is_new: bool


def _recorded(registry: "Registry", snapshot: Snapshot, document: str) -> _Recorded:
    """Record it, unless it is the source's newest already."""
    body = {
        "id": snapshot.id, "source": snapshot.source, "manifest_id": snapshot.manifest_id, "schema_id": snapshot.schema_id,
        "content_id": snapshot.content_id, "numbers": snapshot.numbers.listed(), "files": len(snapshot.files),
        "bytes": sum(file.bytes for file in snapshot.files), "first": snapshot.first, "last": snapshot.last, "document": document,
        "pin": None if snapshot.is_copied or snapshot.pin is None else dict(snapshot.pin),
    }  # fmt: skip
    newest: KeptSnapshot | None = None

    def unless_newest(state: ControlState) -> dict | None:
        nonlocal newest
        newest = state.newest_snapshot(snapshot.source)
        return None if newest is not None and newest.id == snapshot.id else body

    record = append_decided(registry.log, registry.profile.control_cache, "snapshot", unless_newest)
    if record is not None:
        return _Recorded(record.at, True)
    assert newest is not None
    return _Recorded(newest.at, False)


def find_kept(state: ControlState, named: str, removed: bool = False) -> KeptSnapshot:
    """A snapshot by its id or the beginning of it, at least 6 digits; by its source, the newest of that.

    Raises: UsageError for none or several; DataError for one that was removed, unless those are wanted too.
    """
    found = state.newest_snapshot(named) or find_one(state.snapshots, named, "snapshot", lambda one: one.source)
    if found.removed_at is not None and not removed:
        raise SnapshotRemovedError(found)
    return found


class SnapshotRemovedError(DataError):
    """A snapshot that was taken and is removed."""

    def __init__(self, kept: KeptSnapshot):
        self.id, self.source = kept.id, kept.source
        when = format_instant(kept.removed_at or 0)
        super().__init__(
            f"SNAPSHOT_GONE: snapshot {kept.id[:12]} of '{kept.source}' was removed at {when} by {kept.removed_by}; it had "
            f"{kept.numbers[0]:,} rows, content {kept.content_id[:12]}.\n"
            f"  If the source still has that data, `featreg snapshot take {kept.source}` brings it back under the same id."
        )


def read_snapshot(registry: "Registry", named: str) -> tuple[KeptSnapshot, Snapshot]:
    """Raises: UsageError, DataError."""
    kept = find_kept(registry.control(), named)
    return kept, _document(objects_of(registry.profile), kept)


def _document(objects: ObjectStore, kept: KeptSnapshot) -> Snapshot:
    return read_document(json.loads(objects.read(kept.document)))


def _known_document(objects: ObjectStore, kept: KeptSnapshot) -> Snapshot | None:
    """None for one that is gone or damaged: all is read anew then."""
    with suppress(DataError):
        return _document(objects, kept)
    return None


def placed_files(profile: "Profile", snapshot: Snapshot) -> dict[str, Path]:
    """The snapshot's files under names that end as they did, so that they are read as they were: shown path -> place.

    Raises: DataError (SNAPSHOT_GONE) when an object is not there.
    """
    objects = objects_of(profile)
    gone = lost_files(profile, snapshot)
    if gone and not snapshot.is_copied:
        assert snapshot.pin is not None
        raise DataError(
            f"SNAPSHOT_GONE: {len(gone)} of {len(snapshot.files)} files of {pin_text(snapshot.pin)}, which snapshot {snapshot.id[:12]} of "
            f"'{snapshot.source}' pins, are not there any more: {gone[0].path}: the table was vacuumed, or its old snapshots expired.\n"
            "  Put the files back. Next time keep them longer (delta.deletedFileRetentionDuration; history.expire.max-snapshot-age-ms), "
            "or say copy = true in conf and take a snapshot, and featreg keeps copies."
        )
    if gone:
        listed = ", ".join(file.path for file in gone[:3]) + (", …" if len(gone) > 3 else "")
        raise DataError(
            f"SNAPSHOT_GONE: {len(gone)} of {len(snapshot.files)} files of snapshot {snapshot.id[:12]} of '{snapshot.source}' are not in "
            f"{objects.folder}: {listed}.\n  Put them back from a copy of that folder, or take it again where the source still has "
            f"the data: featreg snapshot take {snapshot.source}"
        )
    if not snapshot.is_copied:
        return {file.path: place_of(profile, snapshot, file) for file in snapshot.files}
    return _linked(profile, objects, {file.path: file.sha256 for file in snapshot.files})


def place_of(profile: "Profile", snapshot: Snapshot, file: File) -> Path:
    """Where a file of a snapshot is: featreg's own copy, or in the table whose version is pinned."""
    return objects_of(profile).path(file.sha256) if snapshot.is_copied else profile.root / file.path


def lost_files(profile: "Profile", snapshot: Snapshot) -> list[File]:
    """Files that are not where the snapshot has them, or are of another length; no byte is read."""
    base = f"{objects_of(profile).folder}/" if snapshot.is_copied else None
    places = (f"{base}{file.sha256}" if base else str(profile.root / file.path) for file in snapshot.files)
    return [file for file, place in zip(snapshot.files, places) if _length(place) != file.bytes]


def damaged_files(profile: "Profile", snapshot: Snapshot) -> list[File]:
    """Files that are gone or have other bytes.  Reads all of them."""
    places = [(file, place_of(profile, snapshot, file)) for file in snapshot.files]
    return [file for file, place in places if _length(place) is None or file_id(place) != file.sha256]


def _length(path: str | Path) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _linked(profile: "Profile", objects: ObjectStore, files: Mapping[str, str]) -> dict[str, Path]:
    """Links to objects under the paths that the files had, by object: a hive column is read from its path, gzip from an ending."""
    base = snapshots_folder(profile) / "files"
    made = {}
    for shown, sha256 in files.items():
        name = f"{base}/{sha256[:2]}/{sha256}/{shown.lstrip('/').replace('..', '__')}"
        link = Path(name)
        if not os.path.islink(name):
            link.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.symlink(os.path.relpath(objects.path(sha256).resolve(), link.parent.resolve()), link)
        made[shown] = link
    return made


def remove(registry: "Registry", named: str) -> tuple[KeptSnapshot, int]:
    """Delete a snapshot's copies and leave a tombstone; gives it and the bytes that are free now.

    Raises: RefusedError while a pin or a training set holds it.
    """
    objects = objects_of(registry.profile)
    kept = find_one(registry.control().snapshots, named, "snapshot", lambda one: one.source)  # what is deleted is named itself

    def unless_held(state: ControlState) -> dict:
        find_kept(state, kept.id)
        if held := state.holders().get(kept.id):
            raise RefusedError(
                f"snapshot {kept.id[:12]} of '{kept.source}' is held by {', '.join(held[:5])}{', …' if len(held) > 5 else ''}.\n"
                "  What they were trained on could not be rebuilt without it, so it stays."
            )
        return {"id": kept.id}

    with objects.locked(to_remove=True):
        append_decided(registry.log, registry.profile.control_cache, "snapshot_removed", unless_held)
        freed = sum(objects.remove(sha256) for sha256 in unreached(registry))
    tell(registry.events, "snapshot_removed", {"source": kept.source, "id": kept.id, "bytes": freed})
    return kept, freed


def unreached(registry: "Registry") -> list[str]:
    """Objects that neither a snapshot nor a training set names.  Call it under the store's lock: what is being put is named later."""
    objects, state = objects_of(registry.profile), registry.control()
    reached: set[str] = set()
    for kept in state.snapshots.values():
        if kept.removed_at is None:
            reached.add(kept.document)
            reached |= {file.sha256 for file in _document(objects, kept).files}
    for made in state.kept_training_sets:
        reached |= {*made.manifests, *made.objects}
    return sorted(set(objects.all()) - reached)


def described(snapshot: Snapshot, scheme: Scheme | None, at: int) -> dict[str, Any]:
    """A snapshot for JSON."""
    return {
        "id": snapshot.id, "source": snapshot.source, "taken_at": format_instant(at), "manifest_id": snapshot.manifest_id,
        "schema_id": snapshot.schema_id, "content_id": snapshot.content_id, "numbers": snapshot.numbers.listed(),
        "rows": snapshot.numbers.count, "files": len(snapshot.files), "bytes": sum(file.bytes for file in snapshot.files),
        "columns": snapshot.shape, "pin": snapshot.pin,
        "partitions": [
            {
                "name": one.name, "rows": one.numbers.count, "numbers": one.numbers.listed(),
                "content_id": content_id_of(snapshot.shape, one.numbers), "first": _shown(one.first), "last": _shown(one.last),
                "files": [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in one.files],
            }
            for one in snapshot.parts(scheme)
        ],
        "log": None if (log := snapshot.log) is None else {"segment": log.segment, "end": log.end, "records": log.records},
    }  # fmt: skip


def _shown(instant: int | None) -> str | None:
    return None if instant is None else format_instant(instant)
