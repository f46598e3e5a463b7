"""Check rows that are pushed against their source's contract: the good ones as declared, the others with the reason.

The conditions are those by which a scan rejects rows (plan/scan_sql.py); only the reasons are told here, row by row.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from numbers import Number
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featreg.compile import CompiledView
from featreg.compile.program import SweepProgram
from featreg.define import EventSource
from featreg.engines.duckdb import Warm
from featreg.errors import DataError, UsageError
from featreg.plan.relation import Relation
from featreg.plan.scan_sql import VERDICT, VISIBLE, check_sql
from featreg.session.tables import table_of_frame
from featreg.sweep.words import arrow_type, valid_of
from featreg.vocabulary import DataType

GIVEN = "featreg_given"
_FITS = {  # what a column of dicts may be as a whole; texts are tried as in a JSON file
    "VARCHAR": (pa.types.is_string,),
    "BIGINT": (pa.types.is_integer,),
    "INTEGER": (pa.types.is_integer,),
    "DOUBLE": (pa.types.is_floating, pa.types.is_integer),
    "FLOAT": (pa.types.is_floating, pa.types.is_integer),
    "DECIMAL": (pa.types.is_decimal, pa.types.is_integer),
    "BOOLEAN": (pa.types.is_boolean,),
    "TIMESTAMP": (pa.types.is_timestamp, pa.types.is_date),
    "DATE": (pa.types.is_date,),
}
_FORMS = {"TIMESTAMP": "2013-06-30T21:00:00Z", "DATE": "2013-06-30"}
_NUMBERS = ("BIGINT", "INTEGER", "DOUBLE", "FLOAT", "DECIMAL")
_MOST_SHOWN = 80


@dataclass(frozen=True)
class Rejected:
    """A row that was not taken in: its number in what was given, from 0, why, and the row."""

    row: int
    reason: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Given:
    """Rows as they came, in columns.

    loose: texts stand for other types, as in CSV and JSON · numbers: of the rows in what was given · sent: all of that, where it was dicts.
    """

    table: pa.Table
    loose: bool
    numbers: np.ndarray
    rejected: tuple[Rejected, ...] = ()
    sent: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Checked:
    """Good rows in the declared columns and types, the visible instant of each, and the rejected ones in the order of their rows."""

    table: pa.Table
    visible: np.ndarray
    rejected: tuple[Rejected, ...]


def given_rows(rows: Any, source: EventSource, loose: bool = False) -> Given:
    """Arrow, pandas, Polars, or dicts, as columns.  A dict that lacks a column, or has a value of no such type, is rejected by itself.

    Raises: UsageError for anything else; DataError for a frame that is no table.
    """
    if isinstance(rows, Mapping):
        rows = [rows]
    if isinstance(rows, (list, tuple)) and all(isinstance(row, Mapping) for row in rows):
        return _given_dicts(rows, source)
    try:
        table = table_of_frame(rows)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"the rows pushed to '{source.name}' are no table: {error}.") from None
    if table is None:
        raise UsageError(f"push takes an Arrow table, a pandas or Polars frame, or dicts, and not a {type(rows).__name__}.")
    return _only_text(table, source, loose)


def _only_text(table: pa.Table, source: EventSource, loose: bool) -> Given:
    """Declared columns alone, and only rows whose texts are UTF-8."""
    declared = {name.lower() for name in source.types}
    known = [name for name in table.column_names if name.lower() in declared]
    if not known:
        raise DataError(f"the rows pushed to '{source.name}' have none of its columns.\n  Declared are: {', '.join(source.types)}.")
    table = table.select(known)
    numbers = np.arange(table.num_rows)
    wrong: dict[int, str] = {}
    for name, column in zip(table.column_names, table.columns):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(table.column_names.index(name), name, column.cast(column.type.value_type))
            column = table[name]
        if pa.types.is_string_view(column.type):
            table = table.set_column(table.column_names.index(name), name, column.cast(pa.large_string()))
            column = table[name]
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid:
                wrong |= {row: name for row in _not_text(column)}
    if not wrong:
        return Given(table, loose, numbers)
    good = np.setdiff1d(numbers, list(wrong))
    rejected = tuple(Rejected(row, f"{name} is not UTF-8", {"row": row}) for row, name in sorted(wrong.items()))
    return Given(table.take(pa.array(good)), loose, good, rejected)


def _not_text(column: pa.ChunkedArray) -> list[int]:
    kind = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
    found = []
    for row, value in enumerate(value for chunk in column.chunks for value in chunk.view(kind).to_pylist()):
        try:
            _ = value is None or value.decode()
        except UnicodeDecodeError:
            found.append(row)
    return found


def _given_dicts(rows: Sequence[Mapping[str, Any]], source: EventSource) -> Given:
    spelled = [{name.lower(): value for name, value in row.items() if isinstance(name, str)} for row in rows]
    wrong: dict[int, str] = {}
    columns: dict[str, list] = {}
    for name, _ in source.columns:
        lower = name.lower()
        columns[name] = [row.get(lower) for row in spelled]
        wrong |= {n: f"column '{name}' is missing; write null for none" for n, row in enumerate(spelled) if lower not in row}
    arrays = {}
    for name, kind in source.columns:
        array = _whole(columns[name], kind)
        if array is None:
            texts: list[str | None] = []
            for n, value in enumerate(columns[name]):
                try:
                    texts.append(None if value is None else _text(value, kind))
                except (TypeError, ValueError):
                    form = f"; write it as {_FORMS[kind.name]}" if kind.name in _FORMS else ""
                    wrong.setdefault(n, f"{name} does not fit {kind}: {_shown(value)} is of type {type(value).__name__}{form}")
                    texts.append(None)
            array = pa.array(texts, pa.string())
        arrays[name] = array
    table, numbers = pa.table(arrays), np.arange(len(rows))
    if not wrong:
        return Given(table, True, numbers, sent=rows)
    good = np.setdiff1d(numbers, list(wrong))
    rejected = tuple(Rejected(row, reason, rows[row]) for row, reason in sorted(wrong.items()))
    return Given(table.take(pa.array(good)), True, good, rejected, rows)


def _whole(values: list, kind: DataType) -> pa.Array | None:
    """The column at once; None when its values have to be looked at one by one, as where Arrow would take a number for an instant."""
    types = set(map(type, values))
    if (bool in types and kind.name != "BOOLEAN") or (kind.name in _FORMS and any(issubclass(one, Number) for one in types)):
        return None
    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, OverflowError):
        return None
    if pa.types.is_null(array.type):
        return array.cast(arrow_type(kind))
    return array if pa.types.is_string(array.type) or any(fits(array.type) for fits in _FITS[kind.name]) else None


def _text(value: Any, kind: DataType) -> str:
    """The text that is then tried as the declared type, as any text is, so that no row is judged by those beside it.

    Raises: TypeError, ValueError for what can be no such value: a bare number is no time, for nothing says if it counts seconds.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        value.encode()  # not half a surrogate pair
        return value
    if kind.name in _FORMS and isinstance(value, date):
        return value.isoformat()
    if kind.name == "BOOLEAN" and isinstance(value, bool):
        return str(value)
    if kind.name in _NUMBERS and isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return str(value)
    raise TypeError


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}…"


class Checker:
    """Checks rows for one source as it is applied, with everything kept that does not depend on the rows.

    readers: the views of the source, by name.
    """

    def __init__(self, warm: Warm, source: EventSource, readers: Mapping[str, tuple[CompiledView, SweepProgram]]):
        self.warm, self.source, self.readers = warm, source, readers
        self._known: dict[tuple[str, bool], tuple[str, list[str]]] = {}
        self.fields = [pa.field(name, arrow_type(kind.widened)) for name, kind in source.columns]
        self.misfits = {f"{name} does not fit {kind}": name.lower() for name, kind in source.columns}

    def check(self, given: Given) -> Checked:
        """Raises: DataError when a declared column is not there, or is of a type that cannot be read as the declared one."""
        shape = str(given.table.schema), given.loose
        if shape not in self._known:
            relation: Relation = self.warm.describe(GIVEN, given.table, given.loose)
            self._known[shape] = check_sql(self.source, relation, self.readers)
        sql, reasons = self._known[shape]
        judged = self.warm.ask(sql, GIVEN, given.table)
        verdicts, visible = judged[VERDICT].to_numpy(), judged[VISIBLE]
        rejected = given.rejected
        table = judged.select([name for name, _ in self.source.columns])
        if verdicts.any():
            bad = np.flatnonzero(verdicts)
            numbers = given.numbers[bad].tolist()
            rows = given.table.take(pa.array(bad)).to_pylist() if given.sent is None else [given.sent[n] for n in numbers]
            found = [Rejected(n, self._why(reasons[verdict - 1], row), row) for n, verdict, row in zip(numbers, verdicts[bad], rows)]
            rejected = tuple(sorted((*rejected, *found), key=lambda one: one.row))
            good = pa.array(np.flatnonzero(verdicts == 0))
            table, visible = table.take(good), visible.take(good)
        return Checked(table.cast(pa.schema([self._field(table, one) for one in self.fields])), visible.to_numpy(), rejected)

    def _why(self, reason: str, row: Mapping[str, Any]) -> str:
        """The reason, with the value that does not fit."""
        if reason not in self.misfits:
            return reason
        value = next(value for name, value in row.items() if isinstance(name, str) and name.lower() == self.misfits[reason])
        return f"{reason}: {_shown(value)}"

    def _field(self, table: pa.Table, wanted: pa.Field) -> pa.Field:
        """Instants travel without a zone, as DuckDB writes them."""
        return pa.field(wanted.name, pa.timestamp("us")) if pa.types.is_timestamp(wanted.type) else wanted


def rows_id(checked: Checked) -> str:
    """SHA-256 of what was given, good rows and rejected ones: whether a push is the one that had its id before."""
    found = hashlib.sha256()
    for field, column in zip(checked.table.schema, checked.table.columns):
        array = column.combine_chunks()
        found.update(f"{field.name} {field.type} {len(array)};".encode())
        found.update(np.packbits(valid_of(array)).tobytes())
        if pa.types.is_string(field.type):
            texts = pc.fill_null(array, "")
            found.update(pc.binary_length(texts).to_numpy().tobytes())
            found.update("".join(texts.to_pylist()).encode())
        elif pa.types.is_boolean(field.type):
            found.update(pc.fill_null(array, False).to_numpy(zero_copy_only=False).tobytes())
        elif pa.types.is_decimal(field.type):
            found.update("".join(map(str, array.to_pylist())).encode())
        else:
            width = field.type.bit_width
            words = pc.fill_null(array.view(pa.int64() if width == 64 else pa.int32()), 0)
            found.update(words.to_numpy().tobytes())
    for one in checked.rejected:
        found.update(json.dumps([one.row, one.reason, repr(sorted(one.values.items()))]).encode())
    return found.hexdigest()
