"""Bring rows of a push log to the REALTIME views of its source: the rows, and how far the log is applied, in one transaction.

So a view holds exactly the records up to the position that stands beside it, however its writers ended.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from featreg.algebra.schedule import Chunk
from featreg.compile import CompiledView
from featreg.compile.program import build_program
from featreg.define import EventSource
from featreg.define.source import UNTIL_BATCH
from featreg.engines.duckdb import Warm
from featreg.instants import NEVER
from featreg.plan.groups import Group, group_view
from featreg.plan.online import ViewState, plan_push, view_state
from featreg.registry.pushed import START, Position, Pushed
from featreg.session.key_writer import Change, KeyWriter
from featreg.session.keys import meta_key, pushed_key
from featreg.session.profile import Profile
from featreg.session.pushed_rows import rows_of
from featreg.session.serving import Serving, groups_to_fill
from featreg.stores.contract import Store, StoreConflict
from featreg.sweep.kept import take_rows

if TYPE_CHECKING:
    from featreg.session.registry import Registry

TABLE = "featreg_pushed"
_Put = tuple[bytes, bytes]
_Laid = tuple[list[bytes], Chunk]
_CLOCKS_DIFFER = 100_000  # microseconds by which a reader's clock may be behind a pusher's, and its now not before S of a busy key's state
_MOST_LOOKS = 1000  # how often a push looks again because a materialize was at the same keys


@dataclass(frozen=True)
class FedState:
    """What stands beside a view of the rows that were pushed into it.

    segment, end: the position in the log up to which it has them.  newest: the newest visible instant, not beyond the time
    at which it was pushed; s: no read before it is answered.  alone: the view has what it has from the log, with no run.
    """

    segment: str = ""
    end: int = 0
    newest: int = NEVER
    s: int = NEVER
    alone: bool = False

    @property
    def position(self) -> Position:
        return Position(self.segment, self.end)

    def at(self, position: Position) -> "FedState":
        return replace(self, segment=position.segment, end=position.end)


def fed_state(stored: bytes | None) -> FedState | None:
    return FedState(*json.loads(stored)) if stored else None


def stored_fed(state: FedState) -> bytes:
    return json.dumps([state.segment, state.end, state.newest, state.s, state.alone]).encode()


def served_state(run: bytes | None, fed: bytes | None) -> ViewState:
    """What is known of a view when it is read: by its runs, and by what was pushed since.

    A run that reads what no push had brought is not whole until it ends: the watermark waits for it.
    """
    state, pushed = view_state(run), fed_state(fed)
    if pushed is None or pushed.newest == NEVER:
        return state
    span = state.begun.get("log") if state.begun is not None else None
    if span and span[:2] != span[2:]:
        return state
    if state.watermark is None:
        return replace(state, watermark=pushed.newest, s=NEVER) if pushed.alone else state
    return replace(state, watermark=max(state.watermark, pushed.newest))


@dataclass(frozen=True)
class _Fed:
    """A view that rows are brought to."""

    meta: bytes
    pushed: bytes
    sql: str
    event_is_visible: bool
    writer: KeyWriter


@dataclass(frozen=True)
class Target:
    """A column group of a REALTIME view, as the view that has only its features (`group_view`)."""

    view: CompiledView
    space: str


def targets_of(registry: "Registry", serving: Serving, source: str) -> tuple[Target, ...]:
    """The groups that rows of a source are brought to: those that answer, and those that are being filled to answer."""
    served = {generation for generation in serving.sets.values()}
    views = [*registry.views_to_fill().values()]
    views += [view for generation in sorted(served) for view in registry.applied_at(generation).compiled.views.values()]
    found: dict[str, Target] = {}
    for view in views:
        if view.scan.source.name == source and view.cadence.is_realtime:
            for group in (*serving.groups(view), *groups_to_fill(serving, view, registry.aggregates)):
                if group.space not in found:
                    found[group.space] = Target(group_view(view, group, registry.aggregates(group.ids)), group.space)
    return tuple(found.values())


class Feed:
    """Column groups of one source's REALTIME views, ready to take rows.

    has_files: whether the source has files too; a group without any run waits then for a materialize.
    """

    def __init__(self, profile: Profile, store: Store, warm: Warm, source: EventSource, targets: Sequence[Target], has_files: bool):
        self.replay, self.store, self.warm, self.source, self.has_files = profile.replay, store, warm, source, has_files
        self.targets = targets
        self.gives_way = source.stream_mode == UNTIL_BATCH
        self._fed: dict[str, list[_Fed]] = {}

    def bring(self, records: Sequence[Pushed], extra: Sequence[_Put]) -> None:
        """Bring consecutive records, and write `extra` with them; views that have some of them get the others."""
        table = rows_of(records, self.source).combine_chunks()
        fed = self._ready(table)
        laid: dict[tuple[int, int], list[tuple[list[bytes], Chunk]]] = {}
        for _ in range(_MOST_LOOKS):
            seen = self.store.instant()
            try:
                change = self._change(fed, table, records, laid)
                if change.puts or extra:
                    self.store.write([*extra, *change.puts], change.deletes, change.expect, seen)
                return
            except StoreConflict:  # a run was at these keys
                continue
        raise StoreConflict(b"", None, None)

    def _change(self, fed: Sequence[_Fed], table: pa.Table, records: Sequence[Pushed], laid: dict[tuple[int, int], list[_Laid]]) -> Change:
        """What bringing the records does, as the store is now.  laid: rows as they were laid out, by view and the first record it lacks."""
        whole = Change([], [], {}, 0, 0, 0)
        puts, deletes, expect = whole.puts, whole.deletes, whole.expect
        states = self.store.get([key for one in fed for key in (one.meta, one.pushed)])
        for number, one in enumerate(fed):
            meta, pushed = states[2 * number], states[2 * number + 1]
            run, state = view_state(meta), fed_state(pushed)
            if not self._takes_rows(run, meta, state):
                continue
            state = state or FedState(alone=meta is None)
            first = next((n for n, record in enumerate(records) if record.position > state.position), len(records))
            if first == len(records):
                continue
            if (number, first) not in laid:
                begin = sum(record.rows.num_rows for record in records[:first])
                laid[number, first] = self._laid_out(one, table.slice(begin) if begin else table)
            after = self._after(state, run, records[first:])
            one.writer.s, one.writer.soon = after.s, after.newest - _CLOCKS_DIFFER
            since = _batched(run) if self.gives_way else None
            for names, chunk in laid[number, first]:
                change = one.writer.change(*_since(names, chunk, since))
                puts += change.puts
                deletes += change.deletes
                expect |= change.expect
            puts.append((one.pushed, stored_fed(after)))
            expect |= {one.meta: meta, one.pushed: pushed}
        return whole

    def waiting(self) -> Position | None:
        """The earliest position up to which a view has the log; None when no view takes rows."""
        keys = [key(target.space) for target in self.targets for key in (meta_key, pushed_key)]
        found = iter(self.store.get(keys) if keys else [])
        positions = []
        for meta, pushed in zip(found, found):
            state = fed_state(pushed)
            if self._takes_rows(view_state(meta), meta, state):
                positions.append(state.position if state else START)
        return min(positions, default=None)

    def filled_until(self) -> int | None:
        """The latest instant up to which runs have filled a group; None when none has."""
        runs = map(view_state, self.store.get([meta_key(target.space) for target in self.targets]))
        return max((run.watermark for run in runs if run.watermark is not None), default=None)

    def has_filled(self, groups: Iterable[Group]) -> bool:
        """Whether these groups can answer."""
        stored = iter(self.store.get([key(group.space) for group in groups for key in (meta_key, pushed_key)]))
        return all(served_state(run, fed).watermark is not None for run, fed in zip(stored, stored))

    def _takes_rows(self, run: ViewState, meta: bytes | None, state: FedState | None) -> bool:
        if run.begun is not None and "to" not in run.begun:  # the view is being cleared
            return False
        return meta is not None or state is not None or not self.has_files

    def _after(self, state: FedState, run: ViewState, records: Sequence[Pushed]) -> FedState:
        newest = max(state.newest, *(min(record.last, record.at) for record in records))
        s = max(state.s, NEVER if run.s is None else run.s, run.begun["s"] if run.begun is not None else NEVER)
        if not self.gives_way:
            s = max(s, max(newest, NEVER if run.watermark is None else run.watermark) - self.replay)
        end = records[-1].position
        return FedState(end.segment, end.end, newest, s, state.alone)

    def _ready(self, table: pa.Table) -> list[_Fed]:
        """The views, with the scan of a table of this shape."""
        shape = str(table.schema)
        if shape not in self._fed:
            relation = self.warm.describe(TABLE, table)
            self._fed[shape] = [self._make(one, *plan_push(one.view, build_program(one.view), relation)) for one in self.targets]
        return self._fed[shape]

    def _make(self, target: Target, sql: str, event_is_visible: bool) -> _Fed:
        writer = KeyWriter(self.store, target.space, target.view, build_program(target.view), NEVER, None, {})
        return _Fed(meta_key(target.space), pushed_key(target.space), sql, event_is_visible, writer)

    def _laid_out(self, one: _Fed, table: pa.Table) -> list[_Laid]:
        rows = self.warm.ask(one.sql, TABLE, table).combine_chunks()
        return [laid for batch in rows.to_batches() for laid in one.writer.laid_out(batch, one.event_is_visible)]


def _batched(run: ViewState) -> int | None:
    """Up to where files take over: pushed rows visible before it count no more."""
    begun = None if run.begun is None else run.begun.get("covered", run.begun["to"])
    return max((until for until in (run.batched, begun) if until is not None), default=None)


def _since(names: list[bytes], chunk: Chunk, since: int | None) -> tuple[list[bytes], Chunk]:
    """Only the rows visible from `since` on, and their keys."""
    if since is None or len(chunk.instant) == 0 or chunk.instant.min() >= since:
        return names, chunk
    kept = take_rows(chunk, np.flatnonzero(chunk.instant >= since))
    keys, kept.key_index[:] = np.unique(kept.key_index, return_inverse=True)
    return [names[key] for key in keys], kept
