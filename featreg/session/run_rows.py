"""Say which rows a run brings to the store, and have DuckDB bring them, sorted by key.

Who finds them and brings the same by another engine: see `run_files` and `distributed_runs`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from featreg.compile import CompiledView
from featreg.compile.program import SweepProgram
from featreg.errors import DataError
from featreg.plan.online import plan_run
from featreg.plan.relation import Relation
from featreg.plan.scan_sql import TOO_FINE
from featreg.session.sources import SourceFinder
from featreg.sweep.stream import BATCH_ROWS


@dataclass(frozen=True)
class Reading:
    """Rows to read: visible in `[since, before)`, None is without bound.  files: those that the relation is over, below the root."""

    relation: Relation
    files: tuple[str, ...]
    since: int | None
    before: int | None


@dataclass(frozen=True)
class Run:
    """What a run brings: of known files the rows visible in `[watermark, to)`, of new ones all before `to`, and all that was pushed.

    Only what reads from `s` on can see.
    """

    view: CompiledView
    program: SweepProgram
    known: Relation | None
    new: Relation | None
    pushed: Relation | None
    known_files: tuple[str, ...]
    new_files: tuple[str, ...]
    watermark: int | None
    to: int
    s: int

    @property
    def readings(self) -> list[Reading]:
        """The parts, as an engine reads them that reads them apart."""
        parts = (
            (self.known, self.known_files, self.watermark, self.to),
            (self.new, self.new_files, None, self.to),
            (self.pushed, (), None, None),
        )
        return [Reading(relation, *more) for relation, *more in parts if relation is not None]  # type: ignore[arg-type]


@dataclass(frozen=True)
class SortedRows:
    """Good rows of a run in batches, all of a key in a row and by instant.  Every row has been read: what is wrong is known.

    examples: some rejected rows, as they stand in the data.
    """

    batches: Iterator[pa.RecordBatch]
    event_is_visible: bool
    rejected: int
    examples: Callable[[], Sequence[str]]


def sorted_by_duckdb(finder: SourceFinder, run: Run) -> SortedRows:
    sql, scan = plan_run(run.view, run.program, run.known, run.new, run.watermark, run.to, run.s, run.pushed)
    batches = finder.engine.batches(sql, BATCH_ROWS)
    first, rejected = _without_rejected(batches, run.view.scan.source.name)  # the sort has read every row now

    def examples() -> list[str]:
        scans = (plan_run(run.view, run.program, None, one.relation, run.watermark, run.to, run.s)[1] for one in run.readings)
        return [row[0] for scan in scans for row in finder.engine.rows(scan.examples)]

    return SortedRows(chain(first, batches), scan.event_is_visible, rejected, examples)


def _without_rejected(batches: Iterator[pa.RecordBatch], source: str) -> tuple[list[pa.RecordBatch], int]:
    """The first batch of good rows, and how many rejected ones stood before it.  Raises: DataError for digits below the microsecond."""
    rejected = 0
    for batch in batches:
        verdicts = batch.column("r")
        if pc.min(verdicts).as_py() == -1 - TOO_FINE:
            raise DataError(
                f"source '{source}': an instant has digits below the microsecond; nothing was written.\n"
                "  Write the column in microseconds: date_trunc('microsecond', t), or cast it to timestamp[us]."
            )
        bad = pc.sum(pc.less(verdicts, -1)).as_py()
        rejected += bad
        if bad < batch.num_rows:
            return [batch.slice(bad)], rejected
    return [], rejected
