"""Sweep a stream of sorted rows whose end is not in sight: what a worker does with its partition.

Memory: one key's live tiles, a batch, and the results of at most `most_rows` spine rows.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featreg.algebra.schedule import TOP_OUT_HEAP, TOP_OUT_TEXT
from featreg.compile.program import SweepProgram
from featreg.sweep.finish import Column
from featreg.sweep.stream import Layout, Tally, chunks
from featreg.sweep.sweeper import Results, Sweeper


@dataclass(frozen=True)
class Swept:
    """Results of some spine rows, by the name of an aggregate.  They are good until the next are asked for."""

    spine_rows: np.ndarray
    columns: dict[str, Column]


def sweep_stream(
    program: SweepProgram, layout: Layout, batches: Iterable[pa.RecordBatch], tally: Tally, most_rows: int = 1 << 16
) -> Iterator[Swept]:
    """Results of every spine row of the stream, in its order.  Raises: as `accepted` does."""
    sweeper = Sweeper(program, Results(len(program.columns), most_rows))
    spine_rows, met = np.empty(most_rows, np.int64), 0
    for chunk, continues, _ in chunks(batches, layout, tally):
        asked = np.flatnonzero(chunk.spine_row >= 0)
        if met + len(asked) > len(spine_rows):
            if met:
                yield _swept(sweeper, spine_rows[:met])
            spine_rows, met = np.empty(max(most_rows, len(asked)), np.int64), 0
            sweeper.results = Results(len(program.columns), len(spine_rows))
            sweeper.tops[TOP_OUT_HEAP] = sweeper.tops[TOP_OUT_TEXT] = 0
        spine_rows[met : met + len(asked)] = chunk.spine_row[asked]
        chunk.spine_row[asked] = np.arange(met, met + len(asked))
        sweeper.feed(chunk, continues)
        met += len(asked)
    if met:
        yield _swept(sweeper, spine_rows[:met])


def _swept(sweeper: Sweeper, spine_rows: np.ndarray) -> Swept:
    results, met = sweeper.results, len(spine_rows)
    items, text = sweeper.out_heap[: sweeper.tops[TOP_OUT_HEAP]], sweeper.out_text[: sweeper.tops[TOP_OUT_TEXT]]
    columns = {
        column.name: Column(results.words[place, :met], results.valid[place, :met], column.type, items, text)
        for place, column in enumerate(sweeper.program.columns)
    }
    return Swept(spine_rows, columns)
