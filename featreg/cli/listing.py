"""List what a repository defines, as a value for JSON that is kept until a spec changes.

Compiling takes a third of a second, most of it imports; `ls`, `show` and tab completion
read the kept listing where no spec and no line of the compiler has changed since.

A listing: {"sources": [...], "entities": [...], "views": [...], "sets": [...]}, each item
with name, description, owner, tags and place, views and sets with their features.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featreg.durable import write_whole
from featreg.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from featreg.compile import Compiled, CompiledFeature, CompiledSet, CompiledView
    from featreg.define import EventSource
    from featreg.load import Definitions

Listing = Mapping[str, list[dict[str, Any]]]
KINDS = ("views", "features", "sets", "sources", "entities")
_COMPILER = ("define", "expressions", "load", "compile", "cli", "algebra")
_FILE = Path(".featreg", "cache", "listing.json")


def list_working_tree(root: Path) -> Listing:
    """The listing of the specs as they are on disk.

    Raises: DefinitionError with every problem; UsageError when there is no spec folder.
    """
    key = _key_of(root)
    kept = _read_kept(root, key)
    if kept is not None:
        return kept
    from featreg.compile import compile_definitions
    from featreg.load import load_directory

    definitions = load_directory(root)
    made = make_listing(definitions, compile_definitions(definitions))
    _keep(root, key, made)
    return made


def make_listing(definitions: "Definitions", compiled: "Compiled") -> Listing:
    """What is in definitions that hold together."""
    used = {name: [view.name for view in compiled.views.values() if view.scan.source.name == name] for name in definitions.sources}
    return {
        "sources": [_source(source, used[source.name], definitions) for source in definitions.sources.values()],
        "entities": [
            _head("entity", entity, definitions) | {"key": {name: str(kind) for name, kind in entity.key}}
            for entity in definitions.entities.values()
        ],
        "views": [_view(view, definitions) for view in compiled.views.values()],
        "sets": [_set(one, compiled, definitions) for one in compiled.sets.values()],
    }


def names_of(listing: Listing, kinds: Iterable[str]) -> list[str]:
    """The names of these kinds, in order; a feature's is `view.feature`."""
    names: list[str] = []
    for kind in kinds:
        if kind == "features":
            names += [f"{view['name']}.{feature['name']}" for view in listing["views"] for feature in view["features"]]
        else:
            names += [one["name"] for one in listing[kind]]
    return names


def find(listing: Listing, name: str) -> list[tuple[str, dict[str, Any]]]:
    """Everything of this name as (kind, item): names are unique per kind, not across kinds.

    Raises: UsageError with the nearest name.
    """
    found = [(kind.removesuffix("s"), one) for kind in ("views", "sets", "sources") for one in listing[kind] if one["name"] == name]
    found += [("entity", one) for one in listing["entities"] if one["name"] == name]
    view_name, _, feature_name = name.partition(".")
    for view in listing["views"]:
        if view["name"] == view_name:
            found += [("feature", feature | {"view": view["name"]}) for feature in view["features"] if feature["name"] == feature_name]
    if not found:
        known = names_of(listing, ("views", "sets", "sources", "entities", *(("features",) if "." in name else ())))
        raise UsageError(f"nothing is called '{name}'.\n  {did_you_mean(name, known)}")
    return found


def _head(kind: str, model: Any, definitions: "Definitions") -> dict[str, Any]:
    file, line = definitions.place(kind, model.name) or (None, None)
    return {
        "name": model.name,
        "description": model.description,
        "owner": model.owner,
        "tags": list(model.tags),
        "file": file,
        "line": line,
    }


def _source(source: "EventSource", used_by: list[str], definitions: "Definitions") -> dict[str, Any]:
    from featreg.compile.words import stream_text
    from featreg.instants import format_duration

    delay = f"{format_duration(source.delay_micros)} later" if source.delay_micros else "at once"
    return _head("source", source, definitions) | {
        "columns": {name: str(kind) for name, kind in source.columns},
        "event_time": source.event_time,
        "available": "on arrival" if source.arrives else source.available_column or delay,
        "stream": stream_text(source),
        "tie_break": list(source.tie_break),
        "max_rejected": source.max_rejected,
        "used_by": used_by,
    }


def _view(view: "CompiledView", definitions: "Definitions") -> dict[str, Any]:
    model = view.definition
    specs = {output.name: output.spec for output in model.outputs}
    return _head("view", model, definitions) | {
        "id": view.id,
        "entity": model.described.name,
        "key": {key: column for key, column in model.key_columns},
        "source": model.source.name,
        "freshness": _freshness(view),
        "where": model.where,
        "features": [_feature(view.name, feature, specs[feature.name], definitions) for feature in view.features],
    }


def _feature(view: str, feature: "CompiledFeature", spec: Any, definitions: "Definitions") -> dict[str, Any]:
    from featreg.instants import EXACT, format_duration

    file, line = definitions.place("view", view, feature.name) or (None, None)
    hop = None if feature.hop is None else "exact" if feature.hop == EXACT else format_duration(feature.hop)
    derived = feature.derived is not None
    return {
        "name": feature.name,
        "type": str(feature.type),
        "id": feature.id,
        "description": feature.description,
        "tags": list(feature.tags),
        "file": file,
        "line": line,
        "aggregation": None if derived else feature.aggregation,
        "input": None if derived else spec.column,
        "by": None if derived else spec.by,
        "where": None if derived else spec.where,
        "window": None if feature.window is None else format_duration(feature.window),
        "hop": hop,
        "expression": spec.expression if derived else None,
        "uses": list(feature.uses),
    }


def _set(one: "CompiledSet", compiled: "Compiled", definitions: "Definitions") -> dict[str, Any]:
    origins = {name: f"{lookup.view}.{feature}" for lookup in one.lookups for feature, name in lookup.features}
    derived = {name: spec.expression for name, _, spec in one.derived}
    ids = dict(one.ids)
    keys = dict.fromkeys(column for lookup in one.lookups for column in lookup.spine_columns)
    return _head("set", one.definition, definitions) | {
        "views": list(dict.fromkeys(lookup.view for lookup in one.lookups)),
        "keys": list(keys),
        "request": {name: str(kind) for name, kind in one.request},
        "features": [
            {"name": name, "type": str(kind), "id": ids.get(name), "from": origins.get(name), "expression": derived.get(name)}
            for name, kind in one.columns
        ],
    }


def _freshness(view: "CompiledView") -> str:
    from featreg.instants import format_duration

    cadence = view.cadence
    if cadence.is_realtime:
        return "realtime"
    offset = f", offset {format_duration(cadence.offset)}" if cadence.offset else ""
    return f"every {format_duration(cadence.period)}{offset}" + (f", delay {format_duration(cadence.delay)}" if cadence.delay else "")


def _key_of(root: Path) -> str:
    """What a kept listing depends on: the bytes of the specs, and the compiler's files by size and time."""
    digest = hashlib.sha256()
    folder = root / "features"
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".sql") and path.is_file():
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    package = Path(__file__).parent.parent
    for path in sorted(file for name in _COMPILER for file in (package / name).glob("*.py")):
        stat = path.stat()
        digest.update(f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _read_kept(root: Path, key: str) -> Listing | None:
    try:
        kept = json.loads((root / _FILE).read_bytes())
        return kept["listing"] if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(root: Path, key: str, listing: Listing) -> None:
    """Best effort: a folder that cannot be written to only costs time."""
    path = root / _FILE
    with suppress(OSError):
        state = path.parent.parent
        is_new = not state.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_new:
            (state / ".gitignore").write_text("*\n")
        write_whole(path, json.dumps({"key": key, "listing": listing}))
