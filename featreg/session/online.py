"""Read vectors from the online store: the kept state of a key, swept to the cutoff by the program of the backfill."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from featreg.algebra.schedule import LENGTH_BITS, LONGEST_TEXT, OVERFLOW
from featreg.compile import CompiledSet, CompiledView, Lookup
from featreg.compile.program import build_program
from featreg.errors import DataError, RefusedError, did_you_mean
from featreg.instants import format_instant, parse_instant
from featreg.plan.online import ViewState, space_of
from featreg.session.keys import key_prefix, meta_key
from featreg.session.order import in_order
from featreg.session.tables import request_column
from featreg.session.training_set import as_column
from featreg.stores.codec import key_encoder
from featreg.stores.contract import Store
from featreg.stores.lmdb import open_store
from featreg.sweep.finish import Column, Derivation
from featreg.sweep.kept import KeptSweeper, joined, state_of
from featreg.sweep.words import to_arrow
from featreg.vocabulary import DataType

if TYPE_CHECKING:
    from featreg.session.registry import Registry

STATUSES = ("missing", "error", "stale", "empty", "ok")  # of several, the first
MISSING, ERROR, STALE, EMPTY, OK = STATUSES
_LOOK_AGAIN = 0.05  # seconds between looks at what is applied
_NO_KEY = b"\2"
_PLAIN = ("BIGINT", "DOUBLE", "BOOLEAN")


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
        self.store = open_store(registry.profile.online_path)
        self.sets: dict[str, _SetReader] = {}
        self.generation = -1
        self.looked_at = 0.0

    def close(self) -> None:
        self.store.close()

    def read(self, name: str, keys: Mapping[str, Any] | Sequence[Mapping[str, Any]], at: int | None) -> Vector | list[Vector]:
        reader = self.set_reader(name)
        as_of = time.time_ns() // 1000 if at is None else at
        if isinstance(keys, Mapping):
            return reader.read([keys], as_of)[0]
        rows = list(keys)
        return reader.read(rows, as_of) if rows else []

    def set_reader(self, name: str) -> "_SetReader":
        """The set as it is applied now, looked up again at most every 50 ms."""
        moment = time.monotonic()
        if moment - self.looked_at > _LOOK_AGAIN:
            applied = self.registry.applied()
            self.looked_at = moment
            if applied.generation != self.generation:
                self.sets, self.generation = {}, applied.generation
        reader = self.sets.get(name)
        if reader is None:
            reader = self.sets[name] = _SetReader(self, name)
        return reader


class _SetReader:
    """A feature set made ready to be read: per lookup a view reader, and the set's derived features."""

    def __init__(self, online: OnlineReader, name: str):
        applied = online.registry.applied().compiled
        if name not in applied.sets:
            raise DataError(f"there is no feature set '{name}'.\n  {did_you_mean(name, applied.sets, 'Applied are')}")
        self.set: CompiledSet = applied.sets[name]
        self.store = online.store
        self.lookups = [
            _LookupReader(lookup, applied.views[lookup.view], online.registry.profile.stale_after) for lookup in self.set.lookups
        ]
        self.names = self.set.names
        self.derivation = None
        if self.set.derived:
            types = {name: kind.widened for name, kind in (*self.set.columns, *self.set.request)}
            self.derivation = Derivation(in_order(self.set), types)

    def read(self, rows: Sequence[Mapping[str, Any]], as_of: int) -> list[Vector]:
        names: list[bytes] = []
        for lookup in self.lookups:
            names += lookup.names(rows)
        found = self.store.get(names)
        vectors = [Vector({}, {}, {}, {}) for _ in rows]
        columns: dict[str, Column] = {}
        at = 0
        for lookup in self.lookups:
            count = 1 + 2 * len(rows)
            columns |= lookup.read(found[at : at + count], vectors, as_of, self.derivation is not None)
            at += count
        if self.derivation is not None:
            self._derive(rows, vectors, columns)
        elif self.set.request:
            self._request(rows)
        if len(self.lookups) > 1 or self.derivation is not None:
            for vector in vectors:
                vector.values = {name: vector.values[name] for name in self.names}
                vector.status = {name: vector.status[name] for name in self.names}
        return vectors

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

    def _derive(self, rows: Sequence[Mapping[str, Any]], vectors: list[Vector], columns: dict[str, Column]) -> None:
        assert self.derivation is not None
        derived = self.derivation.run(columns | self._request(rows), len(rows))
        for name, typed in self.derivation.outputs:
            column = derived[name]
            values = _values(column.words, column.valid, column.type, column.items, column.text)
            for i, vector in enumerate(vectors):
                inputs = [vector.status[used] for used in typed.columns if used in vector.status]
                worst = min(inputs, key=STATUSES.index, default=OK)
                if column.valid[i] == OVERFLOW and worst != MISSING:
                    worst = ERROR
                vector.status[name] = worst
                vector.values[name] = None if worst == MISSING else values[i]


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
        self.convert = tuple(_key_converter(column, kind) for column, (_, kind) in zip(lookup.spine_columns, view.key))
        self.called: dict[str, list[str]] = {}
        for feature, name in lookup.features:
            self.called.setdefault(feature, []).append(name)
        self.presence = {
            column.name: self.program.presence[column.window] for column in self.program.columns if column.name
        }
        derived = [(name, features[name].derived) for name in wanted if features[name].derived is not None]
        self.derivation = Derivation(derived, {name: features[name].type.widened for name in wanted}) if derived else None  # type: ignore[arg-type]
        self.plain = not derived and all(column.type.name in _PLAIN for column in self.program.columns)
        self.order = [
            (i, column.name, column.type.name, self.presence[column.name], self.called.get(column.name, []))
            for i, column in enumerate(self.program.columns)
            if column.name
        ]
        self._state_bytes: bytes | None = None
        self._state = ViewState()

    def stored_state(self, store: Store) -> ViewState:
        """What the store knows of the view now."""
        return self._view_state(store.get([self.meta])[0])

    def names(self, rows: Sequence[Mapping[str, Any]]) -> list[bytes]:
        """The store's keys to read: the view's own, then state and head of each row."""
        names = [self.meta]
        for row in rows:
            try:
                name = self.prefix + self.encode(self._parts(row))
            except _NullKey:  # in no window: a name that no key has
                name = _NO_KEY
            names += (name + b"\0", name + b"\1")
        return names

    def _parts(self, row: Mapping[str, Any]) -> list:
        parts = []
        for column, convert in zip(self.columns, self.convert):
            if column not in row:
                raise DataError(f"key '{column}' of view '{self.view.name}' is missing.\n  {did_you_mean(column, list(row), 'Given are')}")
            parts.append(convert(row[column]))
        return parts

    def read(self, found: list[bytes | None], vectors: list[Vector], as_of: int, columns_too: bool) -> dict[str, Column]:
        """Fill in this lookup's part of the vectors; its columns too when features are derived from them."""
        state, view, rows = self._view_state(found[0]), self.view, len(vectors)
        cutoff, stale = self._cutoff(state, as_of)
        for vector in vectors:
            vector.cutoff[view.name], vector.watermark[view.name] = cutoff, state.watermark
        states, heads = found[1::2], found[2::2]
        if cutoff is None:
            cutoff, stale = 0, False
            states, heads, missing = [None] * rows, [None] * rows, True
        else:
            missing = False
            for blob in states:
                if blob is not None and state_of(blob)[0] > cutoff:
                    raise self._too_early(state_of(blob)[0], as_of)
        if rows == 1 and self.plain and not columns_too:
            self._read_one(states[0], heads[0], cutoff, stale, missing, vectors[0])
            return {}
        return self._read_many(states, heads, cutoff, stale, missing, vectors)

    def _sweep(self, states: list[bytes | None], heads: list[bytes | None], cutoff: int):
        words, starts = joined(states)
        head_words, head_starts = joined(heads)
        return self.sweeper.read(words, starts, head_words, head_starts, np.full(len(states), cutoff, np.int64))

    def _read_one(self, state: bytes | None, head: bytes | None, cutoff: int, stale: bool, missing: bool, vector: Vector) -> None:
        results = self._sweep([state], [head], cutoff)
        words, valid = results.words[:, 0].tolist(), results.valid[:, 0].tolist()
        doubles = results.words.view(np.float64)[:, 0].tolist()
        values, status = vector.values, vector.status
        for i, _, kind, presence, names in self.order:
            there = valid[i]
            value = None if there != 1 or missing else doubles[i] if kind == "DOUBLE" else words[i] if kind == "BIGINT" else words[i] != 0
            said = MISSING if missing else ERROR if there == OVERFLOW else STALE if stale else OK if valid[presence] else EMPTY
            for name in names:
                values[name], status[name] = value, said

    def _read_many(self, states, heads, cutoff: int, stale: bool, missing: bool, vectors: list[Vector]) -> dict[str, Column]:
        rows = len(vectors)
        results = self._sweep(states, heads, cutoff)
        sweeper = self.sweeper
        columns = {
            column.name: Column(results.words[i].copy(), results.valid[i].copy(), column.type, sweeper.out_heap, sweeper.out_text)
            for i, column in enumerate(self.program.columns)
            if column.name
        }
        said: dict[str, list[str]] = {}
        for i, name, _, presence, _ in self.order:
            here, error = results.valid[presence].tolist(), results.valid[i].tolist()
            said[name] = [
                MISSING if missing else ERROR if error[r] == OVERFLOW else STALE if stale else OK if here[r] else EMPTY for r in range(rows)
            ]
        if self.derivation is not None:
            columns |= self.derivation.run(columns, rows)
            for name, typed in self.derivation.outputs:
                worst = [min((said[used][r] for used in typed.columns), key=STATUSES.index, default=OK) for r in range(rows)]
                bad = columns[name].valid.tolist()
                said[name] = [ERROR if bad[r] == OVERFLOW and worst[r] != MISSING else worst[r] for r in range(rows)]
        for feature, names in self.called.items():
            column = columns[feature]
            values = [None] * rows if missing else _values(column.words, column.valid, column.type, column.items, column.text)
            for vector, value, status in zip(vectors, values, said[feature]):
                for name in names:
                    vector.values[name], vector.status[name] = value, status
        if missing:
            for column in columns.values():
                column.valid[:] = 0
        return {name: columns[feature] for feature, names in self.called.items() for name in names}

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


def _key_converter(column: str, kind: DataType) -> Callable[[Any], Any]:
    """Check a key part's type, and give it as the codec takes it."""

    def wrong(value: Any) -> DataError:
        return DataError(f"key '{column}' is {kind}, and {value!r} is a {type(value).__name__}. A key is compared as its type: 1 is not \"1\".")

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
        pool = text
        return [
            bytes(pool[w >> LENGTH_BITS : (w >> LENGTH_BITS) + (w & LONGEST_TEXT)]).decode() if v == 1 else None
            for w, v in zip(words.tolist(), valid.tolist())
        ]
    return to_arrow(words, np.where(valid == 1, valid, 0).astype(np.uint8), kind, items, text).to_pylist()
