"""Bring a run's rows with Spark: executors lift and sort them, the driver writes them to the store as they stream past.

Memory of the driver: a blob of rows and one key's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from featreg.define import EventSource
from featreg.engines.kept import from_bytes
from featreg.engines.spark import Rows, Spark
from featreg.engines.spread import PLACED
from featreg.instants import NEVER
from featreg.plan.relation import Relation
from featreg.plan.scan_sql import ScanText, scan_text
from featreg.session.distributed import Source, examples_of
from featreg.session.run_rows import Reading, Run, SortedRows
from featreg.session.tasks import SORTED, Lift, PackSorted, stream_fields


def sorted_by_spark(engine: Spark, run: Run, rows_of: Callable[[Relation], Rows], about: int) -> SortedRows:
    """As `sorted_by_duckdb`, but that keys ascend within a partition alone.

    What was sorted is staged by the executors first, so that what is wrong is known before the first write.
    rows_of: the rows of a part of a relation, for workers · about: how many rows of files there are.
    """
    lifts = [lift for reading in run.readings for lift in _lifts(run, reading, rows_of)]
    scan = lifts[0].scan
    fields = stream_fields([kind for _, kind in run.view.scan.keys], [item.type for item in run.program.inputs], scan.event_is_visible)
    spread = engine.spread(scan.keys, about)
    lifted = [
        engine.run(frame, Lift(one.scan.events(one.sql), held, fields, spread), PLACED)
        for one in lifts
        for frame, held in [engine.chosen(one.rows, one.scan.reads, one.since)]
    ]
    staged = engine.stage(engine.run(engine.together(lifted, spread), PackSorted(len(scan.keys), fields), SORTED), SORTED)
    engine.done(spread)
    found = engine.collected(staged.where("seq < 0").select("part", "rejected"))

    def batches() -> Iterator[pa.RecordBatch]:
        for part in sorted(one["part"] for one in found):
            for blob in engine.streamed(staged.where(f"part = {part} AND seq >= 0").sort("seq")):
                yield from from_bytes(pa.scalar(blob["rows"])).to_batches()

    def examples() -> list[str]:
        return [row for one in lifts for row in examples_of(engine, run.view.scan.source, one.rows, one.examples)]

    return SortedRows(batches(), scan.event_is_visible, sum(one["rejected"] for one in found), examples)


@dataclass(frozen=True)
class _Lifted:
    """A part's rows, and the text of their scan and of examples.  since: (column, instant): rows before it are of no use."""

    rows: Rows
    scan: ScanText
    sql: str
    examples: str
    since: tuple[str, int] | None


def _lifts(run: Run, reading: Reading, rows_of: Callable[[Relation], Rows]) -> Iterator[_Lifted]:
    source = Source(tuple(map(rows_of, reading.relation.parts)), None)
    earliest = None if run.program.longest is None else run.s - run.program.longest
    scan = scan_text(run.view, run.program, source.relation, earliest, reading.before, reading.since)
    since = _first_event(run.view.scan.source, earliest, reading.since)
    for rows, (sql, examples) in zip(source.parts, scan.parts):
        yield _Lifted(rows, scan, sql, examples, since)


def _first_event(source: EventSource, earliest: int | None, since: int | None) -> tuple[str, int] | None:
    """Before which event time no row is read: windows do not reach so far, or it was visible before, where the one follows from the
    other."""
    if since is not None and source.available_column is None and not source.arrives:
        earliest = max(since - source.delay_micros, NEVER if earliest is None else earliest)
    return None if earliest is None else (source.event_time, earliest)
