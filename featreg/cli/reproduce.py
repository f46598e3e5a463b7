"""`reproduce`: make a training set again and compare it with what was written; and the list of those that were written."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featreg.cli.arguments import Settings
from featreg.cli.completion import complete_kept
from featreg.cli.terminal import add_rows, bytes_text, counted, escape, note, say_if_compiling, show, table

_ID_HELP = "The training set's id, or its first digits: `ls training-sets`."
Id = Annotated[str, typer.Argument(metavar="ID", help=_ID_HELP, autocompletion=complete_kept("training_sets"))]

if TYPE_CHECKING:
    from rich.console import Console


def reproduce(
    context: typer.Context,
    training_set: Id,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it again: .parquet or .csv.")] = None,
    live: Annotated[bool, typer.Option("--live", help="From the sources as they are now, not from snapshots.")] = False,
) -> None:
    """Make a training set again from its recorded definitions, spine and snapshots.  Leaves with 5 when the rows differ."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        say_if_compiling(settings, registry.profile.state)
        found = registry.reproduce(training_set, live=live, out=out)
    kept = found.kept

    def render(console: "Console") -> None:
        mark = "[green]identical[/green]" if found.identical else "[red]differs[/red]"
        told = f"{kept.id[:12]} {escape(kept.set)}: {found.rows:,} rows"
        console.print(f"{mark}  {told}, content {found.content_id[:12]}, then {kept.content_id[:12]}", soft_wrap=True)
        if found.identical and found.same_bytes is not None:
            console.print("[dim]the written file too, byte for byte[/dim]" if found.same_bytes else "[dim]the file's bytes differ[/dim]")
        for one in found.differences:
            console.print(f"  [yellow]{one.kind}[/yellow]  {escape(one.what)}", soft_wrap=True)
        for name, cells in found.columns.items():
            console.print(f"  {escape(name)}: {counted(cells, 'cell differs', 'cells differ')}", soft_wrap=True)

    document = {
        "id": kept.id, "set": kept.set, "identical": found.identical, "same_bytes": found.same_bytes, "rows": found.rows,
        "content_id": found.content_id, "expected_content_id": kept.content_id, "differences": found.differences,
        "cells": dict(found.columns), "out": None if out is None else str(out),
    }  # fmt: skip
    show(settings, document, render)
    if not found.identical:
        raise typer.Exit(5)


def remove(
    context: typer.Context,
    training_set: Id,
) -> None:
    """Let go of what a training set holds; a tombstone and the written file stay.  Refused while a pin was trained on it."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        kept, freed = registry.remove_training_set(training_set)
    note(settings, f"{kept.path} is as it was")

    def render(console: "Console") -> None:
        console.print(f"[green]removed[/green]  {kept.id[:12]} {escape(kept.set)}: {bytes_text(freed)} are free", soft_wrap=True)

    show(settings, {"id": kept.id, "set": kept.set, "bytes_freed": freed}, render)


def list_training_sets(settings: Settings) -> None:
    """`ls training-sets`: what was written, oldest first."""
    import featreg
    from featreg.instants import format_instant

    with featreg.open(settings.repository, profile=settings.profile) as registry:
        state = registry.control()
    found = list(state.training_sets.values())
    pins = {one.id: state.trained_on(one) for one in found}

    def render(console: "Console") -> None:
        if not found:
            console.print("no training set was written yet; `featreg training-set` writes one")
            return
        made = table("id", "set", "rows", "made", "snapshots", "pins", "file", right=("rows",))
        cells = (
            (
                one.id[:12], one.set, f"{one.rows:,}", f"{format_instant(one.at)[:19]}Z", _read(one.sources), ", ".join(pins[one.id]),
                one.path if one.removed_at is None else f"removed {format_instant(one.removed_at)[:19]}Z",
            )
            for one in found
        )  # fmt: skip
        console.print(add_rows(made, cells))

    shown = [
        {**vars(one), "made_at": format_instant(one.at), "pins": pins[one.id],
         "removed_at": None if one.removed_at is None else format_instant(one.removed_at)}
        for one in found
    ]  # fmt: skip
    show(settings, shown, render)


def _read(sources: Any) -> str:
    """The snapshot of each source, or that it was read where it is."""
    return ", ".join(f"{name} {one['snapshot'][:8] if one['snapshot'] else 'live'}" for name, one in sources.items())
