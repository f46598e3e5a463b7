"""Fold the records of the log into what holds now.  Pure: the same records, the same state.

The state is small however long the log is: it has the numbers of all meanings, the pins and what is being retired; what was
applied is looked up in the log by its generation.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from featreg.registry.kept import KeptSnapshot, KeptTrainingSet, keep, read_snapshot, read_training_set
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
    manifest: str | None = None


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
    versions: `view.feature` -> definition id -> its number · pins, removed_pins, retired: by name · snapshots, training_sets: by
    id, the newest last.
    """

    generation: int = 0
    applied: int = 0
    ids: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pins: Mapping[str, Pin] = field(default_factory=dict)
    removed_pins: Mapping[str, Pin] = field(default_factory=dict)
    retired: Mapping[str, Retirement] = field(default_factory=dict)
    snapshots: Mapping[str, KeptSnapshot] = field(default_factory=dict)
    training_sets: Mapping[str, KeptTrainingSet] = field(default_factory=dict)

    def newest_snapshot(self, source: str) -> KeptSnapshot | None:
        """The last one taken of a source that is not removed."""
        return next((one for one in reversed(list(self.snapshots.values())) if one.source == source and one.removed_at is None), None)

    def holders(self) -> dict[str, list[str]]:
        """What needs each snapshot: pins of models that were trained on training sets, and these.  One that nothing needs is not in it."""
        by_files, held = self.by_files(), dict[str, list[KeptTrainingSet]]()
        for made in self.kept_training_sets:
            for snapshot in made.needed(by_files).values():
                held.setdefault(snapshot, []).append(made)
        return {
            snapshot: [*(f"pin {name}" for name in self._trained_on_any(sets)), *(f"training set {made.id[:12]}" for made in sets)]
            for snapshot, sets in held.items()
        }

    def by_files(self) -> dict[tuple[str, str], str]:
        """The newest snapshot that is not removed of each (source, manifest_id): it has what was read at a location before it was kept."""
        return {(one.source, one.manifest_id): one.id for one in self.snapshots.values() if one.removed_at is None and one.files}

    @property
    def kept_training_sets(self) -> list[KeptTrainingSet]:
        """Those that are not removed."""
        return [one for one in self.training_sets.values() if one.removed_at is None]

    def trained_on(self, training_set: KeptTrainingSet) -> list[str]:
        """The pins of models that were trained on it."""
        return self._trained_on_any([training_set])

    def _trained_on_any(self, training_sets: Iterable[KeptTrainingSet]) -> list[str]:
        manifests = {manifest for made in training_sets for manifest in made.manifests}
        return [pin.name for pin in self.pins.values() if pin.manifest in manifests]

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
    snapshots, training_sets = dict(before.snapshots), dict(before.training_sets)
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
                pins[body["name"]] = Pin(*fixed, record.at, record.by, body.get("training_set"), body.get("manifest"))
                removed.pop(body["name"], None)
            case "unpin":
                if body["name"] in pins:
                    removed[body["name"]] = pins.pop(body["name"])
            case "retire":
                retired[body["feature"]] = Retirement(body["feature"], body["on"], record.at, record.by)
            case "keep":
                retired.pop(body["feature"], None)
            case _:
                keep(snapshots, training_sets, record)
    return ControlState(generation, applied, ids, versions, pins, removed, retired, snapshots, training_sets)


def as_document(state: ControlState) -> dict[str, Any]:
    """The state as a value for JSON."""
    document = dict(vars(state))
    for name in ("pins", "removed_pins", "retired", "snapshots", "training_sets"):
        document[name] = [vars(one) for one in document[name].values()]
    return document


def of_document(document: Mapping[str, Any]) -> ControlState:
    pins, removed = ({one["name"]: Pin(**one) for one in document[name]} for name in ("pins", "removed_pins"))
    retired = {one["feature"]: Retirement(**one) for one in document["retired"]}
    snapshots = {one.id: one for one in map(read_snapshot, document["snapshots"])}
    training_sets = {one.id: one for one in map(read_training_set, document["training_sets"])}
    return replace(
        ControlState(**document), pins=pins, removed_pins=removed, retired=retired, snapshots=snapshots, training_sets=training_sets
    )
