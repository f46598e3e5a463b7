"""Write a training set and hold what made it: it is named by what it contains, and the log holds the snapshots that it read."""

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from featreg.canonical import content_id, file_id
from featreg.engines.duckdb import DuckDB
from featreg.errors import DataError
from featreg.plan.relation import quote
from featreg.registry.decided import append_decided
from featreg.registry.events import EventPlane
from featreg.registry.log import ControlLog
from featreg.registry.state import ControlState
from featreg.session.output import manifest_text, write_training_set
from featreg.session.receipts import tell_written
from featreg.session.snapshots import SnapshotRemovedError, objects_of
from featreg.snapshots.families import Column, duckdb_columns, shape_text
from featreg.snapshots.manifest import manifest_id
from featreg.snapshots.numbers import Numbers, content_id_of, read_numbers
from featreg.snapshots.objects import ObjectStore
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
    relation = engine.register("featreg_made", table)
    try:
        columns, left_out = formed(relation.columns, features)
        return fingerprint_of(columns, left_out, read_numbers(engine.rows(numbers_sql(columns, relation.text))[0]))
    finally:
        engine.unregister("featreg_made")


def formed(columns: Sequence[tuple[str, str]], features: int) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """The columns of a training set that are in its content id, and those that are left out.  features: how many of the last are."""
    try:
        return duckdb_columns(columns, "the training set"), ()
    except DataError:
        of_spine = len(columns) - features
        return duckdb_columns(columns[of_spine:], "the training set"), tuple(name for name, _ in columns[:of_spine])


def numbers_sql(columns: Sequence[Column], relation: str) -> str:
    """A DuckDB query for the nine numbers of these columns of a relation."""
    return duckdb_numbers(columns, f"(SELECT {', '.join(quote(column.name) for column in columns)} FROM {relation})")


def fingerprint_of(columns: Sequence[Column], left_out: tuple[str, ...], numbers: Numbers) -> Fingerprint:
    shape = shape_text(columns)
    return Fingerprint(content_id_of(shape, numbers), shape, numbers, left_out)


@dataclass(frozen=True)
class Keeper:
    """Writes a training set and records it.

    generation: of the apply that it was made with; 0 for a revision, whose spec files are then kept beside it.
    """

    profile: "Profile"
    log: ControlLog
    events: EventPlane
    generation: int = 0
    files: Mapping[str, str] = field(default_factory=dict)

    def named(self, table: pa.Table, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest with the content id of the rows, and the training set's own id."""
        engine = DuckDB(self.profile.duckdb, self.profile.state / "tmp")
        try:
            return named(facts, fingerprint(engine, table, len(facts["features"])))
        finally:
            engine.close()

    def write(self, table: pa.Table, whole: Mapping[str, Any], path: Path) -> Path:
        """The file, its manifest, the spine and the record that holds the snapshots.

        Raises: DataError when the file cannot be written, or a snapshot that was read has been removed meanwhile.
        """
        began = time.perf_counter()
        written = write_training_set(table, whole, path)
        spine = table.select(range(table.num_columns - len(whole["features"])))
        self.hold(whole, written, lambda objects: objects.put_bytes(as_parquet(spine)), time.perf_counter() - began)
        return written

    def hold(self, whole: Mapping[str, Any], written: Path | str, put_spine: Callable[[ObjectStore], str], seconds: float) -> None:
        """Keep what made a training set that is written to a file, a folder or a URI, and record it.  put_spine: keeps the spine's rows."""
        objects = objects_of(self.profile)
        with objects.locked():
            kept = [put_spine(objects)]
            if self.files:
                kept.append(objects.put_bytes(json.dumps(self.files, sort_keys=True).encode()))
            self._record(whole, kept, objects.put_bytes(manifest_text(whole).encode()), written)
        tell_written(self.events, whole, written, seconds)

    def _record(self, manifest: Mapping[str, Any], kept: list[str], manifest_object: str, written: Path | str) -> None:
        path, sha256 = (str(written), "") if isinstance(written, str) else (str(written.resolve()), _sha256(written))
        body = {
            "id": manifest["id"], "set": manifest["set"], "generation": self.generation, "pin": manifest["asked"]["pin"],
            "rows": manifest["rows"], "content_id": manifest["content_id"], "sources": _sources(manifest), "manifests": [manifest_object],
            "objects": kept, "path": path, "file_sha256": sha256,
        }  # fmt: skip

        def unless_removed(state: ControlState) -> dict:
            for identity in manifest["snapshots"].values():
                if state.snapshots[identity].removed_at is not None:
                    raise SnapshotRemovedError(state.snapshots[identity])
            return body

        overtaken = "other processes write to the log all the time; the file is written, and is in no list.\n  Write it again."
        append_decided(self.log, self.profile.control_cache, "training_set", unless_removed, overtaken)


def named(facts: Mapping[str, Any], found: Fingerprint) -> dict[str, Any]:
    """A manifest with what its rows are, and with the id that follows from all of it."""
    whole = {
        **facts, "content_id": found.content_id, "numbers": found.numbers.listed(), "columns": found.shape,
        "left_out": list(found.left_out),
    }  # fmt: skip
    return {**whole, "id": training_set_id(whole)}


def _sha256(written: Path) -> str:
    """Of a file; a folder of part files has none, for Spark writes other bytes each time."""
    return file_id(written) if written.is_file() else ""


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


def as_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
