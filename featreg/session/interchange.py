"""Tell other tools what a snapshot or a training set is: Croissant for data, OpenLineage for what it came of."""

import json
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featreg.canonical import file_id
from featreg.errors import DataError
from featreg.instants import format_instant
from featreg.registry.kept import KeptTrainingSet
from featreg.session.keeping import formed
from featreg.session.reproduce import find_training_set, read_manifest
from featreg.session.snapshots import place_of, read_snapshot
from featreg.snapshots.families import Column, duckdb_columns
from featreg.snapshots.manifest import Snapshot

if TYPE_CHECKING:
    from featreg.session.registry import Registry

PRODUCER = "urn:featreg"
NAMESPACE = "featreg"
_CROISSANT = "http://mlcommons.org/croissant/1.0"
_TYPES = {
    "integer": "sc:Integer", "double": "sc:Float", "bool": "sc:Boolean", "string": "sc:Text", "date": "sc:Date",
    "timestamp": "sc:DateTime", "decimal": "sc:Float", "list": "sc:Text", "map": "sc:Text",
}  # fmt: skip
_CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/", "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/", "dct": "http://purl.org/dc/terms/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract",
    "field": "cr:field", "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject", "fileSet": "cr:fileSet", "format": "cr:format",
    "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5",
    "parentField": "cr:parentField", "path": "cr:path", "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex",
    "repeated": "cr:repeated", "replace": "cr:replace", "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField",
    "transform": "cr:transform",
}  # fmt: skip


@dataclass(frozen=True)
class _Shown:
    """A file that a data set is told of with: what it is called, where it is, and its columns."""

    path: str
    place: Path
    bytes: int
    sha256: str
    columns: tuple[Column, ...]


def croissant(registry: "Registry", named: str) -> dict[str, Any]:
    """A snapshot or a training set as Croissant JSON-LD: its files with their hashes, and for each a record set of its columns.

    named: an id or its first digits, or a source, whose newest snapshot it is.
    Raises: UsageError; DataError for a training set whose file is gone or was written to.
    """
    state = registry.control()
    if any(identity.startswith(named) for identity in state.training_sets):
        made = find_training_set(state, named)
        about = f"Training set {made.id} of {made.set}: {made.rows} rows, content {made.content_id}"
        return _dataset(made.set, about, made.at, _written(registry, made))
    kept, snapshot = read_snapshot(registry, named)
    pushed = "" if snapshot.log is None else f" ({snapshot.log.numbers.count} of them in the source's push log, in no file)"
    about = f"Snapshot {kept.id} of {snapshot.source}: {snapshot.numbers.count} rows{pushed}, content {snapshot.content_id}"
    return _dataset(snapshot.source, about, kept.at, _kept(registry, snapshot))


def _kept(registry: "Registry", snapshot: Snapshot) -> Iterator[_Shown]:
    in_paths = dict(snapshot.reading.get("options", {})).get("hive_partitioning", True)
    for file in snapshot.files:
        form = [(column, kind) for column, kind in snapshot.forms[file.form] if not in_paths or f"{column}=" not in file.path]
        yield _Shown(file.path, place_of(registry.profile, snapshot, file), file.bytes, file.sha256, duckdb_columns(form, file.path))


def _written(registry: "Registry", made: KeptTrainingSet) -> Iterator[_Shown]:
    """Its file as it was written, or its part files as they are now."""
    path = Path(made.path)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path] if path.is_file() else []
    if not files or (made.file_sha256 and file_id(path) != made.file_sha256):
        found = "was written to since" if files else "is not there"
        raise DataError(f"{path} {found}.\n  Write it again: featreg reproduce {made.id[:12]} --out {path}")
    features = len(read_manifest(registry, made)["features"])
    for file in files:
        columns, _ = formed(registry.engine.location(made.set, str(file), registry.root).columns, features)
        yield _Shown(file.name, file, file.stat().st_size, file_id(file), columns)


def _dataset(name: str, about: str, at: int, files: Iterable[_Shown]) -> dict[str, Any]:
    distribution, records = [], []
    for number, file in enumerate(files):
        object_id, rows_id = f"file-{number}", f"rows-{number}"
        distribution.append({
            "@type": "cr:FileObject", "@id": object_id, "name": object_id, "description": file.path, "contentUrl": str(file.place),
            "contentSize": f"{file.bytes} B", "encodingFormat": _format(file.path), "sha256": file.sha256,
        })  # fmt: skip
        fields = [
            {
                "@type": "cr:Field", "@id": f"{rows_id}/{column.name}", "name": f"{rows_id}/{column.name}",
                "description": column.family.type, "dataType": _TYPES[column.family.name],
                "source": {"fileObject": {"@id": object_id}, "extract": {"column": column.name}},
            }
            for column in file.columns
        ]  # fmt: skip
        records.append({
            "@type": "cr:RecordSet", "@id": rows_id, "name": rows_id, "description": f"The rows of {file.path}", "field": fields,
        })  # fmt: skip
    return {
        "@context": _CONTEXT, "@type": "sc:Dataset", "conformsTo": _CROISSANT, "name": name, "description": about,
        "version": "1.0.0", "datePublished": format_instant(at)[:10], "distribution": distribution, "recordSet": records,
    }  # fmt: skip


def _format(path: str) -> str:
    names = {".parquet": "application/x-parquet", ".pq": "application/x-parquet", ".csv": "text/csv", ".json": "application/json"}
    return names.get(Path(path).suffix, "application/octet-stream")


def open_lineage(registry: "Registry", named: str) -> dict[str, Any]:
    """The run that wrote a training set, as an OpenLineage event: its sources at their versions in, its columns out."""
    kept = find_training_set(registry.control(), named)
    manifest = read_manifest(registry, kept)
    inputs = [
        {
            "namespace": NAMESPACE, "name": name,
            "facets": {"version": _facet("1-0-1/DatasetVersionDatasetFacet", datasetVersion=one["snapshot"] or one["manifest_id"])},
        }
        for name, one in kept.sources.items()
    ]  # fmt: skip
    output = {
        "namespace": "file", "name": kept.path,
        "facets": {
            "version": _facet("1-0-1/DatasetVersionDatasetFacet", datasetVersion=kept.content_id),
            "schema": _facet("1-2-0/SchemaDatasetFacet", fields=_fields(manifest)),
            "columnLineage": _facet("1-2-0/ColumnLineageDatasetFacet", fields=_column_lineage(registry, kept)),
        },
    }  # fmt: skip
    return {
        "eventType": "COMPLETE", "eventTime": format_instant(kept.at), "producer": PRODUCER,
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": str(uuid.UUID(bytes=bytes.fromhex(kept.id)[:16], version=4)), "facets": {}},
        "job": {"namespace": NAMESPACE, "name": f"training_set.{kept.set}", "facets": {}}, "inputs": inputs, "outputs": [output],
    }  # fmt: skip


def send(event: dict[str, Any], url: str) -> None:
    """To an OpenLineage endpoint.  Raises: DataError when it does not take the event."""
    request = urllib.request.Request(
        f"{url.rstrip('/')}/api/v1/lineage", json.dumps(event).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30):
            pass
    except OSError as error:
        raise DataError(f"{url} did not take the event: {error}.") from error


def _facet(schema: str, **values: Any) -> dict[str, Any]:
    name = schema.rsplit("/", 1)[1]
    return {"_producer": PRODUCER, "_schemaURL": f"https://openlineage.io/spec/facets/{schema}.json#/$defs/{name}", **values}


def _fields(manifest: dict[str, Any]) -> list[dict[str, str]]:
    return [{"name": name, "type": family} for name, family in (one.rsplit(":", 1) for one in manifest["columns"].split(","))]


def _column_lineage(registry: "Registry", kept: KeptTrainingSet) -> dict[str, Any]:
    """Feature -> the columns of the source that it comes of."""
    from featreg.session.reproduce import definitions_of

    used, feature_set = definitions_of(registry, kept)
    found = {}
    for lookup in feature_set.lookups:
        view = used.compiled.views[lookup.view]
        for feature, called in lookup.features:
            columns: set[str] = set()
            for name in view.closure((feature,)):
                one = view.by_name[name]
                for typed in (one.column, one.by, one.where):
                    columns |= set(typed.columns) if typed is not None else set()
            columns |= {column for column, _ in view.scan.keys} | {view.scan.source.event_time}
            inputs = [{"namespace": NAMESPACE, "name": view.scan.source.name, "field": column} for column in sorted(columns)]
            found[called] = {"inputFields": inputs}
    return found
