"""Scan, filter, shuffle and sort with DuckDB; it knows no features."""

import glob
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from featreg.errors import DataError, UsageError
from featreg.plan.relation import Form, ParquetFiles, Relation, quote

_Result = TypeVar("_Result")
_FORMATS = {"parquet": "read_parquet", "csv": "read_csv", "json": "read_json"}
_READERS = {
    ".parquet": "read_parquet",
    ".pq": "read_parquet",
    ".csv": "read_csv",
    ".tsv": "read_csv",
    ".json": "read_json",
    ".jsonl": "read_json",
    ".ndjson": "read_json",
}


class DuckDB:
    """One DuckDB in memory, spilling to `temporary`; sessions are in UTC; rows come in the order of the files."""

    def __init__(self, settings: Mapping[str, object], temporary: Path):
        self.threads = int(str(settings.get("threads", os.cpu_count() or 1)))
        config: dict[str, Any] = {
            "threads": self.threads,
            "temp_directory": str(temporary),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": True,
        }
        if "memory_limit" in settings:
            config["memory_limit"] = settings["memory_limit"]
        try:
            self.connection = duckdb.connect(config=config)
        except duckdb.Error as error:
            raise UsageError(f"[duckdb] in conf: {error}") from None
        self.tables: dict[str, pa.Table] = {}
        self.connection.execute("SET TimeZone='UTC'; SET enable_progress_bar=false")

    def close(self) -> None:
        self.connection.close()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own, for one thread: registered tables belong to a connection, so each gets them."""
        with _ctrl_c_by_its_name():
            cursor = self.connection.cursor()
            cursor.execute("SET TimeZone='UTC'")
            for name, table in self.tables.items():
                cursor.register(name, table)
            return cursor

    def register(self, name: str, table: pa.Table) -> Relation:
        """Make an Arrow table readable under `name`."""
        self.tables[name] = table
        return self.describe(quote(name), name)

    def unregister(self, name: str) -> None:
        self.tables.pop(name, None)

    def location(self, source: str, location: object, root: Path) -> Relation:
        """The relation at a location of a profile: a path or glob, or a table {path, format, options}.

        Raises: DataError when no file is there, or one cannot be read.
        """
        settings: dict[str, Any] = (
            {"path": location} if isinstance(location, str) else dict(location) if isinstance(location, Mapping) else {}
        )
        path = settings.get("path")
        if not isinstance(path, (str, list)):
            raise UsageError(f"[sources] {source}: give a path or glob, or a table with path, format and options.")
        files = source_files(path, root) if isinstance(path, str) else path
        if not files:
            raise DataError(f"source '{source}': no file at {path}.\n  Put the data there, or say where it is in conf under [sources].")
        reader = _FORMATS.get(str(settings.get("format", "")).lower()) or reader_of(files[0])
        if reader is None:
            raise UsageError(f"[sources] {source}: what is in {files[0]}? Say format = \"parquet\", \"csv\" or \"json\".")
        for file in files:
            if os.path.getsize(file) == 0:
                raise DataError(
                    f"source '{source}': {file} is empty (0 bytes): not even a header, so it was cut off. Write it again, or take it away."
                )
        options = dict(settings.get("options", {}))
        if reader == "read_parquet":
            return self.parquet_files(files, options, f"source '{source}'")
        told = _told_to_reader(options)
        if reader == "read_csv" and "all_varchar" not in told:
            told += ", all_varchar = true"
        return self.describe(f"{reader}([{_listed(files)}]{told})", f"source '{source}'", loose=True)

    def parquet_files(self, files: list[str], options: Mapping[str, object], what: str) -> Relation:
        """The relation of Parquet files.  options: of DuckDB's reader.

        DuckDB takes the first file's types for all and casts the others to them in silence (1.5 becomes 2).  Here a
        column that files do not agree on gets a type that says so, which fits no declaration.  Of many, reads every footer.
        """
        told = _told_to_reader(options)
        groups = self.parquet_groups(files, what) if len(files) > 1 else [files]
        if len(groups) == 1:
            relation = self.describe(f"read_parquet([{_listed(files)}]{told})", what)
            return replace(relation, files=ParquetFiles((Form(tuple(files), relation.columns),), options))
        forms = [Form(tuple(group), self.describe(f"read_parquet([{literal(group[0])}]{told})", what).columns) for group in groups]
        named: dict[str, str] = {}
        for form in forms:
            for name, _ in form.columns:
                named.setdefault(name.lower(), name)
        types = {
            name: _agreed(
                {Path(form.files[0]).name: next((kind for n, kind in form.columns if n.lower() == lower), None) for form in forms}
            )
            for lower, name in named.items()
        }
        text = f"read_parquet([{_listed(files)}]{told}, union_by_name = true)"
        return Relation(text, tuple(types.items()), files=ParquetFiles(tuple(forms), options))

    def parquet_groups(self, files: list[str], what: str) -> list[list[str]]:
        """The files, those of one schema together.  Reads every footer."""
        shape = "list_sort(list(concat_ws(' ', name, type, type_length, num_children, converted_type, scale, precision, logical_type)))"
        forms = f"SELECT file_name, {shape} AS form FROM parquet_schema([{_listed(files)}]) GROUP BY file_name"
        return sorted(row[0] for row in self._told(f"SELECT list(file_name ORDER BY file_name) FROM ({forms}) GROUP BY form", what))

    def forms(self, source: str, location: Mapping[str, Any], files: list[str], file_column: str) -> list[tuple[Relation, list[str]]]:
        """The files at a location by schema: a relation for each, and its files.  Its columns are those of the data; the text has one
        more, the file of each row, called `file_column`.

        A column that stands in paths (`month=02/`) is text here: DuckDB's guess at its type depends on which files are read together.
        Raises: DataError when a file cannot be read.
        """
        groups = self.parquet_groups(files, f"source '{source}'") if _is_parquet(location, files) else [files]
        made = []
        settings = dict(location.get("options", {}))
        is_hive, _ = settings.get("hive_partitioning", True), settings.pop("hive_types", None)
        if is_hive:
            settings.pop("hive_partitioning", None)
        for group in groups:
            relation = self.location(source, {**location, "options": settings, "path": group}, Path())
            in_paths = [name for name, _ in relation.columns if is_hive and all(f"/{name}=" in file for file in group)]
            types = ", ".join(f"{literal(name)}: VARCHAR" for name in in_paths)
            hive = f", hive_partitioning = true, hive_types = {{{types}}}" if in_paths else ""
            columns = tuple((name, "VARCHAR" if name in in_paths else kind) for name, kind in relation.columns)
            text = f"{relation.text.removesuffix(')')}{hive}, filename = {literal(file_column)})"
            made.append((replace(relation, text=text, columns=columns, files=None), group))
        return made

    def describe(self, text: str, what: str, loose: bool = False) -> Relation:
        columns = self._told(f"DESCRIBE SELECT * FROM {text}", what)
        return Relation(text, tuple((name, kind) for name, kind, *_ in columns), loose)

    def _told(self, sql: str, what: str) -> list[tuple]:
        cursor = self.cursor()
        try:
            return _awaited(cursor, lambda: cursor.execute(sql).fetchall())
        except duckdb.Error as error:
            raise DataError(f"{what} cannot be read: {_first_line(error)}") from None

    def rows(self, sql: str) -> list[tuple]:
        cursor = self.cursor()
        try:
            return _awaited(cursor, lambda: cursor.execute(sql).fetchall())
        except duckdb.Error as error:
            raise DataError(f"a scan failed: {_first_line(error)}") from None

    def table(self, sql: str) -> pa.Table:
        cursor = self.cursor()
        try:
            return _awaited(cursor, lambda: cursor.sql(sql).to_arrow_table())
        except duckdb.Error as error:
            raise DataError(f"a query failed: {_first_line(error)}") from None

    def batches(self, sql: str, rows: int) -> Iterator[pa.RecordBatch]:
        """Stream a query's rows in its order.

        `sql().to_arrow_reader()` keeps ORDER BY under preserve_insertion_order=false; `execute().to_arrow_reader()` does not.
        """
        cursor = self.cursor()
        try:
            reader, first = _awaited(cursor, lambda: _begun(cursor.sql(sql).to_arrow_reader(rows)))  # behind the first batch all is sorted
            if first is not None:
                yield first
                with _ctrl_c_by_its_name():
                    yield from reader
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise DataError(f"a scan failed: {_first_line(error)}") from None
        finally:
            cursor.close()


class Warm:
    """A DuckDB of one thread for many small queries over tables in memory; rows without ORDER BY keep theirs.  Not for several threads."""

    def __init__(self) -> None:
        self.connection = duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": False})
        self.connection.execute("SET TimeZone='UTC'; SET enable_progress_bar=false")
        self._there: dict[str, pa.Table] = {}

    def close(self) -> None:
        self.connection.close()

    def describe(self, name: str, table: pa.Table, loose: bool = False) -> Relation:
        """The table as a relation of that name."""
        self._put(name, table)
        columns = self.connection.execute(f"DESCRIBE SELECT * FROM {quote(name)}").fetchall()
        return Relation(quote(name), tuple((column, kind) for column, kind, *_ in columns), loose)

    def ask(self, sql: str, name: str, table: pa.Table) -> pa.Table:
        """What a query gives for a table under that name.  Raises: DataError."""
        self._put(name, table)
        try:
            return self.connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise DataError(f"a query failed: {_first_line(error)}") from None

    def _put(self, name: str, table: pa.Table) -> None:
        if self._there.get(name) is not table:  # the views of a source ask for the same rows one after another
            self.connection.register(name, table)
            self._there[name] = table


@contextmanager
def _ctrl_c_by_its_name() -> Iterator[None]:
    """What DuckDB does in the main thread may take a Ctrl-C for itself; then it fails with an error of its own that tells of it."""
    try:
        yield
    except (RuntimeError, OSError, duckdb.Error) as error:
        if "Query interrupted" in str(error) or "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from error
        raise


def _begun(reader: pa.RecordBatchReader) -> tuple[pa.RecordBatchReader, pa.RecordBatch | None]:
    return reader, next(reader, None)


def _awaited(cursor: duckdb.DuckDBPyConnection, work: Callable[[], _Result]) -> _Result:
    """What `work` gives.  It runs in a thread, for DuckDB does not look for Ctrl-C while it sorts; who waits for the thread hears it."""
    if threading.current_thread() is not threading.main_thread():
        return work()
    done: Future[_Result] = Future()
    thread = threading.Thread(target=_do, args=(work, done), name="featreg query", daemon=True)
    try:
        thread.start()
        return done.result()
    except KeyboardInterrupt:  # whenever it strikes, between the two lines above too
        _stop(cursor, thread)
        raise


def _stop(cursor: duckdb.DuckDBPyConnection, thread: threading.Thread) -> None:
    """Interrupt the query that the thread waits for until it has ended, however often Ctrl-C is pressed meanwhile."""
    while thread.is_alive():
        try:
            cursor.interrupt()
            thread.join(0.05)
        except KeyboardInterrupt:
            continue


def _do(work: Callable[[], _Result], done: "Future[_Result]") -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # told to the thread that waits
        done.set_exception(error)


def reader_of(file: str) -> str | None:
    """DuckDB's function for a file, by its ending; a compressed one by the ending before."""
    path = Path(file)
    return _READERS.get(Path(path.stem if path.suffix.lower() in (".gz", ".zst") else path.name).suffix.lower())


def source_files(path: str, root: Path) -> list[str]:
    """The files at a path or glob, sorted; relative ones are below `root`."""
    whole = path if os.path.isabs(path) else str(root / path)
    return sorted(file for file in glob.glob(whole, recursive=True) if os.path.isfile(file))


def _is_parquet(location: Mapping[str, Any], files: list[str]) -> bool:
    return (_FORMATS.get(str(location.get("format", "")).lower()) or reader_of(files[0])) == "read_parquet"


def _listed(files: list[str]) -> str:
    return ", ".join(literal(file) for file in files)


def _told_to_reader(options: Mapping[str, object]) -> str:
    return "".join(f", {name} = {literal(value)}" for name, value in options.items())


def widest(kinds: Collection[str | None]) -> str | None:
    """One type that holds them all: of integers, or of doubles, the widest; None where there is none."""
    different = set(kinds)
    for widths in (("TINYINT", "SMALLINT", "INTEGER", "BIGINT"), ("FLOAT", "DOUBLE")):
        if different <= set(widths):
            return max((kind for kind in different if kind), key=widths.index)
    return different.pop() if len(different) == 1 else None


def _agreed(types: Mapping[str, str | None]) -> str:
    """One type for what files call a column: file -> its type there."""
    if (kind := widest(types.values())) is not None:
        return kind
    first = {kind: file for file, kind in reversed(list(types.items()))}
    return " and ".join(f"{kind or 'no such column'} in {file}" for kind, file in reversed(list(first.items())))


def literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(name)}: {literal(one)}" for name, one in value.items()) + "}"
    return str(value) if isinstance(value, (int, float)) else "'" + str(value).replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    return re.split(r"\n\n|\nLINE", str(error).strip())[0]
