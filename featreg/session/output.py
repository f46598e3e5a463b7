"""Write a training set and its manifest, whole or not at all."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from featreg.errors import DataError, UsageError


def write_training_set(table: pa.Table, manifest: Mapping[str, Any], path: Path) -> Path:
    """Parquet or CSV by the ending; `<path>.manifest.json` beside it."""
    if path.suffix not in (".parquet", ".csv"):
        raise UsageError(f"{path}: a training set is written as .parquet or .csv.")
    if path.suffix == ".csv" and any(pa.types.is_nested(field.type) for field in table.schema):
        raise UsageError(f"{path}: a list or map has no place in CSV. Write .parquet.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(table, part)
        else:
            pyarrow.csv.write_csv(table, part)
        side = manifest_path(path)
        side_part = side.with_name(f".{side.name}.{os.getpid()}.part")
        side_part.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(side_part, side)
        os.replace(part, path)
    except OSError as error:
        raise DataError(f"{path} could not be written: {error.strerror}.") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def manifest_path(path: Path) -> Path:
    return path.with_name(path.name + ".manifest.json")
