"""`pin`, `rollback`, `gc` and `doctor`: fix what a model was trained on, go back, clean up, and see whether all is sound."""

from typing import TYPE_CHECKING, Annotated

import typer

from featreg.cli.arguments import Settings
from featreg.cli.completion import complete_kept, complete_names
from featreg.cli.terminal import add_rows, bytes_text, counted, escape, show, table, warnings_told

if TYPE_CHECKING:
    from rich.console import Console

pins = typer.Typer(name="pin", help="Fix the versions that a model was trained on.", no_args_is_help=True)


@pins.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="MODEL:VERSION", help="As delay:3.")],
    feature_set: Annotated[
        str, typer.Option("--set", metavar="SET", help="The feature set, as it is applied.", autocompletion=complete_names("sets"))
    ],
    training_set: Annotated[str | None, typer.Option("--training-set", metavar="FILE", help="What it was trained on.")] = None,
) -> None:
    """Pin a set for a model, as it is applied now.  A pin never moves."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        pin = registry.pin(name, feature_set, training_set)

    def render(console: "Console") -> None:
        told = f"{escape(pin.name)}: {escape(pin.set)} of generation {pin.generation}, {counted(len(pin.features), 'feature')}"
        console.print(f"[green]pinned[/green]  {told}", soft_wrap=True)

    show(settings, vars(pin), render)


@pins.command("ls")
def ls(context: typer.Context) -> None:
    """List pins."""
    import featreg
    from featreg.instants import format_instant

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        found = registry.control().pins

    def render(console: "Console") -> None:
        if not found:
            console.print("nothing is pinned yet; `featreg pin create MODEL:VERSION --set SET` fixes what is applied")
            return
        made = table("pin", "set", "generation", "features", "training set", "by", "at", right=("generation", "features"))
        cells = (
            (pin.name, pin.set, pin.generation, len(pin.features), pin.training_set, pin.by, format_instant(pin.at))
            for pin in found.values()
        )
        console.print(add_rows(made, cells))

    show(settings, [vars(pin) for pin in found.values()], render)


@pins.command("rm")
def rm(
    context: typer.Context, name: Annotated[str, typer.Argument(metavar="MODEL:VERSION", autocompletion=complete_kept("pins"))]
) -> None:
    """Remove a pin, when its model is out of service.  Its name never means anything else."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        pin = registry.unpin(name)

    def render(console: "Console") -> None:
        console.print(f"[green]removed[/green]  {escape(pin.name)}; what only it reached goes with the next `featreg gc --delete`")

    show(settings, vars(pin), render)


def retire(
    context: typer.Context,
    feature: Annotated[str, typer.Argument(metavar="VIEW.FEATURE", autocompletion=complete_names("features"))],
    on: Annotated[str | None, typer.Option("--on", metavar="DATE", help="When it goes.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="It stays after all.")] = False,
) -> None:
    """Announce that a feature goes: every plan that touches a reader of it says so.  Refused while a pin reads it."""
    import featreg
    from featreg.errors import UsageError
    from featreg.instants import format_instant

    settings: Settings = context.obj
    if (on is None) != cancel:
        raise UsageError("say when it goes with --on DATE, or that it stays with --cancel.")
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        found = registry.retire(feature, on)

    def render(console: "Console") -> None:
        told = f"{escape(feature)} goes on {format_instant(found.on)}" if found else f"{escape(feature)} stays"
        console.print(f"[green]noted[/green]  {told}", soft_wrap=True)

    times = {"on": format_instant(found.on), "at": format_instant(found.at)} if found else {"on": None}
    show(settings, {"feature": feature, **(vars(found) if found else {}), **times}, render)


def rollback(
    context: typer.Context,
    generation: Annotated[int | None, typer.Option("--to", metavar="GENERATION", help="Default: what was applied before.")] = None,
) -> None:
    """Apply again what was applied before.  Computes nothing: what the store has of it serves at once."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        with warnings_told():
            record = registry.rollback(generation)

    def render(console: "Console") -> None:
        console.print(f"[green]applied[/green]  generation {record.generation}, which is generation {record.body['again']} again")

    show(settings, {"generation": record.generation, "again": record.body["again"], "id": record.body["id"]}, render)


def doctor(context: typer.Context) -> None:
    """Verify the log, what it points to, and the store; each problem with its remedy.  Leaves with 1 when there is one."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        found = registry.doctor()
    problems = sum(one.is_problem for one in found)

    def render(console: "Console") -> None:
        for one in found:
            mark = "[red]problem[/red]" if one.is_problem else "[dim]note   [/dim]"
            console.print(f"{mark}  {one.where}: {escape(one.what)}", soft_wrap=True)
            console.print(f"         [dim]{escape(one.remedy)}[/dim]", soft_wrap=True)
        console.print(f"[red]{counted(problems, 'problem')}[/red]" if problems else "[green]sound[/green]")

    show(settings, {"sound": problems == 0, "findings": [vars(one) for one in found]}, render)
    if problems:
        raise typer.Exit(1)


def gc(
    context: typer.Context,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it; without this, only say what would be.")] = False,
) -> None:
    """Say what of the online store nothing reaches: not what is applied, nor what was before it, nor a pin."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        found = registry.gc(delete=delete)

    def render(console: "Console") -> None:
        if not found:
            console.print("nothing: all that is in the store is reached")
            return
        for one in found:
            console.print(f"  {one.space[:12]}  {counted(one.entries, 'entry', 'entries')}, {bytes_text(one.bytes)}")
        told = f"{counted(len(found), 'version')} of views that nothing reaches"
        console.print(f"[green]deleted[/green]  {told}" if delete else f"{told}; `featreg gc --delete` deletes them")

    show(settings, {"deleted": delete, "found": [vars(one) for one in found]}, render)
