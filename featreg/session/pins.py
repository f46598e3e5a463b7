"""Fix what a model was trained on, and tell when a feature is to go.

A pin holds a set as a clean commit's apply made it; it never moves, not even by being removed and made again.  A feature that a
pin still reads is not retired.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featreg.canonical import file_id
from featreg.compile import Compiled, CompiledSet
from featreg.errors import DataError, RefusedError, UsageError, did_you_mean
from featreg.instants import format_instant, parse_instant
from featreg.registry.state import ControlState, Pin, Retirement
from featreg.session.output import manifest_path

if TYPE_CHECKING:
    from featreg.session.registry import Registry

_NAME = re.compile(r"[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+")
_NAMED = 3  # features in an error


def create_pin(registry: "Registry", name: str, feature_set: str, training_set: str | Path | None) -> Pin:
    if not _NAME.fullmatch(name):
        raise UsageError(f"a pin is called MODEL:VERSION, as delay:3, not '{name}'.")
    _refuse_revision(registry, "pin")
    expected, applied = registry.log.generation(), registry.applied()
    if feature_set not in applied.compiled.sets:
        raise UsageError(f"there is no feature set '{feature_set}'.\n  {did_you_mean(feature_set, applied.compiled.sets, 'There are')}")
    chosen: CompiledSet = applied.compiled.sets[feature_set]
    features, state = dict(chosen.ids), registry.control()
    known = state.pins.get(name) or state.removed_pins.get(name)
    if known is not None and (known.set, dict(known.features)) != (feature_set, features):
        removed = "" if name in state.pins else " and removed since"
        raise RefusedError(
            f"{name} is pinned already{removed}: '{known.set}' of generation {known.generation}, by {known.by}.\n"
            "  A pin never moves: pin the other versions under another name."
        )
    if training_set is not None:
        _check_trained(Path(training_set), feature_set, features)
    if name in state.pins:
        return state.pins[name]
    _refuse_dirty(applied.revision, applied.generation)
    _refuse_retired(state, chosen)
    body = {"name": name, "set": feature_set, "generation": applied.generation, "features": features}
    body |= {"training_set": None if training_set is None else str(training_set)}
    body |= {} if training_set is None else {"manifest": file_id(manifest_path(Path(training_set)))}
    registry.log.append("pin", body, expected)
    return registry.control().pins[name]


def remove_pin(registry: "Registry", name: str) -> Pin:
    """Let go of what a pin fixes: `gc` may delete it then."""
    _refuse_revision(registry, "remove a pin")
    expected, state = registry.log.generation(), registry.control()
    known = find_pin(state, name)
    registry.log.append("unpin", {"name": name}, expected)
    return known


def find_pin(state: ControlState, name: str) -> Pin:
    if name not in state.pins:
        raise UsageError(f"there is no pin '{name}'.\n  {did_you_mean(name, state.pins, 'There are')}")
    return state.pins[name]


def retire_feature(registry: "Registry", feature: str, on: Any) -> Retirement | None:
    """Announce that a feature goes at an instant, or, with None, that it stays."""
    _refuse_revision(registry, "retire a feature")
    expected, state = registry.log.generation(), registry.control()
    if feature not in state.ids:
        raise UsageError(f"there is no feature '{feature}' in what is applied.\n  {did_you_mean(feature, state.ids, 'There are')}")
    if on is None:
        if feature not in state.retired:
            raise UsageError(f"{feature} is not being retired.")
        registry.log.append("keep", {"feature": feature}, expected)
        return None
    instant = parse_instant(on)
    live = sorted(pin.name for pin in state.pins.values() if _reads(registry.pinned(pin.name, pin.set).compiled, pin.set, feature))
    if live:
        raise RefusedError(
            f"{feature} is read by {', '.join(live)}; what a model was trained on does not go.\n"
            "  Remove the pin when the model is out of service: featreg pin rm MODEL:VERSION"
        )
    registry.log.append("retire", {"feature": feature, "on": instant}, expected)
    return registry.control().retired[feature]


def retirement_warnings(state: ControlState, compiled: Compiled, touched: set[str], now: int) -> tuple[str, ...]:
    """What to say in a plan that changes a feature being retired, or one that stands beside it in a set.

    touched: changed features, as `view.feature`, or `set.name` for a set's derived ones.
    """
    told = []
    for one in state.retired.values():
        sets = [name for name in compiled.sets if _reads(compiled, name, one.feature)]
        consumers = {one.feature, *_dependants(compiled, one.feature)}
        for name in sets:
            consumers |= {f"{name}.{derived}" for derived, *_ in compiled.sets[name].derived}
            consumers |= {f"{lookup.view}.{feature}" for lookup in compiled.sets[name].lookups for feature, _ in lookup.features}
        if consumers & touched:
            readers = f" Still read by {', '.join(f'set {name}' for name in sets)}." if sets else ""
            when = f"is retired on {format_instant(one.on)}" if one.on > now else f"was to be gone by {format_instant(one.on)}"
            told.append(f"{one.feature} {when}, as {one.by} announced.{readers}")
    return tuple(told)


def _reads(compiled: Compiled, set_name: str, feature: str) -> bool:
    """Whether a set takes a feature, or one that is derived from it."""
    view_name, _, own = feature.partition(".")
    for lookup in compiled.sets[set_name].lookups:
        if lookup.view == view_name:
            taken = tuple(name for name, _ in lookup.features)
            if own in compiled.views[view_name].closure(taken):
                return True
    return False


def _dependants(compiled: Compiled, feature: str) -> set[str]:
    view_name, _, own = feature.partition(".")
    view = compiled.views.get(view_name)
    if view is None:
        return set()
    return {f"{view_name}.{one.name}" for one in view.features if own in view.closure((one.name,))}


def _check_trained(path: Path, feature_set: str, features: Mapping[str, str]) -> None:
    """Raises: DataError or RefusedError unless the manifest beside the file says it was made of these very definitions."""
    side = manifest_path(path)
    try:
        manifest = json.loads(side.read_bytes())
        made, ids = manifest["set"], dict(manifest["features"])
    except FileNotFoundError:
        what = f"{side} is not there: it says what {path.name} was made of"
        raise DataError(f"{what}.\n  featreg writes it beside each training set.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{side} is no manifest of a training set: {error!r}.") from None
    if not path.is_file():
        raise DataError(f"{path} is not there; only its manifest is.")
    if made != feature_set:
        raise RefusedError(f"{path} is a training set of '{made}', not of '{feature_set}'.")
    other = sorted({name for name in (ids.keys() | features.keys()) if ids.get(name) != features.get(name)})
    if other:
        names = ", ".join(other[:_NAMED]) + (f" and {len(other) - _NAMED} more" if len(other) > _NAMED else "")
        raise RefusedError(
            f"{path} was made of other definitions than those that are applied: {names}.\n"
            "  Go back to them (featreg rollback --to GENERATION), pin, and come back; or train on what is applied."
        )


def _refuse_dirty(revision: Mapping[str, Any], generation: int) -> None:
    if not revision["clean"]:
        what = "from changes that were not committed" if revision["commit"] else "without a commit"
        raise RefusedError(
            f"generation {generation} was applied {what}, and a pin holds a commit.\n  Commit features/, `featreg apply`, then pin."
        )


def _refuse_retired(state: ControlState, chosen: CompiledSet) -> None:
    for lookup in chosen.lookups:
        for feature, _ in lookup.features:
            one = state.retired.get(f"{lookup.view}.{feature}")
            if one is not None:
                raise RefusedError(
                    f"{one.feature} is retired on {format_instant(one.on)}, as {one.by} announced; no new pin takes it.\n"
                    f"  Leave it out of the set, or let it stay: featreg retire {one.feature} --cancel"
                )


def _refuse_revision(registry: "Registry", verb: str) -> None:
    if registry.revision is not None:
        raise UsageError(f"a registry opened at a revision is for reading. Open it without one to {verb}.")
