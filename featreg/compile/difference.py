"""Compare two states of a repository, feature by feature: what changed, of which kind, and why, in words.

Both states are compiled by this featreg, so a difference is one of definitions and never of compilers.
The kind follows from the definition id, which decides; the words are found by comparing what the id is made of.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, partial
from typing import Any

from featreg.compile.compiled import Compiled, CompiledFeature, CompiledView
from featreg.compile.identity import source_meaning
from featreg.compile.words import available_text, freshness_text, hop_text, window_text
from featreg.define import LAYOUT, META, Layer
from featreg.expressions import Typed, meaning
from featreg.load import Definitions

_COLUMN = "column "


class ChangeKind(StrEnum):
    """What becomes of a feature, the least first."""

    NONE = "none"
    METADATA = "metadata"  # owner, description, tags, its name
    LAYOUT = "layout"  # how it is found, checked or stored
    ADDITIVE = "additive"  # a new feature
    SEMANTIC = "semantic"  # another meaning under the same name
    REMOVED = "removed"


@dataclass(frozen=True)
class Change:
    """What became of one feature.  name: `view.feature`, or `set.feature` of what a set derives.

    place: (file, line) where it stands, or stood.  dependants: derived features and feature sets that read it.
    """

    name: str
    kind: ChangeKind
    reasons: tuple[str, ...]
    before_id: str | None
    after_id: str | None
    place: tuple[str, int] | None
    dependants: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """Definitions and what they compile to."""

    definitions: Definitions = field(default_factory=Definitions)
    compiled: Compiled = field(default_factory=lambda: Compiled({}, {}))

    @cached_property
    def features(self) -> "Mapping[str, _Feature]":
        """All features of views, then what sets derive, by name."""
        return {feature.name: feature for feature in (*self._of_views(), *self._of_sets())}

    def _of_views(self) -> "Iterator[_Feature]":
        for view in self.compiled.views.values():
            specs = {output.name: output.spec for output in view.definition.outputs}
            ids = {feature.name: feature.id for feature in view.features}
            layout = _layout(view)
            of_view = {f"the view's {name}": getattr(view.definition, name) for name in _fields(view.definition, META) if name != "name"}
            for feature in view.features:
                spec = specs[feature.name]
                if feature.aggregation:
                    facts = partial(_aggregate_facts, view, feature, spec)
                else:
                    facts = partial(_derived_facts, spec, {used: ids[used] for used in feature.uses})
                meta = {"description": feature.description, "tags": list(feature.tags), **of_view}
                place = self.definitions.place("view", view.name, feature.name)
                yield _Feature(f"{view.name}.{feature.name}", feature.id, facts, meta, layout, place)

    def _of_sets(self) -> "Iterator[_Feature]":
        for one in self.compiled.sets.values():
            ids = dict(one.ids)
            for name, typed, spec in one.derived:
                meta = {"description": spec.description, "tags": list(spec.tags), "the set's owner": one.definition.owner}
                facts = partial(_derived_facts, spec, {used: ids.get(used, "request") for used in sorted(typed.columns)})
                place = self.definitions.place("set", one.name, name)
                identity = ids.get(name) or repr((meaning(typed, ids), str(typed.type)))
                yield _Feature(f"{one.name}.{name}", identity, facts, meta, {}, place)

    @cached_property
    def dependants(self) -> Mapping[str, tuple[str, ...]]:
        """Who reads a feature: derived features of its view, however indirectly, and feature sets."""
        readers: dict[str, dict[str, None]] = {}
        for view in self.compiled.views.values():
            for feature in view.features:
                for used in view.closure(feature.uses):
                    readers.setdefault(f"{view.name}.{used}", {})[f"{view.name}.{feature.name}"] = None
        for one in self.compiled.sets.values():
            for lookup in one.lookups:
                view = self.compiled.views[lookup.view]
                for used in view.closure(tuple(feature for feature, _ in lookup.features)):
                    readers.setdefault(f"{view.name}.{used}", {})[f"set {one.name}"] = None
        return {name: tuple(found) for name, found in readers.items()}


@dataclass(frozen=True)
class _Feature:
    """A feature as it is compared.

    facts: gives label -> (what is compared, how it reads) of what the id is made of · meta, layout: label -> value.
    """

    name: str
    id: str
    facts: Callable[[], Mapping[str, tuple[Any, str]]]
    meta: Mapping[str, Any]
    layout: Mapping[str, Any]
    place: tuple[str, int] | None


def compare(before: State, after: State) -> tuple[Change, ...]:
    """The change of every feature of both states: those of `after` in order, then those that are gone."""
    old, new = before.features, after.features
    gone = {feature.id: name for name, feature in old.items() if name not in new}
    renamed = {name: gone[feature.id] for name, feature in new.items() if name not in old and feature.id in gone}
    changes = []
    for name, feature in new.items():
        was = old.get(renamed.get(name, name))
        kind, reasons = (ChangeKind.ADDITIVE, ("new",)) if was is None else _judge(was, feature)
        changes.append(Change(name, kind, reasons, was.id if was else None, feature.id, feature.place, after.dependants.get(name, ())))
    taken = set(renamed.values())
    for name, feature in old.items():
        if name not in new and name not in taken:
            dependants = before.dependants.get(name, ())
            changes.append(Change(name, ChangeKind.REMOVED, ("gone",), feature.id, None, feature.place, dependants))
    return tuple(changes)


def _judge(was: _Feature, now: _Feature) -> tuple[ChangeKind, tuple[str, ...]]:
    if was.id != now.id:
        reasons = tuple(_told(was.facts(), now.facts()))
        return ChangeKind.SEMANTIC, reasons or ("what its aggregation or expressions compute was mended in this featreg",)
    layout = tuple(_told(_as_facts(was.layout), _as_facts(now.layout))) if was.layout != now.layout else ()
    renamed = (f"renamed from {was.name}",) if was.name != now.name else ()
    meta = renamed + (tuple(_told(_as_facts(was.meta), _as_facts(now.meta))) if was.meta != now.meta else ())
    if layout:
        return ChangeKind.LAYOUT, layout + meta
    return (ChangeKind.METADATA, meta) if meta else (ChangeKind.NONE, ())


def _told(before: Mapping[str, tuple[Any, str]], after: Mapping[str, tuple[Any, str]]) -> Iterator[str]:
    """`label before → after` for each fact that differs."""
    for label in dict.fromkeys((*before, *after)):
        (old, old_text), (new, new_text) = before.get(label, (None, "")), after.get(label, (None, ""))
        if old == new or (label.startswith(_COLUMN) and not (old and new)):  # what reads another column is told itself
            continue
        if not old_text:
            yield f"{label} added: {new_text}"
        elif not new_text:
            yield f"{label} removed: {old_text}"
        else:
            yield f"{label} {old_text} → {new_text}" if old_text != new_text else f"{label} means something else now"


def _as_facts(values: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    return {
        label: (value, ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)) for label, value in values.items()
    }


def _aggregate_facts(view: CompiledView, feature: CompiledFeature, spec: Any) -> dict[str, tuple[Any, str]]:
    """What the id of an aggregate is made of, with the words for each part."""
    scan, source = view.scan, view.scan.source
    used = frozenset().union(*(one.columns for one in (feature.column, feature.by, feature.where, scan.where) if one is not None))
    contract = source_meaning(scan, used)
    keys = [[name, column, str(kind)] for (name, column), (_, kind) in zip(view.definition.key_columns, scan.keys)]
    key_text = ", ".join(f"{name} {kind}" if name == column else f"{name} = {column} {kind}" for name, column, kind in keys)
    cadence = scan.cadence
    columns = {f"{_COLUMN}{name}": (kind, kind) for name, kind in contract["columns"]}  # type: ignore[attr-defined]
    return {
        "source": (source.name, source.name),
        "event time": (source.event_time, source.event_time),
        "available": ((contract["available"], contract["delay"]), available_text(source)),
        "tie_break": (contract["tie_break"], ", ".join(source.tie_break)),
        **columns,
        "key": (keys, key_text),
        "freshness": ((cadence.period, cadence.offset, cadence.delay), freshness_text(cadence)),
        "the view's where": (_meant(scan.where), view.definition.where or ""),
        "aggregation": (feature.aggregation, feature.aggregation),
        "input": (_meant(feature.column), spec.column or ""),
        "by": (_meant(feature.by), spec.by or ""),
        "where": (_meant(feature.where), spec.where or ""),
        "limit": (feature.limit, str(feature.limit or "")),
        "ignore_nulls": (feature.ignore_nulls, str(feature.ignore_nulls)),
        "window": (feature.window, window_text(feature.window)),
        "hop": (feature.hop, hop_text(feature.hop)),
        "type": (str(feature.type), str(feature.type)),
    }


def _derived_facts(spec: Any, inputs: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    return {"expression": (spec.expression, spec.expression), **{f"input {name}": (identity, name) for name, identity in inputs.items()}}


def _meant(expression: Typed | None) -> object:
    return None if expression is None else meaning(expression)


def _layout(view: CompiledView) -> dict[str, Any]:
    source = view.scan.source
    return {f"{source.name}'s {name}": getattr(source, name) for name in _fields(source, LAYOUT)}


def _fields(model: Any, layer: Layer) -> list[str]:
    """The fields of a model that are of a layer."""
    return [name for name, info in type(model).model_fields.items() if layer in info.metadata]
