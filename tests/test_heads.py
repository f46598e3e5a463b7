"""A head is what was put into it, row by row: however often it grew, and whatever it leaves out of what need not be said."""

import random
from typing import Any

import numpy as np
import pytest

from featreg.algebra import schedule as s
from featreg.sweep.head import head_rows, head_runs, lay_out_rows
from featreg.sweep.kept import head_bytes, head_counts

Row = tuple[int, int, int, tuple[Any, ...]]  # key, visible, event, a value for each column: a word, a text or None
NOTHING = np.zeros(0, np.int64)


def chunk_of(rows: list[Row], texts: tuple[bool, ...]) -> s.Chunk:
    """Rows as a kernel takes them.  texts: which columns are texts."""
    columns, arena = len(texts), bytearray()
    inputs, valid = np.zeros((columns, len(rows)), np.int64), np.zeros((columns, len(rows)), np.uint8)
    for number, (_, _, _, values) in enumerate(rows):
        for column, value in enumerate(values):
            if isinstance(value, str):
                inputs[column, number] = len(arena) << s.LENGTH_BITS | len(value.encode())
                arena += value.encode()
            elif value is not None:
                inputs[column, number] = value
            valid[column, number] = value is not None
    key, visible, event = (np.array([row[place] for row in rows], np.int64) for place in range(3))
    text = np.frombuffer(bytes(arena) + b"\0" * 8, np.uint8).copy()
    return s.Chunk(key, np.full(len(rows), -1), visible, event, inputs, valid, text, np.array(texts, np.int64))


def rows_of(words: np.ndarray, starts: np.ndarray, texts: tuple[bool, ...], cutoffs: np.ndarray = NOTHING) -> list[Row]:
    size = head_rows(words, starts) + len(starts)
    empty = [(-1, 0, 0, (None,) * len(texts))] * size
    chunk = chunk_of(empty, texts)._replace(text=np.zeros(8 * len(words) + 8, np.uint8))
    count = lay_out_rows(words, starts, cutoffs, chunk)
    found: list[Row] = []
    for row in range(count):
        if chunk.spine_row[row] >= 0:
            continue
        values: list[Any] = []
        for column, is_text in enumerate(texts):
            word = int(chunk.inputs[column, row])
            begin, length = word >> s.LENGTH_BITS, word & s.LONGEST_TEXT
            value = chunk.text[begin : begin + length].tobytes().decode() if is_text else word
            values.append(value if chunk.valid[column, row] else None)
        found.append((int(chunk.key_index[row]), int(chunk.instant[row]), int(chunk.event_time[row]), tuple(values)))
    return found


def stored(packed: tuple[memoryview, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    data, ends = packed
    return np.frombuffer(bytearray(data), np.int64), np.concatenate(([0], ends))


@pytest.mark.parametrize("seed", range(40))
def test_a_head_that_grew_has_its_rows_in_the_order_in_which_they_came(seed: int) -> None:
    dice = random.Random(seed)
    keys, texts = dice.choice((1, 3, 9)), tuple(dice.random() < 0.4 for _ in range(dice.choice((0, 1, 3, 23))))
    is_whole, is_same = dice.random(), dice.random()
    words, starts = NOTHING, np.zeros(keys + 1, np.int64)
    wanted: list[list[Row]] = [[] for _ in range(keys)]
    for turn in range(dice.randrange(1, 6)):
        new: list[Row] = []
        for key in range(keys):
            for _ in range(dice.choice((0, 1, 1, 12))):
                visible = dice.randrange(1_000)
                drawn = (dice.choice(("", "é", "text " * 9)) if one else dice.randrange(-(1 << 62), 1 << 62) for one in texts)
                values = tuple(value if dice.random() < max(is_whole, 0.9 * (turn == 0)) else None for value in drawn)
                new.append((key, visible, visible if dice.random() < is_same else visible - 7, values))
                wanted[key].append(new[-1])
        spans, runs = np.stack((starts[:-1], starts[1:])), np.arange(keys) + turn
        words, starts = stored(head_bytes(chunk_of(new, texts), np.arange(len(new)), keys, runs, words, spans))
        assert rows_of(words, starts, texts) == [row for rows in wanted for row in rows]
        assert head_runs(words, starts).tolist() == runs.tolist()
    asked = np.array([dice.randrange(1_000) for _ in range(keys)])
    assert rows_of(words, starts, texts, asked) == [row for key, rows in enumerate(wanted) for row in rows if row[1] < asked[key]]
    early = [sum(row[1] < 500 for row in rows) for rows in wanted]
    assert head_counts(words, starts, 500).tolist() == [[len(rows) for rows in wanted], early]


def test_a_head_that_says_everything_is_read_and_grows() -> None:
    """By hand: 2 rows, 1 byte of text, run 5; instants, event times, a column of numbers (the second NULL), one of texts (the first)."""
    words = np.array([2, 1, 5, 10, 20, 9, 19, 77, 0, 1, 0, 1, 0, 1, 0, ord("x")], np.int64)
    first: list[Row] = [(0, 10, 9, (77, "x")), (0, 20, 19, (None, None))]
    assert rows_of(words, np.array([0, 16]), (False, True)) == first
    more: list[Row] = [(0, 30, 30, (8, "y"))]
    grown = head_bytes(chunk_of(more, (False, True)), np.arange(1), 1, np.array([6]), words, np.array([[0], [16]]))
    assert rows_of(*stored(grown), (False, True)) == first + more


def test_what_need_not_be_said_is_not_kept() -> None:
    """Without late rows and NULLs a row is its instant and a word for each column."""
    rows: list[Row] = [(0, at, at, (at, -at)) for at in range(100)]
    assert len(stored(head_bytes(chunk_of(rows, (False, False)), np.arange(100), 1, np.array([1])))[0]) == 3 + 100 * 3
