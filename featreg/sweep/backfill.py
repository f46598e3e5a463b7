"""Fill a spine: for each row what serving would have answered at its cutoff.

The engine scans the events and the spine rows of a bucket of keys; they are held as
words, dealt into shares of the keys, and workers bring each share together and sweep it.
A bucket of few rows, or one that turns out larger than was planned, is sorted by the
engine instead, which spills, and swept as a stream.  Memory: results and one bucket, or results, a few batches
and one key's live tiles.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Queue
from threading import Thread
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featreg.algebra.schedule import TOP_OUT_HEAP, TOP_OUT_TEXT, Chunk
from featreg.compile.program import SweepProgram, program_in_order
from featreg.plan.offline import BUCKET_BYTES, Bucket, OfflinePlan
from featreg.sweep.asked import AskedKeys
from featreg.sweep.gather import Found, Gathering
from featreg.sweep.shares import Shares, share_bits_for
from featreg.sweep.stream import BATCH_ROWS, Layout, Tally, accepted, first_border, make_chunk, shifts, without_rejected
from featreg.sweep.sweeper import Results, Sweeper
from featreg.sweep.together import chunk_of
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
    program, tally = plan.program, Tally()
    layout = Layout(plan.key_types, tuple(item.type for item in program.inputs), plan.event_is_visible)
    in_order = program_in_order(program) or program if plan.room else program
    compile_for(BACKFILL, [in_order])
    gathering = Gathering(len(program.columns), rows)
    crew = [_Worker(program, in_order, gathering) for _ in range(max(1, threads))]
    try:
        for bucket in plan.buckets:
            held = _hold(engine, plan, bucket, layout, rows, tally, progress) if plan.room else None
            if held is None:
                _sort_and_sweep(engine, bucket, layout, crew, tally, progress)
            else:
                _sweep_shares(*held, layout, crew)
    finally:
        for worker in crew:
            worker.end()
    for worker in crew:
        worker.raise_failure()
    items, text = gathering.finish(program, [found for worker in crew for found in worker.found()], threads)
    return Filled(gathering.results, items, text, tally)


def _hold(
    engine: Engine, plan: OfflinePlan, bucket: Bucket, layout: Layout, rows: int, tally: Tally, progress: Callable[[int], None] | None
) -> tuple[Shares, Shares, int] | None:
    """A bucket's events, its spine rows and how many keys they ask for; None when there are many more events than was planned for."""
    n_keys, share_bits, keys = len(layout.keys), share_bits_for(plan.bucket_rows), AskedKeys(layout.keys)
    spine = Shares(2, (), share_bits, rows, 0)
    for batch in engine.batches(bucket.spine, BATCH_ROWS):
        spine.put(keys.name(batch.columns[:n_keys], batch.num_rows), batch.columns[n_keys:])
    instants = 1 if layout.event_is_visible else 2
    events = Shares(instants, layout.inputs, share_bits, plan.room, BUCKET_BYTES // 4)
    counted = Tally()
    for batch in engine.batches(bucket.events, BATCH_ROWS):
        batch = without_rejected(batch, n_keys + 1, counted)
        counted.events += batch.num_rows
        found = keys.find(batch.columns[:n_keys], batch.num_rows)
        if not events.put(found, [batch.column(n_keys), *batch.columns[n_keys + 2 :]]):
            return None
        if progress is not None:
            progress(batch.num_rows)
    tally.events += counted.events
    tally.rejected += counted.rejected
    return events, spine, keys.count


def _sweep_shares(events: Shares, spine: Shares, keys: int, layout: Layout, crew: "list[_Worker]") -> None:
    """Share by share, the largest first, each by a worker that has nothing to do."""
    event_starts, spine_starts = events.starts(), spine.starts()
    asked, moved = np.diff(spine_starts).sum(axis=0), shifts(layout.inputs)
    sizes = np.diff(event_starts).sum(axis=0) + asked
    left = [share for share in np.argsort(sizes, kind="stable").tolist() if asked[share]]

    def work(worker: _Worker) -> None:
        while True:
            try:
                share = left.pop()
            except IndexError:
                return
            worker.sweep(*chunk_of(events, spine, event_starts, spine_starts, share, keys, moved))

    try:
        for worker in crew:
            worker.give(work)
        for worker in crew:
            worker.wait()
    finally:
        left.clear()  # nobody waits for what is left when one has failed


def _sort_and_sweep(
    engine: Engine, bucket: Bucket, layout: Layout, crew: "list[_Worker]", tally: Tally, progress: Callable[[int], None] | None
) -> None:
    """What the engine sorts goes to workers batch by batch; a key is swept by one of them, for what continues goes to who began it."""
    at_work, n_keys = 0, len(layout.keys)
    for batch, continues in accepted(engine.batches(bucket.sorted, BATCH_ROWS), n_keys, tally):
        border = first_border(batch, n_keys) if continues else 0
        if border > 0:
            crew[at_work].give(_swept(batch.slice(0, border), layout, tally, True))
        if border < batch.num_rows:
            at_work = (at_work + 1) % len(crew)
            crew[at_work].give(_swept(batch.slice(border), layout, tally, False))
        if progress is not None:
            progress(batch.num_rows)
    for worker in crew:
        worker.wait()


def _swept(batch: pa.RecordBatch, layout: Layout, tally: Tally, continues: bool) -> "Callable[[_Worker], None]":
    tally.events += pc.sum(pc.less(batch.column(len(layout.keys) + 1), 0)).as_py()
    return lambda worker: worker.sweep(make_chunk(batch, layout), False, continues)


class _Worker:
    """A thread with sweepers of its own, which does what it is given."""

    def __init__(self, program: SweepProgram, in_order: SweepProgram, gathering: Gathering):
        self.programs, self.gathering = {False: program, True: in_order}, gathering
        self.at_work: dict[bool, tuple[Sweeper, list[slice]]] = {}
        self.failure: BaseException | None = None
        self.queue: Queue[Callable[[_Worker], None] | None] = Queue(maxsize=2)
        self.thread = Thread(target=self._work, name="featreg sweep", daemon=True)
        self.thread.start()

    def give(self, work: "Callable[[_Worker], None]") -> None:
        """Hand over work; waits while two pieces are waiting.  Raises what the worker failed with."""
        self.raise_failure()
        self.queue.put(work)

    def wait(self) -> None:
        """Until nothing is left to do.  Raises what the worker failed with."""
        self.queue.join()
        self.raise_failure()

    def end(self) -> None:
        self.queue.put(None)
        self.thread.join()

    def raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure

    def found(self) -> Iterator[Found]:
        for sweeper, stretches in self.at_work.values():
            tops = sweeper.tops
            yield Found(stretches, sweeper.out_heap[: tops[TOP_OUT_HEAP]], sweeper.out_text[: tops[TOP_OUT_TEXT]])

    def _work(self) -> None:
        while (work := self.queue.get()) is not None:
            if self.failure is None:
                try:
                    work(self)
                except BaseException as error:  # told to the thread that waits
                    self.failure = error
            self.queue.task_done()

    def sweep(self, chunk: Chunk, in_order: bool, continues: bool = False) -> None:
        """Sweep rows.  in_order: no key's event times step back · continues: their first key is the last of the rows before."""
        if in_order not in self.at_work:
            self.at_work[in_order] = Sweeper(self.programs[in_order], self.gathering.results), []
        sweeper, stretches = self.at_work[in_order]
        asked = np.flatnonzero(chunk.spine_row >= 0)
        stretch = self.gathering.take(chunk.spine_row[asked])
        chunk.spine_row[asked] = np.arange(stretch.start, stretch.stop)
        sweeper.feed(chunk, continues)
        stretches.append(stretch)
