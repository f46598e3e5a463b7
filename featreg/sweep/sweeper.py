"""Drive the kernels: give them room, feed them chunks, collect what they find.

A `Sweeper` holds the state of one walk over sorted rows.  Whether the rows come from
a backfill, a materialization or an online read, they pass through `feed`.
"""

import numpy as np

from featreg.algebra import schedule as s
from featreg.algebra.exact import SCRATCH_WORDS
from featreg.algebra.frame import frame_of
from featreg.compile.program import SweepProgram
from featreg.sweep.cursor import CURSOR_FIELDS, CURSOR_ROWS
from featreg.sweep.execute import DONE, NEEDS_ROOM, addresses, advance
from featreg.sweep.spans import BLOCKS, FIRST_ROWS, records_for
from featreg.sweep.tiles import (
    FEW,
    LEVEL_BASE,
    LEVEL_CAPACITY,
    LEVEL_COUNT,
    LEVEL_HEAD,
    STATE_CAPACITY,
    STATE_COARSE,
    STATE_FREE,
    STATE_FREE_BASE,
    STATE_KEY,
    STATE_NEXT,
    measure,
)

LEVEL_FIELDS, STATE_FIELDS = 4, 6
OPS_WORDS = 1 << 18
MUCH = 8  # so many times the room that is needed
_POOLS = {s.TOP_HEAP: "heap", s.TOP_TEXT: "text", s.TOP_OUT_HEAP: "out_heap", s.TOP_OUT_TEXT: "out_text"}


class Results:
    """Where results go: [columns, spine rows] words and validity, with pools for lists and texts."""

    def __init__(self, columns: int, rows: int):
        self.words = np.zeros((columns, rows), np.int64)
        self.valid = np.zeros((columns, rows), np.uint8)


class Sweeper:
    """One walk over rows sorted by (key, instant, spine before events).

    Memory: the tiles of the key at hand (of all keys of a chunk when they are kept), a chunk, and the pools of results.
    """

    def __init__(self, program: SweepProgram, results: Results, ops_words: int = OPS_WORDS):
        self.program = program
        self.tables = program.tables
        groups, slots = len(self.tables.groups), len(self.tables.slots)
        self.levels = np.zeros((len(self.tables.shifts), LEVEL_FIELDS), np.int64)
        self.group_state = np.zeros((groups, STATE_FIELDS), np.int64)
        self.group_state[:, STATE_NEXT] = 1
        self.group_state[:, STATE_KEY] = -1
        self.tile_number = self.tile_record = self.free = np.zeros(0, np.int64)
        self.carried = np.zeros((0, len(self.tables.shifts), 3), np.int64)
        self.slot_base = np.zeros(slots, np.int64)
        self.records = self.heap = self.out_heap = np.zeros(0, np.int64)
        self.text = self.out_text = np.zeros(0, np.uint8)
        self.tops = np.zeros(s.TOP_FIELDS, np.int64)
        self.cursor = np.zeros(CURSOR_FIELDS, np.int64)
        self.ops = np.empty(ops_words, np.int64)
        widest = int(self.tables.slots[:, s.SLOT_WIDTH].max(initial=0))
        self.scratch = np.empty(max(SCRATCH_WORDS, widest), np.int64)
        self.kernels = addresses(program.kinds)
        self.results = results
        self.blocks = 0

    def state(self) -> s.State:
        return s.State(
            self.levels, self.group_state, self.tile_number, self.tile_record, self.free, self.carried, self.slot_base, self.records,
            self.heap, self.text, self.tops, self.ops, self.cursor, self.results.words, self.results.valid, self.out_heap, self.out_text,
            self.scratch, self.kernels,
        )  # fmt: skip

    def feed(self, chunk: s.Chunk, continues: bool) -> None:
        """Sweep one chunk; `continues`: its first key is the last key of the chunk before, which a group IN_ORDER does not take."""
        coming = self._tiles_coming(chunk)
        if not continues:
            self._forget_key(coming)
        else:
            self.group_state[:, STATE_KEY] = 0
        self._make_room(coming)
        self._say_blocks()
        self.run(chunk)
        if len(chunk.key_index):
            self._keep_last_key(int(chunk.key_index[-1]))

    def run(self, chunk: s.Chunk) -> None:
        """Let the kernels walk the chunk, growing what they lack."""
        self.cursor[:] = 0
        self.cursor[CURSOR_ROWS] = len(chunk.key_index)
        self.finish(chunk, self._advance(chunk))

    def finish(self, chunk: s.Chunk, status: int) -> None:
        """Go on from where a kernel stopped, until it is done."""
        while status != DONE:
            assert status == NEEDS_ROOM
            self._grow()
            status = self._advance(chunk)

    def _advance(self, chunk: s.Chunk) -> int:
        frame = frame_of(self.tables, chunk, self.state())
        return advance(frame.ctypes.data)

    def _grow(self) -> None:
        """Double the pool that a kernel found too small; without one named, the schedule is."""
        room, pool = int(self.tops[s.NEED_ROOM]), int(self.tops[s.NEED_POOL])
        if room == 0:
            self.ops = np.empty(4 * len(self.ops), np.int64)
            return
        name = _POOLS[pool]
        old = getattr(self, name)
        grown = np.empty(max(2 * len(old), int(self.tops[pool]) + room, 4096), old.dtype)
        grown[: len(old)] = old
        setattr(self, name, grown)
        self.tops[s.NEED_ROOM] = 0

    def _forget_key(self, coming: np.ndarray) -> None:
        """Nothing is live any more; what a key of many rows took is given back when those that come need far less."""
        self.levels[:, LEVEL_COUNT] = self.levels[:, LEVEL_HEAD] = 0
        self.group_state[:, STATE_NEXT] = 1
        self.group_state[:, STATE_FREE] = 0
        self.group_state[:, STATE_KEY] = -1
        self.group_state[:, STATE_COARSE] = 0
        self.tops[s.TOP_HEAP] = self.tops[s.TOP_TEXT] = 0
        if (self.group_state[:, STATE_CAPACITY] > MUCH * (coming + FEW) * self.tables.groups[:, s.GROUP_LEVELS]).any():
            self.group_state[:, STATE_CAPACITY] = self.levels[:, LEVEL_CAPACITY] = self.levels[:, LEVEL_BASE] = self.slot_base[:] = 0
            self.records = self.tile_number = self.tile_record = self.free = np.zeros(0, np.int64)

    def _keep_last_key(self, key: int) -> None:
        """A group that met no row of the last key holds another key's tiles: they are dead."""
        for g in range(len(self.group_state)):
            assert self.group_state[g, STATE_KEY] == key, "every group walks every row"

    def _tiles_coming(self, chunk: s.Chunk) -> np.ndarray:
        """The most tiles that one key can get from a chunk, by group: one for each of its rows, one for each hop of its time."""
        most, span = measure(chunk.key_index, chunk.spine_row, chunk.event_time)
        self.blocks = records_for(most)[0]
        return np.array([self._tiles_of(g, most, span) for g in range(len(self.tables.groups))], np.int64)

    def _tiles_of(self, g: int, most: int, span: int) -> int:
        hop = int(self.tables.groups[g, s.GROUP_HOP])
        if hop == s.IN_ORDER:
            return records_for(most)[1] + FIRST_ROWS + int(self.tables.groups[g, s.GROUP_WINDOWS])
        return 0 if span < 0 else 1 if hop == 0 else min(most, span // hop + 2)

    def _say_blocks(self) -> None:
        for group in self.tables.groups[self.tables.groups[:, s.GROUP_HOP] == s.IN_ORDER]:
            self.tile_number[self.levels[group[s.GROUP_FIRST_LEVEL], LEVEL_BASE] + BLOCKS] = self.blocks

    def _make_room(self, coming: np.ndarray) -> None:
        """See to tile lists, free lists and records for so many more tiles in each group.  A key's are reused by the next key."""
        tables = self.tables
        live = self.levels[:, LEVEL_HEAD] + self.levels[:, LEVEL_COUNT]
        levels_of = tables.groups[:, s.GROUP_LEVELS]
        by_level = np.repeat(coming, levels_of)
        needed = live + by_level + FEW + 2  # beginning the coarser tiles makes one of each of a few fine ones
        if (needed > self.levels[:, LEVEL_CAPACITY]).any():
            capacity = np.maximum(2 * self.levels[:, LEVEL_CAPACITY], needed + by_level)
            base = np.concatenate(([0], np.cumsum(capacity)[:-1]))
            number, record = np.empty(int(capacity.sum()), np.int64), np.empty(int(capacity.sum()), np.int64)
            for level in range(len(self.levels)):
                low, count = int(self.levels[level, LEVEL_BASE] + self.levels[level, LEVEL_HEAD]), int(self.levels[level, LEVEL_COUNT])
                to = int(base[level])
                number[to : to + count] = self.tile_number[low : low + count]
                record[to : to + count] = self.tile_record[low : low + count]
            self.tile_number, self.tile_record = number, record
            self.levels[:, LEVEL_BASE], self.levels[:, LEVEL_HEAD], self.levels[:, LEVEL_CAPACITY] = base, 0, capacity
        wanted = self.group_state[:, STATE_NEXT] + (coming + FEW + 2) * levels_of + 1
        if (wanted > self.group_state[:, STATE_CAPACITY]).any():
            self._enlarge_records(np.maximum(2 * self.group_state[:, STATE_CAPACITY], wanted + coming))

    def _enlarge_records(self, capacity: np.ndarray) -> None:
        tables = self.tables
        width = tables.slots[:, s.SLOT_WIDTH]
        size = width * capacity[tables.slots[:, s.SLOT_GROUP]]
        base = np.concatenate(([0], np.cumsum(size)[:-1])).astype(np.int64)
        records = np.empty(int(size.sum()), np.int64)
        for slot in range(len(width)):
            held = int(self.group_state[tables.slots[slot, s.SLOT_GROUP], STATE_NEXT] * width[slot])
            held = min(held, len(self.records) - int(self.slot_base[slot]))
            records[base[slot] : base[slot] + held] = self.records[self.slot_base[slot] : self.slot_base[slot] + held]
        free_base = np.concatenate(([0], np.cumsum(capacity)[:-1])).astype(np.int64)
        free = np.empty(int(capacity.sum()), np.int64)
        for g in range(len(capacity)):
            count, at = int(self.group_state[g, STATE_FREE]), int(self.group_state[g, STATE_FREE_BASE])
            free[free_base[g] : free_base[g] + count] = self.free[at : at + count]
        self.records, self.slot_base, self.free = records, base, free
        self.group_state[:, STATE_CAPACITY] = capacity
        self.group_state[:, STATE_FREE_BASE] = free_base
