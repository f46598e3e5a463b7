"""Fold the records of the log into what holds now.  Pure: the same records, the same state.

The state is small however long the log is: it has the numbers of all meanings, the pins and what is being retired; what was
applied is looked up in the log by its generation.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from featreg.registry.log import Record


@dataclass(frozen=True)
class Pin:
    """A model's fixed versions: a feature set as it was applied at a generation.  at: UTC microseconds."""

    name: str
    set: str
    generation: int
    features: Mapping[str, str]
    at: int
    by: str
    training_set: str | None = None


@dataclass(frozen=True)
class Retirement:
    """The announced end of a feature.  on: UTC microseconds · at: when it was announced."""

    feature: str
    on: int
    at: int
    by: str


@dataclass(frozen=True)
class ControlState:
    """What holds at a generation.

    applied: the generation of the newest apply, 0 for none · ids: `view.feature` -> definition id, as it applied them ·
    versions: `view.feature` -> definition id -> its number · pins, removed_pins, retired: by name.
    """

    generation: int = 0
    applied: int = 0
    ids: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pins: Mapping[str, Pin] = field(default_factory=dict)
    removed_pins: Mapping[str, Pin] = field(default_factory=dict)
    retired: Mapping[str, Retirement] = field(default_factory=dict)

    @property
    def current_versions(self) -> dict[str, int]:
        """`view.feature` -> number, of the features that are applied now."""
        return {name: self.versions[name][identity] for name, identity in self.ids.items()}

    def version(self, name: str, identity: str | None) -> int | None:
        """The number of a feature's meaning; None when it was never applied."""
        return self.versions.get(name, {}).get(identity or "")


def fold(records: Iterable[Record], state: ControlState | None = None) -> ControlState:
    """The state after these records.  Numbers are given in the order of meanings: one that comes back has its earlier number."""
    before = state or ControlState()
    generation, applied, ids = before.generation, before.applied, before.ids
    versions = {name: dict(known) for name, known in before.versions.items()}
    pins, removed, retired = dict(before.pins), dict(before.removed_pins), dict(before.retired)
    for record in records:
        generation, body = record.generation, record.body
        match record.kind:
            case "apply":
                applied, ids = generation, body["ids"]
                for name, identity in ids.items():
                    known = versions.setdefault(name, {})
                    if identity not in known:
                        known[identity] = len(known) + 1
            case "pin":
                fixed = (body["name"], body["set"], body["generation"], body["features"])
                pins[body["name"]] = Pin(*fixed, record.at, record.by, body.get("training_set"))
                removed.pop(body["name"], None)
            case "unpin":
                if body["name"] in pins:
                    removed[body["name"]] = pins.pop(body["name"])
            case "retire":
                retired[body["feature"]] = Retirement(body["feature"], body["on"], record.at, record.by)
            case "keep":
                retired.pop(body["feature"], None)
    return ControlState(generation, applied, ids, versions, pins, removed, retired)


def as_document(state: ControlState) -> dict[str, Any]:
    """The state as a value for JSON."""
    document = dict(vars(state))
    for name in ("pins", "removed_pins", "retired"):
        document[name] = [vars(one) for one in document[name].values()]
    return document


def of_document(document: Mapping[str, Any]) -> ControlState:
    pins, removed = ({one["name"]: Pin(**one) for one in document[name]} for name in ("pins", "removed_pins"))
    retired = {one["feature"]: Retirement(**one) for one in document["retired"]}
    return replace(ControlState(**document), pins=pins, removed_pins=removed, retired=retired)
