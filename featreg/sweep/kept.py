"""Sweep keys whose state is kept: load it, bring rows, and put it down again or read it."""

from collections.abc import Sequence
from struct import Struct

import numpy as np

from featreg.algebra import schedule as s
from featreg.algebra.frame import frame_of
from featreg.compile.program import SweepProgram
from featreg.sweep.cursor import CURSOR_BEHIND, CURSOR_FIRST
from featreg.sweep.execute import DONE, SHORT, answer
from featreg.sweep.head import HEAD_VALUES, count_rows, head_rows, lay_out_rows, pack_heads
from featreg.sweep.keep import AT_RUN, AT_S, READY, SHORT_HEAP, SHORT_RECORDS, SHORT_TEXT, SHORT_TILES, TEXT_COPIES, dump_keys, load_keys
from featreg.sweep.stream import shifts
from featreg.sweep.sweeper import Results, Sweeper
from featreg.sweep.tiles import STATE_CAPACITY, STATE_FREE_BASE

_NONE, _NO_TEXT = np.zeros(0, np.int64), np.zeros(0, np.uint8)
KEYS_AT_HAND = 64  # that a read takes at once
_S_AND_RUN = Struct("=qq")
assert AT_RUN == AT_S + 1


def state_of(blob: bytes) -> tuple[int, int]:
    """(S, run) of a stored state."""
    return _S_AND_RUN.unpack_from(blob, 8 * AT_S)  # type: ignore[return-value]


def newest_s(words: np.ndarray, starts: np.ndarray) -> int:
    """The newest S of stored states: no instant before it can be read; all of time when there is no state."""
    known = starts[:-1][starts[1:] > starts[:-1]]
    return int(words[known + AT_S].max(initial=s.NO_START))


def joined(blobs: Sequence[bytes | None]) -> tuple[np.ndarray, np.ndarray]:
    """Stored values one behind another, as words, and where each begins and ends."""
    if len(blobs) == 1:
        blob = blobs[0] or b""
        return np.frombuffer(bytearray(blob), np.int64), np.array((0, len(blob) >> 3))
    values = [blob or b"" for blob in blobs]
    starts = np.zeros(len(values) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, values), np.int64, len(values)) >> 3, out=starts[1:])
    return np.frombuffer(bytearray().join(values), np.int64), starts


class KeptSweeper(Sweeper):
    """A sweeper over keys with stored states; its buffers grow to what it meets and stay."""

    def __init__(self, program: SweepProgram, results: Results | None = None):
        super().__init__(program, results or Results(0, 0), ops_words=1 << 14)
        self.shift = shifts([item.type for item in program.inputs])
        self.tile_capacity, self.record_capacity = 1 << 12, 1 << 10
        self.heap, self.text = np.empty(1 << 10, np.int64), np.empty(1 << 10, np.uint8)
        self.out_heap, self.out_text = np.empty(1 << 10, np.int64), np.empty(1 << 10, np.uint8)
        self.chunk_rows, self.chunk_text = 64, 1 << 10
        self.one = np.zeros((4, 2), np.int64)
        self.one_starts, self.one_head_starts, self.one_more, self.one_cutoff = self.one[0], self.one[1], self.one[2, :1], self.one[3, :1]
        self.frame, self.at_frame = np.zeros(0, np.int64), 0
        self.framed: s.State | None = None
        self._allocate()

    def _allocate(self) -> None:
        groups = len(self.group_state)
        self.tile_number, self.tile_record = np.empty(self.tile_capacity, np.int64), np.empty(self.tile_capacity, np.int64)
        size = self.tables.slots[:, s.SLOT_WIDTH] * self.record_capacity
        self.slot_base = np.concatenate(([0], np.cumsum(size)[:-1])).astype(np.int64)
        self.records = np.empty(int(size.sum()), np.int64)
        self.free = np.empty(groups * self.record_capacity, np.int64)
        self.group_state[:, STATE_CAPACITY] = self.record_capacity
        self.group_state[:, STATE_FREE_BASE] = np.arange(groups) * self.record_capacity
        n, columns = self.chunk_rows, len(self.shift)
        self.chunk = s.Chunk(
            np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64),
            np.empty((columns, n), np.int64), np.empty((columns, n), np.uint8), np.empty(self.chunk_text, np.uint8), self.shift,
        )  # fmt: skip
        self.kept_state = self.state()

    def _enlarge(self, short: int) -> None:
        match short:
            case s_ if s_ == SHORT_TILES:
                self.tile_capacity *= 2
            case s_ if s_ == SHORT_RECORDS:
                self.record_capacity *= 2
            case s_ if s_ == SHORT_HEAP:
                self.heap = np.empty(2 * len(self.heap), np.int64)
            case s_ if s_ == SHORT_TEXT:
                self.text = np.empty(2 * len(self.text), np.uint8)
            case _:
                self.chunk_rows, self.chunk_text = 2 * self.chunk_rows, 2 * self.chunk_text
        self._allocate()

    def _keys(self, count: int) -> None:
        if len(self.carried) < count:
            self.carried = np.zeros((count, len(self.tables.shifts), 3), np.int64)
            self.kept_state = self.state()

    # Reading ---------------------------------------------------------------------------------

    def read_key(self, state: bytes | None, head: bytes | None, cutoff: int) -> Results:
        """Read one key: as `read_keys`, with arrays that are used again."""
        one = self.one
        one[0, 1] = len(state) >> 3 if state else 0
        one[1, 1] = len(head) >> 3 if head else 0
        one[3, 0] = cutoff
        words = np.frombuffer(bytearray(state), np.int64) if state else _NONE
        heads = np.frombuffer(bytearray(head), np.int64) if head else _NONE
        return self.read(words, self.one_starts, heads, self.one_head_starts, self.one_cutoff)

    def read_keys(self, words: np.ndarray, starts: np.ndarray, head_starts: np.ndarray, cutoff: int) -> Results:
        """Read m keys, all at one cutoff: state k is `words[starts[k]:starts[k + 1]]`, head k the same of `head_starts`."""
        m = len(starts) - 1
        return self.read(words, starts, words, head_starts, np.full(m, cutoff, np.int64))

    def read(self, words: np.ndarray, starts: np.ndarray, heads: np.ndarray, head_starts: np.ndarray, cutoffs: np.ndarray) -> Results:
        """Results [columns, m or more] for m keys at their cutoffs; they are overwritten by the next read."""
        m = len(cutoffs)
        if self.results.words.shape[1] < m:
            self.results = Results(len(self.program.columns), 1 << (m - 1).bit_length())
            self.kept_state = self.state()
        self._keys(min(m, KEYS_AT_HAND))
        more = self.one_more if m == 1 else np.empty(m, np.int64)
        self.tops[s.TOP_OUT_HEAP] = self.tops[s.TOP_OUT_TEXT] = 0
        status = answer(self._frame(), words, starts, heads, head_starts, more, cutoffs, 0)
        while status != DONE:
            if status >= SHORT:
                first = int(self.cursor[CURSOR_FIRST])
                self._enlarge(status - SHORT)
            else:
                first = int(self.cursor[CURSOR_BEHIND])
                self.finish(self.chunk, status)
                self.kept_state = self.state()
            status = answer(self._frame(), words, starts, heads, head_starts, more, cutoffs, first)
        return self.results

    def pools(self) -> tuple[np.ndarray, np.ndarray]:
        """What lists and texts of the last results point into: a copy."""
        items, text = int(self.tops[s.TOP_OUT_HEAP]), int(self.tops[s.TOP_OUT_TEXT])
        return self.out_heap[:items].copy() if items else _NONE, self.out_text[:text].copy() if text else _NO_TEXT

    def _frame(self) -> int:
        """The address of the frame that the kernels work on, which is made anew when an array was replaced."""
        if self.framed is not self.kept_state:
            self.frame, self.framed = frame_of(self.tables, self.chunk, self.kept_state), self.kept_state
            self.at_frame = self.frame.ctypes.data
        return self.at_frame

    # Writing ---------------------------------------------------------------------------------

    def bring(self, words: np.ndarray, starts: np.ndarray, chunk: s.Chunk, keys: int) -> None:
        """Load the states of `keys` keys and fold the rows of a chunk into them."""
        self._keys(keys)
        more = np.bincount(chunk.key_index, minlength=keys).astype(np.int64) if len(chunk.key_index) else np.zeros(keys, np.int64)
        short = load_keys(self._frame(), words, starts, more)
        while short != READY:
            self._enlarge(short)
            short = load_keys(self._frame(), words, starts, more)
        self.run(chunk)
        self.kept_state = self.state()

    def dump(self, keys: int, s_at: int, run: int) -> tuple[memoryview, np.ndarray]:
        """The states of all keys one behind another, and where each ends, in words."""
        need = TEXT_COPIES * int(self.tops[s.TOP_TEXT])
        if len(self.out_text) < need:
            self.out_text = np.empty(2 * need, np.uint8)
        self.kept_state = self.state()
        ends, done, out = np.zeros(keys, np.int64), 0, np.empty(1 << 16, np.int64)
        while done < keys:
            done = dump_keys(self._frame(), done, keys, s_at, run, out, ends)
            if done < keys:
                out = np.concatenate((out, np.empty(len(out), np.int64)))
        return (out[: ends[-1]] if keys else out[:0]).data.cast("B"), ends

    def old_rows(self, heads: np.ndarray, head_starts: np.ndarray) -> s.Chunk:
        """The rows of stored heads, by key."""
        n, columns = head_rows(heads, head_starts) + len(head_starts), len(self.shift)
        chunk = s.Chunk(
            np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64),
            np.empty((columns, n), np.int64), np.empty((columns, n), np.uint8), np.empty(8 * len(heads) + 8, np.uint8), self.shift,
        )  # fmt: skip
        count = lay_out_rows(heads, head_starts, _NONE, chunk)
        return take_rows(chunk, np.arange(count))


def take_rows(chunk: s.Chunk, rows: np.ndarray) -> s.Chunk:
    """Some rows of a chunk, in that order; the text is shared."""
    return s.Chunk(
        chunk.key_index[rows], chunk.spine_row[rows], chunk.instant[rows], chunk.event_time[rows],
        np.ascontiguousarray(chunk.inputs[:, rows]), np.ascontiguousarray(chunk.valid[:, rows]), chunk.text, chunk.shift,
    )  # fmt: skip


def rows_together(first: s.Chunk, second: s.Chunk) -> s.Chunk:
    """Two chunks of the same keys as one, sorted by key."""
    if len(first.key_index) == 0:
        return second
    base = len(first.text)
    moved = second.inputs + (second.shift * (base << s.LENGTH_BITS))[:, None]
    both = s.Chunk(
        np.concatenate((first.key_index, second.key_index)), np.concatenate((first.spine_row, second.spine_row)),
        np.concatenate((first.instant, second.instant)), np.concatenate((first.event_time, second.event_time)),
        np.concatenate((first.inputs, moved), axis=1), np.concatenate((first.valid, second.valid), axis=1),
        np.concatenate((first.text, second.text)), first.shift,
    )  # fmt: skip
    return take_rows(both, np.argsort(both.key_index, kind="stable"))


def head_counts(words: np.ndarray, starts: np.ndarray, before: int) -> np.ndarray:
    """[2, m]: how many rows the m heads have, and how many of them are visible before an instant."""
    counts = np.zeros((2, len(starts) - 1), np.int64)
    count_rows(words, starts[:-1], starts[1:], before, counts)
    return counts


def head_bytes(
    chunk: s.Chunk, rows: np.ndarray, keys: int, runs: np.ndarray, words: np.ndarray = _NONE, spans: np.ndarray | None = None
) -> tuple[memoryview, np.ndarray]:
    """The heads of all keys, one behind another, and where each ends in words: these rows (sorted by key) behind what heads have now.

    words, spans [2, keys]: the heads now, key k's from `spans[0, k]` to `spans[1, k]`; nothing by default.
    """
    if spans is None:
        spans = np.zeros((2, keys), np.int64)
    ends = np.zeros(keys, np.int64)
    size = (
        2 * len(rows) * (1 + len(chunk.shift))
        + 2 * int((spans[1] - spans[0]).sum())
        + HEAD_VALUES * keys
        + (int(chunk.shift.any()) and len(chunk.text) * len(chunk.shift))
        + 2 * keys
        + 16
    )
    out = np.empty(size, np.int64)
    packed = pack_heads(words, spans[0], spans[1], rows, keys, runs, chunk, out, ends)
    assert packed
    return (out[: ends[-1]] if keys else out[:0]).data.cast("B"), ends
