"""Read vectors from the online store: each view from the column groups that answer it, all of a set as of one instant of the store."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from featreg.compile import Compiled, CompiledSet, CompiledView, Lookup
from featreg.compile.program import build_program
from featreg.errors import DataError, did_you_mean
from featreg.instants import earliest
from featreg.plan.online import ViewState
from featreg.session.busy_keys import reach_back
from featreg.session.group_reader import GroupReader, TooEarly
from featreg.session.key_parts import KeyParts, KeyShape
from featreg.session.keys import STAMP_KEY
from featreg.session.order import in_order
from featreg.session.serve_log import ServeLog
from featreg.session.serving import Features, Serving, groups_of, read_serving
from featreg.session.store import open_store
from featreg.session.tables import request_column
from featreg.session.training_set import as_column
from featreg.session.vectors import ColumnVectors, Derived, Place, Swept, Vector, Vectors, derived_from, no_vectors
from featreg.stores.contract import Beside, Keys, Store, Take
from featreg.sweep.finish import Column, Derivation
from featreg.sweep.warm import FINISH, READ, compile_for

if TYPE_CHECKING:
    from featreg.session.registry import Registry

_Encoded = tuple[list[bytes], np.ndarray | None]  # as `KeyParts.different` gives
_LOOK_AGAIN = 0.05  # seconds between looks at the log for a set that nothing in the store answers


class OnlineReader:
    """Reads for one open registry; not for several threads at once: each opens its own."""

    def __init__(self, registry: "Registry"):
        self.registry = registry
        self.store = open_store(registry.profile)
        self.stamp, self.serving = read_serving(self.store)
        share = registry.profile.log
        self.serve_log = ServeLog(registry.events, share) if share and registry.revision is None else None
        self.sets: dict[tuple[str, str | None], SetReader] = {}
        self.unanswered: dict[tuple[str, str | None], float] = {}  # sets that the store does not serve, and when that was looked up

    def close(self) -> None:
        self.store.close()

    def _log(self, reader: "SetReader", name: str, pin: str | None, keys: Any, answer: Any, as_of: int) -> None:
        assert self.serve_log is not None
        generation = self.serving.sets.get(name) or self.registry.applied().generation
        rows, vectors = ([keys], [answer]) if isinstance(keys, Mapping) else (keys, answer)
        self.serve_log.note(reader, pin, rows, vectors, as_of, generation)

    def read(
        self, name: str, keys: Mapping[str, Any] | Sequence[Mapping[str, Any]], at: int | None, pin: str | None = None
    ) -> Vector | Vectors:
        """Answer, and log what was served where the profile asks for it."""
        as_of = time.time_ns() // 1000 if at is None else at
        if keys.__class__ is not dict and not isinstance(keys, Mapping):  # to ask what else may be a mapping takes 0.3 us
            keys = list(keys)
        reader, answer = self.answer(name, keys, as_of, pin)
        if self.serve_log is not None and (keys or isinstance(keys, Mapping)):
            self._log(reader, name, pin, keys, answer, as_of)
        return answer

    def answer(
        self, name: str, keys: Mapping[str, Any] | Sequence[Mapping[str, Any]], as_of: int, pin: str | None = None
    ) -> "tuple[SetReader, Vector | Vectors]":
        while True:
            reader = self.set_reader(name, pin)
            if keys.__class__ is dict or isinstance(keys, Mapping):
                answer: Vector | Vectors | None = reader.read_one(keys, as_of, self.stamp)  # type: ignore[arg-type]
            elif keys:
                answer = reader.read(keys, as_of, self.stamp)
            else:
                return reader, no_vectors(reader.set.columns)
            if answer is not None:
                return reader, answer
            self.look_again()

    def look_again(self) -> None:
        """Take over what the store serves now."""
        stamp, serving = read_serving(self.store)
        if stamp != self.stamp:
            self.sets, self.unanswered = {}, {}
            self.stamp, self.serving = stamp, serving

    def set_reader(self, name: str, pin: str | None = None) -> "SetReader":
        """The set as it is served, or as it is pinned.  Raises: DataError for a set that is not applied."""
        reader = self.sets.get((name, pin))
        looked_at = self.unanswered.get((name, pin)) if self.unanswered else None
        if reader is None or (looked_at is not None and time.monotonic() - looked_at > _LOOK_AGAIN):
            compiled = self._served(name) if pin is None else self.registry.pinned(pin, name).compiled
            if not self.serving.has_filled(compiled, name):
                self.unanswered[name, pin] = time.monotonic()
            reader = self.sets[name, pin] = SetReader(self, name, compiled)
        return reader

    def is_behind(self, name: str) -> bool:
        """Whether a set is answered by what was applied before, for its new views are not filled."""
        newest = self.registry.applied()
        return not self.serving.has_filled(newest.compiled, name) and name in self.serving.sets

    def _served(self, name: str) -> Compiled:
        """The definitions that the store serves of a set; where it serves none, those that are applied."""
        if self.registry.revision is None and name in self.serving.sets:
            return self.registry.applied_at(self.serving.sets[name]).compiled
        newest = self.registry.applied().compiled
        if name not in newest.sets:
            raise DataError(f"there is no feature set '{name}'.\n  {did_you_mean(name, newest.sets, 'Applied are')}")
        return newest


class SetReader:
    """A feature set made ready to be read: per lookup a view reader, and the set's derived features."""

    def __init__(self, online: OnlineReader, name: str, applied: Compiled):
        self.set: CompiledSet = applied.sets[name]
        self.store = online.store
        programs = (build_program(applied.views[lookup.view]) for lookup in self.set.lookups)
        compile_for((*READ, *(FINISH if self.set.derives(applied.views) else ())), programs)
        stale_after, aggregates = online.registry.profile.stale_after, online.registry.aggregates
        self.lookups = [
            LookupReader(lookup, applied.views[lookup.view], online.serving, aggregates, stale_after) for lookup in self.set.lookups
        ]
        self.names = self.set.names
        known = [STAMP_KEY, *(key for lookup in self.lookups for group in lookup.groups for key in group.own)]
        self.metas, self.beside = Keys((b"",), known), Beside(known)
        self.derivation = None
        if self.set.derived:
            types = {name: kind.widened for name, kind in (*self.set.columns, *self.set.request)}
            self.derivation = Derivation(in_order(self.set), types)
        self.places: dict[str, Place] = {}
        before = 0
        for reader in self.lookups:
            self.places |= reader.places_from(before)
            before += len(reader.groups)
        listed = tuple(name for lookup in self.lookups for _, name in lookup.lookup.features)
        derives = self.derivation is not None or any(lookup.derivation is not None for lookup in self.lookups)
        in_groups = any(len(lookup.groups) > 1 for lookup in self.lookups)
        self.is_plain = listed == self.names and not derives and not in_groups and not self.set.request

    def read_one(self, row: Mapping[str, Any], as_of: int, stamp: bytes | None) -> Vector | None:
        """As `read`, for one row: the same sweep with less around it."""
        if not self.is_plain:
            vectors = self.read([row], as_of, stamp)
            return None if vectors is None else vectors[0]
        names: list[bytes] = []
        encoded: dict[KeyShape, bytes] = {}
        for lookup in self.lookups:
            key = encoded.get(lookup.key.shape)
            if key is None:
                key = encoded[lookup.key.shape] = lookup.key.encoded(row)
            names += lookup.names_of(key)
        found = iter(self.store.get(names, self.beside))
        of_store, *of_groups = self.beside.values
        if of_store != stamp:
            return None
        vector = Vector({}, {}, {}, {})
        own = iter(of_groups)
        try:
            for lookup in self.lookups:
                lookup.groups[0].read_one(next(own), next(own), next(found), next(found), as_of, vector)
        except TooEarly:
            vectors = self.read([row], as_of, stamp)
            return None if vectors is None else vectors[0]
        return vector

    def read(self, rows: Sequence[Mapping[str, Any]], as_of: int, stamp: bytes | None) -> ColumnVectors | None:
        """The vectors of rows, same order; None when the store serves by another stamp: then nothing that was read counts."""
        encoded: dict[KeyShape, _Encoded] = {}
        wanted = [self.metas]
        for lookup in self.lookups:
            if lookup.key.shape not in encoded:
                encoded[lookup.key.shape] = lookup.key.different(rows)
            keys, _ = encoded[lookup.key.shape]
            for group in lookup.groups:
                wanted.append(Keys((group.records.state, group.records.head), keys))
        try:
            return self._vectors(rows, encoded, as_of, stamp, partial(self.store.gather, wanted))
        except TooEarly:
            groups = [(group.sweeper, group.records) for lookup in self.lookups for group in lookup.groups]
            return self._vectors(rows, encoded, as_of, stamp, partial(reach_back, self.store, wanted, groups))

    def _vectors(
        self, rows: Sequence[Mapping[str, Any]], encoded: Mapping[KeyShape, _Encoded], as_of: int, stamp: bytes | None,
        gather: Callable[[Take], None],
    ) -> ColumnVectors | None:  # fmt: skip
        """As `read`, from what is gathered: what is known of the groups, then the states and heads of each group."""
        known: list[bytes] = []
        swept: list[Swept] = []
        groups = [(lookup, group) for lookup in self.lookups for group in lookup.groups]

        def take(number: int, values: bytearray | memoryview, starts: np.ndarray) -> None:
            if number == 0:
                known[:] = [bytes(values[low:high]) for low, high in pairwise(starts.tolist())]
                swept.clear()
            elif known[0] == (stamp or b""):
                lookup, group = groups[number - 1]
                _, index = encoded[lookup.key.shape]
                run, fed = known[2 * number - 1 : 2 * number + 1]
                swept.append(group.read(run, fed, np.frombuffer(values, np.int64), starts >> 3, index, as_of))

        gather(take)
        if known[0] != (stamp or b""):
            return None
        derived: dict[str, Derived] = {}
        columns: dict[str, Column] | None = {} if self.derivation is not None else None
        codes: dict[str, np.ndarray] = {}
        cutoff: dict[str, int | None] = {}
        watermark: dict[str, int | None] = {}
        at = 0
        for lookup in self.lookups:
            count = len(lookup.groups)
            lookup.derive(swept[at : at + count], len(rows), derived, columns, codes)
            cutoff[lookup.view.name] = earliest(group.cutoff for group in lookup.groups)
            watermark[lookup.view.name] = earliest(group.watermark for group in lookup.groups)
            at += count
        if columns is not None:
            self._derive(rows, columns, codes, derived)
        elif self.set.request:
            self._request(rows)
        return ColumnVectors(self.names, len(rows), swept, self.places, derived, cutoff, watermark)

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

    def _derive(
        self, rows: Sequence[Mapping[str, Any]], columns: dict[str, Column], codes: Mapping[str, np.ndarray], derived: dict[str, Derived]
    ) -> None:
        """Compute what the set derives.  columns, codes: values and statuses of what it derives from, request columns apart."""
        assert self.derivation is not None
        known = dict(codes)
        found = self.derivation.run(columns | self._request(rows), len(rows))
        for name, typed in self.derivation.outputs:
            derived[name] = derived_from(found[name], [known[used] for used in typed.columns if used in known])
            known[name] = derived[name].codes


class LookupReader:
    """One view, for one mapping of its entity's keys: the groups that answer it, and what is derived from them."""

    def __init__(self, lookup: Lookup, view: CompiledView, serving: Serving, aggregates: Features, stale_after: int):
        self.view, self.lookup = view, lookup
        self.key = KeyParts(view.name, lookup.spine_columns, view.key)
        self.names = tuple(name for _, name in lookup.features)
        wanted, features = view.closure(tuple(feature for feature, _ in lookup.features)), view.by_name
        self.aggregates = {name: features[name].id for name in wanted if features[name].aggregation}
        called: dict[str, list[str]] = {one: [] for one in self.aggregates.values()}
        for feature, name in lookup.features:
            if feature in self.aggregates:
                called[self.aggregates[feature]].append(name)
        self.groups = []
        for group in groups_of(serving, view):
            mine = {one: names for one, names in called.items() if one in group.ids}
            if mine:
                answered = {name for names in mine.values() for name in names}
                names = tuple(name for name in self.names if name in answered)
                self.groups.append(GroupReader(view, group, aggregates(group.ids), mine, names, stale_after))
                called = {one: names for one, names in called.items() if one not in mine}
        where = {one: (i, *place) for i, group in enumerate(self.groups) for one, place in group.places.items()}
        self.places = {name: Place(*where[one]) for name, one in self.aggregates.items()}
        derived = [(name, features[name].derived) for name in wanted if features[name].derived is not None]
        self.derivation = Derivation(derived, {name: features[name].type.widened for name in wanted}) if derived else None  # type: ignore[arg-type]

    def names_of(self, key: bytes) -> tuple[bytes, bytes]:
        """The store's keys to read for one row's key from the only group: its state and its head."""
        records = self.groups[0].records
        return records.state + key, records.head + key

    def places_from(self, first: int) -> dict[str, Place]:
        """Where what is aggregated is, by its name in the set, when the view's groups are numbered from `first` on."""
        return {
            name: self.places[feature]._replace(part=first + self.places[feature].part)
            for feature, name in self.lookup.features
            if feature in self.places
        }

    def stored_states(self, store: Store) -> list[ViewState]:
        """What the store knows of each group now."""
        stored = iter(store.get([key for group in self.groups for key in group.own]))
        return [group.state(run, fed) for group, run, fed in zip(self.groups, stored, stored)]

    def derive(
        self, swept: Sequence[Swept], rows: int, derived: dict[str, Derived], columns: dict[str, Column] | None,
        codes: dict[str, np.ndarray],
    ) -> None:  # fmt: skip
        """Compute what the view derives from what was read.  columns, codes: get, when wanted, what the set derives from."""
        if self.derivation is None and columns is None:
            return
        of_view = {name: swept[part].column(column) for name, (part, column, _) in self.places.items()}
        known = {name: swept[part].codes(column, presence) for name, (part, column, presence) in self.places.items()}
        if self.derivation is not None:
            of_view |= self.derivation.run(of_view, rows)
            found = {}
            for name, typed in self.derivation.outputs:
                found[name] = derived_from(of_view[name], [known[used] for used in typed.columns])
                known[name] = found[name].codes
            derived |= {name: found[feature] for feature, name in self.lookup.features if feature in found}
        if columns is not None:
            columns |= {name: of_view[feature] for feature, name in self.lookup.features}
            codes |= {name: known[feature] for feature, name in self.lookup.features}
