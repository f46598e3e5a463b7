"""Fill a staged spine with Spark: sweep each lookup's partitions, whose results wait to be put together (see `filled`).

The driver holds the plan, counts and what it was handed; rows go from executor to executor.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from featreg.compile import CompiledSet, CompiledView, Lookup
from featreg.compile.program import SweepProgram
from featreg.define import EventSource
from featreg.engines.spark import Overflown, Rows, Spark, is_frame
from featreg.engines.spread import PLACED, Split
from featreg.errors import RejectedRowsError
from featreg.plan.relation import Relation, quote
from featreg.plan.scan_sql import ScanText, scan_text
from featreg.session.filled import DistributedTrainingSet, Filling, overflow_of
from featreg.session.manifest import training_manifest
from featreg.session.sources import SourceFinder
from featreg.session.staged_spine import StagedSpine
from featreg.session.tables import request_column
from featreg.session.tasks import (
    FRAGMENTS,
    Ask,
    Lift,
    SweepPartition,
    stream_fields,
)
from featreg.session.training_set import ViewReceipt, cutoffs, needed_of, program_of
from featreg.snapshots.manifest import Snapshot
from featreg.sweep.stream import Layout
from featreg.sweep.warm import BACKFILL, compile_for

if TYPE_CHECKING:

    from featreg.session.registry import Registry

def distributed_training_set(
    registry: "Registry", compiled: CompiledSet, views: Mapping[str, CompiledView], finder: SourceFinder, staged: "StagedSpine",
    batched: Mapping[str, int | None], known_at: int | None, revision: dict[str, Any], asked: dict[str, Any],
    snapshots: Mapping[str, Snapshot], progress: Callable[[str, int], None] | None,
) -> "DistributedTrainingSet":  # fmt: skip
    """What `Registry.training_set` gives with Spark.  batched: by view, see `SourceFinder.batched_until`."""
    engine = registry.spark

    def source_of(view: CompiledView) -> Source:
        return _source_of(engine, finder, view, batched[view.name])

    filling = fill_with_spark(engine, compiled, views, source_of, staged, known_at, progress)
    facts = training_manifest(
        compiled, revision, finder.files, registry.root, staged.table, staged, filling.receipts, asked, snapshots, engine="spark"
    )
    return DistributedTrainingSet(filling, facts, filling.receipts)


@dataclass(frozen=True)
class Source:
    """A source's rows for workers: the parts that stand beside each other, and how a scan is spelled over them.

    about: how many rows; None when only Spark could say.
    """

    parts: tuple[Rows, ...]
    about: int | None

    @property
    def relation(self) -> Relation:
        whole: Relation | None = None
        for part in reversed(self.parts):
            whole = replace(part.relation, beside=whole)
        assert whole is not None
        return whole


def _source_of(engine: Spark, finder: SourceFinder, view: CompiledView, batched: int | None) -> Source:
    source = view.scan.source
    name = source.name
    if is_frame(finder.given.get(name)):
        return Source((engine.frame_rows(finder.given[name]),), None)
    location = finder.profile.sources.get(name)
    if name in finder.given or name in finder.placed or location is None or not engine.reads_itself(location):
        relation, about = finder.find(source, batched)
        return Source(tuple(rows_of_part(engine, part) for part in relation.parts), about)
    found, log = engine.located(name, location), finder.log_of(source)
    finder.files[name] = []
    if log is None:
        return Source((found,), None)
    pushed = finder.pushed_rows(source, log[0], batched)
    bounded = finder.before_the_stream(source, found.relation, pushed)
    return Source((replace(found, relation=bounded), rows_of_part(engine, pushed)), None)


def rows_of_part(engine: Spark, part: Relation) -> Rows:
    """Rows that the driver's DuckDB has found: in files, by a query, or in a table that it holds."""
    table = next((table for name, table in engine.duckdb.tables.items() if quote(name) == part.text), None)
    rows = engine.files(part) if table is None else engine.given(table)
    return replace(rows, relation=replace(rows.relation, since=part.since, before=part.before))


def fill_with_spark(
    engine: Spark,
    compiled: CompiledSet,
    views: Mapping[str, CompiledView],
    source_of: Callable[[CompiledView], Source],
    spine: StagedSpine,
    known_at: int | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> "Filling":
    """Sweep every lookup; results are staged by the executors.  Raises: as `training_set.fill` does."""
    for name, kind in compiled.request:
        request_column(spine.schema.empty_table(), name, kind, "the spine")
    staged, receipts = [], []
    for number, lookup in enumerate(compiled.lookups):
        view = views[lookup.view]
        fragments, receipt = _look_up(engine, number, lookup, view, source_of(view), spine, known_at)
        staged.append(fragments)
        receipts.append(receipt)
        if progress is not None:
            progress(view.name, receipt.events)
    return Filling(engine, compiled, views, spine, tuple(staged), tuple(receipts))


def _look_up(engine: Spark, number: int, lookup: Lookup, view: CompiledView, source: Source, spine: StagedSpine, known_at: int | None):
    began = time.perf_counter()
    needed, features = needed_of(lookup, view), view.by_name
    program = program_of(view, needed)
    if engine.is_local:
        compile_for(BACKFILL, [program])  # once here, not in every worker
    key_types = tuple(kind for _, kind in view.scan.keys)
    first, last = cutoffs(np.array([spine.first, spine.last]), view.cadence, known_at).tolist()
    earliest = None if program.longest is None else first - program.longest
    scan = scan_text(view, program, source.relation, earliest, last if known_at is None else min(last, known_at))
    input_types = tuple(item.type for item in program.inputs)
    fields = stream_fields(key_types, input_types, scan.event_is_visible)
    split = _split(engine, program, scan, first, last)
    spread = engine.spread(scan.keys, None if source.about is None else source.about + len(spine), split)
    keys = tuple(zip(lookup.spine_columns, (kind for _, kind in view.key)))
    since = None if earliest is None else (view.scan.source.event_time, earliest)
    events = []
    for rows, (sql, _) in zip(source.parts, scan.parts):
        frame, held = engine.chosen(rows, scan.reads, since)
        events.append(engine.run(frame, Lift(scan.events(sql), held, fields, spread), PLACED))
    asked = engine.run(spine.chunks, Ask(spine.numbering, spine.time, keys, view.cadence, known_at, fields, spread), PLACED)
    derived = tuple((name, typed) for name in needed if (typed := features[name].derived) is not None)
    layout = Layout(key_types, input_types, scan.event_is_visible)
    task = SweepPartition(number, spine.numbering, program, layout, fields, lookup.features, derived, engine.folder("swept"))
    together = engine.together([*events, asked], spread)
    try:
        fragments = engine.stage(engine.run(together, task, FRAGMENTS), FRAGMENTS)
    except Overflown as error:
        raise overflow_of(engine, error, lookup, spine) from None
    finally:
        engine.done(spread)
    counted = engine.collected(fragments.where("block < 0").select("events", "rejected"))
    event_count, rejected = sum(one["events"] for one in counted), sum(one["rejected"] for one in counted)
    found = (examples_of(engine, view.scan.source, rows, sql) for rows, (_, sql) in zip(source.parts, scan.parts)) if rejected else ()
    examples = tuple(example for some in found for example in some)[:3]
    if rejected > view.scan.source.max_rejected:
        raise RejectedRowsError(view.scan.source.name, rejected, view.scan.source.max_rejected, examples)
    receipt = ViewReceipt(view.name, event_count, rejected, examples, time.perf_counter() - began)
    return fragments.where("block >= 0"), receipt


def _split(engine: Spark, program: SweepProgram, scan: ScanText, first: int, last: int) -> Split | None:
    """Cut keys in time, so that one is more than one task's work: as the profile says, and a view without a key for every core.

    Nothing is cut into parts shorter than the longest window: each part reads that much of what is before it once more.
    first, last: of the cutoffs.
    """
    wanted = engine.split or (1 if scan.keys else engine.cores)
    if program.longest is None or (parts := min(wanted, (last - first) // max(program.longest, 1))) < 2:
        return None
    borders = tuple(first + (last - first) * part // parts for part in range(1, parts))
    return Split(borders, program.longest, "t" if scan.event_is_visible else "e")


def examples_of(engine: Spark, source: EventSource, rows: Rows, sql: str) -> list[str]:
    """Three rejected rows, as they stand in the data.  sql: a scan's text for them."""
    frame, held = engine.chosen(rows, [name for name, _ in source.columns])
    task = Lift(f"SELECT * FROM {sql} AS told (example)", held, {"example": pa.string()})
    return [one["example"] for one in engine.collected(engine.run(frame, task, "example string").limit(3))]
