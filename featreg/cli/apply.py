"""`apply`: make the working tree's definitions the ones that training and serving use."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from featreg.cli.arguments import Settings
from featreg.cli.changes import print_plan
from featreg.cli.terminal import console, counted, escape, show, warnings_told
from featreg.errors import RefusedError

if TYPE_CHECKING:
    from rich.console import Console

    from featreg.session.changes import Plan

_SHOWN = 12


def apply(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before another meaning or a removal.")] = False,
) -> None:
    """Apply the working tree's definitions.  On a terminal it asks before features mean something else or go."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        expected, before = registry.log.generation(), registry.log.last("apply")
        if before is not None and not yes and not settings.json and sys.stdin.isatty() and not _agreed(registry.plan()):
            raise RefusedError("nothing was applied.")
        with warnings_told():
            record = registry.apply(expected=expected)
        control = registry.control()
    old = before.body["ids"] if before else {}
    changes = compare_ids(old, record.body["ids"])
    versions = {name: control.version(name, record.body["ids"][name]) for name in (*changes["added"], *changes["changed"])}
    is_new = before is None or before.generation != record.generation
    revision = record.body["revision"]

    def render(console: "Console") -> None:
        for word, style in (("added", "green"), ("changed", "yellow"), ("removed", "red")):
            names = changes[word]
            for name in names[:_SHOWN]:
                number = f"@{versions[name]}" if name in versions else ""
                since = f"  [dim]was @{control.version(name, old[name])}[/dim]" if word == "changed" else ""
                console.print(f"  [{style}]{word:<8}[/{style}] {escape(name)}{number}{since}", soft_wrap=True)
            if len(names) > _SHOWN:
                console.print(f"  [{style}]{word:<8}[/{style}] and {len(names) - _SHOWN} more")
        commit = f"commit {revision['commit'][:12]}" if revision["commit"] else "no commit"
        state = commit if revision["clean"] else f"{commit}, with changes that are not committed"
        word = "[green]applied[/green]" if is_new else "[green]as before[/green]"
        console.print(f"{word}  generation {record.generation}, {len(record.body['ids'])} features  [dim]{state}[/dim]", soft_wrap=True)
        if is_new and old and set(record.body["ids"].values()) - set(old.values()):
            answer = "serving answers with what was applied before, until `featreg materialize` has filled this"
            console.print(f"[dim]{answer}[/dim]", soft_wrap=True)

    told = {"generation": record.generation, "new": is_new, "id": record.body["id"], "revision": revision}
    document = told | changes | {"versions": versions}
    show(settings, document, render)


def _agreed(plan: "Plan") -> bool:
    """Whether the person at the terminal wants it; nobody is asked about what only adds."""
    grave = [change for change in plan.changes if change.kind.value in ("semantic", "removed")]
    if not grave:
        return True
    print_plan(console(), plan)
    return typer.confirm(f"Apply? {counted(len(grave), 'feature')} will mean something else or be gone", default=False)


def compare_ids(before: dict[str, str], after: dict[str, str]) -> dict[str, list[str]]:
    """Features that were added, that mean something else now, and that are gone.

    >>> compare_ids({"v.a": "1", "v.b": "2"}, {"v.a": "1", "v.b": "3", "v.c": "4"})
    {'added': ['v.c'], 'changed': ['v.b'], 'removed': []}
    """
    return {
        "added": [name for name in after if name not in before],
        "changed": [name for name in after if name in before and before[name] != after[name]],
        "removed": [name for name in before if name not in after],
    }
