"""`serve` and `stream`: answer vectors and take pushes over HTTP; take rows from Kafka."""

import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from featreg.cli.arguments import Settings
from featreg.cli.completion import complete_names
from featreg.cli.terminal import counted, progress, say_if_compiling, show, warn
from featreg.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option("--host", help="Where to listen.  Default: 127.0.0.1, this machine alone.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Default: 8080.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes on one socket.  Default: 1.")] = None,
    tokens: Annotated[
        str | None,
        typer.Option("--tokens", metavar="FILE", help="Who may read and push what.  Default: FEATREG_TOKENS has its text."),
    ] = None,
    is_open: Annotated[bool, typer.Option("--open", help="No tokens: for this machine alone.")] = False,
) -> None:
    """Answer vectors and take pushes over HTTP, until SIGTERM; then what was begun is finished."""
    try:
        from featreg.serve.run import run
    except ModuleNotFoundError as error:
        raise UsageError(f"serving needs {error.name}.\n  pip install 'featreg[serve]'") from None
    from featreg.serve.settings import serve_settings
    from featreg.session.profile import read_profile

    settings: Settings = context.obj
    profile = read_profile(settings.repository, settings.profile)
    given = {"host": host, "port": port, "workers": workers, "tokens": tokens, "open": is_open or None}
    asked = serve_settings(profile.serve, given)

    def announce(port: int) -> None:
        if not settings.json:
            name = f"[{asked.host}]" if ":" in asked.host else asked.host
            where = f"http://{name}:{port} ({counted(asked.workers, 'worker')})"
            print(f"serving {settings.repository} on {where}", file=sys.stderr)

    run(settings.repository, settings.profile, asked, announce, warn)


def stream(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", autocompletion=complete_names("sources"))],
    once: Annotated[bool, typer.Option("--once", help="Leave at the end of the topic, instead of waiting for more.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the Avro schema of the source's contract, and read nothing.")] = False,
) -> None:
    """Take rows of a source from its Kafka topic, each once, until SIGTERM; a process that was killed goes on where it was."""
    try:
        from featreg.serve.stream import follow, stream_settings
    except ModuleNotFoundError as error:
        raise UsageError(f"streams need {error.name}.\n  pip install 'featreg[kafka]'") from None
    import featreg

    settings: Settings = context.obj
    if schema:
        _print_schema(settings, source)
        return
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: over.append(number))
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        asked = stream_settings(registry.profile.streams, source)
        say_if_compiling(settings, registry.profile.state)
        with progress(settings, "streaming") as advance:
            done = follow(registry, source, asked, once=once, is_over=lambda: bool(over), progress=advance)

    def render(console: "Console") -> None:
        console.print(
            f"[green]done[/green]  {counted(done.messages, 'message')}, {counted(done.accepted, 'row')} taken in, "
            f"{done.rejected:,} rejected" + (f", {counted(done.repeated, 'push')} known already" if done.repeated else "")
        )

    show(settings, vars(done), render)


def _print_schema(settings: Settings, source: str) -> None:
    """What producers of Avro write by."""
    import json

    import featreg
    from featreg.serve.avro import contract_schema

    with featreg.open(settings.repository, profile=settings.profile) as registry:
        sources = registry.applied().compiled.sources
        if source not in sources:
            raise UsageError(f"there is no source '{source}'.\n  {did_you_mean(source, sources, 'Applied are')}")
        print(json.dumps(contract_schema(sources[source]), indent=None if settings.json else 2))
