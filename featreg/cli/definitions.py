"""`check`, `ls`, `show`: what is defined, and whether it holds together."""

import time
from collections.abc import Callable
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featreg.cli.arguments import Settings
from featreg.cli.completion import complete_names
from featreg.cli.listing import Listing, find, list_working_tree, make_listing
from featreg.cli.terminal import add_rows, counted, escape, seconds_text, show, table
from featreg.errors import Problem, UsageError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

    from featreg.load import Definitions
    from featreg.registry.log import ControlLog

Versions = Callable[[str, str | None], int | None]

Revision = Annotated[str | None, typer.Option("--revision", metavar="REV", help="As of a git revision, not the working tree.")]
OfApplied = Annotated[bool, typer.Option("--applied", help="What is applied, not the working tree.")]


class Kind(StrEnum):
    views = "views"
    features = "features"
    sets = "sets"
    sources = "sources"
    entities = "entities"
    training_sets = "training-sets"


def check(context: typer.Context, revision: Revision = None) -> None:
    """Compile all definitions and tell every problem at once.  Needs no data."""
    from featreg.compile import compile_definitions
    from featreg.load.git import problems_at

    settings: Settings = context.obj
    began = time.perf_counter()
    with problems_at(revision):
        definitions = _definitions(settings, revision)
        compiled = compile_definitions(definitions)
    warnings = date_warnings(definitions)
    if revision is None:
        warnings += place_warnings(settings, definitions)
    seconds = time.perf_counter() - began
    counts = {
        "views": len(compiled.views),
        "features": sum(len(view.features) for view in compiled.views.values()),
        "sets": len(compiled.sets),
        "sources": len(definitions.sources),
        "entities": len(definitions.entities),
    }

    def render(console: "Console") -> None:
        for warning in warnings:
            console.print(f"[yellow]warning:[/yellow] {escape(str(warning))}", soft_wrap=True)
        nouns = {"entities": "entity"}
        told = ", ".join(counted(number, nouns.get(kind, kind.removesuffix("s")), kind) for kind, number in counts.items())
        console.print(f"[green]ok[/green]  {told}  [dim]{seconds_text(seconds)}[/dim]", soft_wrap=True)

    document = {"ok": True, **counts, "warnings": [vars(one) | {"text": str(one)} for one in warnings], "seconds": round(seconds, 3)}
    show(settings, document, render)


def ls(
    context: typer.Context,
    kind: Annotated[Kind | None, typer.Argument(help="Only these.", show_default=False)] = None,
    revision: Revision = None,
    applied: OfApplied = False,
) -> None:
    """List views, features, sets, sources and entities; or the training sets that were written."""
    settings: Settings = context.obj
    if kind is Kind.training_sets:
        from featreg.cli.reproduce import list_training_sets

        return list_training_sets(settings)
    listing = _listing(settings, revision, applied)
    versions = _versions(settings)
    kinds = [kind.value] if kind else ["views", "sets", "sources", "entities"]
    document = {one: _rows_of(listing, one, versions) for one in kinds}

    def render(console: "Console") -> None:
        if not any(document.values()):
            console.print("nothing is defined yet; features/ is where definitions go")
        for one, rows in document.items():
            if rows:
                _RENDER[one](console, rows)

    show(settings, document[kind.value] if kind else document, render)


def show_one(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A view, VIEW.FEATURE, a set, a source or an entity.",
            autocompletion=complete_names("views", "features", "sets", "sources", "entities"),
        ),
    ],
    revision: Revision = None,
    applied: OfApplied = False,
) -> None:
    """Show one definition: what it is, who owns it, where it stands, its id."""
    settings: Settings = context.obj
    found = find(_listing(settings, revision, applied), name)
    versions = _versions(settings)
    documents = [{"kind": kind, **_with_versions(kind, one, versions)} for kind, one in found]

    def render(console: "Console") -> None:
        for document in documents:
            _render_one(console, document)

    show(settings, documents[0] if len(documents) == 1 else documents, render)


def date_warnings(definitions: "Definitions") -> list[Problem]:
    """Sources whose event time is a DATE that can be read in its own morning: it would see its evening."""
    from featreg.instants import DAY

    warnings = []
    for source in definitions.sources.values():
        if (
            source.types[source.event_time].name == "DATE"
            and source.available_column is None
            and not source.arrives
            and source.delay_micros < DAY
        ):
            file, line = definitions.place("source", source.name) or (None, None)
            message = f"event time '{source.event_time}' is a DATE, which is its first instant: the morning would see the evening."
            hint = f'Declare available=Delay("1d"), or the column that says when a row of {source.name} could first be read.'
            warnings.append(Problem(message, file, line, source.name, hint))
    return warnings


def place_warnings(settings: Settings, definitions: "Definitions") -> list[Problem]:
    """Places in the profile that are of no source: what is called wrong there has no rows, and may need none."""
    from featreg.session.profile import source_names

    file, known = f"conf/{settings.profile}.toml", definitions.sources
    return [
        Problem("[sources] names it, and no source is called so.", file, None, name, did_you_mean(name, known, "Sources are"))
        for name in source_names(settings.repository, settings.profile)
        if name not in known
    ]


def _definitions(settings: Settings, revision: str | None) -> "Definitions":
    from featreg.load import load_directory, load_files

    if revision is None:
        return load_directory(settings.repository)
    from featreg.load.git import read_revision

    return load_files(read_revision(settings.repository, revision)[0])


def _listing(settings: Settings, revision: str | None, applied: bool) -> Listing:
    """The listing of the working tree, a revision or what is applied."""
    if revision is not None and applied:
        raise UsageError("--revision and --applied are two things; give one.")
    if revision is None and not applied:
        return list_working_tree(settings.repository)
    from featreg.compile import compile_definitions
    from featreg.load import load_files
    from featreg.load.git import problems_at

    if revision is not None:
        with problems_at(revision):
            definitions = _definitions(settings, revision)
            return make_listing(definitions, compile_definitions(definitions))
    else:
        with closing(_log(settings)) as log:
            record = log.last("apply")
        if record is None:
            raise UsageError("nothing is applied yet.\n  Run `featreg apply`.")
        definitions = load_files({path: text.encode() for path, text in record.body["files"].items()})
    return make_listing(definitions, compile_definitions(definitions))


def _log(settings: Settings) -> "ControlLog":
    from featreg.registry.log import open_log
    from featreg.session.profile import read_profile

    profile = read_profile(settings.repository, settings.profile)
    return open_log(profile.registry_path, profile.registry_url)


def _versions(settings: Settings) -> Versions:
    """`view.feature` and a definition id -> the number that an apply gave to that meaning; None when none did."""
    if not Path(settings.repository, ".featreg").is_dir() and not Path(settings.repository, "conf").is_dir():
        return lambda name, identity: None
    from featreg.registry.kept_state import load_state
    from featreg.session.profile import read_profile

    with closing(_log(settings)) as log:
        return load_state(log, read_profile(settings.repository, settings.profile).control_cache).version


def _rows_of(listing: Listing, kind: str, versions: Versions) -> list[dict[str, Any]]:
    if kind == "features":
        return [
            {
                **{field: value for field, value in feature.items() if field != "id"},
                "name": f"{view['name']}.{feature['name']}",
                "view": view["name"],
                "definition_id": feature["id"],
                "version": versions(f"{view['name']}.{feature['name']}", feature["id"]),
            }
            for view in listing["views"]
            for feature in view["features"]
        ]
    return [_with_versions(kind.removesuffix("s"), one, versions) for one in listing[kind]]


def _with_versions(kind: str, one: dict[str, Any], versions: Versions) -> dict[str, Any]:
    match kind:
        case "feature":
            return one | {"version": versions(f"{one['view']}.{one['name']}", one["id"])}
        case "view":
            named = [(f"{one['name']}.{feature['name']}", feature) for feature in one["features"]]
        case "set":
            named = [(feature["from"] or f"{one['name']}.{feature['name']}", feature) for feature in one["features"]]
        case _:
            return one
    return one | {"features": [feature | {"version": versions(name, feature["id"])} for name, feature in named]}


def _place(one: dict[str, Any]) -> str:
    return f"{one['file']}:{one['line']}" if one.get("file") else ""


def _applied_text(features: list[dict[str, Any]]) -> str:
    own = [feature for feature in features if not (feature.get("expression") and "from" in feature)]
    there = sum(feature["version"] is not None for feature in own)
    return "applied" if there == len(own) else "new" if there == 0 else f"{len(own) - there} of {len(own)} changed"


def _render_views(console: "Console", rows: list[dict[str, Any]]) -> None:
    made = table("view", "entity", "source", "freshness", "features", "state", "owner", "where", right=("features",))
    cells = (
        (
            row["name"],
            row["entity"],
            row["source"],
            row["freshness"],
            len(row["features"]),
            _applied_text(row["features"]),
            row["owner"],
            _place(row),
        )
        for row in rows
    )
    console.print(add_rows(made, cells))


def _render_features(console: "Console", rows: list[dict[str, Any]]) -> None:
    made = table("feature", "type", "computed as", "window", "hop", "version", "id")
    cells = (
        (row["name"], row["type"], _computed(row), row["window"], row["hop"], row["version"], row["definition_id"][:12])
        for row in rows
    )
    console.print(add_rows(made, cells))


def _render_sets(console: "Console", rows: list[dict[str, Any]]) -> None:
    made = table("set", "features", "keys", "request", "state", "owner", "where", right=("features",))
    cells = (
        (
            row["name"],
            len(row["features"]),
            ", ".join(row["keys"]),
            ", ".join(row["request"]),
            _applied_text(row["features"]),
            row["owner"],
            _place(row),
        )
        for row in rows
    )
    console.print(add_rows(made, cells))


def _render_sources(console: "Console", rows: list[dict[str, Any]]) -> None:
    made = table("source", "columns", "event time", "available", "read by", "owner", "where", right=("columns",))
    cells = (
        (row["name"], len(row["columns"]), row["event_time"], row["available"], ", ".join(row["used_by"]), row["owner"], _place(row))
        for row in rows
    )
    console.print(add_rows(made, cells))


def _render_entities(console: "Console", rows: list[dict[str, Any]]) -> None:
    made = table("entity", "key", "description", "owner", "where")
    cells = (
        (row["name"], ", ".join(f"{key} {kind}" for key, kind in row["key"].items()), row["description"], row["owner"], _place(row))
        for row in rows
    )
    console.print(add_rows(made, cells))


_RENDER = {
    "views": _render_views,
    "features": _render_features,
    "sets": _render_sets,
    "sources": _render_sources,
    "entities": _render_entities,
}
_ORDER = (
    *(
        "owner",
        "tags",
        "entity",
        "key",
        "keys",
        "source",
        "event_time",
        "available",
        "stream",
        "tie_break",
        "freshness",
        "views",
        "request",
        "used_by",
    ),
    *("type", "aggregation", "input", "by", "where", "window", "hop", "expression", "uses", "version", "id"),
)


def _render_one(console: "Console", one: dict[str, Any]) -> None:
    title = f"{one['view']}.{one['name']}" if one["kind"] == "feature" else one["name"]
    console.print(f"[bold]{escape(title)}[/bold]  [dim]{one['kind']}  {escape(_place(one))}[/dim]", soft_wrap=True)
    if one["description"]:
        console.print(escape(one["description"]), soft_wrap=True)
    console.print()
    for field in _ORDER:
        value = one.get(field)
        if value is None or value == "" or value == [] or value == {}:
            continue
        text = escape(_field_text(one["kind"], field, value))
        console.print(f"  [dim]{field.replace('_', ' '):<12}[/dim] {text}", soft_wrap=True)
    if one["kind"] == "view":
        console.print()
        own = [feature | {"name": f"{one['name']}.{feature['name']}", "definition_id": feature["id"]} for feature in one["features"]]
        _render_features(console, own)
    if one["kind"] == "set":
        made = table("feature", "type", "from", "version", "id")
        cells = ((f["name"], f["type"], f["from"] or f["expression"], f["version"], (f["id"] or "")[:12]) for f in one["features"])
        console.print()
        console.print(add_rows(made, cells))
    if one["kind"] == "source":
        console.print()
        console.print(add_rows(table("column", "type"), one["columns"].items()))


def _field_text(kind: str, field: str, value: Any) -> str:
    match value:
        case dict() if field == "key" and kind == "view":
            return ", ".join(name if name == other else f"{name} = {other}" for name, other in value.items())
        case dict():
            return ", ".join(f"{name} {other}" for name, other in value.items())
        case list():
            return ", ".join(map(str, value))
    return str(value)


def _computed(feature: dict[str, Any]) -> str:
    if feature["expression"]:
        return feature["expression"]
    by = f" by {feature['by']}" if feature["by"] else ""
    where = f" where {feature['where']}" if feature["where"] else ""
    return f"{feature['aggregation']}({feature['input'] or ''}{by}){where}"
