"""Read vectors from the online store: the kept state of a key, swept to the cutoff by the program of the backfill."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from featreg.algebra.schedule import LENGTH_BITS, LONGEST_TEXT, OVERFLOW
from featreg.compile import Compiled, CompiledSet, CompiledView, Lookup
from featreg.compile.program import build_program
from featreg.errors import DataError, RefusedError, did_you_mean
from featreg.instants import format_instant, parse_instant
from featreg.plan.online import ViewState, space_of
from featreg.session.keys import key_prefix, meta_key
from featreg.session.order import in_order
from featreg.session.store import open_store
from featreg.session.tables import request_column
from featreg.session.training_set import as_column
from featreg.stores.codec import key_encoder
from featreg.stores.contract import Store
from featreg.sweep.finish import Column, Derivation
from featreg.sweep.kept import KeptSweeper, newest_s, state_of
from featreg.sweep.sweeper import Results
from featreg.sweep.warm import READ, compile_for
from featreg.sweep.words import to_arrow
from featreg.vocabulary import DataType

if TYPE_CHECKING:
    from featreg.session.registry import Registry

STATUSES = ("missing", "error", "stale", "empty", "ok")  # of several, the first
MISSING, ERROR, STALE, EMPTY, OK = STATUSES
_LOOK_AGAIN = 0.05  # seconds between looks at what is applied
_NO_KEY = b"\2"
Answer = tuple[list[Any], list[str]]  # values and status, by row
KeyShape = tuple[tuple[str, ...], tuple[str, ...]]  # columns of a row that are a key, and their types


@dataclass(slots=True)
class Vector:
    """One answer.  values, status: by feature in declared order · cutoff, watermark: by view, UTC microseconds (None: not materialized)."""

    values: dict[str, Any]
    status: dict[str, str]
    cutoff: dict[str, int | None]
    watermark: dict[str, int | None]


class OnlineReader:
    """Reads for one open registry; not for several threads at once: each opens its own."""

    def __init__(self, registry: "Registry"):
        self.registry = registry
        self.store = open_store(registry.profile)
        self.sets: dict[tuple[str, str | None], _SetReader] = {}
        self.behind: set[str] = set()  # sets that are answered by what was applied before, for their new views are not filled
        self.generation = -1
        self.looked_at = 0.0

    def close(self) -> None:
        self.store.close()

    def read(
        self, name: str, keys: Mapping[str, Any] | Sequence[Mapping[str, Any]], at: int | None, pin: str | None = None
    ) -> Vector | list[Vector]:
        reader = self.set_reader(name, pin)
        as_of = time.time_ns() // 1000 if at is None else at
        if isinstance(keys, Mapping):
            return reader.read_one(keys, as_of)
        rows = list(keys)
        return reader.read(rows, as_of) if rows else []

    def set_reader(self, name: str, pin: str | None = None) -> "_SetReader":
        """The set as it is served now, or as it is pinned; looked up again at most every 50 ms."""
        moment = time.monotonic()
        if moment - self.looked_at > _LOOK_AGAIN:
            applied = self.registry.applied()
            self.looked_at = moment
            if applied.generation != self.generation:
                self.sets, self.behind, self.generation = {}, set(), applied.generation
            for late in [late for late in self.behind if self._is_filled(applied.compiled, late)]:
                del self.sets[late, None]
                self.behind.discard(late)
        reader = self.sets.get((name, pin))
        if reader is None:
            served = self._served(name) if pin is None else self.registry.pinned(pin, name).compiled
            reader = self.sets[name, pin] = _SetReader(self, name, served)
        return reader

    def _served(self, name: str) -> Compiled:
        """The newest applied definitions in which all views of the set are filled; where there are none, the newest."""
        newest = self.registry.applied()
        if name not in newest.compiled.sets:
            raise DataError(f"there is no feature set '{name}'.\n  {did_you_mean(name, newest.compiled.sets, 'Applied are')}")
        if not self._is_filled(newest.compiled, name):
            for earlier in self.registry.applied_before(newest.generation):
                if name not in earlier.compiled.sets:
                    break
                if self._is_filled(earlier.compiled, name):
                    self.behind.add(name)
                    return earlier.compiled
        return newest.compiled

    def _is_filled(self, compiled: Compiled, name: str) -> bool:
        """Whether every view of the set has ended a run in the store."""
        views = {lookup.view for lookup in compiled.sets[name].lookups}
        stored = self.store.get([meta_key(space_of(compiled.views[view])) for view in sorted(views)])
        return all(one is not None and json.loads(one)["watermark"] is not None for one in stored)


class _SetReader:
    """A feature set made ready to be read: per lookup a view reader, and the set's derived features."""

    def __init__(self, online: OnlineReader, name: str, applied: Compiled):
        self.set: CompiledSet = applied.sets[name]
        self.store = online.store
        compile_for(READ, (build_program(applied.views[lookup.view]) for lookup in self.set.lookups))
        self.lookups = [
            _LookupReader(lookup, applied.views[lookup.view], online.registry.profile.stale_after) for lookup in self.set.lookups
        ]
        self.names = self.set.names
        self.metas = [lookup.meta for lookup in self.lookups]
        self.derivation = None
        if self.set.derived:
            types = {name: kind.widened for name, kind in (*self.set.columns, *self.set.request)}
            self.derivation = Derivation(in_order(self.set), types)
        listed = tuple(name for lookup in self.lookups for _, name in lookup.lookup.features)
        derives = self.derivation is not None or any(lookup.derivation is not None for lookup in self.lookups)
        self.is_plain = listed == self.names and not derives and not self.set.request

    def read_one(self, row: Mapping[str, Any], as_of: int) -> Vector:
        """As `read`, for one row: the same sweep with less around it."""
        if not self.is_plain:
            return self.read([row], as_of)[0]
        names: list[bytes] = []
        for lookup in self.lookups:
            names += lookup.names(row)
        found = self.store.get(names)
        vector = Vector({}, {}, {}, {})
        at = 0
        for lookup in self.lookups:
            lookup.read_one(found[at], found[at + 1], found[at + 2], as_of, vector)
            at += 3
        return vector

    def read(self, rows: Sequence[Mapping[str, Any]], as_of: int) -> list[Vector]:
        encoded: dict[KeyShape, list[bytes]] = {}
        names: list[bytes] = []
        for lookup in self.lookups:
            keys = encoded.get(lookup.key_shape)
            if keys is None:
                keys = encoded[lookup.key_shape] = lookup.encoded(rows)
            names += [lookup.prefix + key for key in keys]
        data, lengths = self.store.gather([*names, *self.metas])
        starts = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=starts[1:])
        ends = starts[len(names) :].tolist()
        metas = [bytes(data[low:high]) for low, high in pairwise(ends)]
        words = np.frombuffer(data, np.int64, ends[0] >> 3)  # `gather` put nothing before that is no multiple of 8 long
        starts >>= 3
        answers: dict[str, Answer] = {}
        columns: dict[str, Column] = {}
        cutoff: dict[str, int | None] = {}
        watermark: dict[str, int | None] = {}
        at = 0
        for lookup, stored in zip(self.lookups, metas):
            of_keys = starts[at : at + 2 * len(rows) + 1]
            answers |= lookup.read(stored, words, of_keys, as_of, columns if self.derivation is not None else None)
            view = lookup.view.name
            cutoff[view], watermark[view] = lookup.cutoff, lookup.watermark
            at += 2 * len(rows)
        if self.derivation is not None:
            self._derive(rows, answers, columns)
        elif self.set.request:
            self._request(rows)
        names_of = self.names
        values_by_row = zip(*[answers[name][0] for name in names_of])
        return [
            Vector(dict(zip(names_of, values)), status, cutoff.copy(), watermark.copy())
            for values, status in zip(values_by_row, self._status_by_row(answers))
        ]

    def _status_by_row(self, answers: dict[str, "Answer"]) -> Iterator[dict[str, str]]:
        """Status by name, row by row.  Features of one window share a list: few kinds of row are made, the others are copies."""
        lists: dict[int, list[str]] = {}
        places = []
        for name in self.names:
            status = answers[name][1]
            lists[id(status)] = status
            places.append((name, list(lists).index(id(status))))
        made: dict[tuple[str, ...], dict[str, str]] = {}
        for row in zip(*lists.values()):
            known = made.get(row)
            if known is None:
                known = made[row] = {name: row[place] for name, place in places}
            yield known.copy()

    def _request(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
        columns = {}
        for name, kind in self.set.request:
            lacking = next((row for row in rows if name not in row), None)
            if lacking is not None:
                raise DataError(f"request column '{name}' is missing.\n  {did_you_mean(name, list(lacking), 'Given are')}")
            try:
                array = pa.array([row[name] for row in rows])
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise DataError(f"request column '{name}' is declared {kind}: {error}.") from None
            columns[name] = as_column(request_column(pa.table({name: array}), name, kind, "the request"), kind)
        return columns

    def _derive(self, rows: Sequence[Mapping[str, Any]], answers: dict[str, "Answer"], columns: dict[str, Column]) -> None:
        assert self.derivation is not None
        derived = self.derivation.run(columns | self._request(rows), len(rows))
        for name, typed in self.derivation.outputs:
            answers[name] = _derived_answer(derived[name], [answers[used][1] for used in typed.columns if used in answers], len(rows))


class _LookupReader:
    """One view, for one mapping of its entity's keys."""

    def __init__(self, lookup: Lookup, view: CompiledView, stale_after: int):
        self.view, self.lookup, self.stale_after = view, lookup, stale_after
        space = space_of(view)
        self.meta, self.prefix = meta_key(space), key_prefix(space)
        wanted = view.closure(tuple(feature for feature, _ in lookup.features))
        features = view.by_name
        self.aggregates = tuple(name for name in wanted if features[name].aggregation)
        self.program = build_program(view, wanted=self.aggregates, presence=True)
        self.sweeper = KeptSweeper(self.program)
        self.encode = key_encoder([kind for _, kind in view.key])
        self.columns = lookup.spine_columns
        self.key_shape: KeyShape = (lookup.spine_columns, tuple(kind.name for _, kind in view.key))
        self.convert = tuple(_key_converter(column, kind) for column, (_, kind) in zip(lookup.spine_columns, view.key))
        self.called: dict[str, list[str]] = {}
        for feature, name in lookup.features:
            self.called.setdefault(feature, []).append(name)
        self.presence = {
            column.name: self.program.presence[column.window] for column in self.program.columns if column.name
        }
        derived = [(name, features[name].derived) for name in wanted if features[name].derived is not None]
        self.derivation = Derivation(derived, {name: features[name].type.widened for name in wanted}) if derived else None  # type: ignore[arg-type]
        self.cutoff: int | None = None
        self.watermark: int | None = None
        self.order = [
            (i, column.name, column.type.name, self.presence[column.name], self.called.get(column.name, []))
            for i, column in enumerate(self.program.columns)
            if column.name
        ]
        places = {name: (i, kind, presence) for i, name, kind, presence, _ in self.order}
        self.order_one = [(name, *places[feature]) for feature, name in lookup.features if feature in places]
        self.whole = [i for i, _, kind, _, _ in self.order if kind == "BIGINT"]
        self.real = [i for i, _, kind, _, _ in self.order if kind == "DOUBLE"]
        self._state_bytes: bytes | None = None
        self._state = ViewState()

    def stored_state(self, store: Store) -> ViewState:
        """What the store knows of the view now."""
        return self._view_state(store.get([self.meta])[0])

    def names(self, row: Mapping[str, Any]) -> tuple[bytes, bytes, bytes]:
        """The store's keys to read for one row: the view's own, then its state and its head."""
        state, head = self.encoded((row,))
        return self.meta, self.prefix + state, self.prefix + head

    def encoded(self, rows: Sequence[Mapping[str, Any]]) -> list[bytes]:
        """What stands behind the prefix in the store's keys: of the states of all rows, then of their heads."""
        keys, ends = [], (b"\0", b"\1")
        for row in rows:
            try:
                keys.append(self.encode(self._parts(row)))
            except _NullKey:  # in no window: a name that no key has
                keys.append(_NO_KEY)
        return [key + end for end in ends for key in keys]

    def _parts(self, row: Mapping[str, Any]) -> list:
        parts = []
        for column, convert in zip(self.columns, self.convert):
            if column not in row:
                raise DataError(f"key '{column}' of view '{self.view.name}' is missing.\n  {did_you_mean(column, list(row), 'Given are')}")
            parts.append(convert(row[column]))
        return parts

    def read_one(self, stored: bytes | None, state: bytes | None, head: bytes | None, as_of: int, vector: Vector) -> None:
        """Write one row's answers into the vector."""
        view_state = self._view_state(stored)
        cutoff, stale = self._cutoff(view_state, as_of)
        vector.cutoff[self.view.name], vector.watermark[self.view.name] = cutoff, view_state.watermark
        values, status = vector.values, vector.status
        if cutoff is None:
            for name, *_ in self.order_one:
                values[name], status[name] = None, MISSING
            return
        if state is not None and state_of(state)[0] > cutoff:
            raise self._too_early(state_of(state)[0], as_of)
        results = self.sweeper.read_key(state, head, cutoff)
        words, valid = results.words[:, 0].tolist(), results.valid[:, 0].tolist()
        doubles = results.words.view(np.float64)[:, 0].tolist()
        for name, place, kind, presence in self.order_one:
            there = valid[place]
            if there != 1:
                values[name] = None
            elif kind == "DOUBLE":
                values[name] = doubles[place]
            elif kind == "BIGINT":
                values[name] = words[place]
            else:
                column = self.program.columns[place]
                sweeper = self.sweeper
                values[name] = _values(results.words[place], results.valid[place], column.type, sweeper.out_heap, sweeper.out_text)[0]
            status[name] = ERROR if there == OVERFLOW else STALE if stale else OK if valid[presence] else EMPTY

    def read(
        self, stored: bytes, words: np.ndarray, starts: np.ndarray, as_of: int, columns: dict[str, Column] | None
    ) -> dict[str, Answer]:
        """Answers by name in the set, for each of m rows; `columns`, when given, gets what features are derived from.

        starts [2 m + 1]: where in `words` the states of all rows begin, then their heads.
        """
        rows = len(starts) >> 1
        state = self._view_state(stored)
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
        answers = self._answers(results, rows, MISSING if missing else STALE if stale else None)
        if columns is not None or self.derivation is not None:
            self._derive(results, rows, answers, columns)
        return {name: answers[feature] for feature, names in self.called.items() for name in names}

    def _answers(self, results: Results, rows: int, said: str | None) -> dict[str, Answer]:
        """Values and status of the aggregates; `said`: a status that comes before empty and ok."""
        objects = np.empty(results.words.shape, object)
        objects[self.whole] = results.words[self.whole]
        objects[self.real] = results.words.view(np.float64)[self.real]
        objects[results.valid != 1] = None
        every_value, every_valid = objects.tolist(), results.valid.tolist()
        by_presence: dict[int, list[str]] = {}
        answers: dict[str, Answer] = {}
        for i, name, kind, presence, _ in self.order:
            valid = every_valid[i]
            values: list[Any]
            if kind == "BIGINT" or kind == "DOUBLE":
                values = every_value[i]
            else:
                column = self.program.columns[i]
                values = _values(results.words[i], results.valid[i], column.type, self.sweeper.out_heap, self.sweeper.out_text)
            status = by_presence.get(presence)
            if status is None:
                status = [said] * rows if said is not None else [OK if here else EMPTY for here in every_valid[presence]]
                by_presence[presence] = status
            if OVERFLOW in valid and said != MISSING:
                status = [ERROR if there == OVERFLOW else one for one, there in zip(status, valid)]
            answers[name] = (values, status)
        return answers

    def _derive(self, results: Results, rows: int, answers: dict[str, Answer], columns: dict[str, Column] | None) -> None:
        found = {
            column.name: Column(results.words[i].copy(), results.valid[i].copy(), column.type, self.sweeper.out_heap, self.sweeper.out_text)
            for i, column in enumerate(self.program.columns)
            if column.name
        }
        if self.derivation is not None:
            found |= self.derivation.run(found, rows)
            for name, typed in self.derivation.outputs:
                answers[name] = _derived_answer(found[name], [answers[used][1] for used in typed.columns], rows)
        if columns is not None:
            columns |= {name: found[feature] for feature, names in self.called.items() for name in names}

    def _view_state(self, stored: bytes | None) -> ViewState:
        if stored != self._state_bytes:
            self._state_bytes, self._state = stored, ViewState(**json.loads(stored)) if stored else ViewState()
        return self._state

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


def _derived_answer(column: Column, inputs: list[list[str]], rows: int) -> Answer:
    """A derived feature has its worst input's status, and `error` when it is out of range itself."""
    worst = [min((status[row] for status in inputs), key=STATUSES.index, default=OK) for row in range(rows)]
    there = column.valid.tolist()
    status = [ERROR if there[row] == OVERFLOW and worst[row] != MISSING else worst[row] for row in range(rows)]
    values = _values(column.words, column.valid, column.type, column.items, column.text)
    return [None if worst[row] == MISSING else values[row] for row in range(rows)], status


def _key_converter(column: str, kind: DataType) -> Callable[[Any], Any]:
    """Check a key part's type, and give it as the codec takes it."""

    def wrong(value: Any) -> DataError:
        return DataError(
            f"key '{column}' is {kind}, and {value!r} is a {type(value).__name__}. A key is compared as its type: 1 is not \"1\"."
        )

    def text(value: Any) -> str:
        if value.__class__ is not str:
            if value is None:
                raise _NullKey
            raise wrong(value)
        return value

    def whole(value: Any) -> int:
        if value.__class__ is not int:
            if value is None:
                raise _NullKey
            if isinstance(value, np.integer):
                return int(value)
            raise wrong(value)
        return value

    def truth(value: Any) -> bool:
        if value is None:
            raise _NullKey
        if not isinstance(value, (bool, np.bool_)):
            raise wrong(value)
        return bool(value)

    def day(value: Any) -> int:
        if value is None:
            raise _NullKey
        if isinstance(value, datetime) or not isinstance(value, date):
            raise wrong(value)
        return value.toordinal() - date(1970, 1, 1).toordinal()

    def instant(value: Any) -> int:
        if value is None:
            raise _NullKey
        if not isinstance(value, datetime):
            raise wrong(value)
        return parse_instant(value.astimezone(UTC) if value.tzinfo else value)

    return {"VARCHAR": text, "BOOLEAN": truth, "DATE": day, "TIMESTAMP": instant}.get(kind.name, whole)


class _NullKey(Exception):
    """A key with a NULL part: an empty window."""


def _values(words: np.ndarray, valid: np.ndarray, kind: DataType, items: np.ndarray, text: np.ndarray) -> list:
    """Python values, as `to_arrow().to_pylist()` gives them."""
    if kind.name == "VARCHAR":
        pool = memoryview(text)  # type: ignore[arg-type]
        return [
            str(pool[w >> LENGTH_BITS : (w >> LENGTH_BITS) + (w & LONGEST_TEXT)], "utf-8") if v == 1 else None
            for w, v in zip(words.tolist(), valid.tolist())
        ]
    return to_arrow(words, np.where(valid == 1, valid, 0).astype(np.uint8), kind, items, text).to_pylist()
