"""Write a training set and hold what made it: it is named by what it contains, and the log holds the snapshots that it read."""

import io
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from featreg.canonical import content_id, file_id
from featreg.engines.duckdb import DuckDB
from featreg.errors import DataError
from featreg.registry.decided import append_decided
from featreg.registry.events import EventPlane
from featreg.registry.log import ControlLog
from featreg.registry.state import ControlState
from featreg.session.output import manifest_path, write_training_set
from featreg.session.receipts import tell_written
from featreg.session.snapshots import SnapshotRemovedError, objects_of
from featreg.snapshots.families import duckdb_columns, shape_text
from featreg.snapshots.manifest import manifest_id
from featreg.snapshots.numbers import Numbers, content_id_of, read_numbers
from featreg.snapshots.row_sql import duckdb_numbers

if TYPE_CHECKING:
    from featreg.session.profile import Profile

FORM = 1


@dataclass(frozen=True)
class Fingerprint:
    """A table's content id and what it is made of.  left_out: columns of the spine of types that have no form."""

    content_id: str
    shape: str
    numbers: Numbers
    left_out: tuple[str, ...]


def fingerprint(engine: DuckDB, table: pa.Table, features: int) -> Fingerprint:
    """The content id of a training set: all of it, or, where the spine has a type without a form, the features alone.

    features: how many of the last columns are features.  Order of rows is not in it.
    """
    left_out: tuple[str, ...] = ()
    try:
        shape, numbers = _fingerprint(engine, table)
    except DataError:
        left_out = tuple(table.column_names[: table.num_columns - features])
        shape, numbers = _fingerprint(engine, table.drop_columns(list(left_out)))
    return Fingerprint(content_id_of(shape, numbers), shape, numbers, left_out)


def _fingerprint(engine: DuckDB, table: pa.Table) -> tuple[str, Numbers]:
    relation = engine.register("featreg_made", table)
    try:
        columns = duckdb_columns(relation.columns, "the training set")
        return shape_text(columns), read_numbers(engine.rows(duckdb_numbers(columns, relation.text))[0])
    finally:
        engine.unregister("featreg_made")


@dataclass(frozen=True)
class Keeper:
    """Writes a training set and records it.

    generation: of the apply that it was made with; 0 for a revision, whose spec files are then kept beside it.
    """

    profile: "Profile"
    log: ControlLog
    events: EventPlane
    spine: pa.Table = field(repr=False)
    generation: int = 0
    files: Mapping[str, str] = field(default_factory=dict)

    def named(self, table: pa.Table, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest with the content id of the rows, and the training set's own id."""
        engine = DuckDB(self.profile.duckdb, self.profile.state / "tmp")
        try:
            found = fingerprint(engine, table, len(facts["features"]))
        finally:
            engine.close()
        whole = {
            **facts, "content_id": found.content_id, "numbers": found.numbers.listed(), "columns": found.shape,
            "left_out": list(found.left_out),
        }  # fmt: skip
        return {**whole, "id": training_set_id(whole)}

    def write(self, table: pa.Table, whole: Mapping[str, Any], path: Path) -> Path:
        """The file, its manifest, the spine and the record that holds the snapshots.

        Raises: DataError when the file cannot be written, or a snapshot that was read has been removed meanwhile.
        """
        began = time.perf_counter()
        written = write_training_set(table, whole, path)
        objects = objects_of(self.profile)
        with objects.locked():
            kept = [objects.put_bytes(_as_parquet(self.spine))]
            if self.files:
                kept.append(objects.put_bytes(json.dumps(self.files, sort_keys=True).encode()))
            manifest_object = objects.put_bytes(manifest_path(path).read_bytes())
            self._record(whole, kept, manifest_object, written)
        tell_written(self.events, whole, written, time.perf_counter() - began)
        return written

    def _record(self, manifest: Mapping[str, Any], kept: list[str], manifest_object: str, path: Path) -> None:
        body = {
            "id": manifest["id"], "set": manifest["set"], "generation": self.generation, "pin": manifest["asked"]["pin"],
            "rows": manifest["rows"], "content_id": manifest["content_id"], "sources": _sources(manifest), "manifests": [manifest_object],
            "objects": kept, "path": str(path.resolve()), "file_sha256": file_id(path),
        }  # fmt: skip

        def unless_removed(state: ControlState) -> dict:
            for identity in manifest["snapshots"].values():
                if state.snapshots[identity].removed_at is not None:
                    raise SnapshotRemovedError(state.snapshots[identity])
            return body

        overtaken = "other processes write to the log all the time; the file is written, and is in no list.\n  Write it again."
        append_decided(self.log, self.profile.control_cache, "training_set", unless_removed, overtaken)


def training_set_id(manifest: Mapping[str, Any]) -> str:
    """What went in and what came out: definitions, spine, data, and the rows."""
    sources = {name: one["manifest_id"] for name, one in _sources(manifest).items()}
    asked = {name: manifest["asked"][name] for name in ("time", "known_at")}
    named = {"set": manifest["set"], "features": manifest["features"], "spine": manifest["spine"]["sha256"], "sources": sources}
    return content_id({"form": FORM, **named, "asked": asked, "content": manifest["content_id"]})


def _sources(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each source: the snapshot, what its files were, and the stretch of event times that was needed."""
    names = sorted({*manifest["sources"], *manifest["given"], *manifest["pushed"]})
    return {
        name: {
            "snapshot": manifest["snapshots"].get(name),
            "manifest_id": manifest_id((one["path"], one["bytes"], one["sha256"]) for one in manifest["sources"].get(name, ())),
            "needs": manifest["needs"].get(name), "given": name in manifest["given"], "pushed": manifest["pushed"].get(name),
        }
        for name in names
    }  # fmt: skip


def _as_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
