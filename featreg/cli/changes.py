"""`diff` and `plan`: what a change of definitions does, before it is done."""

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featreg.cli.arguments import Settings
from featreg.cli.definitions import Revision
from featreg.cli.terminal import bytes_text, counted, escape, seconds_text, show
from featreg.cli.values import example_text, value_document, value_text

if TYPE_CHECKING:
    from rich.console import Console

    from featreg.compile.difference import Change
    from featreg.session.changes import Plan
    from featreg.session.work import ViewWork

DIFFERS = 5
_STYLES = {"removed": "red", "semantic": "yellow", "additive": "green", "layout": "cyan", "metadata": "dim"}
_SHOWN = 200


class Format(StrEnum):
    text = "text"
    markdown = "markdown"


HowShown = Annotated[Format, typer.Option("--format", help="As text, or as Markdown for a pull request.")]
HowMany = Annotated[
    int | None,
    typer.Option("--values", metavar="N", help="Compute changed features by both versions on N sampled rows, and show how they differ."),
]
ByExitCode = Annotated[bool, typer.Option("--exit-code", help=f"Leave with {DIFFERS} when something changes.")]


def diff(
    context: typer.Context,
    before: Annotated[str, typer.Argument(metavar="A", help="A git revision.")],
    after: Annotated[str | None, typer.Argument(metavar="B", help="Another; default: the working tree.", show_default=False)] = None,
    how: HowShown = Format.text,
    values: HowMany = None,
    exit_code: ByExitCode = False,
) -> None:
    """Compare definitions of two git revisions, or of one and the working tree, by what they mean."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        _show(settings, registry.diff(before, after, values=values), how, exit_code)


def plan(
    context: typer.Context,
    revision: Revision = None,
    how: HowShown = Format.text,
    values: HowMany = None,
    exit_code: ByExitCode = False,
) -> None:
    """Say what `apply` would change, why, who is affected and what must be computed."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile, revision=revision) as registry:
        _show(settings, registry.plan(values=values), how, exit_code)


def plan_document(plan: "Plan") -> dict[str, Any]:
    """A plan as a value for JSON: changed features only, and how many are as before."""
    changed = [change for change in plan.changes if change.kind != "none"]
    return {
        "before": plan.before,
        "after": plan.after,
        "changes": [
            {
                "name": change.name,
                "kind": change.kind.value,
                "reasons": list(change.reasons),
                "before_id": change.before_id,
                "after_id": change.after_id,
                "file": change.place[0] if change.place else None,
                "line": change.place[1] if change.place else None,
                "dependants": list(change.dependants),
            }
            for change in changed
        ],
        "unchanged": len(plan.changes) - len(changed),
        "warnings": list(plan.warnings),
        "work": [vars(one) | {"features": list(one.features)} for one in plan.work],
        "values": [value_document(one) for one in plan.values],
    }


def print_plan(console: "Console", plan: "Plan") -> None:
    console.print(f"{escape(plan.before)} [dim]→[/dim] {escape(plan.after)}\n", soft_wrap=True)
    alike = list(_alike(plan))
    for change, names in alike[:_SHOWN]:
        style = _STYLES[change.kind.value]
        console.print(
            f"[{style}]{change.kind.value:<9}[/{style}] [bold]{escape(names)}[/bold]  [dim]{_place(change)}[/dim]", soft_wrap=True
        )
        for reason in change.reasons if change.reasons not in (("new",), ("gone",)) else ():
            console.print(f"          {escape(reason)}", soft_wrap=True)
        if change.dependants:
            console.print(f"          [dim]read by {escape(', '.join(change.dependants))}[/dim]", soft_wrap=True)
    more = len(alike) - _SHOWN
    if more > 0:
        console.print(f"          and {more:,} more; --json has all")
    if not plan.is_empty:
        console.print()
    for warning in plan.warnings:
        console.print(f"[yellow]warning[/yellow]  {escape(warning)}", soft_wrap=True)
    for one in plan.work:
        console.print(f"[dim]to compute[/dim]  {escape(_work_text(one))}", soft_wrap=True)
    for value in plan.values:
        console.print(f"[dim]values[/dim]      {escape(value_text(value))}", soft_wrap=True)
        for example in value.examples:
            console.print(f"            [dim]{escape(example_text(example))}[/dim]", soft_wrap=True)
    console.print(_summary(plan), soft_wrap=True)


def _show(settings: Settings, plan: "Plan", how: Format, exit_code: bool) -> None:
    def render(console: "Console") -> None:
        if how is Format.markdown:
            print("\n".join(_markdown(plan)))
        else:
            print_plan(console, plan)

    show(settings, plan_document(plan), render)
    if exit_code and not plan.is_empty:
        raise typer.Exit(DIFFERS)


def _alike(plan: "Plan") -> "Iterator[tuple[Change, str]]":
    """Changes, the gravest kind first, each with the names of all of its owner that changed so, for the same reasons and readers."""
    for kind in _STYLES:
        groups: dict[tuple[object, ...], list[Change]] = {}
        for change in plan.changes:
            if change.kind.value == kind:
                alone = change.name if kind in ("semantic", "additive", "removed") else ""
                groups.setdefault((change.name.partition(".")[0], change.reasons, alone), []).append(change)
        for group in groups.values():
            owner = group[0].name.partition(".")[0]
            yield group[0], group[0].name if len(group) == 1 else f"{owner}: {', '.join(one.name.partition('.')[2] for one in group)}"


def _place(change: "Change") -> str:
    return f"{change.place[0]}:{change.place[1]}" if change.place else ""


def _work_text(one: "ViewWork") -> str:
    rows = "a source that is not here" if one.rows is None else f"about {one.rows:,} rows"
    told = [rows]
    if one.keys is not None and one.bytes is not None:
        told += [f"{one.keys:,} keys", bytes_text(one.bytes)]
    if one.seconds is not None:
        told.append(f"about {seconds_text(one.seconds)}")
    online = "; its online state is filled anew by the next materialize" if one.rebuilds else ""
    return f"{one.view}: {counted(len(one.features), 'feature')} from {one.source}, {', '.join(told)}{online}"


def _summary(plan: "Plan") -> str:
    counts = {kind: sum(change.kind.value == kind for change in plan.changes) for kind in (*_STYLES, "none")}
    told = [f"{number} {kind}" for kind, number in counts.items() if number and kind != "none"]
    return f"{', '.join(told) or 'no change'}; {counts['none']} as before"


def _markdown(plan: "Plan") -> Iterator[str]:
    yield f"**{_plain(plan.before)} → {_plain(plan.after)}**: {_summary(plan)}"
    if plan.is_empty:
        return
    yield ""
    yield "| change | feature | why | read by | where |"
    yield "|---|---|---|---|---|"
    for change, names in _alike(plan):
        cells = (change.kind.value, f"`{names}`", "; ".join(change.reasons), ", ".join(change.dependants), _place(change))
        yield "| " + " | ".join(_plain(cell) for cell in cells) + " |"
    if plan.warnings:
        yield ""
        yield from (f"- **warning**: {_plain(warning)}" for warning in plan.warnings)
    if plan.values:
        yield ""
        yield from (f"- values: {_plain(value_text(one))}" for one in plan.values)
    if plan.work:
        yield ""
        yield from (f"- to compute: {_plain(_work_text(one))}" for one in plan.work)


def _plain(text: str) -> str:
    """Text within a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
