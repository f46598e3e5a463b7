"""Keep the pointer to what is served: for each set the generation whose definitions answer, for each view the groups that do.

It is one record of the store, with a stamp that is read in the transaction of the values: who sees another stamp than
he knows reads again by the new record, so that an answer is of one version, whole.  The log is the authority; this
follows from it and from what is filled.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from featreg.canonical import bytes_id
from featreg.compile import Compiled, CompiledFeature, CompiledView
from featreg.instants import earliest
from featreg.plan.groups import Group, computes, plan_groups, space_of, whole
from featreg.plan.online import view_state
from featreg.session.keys import SERVED_KEY, STAMP_KEY, meta_key
from featreg.stores.contract import Store, StoreConflict

if TYPE_CHECKING:
    from featreg.session.registry import Registry


Features = Callable[[Iterable[str]], Mapping[str, CompiledFeature]]


@dataclass(frozen=True)
class Serving:
    """sets: name -> generation.  views: what a view means (`space_of`) -> the definition ids of each group that answers it."""

    sets: Mapping[str, int] = field(default_factory=dict)
    views: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)

    def groups(self, view: CompiledView) -> tuple[Group, ...]:
        """The groups that answer a view; none when it was never filled."""
        return tuple(Group(tuple(ids)) for ids in self.views.get(space_of(view), ()))

    def has_filled(self, compiled: Compiled, name: str) -> bool:
        """Whether every view of a set is answered."""
        return all(space_of(compiled.views[lookup.view]) in self.views for lookup in compiled.sets[name].lookups)


def read_serving(store: Store) -> tuple[bytes | None, Serving]:
    """The stamp and the record."""
    stamp, record = store.get([STAMP_KEY, SERVED_KEY])
    return stamp, Serving(**json.loads(record)) if record else Serving()


def change_serving(store: Store, change: Callable[[Serving], Serving]) -> Serving:
    """Change the record, atomically; what changes nothing is not written."""
    while True:
        stamp, before = read_serving(store)
        after = change(before)
        record = json.dumps(vars(after), sort_keys=True).encode()
        if json.loads(record) == json.loads(json.dumps(vars(before))):
            return before
        try:
            store.write([(SERVED_KEY, record), (STAMP_KEY, bytes.fromhex(bytes_id(record))[:8])], expect={STAMP_KEY: stamp})
        except StoreConflict:  # another process changed it: look again
            continue
        return after


def groups_to_fill(serving: Serving, view: CompiledView, features: Features) -> tuple[Group, ...]:
    """The groups that shall answer a view; features: aggregates of what is or was applied, by definition id."""
    there = {Group(tuple(ids)) for groups in serving.views.values() for ids in groups}
    near = [group for group in there if not set(whole(view).ids).isdisjoint(group.ids)]
    known = features(one for group in near for one in group.ids)
    return plan_groups(view, [group for group in near if all(one in known and computes(view, known[one]) for one in group.ids)])


def set_filled(store: Store, view: CompiledView, groups: tuple[Group, ...]) -> None:
    """Let these groups answer the view from now on."""
    change_serving(store, lambda before: replace(before, views={**before.views, space_of(view): [list(group.ids) for group in groups]}))  # type: ignore[dict-item]


def serve_newest(registry: "Registry", store: Store) -> Serving:
    """Point each applied set to the newest generation of it whose views are all filled: one write moves all of them."""
    return change_serving(store, lambda before: replace(before, sets=newest_filled(registry, before)))


def newest_filled(registry: "Registry", serving: Serving) -> dict[str, int]:
    """For each applied set the newest generation of it whose views are all filled."""
    newest = registry.applied()
    found = {}
    for name in newest.compiled.sets:
        if serving.has_filled(newest.compiled, name):
            found[name] = newest.generation
            continue
        for earlier in registry.applied_before(newest.generation):
            if name not in earlier.compiled.sets:
                break
            if serving.has_filled(earlier.compiled, name):
                found[name] = earlier.generation
                break
    return found


def batched_of(store: Store, view: CompiledView) -> int | None:
    """Up to where runs have brought files to all groups of a view; None when one is not filled."""
    stored = store.get([meta_key(group.space) for group in groups_of(read_serving(store)[1], view)])
    return earliest(view_state(one).batched for one in stored)


def groups_of(serving: Serving, view: CompiledView) -> tuple[Group, ...]:
    """The groups to read a view from; one that was never filled is read as if it were whole, and has nothing."""
    return serving.groups(view) or (whole(view),)
