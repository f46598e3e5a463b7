"""Spell a view's scan as DuckDB SQL: the only text that lifts rows, on every path.

Columns are named by position (c0, k0, i0), so a column may be called anything.  Rows
come out as key parts, visible and event instant in microseconds, a verdict (0 good,
1 rejected, 2 digits below the microsecond), and the lifted inputs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from featreg.compile.compiled import CompiledView, Input
from featreg.compile.program import SweepProgram
from featreg.define import EventSource
from featreg.errors import DataError, did_you_mean
from featreg.expressions import clean_double, duckdb_overflow, duckdb_text, instant_of_text
from featreg.plan.relation import ARRIVED, MARKED, Relation, quote
from featreg.vocabulary import DataType

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_FITS_BIGINT = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_FITS_INTEGER = ("TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT")
_TIMESTAMPS = ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE")
GOOD, REJECTED, TOO_FINE = range(3)
EVENT_ROW = "(-1 - bad)::INTEGER"  # in the column of spine rows: an event, rejected or not
VISIBLE, VERDICT = "visible instant", "verdict"  # columns of `check_sql`, behind the declared ones
LATEST = (1 << 62) - 1  # instants beyond are taken for infinity, so that no window's arithmetic leaves int64


@dataclass(frozen=True)
class SourceColumn:
    """One declared column read from a relation: its value, and the check that it fits (None: it always does)."""

    text: str
    misfit: str | None = None
    too_fine: str | None = None


def duckdb_type(data_type: DataType) -> str:
    return str(data_type.widened)


def read_columns(source: EventSource, relation: Relation) -> dict[str, SourceColumn]:
    """How each declared column is read from the relation.

    Raises: DataError naming every column that is not there, or that has a type which cannot be read as the declared one.
    """
    there = {name.lower(): (name, found) for name, found in relation.columns}
    problems: list[str] = []
    columns: dict[str, SourceColumn] = {}
    for name, declared in source.columns:
        if name.lower() not in there:
            problems.append(
                f"column '{name}' is declared and not in the data. {did_you_mean(name, [n for n, _ in relation.columns], 'The data has')}"
            )
            continue
        found_name, found = there[name.lower()]
        column = _read(quote(found_name), found, declared, relation.loose)
        if column is None:
            problems.append(
                f"column '{name}' is declared {declared} and the data has {found}. Declare its type, or cast it where the data is written."
            )
        else:
            columns[name] = column
    if problems:
        raise DataError(f"source '{source.name}' does not fit its contract:" + "".join(f"\n  {problem}" for problem in problems))
    return columns


def _read(text: str, found: str, declared: DataType, loose: bool) -> SourceColumn | None:
    wide = duckdb_type(declared)
    if loose and found == "VARCHAR" and declared.name != "VARCHAR":
        return _read_text(text, declared, wide)
    match declared.name:
        case "BIGINT":
            return (
                SourceColumn(f"{text}::BIGINT") if found in _FITS_BIGINT else _tried(text, "BIGINT", wide) if found in _INTEGERS else None
            )
        case "INTEGER":
            return (
                SourceColumn(f"{text}::BIGINT") if found in _FITS_INTEGER else _tried(text, "INTEGER", wide) if found in _INTEGERS else None
            )
        case "DOUBLE" | "FLOAT":
            if found in ("DOUBLE", "FLOAT") and not (declared.name == "FLOAT" and found == "DOUBLE"):
                return SourceColumn(clean_double(f"{text}::DOUBLE"))
            if found == "DOUBLE":  # a FLOAT column whose data is wider: a value that a FLOAT cannot hold does not fit
                whole = f"TRY_CAST({text} AS FLOAT)::DOUBLE"
                return SourceColumn(clean_double(whole), f"{whole} IS DISTINCT FROM {text}")
            return SourceColumn(f"{text}::DOUBLE") if found in _INTEGERS or found.startswith("DECIMAL") else None
        case "DECIMAL":
            if found == str(declared):
                return SourceColumn(text)
            return _tried(text, wide, wide, found) if found.startswith("DECIMAL") or found in _INTEGERS else None
        case "BOOLEAN":
            return SourceColumn(text) if found == "BOOLEAN" else None
        case "VARCHAR":
            return (
                SourceColumn(text)
                if found == "VARCHAR"
                else SourceColumn(f"{text}::VARCHAR")
                if found.startswith("ENUM") or loose
                else None
            )
        case "DATE":
            if found == "DATE":
                return SourceColumn(text)
            return (
                None
                if found not in _TIMESTAMPS
                else SourceColumn(f"{text}::DATE", f"{text} IS NOT NULL AND {text}::DATE::TIMESTAMP <> {text}::TIMESTAMP")
            )
        case "TIMESTAMP":
            if found == "TIMESTAMP_NS":
                return SourceColumn(f"{text}::TIMESTAMP", None, f"epoch_ns({text}) % 1000 <> 0")
            return SourceColumn(text if found == "TIMESTAMP" else f"{text}::TIMESTAMP") if found in _TIMESTAMPS else None
    return None


def _read_text(text: str, declared: DataType, wide: str) -> SourceColumn:
    """Where a file carries no types: the text as the declared type, when it is one to the last digit."""
    match declared.name:
        case "TIMESTAMP":
            instant = instant_of_text(text)
            return SourceColumn(instant, f"{text} IS NOT NULL AND {instant} IS NULL", f"regexp_matches({text}, '[.][0-9]{{6}}[0-9]*[1-9]')")
        case "DATE":
            day = f"TRY_CAST({text} AS DATE)"
            return SourceColumn(day, f"{text} IS NOT NULL AND ({day} IS NULL OR {day}::TIMESTAMP IS DISTINCT FROM {instant_of_text(text)})")
        case "BIGINT" | "INTEGER":
            return _tried(text, str(declared), wide, "DECIMAL(38,18)")
        case "DECIMAL":
            return _tried(text, str(declared), wide, f"DECIMAL(38,{38 - declared.precision + declared.scale})")
    return _tried(text, str(declared), wide)


def _tried(text: str, declared: str, wide: str, finest: str | None = None) -> SourceColumn:
    """What can be cast.  finest: a type that keeps every digit; a value that is another one as declared does not fit."""
    tried = f"TRY_CAST({text} AS {declared})"
    rounded = "" if finest is None else f" OR TRY_CAST({tried} AS {finest}) IS DISTINCT FROM TRY_CAST({text} AS {finest})"
    return SourceColumn(tried if declared == wide else f"{tried}::{wide}", f"{text} IS NOT NULL AND ({tried} IS NULL{rounded})")


@dataclass(frozen=True)
class ScanText:
    """The scan of a view in SQL, and its columns: k0.., v, e (None where it is v), bad, i0...

    parts: (scan, examples) of each part of the relation, for an engine that reads them apart.
    reads: the source's columns whose values decide a row; no part of a scan names another.
    """

    sql: str
    keys: tuple[str, ...]
    inputs: tuple[str, ...]
    event_is_visible: bool
    examples: str
    parts: tuple[tuple[str, str], ...]
    reads: tuple[str, ...]

    def events(self, sql: str) -> str:
        """A scan as rows of a sweep's stream: key parts, t, r, e where it is not t, inputs."""
        keys, inputs = "".join(f"{key}, " for key in self.keys), "".join(f", {name}" for name in self.inputs)
        apart = "" if self.event_is_visible else ", e"
        return f"SELECT {keys}coalesce(v, 0) AS t, {EVENT_ROW} AS r{apart}{inputs} FROM ({sql})"


def scan_text(
    view: CompiledView,
    program: SweepProgram,
    relation: Relation,
    earliest: int | None = None,
    before: int | None = None,
    since: int | None = None,
) -> ScanText:
    """Spell the scan of the rows that `program` needs, of the relation and of what is beside it.

    earliest: event times before it are in no window · before: visible instants from it on are not seen ·
    since: visible instants before it are not read, and rejected rows are left out: an earlier run counted them.
    """
    source = view.scan.source
    event_is_visible = not _visible_is_apart(source)
    parts = [_part(view, program, part, event_is_visible, earliest, _least(before, part.before), since) for part in relation.parts]
    keys, inputs = tuple(f"k{i}" for i in range(len(view.scan.keys))), tuple(f"i{n}" for n in range(len(program.inputs)))
    sql, examples = (" UNION ALL ".join(texts) for texts in zip(*parts))
    reads = {name for part in relation.parts for name in _reads(view, program, read_columns(source, part))}
    ordered = tuple(name for name, _ in source.columns if name in reads)
    return ScanText(sql, keys, inputs, event_is_visible, examples, tuple(parts), ordered)


def _reads(view: CompiledView, program: SweepProgram, read: Mapping[str, SourceColumn]) -> set[str]:
    """Columns that decide a row: those that something names, and those that may not fit."""
    source = view.scan.source
    named = {source.event_time, *(column for column, _ in view.scan.keys)}
    named |= {source.available_column} if source.available_column is not None else set()
    expressions = [view.scan.where, *(part for item in program.inputs for part in (item.expression, item.where))]
    named |= {column for typed in expressions if typed is not None for column in typed.columns}
    return named | {name for name, column in read.items() if column.misfit is not None or column.too_fine is not None}


def _part(
    view: CompiledView,
    program: SweepProgram,
    relation: Relation,
    event_is_visible: bool,
    earliest: int | None,
    before: int | None,
    since: int | None,
) -> tuple[str, str]:
    """The scan of one relation, and of the first of its rows that are rejected, as they stand there."""
    source = view.scan.source
    read = read_columns(source, relation)
    place = {name: f"c{i}" for i, (name, _) in enumerate(source.columns)}
    event = place[source.event_time]
    filter_text = duckdb_text(view.scan.where, place.__getitem__) if view.scan.where is not None else None
    inputs, _ = _inputs(program.inputs, place)
    checks = [check for _, check in contract_checks(source, read)] + overflow_checks(view, program)
    fine = [f"f{place[name]}" for name, column in read.items() if column.too_fine is not None]
    rejected = " OR ".join(f"coalesce({check}, FALSE)" for check in checks)
    too_fine = " OR ".join(f"coalesce({name}, FALSE)" for name in fine)
    verdict = f"CASE WHEN {too_fine} THEN {TOO_FINE} WHEN {rejected} THEN {REJECTED} ELSE {GOOD} END" if fine else f"({rejected})"
    arrived = _arrived(source, relation)
    visible = _visible(source, place, event, arrived)
    also = [f"{quote(ARRIVED)} AS {arrived}"] if arrived else []
    columns = read_list(source, read, _reads(view, program, read)) + also
    base = f"SELECT {', '.join(columns)} FROM {relation.text}"
    there = [filter_text and f"({filter_text})", *(f"{place[column]} IS NOT NULL" for column, _ in view.scan.keys)]
    bounds = []
    if earliest is not None:
        bounds.append(f"({event} >= {_instant(earliest)} OR {event} IS NULL OR NOT isfinite({event}))")
    if since is not None:
        bounds.append(_not_before(source, place, arrived, since))
    if before is not None:
        there.append(f"{visible} < {before}")
    if (first := _most(since, relation.since)) is not None:
        there.append(f"{visible} >= {first}")
    kept = " AND ".join(filter(None, there)) or "TRUE"
    bounded = f" WHERE {' AND '.join(bounds)}" if bounds else ""
    judged = f"SELECT *, {verdict} AS bad FROM ({base}){bounded}"
    lifted = [f"{_key(place[column], kind)} AS k{i}" for i, (column, kind) in enumerate(view.scan.keys)]
    lifted += [f"{visible} AS v"]
    if not event_is_visible:
        lifted.append(f"{_micros(event, source.types[source.event_time])} AS e")
    lifted += ["bad::UTINYINT AS bad", *(f"{text} AS i{n}" for n, text in enumerate(inputs))]
    is_bad = "bad <> 0" if fine else "bad"
    chosen = f"{is_bad} OR ({kept})" if since is None else f"NOT ({is_bad}) AND {kept}"
    sql = f"SELECT {', '.join(lifted)} FROM ({judged}) WHERE {chosen}"
    found = {name.lower(): name for name, _ in relation.columns}
    raw = "".join(f", {quote(found[name.lower()])}::VARCHAR AS x{place[name]}" for name in place)  # as it stands in the data
    shown = ", ".join(f"{quote(name)} := x{place[name]}" for name in place)
    base_with_raw = f"SELECT {', '.join(read_list(source, read) + also)}{raw} FROM {relation.text}"
    examples = (
        f"(SELECT struct_pack({shown})::VARCHAR FROM ({judged.replace(base, base_with_raw)}) WHERE {is_bad} LIMIT 3)"
    )
    return sql, examples


def visible_sql(source: EventSource, relation: Relation, since: int | None = None) -> str:
    """The visible instants `v` of the rows of a relation, whether they fit their contract or not.  since: of those from it on."""
    read, place = read_columns(source, relation), {name: f"c{i}" for i, (name, _) in enumerate(source.columns)}
    arrived = _arrived(source, relation)
    columns = [f"{read[name].text} AS {place[name]}" for name in times_of(source)] + ([f"{quote(ARRIVED)} AS {arrived}"] if arrived else [])
    visible = _visible(source, place, place[source.event_time], arrived)
    bounded = "" if since is None else f" WHERE {_not_before(source, place, arrived, since)} AND {visible} >= {since}"
    return f"SELECT {visible} AS v FROM (SELECT {', '.join(columns)} FROM {relation.text}){bounded}"


def times_of(source: EventSource) -> tuple[str, ...]:
    """The columns that say when a row is visible."""
    return (source.event_time,) if source.available_column in (None, source.event_time) else (source.event_time, source.available_column)


def held_sql(source: EventSource, relation: Relation, keys: Sequence[str], had: str, since: str | None, before: str | None) -> str:
    """What stands after FROM to give each row of the table `featreg_served` the rows of a relation that it had, under its number.

    keys: the source's columns that are k0, k1, .. there.  had: a condition · since, before: columns there with bounds of `v`.
    """
    read, place = read_columns(source, relation), {name: f"c{i}" for i, (name, _) in enumerate(source.columns)}
    arrived = _arrived(source, relation)
    there = {name.lower(): name for name, _ in relation.columns}
    columns = [*(quote(name) for name, _ in relation.columns), *read_list(source, read)]
    if arrived:
        columns.append(f"{quote(ARRIVED)} AS {arrived}")
    visible = _visible(source, place, place[source.event_time], arrived)
    more = "".join(f"{quote(name)}, " for name, _ in relation.columns if name in MARKED)
    plain = ", ".join(quote(there[name.lower()]) for name in place)
    plain += f", {quote(ARRIVED)}" if arrived else ""
    lifted = ", ".join(place.values())
    rows = f"SELECT {plain}, {more}{visible} AS {quote(VISIBLE)}, {lifted} FROM (SELECT {', '.join(columns)} FROM {relation.text})"
    types = source.types
    pairs = [(_key(place[column], types[column]), _key(f"featreg_served.k{i}", types[column])) for i, column in enumerate(keys)]
    same = [f"{own} IS NOT DISTINCT FROM {asked}" for own, asked in pairs]
    bounds = [had, *same]
    bounds += [f"{quote(VISIBLE)} >= featreg_served.{since}"] if since else []
    bounds += [f"{quote(VISIBLE)} < featreg_served.{before}"] if before else []
    return f"(SELECT {plain}, featreg_vector FROM ({rows}) JOIN featreg_served ON {' AND '.join(bounds)})"


def read_list(source: EventSource, read: Mapping[str, SourceColumn], wanted: Iterable[str] | None = None) -> list[str]:
    """What a SELECT lists to read the declared columns, c0.. in order: values, then the marks that `contract_checks` looks at.

    wanted: of these columns alone.
    """
    place = {name: f"c{i}" for i, (name, _) in enumerate(source.columns)}
    columns = [f"{read[name].text} AS {place[name]}" for name in place if wanted is None or name in set(wanted)]
    columns += [f"({column.misfit}) AS m{place[name]}" for name, column in read.items() if column.misfit is not None]
    return columns + [f"({column.too_fine}) AS f{place[name]}" for name, column in read.items() if column.too_fine is not None]


def contract_checks(source: EventSource, read: Mapping[str, SourceColumn]) -> list[tuple[str, str]]:
    """(what is wrong, the condition) for all that keeps a row from being a fact: scans and pushes reject by the same ones."""
    place = {name: f"c{i}" for i, (name, _) in enumerate(source.columns)}
    event, name = place[source.event_time], source.event_time
    misfits = [
        (f"{column} does not fit {kind}", f"m{place[column]}") for column, kind in source.columns if read[column].misfit is not None
    ]
    return [
        *misfits,
        (f"{name} is NULL", f"{event} IS NULL"),
        (f"{name} is infinite", f"NOT isfinite({event})"),
        (f"{name} is beyond all calendars", f"abs(epoch_us({event}::TIMESTAMP)) > {LATEST}"),
    ]


def overflow_checks(view: CompiledView, program: SweepProgram) -> list[str]:
    """The conditions under which an expression of a view overflows on a row that its filter keeps."""
    place = {name: f"c{i}" for i, (name, _) in enumerate(view.scan.source.columns)}
    _, overflows = _inputs(program.inputs, place)
    if view.scan.where is None:
        return overflows
    kept, own = duckdb_text(view.scan.where, place.__getitem__), duckdb_overflow(view.scan.where, place.__getitem__)
    return [f"({kept}) AND {overflow}" for overflow in overflows] + ([own] if own else [])


def check_sql(source: EventSource, relation: Relation, readers: Mapping[str, tuple[CompiledView, SweepProgram]]) -> tuple[str, list[str]]:
    """The SQL that judges rows before they are taken in, and the reasons it numbers from 1.

    readers: views of the source by name; a row on which an expression of one overflows is rejected, as its scan would.
    Its columns: the declared ones by their names, `v`, and `bad`: 0, or the number of the first reason.
    """
    read = read_columns(source, relation)
    place = {name: f"c{i}" for i, (name, _) in enumerate(source.columns)}
    checks = [
        (f"{name} has digits below the microsecond", f"f{place[name]}") for name, column in read.items() if column.too_fine is not None
    ]
    checks += contract_checks(source, read)
    for name, (view, program) in readers.items():
        checks += [(f"an expression of {name} is out of range", check) for check in overflow_checks(view, program)]
    cases = " ".join(f"WHEN {check} THEN {number}" for number, (_, check) in enumerate(checks, 1))
    columns = ", ".join(f"{place[name]} AS {quote(name)}" for name in place)
    visible = _visible(source, place, place[source.event_time], None)
    sql = (
        f"SELECT {columns}, {visible} AS {quote(VISIBLE)}, CASE {cases} ELSE 0 END AS {quote(VERDICT)} "
        f"FROM (SELECT {', '.join(read_list(source, read))} FROM {relation.text})"
    )
    return sql, [reason for reason, _ in checks]


def _least(first: int | None, second: int | None) -> int | None:
    return first if second is None else second if first is None else min(first, second)


def _most(first: int | None, second: int | None) -> int | None:
    return first if second is None else second if first is None else max(first, second)


def _inputs(inputs: tuple[Input, ...], place: Mapping[str, str]) -> tuple[list[str], list[str]]:
    texts, overflows = [], []
    for item in inputs:
        where = duckdb_text(item.where, place.__getitem__) if item.where is not None else None
        where_overflow = duckdb_overflow(item.where, place.__getitem__) if item.where is not None else None
        value = duckdb_text(item.expression, place.__getitem__) if item.expression is not None else "TRUE"
        value_overflow = duckdb_overflow(item.expression, place.__getitem__) if item.expression is not None else None
        texts.append(value if where is None else f"CASE WHEN {where} THEN {value} END")
        if where_overflow:
            overflows.append(where_overflow)
        if value_overflow:
            overflows.append(value_overflow if where is None else f"(({where}) AND {value_overflow})")
    return texts, overflows


def _key(column: str, kind: DataType) -> str:
    """Key parts that are instants travel as microseconds."""
    return f"epoch_us({column})" if kind.name == "TIMESTAMP" else column


def _micros(column: str, data_type: DataType) -> str:
    return f"epoch_us({column}::TIMESTAMP)" if data_type.name == "DATE" else f"epoch_us({column})"


def _arrived(source: EventSource, relation: Relation) -> str | None:
    """The column that says when a pushed row arrived, in rows of a push log whose source goes by that."""
    return "arrived" if source.arrives and any(name == ARRIVED for name, _ in relation.columns) else None


def _not_before(source: EventSource, place: Mapping[str, str], arrived: str | None, since: int) -> str:
    """Holds for every row visible from `since` on: in plain comparisons, by which the engine leaves out whole row groups."""
    available = arrived or (place[source.available_column] if source.available_column is not None else None)
    later = f" OR {available} >= {_instant(since)}" if available else ""
    return f"({place[source.event_time]} >= {_instant(since - source.delay_micros)}{later})"


def _visible_is_apart(source: EventSource) -> bool:
    """Whether a row's visible instant is told beside its event time; for all rows of a source alike, those of files and pushed ones."""
    place = {name: name for name in source.types}
    event = source.event_time
    return source.arrives or _visible(source, place, event, None) != f"epoch_us({event})"


def _visible(source: EventSource, place: Mapping[str, str], event: str, arrived: str | None) -> str:
    micros = _micros(event, source.types[source.event_time])
    if arrived is not None:
        return f"greatest({micros}, epoch_us({arrived}))"
    if source.available_column is not None:
        available = place[source.available_column]
        return f"greatest({micros}, {_micros(available, source.types[source.available_column])})"
    return f"({micros} + {source.delay_micros})" if source.delay_micros else micros


def _instant(micros: int) -> str:
    return f"make_timestamp({micros}::BIGINT)"
