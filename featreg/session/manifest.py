"""Say what made a training set: definitions, revision, data and versions."""

from collections.abc import Iterable, Mapping, Sequence, Sized
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from featreg.canonical import bytes_id, canonical_json
from featreg.compile import CompiledSet
from featreg.session.file_ids import FileIds
from featreg.snapshots.manifest import Snapshot

FORM = 1
SPINE_PART = 1 << 17  # rows; executors work out the fingerprint of a spine by such parts
_LIBRARIES = ("featreg", "duckdb", "numba", "numpy", "pyarrow", "sqlglot")


def training_manifest(
    compiled: CompiledSet,
    revision: dict[str, Any],
    files: dict[str, list[str]],
    root: Path,
    spine: pa.Table | None,
    table: Sized,
    receipts: Iterable[Any],
    asked: dict[str, Any],
    snapshots: Mapping[str, Snapshot] | None = None,
    engine: str = "duckdb",
    ids: FileIds | None = None,
) -> dict[str, Any]:
    """All of it but what the rows of the result have to be read for.

    Hashing reads every source file once, but for those of snapshots, whose bytes are known.  ids: of files, as far as they are begun.

    spine: None when Spark's executors read it, and it has no fingerprint then.
    snapshots: by source, those that were read, and those that the files were found equal to.
    """
    known, ids = dict(snapshots or {}), ids or FileIds()
    files = {source: listed for source, listed in files.items() if source not in known}
    return {
        "form": FORM,
        "set": compiled.name,
        "features": dict(compiled.ids),
        "revision": revision,
        "sources": {source: [_file(Path(file), root, ids) for file in listed] for source, listed in files.items()}
        | {
            source: [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in one.files]
            for source, one in known.items()
        },
        "snapshots": {source: one.id for source, one in known.items()},
        "spine": {"rows": len(table), "sha256": None if spine is None else spine_fingerprint(spine)},
        "rows": len(table),
        "asked": asked,
        "views": [
            {
                "view": one.view,
                "events": one.events,
                "rejected": one.rejected,
                "examples": list(one.examples),
                "seconds": round(one.seconds, 3),
            }
            for one in receipts
        ],
        "engine": engine,
        "versions": library_versions() | ({"pyspark": _version("pyspark")} if engine == "spark" else {}),
    }


def library_versions() -> dict[str, str]:
    """What could move a value: featreg, which compiles, and the libraries that compute."""
    return {name: _version(name) for name in _LIBRARIES}


def spine_fingerprint(spine: pa.Table) -> str:
    """What a spine is: its columns, types and rows in order.  A part of it is in memory twice."""
    starts = range(0, max(spine.num_rows, 1), SPINE_PART)
    return fingerprint_of_parts([part_fingerprint(spine.slice(start, SPINE_PART)) for start in starts])


def part_fingerprint(rows: pa.Table) -> str:
    """SHA-256 of rows as an Arrow stream of one batch; a column with NULLs or lists in it has a stream for each of its parts.

    For what lies under a NULL, and what the items of a list are called, is no part of a value and is not kept by every file.
    """
    columns = [_values(column.combine_chunks()) for column in rows.columns]
    if all(len(values) == 1 for values in columns):
        return bytes_id(_stream(rows.replace_schema_metadata(None).combine_chunks()))
    named = [(name, [bytes_id(_stream(pa.table({"": one}))) for one in values]) for name, values in zip(rows.column_names, columns)]
    return bytes_id(canonical_json(named))


def _values(array: pa.Array) -> list[pa.Array]:
    """Which values are there, how long lists are, and the values themselves, one after the other."""
    if array.null_count:
        return [array.is_valid(), *_values(array.drop_null())]
    if pa.types.is_struct(array.type):
        return [pa.array([len(array)]), *(one for field in array.flatten() for one in _values(field))]
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return [pc.list_value_length(array), *_values(array.flatten())]
    return [array]


def _stream(rows: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return memoryview(sink.getvalue())


def fingerprint_of_parts(parts: Sequence[str]) -> str:
    """parts: fingerprints of so many rows each as a part has, in the spine's order.  Of one it is the whole's."""
    return parts[0] if len(parts) == 1 else bytes_id("".join(parts).encode())


def _file(path: Path, root: Path, ids: FileIds) -> dict[str, Any]:
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    return {"path": name, "bytes": path.stat().st_size, "sha256": ids.of(path)}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
