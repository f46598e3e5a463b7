"""Find what the online store holds and nothing reaches, and delete it when that is asked for.

Reached is what is applied, what was applied before it (so that a rollback computes nothing), and what a pin reads.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from featreg.compile import CompiledView
from featreg.plan.groups import space_of
from featreg.session.keys import FED, META, key_prefix, meta_key
from featreg.session.materialize import clear_space
from featreg.session.serving import Serving, change_serving, groups_to_fill, read_serving
from featreg.session.store import has_store, open_store
from featreg.stores.contract import Store

if TYPE_CHECKING:
    from featreg.session.registry import Registry

_PAGE = 4096


@dataclass(frozen=True)
class Garbage:
    """A view's space that nothing reaches: the first half of its id, and what it holds."""

    space: str
    entries: int
    bytes: int


def collect(registry: "Registry", delete: bool) -> list[Garbage]:
    """What nothing reaches; with `delete` it is gone afterwards, space by space, and a kill in between loses nothing that is reached."""
    if not has_store(registry.profile):
        return []
    views = list(registry.views_to_fill().values())
    before = next(registry.applied_before(registry.applied().generation), None)
    if before is not None:
        views += before.compiled.views.values()
    found = []
    with open_store(registry.profile) as store:
        serving = _of_views(read_serving(store)[1], views)
        if delete:  # first, so that nobody is sent to what is about to go
            serving = change_serving(store, lambda now: _of_views(now, views))
        groups = {group for view in views for group in (*serving.groups(view), *groups_to_fill(serving, view, registry.aggregates))}
        reached = {meta_key(group.space) for group in groups}
        spaces = {key[len(plane) :] for plane in (META, FED) for key, _ in store.scan(plane, limit=1_000_000)}
        for identity in sorted(spaces):
            if META + identity not in reached:
                space = identity.hex()
                found.append(_measured(store, space))
                if delete:
                    clear_space(store, space)
    return found


def _of_views(serving: Serving, views: Iterable[CompiledView]) -> Serving:
    """The part of what is served that these views need."""
    meant = {space_of(view) for view in views}
    return replace(serving, views={name: groups for name, groups in serving.views.items() if name in meant})


def _measured(store: Store, space: str) -> Garbage:
    prefix, start, entries, size = key_prefix(space), b"", 0, 0
    while page := store.scan(prefix, start, limit=_PAGE):
        entries += len(page)
        size += sum(len(key) + len(value) for key, value in page)
        start = page[-1][0] + b"\0"
    return Garbage(space, entries, size)
