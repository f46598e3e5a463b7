"""Fill a spine: for each row what serving would have answered at its cutoff.

The engine brings spine and events together by key, sorted; workers sweep ranges of
keys side by side.  Memory: results, one bucket's sort, which the engine spills, and
for each worker a few batches and one key's live tiles.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Queue
from threading import Thread
from typing import Protocol

import numpy as np
import pyarrow as pa

from featreg.algebra.schedule import TOP_OUT_HEAP, TOP_OUT_TEXT
from featreg.compile.program import SweepProgram
from featreg.plan.offline import OfflinePlan
from featreg.sweep.gather import Found, Gathering
from featreg.sweep.stream import BATCH_ROWS, Layout, Tally, accepted, first_border, make_chunk
from featreg.sweep.sweeper import Results, Sweeper
from featreg.sweep.warm import BACKFILL, compile_for
from featreg.sweep.words import to_arrow
from featreg.vocabulary import DataType


class Engine(Protocol):
    """What the sweep asks of an engine: the rows of a query, in its order."""

    def batches(self, sql: str, rows: int) -> Iterator[pa.RecordBatch]: ...


@dataclass
class Filled:
    """Results of a backfill: words and validity by column and spine row, pools, and what was counted."""

    results: Results
    items: np.ndarray
    text: np.ndarray
    tally: Tally

    def column(self, place: int, kind: DataType) -> pa.Array:
        return to_arrow(self.results.words[place], self.results.valid[place], kind, self.items, self.text)


def backfill(engine: Engine, plan: OfflinePlan, rows: int, threads: int, progress: Callable[[int], None] | None = None) -> Filled:
    """Run the plan's buckets for a spine of `rows` rows."""
    program, n_keys, tally = plan.program, len(plan.key_types), Tally()
    layout = Layout(plan.key_types, tuple(item.type for item in program.inputs), plan.event_is_visible)
    compile_for(BACKFILL, [program])
    gathering = Gathering(len(program.columns), rows)
    crew = [_Worker(program, layout, gathering) for _ in range(max(1, threads))]
    try:
        for sql in plan.buckets:
            at_work = 0
            for batch, continues in accepted(engine.batches(sql, BATCH_ROWS), n_keys, tally):
                border = first_border(batch, n_keys) if continues else 0
                if border > 0:
                    crew[at_work].give(batch.slice(0, border), True)
                if border < batch.num_rows:
                    at_work = (at_work + 1) % len(crew)
                    crew[at_work].give(batch.slice(border), False)
                if progress is not None:
                    progress(batch.num_rows)
    finally:
        for worker in crew:
            worker.end()
    for worker in crew:
        worker.raise_failure()
    tally.events = sum(worker.events for worker in crew)
    items, text = gathering.finish(program, [worker.found() for worker in crew], threads)
    return Filled(gathering.results, items, text, tally)


class _Worker:
    """A thread with a sweeper of its own.  A key is swept by one worker, for what continues goes to who began it."""

    def __init__(self, program: SweepProgram, layout: Layout, gathering: Gathering):
        self.sweeper, self.layout, self.gathering = Sweeper(program, gathering.results), layout, gathering
        self.stretches: list[slice] = []
        self.events = 0
        self.failure: BaseException | None = None
        self.queue: Queue[tuple[pa.RecordBatch, bool] | None] = Queue(maxsize=2)
        self.thread = Thread(target=self._work, name="featreg sweep", daemon=True)
        self.thread.start()

    def give(self, batch: pa.RecordBatch, continues: bool) -> None:
        """Hand over rows; waits while two batches are waiting.  Raises what the worker failed with."""
        self.raise_failure()
        self.queue.put((batch, continues))

    def end(self) -> None:
        self.queue.put(None)
        self.thread.join()

    def raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure

    def found(self) -> Found:
        tops = self.sweeper.tops
        return Found(self.stretches, self.sweeper.out_heap[: tops[TOP_OUT_HEAP]], self.sweeper.out_text[: tops[TOP_OUT_TEXT]])

    def _work(self) -> None:
        while (given := self.queue.get()) is not None:
            if self.failure is None:
                try:
                    self._sweep(*given)
                except BaseException as error:  # told to the thread that waits
                    self.failure = error

    def _sweep(self, batch: pa.RecordBatch, continues: bool) -> None:
        chunk = make_chunk(batch, self.layout)
        asked = np.flatnonzero(chunk.spine_row >= 0)
        stretch = self.gathering.take(chunk.spine_row[asked])
        chunk.spine_row[asked] = np.arange(stretch.start, stretch.stop)
        self.sweeper.feed(chunk, continues)
        self.stretches.append(stretch)
        self.events += len(chunk.spine_row) - len(asked)
