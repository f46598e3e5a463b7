"""`training-set`: attach a set's features to a spine, each row as serving would have answered at its instant."""

import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featreg.cli.arguments import Settings
from featreg.cli.completion import complete_kept, complete_names
from featreg.cli.terminal import add_rows, bytes_text, counted, escape, progress, say_if_compiling, seconds_text, show, table
from featreg.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

_complete_pins = complete_kept("pins")


def training_set(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SET", autocompletion=complete_names("sets"))],
    time: Annotated[str, typer.Option("--time", metavar="COLUMN", help="The spine's column of as-of instants.")],
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Where to write: .parquet or .csv, or with Spark a folder; the manifest goes beside it."
        ),
    ],
    spine: Annotated[str | None, typer.Option("--spine", metavar="FILE", help="The rows to fill: Parquet, CSV or JSON.")] = None,
    spine_sql: Annotated[str | None, typer.Option("--spine-sql", metavar="SQL", help="The rows to fill, as a DuckDB query.")] = None,
    known_at: Annotated[str | None, typer.Option("--known-at", metavar="INSTANT", help="Only rows that had arrived by then.")] = None,
    pin: Annotated[
        str | None,
        typer.Option("--pin", metavar="MODEL:VERSION", help="The definitions that a model was pinned to.", autocompletion=_complete_pins),
    ] = None,
    snapshot: Annotated[
        list[str] | None,
        typer.Option(
            "--snapshot",
            metavar="ID",
            help="Read a snapshot in place of its source's location; repeat it, or say `latest`.",
            autocompletion=complete_kept("snapshots"),
        ),
    ] = None,
    draft: Annotated[bool, typer.Option("--draft", help="The working tree's definitions, applied or not.")] = False,
) -> None:
    """Build a training set: n spine rows in, n rows out, same order."""
    import featreg

    settings: Settings = context.obj
    if (spine is None) == (spine_sql is None):
        raise UsageError("give the rows to fill, either as --spine FILE or as --spine-sql SQL.")
    began = clock.perf_counter()
    rows = as_query(str(spine_sql)) if spine is None else spine if "://" in spine else Path(spine).expanduser().absolute()
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        if registry.profile.engine == "duckdb" and Path(out).suffix not in (".parquet", ".csv"):
            raise UsageError(f"--out {out}: a training set is written as .parquet or .csv.")
        say_if_compiling(settings, registry.profile.state)
        with progress(settings, "reading") as advance:
            read = None if not snapshot else "latest" if snapshot == ["latest"] else snapshot
            made = registry.training_set(
                name, rows, time=time, known_at=known_at, draft=draft, pin=pin, snapshot=read, progress=advance
            )
        size = bytes_of(made.write(out))
    seconds = clock.perf_counter() - began
    features, rows_written, identity = len(made.manifest["features"]), len(made), made.manifest.get("id")
    rejected = sum(receipt.rejected for receipt in made.receipts)

    def render(console: "Console") -> None:
        lines = table("view", "events", "rejected", "seconds", right=("events", "rejected", "seconds"))
        cells = ((one.view, f"{one.events:,}", f"{one.rejected:,}", f"{one.seconds:.2f}") for one in made.receipts)
        console.print(add_rows(lines, cells))
        for receipt in made.receipts:
            for example in receipt.examples:
                console.print(f"[yellow]rejected[/yellow] {escape(receipt.view)}: {escape(example)}", soft_wrap=True)
            if receipt.events == 0 and rows_written:
                hint = "its source has no rows that are in time; featreg check tells names in [sources] that are of no source"
                console.print(f"[yellow]warning:[/yellow] {escape(receipt.view)}: no event was read: {hint}", soft_wrap=True)
        told = f"{counted(rows_written, 'row')}, {counted(features, 'feature')}, {bytes_text(size)}, {seconds_text(seconds)}"
        console.print(f"[green]written[/green]  {escape(out)}  {told}", soft_wrap=True)
        for one in made.manifest["coverage"]:
            told = escape(f"{one['source']} {one['partition']}: {one['found']}; expected {one['expected']}")
            console.print(f"[yellow]{one['kind']}[/yellow]  {told}", soft_wrap=True)
        if identity is not None:
            console.print(f"[dim]featreg reproduce {identity[:12]} makes it again[/dim]", soft_wrap=True)
        console.print(f"[dim]beside it {escape(Path(out).name)}.manifest.json: what made it[/dim]", soft_wrap=True)

    document = {
        "id": made.manifest.get("id"),
        "out": out,
        "rows": rows_written,
        "features": features,
        "rejected": rejected,
        "bytes": size,
        "seconds": round(seconds, 3),
        "manifest": made.manifest,
    }
    show(settings, document, render)


def bytes_of(written: Path | str) -> int:
    """Of a file, or of all files in a folder; 0 where only Spark can look."""
    if isinstance(written, str):
        return 0
    return sum(file.stat().st_size for file in ([written] if written.is_file() else written.rglob("*")) if file.is_file())


def as_query(text: str) -> str:
    """A query as the session knows one: it begins with SELECT, and its last semicolon is gone."""
    bare = text.strip().rstrip(";").strip()
    if not bare:
        raise UsageError("--spine-sql is empty. Write a query, as in \"SELECT * FROM read_parquet('trips.parquet')\".")
    return f"SELECT * FROM ({bare}\n)"
