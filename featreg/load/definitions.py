"""Hold everything that the specs of one tree define, and where each thing stands."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from featreg.define import Entity, EventSource, FeatureSet, FeatureView
from featreg.errors import Problem

Place = tuple[str, int]  # file, line
Definable = Entity | EventSource | FeatureView | FeatureSet


@dataclass(frozen=True)
class Placed:
    """A definition where a spec makes it.  parts: where each of its features or columns stands, by name."""

    model: Definable
    file: str
    line: int
    parts: Mapping[str, Place] = field(default_factory=dict)


@dataclass(frozen=True)
class Definitions:
    """All definitions by name, each kind on its own, in file and line order, Python before SQL.

    places: (kind, name) -> (file, line), kind one of entity, source, view, set; and
    ("feature", view, name) for the features of a view, under their base and their full names,
    ("derived", set, name) for a set's.
    """

    entities: Mapping[str, Entity] = field(default_factory=dict)
    sources: Mapping[str, EventSource] = field(default_factory=dict)
    views: Mapping[str, FeatureView] = field(default_factory=dict)
    sets: Mapping[str, FeatureSet] = field(default_factory=dict)
    places: Mapping[tuple[str, ...], Place] = field(default_factory=dict)

    def place(self, kind: str, name: str, part: str | None = None) -> Place | None:
        """Where a definition stands, or its feature `part`; a part without a place of its own stands where its owner does."""
        inner = {"view": "feature", "set": "derived"}.get(kind)
        own = self.places.get((inner, name, part)) if inner and part is not None else None
        return own or self.places.get((kind, name))


def kind_of(model: Definable) -> str:
    match model:
        case Entity():
            return "entity"
        case EventSource():
            return "source"
        case FeatureView():
            return "view"
        case FeatureSet():
            return "set"


def gather(placed: Iterable[Placed]) -> tuple[Definitions, list[Problem]]:
    """The definitions by name, and a problem for each name that is taken before."""
    by_kind: dict[str, dict[str, Definable]] = {"entity": {}, "source": {}, "view": {}, "set": {}}
    places: dict[tuple[str, ...], Place] = {}
    problems: list[Problem] = []
    for one in placed:
        kind, name = kind_of(one.model), one.model.name
        if name in by_kind[kind]:
            file, line = places[kind, name]
            message = f"{kind} '{name}' is defined twice; first at {file}:{line}."
            problems.append(Problem(message, one.file, one.line, name, f"Names are unique per kind: rename or import one {kind}."))
            continue
        by_kind[kind][name] = one.model
        places[kind, name] = (one.file, one.line)
        places |= _places_inside(one)
    return Definitions(by_kind["entity"], by_kind["source"], by_kind["view"], by_kind["set"], places), problems  # type: ignore[arg-type]


def _places_inside(one: Placed) -> dict[tuple[str, ...], Place]:
    here = (one.file, one.line)
    places: dict[tuple[str, ...], Place] = {}
    match one.model:
        case FeatureView() as view:
            for output in view.outputs:
                at = one.parts.get(output.base, here)
                places["feature", view.name, output.name] = at
                places.setdefault(("feature", view.name, output.base), at)
        case FeatureSet() as feature_set:
            for name, _ in feature_set.derived:
                places["derived", feature_set.name, name] = one.parts.get(name, here)
    return places
