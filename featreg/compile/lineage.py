"""Draw what comes of what: source column → feature → derived feature → feature set → pin, as a graph and as text for tools."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from featreg.compile.compiled import Compiled, CompiledFeature, CompiledView

COLUMN, FEATURE, SET, PIN = "column", "feature", "set", "pin"


@dataclass(frozen=True)
class Graph:
    """nodes: name -> kind, in the order of the flow · edges: (from, to)."""

    nodes: Mapping[str, str]
    edges: tuple[tuple[str, str], ...]

    def around(self, name: str) -> "Graph":
        """The part of the graph that `name` is made from or goes into."""
        wanted = self._reached(name, {b: [a for a, c in self.edges if c == b] for _, b in self.edges})
        wanted |= self._reached(name, {a: [b for c, b in self.edges if c == a] for a, _ in self.edges})
        edges = tuple(edge for edge in self.edges if set(edge) <= wanted)
        return Graph({node: kind for node, kind in self.nodes.items() if node in wanted}, edges)

    @staticmethod
    def _reached(start: str, next_of: Mapping[str, list[str]]) -> set[str]:
        reached, waiting = {start}, [start]
        while waiting:
            for node in next_of.get(waiting.pop(), ()):
                if node not in reached:
                    reached.add(node)
                    waiting.append(node)
        return reached


def lineage(compiled: Compiled, pins: Iterable[tuple[str, str]] = ()) -> Graph:
    """The graph of all definitions.  pins: (pin, the set it fixes)."""
    columns: dict[str, str] = {}
    features: dict[str, str] = {}
    edges: dict[tuple[str, str], None] = {}
    for view in compiled.views.values():
        for feature in view.features:
            name = f"{view.name}.{feature.name}"
            features[name] = FEATURE
            for used in feature.uses:
                edges[f"{view.name}.{used}", name] = None
            for column in sorted(_columns(view, feature)):
                columns[f"{view.scan.source.name}.{column}"] = COLUMN
                edges[f"{view.scan.source.name}.{column}", name] = None
    sets: dict[str, str] = {}
    for one in compiled.sets.values():
        sets[f"set {one.name}"] = SET
        for lookup in one.lookups:
            for feature_name, _ in lookup.features:
                edges[f"{lookup.view}.{feature_name}", f"set {one.name}"] = None
    found = dict(pins)
    for pin, name in found.items():
        edges[f"set {name}", f"pin {pin}"] = None
    nodes = columns | features | sets | {f"pin {pin}": PIN for pin in found}
    return Graph(nodes, tuple((a, b) for a, b in edges if a in nodes and b in nodes))


def _columns(view: CompiledView, feature: CompiledFeature) -> set[str]:
    """The source's columns that decide an aggregate: what it reads, what chooses rows, and the key."""
    if not feature.aggregation:
        return set()
    scan = view.scan
    read = (feature.column, feature.by, feature.where, scan.where)
    chosen = {column for one in read if one is not None for column in one.columns}
    available = {scan.source.available_column} if scan.source.available_column else set()
    return chosen | {column for column, _ in scan.keys} | {scan.source.event_time, *scan.source.tie_break} | available


def as_dot(graph: Graph) -> str:
    """Graphviz: `featreg lineage --format dot | dot -Tsvg`."""
    shapes = {COLUMN: "note", FEATURE: "box", SET: "folder", PIN: "cds"}
    lines = ["digraph lineage {", "  rankdir=LR; node [fontname=Helvetica];"]
    lines += [f"  {_quoted(node)} [shape={shapes[kind]}];" for node, kind in graph.nodes.items()]
    lines += [f"  {_quoted(a)} -> {_quoted(b)};" for a, b in graph.edges]
    return "\n".join([*lines, "}"])


def as_mermaid(graph: Graph) -> str:
    """Mermaid, as Markdown on many sites draws it."""
    number = {node: f"n{i}" for i, node in enumerate(graph.nodes)}
    brackets = {COLUMN: ("[/", "/]"), FEATURE: ("[", "]"), SET: ("[[", "]]"), PIN: ("([", "])")}
    lines = ["flowchart LR"]
    for node, kind in graph.nodes.items():
        opening, closing = brackets[kind]
        lines.append(f"  {number[node]}{opening}{_quoted(node)}{closing}")
    return "\n".join([*lines, *(f"  {number[a]} --> {number[b]}" for a, b in graph.edges)])


def _quoted(text: str) -> str:
    return '"' + text.replace('"', "'") + '"'
