"""Bring a run's rows with Spark: executors lift and sort them, the driver writes them to the store as they stream past.

Memory of the driver: a blob of rows and one key's.
"""

from collections.abc import Iterator

import pyarrow as pa

from featreg.engines.kept import from_bytes
from featreg.engines.spark import Rows, Spark
from featreg.engines.spread import PLACED
from featreg.plan.scan_sql import ScanText, scan_text
from featreg.session.distributed import Source, examples_of, rows_of_part
from featreg.session.run_rows import Reading, Run, SortedRows
from featreg.session.sources import SourceFinder
from featreg.session.tasks import SORTED, Lift, PackSorted, stream_fields


def sorted_by_spark(engine: Spark, finder: SourceFinder, run: Run) -> SortedRows:
    """As `sorted_by_duckdb`, but that keys ascend within a partition alone.

    What was sorted is staged by the executors first, so that what is wrong is known before the first write.
    """
    lifts = [lift for reading in run.readings for lift in _lifts(engine, finder, run, reading)]
    scan = lifts[0][1]
    fields = stream_fields([kind for _, kind in run.view.scan.keys], [item.type for item in run.program.inputs], scan.event_is_visible)
    files = [str(finder.profile.root / file) for file in (*run.known_files, *run.new_files)]
    spread = engine.spread(scan.keys, finder.about(files) if files else 0)
    lifted = [
        engine.run(frame, Lift(scan.events(sql), held, fields, spread), PLACED)
        for rows, scan, (sql, _) in lifts
        for frame, held in [engine.chosen(rows, scan.reads)]
    ]
    staged = engine.stage(engine.run(engine.together(lifted, spread), PackSorted(len(scan.keys), fields), SORTED), SORTED)
    engine.done(spread)
    found = engine.collected(staged.where("seq < 0").select("part", "rejected"))

    def batches() -> Iterator[pa.RecordBatch]:
        for part in sorted(one["part"] for one in found):
            for blob in engine.streamed(staged.where(f"part = {part} AND seq >= 0").sort("seq")):
                yield from from_bytes(pa.scalar(blob["rows"])).to_batches()

    def examples() -> list[str]:
        return [row for rows, _, (_, sql) in lifts for row in examples_of(engine, run.view.scan.source, rows, sql)]

    return SortedRows(batches(), scan.event_is_visible, sum(one["rejected"] for one in found), examples)


def _lifts(engine: Spark, finder: SourceFinder, run: Run, reading: Reading) -> Iterator[tuple[Rows, ScanText, tuple[str, str]]]:
    """Each part's rows, with the text of their scan and that of examples."""
    source = Source(tuple(rows_of_part(engine, part) for part in reading.relation.parts), None)
    earliest = None if run.program.longest is None else run.s - run.program.longest
    scan = scan_text(run.view, run.program, source.relation, earliest, reading.before, reading.since)
    for rows, texts in zip(source.parts, scan.parts):
        yield rows, scan, texts
