"""Put the verbs together: the global options, and one module for each noun."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from featreg.cli import (
    apply,
    changes,
    definitions,
    demo,
    explain,
    export,
    graph,
    online,
    push,
    repository,
    reproduce,
    retention,
    serving,
    snapshot,
    source,
    training,
    versions,
)
from featreg.cli.arguments import Settings
from featreg.cli.completion import complete_profiles


class _Verbs(TyperGroup):
    """Verbs of one word, and of two where the first is one by itself: `training-set SET ...` and `training-set rm ID`."""

    def resolve_command(self, context: Any, args: list[str]) -> Any:
        two = " ".join(args[:2])
        given = len(args) > 2 and not args[2].startswith("-")  # else a set may be called that
        if two in self.commands and (given or args[2:3] in (["--help"], ["-h"])):
            return two, self.commands[two], args[2:]
        return super().resolve_command(context, args)


app = typer.Typer(
    name="featreg",
    cls=_Verbs,
    help="Define a feature once: train on the value that serving would have returned, to the last bit.",
    epilog="--root, --profile, --json and --debug may stand anywhere in a command.  Exit codes: 0 done, 1 error, 2 usage, 3 data, "
    "4 refused by a gate, 5 differs, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        print(f"featreg {version('featreg')}")
    except PackageNotFoundError:
        print("featreg, from a checkout that is not installed")
    raise typer.Exit


@app.callback()
def _globals(
    context: typer.Context,
    root: Annotated[
        Path | None, typer.Option("--root", "-C", metavar="DIR", help="The repository.  Default: the nearest one around here.")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="conf/PROFILE.toml says where data is and what runs.", autocompletion=complete_profiles)
    ] = "local",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="A traceback with an error.")] = False,
    _version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="The version.")] = False,
) -> None:
    context.obj = Settings(root, profile, as_json, debug)


_START, _DEFINE, _USE = "Start", "Definitions", "Data"
_ANYWHERE = "Anywhere in the command: --root DIR, --profile NAME, --json, --debug."
_VERBS: tuple[tuple[str, str, Callable[..., None]], ...] = (
    (_START, "demo", demo.demo),
    (_START, "init", repository.init),
    (_DEFINE, "check", definitions.check),
    (_DEFINE, "ls", definitions.ls),
    (_DEFINE, "show", definitions.show_one),
    (_DEFINE, "explain", explain.explain),
    (_DEFINE, "lineage", graph.lineage),
    (_DEFINE, "history", graph.history),
    (_DEFINE, "diff", changes.diff),
    (_DEFINE, "plan", changes.plan),
    (_DEFINE, "apply", apply.apply),
    (_DEFINE, "rollback", versions.rollback),
    (_DEFINE, "retire", versions.retire),
    (_DEFINE, "doctor", versions.doctor),
    (_DEFINE, "gc", versions.gc),
    (_USE, "training-set", training.training_set),
    (_USE, "training-set rm", reproduce.remove),
    (_USE, "reproduce", reproduce.reproduce),
    (_USE, "materialize", online.materialize),
    (_USE, "push", push.push),
    (_USE, "get", online.get),
    (_USE, "parity", online.parity),
    (_USE, "serve", serving.serve),
    (_USE, "stream", serving.stream),
)
for _panel, _name, _verb in _VERBS:
    app.command(_name, rich_help_panel=_panel, epilog=_ANYWHERE)(_verb)
for _group in (source.app, snapshot.app, export.app, retention.app, versions.pins):
    for _command in _group.registered_commands:
        _command.epilog = _ANYWHERE
app.add_typer(source.app, name="source", rich_help_panel=_START)
app.add_typer(snapshot.app, name="snapshot", rich_help_panel=_USE)
app.add_typer(export.app, name="export", rich_help_panel=_USE)
app.add_typer(retention.app, name="retention", rich_help_panel=_USE)
app.add_typer(versions.pins, name="pin", rich_help_panel=_DEFINE)
