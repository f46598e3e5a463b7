"""`snapshot`: keep a source's data as it is, find it again by what it is, and see what has changed since."""

from typing import TYPE_CHECKING, Annotated

import typer

from featreg.cli.arguments import Settings
from featreg.cli.completion import complete_kept, complete_names
from featreg.cli.terminal import add_rows, bytes_text, counted, escape, note, seconds_text, show, table

if TYPE_CHECKING:
    from rich.console import Console

    from featreg.session.verify import Difference

app = typer.Typer(name="snapshot", help="Keep a source's data, immutable, and see what has changed since.", no_args_is_help=True)
_complete = complete_kept("snapshots")
Id = Annotated[str, typer.Argument(metavar="ID", help="The snapshot's id, or its first digits.", autocompletion=_complete)]
Named = Annotated[str, typer.Argument(metavar="ID|SOURCE", help="Its id, or a source, whose newest it is.", autocompletion=_complete)]


@app.command("take")
def take(
    context: typer.Context,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", autocompletion=complete_names("sources"))],
) -> None:
    """Keep sources as they are now.  Untouched files are not read again; an unchanged source has the id that it had."""
    import featreg
    from featreg.engines.lake import pin_text
    from featreg.session.snapshots import described, scheme_of, source_of

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        taken = [registry.snapshot(source) for source in sources]
        documents = [
            described(one.snapshot, scheme_of(source_of(registry, one.snapshot.source)), one.at)
            | {"new": one.is_new, "files_read": one.files_read, "bytes_read": one.bytes_read, "seconds": round(one.seconds, 3)}
            for one in taken
        ]

    def render(console: "Console") -> None:
        for one in taken:
            kept = one.snapshot
            mark = "[green]taken[/green]    " if one.is_new else "[dim]unchanged[/dim]"
            told = f"{kept.numbers.count:,} rows, {counted(len(kept.files), 'file')}"
            told += "" if kept.log is None else f" and {kept.log.numbers.count:,} that were pushed"
            read = f"{counted(one.files_read, 'file')} read, {bytes_text(one.bytes_read)}, {seconds_text(one.seconds)}"
            console.print(f"{mark}  {kept.id[:12]}  {escape(kept.source)}: {told}; {read}", soft_wrap=True)
            console.print(f"           [dim]content {kept.content_id}[/dim]", soft_wrap=True)
            if kept.pin is not None:
                how = "its files are copied" if kept.is_copied else "its files stay in the table and are gone when it is vacuumed"
                console.print(f"           [dim]{pin_text(kept.pin)}; {how}[/dim]", soft_wrap=True)

    show(settings, documents[0] if len(documents) == 1 else documents, render)


@app.command("verify")
def verify(
    context: typer.Context,
    snapshot: Named,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Leave with 5 when the source has changed since.")] = False,
) -> None:
    """Read every byte of the copies, and compare the source as it is now.  Leaves with 3 when a copy is damaged."""
    import featreg
    from featreg.session.snapshots import described, read_snapshot, scheme_of, source_of
    from featreg.session.verify import verdict_document

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        found = registry.verify_snapshot(snapshot)
        kept = read_snapshot(registry, snapshot)[0]
        document = described(found.snapshot, scheme_of(source_of(registry, kept.source)), kept.at)

    def render(console: "Console") -> None:
        for path in found.damaged:
            console.print(f"[red]damaged[/red]  {escape(path)}: the kept copy is gone or was changed", soft_wrap=True)
        for one in found.drift.verdicts:
            mark = "[yellow]" if one.fails else "[dim]"
            console.print(f"{mark}{one.kind}[/]  {escape(one.partition)}: {escape(one.expected)} → {escape(one.found)}", soft_wrap=True)
        told = f"{counted(len(found.snapshot.files), 'file')}, {found.snapshot.numbers.count:,} rows"
        if found.is_sound:
            console.print(f"[green]sound[/green]  {found.snapshot.id[:12]} {escape(found.snapshot.source)}: {told}", soft_wrap=True)
        if not found.drift.verdicts:
            console.print("[dim]the source still has the same files[/dim]")

    drift = [verdict_document(one) for one in found.drift.verdicts]
    show(settings, document | {"sound": found.is_sound, "damaged": found.damaged, "differs": found.differs, "drift": drift}, render)
    if not found.is_sound:
        raise typer.Exit(3)
    if found.differs and exit_code:
        raise typer.Exit(5)


@app.command("diff")
def diff(
    context: typer.Context,
    before: Annotated[str, typer.Argument(metavar="A", help="A snapshot, or a source, whose newest it is.", autocompletion=_complete)],
    after: Annotated[
        str | None, typer.Argument(metavar="B", help="Another.  Default: the source as it is now.", autocompletion=_complete)
    ] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Leave with 5 when rows or columns differ.")] = False,
) -> None:
    """Count rows added, removed and changed per partition, from one snapshot to another or to the source now."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        found = registry.diff_snapshots(before, after)
    show(settings, found, lambda console: _render_difference(console, found))
    if not found.is_none and exit_code:
        raise typer.Exit(5)


def _render_difference(console: "Console", found: "Difference") -> None:
    console.print(f"{found.source}: {found.before[:12]} → {found.after[:12] if found.after else 'now'}")
    for told in found.schema:
        console.print(f"  [yellow]schema[/yellow]  {escape(told)}", soft_wrap=True)
    if found.partitions:
        numbers = ("before", "after", "added", "removed", "changed")
        cells = (
            (one.partition, *(f"{n:,}" for n in (one.rows_before, one.rows_after, one.added, one.removed, one.changed)))
            for one in found.partitions
        )
        console.print(add_rows(table("partition", *numbers, right=numbers), cells))
    if found.rewritten:
        console.print(f"  [dim]{counted(len(found.rewritten), 'partition')} of other bytes and the same rows[/dim]")
    if found.is_none:
        console.print("[green]the same rows[/green]")


@app.command("ls")
def ls(
    context: typer.Context,
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", autocompletion=complete_names("sources"))] = None,
) -> None:
    """List snapshots, oldest first; those that were removed have left a tombstone."""
    import featreg
    from featreg.instants import format_instant

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        found, state = registry.snapshots(source), registry.control()
    holders = state.holders()
    held = {one.id: holders.get(one.id, []) for one in found}

    def render(console: "Console") -> None:
        if not found:
            console.print("no snapshot yet; `featreg snapshot take SOURCE` keeps a source as it is")
            return
        made = table("id", "source", "taken", "rows", "files", "size", "held by", right=("rows", "files", "size"))
        cells = (
            (
                one.id[:12], one.source, f"{format_instant(one.at)[:19]}Z", f"{one.numbers[0]:,}", f"{one.files:,}", bytes_text(one.bytes),
                f"removed {format_instant(one.removed_at)[:19]}Z" if one.removed_at is not None else ", ".join(held[one.id]),
            )
            for one in found
        )  # fmt: skip
        console.print(add_rows(made, cells))

    shown = [
        {**vars(one), "taken_at": format_instant(one.at), "held_by": held[one.id],
         "removed_at": None if one.removed_at is None else format_instant(one.removed_at)}
        for one in found
    ]  # fmt: skip
    show(settings, shown, render)


@app.command("rm")
def rm(context: typer.Context, snapshot: Id) -> None:
    """Delete a snapshot's copies; its tombstone stays.  Refused while a pin or a training set holds it."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        kept, freed = registry.remove_snapshot(snapshot)
    note(settings, "the source's own files are as they were")

    def render(console: "Console") -> None:
        console.print(f"[green]removed[/green]  {kept.id[:12]} {escape(kept.source)}: {bytes_text(freed)} are free", soft_wrap=True)

    show(settings, {"id": kept.id, "source": kept.source, "bytes_freed": freed}, render)
