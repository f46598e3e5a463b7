"""Read a source's files once and say what is in them: columns, nine numbers, earliest and latest event time of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featreg.define import EventSource
from featreg.engines.duckdb import DuckDB
from featreg.errors import DataError
from featreg.plan.relation import Relation, quote
from featreg.plan.scan_sql import read_columns
from featreg.snapshots.families import Column, absent, duckdb_columns, shape_text
from featreg.snapshots.manifest import File, Schema, Snapshot
from featreg.snapshots.numbers import Numbers, read_numbers
from featreg.snapshots.row_sql import duckdb_numbers, duckdb_row_hash

if TYPE_CHECKING:
    from featreg.session.pushed_part import PushedPart

FILE = "featreg file"


@dataclass(frozen=True)
class Found:
    """A file to be measured: where it can be read now, and what its bytes are."""

    place: Path
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Group:
    """Files of one schema: what reads them, and their columns with those that only other files have."""

    relation: Relation
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Measured:
    schema: Schema
    numbers: Numbers
    first: int | None
    last: int | None


def measure(
    engine: DuckDB, source: EventSource, reading: Mapping[str, Any], found: Mapping[str, Found], before: Snapshot | None,
    pushed: "PushedPart | None" = None, batched: Mapping[str, int | None] | None = None,
) -> Snapshot:  # fmt: skip
    """A snapshot of the files (shown path -> file); those whose path, bytes and columns `before` knows are not read.

    pushed: what the source's push log holds, if anything · batched: see `Log`.

    Bytes alone are not enough: a path may hold a column.
    Raises: DataError when a file cannot be read, has a column without a family, or does not agree with the others on one.
    """
    known = _known(before, reading) if before is not None else {}
    fresh = [shown for shown, file in found.items() if (shown, file.sha256) not in known]
    if fresh and not all(file.place.suffix in (".parquet", ".pq") for file in found.values()):
        known, fresh = {}, list(found)  # the types of JSON are guessed from all files together
    groups = _groups(engine, source, reading, [found[shown].place for shown in fresh])
    types: dict[str, dict[str, Column]] = {}
    schemas = [relation.columns for relation, _ in groups]
    schemas += list(dict.fromkeys(known[shown, file.sha256].schema for shown, file in found.items() if (shown, file.sha256) in known))
    schemas += [] if pushed is None else [pushed.columns]
    for columns in schemas:
        for column in duckdb_columns(columns, f"source '{source.name}'"):
            types.setdefault(column.name.lower(), {}).setdefault(column.family.name, column)
    _refuse_disagreement(source.name, types)
    whole = tuple(sorted((next(iter(by_family.values())) for by_family in types.values()), key=lambda column: column.name))
    shape = shape_text(whole)
    if before is not None and known and shape != before.shape:  # another column makes another text of every row
        return measure(engine, source, reading, found, None, pushed, batched)
    measured: dict[str, Measured] = {}
    for relation, files in groups:
        measured |= _measured(engine, source, Group(relation, _in_whole(relation, whole, source.name)), files)
    forms: dict[Schema, int] = {}
    listed = []
    for shown, file in sorted(found.items()):
        one = known.get((shown, file.sha256)) or measured[str(file.place)]
        form = forms.setdefault(one.schema, len(forms))
        listed.append(File(shown, file.bytes, file.sha256, form, one.numbers, one.first, one.last))
    log = None
    if pushed is not None:
        log = pushed.as_log(forms.setdefault(pushed.columns, len(forms)), whole, batched or {})
    return Snapshot(source.name, tuple(listed), tuple(forms), shape, dict(reading), log=log)


@dataclass(frozen=True)
class Read:
    """What is in files: numbers of those that have the wanted columns, else how they differ, or why they cannot be read; by shown path."""

    measured: Mapping[str, Measured]
    other_columns: Mapping[str, str]
    unreadable: Mapping[str, str]


def read_as(
    engine: DuckDB, source: EventSource, reading: Mapping[str, Any], places: Mapping[str, Path], whole: Sequence[Column], optional: set[str]
) -> Read:
    """Files (shown path -> place) hashed with a snapshot's columns.

    A type of the same family is no difference, nor is an optional column that is not there.
    """
    measured: dict[str, Measured] = {}
    odd: dict[str, str] = {}
    unreadable = _unreadable(engine, source, reading, places)
    shown = {str(place): name for name, place in places.items() if name not in unreadable}
    for relation, files in _groups(engine, source, reading, list(map(Path, shown))):
        difference = _schema_difference(source, relation, whole, optional)
        if difference is not None:
            odd |= {shown[file]: difference for file in files}
            continue
        try:
            found = _measured(engine, source, Group(relation, _in_whole(relation, whole, source.name)), files)
        except DataError:  # a file whose end is sound and whose pages are not
            found = {}
            for file in files:
                try:
                    found |= _measured(engine, source, _one(engine, source, reading, file, whole), [file])
                except DataError as error:
                    unreadable[shown[file]] = _first_line(error)
        measured |= {shown[file]: one for file, one in found.items()}
    return Read(measured, odd, unreadable)


def _one(engine: DuckDB, source: EventSource, reading: Mapping[str, Any], file: str, whole: Sequence[Column]) -> Group:
    return groups_of(engine, source, reading, [Path(file)], whole)[0]


def _unreadable(engine: DuckDB, source: EventSource, reading: Mapping[str, Any], places: Mapping[str, Path]) -> dict[str, str]:
    """Files that have no schema to be read, and why; they are looked for only where reading all at once fails."""
    try:
        _groups(engine, source, reading, list(places.values()))
        return {}
    except DataError:
        pass
    found = {}
    for name, place in places.items():
        try:
            _groups(engine, source, reading, [place])
        except DataError as error:
            found[name] = _first_line(error)
    return found


def _first_line(error: DataError) -> str:
    return str(error).splitlines()[0].rstrip(".")


def _schema_difference(source: EventSource, relation: Relation, whole: Sequence[Column], optional: set[str]) -> str | None:
    """In words; None when the rows can be compared."""
    try:
        own = {column.name.lower(): column for column in duckdb_columns(relation.columns, f"source '{source.name}'")}
    except DataError as error:
        return str(error).splitlines()[1].strip()
    expected = {column.name.lower(): column for column in whole}
    told = [f"column '{own[name].name}' is new ({own[name].family.type})" for name in own if name not in expected]
    told += [f"column '{column.name}' is gone" for name, column in expected.items() if name not in own | dict.fromkeys(optional)]
    told += [
        f"column '{column.name}' is {own[name].family.type}, not {column.family.type}"
        for name, column in expected.items()
        if name in own and own[name].family.name != column.family.name
    ]
    return ", ".join(told) or None


def groups_of(
    engine: DuckDB, source: EventSource, reading: Mapping[str, Any], places: Sequence[Path], shape: Sequence[Column]
) -> list[Group]:
    """The files by schema, ready to be hashed as rows with these columns."""
    return [Group(relation, _in_whole(relation, shape, source.name)) for relation, _ in _groups(engine, source, reading, places)]


def hashed_rows(source: EventSource, group: Group) -> str:
    """A query for each row's hash, what tells it from others of its time, and its event time: h, k, e."""
    event = _event_text(source, group.relation)
    there = {name.lower(): name for name, _ in group.relation.columns}
    ties = "".join(f", {quote(there[name.lower()])}::VARCHAR" for name in source.tie_break if name.lower() in there)
    key = f"concat_ws(chr(31), coalesce({event}::VARCHAR, ''){ties})"
    return f"SELECT {duckdb_row_hash(group.columns)} AS h, {key} AS k, {event} AS e FROM {group.relation.text}"


def _known(before: Snapshot, reading: Mapping[str, Any]) -> dict[tuple[str, str], Measured]:
    if dict(before.reading) != dict(reading):
        return {}
    return {(file.path, file.sha256): Measured(before.forms[file.form], file.numbers, file.first, file.last) for file in before.files}


def _groups(engine: DuckDB, source: EventSource, reading: Mapping[str, Any], places: Sequence[Path]) -> list[tuple[Relation, list[str]]]:
    return engine.forms(source.name, reading, [str(place) for place in places], FILE) if places else []


def _in_whole(relation: Relation, whole: Sequence[Column], source: str) -> tuple[Column, ...]:
    """The relation's own columns, called and ordered as in the whole source; NULL for those that it lacks."""
    own = {column.name.lower(): column for column in duckdb_columns(relation.columns, f"source '{source}'")}
    return tuple(
        replace(own[column.name.lower()], name=column.name) if column.name.lower() in own else absent(column.name) for column in whole
    )


def _measured(engine: DuckDB, source: EventSource, group: Group, files: Sequence[str]) -> dict[str, Measured]:
    event = _event_text(source, group.relation)
    query = duckdb_numbers(group.columns, group.relation.text, quote(FILE), (f"min({event})", f"max({event})"))
    schema: Schema = tuple(sorted(group.relation.columns))
    found = {file: Measured(schema, read_numbers(nine), first, last) for file, *nine, first, last in engine.rows(query)}
    return {file: found.get(file, Measured(schema, Numbers(), None, None)) for file in files}  # a file without rows is in no group


def _event_text(source: EventSource, relation: Relation) -> str:
    """The event time in microseconds, NULL where there is none or an infinite one.  It may be text, in a path or a CSV."""
    return f"epoch_us(({read_columns(source, replace(relation, loose=True))[source.event_time].text})::TIMESTAMP)"


def _refuse_disagreement(source: str, types: Mapping[str, Mapping[str, Column]]) -> None:
    for by_family in types.values():
        if len(by_family) > 1:
            first, second = list(by_family.values())[:2]
            raise DataError(
                f"source '{source}': column '{first.name}' is {first.family.type} in one file and {second.family.type} in another.\n"
                "  Write it as one type in all files."
            )
