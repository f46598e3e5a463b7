"""Cut Parquet files into pieces that workers read themselves, each by the DuckDB text that reads the whole.

A piece is whole files or ranges of row groups.  Names and types are those of all files together, and so are columns
that stand in paths.  What a piece's files were when it was cut is looked at again before they are read, so that a file
which is gone, or another one by then, is an error and never fewer rows.
"""

import os
import re
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from featreg.engines.duckdb import literal
from featreg.errors import DataError
from featreg.plan.relation import Form, ParquetFiles, Relation, quote

if TYPE_CHECKING:
    import duckdb

    from featreg.engines.duckdb import DuckDB

_ROW = "file_row_number"  # DuckDB's hidden column: by a range of it DuckDB passes over row groups
_OURS = ("hive_partitioning", "hive_types", "hive_types_autocast", "union_by_name")  # options that a piece has its own of
_LEAST, _MOST = 4 << 20, 64 << 20  # bytes of a piece, as they lie in its files
_SLACK = 1_000_000  # microseconds: what nanoseconds in statistics may lose when they are read


@dataclass(frozen=True)
class Piece:
    """texts: what stands after FROM, each for some of its rows, in their order.  files: (path, bytes, rows) of each when it was cut."""

    texts: tuple[str, ...]
    files: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class _Run:
    """Consecutive row groups of a file.  low, high: rows of the file · is_whole: whether the file has no others · rows: of the file."""

    file: str
    low: int
    high: int
    is_whole: bool
    rows: int
    bytes: int


def cut(
    engine: "DuckDB", relation: Relation, names: Collection[str], tasks: int, since: tuple[str, int] | None = None,
    paths: Mapping[str, str] | None = None,
) -> tuple[Piece, ...]:  # fmt: skip
    """Pieces of the relation's files with columns of these names, of about the same bytes, more than `tasks` where there is enough.

    Pieces and their rows are in the order of paths.
    since: (column, instant in UTC microseconds): row groups all of whose values are before it are left out; NULL and what is before
    year 1 stay.
    paths: what `in_paths` says of the relation, for who has asked.
    Raises: DataError when a file cannot be read.
    """
    files = relation.files
    assert files is not None
    if paths is None:
        paths = in_paths(engine, relation) or {}
    wanted = {name.lower() for name in names}
    read = [(name, kind) for name, kind in relation.columns if name.lower() in wanted]
    readers = _readers(files, read, paths)
    taken = {file for form in files.forms if any(name.lower() == _ROW for name, _ in form.columns) for file in form.files}
    groups = _row_groups(engine, files, wanted, since)
    most = max(_LEAST, min(_MOST, sum(one.bytes for one in groups) // max(1, 4 * tasks)))
    runs = (run for file, found in groupby(groups, lambda one: one.file) for run in _runs(list(found), most, file in taken))
    return tuple(_piece(part, readers) for part in _parts(runs, most))


def in_paths(engine: "DuckDB", relation: Relation) -> dict[str, str] | None:
    """Columns that DuckDB takes from the paths (`month=02/`), and their types in all files together.

    None when one is in the files too: which it takes then, and of what type, no piece can say.
    """
    files = relation.files
    assert files is not None
    if files.options.get("hive_partitioning") is False:
        return {}
    paths = files.paths
    named = {key.lower() for key in re.findall(r"(?<=/)([^/=]+)=[^/]*(?=/)", paths[0])}
    named = {key for key in named if all(f"/{key}=" in path.lower() for path in paths)}
    for form in files.forms if named else ():
        own = engine.describe(f"read_parquet({literal(form.files[0])}, hive_partitioning = false)", form.files[0]).columns
        if named & {name.lower() for name, _ in own}:
            return None
    return {name: kind for name, kind in relation.columns if name.lower() in named}


def _readers(files: ParquetFiles, read: list[tuple[str, str]], in_paths: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """By file: (what a SELECT lists, what stands behind the files in the reader), the same for all of one form."""
    options: dict[str, Any] = {name: value for name, value in files.options.items() if name.lower() not in _OURS}
    options |= {"hive_partitioning": bool(in_paths)} | ({"hive_types": in_paths} if in_paths else {})
    told = "".join(f", {name} = {_types(value) if name == 'hive_types' else literal(value)}" for name, value in options.items())
    found: dict[str, tuple[str, str]] = {}
    for form in files.forms:
        listed = ", ".join(_column(form, name, kind, name in in_paths) for name, kind in read)
        found |= dict.fromkeys(form.files, (listed or "NULL", told))
    return found


def _types(types: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{literal(name)}: {kind}" for name, kind in types.items()) + "}"


def _column(form: Form, name: str, kind: str, is_in_paths: bool) -> str:
    own = next(((own, its) for own, its in form.columns if own.lower() == name.lower()), None)
    if own is None:
        return f"NULL::{kind} AS {quote(name)}"
    return quote(name) if own[1] == kind or is_in_paths else f"{quote(own[0])}::{kind} AS {quote(name)}"


def _row_groups(engine: "DuckDB", files: ParquetFiles, wanted: Collection[str], since: tuple[str, int] | None) -> list[_Run]:
    """The row groups that are read, by file and in order.  Reads every footer."""
    paths = ", ".join(map(literal, files.paths))
    names = ", ".join(map(literal, sorted(wanted))) or "''"
    behind = "false"
    if since is not None:
        of_time = f"FILTER (lower(path_in_schema) = {literal(since[0].lower())})"
        low, high = (f"max(TRY_CAST(stats_{end}_value AS TIMESTAMPTZ)) {of_time}" for end in ("min", "max"))
        bound = f"make_timestamptz({since[1] - _SLACK}::BIGINT)"
        behind = f"coalesce({high} < {bound} AND {low} >= '0001-01-01'::TIMESTAMPTZ AND max(stats_null_count) {of_time} = 0, false)"
    groups = engine.rows(
        f"SELECT file_name, row_group_id, max(row_group_num_rows), {behind}, "
        f"coalesce(sum(total_compressed_size) FILTER (lower(split_part(path_in_schema, ', ', 1)) IN ({names})), 0)::BIGINT "
        f"FROM parquet_metadata([{paths}]) GROUP BY file_name, row_group_id ORDER BY file_name, row_group_id"
    )
    found = []
    for file, of_file in groupby(groups, lambda one: one[0]):
        listed = list(of_file)
        rows, first = sum(one[2] for one in listed), 0
        for _, _, count, is_behind, size in listed:
            if not is_behind:
                found.append(_Run(file, first, first + count, count == rows, rows, size))
            first += count
    return found


def _runs(groups: list[_Run], most: int, as_one: bool) -> Iterator[_Run]:
    """A file's row groups, those beside each other together up to `most` bytes.  as_one: the file whole."""
    if as_one:
        yield _Run(groups[0].file, 0, groups[0].rows, True, groups[0].rows, sum(one.bytes for one in groups))
        return
    run = groups[0]
    for one in groups[1:]:
        if run.high == one.low and run.bytes + one.bytes <= most:
            run = _Run(run.file, run.low, one.high, one.high - run.low == run.rows, run.rows, run.bytes + one.bytes)
        else:
            yield run
            run = one
    yield run


def _parts(runs: Iterable[_Run], most: int) -> Iterator[list[_Run]]:
    part: list[_Run] = []
    for run in runs:
        if part and sum(one.bytes for one in part) + run.bytes > most:
            yield part
            part = []
        part.append(run)
    if part:
        yield part


def _piece(part: list[_Run], readers: Mapping[str, tuple[str, str]]) -> Piece:
    texts = []
    for (listed, options), runs in groupby(part, lambda run: readers[run.file]):
        for is_whole, some in groupby(runs, lambda run: run.is_whole):
            for these in [list(some)] if is_whole else [[run] for run in some]:
                bounds = "" if is_whole else f" WHERE {_ROW} >= {these[0].low} AND {_ROW} < {these[0].high}"
                texts.append(f"(SELECT {listed} FROM read_parquet([{', '.join(literal(run.file) for run in these)}]{options}){bounds})")
    return Piece(tuple(texts), tuple({run.file: (run.file, _size(run.file), run.rows) for run in part}.values()))


def _size(file: str) -> int:
    try:
        return os.path.getsize(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from None


def check_files(piece: Piece, connection: "duckdb.DuckDBPyConnection") -> None:
    """Whether the files of a piece are what they were when it was cut.  Raises: DataError; DuckDB's for a file without a footer."""
    for file, size, _ in piece.files:
        try:
            now = os.path.getsize(file)
        except OSError as error:
            raise DataError(
                f"{file} cannot be read on {socket.gethostname()}: {error.strerror}.\n"
                "  Executors read the files of a source themselves: each of them must see them under these paths."
            ) from None
        if now != size:
            raise _changed(file)
    paths = ", ".join(literal(file) for file, *_ in piece.files)
    counts = dict(connection.sql(f"SELECT file_name, num_rows FROM parquet_file_metadata([{paths}])").fetchall())
    for file, _, rows in piece.files:
        if counts[file] != rows:
            raise _changed(file)


def _changed(file: str) -> DataError:
    return DataError(f"{file} was changed while it was read.\n  Run it again when no one writes to it.")
