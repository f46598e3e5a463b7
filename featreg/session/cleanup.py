"""Find what the online store holds and nothing reaches, and delete it when that is asked for.

Reached is what is applied, what was applied before it (so that a rollback computes nothing), and what a pin reads.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from featreg.plan.online import space_of
from featreg.session.keys import META, key_prefix, meta_key
from featreg.session.materialize import clear_space
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
    reached = _reached(registry)
    if not has_store(registry.profile):
        return []
    found = []
    with open_store(registry.profile) as store:
        for key, _ in store.scan(META, limit=1_000_000):
            if key not in reached:
                space = key[len(META) :].hex()
                found.append(_measured(store, space))
                if delete:
                    clear_space(store, space)
    return found


def _reached(registry: "Registry") -> set[bytes]:
    views = list(registry.views_to_fill().values())
    before = next(registry.applied_before(registry.applied().generation), None)
    if before is not None:
        views += before.compiled.views.values()
    return {meta_key(space_of(view)) for view in views}


def _measured(store: Store, space: str) -> Garbage:
    prefix, start, entries, size = key_prefix(space), b"", 0, 0
    while page := store.scan(prefix, start, limit=_PAGE):
        entries += len(page)
        size += sum(len(key) + len(value) for key, value in page)
        start = page[-1][0] + b"\0"
    return Garbage(space, entries, size)
