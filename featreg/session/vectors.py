"""What an online read answers: values with a status each, as Python has them."""

from typing import Any

import numpy as np

from featreg.algebra.schedule import LENGTH_BITS, LONGEST_TEXT, OVERFLOW
from featreg.session.answer import STATUSES
from featreg.session.answer import Vector as Vector
from featreg.sweep.finish import Column
from featreg.sweep.words import to_arrow
from featreg.vocabulary import DataType

MISSING, ERROR, STALE, EMPTY, OK = STATUSES
Answer = tuple[list[Any], list[str]]  # values and status, by row


def derived_answer(column: Column, inputs: list[list[str]], rows: int) -> Answer:
    """A derived feature has its worst input's status, and `error` when it is out of range itself."""
    worst = [min((status[row] for status in inputs), key=STATUSES.index, default=OK) for row in range(rows)]
    there = column.valid.tolist()
    status = [ERROR if there[row] == OVERFLOW and worst[row] != MISSING else worst[row] for row in range(rows)]
    values = python_values(column.words, column.valid, column.type, column.items, column.text)
    return [None if worst[row] == MISSING else values[row] for row in range(rows)], status


def python_values(words: np.ndarray, valid: np.ndarray, kind: DataType, items: np.ndarray, text: np.ndarray) -> list:
    """Python values, as `to_arrow().to_pylist()` gives them."""
    if kind.name == "VARCHAR":
        pool = memoryview(text)  # type: ignore[arg-type]
        return [
            str(pool[w >> LENGTH_BITS : (w >> LENGTH_BITS) + (w & LONGEST_TEXT)], "utf-8") if v == 1 else None
            for w, v in zip(words.tolist(), valid.tolist())
        ]
    return to_arrow(words, np.where(valid == 1, valid, 0).astype(np.uint8), kind, items, text).to_pylist()
