"""Say what a change makes necessary: rows to read, keys and bytes to write, about how long, and whether a view is filled anew.

Rows are those of the source as it is now; keys, bytes and seconds follow from the largest run of the view, or of another view
of its source, that left a receipt on this machine.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featreg.compile import CompiledView
from featreg.compile.difference import State
from featreg.errors import DataError, StoreError, UsageError
from featreg.plan.groups import Group, plan_groups, whole

if TYPE_CHECKING:
    from featreg.session.registry import Registry


@dataclass(frozen=True)
class ViewWork:
    """What must be computed of one view.  features: the changed aggregates.

    rows: about how many the source has · keys, bytes: about what is written · seconds: about how long; None for what cannot be known.
    rebuilds: whether its online state is filled anew; otherwise only `features` are, beside what is there.
    """

    view: str
    features: tuple[str, ...]
    source: str
    rows: int | None
    keys: int | None
    bytes: int | None
    seconds: float | None
    rebuilds: bool


@dataclass(frozen=True)
class Cost:
    """What a run did cost: of the largest one known."""

    rows: int
    keys: int
    bytes_a_feature: float  # and key
    seconds_a_row: float


def work_of(registry: "Registry", by_view: Mapping[str, Sequence[str]], before: State, after: State) -> list[ViewWork]:
    """by_view: the changed aggregates of each view."""
    if not by_view:
        return []
    costs, rows_of = _costs(registry), _RowCounts(registry)
    serving = _groups_filled(registry, [before.compiled.views[name] for name in by_view if name in before.compiled.views])
    work = []
    for name, features in by_view.items():
        view, was = after.compiled.views[name], before.compiled.views.get(name)
        groups = plan_groups(view, serving.get(name) or (() if was is None else (whole(was),)))
        rebuilds = was is not None and groups == (whole(view),) and whole(was) != whole(view)
        source, rows = view.scan.source.name, rows_of.count(view)
        cost = costs.get(("view", name)) or costs.get(("source", source))
        filled = len(whole(view).ids) if rebuilds or was is None else len(features)
        told: tuple[int | None, int | None, float | None] = (None, None, None)
        if cost is not None:
            seconds = None if rows is None else round(rows * cost.seconds_a_row, 3)
            told = (cost.keys, round(cost.keys * filled * cost.bytes_a_feature), seconds)
        work.append(ViewWork(name, tuple(features), source, rows, *told, rebuilds))
    return work


class _RowCounts:
    """About how many rows sources have; the engine is opened when the first one is there to be counted."""

    def __init__(self, registry: "Registry"):
        self.registry = registry
        self.finder: Any = None

    def count(self, view: CompiledView) -> int | None:
        source = view.scan.source
        if source.name not in self.registry.profile.sources and source.stream_mode is None:
            return None
        if self.finder is None:
            from featreg.session.sources import SourceFinder

            self.finder = SourceFinder(self.registry.engine, self.registry.profile, {})
        try:
            return self.finder.find(source)[1]
        except (DataError, UsageError):
            return None


def _costs(registry: "Registry") -> dict[tuple[str, str], Cost]:
    """The largest known run of each view, and of each source."""
    from featreg.session.receipts import RECEIPT

    found: dict[tuple[str, str], Cost] = {}
    for event in registry.events.read(RECEIPT):
        for one in event.body.get("views", ()) if event.body["verb"] == "materialize" else ():
            if one["rows"] and one["keys"]:
                cost = Cost(
                    one["rows"], one["keys"], one["bytes"] / one["keys"] / max(one["features"], 1), one["seconds"] / one["rows"]
                )
                for name in (("view", one["view"]), ("source", one["source"])):
                    if name not in found or found[name].rows <= cost.rows:
                        found[name] = cost
    return found


def _groups_filled(registry: "Registry", views: Iterable[CompiledView]) -> dict[str, tuple[Group, ...]]:
    """The groups that answer views now, by name; nothing where there is no store."""
    from featreg.session.store import has_store, open_store

    if not has_store(registry.profile):
        return {}
    from featreg.session.serving import read_serving

    try:
        with open_store(registry.profile) as store:
            serving = read_serving(store)[1]
    except StoreError:  # a plan needs no store
        return {}
    return {view.name: serving.groups(view) for view in views}
