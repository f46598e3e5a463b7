"""`export`: what a snapshot or a training set is, in the words of other tools."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from featreg.cli.arguments import Settings
from featreg.cli.completion import complete_kept
from featreg.cli.terminal import escape, show

app = typer.Typer(name="export", help="A snapshot or a training set as Croissant, its run as OpenLineage.", no_args_is_help=True)
_ID = "Of a snapshot or a training set, or its first digits; or a source, whose newest snapshot it is."
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Default: to stdout.")]


@app.command("croissant")
def croissant(
    context: typer.Context,
    named: Annotated[str, typer.Argument(metavar="ID", help=_ID, autocompletion=complete_kept("snapshots", "training_sets"))],
    out: Out = None,
) -> None:
    """A snapshot or a training set as Croissant JSON-LD: files with their hashes, columns with their types."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        from featreg.session.interchange import croissant

        _give(settings, croissant(registry, named), out)


@app.command("openlineage")
def openlineage(
    context: typer.Context,
    training_set: Annotated[str, typer.Argument(metavar="TRAINING_SET", autocompletion=complete_kept("training_sets"))],
    out: Out = None,
    url: Annotated[str | None, typer.Option("--url", help="An OpenLineage endpoint to send it to.")] = None,
) -> None:
    """The run that wrote a training set, with column lineage, as an OpenLineage event."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        from featreg.session.interchange import open_lineage, send

        event = open_lineage(registry, training_set)
        if url is not None:
            send(event, url)
            show(settings, {"sent": url}, lambda console: console.print(f"[green]sent[/green]  {escape(url)}"))
        if url is None or out is not None:
            _give(settings, event, out)


def _give(settings: Settings, document: dict[str, Any], out: Path | None) -> None:
    if out is None:
        print(json.dumps(document, indent=2))
        return
    out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    show(settings, {"out": str(out)}, lambda console: console.print(f"[green]written[/green]  {escape(str(out))}", soft_wrap=True))
