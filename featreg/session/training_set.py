"""Fill a spine with a feature set: plan, backfill each view, derive, put together in declared order."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from featreg.algebra.schedule import OVERFLOW
from featreg.compile import CompiledSet, CompiledView, Lookup
from featreg.compile.program import SweepProgram, build_program
from featreg.engines.duckdb import DuckDB
from featreg.errors import OverflowDataError, RejectedRowsError, UsageError
from featreg.instants import Cadence, format_instant
from featreg.plan.offline import plan_backfill
from featreg.plan.relation import Relation
from featreg.session.order import in_order
from featreg.session.tables import instants_of, key_column, request_column
from featreg.sweep.backfill import backfill
from featreg.sweep.finish import Column, derive_columns
from featreg.sweep.stream import write_words
from featreg.sweep.warm import BACKFILL, FINISH, compile_for
from featreg.vocabulary import DataType

if TYPE_CHECKING:
    import pandas
    import polars

    from featreg.session.keeping import Keeper

SPINE = "featreg_spine"


@dataclass(frozen=True)
class ViewReceipt:
    """What a backfill of one view read: events, rejected rows with examples, seconds."""

    view: str
    events: int
    rejected: int
    examples: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class TrainingSet:
    """The spine with its features, and a manifest that says what made it.  n spine rows in, n rows out, same order.

    facts: the manifest but for what the rows themselves have to be read for.
    """

    table: pa.Table
    facts: Mapping[str, Any]
    receipts: tuple[ViewReceipt, ...] = field(default=())
    keeper: "Keeper | None" = field(default=None, repr=False, compare=False)  # who writes and records it; nobody for a draft

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """What made it.  With its id and content id, but for a draft; they are worked out when this is first asked for."""
        return self.facts if self.keeper is None else self.keeper.named(self.table, self.facts)

    def __len__(self) -> int:
        return self.table.num_rows

    def to_arrow(self) -> pa.Table:
        return self.table

    def to_pandas(self) -> "pandas.DataFrame":
        return self.table.to_pandas()

    def to_polars(self) -> "polars.DataFrame":
        import polars

        return polars.from_arrow(self.table)  # type: ignore[return-value]

    def write(self, path: str | Path) -> Path:
        """Write Parquet or CSV by the ending, and the manifest beside it as `<path>.manifest.json`.

        Both are written whole or not at all.  The log holds what made it, so that `featreg reproduce ID` can make it again; a draft
        is written and no more.
        """
        if self.keeper is not None:
            return self.keeper.write(self.table, self.manifest, Path(path))
        from featreg.session.output import write_training_set

        return write_training_set(self.table, self.manifest, Path(path))

    def _repr_html_(self) -> str:
        return self.table.slice(0, 20).to_pandas().to_html()


@dataclass(frozen=True)
class Spine:
    """The rows to fill: a table, and the as-of instant of each in UTC microseconds."""

    table: pa.Table
    as_of: np.ndarray


def check_spine(table: pa.Table, time: str, compiled: CompiledSet) -> Spine:
    """Raises: DataError for what is missing or does not fit; UsageError when a feature is called like a spine column."""
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise UsageError(f"the spine has two columns called '{twice[0]}'. Rename one.")
    lower = {name.lower(): name for name in table.column_names}
    for name in compiled.names:
        if name.lower() in lower:
            raise UsageError(
                f"feature '{name}' is called like the spine's column '{lower[name.lower()]}'.\n"
                f"  Leave that column out of the spine, or tell them apart with .prefix(...) in the set '{compiled.name}'."
            )
    return Spine(table, instants_of(table, time, "the spine"))


def cutoffs(as_of: np.ndarray, cadence: Cadence, known_at: int | None) -> np.ndarray:
    """The cutoff of each row; the same rule as `Cadence.cutoff`, over an array.

    With `known_at`, a run that had not finished by then is not seen: the newest one before it is.
    """
    if cadence.is_realtime:
        return as_of
    runs = (as_of - cadence.delay - cadence.offset) // cadence.period * cadence.period + cadence.offset
    if known_at is None:
        return runs
    return np.minimum(runs, (known_at - cadence.offset) // cadence.period * cadence.period + cadence.offset)


def fill(
    engine: DuckDB,
    compiled: CompiledSet,
    views: Mapping[str, CompiledView],
    relation_of: Callable[[CompiledView], tuple[Relation, int]],
    spine: Spine,
    known_at: int | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> tuple[pa.Table, tuple[ViewReceipt, ...]]:
    """The spine's columns, then the set's features.  relation_of: view -> its source's rows and about how many."""
    rows = spine.table.num_rows
    columns: dict[str, Column] = {}
    receipts = []
    _compile(compiled, views)
    for lookup in compiled.lookups:
        view = views[lookup.view]
        found, receipt = look_up(engine, lookup, view, relation_of(view), spine, known_at, progress)
        columns |= found
        receipts.append(receipt)
    _refuse_overflow(compiled, columns, spine)
    if compiled.derived:
        inputs = dict(columns)
        for name, kind in compiled.request:
            array = request_column(spine.table, name, kind, "the spine")
            inputs[name] = as_column(array, kind)
        columns |= derive_columns(in_order(compiled), inputs, rows)
        _refuse_overflow(compiled, columns, spine)
    else:
        for name, kind in compiled.request:
            request_column(spine.table, name, kind, "the spine")
    table = spine.table
    for name in compiled.names:
        table = table.append_column(name, columns.pop(name).arrow())
    return table, tuple(receipts)


def _compile(compiled: CompiledSet, views: Mapping[str, CompiledView]) -> None:
    """Compile on all cores what filling takes, where it never was."""
    programs = (program_of(views[lookup.view], needed_of(lookup, views[lookup.view])) for lookup in compiled.lookups)
    compile_for((*BACKFILL, *(FINISH if compiled.derives(views) else ())), programs)


def needed_of(lookup: Lookup, view: CompiledView) -> tuple[str, ...]:
    return view.closure(tuple(feature for feature, _ in lookup.features))


def program_of(view: CompiledView, needed: Sequence[str]) -> SweepProgram:
    return build_program(view, tuple(name for name in needed if view.by_name[name].aggregation))


def as_column(array: pa.Array, kind: DataType) -> Column:
    """A request column as the sweep's words; doubles as plain bits."""
    writer = write_words([array], [kind.widened], len(array))
    words = writer.words[0]
    if kind.widened.name == "DOUBLE":
        words = words ^ ((words >> 63) & 0x7FFFFFFFFFFFFFFF)
    return Column(words, writer.valid[0], kind.widened, np.zeros(0, np.int64), writer.text())


def look_up(
    engine: DuckDB, lookup: Lookup, view: CompiledView, source: tuple[Relation, int], spine: Spine, known_at: int | None,
    progress: Callable[[str, int], None] | None,
) -> tuple[dict[str, Column], ViewReceipt]:  # fmt: skip
    """The features of one lookup for the spine's rows, by their names in it."""
    began = time.perf_counter()
    relation, about = source
    needed, features = needed_of(lookup, view), view.by_name
    program = program_of(view, needed)
    cut = cutoffs(spine.as_of, view.cadence, known_at)
    rows = spine.table.num_rows
    arrays = {
        f"k{i}": key_column(spine.table, column, kind, "the spine")
        for i, (column, (_, kind)) in enumerate(zip(lookup.spine_columns, view.key))
    }
    keyed = pa.table(arrays | {"t": pa.array(cut), "r": pa.array(np.arange(rows, dtype=np.int32))})
    engine.register(SPINE, keyed)
    try:
        first, last = (int(cut.min()), int(cut.max())) if rows else (0, 0)
        plan = plan_backfill(view, program, relation, SPINE, first, last, about + rows, known_at)
        filled = backfill(engine, plan, rows, engine.threads, None if progress is None else lambda n: progress(view.name, n))
    finally:
        engine.unregister(SPINE)
    examples = tuple(row[0] for row in engine.rows(plan.scan.examples)) if filled.tally.rejected else ()
    if filled.tally.rejected > view.scan.source.max_rejected:
        raise RejectedRowsError(view.scan.source.name, filled.tally.rejected, view.scan.source.max_rejected, examples)
    columns = {
        column.name: Column(filled.results.words[i], filled.results.valid[i], column.type, filled.items, filled.text)
        for i, column in enumerate(program.columns)
    }
    derived = [(name, typed) for name in needed if (typed := features[name].derived) is not None]
    if derived:
        columns |= derive_columns(derived, columns, rows)
    receipt = ViewReceipt(view.name, filled.tally.events, filled.tally.rejected, examples, time.perf_counter() - began)
    return {name: columns[feature] for feature, name in lookup.features}, receipt


def _refuse_overflow(compiled: CompiledSet, columns: Mapping[str, Column], spine: Spine) -> None:
    for name, column in columns.items():
        bad = np.flatnonzero(column.valid == OVERFLOW)
        if len(bad):
            row = int(bad[0])
            lookup = next((one for one in compiled.lookups if any(called == name for _, called in one.features)), None)
            key = {part: spine.table[part][row].as_py() for part in (lookup.spine_columns if lookup else ())}
            raise OverflowDataError(name, key, format_instant(int(spine.as_of[row])))
