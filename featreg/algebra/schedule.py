"""Say how the sweep speaks to aggregations: frames of arrays, and a schedule of operations.

The sweep decides which tile a row belongs to and which tiles a window covers; it
writes that down as a *schedule*, an int64 array of operations in row order.  An
aggregation walks the schedule and keeps its partials in *records*, one per tile:

    fold   rows, record, fresh     two words: first row << 33 | record << 2 | fresh << 1, row behind the last
    merge  from, into, fresh       one word: from << 33 | into << 3 | fresh << 2 | 3
    emit   n, window, row, start   three words and n records: n << 33 | window << 2 | 1, row, start

`fresh` says that the record (of a merge: `into`) begins empty.  `row` of an emit is the spine row that
the result goes to; `start` is the first event time that the window sees.  Record 0
of every slot is scratch, for merging.  All words are int64; floats are views.
"""

from typing import NamedTuple

import numpy as np

SCRATCH = 0  # the record for merging

# The kinds of slot, and what a slot's row in `Program.slots` says.
COUNT, SUM, INTEGER_SUM, EXTREME, RANKED, MOMENTS, WIDE_MOMENTS, TALLY = range(8)
SPANS = 8  # no slot: what writes the schedule of a group IN_ORDER, called as kernels are
SLOT_KIND, SLOT_GROUP, SLOT_WIDTH, SLOT_INPUT, SLOT_MASK, SLOT_MODE, SLOT_LIMIT, SLOT_FIRST_PART, SLOT_PARTS, SLOT_SPAN, SLOT_BYTES = range(
    11
)
SLOT_FIELDS = 11

# What a group's row in `Program.groups` says.  HOP 0: one tile for all of history.  SPAN -1: some window has no start.
# HOP IN_ORDER: no tiles, for rows whose event times never step back.
GROUP_HOP, GROUP_LEVELS, GROUP_SPAN, GROUP_FIRST_LEVEL, GROUP_FIRST_WINDOW, GROUP_WINDOWS, GROUP_FIRST_SLOT, GROUP_SLOTS = range(8)
GROUP_FIELDS = 8
IN_ORDER = -1
WINDOW_WIDTH, WINDOW_HOP = range(2)

# What a row of `Program.outputs` says, and the finalizers.
OUTPUT_FINAL, OUTPUT_COLUMN, OUTPUT_SCALE, OUTPUT_DOUBLE = range(4)
AS_COUNT, AS_SUM, AS_AVG, AS_VAR, AS_STDDEV, AS_VALUE, AS_LIST, AS_MAP, AS_DISTINCT, AS_PRESENCE, AS_WIDE_SUM, AS_LOWEST = range(12)
AS_HIGHEST = 12

# `State.tops`: how full the pools are; what is missing when a kernel stops early, and how many rows of its operation are done.
TOP_HEAP, TOP_TEXT, TOP_OUT_HEAP, TOP_OUT_TEXT, NEED_POOL, NEED_ROOM, ROWS_DONE = range(7)
TOP_FIELDS = 7

NULL, VALUE, OVERFLOW = 0, 1, 2  # `State.out_valid`

LENGTH_BITS = 24  # a text is (offset << 24 | length) into a pool: at most 16 MiB each
LONGEST_TEXT = (1 << LENGTH_BITS) - 1
NO_START, NO_END = -(1 << 63), (1 << 63) - 1


class Program(NamedTuple):
    """What to compute for one view: tables of int64, built by `compile`.

    groups [n, 8] · shifts [levels]: a level's tile is the hop's tile number shifted right by so much ·
    windows [n, 2] · slots [n, 11] · parts [n, 3] (a ranked slot's order) ·
    routes [slots, windows of a group, 2]: first and count in outputs [n, 4].
    """

    groups: np.ndarray
    shifts: np.ndarray
    windows: np.ndarray
    slots: np.ndarray
    parts: np.ndarray
    routes: np.ndarray
    outputs: np.ndarray


class Chunk(NamedTuple):
    """Rows sorted by (key, instant, spine before events).

    key_index [n]: ascending number of the key · spine_row [n]: -1 for an event · instant [n]: cutoff or visible
    instant · event_time [n] · inputs [columns, n] words · valid [columns, n] · text: bytes that text inputs point into ·
    shift [columns]: 1 for a text, whose word moves with its pool.
    """

    key_index: np.ndarray
    spine_row: np.ndarray
    instant: np.ndarray
    event_time: np.ndarray
    inputs: np.ndarray
    valid: np.ndarray
    text: np.ndarray
    shift: np.ndarray


class State(NamedTuple):
    """What the sweep holds while it walks: tiles of the keys at hand, their records, pools and results.

    levels [n, 4] and tiles: sorted tile numbers with their records · free: records to use again · carried
    [keys, levels, 3]: where each key's tiles are, how many, and room for how many, when keys are kept ·
    slot_base [slots]: first word of record 0 · records, heap [words], text [bytes]: partials ·
    out_*: results by column and spine row · scratch: for kernels · kernels [kinds]: their addresses.
    """

    levels: np.ndarray
    group_state: np.ndarray
    tile_number: np.ndarray
    tile_record: np.ndarray
    free: np.ndarray
    carried: np.ndarray
    slot_base: np.ndarray
    records: np.ndarray
    heap: np.ndarray
    text: np.ndarray
    tops: np.ndarray
    ops: np.ndarray
    cursor: np.ndarray
    out_words: np.ndarray
    out_valid: np.ndarray
    out_heap: np.ndarray
    out_text: np.ndarray
    scratch: np.ndarray
    kernels: np.ndarray
