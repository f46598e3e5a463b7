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

from featreg.algebra.schedule import LENGTH_BITS, TOP_OUT_HEAP, TOP_OUT_TEXT
from featreg.compile.program import SweepProgram
from featreg.plan.offline import OfflinePlan
from featreg.sweep.stream import BATCH_ROWS, Layout, Tally, accepted, first_border, make_chunk
from featreg.sweep.sweeper import Results, Sweeper
from featreg.sweep.words import is_text, to_arrow
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


def backfill(
    engine: Engine, plan: OfflinePlan, rows: int, columns: int, threads: int, progress: Callable[[int], None] | None = None
) -> Filled:
    """Run the plan's buckets; `columns` may be more than the program gives, for what is derived from them."""
    results, tally = Results(columns, rows), Tally()
    program, n_keys = plan.program, len(plan.key_types)
    layout = Layout(plan.key_types, tuple(item.type for item in program.inputs), plan.event_is_visible)
    stored = [place for place, column in enumerate(program.columns) if _has_pool(column.type)]
    crew = [_Worker(program, results, layout, bool(stored)) for _ in range(max(1, threads))]
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
    items, text = _together(program, results, stored, [worker.pools() for worker in crew])
    return Filled(results, items, text, tally)


class _Worker:
    """A thread with a sweeper of its own.  A key is swept by one worker, for what continues goes to who began it.

    The sweep writes the results of a batch side by side; they are spread over the spine's rows afterwards, a column
    at a time: one miss of the cache after another within the kernels made them a quarter slower.
    """

    def __init__(self, program: SweepProgram, results: Results, layout: Layout, keep_rows: bool):
        self.sweeper, self.layout, self.keep_rows = Sweeper(program, Results(len(program.columns), 0)), layout, keep_rows
        self.results = results
        self.rows: list[np.ndarray] = []
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

    def pools(self) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        tops = self.sweeper.tops
        return self.sweeper.out_heap[: tops[TOP_OUT_HEAP]], self.sweeper.out_text[: tops[TOP_OUT_TEXT]], self.rows

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
        spine = chunk.spine_row[asked]
        chunk.spine_row[asked] = np.arange(len(spine))
        near = self.sweeper.results
        if near.words.shape[1] < len(spine):
            self.sweeper.results = near = Results(len(near.words), max(len(spine), BATCH_ROWS))
        self.sweeper.feed(chunk, continues)
        for column in range(len(near.words)):
            self.results.words[column, spine] = near.words[column, : len(spine)]
            self.results.valid[column, spine] = near.valid[column, : len(spine)]
        self.events += len(chunk.spine_row) - len(spine)
        if self.keep_rows:
            self.rows.append(spine)


def _has_pool(kind: DataType) -> bool:
    return is_text(kind) or kind.name in ("LIST", "MAP")


def _together(program: SweepProgram, results: Results, stored: list[int], parts: list[tuple[np.ndarray, np.ndarray, list[np.ndarray]]]):
    """Put the workers' pools one behind another, and move what points into them."""
    if not stored:
        return np.zeros(0, np.int64), np.zeros(0, np.uint8)
    item_base = text_base = 0
    moved_items = []
    for items, text, seen in parts:
        rows = np.concatenate(seen) if seen else np.zeros(0, np.int64)
        items = items.copy()
        for place in stored:
            kind = program.columns[place].type
            base = text_base if is_text(kind) else item_base
            if base:
                results.words[place, rows] += base << LENGTH_BITS
            if kind.element is not None and is_text(kind.element) and text_base:
                _move_items(
                    results.words[place, rows], results.valid[place, rows], items, item_base, 2 if kind.name == "MAP" else 1, text_base
                )
        moved_items.append(items)
        item_base += len(items)
        text_base += len(text)
    return np.concatenate(moved_items), np.concatenate([text for _, text, _ in parts])


def _move_items(words: np.ndarray, valid: np.ndarray, items: np.ndarray, item_base: int, step: int, text_base: int) -> None:
    """Shift the texts inside lists; each list is pointed to once."""
    for word in words[valid == 1].tolist():
        at, count = (word >> LENGTH_BITS) - item_base, word & ((1 << LENGTH_BITS) - 1)
        items[at : at + step * count : step] += text_base << LENGTH_BITS
