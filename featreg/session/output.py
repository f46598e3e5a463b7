"""Write a training set and its manifest, whole or not at all."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from featreg.durable import write_whole
from featreg.errors import DataError, UsageError
from featreg.session.row_groups import write_parquet


def write_training_set(table: pa.Table, manifest: Mapping[str, Any], path: Path) -> Path:
    """Parquet or CSV by the ending; `<path>.manifest.json` beside it."""
    if path.suffix not in (".parquet", ".csv"):
        raise UsageError(f"{path}: a training set is written as .parquet or .csv.")
    if path.suffix == ".csv" and any(pa.types.is_nested(field.type) for field in table.schema):
        raise UsageError(f"{path}: a list or map has no place in CSV. Write .parquet.")
    with _whole(path, lambda: manifest) as part:
        if path.suffix == ".parquet":
            write_parquet(table, part)
        else:
            pyarrow.csv.write_csv(table, part)
    return path


def write_blocks(schema: pa.Schema, blocks: Iterator[pa.Table], manifest: Callable[[], Mapping[str, Any]], path: Path) -> Path:
    """As `write_training_set`, of rows that come block by block; one block is in memory (of CSV all are).

    manifest: asked for behind the last block.
    """
    if path.suffix == ".csv":
        whole = pa.concat_tables([schema.empty_table(), *blocks])
        return write_training_set(whole, manifest(), path)
    with _whole(path, manifest) as part, pyarrow.parquet.ParquetWriter(part, schema) as writer:
        for block in blocks:
            writer.write_table(block)
    return path


@contextmanager
def _whole(path: Path, manifest: Callable[[], Mapping[str, Any]]) -> Iterator[Path]:
    """A place beside `path` to write to, which takes its name when that is done, the manifest before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        _write_manifest(manifest(), path)
        os.replace(part, path)
    except OSError as error:
        raise DataError(f"{path} could not be written: {error.strerror}.") from error
    finally:
        part.unlink(missing_ok=True)


class Storage(Protocol):
    """What can be done at a URI, beside writing part files there."""

    def write_text(self, uri: str, text: str) -> None: ...

    def is_there(self, uri: str) -> bool: ...

    def remove_made(self, uri: str) -> None: ...


def write_parts(
    write: Callable[[str], None], manifest: Callable[[], Mapping[str, Any]], path: str, storage: Storage | None
) -> Path | str:  # fmt: skip
    """A folder of part files that `write(location)` makes elsewhere.  manifest: asked for when they are there.

    Beside its name and renamed, where the location is a local folder.  At a URI, which has a storage, in place, for object stores know
    no renaming: there `_SUCCESS` says that a folder is whole, and what a run that failed has left is taken away.
    """
    if storage is not None:
        if storage.is_there(path):
            raise UsageError(f"{path} is there already. Write to another folder, or take it away.")
        try:
            write(path)
            storage.write_text(f"{path.rstrip('/')}.manifest.json", manifest_text(manifest()))
        except BaseException:
            storage.remove_made(path)
            raise
        return path
    folder = Path(path).absolute()
    if folder.exists():
        raise UsageError(f"{path} is there already. Write to another folder, or take it away.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        write(str(part))
        _write_manifest(manifest(), folder)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _write_manifest(manifest: Mapping[str, Any], path: Path) -> None:
    write_whole(manifest_path(path), manifest_text(manifest))


def manifest_text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=2, sort_keys=True) + "\n"


def manifest_path(path: Path) -> Path:
    return path.with_name(path.name + ".manifest.json")
