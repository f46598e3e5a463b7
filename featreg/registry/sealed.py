"""Hold the events of whole segments in one Parquet file, which any tool can query; its metadata names the segments."""

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from featreg.errors import StoreError

FORM = 1
SUFFIX = ".events.parquet"
_META = b"featreg.sealed"
_BATCH = 65_536
_NAMES = ("kind", "at", "by", "body", "segment", "offset")
Row = tuple[Any, ...]  # as named above


@dataclass(frozen=True)
class Sealed:
    """A sealed file and the segments whose events it holds, in order."""

    path: Path
    segments: tuple[str, ...]


def sealed_files(folder: Path) -> list[Sealed]:
    """The sealed files of a folder.  Raises: StoreError for one of a newer form."""
    if not folder.is_dir():
        return []
    return [_opened(path) for path in sorted(folder.iterdir()) if path.name.endswith(SUFFIX)]


def write_sealed(folder: Path, day: str, segments: Sequence[str], rows: Iterable[Row]) -> Path:
    """Write rows, whole or not at all; a batch of them is in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {_META: json.dumps({"form": FORM, "segments": list(segments)})}
    schema = pa.schema(list(zip(_NAMES, (pa.string(), pa.timestamp("us", "UTC"), *(pa.string(),) * 3, pa.int64()))), about)
    path = folder / f"{day}.{secrets.token_hex(8)}{SUFFIX}"
    part = path.with_suffix(".part")
    try:
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            waiting = iter(rows)
            while batch := list(islice(waiting, _BATCH)):
                kinds, ats, bys, bodies, names, offsets = zip(*batch)
                texts = [json.dumps(body, separators=(",", ":"), ensure_ascii=False) for body in bodies]
                columns = (kinds, ats, bys, texts, names, offsets)
                writer.write_batch(pa.record_batch([pa.array(column, one.type) for column, one in zip(columns, schema)], schema=schema))
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise StoreError(f"{path} could not be written: {error.strerror}.") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def read_sealed(sealed: Sealed, kinds: tuple[str, ...], segments: Set[str]) -> Iterator[Row]:
    """Rows of these kinds and segments in order; the body is JSON text."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(sealed.path) as file:
        for batch in file.iter_batches(_BATCH):
            if kinds:
                batch = batch.filter(pc.is_in(batch["kind"], pa.array(kinds, pa.string())))
            columns = [batch[name] for name in _NAMES]
            columns[1] = columns[1].cast(pa.int64())
            rows = zip(*(column.to_pylist() for column in columns))
            yield from (row for row in rows if row[4] in segments)


def _opened(path: Path) -> Sealed:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        about = json.loads((pq.read_schema(path).metadata or {})[_META])
    except (pa.ArrowInvalid, KeyError, ValueError, OSError) as error:
        raise StoreError(f"{path} is no sealed file of featreg, or it is damaged: {error}. Take it out of that folder.") from error
    if about["form"] > FORM:
        raise StoreError(f"{path} was written by a newer featreg (form {about['form']}; this one reads up to {FORM}). Install that one.")
    return Sealed(path, tuple(about["segments"]))
