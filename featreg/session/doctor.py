"""Look for what is wrong in a repository's state: the log, what it points to, kept objects, the store.  Changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featreg.errors import DataError, FeatregError, StoreError
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
    """All findings: the log's chain, what is applied and pinned, kept objects (every byte of them is read), the online store."""
    found: list[Finding] = []
    try:
        found += _log(registry)
    except StoreError as error:  # what else there is to see is told by the log
        return [*found, Finding("log", str(error), f"Put {registry.log.name} back from a copy.")]
    for where, look in (("events", _events), ("applied", _definitions), ("objects", _objects), ("store", _store)):
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


def _objects(registry: "Registry") -> Iterator[Finding]:
    """What snapshots and training sets name and is not there or has other bytes, and what nothing names."""
    from featreg.session.snapshots import damaged_files, lost_files, objects_of, read_snapshot, unreached

    objects, state, profile = objects_of(registry.profile), registry.control(), registry.profile
    back = f"Put it back from a copy of {objects.folder}."
    readable = True
    for kept in state.snapshots.values():
        if kept.removed_at is not None:
            continue
        what = f"snapshot {kept.id[:12]} of '{kept.source}'"
        try:
            snapshot = read_snapshot(registry, kept.id)[1]
        except DataError as error:
            readable = False
            yield Finding("objects", f"{what}: its list of files cannot be read: {str(error).splitlines()[0]}", back)
            continue
        again = f"{back} Where the source still has the data: featreg snapshot take {kept.source}" if snapshot.is_copied else (
            "The table was vacuumed, or its old snapshots expired: put its files back, or remove the snapshot."
        )  # fmt: skip
        lost = {file.path for file in lost_files(profile, snapshot)}
        damaged = [file.path for file in damaged_files(profile, snapshot) if file.path not in lost]
        for paths, how in ((sorted(lost), "missing or cut off"), (damaged, "damaged")):
            if paths:
                more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
                yield Finding("objects", f"{what}: {how}: {', '.join(paths[:3])}{more}.", again)
    for made in state.kept_training_sets:
        bad = [one for one in (*made.manifests, *made.objects) if not objects.is_whole(one)]
        if bad:
            yield Finding("objects", f"training set {made.id[:12]} of '{made.set}': missing or damaged: {', '.join(bad)}.", back)
    if readable and objects.folder.is_dir():
        with objects.locked():  # what is being put is named before the lock is let go
            loose = unreached(registry)
        if loose:
            size = sum(objects.all().get(one, 0) for one in loose)
            told = f"{len(loose)} that nothing names ({size:,} bytes), as a take that was interrupted leaves them."
            yield Finding("objects", told, "Delete them: featreg retention apply", False)


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
