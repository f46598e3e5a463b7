"""Bring views in the online store to an instant: each key is written once a run, in one transaction.

A run is recorded before its first write and its end after its last; a run that was
killed is finished by the next, which passes over the keys that were written.  Every
write expects the record of its run: of two processes that meet, one is told to look again.
"""

import gc
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from featreg.compile import CompiledFeature, CompiledView
from featreg.compile.program import build_program
from featreg.define import EventSource
from featreg.engines.duckdb import DuckDB
from featreg.errors import RefusedError, RejectedRowsError
from featreg.instants import NEVER, format_instant
from featreg.plan.groups import group_view, space_of, whole
from featreg.plan.online import ViewState, plan_run, stored_state, view_state
from featreg.registry.pushed import START, Position
from featreg.session.feed import fed_state, stored_fed
from featreg.session.file_ids import FileIds
from featreg.session.key_writer import KEYS_A_WRITE, KeyWriter, whole_keys
from featreg.session.keys import key_prefix, meta_key, pushed_key
from featreg.session.profile import Profile
from featreg.session.run_files import RunFinder
from featreg.session.run_log import at_begin, covered_rows, files_cover, gives_way, left_beside, plan_log
from featreg.session.run_rows import Run
from featreg.session.serving import groups_to_fill, read_serving, set_filled
from featreg.session.store import open_store
from featreg.stores.contract import Store, StoreConflict
from featreg.sweep.stream import BATCH_ROWS, key_borders
from featreg.sweep.warm import WRITE, compile_for

Find = Callable[[DuckDB, Profile], RunFinder]
_MOST_LOOKS = 100  # how often a run looks again because another process was at the same view
_CLEARING = {"clear": True}  # stands where a begun run stands, until the last key of the view is gone


@dataclass(frozen=True)
class Receipt:
    """What a run did for one view.  watermark: UTC microseconds.  bytes: written to the store."""

    view: str
    rows: int
    keys: int
    late_rows: int
    rejected: int
    watermark: int
    seconds: float
    bytes: int
    note: str = ""
    examples: tuple[str, ...] = ()


def materialize(
    engine: DuckDB, profile: Profile, views: Sequence[CompiledView], features: Callable[[Iterable[str]], Mapping[str, CompiledFeature]],
    to: int | None, rebuild: bool, progress: Callable[[str, int], None] | None, filled: Callable[[Store, Receipt], None],
    find: Find = RunFinder,
) -> list[Receipt]:  # fmt: skip
    """Run each view in turn; a view that fails leaves the ones before it done and itself as it was.

    features: aggregates of what is or was applied, by definition id.  filled: told of each view that has come to `to`.
    find: who finds a run's rows and brings them.
    """
    now = time.time_ns() // 1000 if to is None else to
    compile_for(WRITE, map(build_program, views))
    receipts, ids = [], FileIds()
    with open_store(profile) as store, _only_new_garbage():
        for view in views:
            receipts.append(_materialize_view(engine, profile, store, ids, view, features, now, rebuild, progress, find))
            filled(store, receipts[-1])
    return receipts


@contextmanager
def _only_new_garbage() -> Iterator[None]:
    """Have Python look for garbage among what a run makes alone: to look through all that was imported takes 80 ms, now and then."""
    if gc.get_freeze_count():  # the process keeps its own account
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _materialize_view(
    engine: DuckDB, profile: Profile, store: Store, ids: FileIds, view: CompiledView, features, to: int, rebuild: bool, progress, find: Find
) -> Receipt:
    """Bring the groups of a view to `to`; they answer it when the last of them is there."""
    groups = (whole(view),) if rebuild else groups_to_fill(read_serving(store)[1], view, features)
    known = features(one for group in groups for one in group.ids)
    receipts = [
        _materialize_group(engine, profile, store, ids, group_view(view, group, known), to, rebuild, progress, find) for group in groups
    ]
    set_filled(store, view, groups)
    first, last = receipts[0], receipts[-1]
    return replace(
        first, rows=max(first.rows, last.rows), keys=max(first.keys, last.keys), seconds=sum(one.seconds for one in receipts),
        bytes=sum(one.bytes for one in receipts), note=first.note if first.note == last.note else "",
    )  # fmt: skip


def _materialize_group(
    engine: DuckDB, profile: Profile, store: Store, ids: FileIds, view: CompiledView, to: int, rebuild: bool, progress, find: Find
) -> Receipt:
    """Finish a run that was interrupted, if there is one, then go on to `to`."""
    done: Receipt | None = None
    for _ in range(_MOST_LOOKS):
        try:
            receipt = _run(engine, profile, store, ids, view, to, rebuild, progress, find)
        except StoreConflict:  # another process wrote here: what is left to do is in the store
            continue
        rebuild = False
        done = receipt if done is None else _summed(done, receipt)
        if receipt.watermark >= to:
            return done
    raise RefusedError(f"{view.name}: other processes materialize it all the time.\n  Let one of them do it, then repeat this.")


def _summed(first: Receipt, second: Receipt) -> Receipt:
    return replace(
        second, rows=first.rows + second.rows, keys=first.keys + second.keys, late_rows=first.late_rows + second.late_rows,
        seconds=first.seconds + second.seconds, bytes=first.bytes + second.bytes, note=first.note or second.note,
    )  # fmt: skip


def _run(
    engine: DuckDB, profile: Profile, store: Store, ids: FileIds, view: CompiledView, to: int, rebuild: bool, progress, find: Find
) -> Receipt:
    """One run: the one that was begun, or else a new one to `to`.  What can be wrong with the data is told before the first write."""
    began = time.perf_counter()
    space = space_of(view)
    meta, pushed = meta_key(space), pushed_key(space)
    found, found_fed = store.get([meta, pushed])
    state, note = view_state(found), ""
    if state.begun == _CLEARING:
        clear_space(store, space)
        found, found_fed, state = None, None, ViewState()
    fed = None if rebuild else fed_state(found_fed)
    if rebuild:
        state = ViewState()
    has_log = Position(*state.log) if state.log else fed.position if fed is not None else START
    finder = find(engine, profile)
    if state.begun is not None:
        note = f"finished the run to {format_instant(state.begun['to'])} that had been interrupted"
        to, s, run = state.begun["to"], state.begun["s"], state.begun["run"]
        taken = finder.taken(view, ids, state, to)
        covered = state.begun.get("covered", to) if gives_way(view) else None
        part = plan_log(finder, profile, view, has_log, state, covered)
    else:
        to, asked = max(to, to if state.watermark is None else state.watermark), to
        taken = finder.taken(view, ids, state, to)
        covered = files_cover(finder, view, [*taken.known, *taken.new], state.batched, to, time.time_ns() // 1000)
        part = plan_log(finder, profile, view, has_log, state, covered)
        comes_late = asked == state.watermark and taken.new and not taken.counts_anew  # files that no run has read
        has_more = part.is_new or comes_late or covered != state.covered
        if state.watermark is not None and asked <= state.watermark and not has_more:
            note = f"nothing to do: the store is at {format_instant(state.watermark)}, and a store never rewinds"
            return Receipt(view.name, 0, 0, 0, 0, state.watermark, time.perf_counter() - began, 0, note)
        s = max(view.cadence.cutoff(to - profile.replay), state.s if state.s is not None else NEVER)
        if covered is not None:
            s = min(s, covered)  # what may still give way is folded into no tile
            note = left_beside(covered, to, max(NEVER if fed is None else fed.newest, part.newest))
        run = state.run + 1
    program, source = build_program(view), view.scan.source
    known_rows = part.beside(finder.of_files(source.name, taken.known), part.known)
    new_rows = part.beside(finder.of_files(source.name, taken.new), part.new)
    if known_rows is None and new_rows is None and part.pushed is None:
        new_rows = finder.nothing(source)
    rows = finder.sorted(Run(view, program, known_rows, new_rows, part.pushed, taken.known, taken.new, state.watermark, to, s))
    finder.check_as_taken(source, taken)
    rejected = taken.rejected_by(state.rejected, rows.rejected)
    examples = _refuse_rejected(source, state.rejected + rejected, rows.examples()) if rejected else ()
    if rebuild:
        clear_space(store, space)
        found = found_fed = None
    if state.begun is not None:
        assert found is not None
        mark = found
    else:
        begun = {"run": run, "to": to, "s": s, "files": taken.record, "log": part.span, "covered": covered, "name": uuid.uuid4().hex}
        mark = stored_state(replace(state, begun=begun))
        puts, expect = [(meta, mark)], {meta: found}
        if view.cadence.is_realtime and part.is_new:  # what this run reads of the log, no push brings
            puts.append((pushed, stored_fed(at_begin(fed, part))))
            expect[pushed] = found_fed
        store.write(puts, expect=expect)
    writer = KeyWriter(store, space, view, program, s, run, {meta: mark}, state.batched, part.covered)
    with store.bulk():
        for batch in whole_keys(rows.batches, len(view.scan.keys)):
            writer.write(batch, rows.event_is_visible)
            if progress is not None:
                progress(view.name, batch.num_rows)
        if part.covered is not None and (given_way := covered_rows(finder, profile, view, part.covered)) is not None:
            for batch in engine.batches(plan_run(view, program, None, None, None, to, s, given_way)[0], BATCH_ROWS):
                firsts = np.append(0, key_borders(batch, len(view.scan.keys))) if batch.num_rows else np.zeros(0, int)
                writer.clear(writer.names(batch, firsts))
    log = None if view.cadence.is_realtime or part.to == START else [part.to.segment, part.to.end]
    ended = ViewState(run, to, s, taken.record, state.rejected + rejected, log=log, covered=covered)
    store.write([(meta, stored_state(ended))], expect={meta: mark})
    return Receipt(
        view.name, writer.rows, writer.keys, writer.late_rows, rejected, to, time.perf_counter() - began, writer.bytes, note,
        examples,
    )  # fmt: skip


def clear_space(store: Store, space: str) -> None:
    """Forget the view.  It is marked first, so that the next run finishes what a kill leaves of this."""
    meta, prefix, mark = meta_key(space), key_prefix(space), stored_state(ViewState(begun=_CLEARING))
    store.write([(meta, mark)])
    while page := store.scan(prefix, limit=KEYS_A_WRITE):
        store.write([], [key for key, _ in page], expect={meta: mark})
    store.write([], [meta, pushed_key(space)], expect={meta: mark})


def _refuse_rejected(source: EventSource, rejected: int, examples: Sequence[str]) -> tuple[str, ...]:
    """Three examples.  Raises: RejectedRowsError for more rejected rows than are allowed."""
    if rejected > source.max_rejected:
        raise RejectedRowsError(source.name, rejected, source.max_rejected, tuple(examples[:3]))
    return tuple(examples[:3])
