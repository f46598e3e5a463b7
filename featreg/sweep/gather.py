"""Collect what the workers of a backfill find: one pool, and each column in the spine's order.

Workers meet spine rows in the order of keys, and write results in that order, side by
side.  At the end each column is put into the spine's order, one at a time: a column of
a million rows fits into a cache and thirty do not (28 columns of 1 M rows: 0.2 s, and
1.1 s when every batch is put in place on its own), and one at a time needs no room.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numba import njit

from featreg.algebra.flags import ENTRY
from featreg.algebra.schedule import LENGTH_BITS
from featreg.compile.program import SweepProgram
from featreg.sweep.sweeper import Results
from featreg.sweep.words import is_text
from featreg.vocabulary import DataType


@dataclass(frozen=True)
class Found:
    """What one worker found: its stretches of the results, and the pools that their lists and texts point into."""

    stretches: Sequence[slice]
    items: np.ndarray
    text: np.ndarray


class Gathering:
    """Results that workers fill together, each stretch by one of them.  Every row of the spine is met once."""

    def __init__(self, columns: int, rows: int):
        self.results = Results(columns, rows)
        self.row_met = np.empty(rows, np.int64)
        self._met = 0
        self._lock = Lock()

    def take(self, spine_rows: np.ndarray) -> slice:
        """A stretch of the results for these rows of the spine."""
        with self._lock:
            stretch = slice(self._met, self._met + len(spine_rows))
            self._met = stretch.stop
        self.row_met[stretch] = spine_rows
        return stretch

    def finish(self, program: SweepProgram, found: Sequence[Found], threads: int) -> tuple[np.ndarray, np.ndarray]:
        """Put the results into the spine's order; returns the pool of items and the pool of text."""
        pools = self._one_pool(program, found)
        assert self._met == len(self.row_met), f"{self._met} of {len(self.row_met)} spine rows were met"

        threads, columns = max(1, threads), range(len(program.columns))

        def put_in_order(some: range) -> None:
            rows = len(self.row_met)
            rooms = [np.empty(rows, kind) for kind in (np.int64, np.uint8)]  # for all columns: fresh pages for each cost more
            for column in some:
                for room, values in zip(rooms, (self.results.words[column], self.results.valid[column])):
                    room[:] = values
                    _scatter(room, self.row_met, values)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(put_in_order, (columns[first::threads] for first in range(threads))))
        return pools

    def _one_pool(self, program: SweepProgram, found: Sequence[Found]) -> tuple[np.ndarray, np.ndarray]:
        """Put the pools one behind another, and move what points into them."""
        stored = [(place, column.type) for place, column in enumerate(program.columns) if _has_pool(column.type)]
        if not stored or not found:
            return np.zeros(0, np.int64), np.zeros(0, np.uint8)
        item_base = text_base = 0
        pools = []
        for one in found:
            items = one.items.copy()
            for place, kind in stored:
                for stretch in one.stretches:
                    words, valid = self.results.words[place, stretch], self.results.valid[place, stretch]
                    if kind.element is not None and is_text(kind.element) and text_base:
                        _move_items(words, valid, items, 2 if kind.name == "MAP" else 1, text_base)
                    words += (text_base if is_text(kind) else item_base) << LENGTH_BITS
            pools.append(items)
            item_base += len(items)
            text_base += len(one.text)
        return np.concatenate(pools), np.concatenate([one.text for one in found])


@njit(**ENTRY)
def _scatter(values, rows, out):
    for i in range(rows.shape[0]):
        out[rows[i]] = values[i]


def _has_pool(kind: DataType) -> bool:
    return is_text(kind) or kind.name in ("LIST", "MAP")


def _move_items(words: np.ndarray, valid: np.ndarray, items: np.ndarray, step: int, text_base: int) -> None:
    """Shift the texts inside lists; each list is pointed to once."""
    for word in words[valid == 1].tolist():
        at, count = word >> LENGTH_BITS, word & ((1 << LENGTH_BITS) - 1)
        items[at : at + step * count : step] += text_base << LENGTH_BITS
