"""Make a training set again from what the log holds of it, and compare: the same rows, or what is different and why."""

import io
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from featreg.canonical import file_id
from featreg.compile import CompiledSet, compile_definitions
from featreg.errors import CoverageError, DataError, DefinitionError, FeatregError, RefusedError
from featreg.instants import format_instant, parse_instant
from featreg.load import load_files
from featreg.registry.decided import append_decided
from featreg.registry.kept import KeptTrainingSet, find_one
from featreg.registry.pushed import START, Position
from featreg.registry.state import ControlState
from featreg.session.coverage import told
from featreg.session.manifest import library_versions, spine_fingerprint
from featreg.session.output import write_training_set
from featreg.session.pushed_part import pushed_verdicts
from featreg.session.receipts import tell
from featreg.session.snapshots import objects_of, unreached
from featreg.session.source_files import files_at, location_of, stat_of
from featreg.session.training import Asked, make_training_set
from featreg.session.training_set import TrainingSet
from featreg.snapshots.coverage import Coverage, Kind, Verdict
from featreg.snapshots.manifest import manifest_id

if TYPE_CHECKING:
    from featreg.session.registry import Applied, Registry


@dataclass(frozen=True)
class Difference:
    """Something that is not as it was.  kind: data, definition, engine or library."""

    kind: str
    what: str


@dataclass(frozen=True)
class Reproduced:
    """A training set made again.

    identical: the same rows, as content ids say · same_bytes: the written file too, None where Spark wrote one of them, which cuts rows
    into files in its own way ·
    differences: what could explain other rows; where the rows are the same they made none · columns: how many cells of a column
    differ, where the file that was written is still there.
    """

    kept: KeptTrainingSet
    rows: int
    manifest: Mapping[str, Any]
    content_id: str
    identical: bool
    same_bytes: bool | None
    differences: tuple[Difference, ...]
    columns: Mapping[str, int]


def find_training_set(state: ControlState, named: str) -> KeptTrainingSet:
    """By its id, or at least 6 digits of its beginning.  Raises: UsageError for none or several; DataError for one that was removed."""
    found = find_one(state.training_sets, named, "training set", lambda one: one.set)
    if found.removed_at is not None:
        raise DataError(
            f"training set {found.id[:12]} of '{found.set}' was removed at {format_instant(found.removed_at)} by {found.removed_by}: its "
            f"spine and its manifest are gone; it had {found.rows:,} rows, content {found.content_id[:12]}.\n"
            "  Make it from the same spine again, and it has the same id."
        )
    return found


def remove_training_set(registry: "Registry", named: str) -> tuple[KeptTrainingSet, int]:
    """Let go of what a training set holds and leave a tombstone; the file that was written stays.  Gives it and the bytes that are free.

    Raises: UsageError; DataError when it was removed before; RefusedError while a pin was trained on it.
    """
    objects = objects_of(registry.profile)
    kept = find_training_set(registry.control(), named)

    def unless_pinned(state: ControlState) -> dict:
        now = find_training_set(state, kept.id)
        if pins := state.trained_on(now):
            raise RefusedError(
                f"training set {now.id[:12]} of '{now.set}' is what {', '.join(pins)} was trained on.\n"
                f"  It could not be made again, so it stays. Where that model is gone: featreg pin rm {pins[0]}"
            )
        return {"id": now.id}

    with objects.locked(to_remove=True):
        append_decided(registry.log, registry.profile.control_cache, "training_set_removed", unless_pinned)
        freed = sum(objects.remove(sha256) for sha256 in unreached(registry))
    tell(registry.events, "training_set_removed", {"set": kept.set, "id": kept.id, "bytes": freed})
    return kept, freed


def read_manifest(registry: "Registry", kept: KeptTrainingSet) -> dict[str, Any]:
    return json.loads(objects_of(registry.profile).read(kept.manifests[-1]))


def reproduce(registry: "Registry", named: str, live: bool = False, out: Path | None = None) -> Reproduced:
    """Make it again from the recorded definitions, spine and snapshots.

    live: from the sources' locations as they are now, compared with their newest snapshots before anything is scanned.
    Raises: UsageError; CoverageError, which says what of the data is gone or changed.
    """
    kept = find_training_set(registry.control(), named)
    manifest = read_manifest(registry, kept)
    used, feature_set = definitions_of(registry, kept)
    spine = _spine(registry, kept, manifest)
    snapshots = None if live else _snapshots(registry, kept, manifest)
    asked = manifest["asked"]
    pushed = dict.fromkeys(kept.sources, START) | _pushed(registry, used, manifest)  # what came since is left out
    batched = {lookup.view: manifest["batched"].get(lookup.view) for lookup in feature_set.lookups}
    known = None if asked["known_at"] is None else parse_instant(asked["known_at"])
    again = Asked(spine, asked["time"], False, {}, None, known, snapshots or None, pushed, batched, checked=not live)
    made = make_training_set(registry, used, feature_set, again)
    if out is not None and not isinstance(made, TrainingSet):
        made.write_again(out)
    content = made.manifest["content_id"]
    identical = content == kept.content_id
    differences = tuple(_differences(manifest, made.manifest, feature_set))
    if not isinstance(made, TrainingSet):
        return Reproduced(kept, len(made), made.manifest, content, identical, None, differences, {})
    table, path = made.to_arrow(), Path(kept.path)
    written = _written(table, made.manifest, path.suffix, out)
    same_bytes = written == kept.file_sha256 if kept.file_sha256 and manifest["engine"] == "duckdb" else None
    columns = {} if identical else _cells(table, path, kept.file_sha256)
    return Reproduced(kept, len(made), made.manifest, content, identical, same_bytes, differences, columns)


def definitions_of(registry: "Registry", kept: KeptTrainingSet) -> "tuple[Applied, CompiledSet]":
    """The definitions as the log holds them, compiled by the featreg that is here."""
    from featreg.session.registry import Applied

    if kept.generation:
        used = registry.applied_at(kept.generation)
    else:
        files = json.loads(objects_of(registry.profile).read(kept.objects[1]))
        try:
            used = Applied(compile_definitions(load_files({path: text.encode() for path, text in files.items()})), {}, 0)
        except DefinitionError as error:
            raise DataError(f"the definitions of {kept.id[:12]} do not compile with this featreg: {error}") from None
    return used, used.compiled.sets[kept.set]


def _spine(registry: "Registry", kept: KeptTrainingSet, manifest: Mapping[str, Any]) -> pa.Table:
    spine = pq.ParquetFile(io.BytesIO(objects_of(registry.profile).read(kept.objects[0]))).read()
    if spine_fingerprint(spine) != manifest["spine"]["sha256"]:
        now, then = library_versions()["pyarrow"], manifest["versions"]["pyarrow"]
        told = f"the spine of {kept.id[:12]} does not come back as it was written: pyarrow {now} reads it otherwise than {then}."
        raise DataError(f"{told}\n  Install that one.")
    return spine


def _snapshots(registry: "Registry", kept: KeptTrainingSet, manifest: Mapping[str, Any]) -> dict[str, str]:
    """The snapshot of each source: the one that was read, or one of the very files, or none for a location that still has them.

    Raises: CoverageError for a source of which neither is there.
    """
    chosen = kept.needed(registry.control().by_files())
    gone: list[Verdict] = []
    for name, source in kept.sources.items():
        listed = manifest["sources"].get(name, [])
        if source["given"]:
            gone.append(_handed_in(name))
        elif listed and name not in chosen:
            gone += _changed_files(registry, name, listed, source["manifest_id"])
    if gone:
        raise CoverageError(told(registry, Coverage(tuple(gone))))
    return chosen


def _pushed(registry: "Registry", used: "Applied", manifest: Mapping[str, Any]) -> dict[str, Position]:
    """Up to where push logs were read.  Raises: CoverageError when one has not what it had."""
    sources, gone = used.compiled.sources, list[Verdict]()
    for name, then in manifest["pushed"].items():
        if "content_id" in then:
            gone += pushed_verdicts(registry.engine, registry.profile, sources[name], then)
    if gone:
        raise CoverageError(told(registry, Coverage(tuple(gone))))
    return {name: Position(then["segment"], then["end"]) for name, then in manifest["pushed"].items()}


def _handed_in(name: str) -> Verdict:
    return Verdict(
        Kind.SNAPSHOT_GONE, name, "all", "the rows that were handed in as sources=", "nothing: they were in no file",
        "Write such rows to a file and name it in a profile, so that they can be kept.",
    )  # fmt: skip


def _changed_files(registry: "Registry", name: str, listed: list[dict[str, Any]], wanted: str) -> list[Verdict]:
    """Files that were read and are not there any more as they were; none when all are."""
    location = location_of(registry.profile, name)
    files = files_at(location, registry.profile.root)
    now = {shown: (stat_of(file)[0], file_id(file)) for shown, file in files.items()}
    if manifest_id((shown, size, sha256) for shown, (size, sha256) in now.items()) == wanted:
        return []
    remedy = f"Put it back. To keep what is read next time: featreg snapshot take {name}, before the training set is made."
    found = []
    for one in listed:
        expected = f"{one['bytes']:,} bytes, sha256 {one['sha256'][:12]}"
        if one["path"] not in now:
            found.append(Verdict(Kind.PARTITION_MISSING, name, one["path"], expected, "no file there, and no snapshot of it", remedy))
        elif now[one["path"]][1] != one["sha256"]:
            size, sha256 = now[one["path"]]
            told = f"{size:,} bytes, sha256 {sha256[:12]}; no snapshot says which rows it had"
            found.append(Verdict(Kind.CONTENT_DRIFT, name, one["path"], expected, told, remedy))
    before = {one["path"] for one in listed}
    for shown in sorted(now.keys() - before):
        found.append(Verdict(Kind.CONTENT_DRIFT, name, shown, "no such file", f"{now[shown][0]:,} bytes that were not there", remedy))
    return found


def _written(table: pa.Table, manifest: Mapping[str, Any], suffix: str, out: Path | None) -> str:
    """The SHA-256 of the file, as it would be written now; none of what is no file."""
    if out is not None:
        write_training_set(table, manifest, out)
        if out.suffix == suffix:
            return file_id(out)
    if suffix not in (".parquet", ".csv"):
        return ""
    with tempfile.TemporaryDirectory() as folder:
        return file_id(write_training_set(table, {}, Path(folder, f"again{suffix}")))


def _differences(manifest: Mapping[str, Any], now: Mapping[str, Any], feature_set: CompiledSet) -> Iterable[Difference]:
    for name, identity in manifest["features"].items():
        if (found := dict(feature_set.ids).get(name)) != identity:
            yield Difference("definition", f"{name} means something else to this featreg: {identity[:12]} → {str(found)[:12]}")
    for name, files in manifest["sources"].items():
        if _named(now["sources"].get(name, [])) != _named(files):
            yield Difference("data", f"{name} was read from other files than then")
    for was, is_ in zip(manifest["views"], now["views"]):
        if (was["events"], was["rejected"]) != (is_["events"], is_["rejected"]):
            yield Difference("data", f"{was['view']} saw {is_['events']:,} events and not {was['events']:,}, "
                                     f"rejected {is_['rejected']:,} and not {was['rejected']:,}")  # fmt: skip
    if manifest["engine"] != now["engine"]:
        yield Difference("engine", f"{manifest['engine']} → {now['engine']}")
    for name, version in manifest["versions"].items():
        if now["versions"].get(name, version) != version:  # an engine's own library is of that engine alone
            yield Difference("library", f"{name} {version} → {now['versions'][name]}")


def _named(files: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(one["path"], one["sha256"]) for one in files}


def _cells(table: pa.Table, path: Path, wanted: str) -> dict[str, int]:
    """How many cells of each column are not as in the file that was written; nothing when that is not there any more."""
    try:
        if path.suffix != ".parquet" or file_id(path) != wanted:
            return {}
        before = pq.ParquetFile(path).read()
    except (OSError, FeatregError):
        return {}
    if before.num_rows != table.num_rows:
        return {}
    counts = {}
    for name in table.column_names:
        if name in before.column_names:
            pairs = zip(before[name].to_pylist(), table[name].to_pylist())
            differing = sum(repr(was) != repr(now) for was, now in pairs)
            if differing:
                counts[name] = differing
    return counts
