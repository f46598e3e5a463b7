"""Say what applying or merging would do: the changes between two states, and the work that follows from them."""

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from featreg.compile import compile_definitions
from featreg.compile.difference import Change, ChangeKind, State, compare
from featreg.errors import UsageError, did_you_mean
from featreg.load import load_files
from featreg.registry.log import ControlLog, Record
from featreg.registry.state import ControlState
from featreg.session.pins import retirement_warnings
from featreg.session.work import ViewWork, work_of

if TYPE_CHECKING:
    from featreg.session.registry import Registry
    from featreg.session.values import ValueChange

_COMPUTED = (ChangeKind.ADDITIVE, ChangeKind.SEMANTIC)


@dataclass(frozen=True)
class Plan:
    """The changes from one state to another, named for people, and the work."""

    before: str
    after: str
    changes: tuple[Change, ...]
    work: tuple[ViewWork, ...]
    warnings: tuple[str, ...] = ()
    values: "tuple[ValueChange, ...]" = ()

    @property
    def is_empty(self) -> bool:
        return all(change.kind is ChangeKind.NONE for change in self.changes)

    def of(self, *kinds: ChangeKind) -> list[Change]:
        return [change for change in self.changes if change.kind in kinds]


def plan_changes(registry: "Registry", names: tuple[str, str], before: State, after: State, values: int | None = None) -> Plan:
    """values: of how many sampled rows the changed features are computed by both states."""
    control = registry.control()
    changes = tuple(_with_pins(change, control) for change in compare(before, after))
    by_view: dict[str, list[str]] = {}
    for change in changes:
        view, _, feature = change.name.partition(".")
        if change.kind in _COMPUTED and view in after.compiled.views and after.compiled.views[view].by_name[feature].aggregation:
            by_view.setdefault(view, []).append(feature)
    touched = {change.name for change in changes if change.kind is not ChangeKind.NONE}
    warnings = retirement_warnings(control, after.compiled, touched, time.time_ns() // 1000) if touched else ()
    work = tuple(work_of(registry, by_view, before, after))
    if values is None:
        return Plan(*names, changes, work, warnings)
    from featreg.session.values import compare_values

    return Plan(*names, changes, work, warnings, compare_values(registry, changes, before, after, values))


def _with_pins(change: Change, control: ControlState) -> Change:
    """The change with the pins that hold the meaning it leaves: they go on with it."""
    held = tuple(f"pin {pin.name}" for pin in control.pins.values() if change.before_id in pin.features.values())
    return replace(change, dependants=change.dependants + held) if held and change.kind is not ChangeKind.NONE else change


@dataclass(frozen=True)
class Life:
    """One change in the life of a feature.  version, id: None when it was removed · at: UTC microseconds · reasons: why, in words."""

    version: int | None
    id: str | None
    generation: int
    at: int
    by: str
    commit: str | None
    reasons: tuple[str, ...]


def life_of(feature: str, control: ControlState, log: ControlLog) -> list[Life]:
    """The changes that applies have made to a feature, oldest first; only the states around a change are compiled."""
    if feature not in control.versions:
        raise UsageError(f"'{feature}' was never applied.\n  {did_you_mean(feature, control.versions, 'Applied were')}")
    lives: list[Life] = []
    before: Record | None = None
    for record in log.iterate(kind="apply"):
        was, now = (None if one is None else one.body["ids"].get(feature) for one in (before, record))
        if was != now:
            changes = {one.name: one for one in compare(State() if before is None else _state_of(before), _state_of(record))}
            number = control.versions[feature][now] if now is not None else None
            reasons = changes[feature].reasons if feature in changes else ("renamed",)
            lives.append(Life(number, now, record.generation, record.at, record.by, record.body["revision"]["commit"], reasons))
        before = record
    return lives


def _state_of(record: Record) -> State:
    definitions = load_files({path: text.encode() for path, text in record.body["files"].items()})
    return State(definitions, compile_definitions(definitions))
