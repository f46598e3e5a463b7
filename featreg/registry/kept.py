"""What the log says of kept data: snapshots, the training sets that hold them, and the removal of both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from featreg.errors import UsageError
from featreg.registry.log import Record


@dataclass(frozen=True)
class KeptSnapshot:
    """A snapshot as it was recorded.

    document: the object that lists its files · at: when it was taken, and removed_at: when it was deleted, UTC microseconds ·
    pin: the version of a table, where its files were not copied.
    """

    id: str
    source: str
    manifest_id: str
    schema_id: str
    content_id: str
    numbers: tuple[int, ...]
    files: int
    bytes: int
    first: int | None
    last: int | None
    document: str
    at: int
    by: str
    removed_at: int | None = None
    removed_by: str | None = None
    pin: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class KeptTrainingSet:
    """A training set that was written.

    generation: of the apply whose definitions it was made with, 0 for a revision · sources: name -> snapshot (id or None),
    manifest_id of the files that were read, and the stretch of event times that it needs · manifests: the objects with all of it, one
    for each time that it was written, the newest last · removed_at: when it was removed; what is held here is gone then.
    """

    id: str
    set: str
    generation: int
    pin: str | None
    rows: int
    content_id: str
    sources: Mapping[str, Mapping[str, Any]]
    manifests: tuple[str, ...]
    objects: tuple[str, ...]
    path: str
    file_sha256: str
    at: int
    by: str
    removed_at: int | None = None
    removed_by: str | None = None

    def needed(self, by_files: Mapping[tuple[str, str], str]) -> dict[str, str]:
        """By source, the snapshot that it is made again from: the one that it read, or one that was taken since of the very files.

        by_files: (source, manifest_id) -> the snapshots that there are.
        """
        found = {}
        for name, read in self.sources.items():
            snapshot = read["snapshot"] or (None if read["given"] else by_files.get((name, read["manifest_id"])))
            if snapshot is not None:
                found[name] = snapshot
        return found


_Kept = TypeVar("_Kept", KeptSnapshot, KeptTrainingSet)


def find_one(kept: Mapping[str, _Kept], named: str, what: str, called: Callable[[_Kept], str]) -> _Kept:
    """By its id, or at least 6 digits of its beginning.  called: what an error says of one beside its id.

    Raises: UsageError for none or several.
    """
    found = [one for one in kept.values() if one.id == named or (len(named) >= 6 and one.id.startswith(named))]
    if len(found) != 1:
        listed = ", ".join(f"{one.id[:12]} ({called(one)})" for one in found or list(kept.values())[-10:])
        raise UsageError(f"{'no' if not found else 'more than one'} {what} is called '{named}'.\n  There are: {listed or 'none'}.")
    return found[0]


def keep(snapshots: dict[str, KeptSnapshot], training_sets: dict[str, KeptTrainingSet], record: Record) -> None:
    """Fold one record in; the newest of a kind comes last."""
    body = record.body
    match record.kind:
        case "snapshot":
            snapshots.pop(body["id"], None)
            snapshots[body["id"]] = read_snapshot({**body, "at": record.at, "by": record.by})
        case "snapshot_removed":
            snapshots[body["id"]] = replace(snapshots[body["id"]], removed_at=record.at, removed_by=record.by)
        case "training_set":
            before = training_sets.pop(body["id"], None)
            manifests = (*(before.manifests if before and before.removed_at is None else ()), *body["manifests"])
            training_sets[body["id"]] = read_training_set({**body, "manifests": manifests, "at": record.at, "by": record.by})
        case "training_set_removed":
            training_sets[body["id"]] = replace(training_sets[body["id"]], removed_at=record.at, removed_by=record.by)


def read_snapshot(document: Mapping[str, Any]) -> KeptSnapshot:
    return KeptSnapshot(**{**document, "numbers": tuple(document["numbers"])})


def read_training_set(document: Mapping[str, Any]) -> KeptTrainingSet:
    return KeptTrainingSet(**{**document, "objects": tuple(document["objects"]), "manifests": tuple(document["manifests"])})
