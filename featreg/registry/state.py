"""Fold the records of the log into what holds now.  Pure: the same records, the same state."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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
class ControlState:
    """applies: the records that applied definitions, oldest first · versions: feature -> definition id -> its number · pins: by name."""

    applies: tuple[Record, ...] = ()
    versions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pins: Mapping[str, Pin] = field(default_factory=dict)

    @property
    def current_versions(self) -> dict[str, int]:
        """Definition id -> number, of the features that are applied now."""
        now = self.applies[-1].body["ids"] if self.applies else {}
        return {identity: self.versions[name][identity] for name, identity in now.items()}


def fold(records: Iterable[Record]) -> ControlState:
    """Numbers are given in the order of meanings: an earlier meaning that comes back has its earlier number."""
    applies: list[Record] = []
    versions: dict[str, dict[str, int]] = {}
    pins: dict[str, Pin] = {}
    for record in records:
        match record.kind:
            case "apply":
                applies.append(record)
                for name, identity in record.body["ids"].items():
                    known = versions.setdefault(name, {})
                    known.setdefault(identity, len(known) + 1)
            case "pin":
                body = record.body
                pins[body["name"]] = Pin(
                    body["name"], body["set"], body["generation"], body["features"], record.at, record.by, body.get("training_set")
                )
    return ControlState(tuple(applies), versions, pins)
