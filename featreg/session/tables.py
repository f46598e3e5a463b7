"""Take rows from callers in any form that people have them, and check them before anything runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featreg.compile import CompiledSet, CompiledView
from featreg.engines.duckdb import DuckDB, reader_of
from featreg.errors import DataError, UsageError, did_you_mean
from featreg.sweep.words import arrow_type
from featreg.vocabulary import DataType

_KEY_COLUMNS = {"BIGINT": pa.types.is_integer, "INTEGER": pa.types.is_integer, "BOOLEAN": pa.types.is_boolean, "DATE": pa.types.is_date}
_MANY = 5


def read_table(rows: Any, engine: DuckDB, root: Path, what: str) -> pa.Table:
    """Arrow, pandas, Polars, a list of dicts, a path to Parquet or CSV, or a SQL query: as an Arrow table.

    Raises: DataError when a file cannot be read; UsageError for anything else.
    """
    if isinstance(rows, (str, Path)):
        return _from_text(rows, engine, root, what)
    if isinstance(rows, (list, tuple)) and all(isinstance(row, Mapping) for row in rows):
        return pa.Table.from_pylist(list(rows))
    table = table_of_frame(rows)
    if table is None:
        raise UsageError(
            f"{what} is a {type(rows).__name__}. Give an Arrow table, a pandas or Polars frame, a path, a query, or a list of dicts."
        )
    return table


def table_of_frame(rows: Any) -> pa.Table | None:
    """An Arrow, pandas or Polars table as an Arrow one, with texts as kernels take them; None for anything else."""
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    if type(rows).__module__.split(".")[0] == "pandas":
        return pa.Table.from_pandas(rows, preserve_index=False)
    if hasattr(rows, "__arrow_c_stream__"):
        table = pa.table(rows)
        return table.cast(pa.schema([_plain_field(field) for field in table.schema]))
    return None


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(pa.large_string()) if pa.types.is_string_view(field.type) else field


def _from_text(rows: str | Path, engine: DuckDB, root: Path, what: str) -> pa.Table:
    text = str(rows)
    if isinstance(rows, str) and text.lstrip().lower().startswith(("select", "with", "from ", "values")):
        return engine.table(text)
    path = Path(text) if Path(text).is_absolute() or Path(text).is_file() else root / text
    if not path.is_file():
        raise DataError(f"{what}: there is no file {text}.")
    reader = reader_of(path.name)
    if reader is None:
        raise UsageError(f"{what}: {text} is no Parquet, CSV or JSON file by its ending.")
    quoted = str(path).replace("'", "''")
    return engine.table(f"SELECT * FROM {reader}('{quoted}')")


def instants_of(table: pa.Table, column: str, what: str) -> np.ndarray:
    """The as-of instants in UTC microseconds.

    Raises: DataError when the column is missing, is no time, has NULLs (naming the rows) or digits below the microsecond.
    """
    values = _column(table, column, f"{what} has no time column")
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("us"))
    if not pa.types.is_timestamp(values.type):
        raise DataError(
            f"{what}: the time column '{column}' is {values.type}. Give timestamps; text can be cast with CAST({column} AS TIMESTAMP)."
        )
    if values.null_count:
        rows = np.flatnonzero(pc.is_null(values).to_numpy(zero_copy_only=False))
        listed = ", ".join(map(str, rows[:_MANY])) + (", …" if len(rows) > _MANY else "")
        raise DataError(
            f"{what}: the as-of instant '{column}' is NULL in {len(rows)} rows: {listed}.\n"
            f"  Every row asks as of an instant; leave those rows out."
        )
    raw = values.cast(pa.int64()).to_numpy()
    match values.type.unit:
        case "s":
            return raw * 1_000_000
        case "ms":
            return raw * 1_000
        case "ns":
            if (raw % 1000 != 0).any():
                row = int(np.flatnonzero(raw % 1000)[0])
                raise DataError(
                    f"{what}: '{column}' has digits below the microsecond, first in row {row}.\n"
                    f"  Round them: df['{column}'].dt.floor('us'), or date_trunc."
                )
            return raw // 1000
    return raw.copy()


def _column(table: pa.Table, name: str, missing: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise DataError(f"{missing} '{name}'.\n  {did_you_mean(name, table.column_names, 'Its columns are')}")
    column = table[name]
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def key_column(table: pa.Table, name: str, kind: DataType, what: str) -> pa.ChunkedArray:
    """A key column of the spine as the entity declares it.

    Raises: DataError when it is missing or of another type: 1 is not "1".
    """
    column = _column(table, name, f"{what} has no key column")
    if pa.types.is_null(column.type):
        return column.cast(key_type(kind))
    fits = {
        "VARCHAR": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t),
        "TIMESTAMP": pa.types.is_timestamp,
    } | _KEY_COLUMNS
    if not fits[kind.name](column.type):
        raise DataError(
            f"{what}: key column '{name}' is {column.type}, and the entity's key is {kind}. Cast it: a key is compared as its type."
        )
    try:
        if kind.name == "TIMESTAMP":
            return pa.chunked_array([instants_or_null(column, name, what)], pa.int64())
        return column.cast(key_type(kind))
    except pa.ArrowInvalid as error:
        raise DataError(f"{what}: key column '{name}' does not fit {kind}: {error}.") from None


def key_type(kind: DataType) -> pa.DataType:
    """How key parts travel to the engine: instants as microseconds, all else as it is."""
    return pa.int64() if kind.name == "TIMESTAMP" else arrow_type(kind)


def spine_of_rows(
    compiled: CompiledSet, views: Mapping[str, CompiledView], rows: Sequence[Mapping[str, Any]], as_of: Sequence[int], time: str
) -> pa.Table:
    """Rows as an online read takes them, keys and request columns, as a spine with its instants (UTC microseconds) called `time`."""
    types = {column: kind for lookup in compiled.lookups for column, (_, kind) in zip(lookup.spine_columns, views[lookup.view].key)}
    types |= dict(compiled.request)
    columns = {column: pa.array([row[column] for row in rows], arrow_type(kind)) for column, kind in types.items()}
    return pa.table(columns | {time: pa.array(as_of, pa.timestamp("us", tz="UTC"))})


def instants_or_null(column: pa.ChunkedArray, name: str, what: str) -> pa.Array:
    there = column.drop_null()
    filled = instants_of(pa.table({name: there}), name, what) if len(there) else np.zeros(0, np.int64)
    valid = pc.is_valid(column).to_numpy()
    whole = np.zeros(len(column), np.int64)
    whole[valid] = filled
    return pa.array(whole, mask=~valid)


def request_column(table: pa.Table, name: str, kind: DataType, what: str) -> pa.Array:
    """A request column as its declared type; Raises: DataError."""
    column = _column(table, name, f"{what} has no request column")
    wanted = arrow_type(kind)
    try:
        if pa.types.is_timestamp(column.type):
            if kind.name != "TIMESTAMP":
                raise pa.ArrowInvalid("a timestamp is not asked for")
            return instants_or_null(column, name, what).cast(pa.timestamp("us", tz="UTC"))
        same_family = (
            pa.types.is_null(column.type)
            or _family(column.type) == _family(wanted)
            or (_family(wanted) in ("double", "decimal") and _family(column.type) in ("integer", "decimal"))
        )
        if not same_family:
            raise pa.ArrowInvalid(f"it is {column.type}")
        return column.cast(wanted).combine_chunks()
    except pa.ArrowInvalid as error:
        raise DataError(f"{what}: request column '{name}' is declared {kind}: {error}.") from None


def _family(kind: pa.DataType) -> str:
    for name, test in (
        ("integer", pa.types.is_integer),
        ("double", pa.types.is_floating),
        ("decimal", pa.types.is_decimal),
        ("bool", pa.types.is_boolean),
        ("date", pa.types.is_date),
        ("timestamp", pa.types.is_timestamp),
    ):
        if test(kind):
            return name
    return "text"
