"""Put the rows of records of a push log together, in the columns that their source declares now."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from featreg.define import EventSource
from featreg.plan.relation import ARRIVED, END, SEGMENT, Relation, quote
from featreg.plan.scan_sql import duckdb_type
from featreg.registry.pushed import START, Position, Pushed
from featreg.sweep.words import arrow_type


def rows_of(records: Sequence[Pushed], source: EventSource) -> pa.Table:
    """All rows, in order; a column that was declared after they were pushed is NULL in them."""
    table = together(records)
    there = {name.lower() for name in table.column_names}
    for name, kind in source.columns:
        if name.lower() not in there:
            table = table.append_column(name, pa.nulls(table.num_rows, arrow_type(kind)))
    return table


def record_groups(records: Iterator[Pushed], most_rows: int) -> Iterator[list[Pushed]]:
    """Consecutive records, some together while they are small: what is written or hashed at once."""
    group: list[Pushed] = []
    count = 0
    for record in records:
        if group and count + record.rows.num_rows > most_rows:
            yield group
            group, count = [], 0
        group.append(record)
        count += record.rows.num_rows
    if group:
        yield group


def together(records: Sequence[Pushed]) -> pa.Table:
    """All rows, in order, in the columns that they had when they were pushed."""
    return pa.concat_tables([record.rows for record in records], promote_options="permissive")


def with_positions(table: pa.Table, records: Sequence[Pushed]) -> pa.Table:
    """The rows of records, each with the position of its own."""
    counts = [record.rows.num_rows for record in records]
    segments = np.repeat([record.position.segment for record in records], counts)
    ends = np.repeat(np.array([record.position.end for record in records], np.int64), counts)
    return table.append_column(SEGMENT, pa.array(segments, pa.string())).append_column(END, pa.array(ends))


def sealed_rows(source: EventSource, files: Relation, after: Position, to: Position | None) -> Relation:
    """Rows of sealed files of one shape behind a position and up to another; the engine leaves out row groups by them."""
    bounds = [] if after == START else [f"NOT {_up_to(after)}"]
    bounds += [] if to is None else [_up_to(to)]
    there = {name.lower() for name, _ in files.columns}
    missing = [f"NULL::{duckdb_type(kind)} AS {quote(name)}" for name, kind in source.columns if name.lower() not in there]
    bounded = f" WHERE {' AND '.join(bounds)}" if bounds else ""
    text = f"(SELECT {', '.join(['*', *missing])} FROM {files.text}{bounded})"
    new = tuple((name, duckdb_type(kind)) for name, kind in source.columns if name.lower() not in there)
    return replace(files, text=text, columns=(*files.columns, *new), files=None)


def all_rows(source: EventSource, parts: Sequence[Relation], with_marks: bool) -> str:
    """What stands after FROM for the rows of all parts: of each the declared columns."""
    arrived = any(name == ARRIVED for part in parts for name, _ in part.columns)
    texts = []
    for part in parts:
        spelled = {name.lower(): name for name, _ in part.columns}
        columns = [f"{quote(spelled[name.lower()])} AS {quote(name)}" for name, _ in source.columns]
        if arrived:
            columns.append(quote(ARRIVED) if ARRIVED in spelled.values() else f"NULL::TIMESTAMP AS {quote(ARRIVED)}")
        columns += [quote(SEGMENT), quote(END)] if with_marks else []
        texts.append(f"SELECT {', '.join(columns)} FROM {part.text}")
    return f"({' UNION ALL '.join(texts)})"


def _up_to(position: Position) -> str:
    segment, name = "'" + position.segment.replace("'", "''") + "'", quote(SEGMENT)
    return f"({name} < {segment} OR ({name} = {segment} AND {quote(END)} <= {position.end}))"
