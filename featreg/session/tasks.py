"""What Spark workers do, one small value a step: lift source rows, ask spine rows, sort and sweep a partition, assemble a block.

Results travel as *fragments*: rows of one view for one *block* of the spine, as an Arrow stream
in a binary column, so that Spark moves bytes and no type changes.  A block is consecutive spine
rows; all fragments of a block meet in one task, which puts them into the spine's order.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featreg.algebra.schedule import OVERFLOW
from featreg.compile.program import SweepProgram
from featreg.engines.kept import Kept, from_bytes, to_bytes
from featreg.engines.spread import Spread, sorted_batches
from featreg.engines.worker import ROWS, Held, InFiles, Told, query_batches
from featreg.expressions import Typed
from featreg.instants import Cadence
from featreg.session.manifest import part_fingerprint
from featreg.session.tables import instants_of, key_column, request_column
from featreg.session.training_set import as_column, cutoffs
from featreg.snapshots.numbers import LIMBS
from featreg.sweep.finish import Column, derive_columns
from featreg.sweep.partition import sweep_stream
from featreg.sweep.stream import BATCH_ROWS, Layout, Tally, accepted
from featreg.vocabulary import DataType

Batches = Iterator[pa.RecordBatch]
PAYLOAD = -1  # the source of a fragment: the spine's own columns; else the number of a lookup
FRAGMENTS = "slot long, block long, source int, events long, rejected long, rows binary"
BLOBS = "block long, rows binary"
STAGED = "number long, file string, start long, count long, low long, high long, rows binary"
SORTED = "part long, seq long, rejected long, rows binary"
NUMBERS = "block long, spine string, " + ", ".join(f"n{number} long" for number in range(1 + LIMBS))
COUNTED, WRITTEN = f"{NUMBERS}, rows binary", f"{NUMBERS}, name string"
FILE, START = "featreg_file", "featreg_start"  # hidden columns of a spine that is read from files

_TYPES = {"long": pa.int64(), "int": pa.int32(), "string": pa.string(), "binary": pa.binary()}


def _one_row(ddl: str, *values: object) -> pa.RecordBatch:
    fields = [column.split() for column in ddl.split(", ")]
    return pa.record_batch(
        [pa.array([value], _TYPES[kind]) for value, (_, kind) in zip(values, fields)], names=[name for name, _ in fields]
    )


def stream_fields(keys: Sequence[DataType], inputs: Sequence[DataType], event_is_visible: bool) -> dict[str, pa.DataType]:
    """The columns of a sweep's rows on their way through Spark: instants as microseconds and dates as days, which no zone can move."""
    fields = {f"k{n}": _carried(kind) for n, kind in enumerate(keys)} | {"t": pa.int64(), "r": pa.int64()}
    fields |= {} if event_is_visible else {"e": pa.int64()}
    return fields | {f"i{n}": _carried(kind) for n, kind in enumerate(inputs)}


def whole_numbers(names: Sequence[str]) -> dict[str, pa.DataType]:
    return dict.fromkeys(names, pa.int64())


def _carried(kind: DataType) -> pa.DataType:
    match kind.widened.name:
        case "BIGINT" | "TIMESTAMP":
            return pa.int64()
        case "DATE":
            return pa.int32()
        case "DOUBLE":
            return pa.float64()
        case "BOOLEAN":
            return pa.bool_()
        case "DECIMAL":
            return pa.decimal128(kind.precision, kind.scale)
    return pa.string()


def in_order(batches: Batches, fields: Mapping[str, pa.DataType]) -> Batches:
    """What was spread to a partition, as a sweep wants it: by key, NULL first, by instant, spine rows before events."""
    keys = "".join(f"{name} NULLS FIRST, " for name in fields if name.startswith("k"))
    return sorted_batches(batches, pa.schema(fields.items()), f"{keys}t, r DESC", BATCH_ROWS)


@dataclass(frozen=True)
class Lift:
    """Source rows in, rows of a sweep's stream out, by the scan's SQL; spread over partitions, or as they are.  rows: how they come."""

    sql: str
    rows: Held | InFiles
    fields: Mapping[str, pa.DataType]
    spread: Spread | None = None

    def __call__(self, batches: Batches) -> Batches:
        lifted = self._lifted(batches)
        return lifted if self.spread is None else self.spread(lifted)

    def _lifted(self, batches: Batches) -> Batches:
        for batch in self.rows.query(self.sql, batches):
            yield pa.record_batch([_as(batch.column(name), kind) for name, kind in self.fields.items()], names=list(self.fields))


def _as(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type == kind:
        return array
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("us", array.type.tz)).cast(pa.int64())
    return array.cast(kind)


@dataclass(frozen=True)
class Numbering:
    """Where each chunk of the spine begins.  bases: None when a chunk's number is its first row."""

    rows: int
    block_rows: int
    slots: tuple[int, ...]
    bases: Mapping[int, int] | None = None

    def base(self, number: int) -> int:
        return number if self.bases is None else self.bases[number]

    def rows_in(self, block: int) -> int:
        return min(self.block_rows, self.rows - block * self.block_rows)

    def chunks(self, batches: Batches) -> Iterator[tuple[int, pa.Table]]:
        """(first row, rows) of each chunk in frames of (number, bytes)."""
        for batch in batches:
            for number, rows in zip(batch.column(0).to_pylist(), batch.column(1)):
                yield self.base(number), from_bytes(rows)

    def fragments(self, source: int, rows: np.ndarray, columns: Mapping[str, pa.Array], kept: Kept) -> Batches:
        """Fragments of rows that ascend."""
        blocks = rows // self.block_rows
        borders = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(rows)]
        whole = pa.record_batch([pa.array(rows), *columns.values()], names=["", *columns])
        for low, high in pairwise(borders):
            if high > low:
                block = int(blocks[low])
                yield _fragment(self.slots[block], block, source, 0, 0, kept.put(whole.slice(low, high - low)))


def _fragment(slot: int, block: int, source: int, events: int, rejected: int, rows: bytes | None) -> pa.RecordBatch:
    return _one_row(FRAGMENTS, slot, block, source, events, rejected, rows)


@dataclass(frozen=True)
class StageSpine:
    """Rows of a spine in, chunks of it out with what the plan must know: how many rows, from when to when.

    files: where its rows are when batches do not hold them · folder: see `Kept`.
    """

    files: InFiles | None
    time: str
    what: str
    folder: str | None

    def __call__(self, batches: Batches) -> Batches:
        number = _partition() << 32
        with Kept(self.folder) as kept:
            for batch in batches if self.files is None else self.files.query(f"SELECT * FROM {ROWS}", batches):
                for file, start, rows in _by_file(batch):
                    as_of = instants_of(rows, self.time, self.what)
                    yield _one_row(STAGED, number, file, start, rows.num_rows, int(as_of.min()), int(as_of.max()), kept.put(rows))
                    number += 1


def _by_file(batch: pa.RecordBatch) -> Iterator[tuple[str, int, pa.Table]]:
    """The rows of a batch, cut where another file or another part of it begins."""
    table = _in_utc(pa.Table.from_batches([batch]))
    if batch.num_rows == 0:
        return
    if FILE not in table.column_names:
        yield "", 0, table
        return
    files, starts = table[FILE].to_pylist(), table[START].to_pylist()
    table = table.drop_columns([FILE, START])
    borders = [0, *(n for n in range(1, len(files)) if (files[n], starts[n]) != (files[n - 1], starts[n - 1])), len(files)]
    for low, high in pairwise(borders):
        yield files[low], starts[low], table.slice(low, high - low)


def _in_utc(table: pa.Table) -> pa.Table:
    """The same instants, without the session's zone as their label."""
    zoned = [field for field in table.schema if pa.types.is_timestamp(field.type) and field.type.tz is not None]
    for field in zoned:
        place = table.schema.get_field_index(field.name)
        table = table.set_column(place, field.name, table.column(place).cast(pa.timestamp(field.type.unit, "UTC")))
    return table


@dataclass(frozen=True)
class Ask:
    """Chunks of the spine in, rows of a sweep's stream out: the key, the cutoff, the row."""

    numbering: Numbering
    time: str
    keys: tuple[tuple[str, DataType], ...]
    cadence: Cadence
    known_at: int | None
    fields: Mapping[str, pa.DataType]
    spread: Spread

    def __call__(self, batches: Batches) -> Batches:
        return self.spread(self._asked(batches))

    def _asked(self, batches: Batches) -> Batches:
        for base, rows in self.numbering.chunks(batches):
            arrays = {f"k{n}": key_column(rows, column, kind, "the spine").combine_chunks() for n, (column, kind) in enumerate(self.keys)}
            arrays["t"] = pa.array(cutoffs(instants_of(rows, self.time, "the spine"), self.cadence, self.known_at))
            arrays["r"] = pa.array(np.arange(base, base + rows.num_rows))
            columns = [_as(arrays[name], kind) if name in arrays else pa.nulls(rows.num_rows, kind) for name, kind in self.fields.items()]
            yield pa.record_batch(columns, names=list(self.fields))


@dataclass(frozen=True)
class Carry:
    """Chunks of the spine in, fragments of some of its columns out."""

    numbering: Numbering
    columns: tuple[str, ...]

    def __call__(self, batches: Batches) -> Batches:
        for base, rows in self.numbering.chunks(batches):
            columns = {f"s{n}": rows[name].combine_chunks() for n, name in enumerate(self.columns)}
            yield from self.numbering.fragments(PAYLOAD, np.arange(base, base + rows.num_rows), columns, Kept(None))


@dataclass(frozen=True)
class SweepPartition:
    """All rows of some keys in, fragments of a lookup's features out, and last what was counted (as of block -1).

    features: (feature of the view, its name in the set) · derived: of the view, each behind what it uses · folder: see `Kept`.
    """

    source: int
    numbering: Numbering
    program: SweepProgram
    layout: Layout
    fields: Mapping[str, pa.DataType]
    features: tuple[tuple[str, str], ...]
    derived: tuple[tuple[str, Typed], ...]
    folder: str | None

    def __call__(self, batches: Batches) -> Batches:
        with Kept(self.folder) as kept:
            yield from self._fragments(batches, kept)

    def _fragments(self, batches: Batches, kept: Kept) -> Batches:
        tally, again = Tally(), 0

        def counted() -> Batches:
            nonlocal again
            for placed in batches:
                again += sum(placed.column(1).to_pylist())
                yield placed

        for swept in sweep_stream(self.program, self.layout, in_order(counted(), self.fields), tally):
            rows, columns = swept.spine_rows, swept.columns
            if self.derived:
                columns |= derive_columns(self.derived, columns, len(rows))
            chosen = {name: columns[feature] for feature, name in self.features}
            refuse_overflow(chosen, rows)
            order = np.argsort(rows)
            arrays = {
                name: Column(column.words[order], column.valid[order], column.type, column.items, column.text).arrow()
                for name, column in chosen.items()
            }
            yield from self.numbering.fragments(self.source, rows[order], arrays, kept)
        yield _fragment(-1, -1, self.source, tally.events - again, tally.rejected, None)


@dataclass(frozen=True)
class PackSorted:
    """All rows of some keys in, the good ones out, sorted, in blobs (seq 0, 1, ...), and last how many were rejected (as of seq -1)."""

    n_keys: int
    fields: Mapping[str, pa.DataType]

    def __call__(self, batches: Batches) -> Batches:
        tally, part, seq = Tally(), _partition(), 0
        for batch, _ in accepted(in_order(batches, self.fields), self.n_keys, tally):
            yield _one_row(SORTED, part, seq, 0, to_bytes(batch))
            seq += 1
        yield _one_row(SORTED, part, -1, tally.rejected, None)


def _partition() -> int:
    from pyspark import TaskContext

    context = TaskContext.get()
    return context.partitionId() if context is not None else 0


def refuse_overflow(columns: Mapping[str, Column], rows: np.ndarray) -> None:
    for name, column in columns.items():
        bad = rows[column.valid == OVERFLOW]
        if len(bad):
            raise Told(overflow=name, row=int(bad.min()))


@dataclass(frozen=True)
class Assemble:
    """All fragments of a block in, its rows out, in the spine's order: the spine's columns, then the set's features.

    carried: the spine's columns that came along · shown: those of them that go out · names: of the features ·
    request: columns of the spine that derived features use · target: the schema for Spark to write; None: one table as bytes.
    """

    numbering: Numbering
    lookups: int
    carried: tuple[str, ...]
    shown: tuple[str, ...]
    names: tuple[str, ...]
    types: Mapping[str, DataType]
    request: tuple[tuple[str, DataType], ...]
    derived: tuple[tuple[str, Typed], ...]
    target: pa.Schema | None = None

    def __call__(self, batches: Batches) -> Batches:
        for block, table in self.blocks(batches):
            if self.target is None:
                yield _one_row(BLOBS, block, to_bytes(table))
            else:
                yield from _cast(table, self.target).to_batches(1 << 14)

    def blocks(self, batches: Batches) -> Iterator[tuple[int, pa.Table]]:
        """A partition's block, where it has one: (its number, its rows)."""
        found: dict[int, list[pa.Table]] = {}
        block = -1
        for batch in batches:
            for here, source, rows in zip(batch.column(1).to_pylist(), batch.column(2).to_pylist(), batch.column(5)):
                assert block in (-1, here), "two blocks in one partition"
                block = here
                found.setdefault(source, []).append(from_bytes(rows))
        if block >= 0:
            yield block, self._assembled(block, found)

    def _assembled(self, block: int, found: dict[int, list[pa.Table]]) -> pa.Table:
        first, count = block * self.numbering.block_rows, self.numbering.rows_in(block)
        columns: dict[str, pa.Array] = {}
        spine: dict[str, pa.Array] = {}
        for source in ([PAYLOAD] if self.carried else []) + list(range(self.lookups)):
            rows = pa.concat_tables(found.pop(source)).combine_chunks()
            numbers = rows.column(0).to_numpy()
            order = np.argsort(numbers)
            assert np.array_equal(numbers[order], np.arange(first, first + count)), "every spine row is met once"
            values = rows.take(pa.array(order)).columns[1:]
            if source == PAYLOAD:
                spine = dict(zip(self.carried, values))
            else:
                columns |= dict(zip(rows.column_names[1:], values))
        columns |= self._derived(columns, pa.table(spine), np.arange(first, first + count))
        return pa.table([*(spine[name] for name in self.shown), *(columns[name] for name in self.names)], names=[*self.shown, *self.names])

    def _derived(self, columns: Mapping[str, pa.ChunkedArray], spine: pa.Table, rows: np.ndarray) -> dict[str, pa.Array]:
        request = {name: request_column(spine, name, kind, "the spine") for name, kind in self.request}
        if not self.derived:
            return {}
        used = {name for _, typed in self.derived for name in typed.columns}
        inputs = {name: as_column(array.combine_chunks(), self.types[name]) for name, array in columns.items() if name in used}
        inputs |= {name: as_column(request[name], kind) for name, kind in self.request}
        made = derive_columns(self.derived, inputs, len(rows))
        refuse_overflow(made, rows)
        return {name: column.arrow() for name, column in made.items()}


def _cast(table: pa.Table, target: pa.Schema) -> pa.Table:
    return pa.table([column.cast(kind) for column, kind in zip(table.columns, target.types)], schema=target)


@dataclass(frozen=True)
class Counting:
    """What rows are: the fingerprint of the spine's columns, and the nine numbers of all of them.  sql: for the numbers."""

    spine: tuple[str, ...]
    sql: str

    def of(self, rows: pa.Table) -> tuple[str, *tuple[int, ...]]:
        (numbers,) = query_batches(self.sql, [rows])
        return part_fingerprint(rows.select(list(self.spine))), *(int(column[0].as_py() or 0) for column in numbers.columns)


@dataclass(frozen=True)
class CountBlock:
    """All fragments of a block in, what its rows are out, and some of their columns when those are sent."""

    assemble: Assemble
    counting: Counting
    sent: tuple[str, ...] | None = None

    def __call__(self, batches: Batches) -> Batches:
        for block, rows in self.assemble.blocks(batches):
            sent = None if self.sent is None else to_bytes(rows.select(list(self.sent)))
            yield _one_row(COUNTED, block, *self.counting.of(rows), sent)


@dataclass(frozen=True)
class WriteBlock:
    """All fragments of a block in, a Parquet file of its rows, and its name out, with what they are when they are counted.

    folder: where executors and driver see it.  Each attempt writes a file of its own; the driver takes the one whose name it gets.
    """

    assemble: Assemble
    folder: str
    schema: pa.Schema
    counting: Counting | None

    def __call__(self, batches: Batches) -> Batches:
        for block, table in self.assemble.blocks(batches):
            name = f"{block}-{uuid.uuid4().hex}"
            pq.write_table(_cast(table, self.schema), Path(self.folder, name))
            counted = [None] * (2 + LIMBS) if self.counting is None else self.counting.of(table)
            yield _one_row(WRITTEN, block, *counted, name)
