"""`materialize`, `get`, `parity`: fill the online store, read it, and hold it against the offline answer."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featreg.cli.arguments import Settings
from featreg.cli.completion import complete_kept, complete_names
from featreg.cli.terminal import add_rows, bytes_text, counted, escape, progress, say_if_compiling, seconds_text, show, table, value_text
from featreg.errors import DataError, UsageError, did_you_mean
from featreg.instants import format_instant, parse_instant

if TYPE_CHECKING:
    from rich.console import Console

    from featreg.compile import CompiledSet, CompiledView
    from featreg.session import Registry
    from featreg.session.answer import Vector
    from featreg.session.parity import Parity
    from featreg.vocabulary import DataType

DIFFERS = 5
_STATUS_STYLE = {"ok": "green", "empty": "dim", "stale": "yellow", "error": "red", "missing": "red"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AtOption = Annotated[str | None, typer.Option("--at", metavar="INSTANT", help="Another instant than now, as in 2013-06-30T18:00:00Z.")]

_complete_pins = complete_kept("pins")


def materialize(
    context: typer.Context,
    views: Annotated[
        list[str] | None,
        typer.Argument(metavar="VIEW", help="Only these; default: all that is applied.", autocompletion=complete_names("views")),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="INSTANT", help="Bring the store to this instant; default: now.")] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Fill the views anew, as when a file that was read has changed.")] = False,
) -> None:
    """Fill the online store: incremental, idempotent, and a run that was cut off goes on where it was."""
    import featreg

    settings: Settings = context.obj
    began = time.perf_counter()
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        registry.applied()  # where nothing is, that is said before anything is compiled
        say_if_compiling(settings, registry.profile.state)
        with progress(settings, "materializing") as advance:
            receipts = registry.materialize(to, views or None, rebuild=rebuild, progress=advance)
    seconds = time.perf_counter() - began

    def render(console: "Console") -> None:
        right = ("rows", "keys", "late", "rejected", "bytes", "seconds")
        made = table("view", "rows", "keys", "late", "rejected", "watermark", "bytes", "seconds", right=right)
        cells = (
            (
                one.view,
                f"{one.rows:,}",
                f"{one.keys:,}",
                f"{one.late_rows:,}",
                f"{one.rejected:,}",
                format_instant(one.watermark),
                bytes_text(one.bytes),
                f"{one.seconds:.2f}",
            )
            for one in receipts
        )
        console.print(add_rows(made, cells))
        for one in receipts:
            if one.note:
                console.print(f"[dim]{escape(one.view)}: {escape(one.note)}[/dim]", soft_wrap=True)
        console.print(f"[green]done[/green]  {counted(len(receipts), 'view')}  [dim]{seconds_text(seconds)}[/dim]", soft_wrap=True)

    documents = [vars(one) | {"watermark": format_instant(one.watermark)} for one in receipts]
    show(settings, {"views": documents, "seconds": round(seconds, 3)}, render)


def get(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SET", autocompletion=complete_names("sets"))],
    given: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Entity keys and request columns.  `key=` is NULL (of a VARCHAR, the empty text)."),
    ] = None,
    keys: Annotated[
        str | None, typer.Option("--keys", metavar="FILE", help="Many: a JSON list of objects, or one object a line; - is stdin.")
    ] = None,
    at: AtOption = None,
    pin: Annotated[
        str | None,
        typer.Option("--pin", metavar="MODEL:VERSION", help="The versions that a model was pinned to.", autocompletion=_complete_pins),
    ] = None,
) -> None:
    """Read feature vectors as serving does: values, their status and cutoff."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        types = column_types(registry, name, pin)
        say_if_compiling(settings, registry.profile.state)
        rows = read_keys(keys, types) if keys is not None else [parse_pairs(given or [], types)]
        if keys is not None and given:
            raise UsageError("give keys on the command line or with --keys, not both.")
        began = time.perf_counter()
        vectors = registry.online(name, rows, at=at, pin=pin)
        seconds = time.perf_counter() - began
        views = {lookup.lookup.view: lookup for lookup in registry.reader().set_reader(name, pin).lookups}
        commands = {one: _filled_by(registry, lookup.view, pin is not None) for one, lookup in views.items()}
    documents = [_vector_document(row, vector) for row, vector in zip(rows, vectors)]

    def render(console: "Console") -> None:
        for row, vector in zip(rows, vectors):
            render_vector(console, row, vector)
        if len(vectors) > 1:
            console.print(f"[dim]{len(vectors)} vectors in {seconds_text(seconds)}[/dim]")
        for line in next_steps({one: lookup.names for one, lookup in views.items()}, vectors, commands):
            console.print(f"[yellow]{escape(line)}[/yellow]", soft_wrap=True)

    show(settings, documents[0] if keys is None else documents, render)


def parity(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SET", autocompletion=complete_names("sets"))],
    sample: Annotated[int | None, typer.Option("--sample", metavar="N", min=1, help="How many keys are compared; 1000.")] = None,
    at: AtOption = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Leave with 5 when a cell differs; late ones do not.")] = False,
    from_log: Annotated[bool, typer.Option("--from-log", help="Compare the vectors that were served and logged, and say why.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.html", help="With --from-log: a bar for each feature.")] = None,
) -> None:
    """Compare what the store answers with a training set at the same instant, cell by cell, to the bit."""
    import featreg

    settings: Settings = context.obj
    began = time.perf_counter()
    if plot is not None and not from_log:
        raise UsageError("--plot draws what --from-log finds; give both.")
    if plot is not None and plot.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--plot {plot}: the plot is a page. Call it FILE.html.")
    if from_log and (at is not None or sample is not None):
        raise UsageError("--from-log compares all that was logged, each vector as of its own instant.\n  Leave out --at and --sample.")
    if from_log:
        _parity_from_log(settings, name, exit_code, plot)
        return
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        say_if_compiling(settings, registry.profile.state)
        with progress(settings, "comparing") as advance:
            result = registry.parity(name, sample=sample or 1000, at=at, progress=advance)
    seconds = time.perf_counter() - began

    document = vars(result) | {"at": format_instant(result.at), "known": result.is_known, "seconds": round(seconds, 3)}
    show(settings, document, lambda console: render_parity(console, result, seconds))
    if not result.is_known and exit_code:
        raise typer.Exit(DataError.exit_code)  # nothing was compared, which is not a pass
    if result.differing and exit_code:
        raise typer.Exit(DIFFERS)


def _parity_from_log(settings: Settings, name: str, exit_code: bool, plot: Path | None) -> None:
    import featreg

    with featreg.open(settings.repository, profile=settings.profile) as registry:
        say_if_compiling(settings, registry.profile.state)
        found = registry.parity_from_log(name)
    if plot is not None:
        from featreg.cli.parity_plot import parity_page

        plot.write_text(parity_page(found), encoding="utf-8")

    def render(console: "Console") -> None:
        style = "yellow" if not found.is_known else "red" if found.causes["LOGIC"] else "green"
        console.print(f"[{style}]{escape(str(found))}[/{style}]", soft_wrap=True)
        if found.by_feature:
            made = table("feature", *found.causes, right=tuple(found.causes))
            counts = ((one, *(of_it.get(cause, 0) for cause in found.causes)) for one, of_it in found.by_feature.items())
            console.print(add_rows(made, counts))
            made = table("cause", "feature", "key", "as of", "served", "now")
            cells = (
                (one.cause, one.feature, _pairs(one.row), format_instant(one.as_of), value_text(one.served), value_text(one.offline))
                for one in found.examples
            )
            console.print(add_rows(made, cells))
        if plot is not None:
            console.print(f"[green]wrote[/green] {escape(str(plot))}", soft_wrap=True)

    examples = [vars(one) | {"as_of": format_instant(one.as_of)} for one in found.examples]
    document = vars(found) | {"causes": found.causes, "agreeing": found.agreeing, "known": found.is_known, "examples": examples}
    show(settings, document, render)
    if not found.is_known and exit_code:
        raise typer.Exit(DataError.exit_code)
    if found.causes["LOGIC"] and exit_code:
        raise typer.Exit(DIFFERS)


def render_parity(console: "Console", result: "Parity", seconds: float) -> None:
    """How many cells agree; where they do not, by feature and by example."""
    if not result.is_known:
        console.print(f"[yellow]unknown[/yellow]  {escape(str(result))}", soft_wrap=True)
        return
    features = [*result.by_feature, *(name for name in result.late_by_feature if name not in result.by_feature)]
    if features:
        made = table("feature", "cells that differ", "late", right=("cells that differ", "late"))
        counts = ((name, result.by_feature.get(name, 0), result.late_by_feature.get(name, 0)) for name in features)
        console.print(add_rows(made, counts))
        made = table("feature", "key", "online", "offline", "")
        cells = (
            (one.feature, _pairs(one.key), value_text(one.online), value_text(one.offline), "LATE" if one.is_late else "")
            for one in result.examples
        )
        console.print(add_rows(made, cells))
    if result.late:
        console.print("[dim]LATE: rows from before the watermark that came since; the next `featreg materialize` takes them in.[/dim]")
    word = "[red]differs[/red]" if result.differing else "[yellow]late[/yellow]" if result.late else "[green]equal[/green]"
    console.print(f"{word}  {escape(str(result))}  [dim]{seconds_text(seconds)}[/dim]", soft_wrap=True)


def column_types(registry: "Registry", name: str, pin: str | None = None) -> dict[str, "DataType"]:
    """The entity keys and request columns that a set asks for, by the name that the caller gives them.

    Raises: UsageError when nothing of that name is applied.
    """
    from featreg.session.registry import find_set

    compiled = (registry.applied() if pin is None else registry.pinned(pin, name)).compiled
    feature_set: CompiledSet = find_set(compiled, name)
    types: dict[str, DataType] = {}
    for lookup in feature_set.lookups:
        view: CompiledView = compiled.views[lookup.view]
        types |= dict(zip(lookup.spine_columns, (kind for _, kind in view.key)))
    return types | dict(feature_set.request)


def parse_pairs(pairs: list[str], types: Mapping[str, "DataType"]) -> dict[str, Any]:
    """`tailnum=N14228` by the declared type of `tailnum`.

    Raises: UsageError for what is no pair, an unknown or missing name, or a text that is no such value.
    """
    row: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"{pair!r} is no pair. Write it as KEY=VALUE.\n  {_asked(types)}")
        if name not in types:
            raise UsageError(f"there is no key or request column '{name}'.\n  {did_you_mean(name, types, 'The set asks for')}")
        if name in row:
            raise UsageError(f"'{name}' is given twice.")
        row[name] = parse_value(name, text, types[name])
    missing = [name for name in types if name not in row]
    if missing:
        raise UsageError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.\n  {_asked(types)}")
    return row


def read_keys(file: str, types: Mapping[str, "DataType"]) -> list[dict[str, Any]]:
    """Many rows, from a JSON list of objects or from one object a line; texts are read as the declared type."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"--keys {file}: {error.strerror}.") from None
    try:
        found = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise DataError(f"--keys {file} is no JSON: {error}.\n  Give a list of objects, or one object a line.") from None
    for number, row in enumerate(found):
        if not isinstance(row, dict):
            raise DataError(f"--keys {file}: item {number} is no object.")
        missing = [name for name in types if name not in row]
        if missing:
            raise DataError(f"--keys {file}: item {number} has no {', '.join(missing)}.\n  {_asked(types)}")
    return [{name: _from_json(name, value, types.get(name)) for name, value in row.items()} for row in found]


def parse_value(name: str, text: str, kind: "DataType") -> Any:
    """A command line's text as a value of a declared type; nothing at all is NULL, but for a VARCHAR."""
    if kind.name == "VARCHAR":
        return text
    if text == "":
        return None
    try:
        match kind.name:
            case "BIGINT" | "INTEGER":
                return int(text)
            case "DOUBLE" | "FLOAT":
                return float(text)
            case "DECIMAL":
                return Decimal(text)
            case "BOOLEAN":
                return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
            case "DATE":
                return date.fromisoformat(text)
            case "TIMESTAMP":
                return _EPOCH + timedelta(microseconds=parse_instant(text))
    except (ValueError, KeyError, InvalidOperation, UsageError):
        pass
    hint = {"TIMESTAMP": " Write it as 2013-01-31T18:00:00Z.", "DATE": " Write it as 2013-01-31.", "BOOLEAN": " Write true or false."}
    raise UsageError(f"{name}={text}: that is no {kind}.{hint.get(kind.name, '')}")


def render_vector(console: "Console", row: Mapping[str, Any], vector: "Vector") -> None:
    """One vector as a table, and how current each view is."""
    console.print(f"[bold]{escape(_pairs(row))}[/bold]", soft_wrap=True)
    made = table("feature", "value", "status", right=("value",))
    for name, value in vector.values.items():
        status = vector.status[name]
        made.add_row(escape(name), escape(value_text(value)), f"[{_STATUS_STYLE[status]}]{status}[/{_STATUS_STYLE[status]}]")
    console.print(made)
    currency = table("view", "cutoff", "watermark")
    console.print(
        add_rows(currency, ((view, _instant(cutoff), _instant(vector.watermark[view])) for view, cutoff in vector.cutoff.items()))
    )


def next_steps(views: Mapping[str, Sequence[str]], vectors: "Sequence[Vector]", commands: Mapping[str, str]) -> list[str]:
    """What makes views answer that are missing or stale, a line for each.  views: the set's features of each · commands: what fills it."""
    lines = []
    for view, features in views.items():
        said = {vector.status[name] for vector in vectors for name in features}
        if "missing" in said:
            lines.append(not_filled(view, commands[view]))
        elif "stale" in said:
            until = next((instant for vector in vectors if (instant := vector.watermark.get(view)) is not None), None)
            lines.append(f"{view} is stale, it has what came until {_instant(until)}: {commands[view]}")
    return lines


def _filled_by(registry: "Registry", view: "CompiledView", is_pinned: bool) -> str:
    """The command that fills a view, or makes it current: a push where its rows come by nothing else."""
    source = view.scan.source
    if source.stream_mode is not None and source.name not in registry.profile.sources:
        return f"featreg push {source.name} FILE"
    return "featreg materialize" if is_pinned else f"featreg materialize {view.name}"


def not_filled(view: str, command: str) -> str:
    return f"{view} is not materialized: {command}"


def _vector_document(row: Mapping[str, Any], vector: "Vector") -> dict[str, Any]:
    return {
        "keys": dict(row),
        "values": vector.values,
        "status": vector.status,
        "cutoff": {view: _instant(instant) for view, instant in vector.cutoff.items()},
        "watermark": {view: _instant(instant) for view, instant in vector.watermark.items()},
    }


def _pairs(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value_text(value)}" for name, value in row.items())


def _instant(instant: int | None) -> str | None:
    return None if instant is None else format_instant(instant)


def _from_json(name: str, value: Any, kind: "DataType | None") -> Any:
    """JSON has no instants, dates or decimals, so text stands for them; a whole number is a DOUBLE where one is declared."""
    if kind is None or value is None:
        return value
    if isinstance(value, str) and kind.name != "VARCHAR":
        return parse_value(name, value, kind)
    if isinstance(value, int) and not isinstance(value, bool) and kind.name in ("DOUBLE", "FLOAT"):
        return float(value)
    return Decimal(str(value)) if kind.name == "DECIMAL" and isinstance(value, (int, float)) else value


def _asked(types: Mapping[str, "DataType"]) -> str:
    return "The set asks for: " + ", ".join(f"{name} {kind}" for name, kind in types.items()) + "."
