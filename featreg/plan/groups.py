"""Say which features of a view are stored together, so that what is filled already is never computed again.

A *column group* is features of one entity, source, filter and freshness that were filled together; its name comes of their
definition ids, so names, order and the view they are declared in do not matter.  A view is answered by one group, or by a large
older one and a small one with what came since; a third would cost every read, so the small one is filled anew then.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from featreg.canonical import content_id
from featreg.compile.compiled import CompiledFeature, CompiledView
from featreg.compile.identity import aggregate_id

STATE_FORM = 5  # raise when the words of a state or the names of records change: another form is another space


@dataclass(frozen=True)
class Group:
    """Features that are stored together: their definition ids, sorted."""

    ids: tuple[str, ...]

    @property
    def space(self) -> str:
        """The name of its place in the store."""
        return content_id({"form": STATE_FORM, "features": list(self.ids)})


def whole(view: CompiledView) -> Group:
    """All aggregates of a view as one group."""
    return Group(tuple(sorted({feature.id for feature in view.features if feature.aggregation})))


def space_of(view: CompiledView) -> str:
    """What a view is called in the store by what it means, whatever groups answer it."""
    return whole(view).space


def group_view(view: CompiledView, group: Group, features: Mapping[str, CompiledFeature]) -> CompiledView:
    """The view with the features of a group in place of its own, each called by its id.  features: by id, all of the group's."""
    return replace(view, features=tuple(replace(features[one], name=one) for one in group.ids), order=group.ids)


def plan_groups(view: CompiledView, filled: Iterable[Group]) -> tuple[Group, ...]:
    """The groups, one or two, that answer a view: those that are filled as far as they have its features, and one with the rest.

    filled: groups that can be read and are not empty.  A group with less than half of what the view needs is not built upon.
    """
    needed = set(whole(view).ids)
    there = sorted(filled, key=lambda group: (-len(needed & set(group.ids)), len(group.ids), group.ids))
    if not needed or not there or 2 * len(needed & set(there[0].ids)) < len(needed):
        return (whole(view),)
    base = there[0]
    rest = needed - set(base.ids)
    if not rest:
        return (base,)
    fitting = [group for group in there if rest <= set(group.ids)]
    return base, min(fitting, key=lambda group: (len(group.ids), group.ids)) if fitting else Group(tuple(sorted(rest)))


def computes(view: CompiledView, feature: CompiledFeature) -> bool:
    """Whether a feature of another state of the repository means the same when it is computed by this view's scan."""
    return aggregate_id(view.definition, view.scan, feature) == feature.id
