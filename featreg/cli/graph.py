"""`lineage` and `history`: where a feature comes from, where it goes, and what it has meant."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featreg.cli.arguments import Settings
from featreg.cli.completion import complete_names
from featreg.cli.definitions import OfApplied, Revision
from featreg.cli.terminal import add_rows, escape, show, table
from featreg.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree

    from featreg.compile.lineage import Graph


class Format(StrEnum):
    tree = "tree"
    dot = "dot"
    mermaid = "mermaid"


def lineage(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="VIEW.FEATURE, SOURCE.COLUMN or a set; default: everything.",
            show_default=False,
            autocompletion=complete_names("features", "sets"),
        ),
    ] = None,
    how: Annotated[Format, typer.Option("--format", help="A tree, or text for Graphviz or Mermaid.")] = Format.tree,
    revision: Revision = None,
    applied: OfApplied = False,
) -> None:
    """Show what comes of what: source column, feature, feature set, pin."""
    import featreg
    from featreg.compile.lineage import as_dot, as_mermaid
    from featreg.compile.lineage import lineage as graph_of

    settings: Settings = context.obj
    if revision is not None and applied:
        raise UsageError("--revision and --applied are two things; give one.")
    with featreg.open(settings.repository, profile=settings.profile, revision=revision) as registry:
        compiled = registry.applied().compiled if applied else registry.compile()
        graph = graph_of(compiled, ((pin.name, pin.set) for pin in registry.control().pins.values()))
    if name is not None:
        node = name if name in graph.nodes else f"set {name}"
        if node not in graph.nodes:
            raise UsageError(f"nothing here is called '{name}'.\n  {did_you_mean(name, graph.nodes)}")
        graph = graph.around(node)

    def render(console: "Console") -> None:
        if how is Format.tree:
            for root in _trees(graph):
                console.print(root)
        else:
            print(as_dot(graph) if how is Format.dot else as_mermaid(graph))

    document = {
        "nodes": [{"name": node, "kind": kind} for node, kind in graph.nodes.items()],
        "edges": [list(edge) for edge in graph.edges],
    }
    show(settings, document, render)


def history(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="VIEW.FEATURE", autocompletion=complete_names("features"))],
) -> None:
    """Show the life of a feature: its versions, who applied them, when, from which revision, and why its meaning changed."""
    import featreg
    from featreg.instants import format_instant

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        events = registry.history(name)

    def render(console: "Console") -> None:
        made = table("version", "generation", "at", "by", "commit", "what", "id", right=("version", "generation"))
        cells = (
            (
                one.version,
                one.generation,
                format_instant(one.at),
                one.by,
                (one.commit or "")[:12],
                "; ".join(one.reasons),
                (one.id or "")[:12],
            )
            for one in events
        )
        console.print(add_rows(made, cells))

    documents: list[dict[str, Any]] = [vars(one) | {"at": format_instant(one.at), "reasons": list(one.reasons)} for one in events]
    show(settings, documents, render)


def _trees(graph: "Graph") -> "list[Tree]":
    """A tree for each node that comes of nothing; what goes on from a node is drawn at its first place only."""
    from rich.tree import Tree

    after: dict[str, list[str]] = {}
    for a, b in graph.edges:
        after.setdefault(a, []).append(b)
    styles = {"column": "cyan", "feature": "bold", "set": "green", "pin": "magenta"}
    drawn: set[str] = set()

    def grow(tree: "Tree", node: str) -> "Tree":
        if node in drawn:
            if after.get(node):
                tree.add("[dim]as above[/dim]")
            return tree
        drawn.add(node)
        for following in after.get(node, ()):
            grow(tree.add(f"[{styles[graph.nodes[following]]}]{escape(following)}"), following)
        return tree

    roots = [node for node in graph.nodes if node not in {b for _, b in graph.edges}]
    return [grow(Tree(f"[{styles[graph.nodes[node]]}]{escape(node)}"), node) for node in roots]
