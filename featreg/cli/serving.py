"""`serve`: answer vectors and take pushes over HTTP."""

import sys
from typing import Annotated

import typer

from featreg.cli.arguments import Settings
from featreg.errors import UsageError


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
    if not settings.json:
        print(f"serving {settings.repository} on http://{asked.host}:{asked.port} ({asked.workers} workers)", file=sys.stderr)
    run(settings.repository, settings.profile, asked)
