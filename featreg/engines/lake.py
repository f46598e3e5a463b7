"""List the Parquet files of a Delta or Iceberg table at one of its versions, and refuse what those files alone do not say.

The table's own library reads its log; the files are then read like any others, by either engine.  A table whose rows are not just
those of its files by the names of their columns (deletion vectors, delete files, renamed columns) is an error, never a wrong answer.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from featreg.errors import DataError, FeatregError, UsageError

LIBRARIES = {"delta": "deltalake", "iceberg": "pyiceberg"}
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_HIVE_TYPES = {"integer": "INTEGER", "long": "BIGINT", "short": "SMALLINT", "byte": "TINYINT", "boolean": "BOOLEAN", "date": "DATE",
               "double": "DOUBLE", "float": "FLOAT", "timestamp": "TIMESTAMPTZ", "timestamp_ntz": "TIMESTAMP"}  # fmt: skip
_AS_TEXT = ("string", "integer", "long", "short", "byte", "boolean", "date")  # types whose values have one spelling
_BY_SPARK = (
    'With engine = "spark" the table may be read by the format\'s own reader there: give its path as a URI (file:///..., s3a://...), '
    'or { table = "catalog.shop.orders" } alone.'
)


@dataclass(frozen=True)
class TableVersion:
    """A table at a version.

    pin: what finds that version again · files: of its rows, sorted · reading: how these are read.
    """

    pin: Mapping[str, Any]
    files: tuple[Path, ...]
    reading: Mapping[str, Any]


def lake_format(settings: Mapping[str, Any]) -> str | None:
    """`delta` or `iceberg` where a location of a profile is such a table."""
    found = str(settings.get("format", "")).lower()
    return found if found in LIBRARIES else None


def is_here(settings: Mapping[str, Any]) -> bool:
    """Whether this process can list such a table: its library is installed, and it is at a path, or in a catalog that is told.

    A table at a URI, or one that is named without a catalog, is for Spark's own reader of the format.
    """
    kind = lake_format(settings)
    if kind is None or find_spec(LIBRARIES[kind]) is None:
        return False
    return "catalog" in settings if "table" in settings else "://" not in str(settings.get("path", ""))


def table_version(source: str, settings: Mapping[str, Any], root: Path) -> TableVersion:
    """The table at `settings["version"]`, or as it is now.

    settings: `{format = "delta", path = ...}`, `{format = "iceberg", path = ".../v3.metadata.json"}` or
    `{format = "iceberg", table = "shop.orders", catalog = {name = "prod", ...}}` (or a name that PyIceberg's own settings know), each
    with `version` where one is meant.
    Raises: UsageError for a library that is not installed; DataError for a table that cannot be read, or not by its files alone.
    """
    kind = lake_format(settings)
    assert kind is not None
    if find_spec(LIBRARIES[kind]) is None:
        raise UsageError(f"source '{source}' is a table of {kind}.\n  Install what reads its log: pip install 'featreg[{kind}]'")
    with _told(source, kind):
        found = _delta(source, settings, root) if kind == "delta" else _iceberg(source, settings, root)
    gone = [file for file in found.files if not file.is_file()]
    if gone:
        raise DataError(
            f"SNAPSHOT_GONE: {len(gone)} of {len(found.files)} files of {pin_text(found.pin)} of '{source}' are not there: {gone[0]}.\n"
            "  They were vacuumed or expired. Read a version that is still whole, or a snapshot that was copied (copy = true)."
        )
    return found


def pin_text(pin: Mapping[str, Any]) -> str:
    """In words.

    >>> pin_text({"format": "delta", "version": 3})
    'Delta version 3'
    """
    return f"Delta version {pin['version']}" if pin["format"] == "delta" else f"Iceberg snapshot {pin['version']}"


@contextmanager
def _told(source: str, kind: str) -> Iterator[None]:
    """Whatever a table's library raises, as an error that names the source."""
    try:
        yield
    except FeatregError:
        raise
    except Exception as error:  # each library has errors of its own, and of what it is made of
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"source '{source}': its {kind} table cannot be read: {told[0]}\n"
            "  Look at its path (and version) in conf under [sources]; versions that were cleaned up cannot be listed any more."
        ) from error


def _delta(source: str, settings: Mapping[str, Any], root: Path) -> TableVersion:
    import pyarrow as pa
    from deltalake import DeltaTable

    folder = _local(source, settings.get("path"), root)
    table = DeltaTable(str(folder), version=settings.get("version"))
    facts = table.metadata()
    if facts.configuration.get("delta.columnMapping.mode", "none") != "none":
        raise _unlike(source, "its columns are mapped: files call them otherwise than the table", "Rewrite it without column mapping.")
    if "deletionVectors" in (table.protocol().reader_features or ()) and len(pa.table(table.deletion_vectors())):
        raise _unlike(source, "rows of its files are deleted by deletion vectors", "Purge them first: REORG TABLE ... APPLY (PURGE).")
    types = {field.name: _primitive(field.type) for field in table.schema().fields}
    actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    files = tuple(sorted(_local(source, unquote(one["path"]), folder) for one in actions))  # absolute ones are a clone's
    names = tuple(facts.partition_columns)
    exact = tuple(name for name in names if types[name] in _AS_TEXT)
    for one in actions:
        if _in_path(unquote(one["path"]), exact) != {name: _plain(one.get(f"partition.{name}")) for name in exact}:
            raise _unlike(source, f"the path of {one['path']} does not say its partition", "Rewrite it with hive paths (day=2024-03-01/).")
    options: dict[str, Any] = {"hive_partitioning": bool(names)}
    if names:
        options["hive_types"] = {name: _HIVE_TYPES.get(types[name], "VARCHAR") for name in names}
    pin = {"format": "delta", "path": _shown(folder, root), "table": str(facts.id), "version": str(table.version())}
    return TableVersion(pin, files, {"format": "parquet", "options": options})


def _primitive(kind: Any) -> str:
    return str(getattr(kind, "type", "nested"))


def _in_path(path: str, names: tuple[str, ...]) -> dict[str, str | None]:
    parts = (part.partition("=") for part in path.split("/")[:-1])
    found = {unquote(name): None if value == _HIVE_NULL else unquote(value) for name, mark, value in parts if mark}
    return {name: found.get(name, "") for name in names}


def _plain(value: Any) -> str | None:
    """A partition's value as paths spell it."""
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value)


def _iceberg(source: str, settings: Mapping[str, Any], root: Path) -> TableVersion:
    table = _iceberg_table(source, settings, root)
    version = settings.get("version")
    snapshot = table.current_snapshot() if version is None else table.snapshot_by_id(int(version))
    if snapshot is None:
        told = "has no snapshot yet" if version is None else f"has no snapshot {version}: it was expired, or never there"
        raise DataError(f"source '{source}': its iceberg table {told}.\n  Write rows to it, or name a version of its history.")
    schemas = table.schemas()
    schema = table.schema() if version is None or snapshot.schema_id is None else schemas[snapshot.schema_id]
    tasks = list(table.scan(snapshot_id=snapshot.snapshot_id).plan_files())
    files = tuple(sorted(_local(source, task.file.file_path, root) for task in tasks))
    if any(task.delete_files for task in tasks):
        raise _unlike(source, "rows of its files are deleted by delete files", "Rewrite its data files first (rewrite_data_files).")
    if any(str(task.file.file_format.value).lower() != "parquet" for task in tasks):
        raise _unlike(source, "not all its files are Parquet", "Rewrite them as Parquet.")
    _refuse_other_names(source, schema, schemas.values(), files)
    pin = {"format": "iceberg", "table": str(table.metadata.table_uuid), "version": str(snapshot.snapshot_id)}
    return TableVersion(pin, files, {"format": "parquet", "options": {"hive_partitioning": False}})


def _iceberg_table(source: str, settings: Mapping[str, Any], root: Path) -> Any:
    from pyiceberg.catalog import load_catalog
    from pyiceberg.table import StaticTable

    if "table" in settings:
        catalog = settings.get("catalog")
        told = dict(catalog) if isinstance(catalog, Mapping) else {"name": catalog}
        name = told.pop("name", None)
        if not isinstance(name, str):
            raise UsageError(
                f"[sources] {source}: say in which catalog the table is, as PyIceberg is told:\n"
                f'  {{ format = "iceberg", table = "{settings["table"]}", catalog = {{ name = "prod", uri = "http://..." }} }}'
            )
        return load_catalog(name, **told).load_table(str(settings["table"]))
    return StaticTable.from_metadata(str(_local(source, settings.get("path"), root)))


def _refuse_other_names(source: str, schema: Any, history: Any, files: tuple[Path, ...]) -> None:
    """Iceberg finds columns by number and these files are read by name: both must say the same, as far back as the table goes."""
    names: dict[int, set[str]] = {}
    numbers: dict[str, set[int]] = {}
    for one in (*history, schema):
        for field in one.fields:
            names.setdefault(field.field_id, set()).add(field.name)
            numbers.setdefault(field.name, set()).add(field.field_id)
    renamed = next((sorted(called) for called in names.values() if len(called) > 1), None)
    again = next((name for name, those in numbers.items() if len(those) > 1), None)
    given = next((field.name for field in schema.fields if getattr(field, "initial_default", None) is not None), None)
    if renamed or again or given:
        what = (
            f"column {' was renamed '.join(map(repr, renamed))}" if renamed
            else f"column '{again}' was dropped and added again" if again
            else f"column '{given}' has a default for rows that were written before it"
        )  # fmt: skip
        raise _unlike(source, f"{what}, so its files call columns otherwise", "Copy it to a new table (CREATE TABLE ... AS SELECT).")
    dropped = set(numbers) - {field.name for field in schema.fields}
    if dropped:
        import pyarrow.parquet as pq

        for file in files:
            if held := sorted(dropped & set(pq.read_schema(file).names)):
                raise _unlike(source, f"column '{held[0]}' was dropped and is still in {file.name}", "Rewrite its data files first.")


def _local(source: str, path: Any, base: Path) -> Path:
    """Raises: UsageError for no path; DataError for files that are not on this machine."""
    if not isinstance(path, str):
        raise UsageError(f"[sources] {source}: give the table's path.")
    bare = path.removeprefix("file://")
    if "://" in bare:
        raise DataError(
            f"source '{source}': {path} is not on this machine, where featreg reads a table's Parquet files.\n  {_BY_SPARK}"
        )
    return Path(bare) if Path(bare).is_absolute() else base / bare


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _unlike(source: str, what: str, remedy: str) -> DataError:
    return DataError(
        f"source '{source}': {what}; featreg reads a table's Parquet files as they stand.\n  {remedy} {_BY_SPARK}"
    )
