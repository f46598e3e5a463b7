"""Fill a spine: for each row what serving would have answered at its cutoff.

The engine brings spine and events together by key, sorted; workers sweep buckets of
keys side by side.  Memory: results, plus for each worker one bucket's sort, which the
engine spills, and one key's live tiles.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from featreg.algebra.schedule import LENGTH_BITS, TOP_OUT_HEAP, TOP_OUT_TEXT
from featreg.compile.program import SweepProgram
from featreg.plan.offline import OfflinePlan
from featreg.sweep.stream import BATCH_ROWS, Layout, Tally, chunks
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


def backfill(engine: Engine, plan: OfflinePlan, rows: int, columns: int, threads: int, progress: Callable[[int], None] | None = None) -> Filled:
    """Run the plan's buckets; `columns` may be more than the program gives, for what is derived from them."""
    results = Results(columns, rows)
    program = plan.program
    layout = Layout(plan.key_types, tuple(item.type for item in program.inputs), plan.event_is_visible)
    stored = [place for place, column in enumerate(program.columns) if _has_pool(column.type)]

    def work(sql: str) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], Tally]:
        tally, sweeper, seen = Tally(), Sweeper(program, results), []
        for chunk, continues, _ in chunks(engine.batches(sql, BATCH_ROWS), layout, tally):
            sweeper.feed(chunk, continues)
            if stored:
                seen.append(chunk.spine_row[chunk.spine_row >= 0])
            if progress is not None:
                progress(len(chunk.key_index))
        return sweeper.out_heap[: sweeper.tops[TOP_OUT_HEAP]], sweeper.out_text[: sweeper.tops[TOP_OUT_TEXT]], seen, tally

    if len(plan.buckets) == 1 or threads == 1:
        done = [work(sql) for sql in plan.buckets]
    else:
        with ThreadPoolExecutor(threads) as pool:
            done = list(pool.map(work, plan.buckets))
    items, text = _together(program, results, stored, [part[:3] for part in done])
    return Filled(results, items, text, Tally(sum(part[3].rejected for part in done), sum(part[3].events for part in done)))


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
                _move_items(results.words[place, rows], results.valid[place, rows], items, item_base, 2 if kind.name == "MAP" else 1, text_base)
        moved_items.append(items)
        item_base += len(items)
        text_base += len(text)
    return np.concatenate(moved_items), np.concatenate([text for _, text, _ in parts])


def _move_items(words: np.ndarray, valid: np.ndarray, items: np.ndarray, item_base: int, step: int, text_base: int) -> None:
    """Shift the texts inside lists; each list is pointed to once."""
    for word in words[valid == 1].tolist():
        at, count = (word >> LENGTH_BITS) - item_base, word & ((1 << LENGTH_BITS) - 1)
        items[at : at + step * count : step] += text_base << LENGTH_BITS
