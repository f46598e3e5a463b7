"""Read keys of one column group: their records swept to the cutoff by the program of the backfill."""

from collections.abc import Mapping

import numpy as np

from featreg.algebra.schedule import OVERFLOW
from featreg.compile import CompiledFeature, CompiledView
from featreg.compile.program import build_program
from featreg.errors import RefusedError
from featreg.instants import format_instant
from featreg.plan.groups import Group, group_view
from featreg.plan.online import ViewState, view_state
from featreg.session.feed import served_state
from featreg.session.keys import key_prefix, meta_key, pushed_key
from featreg.session.vectors import EMPTY, ERROR, MISSING, OK, STALE, Answer, Vector, python_values
from featreg.sweep.finish import Column
from featreg.sweep.kept import KeptSweeper, newest_s, state_of
from featreg.sweep.sweeper import Results


class GroupReader:
    """Some features of a view, from the group that has them.

    features: by definition id, all of the group's.  called: of those that are read, id -> the names they are answered under.
    """

    def __init__(
        self,
        view: CompiledView,
        group: Group,
        features: Mapping[str, CompiledFeature],
        called: Mapping[str, list[str]],
        stale_after: int,
    ):
        self.view, self.stale_after, self.called = view, stale_after, called
        self.records, self.prefix = (meta_key(group.space), pushed_key(group.space)), key_prefix(group.space)
        self.program = build_program(group_view(view, group, features), wanted=called, presence=True)
        self.sweeper = KeptSweeper(self.program)
        self.cutoff: int | None = None
        self.watermark: int | None = None
        self.order = [
            (i, column.name, column.type.name, self.program.presence[column.window])
            for i, column in enumerate(self.program.columns)
            if column.name
        ]
        place = {name: (i, kind, presence) for i, name, kind, presence in self.order}
        self.place = {name: place[one] for one, names in called.items() for name in names}
        self.whole = [i for i, _, kind, _ in self.order if kind == "BIGINT"]
        self.real = [i for i, _, kind, _ in self.order if kind == "DOUBLE"]
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

    def read_one(self, names: tuple[str, ...], records: list[bytes | None], at: int, as_of: int, vector: Vector) -> None:
        """Write one row's answers into the vector, in the order of `names`.  records[at:]: the group's own two, its state, its head."""
        state, head = records[at + 2], records[at + 3]
        view_state = self.state(records[at], records[at + 1])
        cutoff, stale = self._cutoff(view_state, as_of)
        vector.cutoff[self.view.name], vector.watermark[self.view.name] = cutoff, view_state.watermark
        values, status = vector.values, vector.status
        if cutoff is None:
            for name in names:
                values[name], status[name] = None, MISSING
            return
        if state is not None and state_of(state)[0] > cutoff:
            raise self._too_early(state_of(state)[0], as_of)
        results = self.sweeper.read_key(state, head, cutoff)
        words, valid = results.words[:, 0].tolist(), results.valid[:, 0].tolist()
        doubles = results.words.view(np.float64)[:, 0].tolist()
        for name in names:
            place, kind, presence = self.place[name]
            there = valid[place]
            if there != 1:
                values[name] = None
            elif kind == "DOUBLE":
                values[name] = doubles[place]
            elif kind == "BIGINT":
                values[name] = words[place]
            else:
                values[name] = self._values(results, place)[0]
            status[name] = ERROR if there == OVERFLOW else STALE if stale else OK if valid[presence] else EMPTY

    def read(self, run: bytes, fed: bytes, words: np.ndarray, starts: np.ndarray, as_of: int) -> dict[str, Answer]:
        """Answers by definition id for each of m rows; `columns` has the same as columns.

        starts [2 m + 1]: where in `words` the states of all rows begin, then their heads.
        """
        rows = len(starts) >> 1
        state = self.state(run, fed)
        cutoff, stale = self._cutoff(state, as_of)
        self.cutoff, self.watermark = cutoff, state.watermark
        missing = cutoff is None
        if cutoff is None:
            cutoff, starts = 0, np.zeros_like(starts)
        states, heads = starts[: rows + 1], starts[rows:]
        newest = newest_s(words, states)
        if newest > cutoff:
            raise self._too_early(newest, as_of)
        results = self.sweeper.read_keys(words, states, heads, cutoff)
        if missing:
            results.valid[:] = 0
        return self._answers(results, rows, MISSING if missing else STALE if stale else None)

    def _answers(self, results: Results, rows: int, said: str | None) -> dict[str, Answer]:
        """Values and status by id; `said`: a status that comes before empty and ok."""
        objects = np.empty(results.words.shape, object)
        objects[self.whole] = results.words[self.whole]
        objects[self.real] = results.words.view(np.float64)[self.real]
        objects[results.valid != 1] = None
        every_value, every_valid = objects.tolist(), results.valid.tolist()
        by_presence: dict[int, list[str]] = {}
        answers: dict[str, Answer] = {}
        for i, one, kind, presence in self.order:
            valid = every_valid[i]
            values = every_value[i] if kind == "BIGINT" or kind == "DOUBLE" else self._values(results, i)
            status = by_presence.get(presence)
            if status is None:
                status = [said] * rows if said is not None else [OK if here else EMPTY for here in every_valid[presence]]
                by_presence[presence] = status
            if OVERFLOW in valid and said != MISSING:
                status = [ERROR if there == OVERFLOW else one_status for one_status, there in zip(status, valid)]
            answers[one] = (values, status)
        return answers

    def _values(self, results: Results, place: int) -> list:
        column, sweeper = self.program.columns[place], self.sweeper
        return python_values(results.words[place], results.valid[place], column.type, sweeper.out_heap, sweeper.out_text)

    def columns(self) -> dict[str, Column]:
        """What was read last, by id, for what is derived from it."""
        sweeper, results = self.sweeper, self.sweeper.results
        return {
            one: Column(results.words[i], results.valid[i], self.program.columns[i].type, sweeper.out_heap, sweeper.out_text)
            for i, one, _, _ in self.order
        }

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

    def _too_early(self, s: int, as_of: int) -> RefusedError:
        earliest = s + self.view.cadence.delay
        return RefusedError(
            f"view '{self.view.name}' can no longer answer as of {format_instant(as_of)}; the earliest is {format_instant(earliest)}.\n"
            f"  Ask training_set(…) for the past, or raise [online] replay to keep more of it."
        )
