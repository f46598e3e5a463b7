"""`retention`: until when what was trained can be made again, and the deletion of copies that nobody needs."""

from typing import TYPE_CHECKING, Annotated

import typer

from featreg.cli.arguments import Settings
from featreg.cli.terminal import add_rows, bytes_text, counted, show, table

if TYPE_CHECKING:
    from rich.console import Console

    from featreg.session.retention import Replay, RetentionPlan

app = typer.Typer(name="retention", help="Until when what was trained can be made again; old copies.", no_args_is_help=True)
At = Annotated[str | None, typer.Option("--at", metavar="INSTANT", help="As of another instant than now.")]


@app.command("plan")
def plan(context: typer.Context, at: At = None) -> None:
    """List for each training set and pinned model its last day by the sources' retention, and what `apply` would delete."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        found = registry.retention(at=at)
    show(settings, _document(found), lambda console: _render(console, found))


@app.command("apply")
def apply(context: typer.Context, at: At = None) -> None:
    """Delete featreg's own copies that are past their source's retention and that nothing holds; never a file of a source."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        found, freed = registry.apply_retention(at=at)

    def render(console: "Console") -> None:
        told = f"{counted(len(found.deletions), 'snapshot')}, {counted(len(found.loose), 'object')} that nothing named"
        console.print(f"[green]deleted[/green]  {told}; {bytes_text(freed)} are free")

    show(settings, _document(found) | {"bytes_freed": freed}, render)


def _document(found: "RetentionPlan") -> dict[str, object]:
    from featreg.instants import format_instant

    def replay(one: "Replay") -> dict[str, object]:
        last = None if one.last_day is None else format_instant(one.last_day)[:10]
        return {**vars(one), "needs": None if one.needs is None else format_instant(one.needs), "last_day": last}

    return {
        "at": format_instant(found.at), "replays": [replay(one) for one in found.replays], "breaks": [replay(one) for one in found.breaks],
        "deletions": [{**vars(one), "taken_at": format_instant(one.taken_at)} for one in found.deletions], "loose": found.loose,
        "loose_bytes": found.loose_bytes,
    }  # fmt: skip


def _render(console: "Console", found: "RetentionPlan") -> None:
    from featreg.instants import format_instant

    if not found.replays:
        console.print("no training set was written yet")
    made = table("what", "set", "source", "needs rows from", "can be made again until")
    for one in found.replays:
        needs = "all of history" if one.needs is None else format_instant(one.needs)[:10]
        until = f"always: snapshot {one.held_by[:12]}" if one.held_by else "no retention is declared"
        if one.held_by is None and one.last_day is not None:
            until = f"{format_instant(one.last_day)[:10]}{', which is past' if one.is_past else ''}"
        add_rows(made, [(one.what, one.set, one.source, f"{needs}{', UNBOUNDED' if one.unbounded else ''}", until)])
    if found.replays:
        console.print(made)
    for one in found.breaks:
        console.print(f"[red]breaks[/red]  {one.what}: rows of {one.source} that it needs may be deleted by now, and no snapshot has them")
    told = f"{counted(len(found.deletions), 'snapshot')} and {counted(len(found.loose), 'loose object')}"
    console.print(f"`featreg retention apply` deletes {told} of featreg's own; nothing of the sources", soft_wrap=True)
