"""Look for what is wrong in a repository's state: the log, what it points to, the store.  Changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featreg.errors import FeatregError, StoreError
from featreg.instants import format_instant
from featreg.registry.kept_state import kept_problems

if TYPE_CHECKING:
    from featreg.session.registry import Registry


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth knowing, with its remedy.  is_problem: whether answers may be wrong or missing."""

    where: str
    what: str
    remedy: str
    is_problem: bool = True


def examine(registry: "Registry") -> list[Finding]:
    """All findings: the log's chain, what is applied and pinned, the online store."""
    found: list[Finding] = []
    try:
        found += _log(registry)
    except StoreError as error:  # what else there is to see is told by the log
        return [*found, Finding("log", str(error), f"Put {registry.log.name} back from a copy.")]
    for where, look in (("events", _events), ("applied", _definitions), ("store", _store)):
        try:
            found += look(registry)
        except StoreError as error:
            found.append(Finding(where, str(error), "Put it back from a copy, or take it away: what is in it can be made again."))
    return found


def _log(registry: "Registry") -> Iterator[Finding]:
    for problem in registry.log.problems():
        yield Finding("log", f"{problem}.", f"Put {registry.log.name} back from a copy; featreg never edits a record.")
    for problem in kept_problems(registry.log, registry.profile.control_cache):
        yield Finding("log", f"{problem}.", "Delete that file; it is made anew.")


def _events(registry: "Registry") -> Iterator[Finding]:
    for damage in registry.events.damage():
        if not damage.is_torn:
            yield Finding("events", f"{damage}.", f"The others are read. Take the file out of {registry.events.folder} to be told no more.")


def _definitions(registry: "Registry") -> Iterator[Finding]:
    state = registry.control()
    for pin in state.pins.values():
        record = registry.log.record(pin.generation)
        if record is None or record.kind != "apply":
            remedy = "Put the log back from a copy, or pin again."
            yield Finding("pin", f"{pin.name} pins generation {pin.generation}, which is not in the log.", remedy)
    if not state.applied:
        return
    try:
        found = registry.applied().compiled.feature_ids()
    except FeatregError as error:
        remedy = "Install the featreg that applied it, or mend the specs and apply."
        yield Finding("applied", f"generation {state.applied} does not compile: {error}", remedy)
        return
    moved = sorted(name for name, identity in state.ids.items() if found.get(name) != identity)
    if moved:
        remedy = "A newer featreg mended what they compute: `featreg plan`, then `featreg apply` and `featreg materialize`."
        yield Finding("applied", f"{', '.join(moved)}: means something else to this featreg than when it was applied.", remedy)


def _store(registry: "Registry") -> Iterator[Finding]:
    from featreg.plan.online import view_state
    from featreg.session.keys import meta_key
    from featreg.session.serving import groups_of, newest_filled, read_serving
    from featreg.session.store import has_store, open_store

    if not registry.control().applied:
        return
    if not has_store(registry.profile):
        yield Finding("store", "nothing is materialized yet.", "Run `featreg materialize`.", False)
        return
    views = registry.views_to_fill()
    with open_store(registry.profile) as store:
        _, serving = read_serving(store)
        groups = [(name, group) for name, view in views.items() for group in groups_of(serving, view)]
        stored = store.get([meta_key(group.space) for _, group in groups])
    if dict(serving.sets) != newest_filled(registry, serving):
        yield Finding("store", "it serves other versions than the log says.", "Run `featreg materialize`: it sets the pointer right.")
    for (name, _), found in zip(groups, stored):
        state = view_state(found)
        if state.begun:
            told = state.begun.get("to")
            until = f" to {format_instant(told)}" if told is not None else ""
            yield Finding("store", f"{name}: a run{until} was interrupted.", f"Finish it: featreg materialize {name}")
        elif state.watermark is None:
            remedy = f"Fill it: featreg materialize {name}.  What was applied before answers until then, where there is something."
            yield Finding("store", f"{name}: is not filled.", remedy, False)
