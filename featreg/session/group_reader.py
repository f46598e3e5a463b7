"""Read keys of one column group: their records swept to the cutoff by the program of the backfill."""

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from featreg.algebra.schedule import OVERFLOW
from featreg.compile import CompiledFeature, CompiledView
from featreg.compile.program import build_program
from featreg.errors import RefusedError
from featreg.instants import format_instant
from featreg.plan.groups import Group, group_view
from featreg.plan.online import ViewState, view_state
from featreg.session.feed import served_state
from featreg.session.keys import meta_key, pushed_key, records_of
from featreg.session.vectors import EMPTY, ERROR, MISSING, OK, STALE, Swept, Vector, python_values, text_at
from featreg.sweep.finish import Column
from featreg.sweep.kept import KeptSweeper, newest_s, state_of
from featreg.vocabulary import DataType

_MOST_SHAPES = 256  # of which a reader keeps how one row is answered
_LETTERS = {"BIGINT": "q", "DOUBLE": "d"}


class TooEarly(RefusedError):
    """An instant that is before the S of a view, or of the state of a key: of a busy key its pieces are read then."""


class _Shape(NamedTuple):
    """How one row is answered where these columns and no others have a value.

    blank: every name, None · numbers: what the words of numbers are, one behind another · names: of those ·
    others: name, column and type of all other values · status: by name.
    """

    blank: Mapping[str, None]
    numbers: struct.Struct
    names: Sequence[str]
    others: Sequence[tuple[str, int, DataType]]
    status: Mapping[str, str]


class GroupReader:
    """Some features of a view, from the group that has them.

    features: by definition id, all of the group's.  called: of those that are read, id -> the names they are answered under.
    names: of all that are read, in the order in which one row has them.
    """

    def __init__(
        self,
        view: CompiledView,
        group: Group,
        features: Mapping[str, CompiledFeature],
        called: Mapping[str, list[str]],
        names: tuple[str, ...],
        stale_after: int,
    ):
        self.view, self.stale_after, self.names = view, stale_after, names
        self.own, self.records = (meta_key(group.space), pushed_key(group.space)), records_of(group.space)
        self.program = build_program(group_view(view, group, features), wanted=called, presence=True)
        self.sweeper = KeptSweeper(self.program)
        self.cutoff: int | None = None
        self.watermark: int | None = None
        presence = self.program.presence
        self.places = {one.name: (i, presence[one.window]) for i, one in enumerate(self.program.columns) if one.name}
        self._place_of = {name: self.places[one] for one, answered in called.items() for name in answered}
        self._shapes: dict[tuple[bytes, bool], _Shape] = {}
        self.types = [column.type for column in self.program.columns]
        self._run: bytes | None = None
        self._fed: bytes | None = None
        self._state = ViewState()

    @property
    def fed(self) -> bytes | None:
        """What stood in the store of pushed rows when the group was read last."""
        return self._fed

    @property
    def batched(self) -> int | None:
        """Up to where runs had filled the group when it was read last."""
        return view_state(self._run).batched

    def state(self, run: bytes | None, fed: bytes | None) -> ViewState:
        """What the store knows of the group, from its two records."""
        if fed != self._fed or run != self._run:
            self._run, self._fed, self._state = run, fed, served_state(run, fed)
        return self._state

    def read_one(
        self, run: bytes | None, fed: bytes | None, state: bytes | None, head: bytes | None, as_of: int, vector: Vector
    ) -> None:  # fmt: skip
        """Write one row's answers into the vector, from what the store knows of the group and of the key."""
        view_state = self.state(run, fed)
        cutoff, stale = self._cutoff(view_state, as_of)
        vector.cutoff[self.view.name], vector.watermark[self.view.name] = cutoff, view_state.watermark
        values = vector.values
        if cutoff is None:
            values.update(dict.fromkeys(self.names))
            vector.status.update(dict.fromkeys(self.names, MISSING))
            return
        if state is not None and state_of(state)[0] > cutoff:
            raise self._too_early(state_of(state)[0], as_of)
        results = self.sweeper.read_key(state, head, cutoff)
        words, valid = results.words[:, 0], results.valid[:, 0].tobytes()
        shape = self._shapes.get((valid, stale)) or self._shape(valid, stale)
        values.update(shape.blank)
        values.update(zip(shape.names, shape.numbers.unpack(words.tobytes())))
        for name, place, kind in shape.others:
            if kind.name == "VARCHAR":
                values[name] = text_at(self.sweeper.out_text, words[place])
            else:
                column = Column(results.words[place], results.valid[place], kind, self.sweeper.out_heap, self.sweeper.out_text)
                values[name] = python_values(column)[0]
        vector.status.update(shape.status)

    def _shape(self, valid: bytes, stale: bool) -> _Shape:
        """Of all shapes few are met: a window that is empty is so for each of its features."""
        status: dict[str, str] = {}
        numbers, others = {}, []  # numbers: name and letter of `struct` by column
        for name in self.names:
            place, presence = self._place_of[name]
            kind, there = self.types[place], valid[place]
            if there == 1 and kind.name in _LETTERS and place not in numbers:
                numbers[place] = name, _LETTERS[kind.name]
            elif there == 1:
                others.append((name, place, kind))
            status[name] = ERROR if there == OVERFLOW else STALE if stale else OK if valid[presence] else EMPTY
        letters = "".join(numbers[place][1] if place in numbers else "8x" for place in range(len(valid)))
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        named = [numbers[place][0] for place in sorted(numbers)]
        one = self._shapes[valid, stale] = _Shape(dict.fromkeys(self.names), struct.Struct("=" + letters), named, others, status)
        return one

    def read(self, run: bytes, fed: bytes, words: np.ndarray, starts: np.ndarray, index: np.ndarray | None, as_of: int) -> Swept:
        """What the group answers for m keys, or for the rows of `index`: which key each has.

        starts [2 m + 1]: where in `words` the states of all keys begin, then their heads.
        """
        keys = len(starts) >> 1
        state = self.state(run, fed)
        cutoff, stale = self._cutoff(state, as_of)
        self.cutoff, self.watermark = cutoff, state.watermark
        missing = cutoff is None
        if cutoff is None:
            cutoff, starts = 0, np.zeros_like(starts)
        states, heads = starts[: keys + 1], starts[keys:]
        newest = newest_s(words, states)
        if newest > cutoff:
            raise self._too_early(newest, as_of)
        results = self.sweeper.read_keys(words, states, heads, cutoff)
        found, valid = (a[:, :keys].copy() if index is None else a.take(index, 1) for a in (results.words, results.valid))
        if missing:
            valid[:] = 0
        said = MISSING if missing else STALE if stale else None
        return Swept(found, valid, self.types, *self.sweeper.pools(), said)

    def _cutoff(self, state: ViewState, as_of: int) -> tuple[int | None, bool]:
        """The instant that a read at `as_of` computes at, and whether it is staler than declared; None when there is nothing."""
        if state.watermark is None or state.s is None:
            return None, False
        cadence = self.view.cadence
        cutoff = cadence.cutoff(as_of)
        if cadence.is_realtime:
            stale = cutoff - state.watermark > self.stale_after
        else:
            newest = cadence.offset + (state.watermark - cadence.offset) // cadence.period * cadence.period
            stale, cutoff = cutoff > newest, min(cutoff, newest)
        if cutoff < state.s:
            raise self._too_early(state.s, as_of)
        return cutoff, stale

    def _too_early(self, s: int, as_of: int) -> TooEarly:
        earliest = s + self.view.cadence.delay
        return TooEarly(
            f"view '{self.view.name}' can no longer answer as of {format_instant(as_of)}; the earliest is {format_instant(earliest)}.\n"
            f"  Ask training_set(…) for the past, or raise [online] replay to keep more of it."
        )
