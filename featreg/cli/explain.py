"""`explain`: print what a view or set does, so that a reader sees that training and serving run one program."""

from typing import TYPE_CHECKING, Annotated

import typer

from featreg.cli.arguments import Settings
from featreg.cli.completion import complete_names
from featreg.cli.definitions import OfApplied, Revision
from featreg.cli.terminal import add_rows, bytes_text, counted, escape, show, table
from featreg.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

    from featreg.compile import Compiled, CompiledView
    from featreg.plan.explain import DerivedLine, Measure, SetExplanation, ViewExplanation
    from featreg.plan.relation import Relation
    from featreg.session import Registry

MOST_ROWS_MEASURED = 20_000_000


def explain(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="VIEW|SET", autocompletion=complete_names("views", "sets"))],
    revision: Revision = None,
    applied: OfApplied = False,
    draft: Annotated[bool, typer.Option("--draft", help="The working tree; the default.")] = False,
) -> None:
    """Print the scan, the sweep program, the finish, and the offline and online plans of a view or set."""
    import featreg

    settings: Settings = context.obj
    if sum((revision is not None, applied, draft)) > 1:
        raise UsageError("--revision, --applied and --draft are three things; give one.")
    with featreg.open(settings.repository, profile=settings.profile, revision=revision) as registry:
        compiled = registry.applied().compiled if applied else registry.compile()
        if name in compiled.views:
            of_view = _explain_view(registry, compiled.views[name], None)
            show(settings, of_view, lambda console: render_view(console, of_view))
        elif name in compiled.sets:
            of_set = _explain_set(registry, compiled, name)
            show(settings, of_set, lambda console: render_set(console, of_set))
        else:
            raise UsageError(f"there is no view or set '{name}'.\n  {did_you_mean(name, [*compiled.views, *compiled.sets])}")


def _explain_set(registry: "Registry", compiled: "Compiled", name: str) -> "SetExplanation":
    from featreg.plan.explain import explain_set, features_read

    one = compiled.sets[name]
    views = tuple(_explain_view(registry, compiled.views[view], names) for view, names in features_read(one).items())
    keys = {view.name: tuple(key for key, _ in view.key) for view in compiled.views.values()}
    return explain_set(one, views, keys)


def _explain_view(registry: "Registry", view: "CompiledView", names: tuple[str, ...] | None) -> "ViewExplanation":
    """With the location that the profile knows, and what is there; without data, as declared."""
    from featreg.plan.explain import explain_view
    from featreg.session.sources import SourceFinder

    relation: Relation | None = None
    measure: Measure | None = None
    try:
        relation, about = SourceFinder(registry.engine, registry.profile, {}).find(view.scan.source)
        if about <= MOST_ROWS_MEASURED:
            measure = measure_view(registry, view, relation)
    except (DataError, UsageError):  # no location, no files, or ones that do not fit: an explanation needs none
        relation, measure = None, None
    return explain_view(view, relation, registry.profile.replay, measure, names)


def measure_view(registry: "Registry", view: "CompiledView", relation: "Relation") -> "Measure | None":
    """Count what the scan of a view gives; None when that is nothing."""
    from featreg.compile.program import build_program
    from featreg.plan.explain import Measure, longest_exact
    from featreg.plan.scan_sql import scan_text

    scan = scan_text(view, build_program(view), relation, None, None)
    good = f"SELECT * FROM ({scan.sql}) WHERE NOT bad"
    keys = f"count(DISTINCT ({', '.join(scan.keys)}))" if scan.keys else "1"
    rows, distinct, first, last = registry.engine.rows(f"SELECT count(*), {keys}, min(v), max(v) FROM ({good})")[0]
    if not rows:
        return None
    window = longest_exact(view)
    busiest = 0
    if window:
        grouped = ", ".join((*scan.keys, f"v // {window}"))
        busiest = registry.engine.rows(f"SELECT max(n) FROM (SELECT count(*) AS n FROM ({good}) GROUP BY {grouped})")[0][0]
    return Measure(rows, distinct, first, last, busiest)


def render_view(console: "Console", it: "ViewExplanation") -> None:
    """Scan, program, finish, and the two plans that run it."""
    _render_head(console, it)
    _heading(console, "Scan", "lifts rows; the same text offline, online and on push")
    _print_sql(console, it.scan_sql)
    _render_program(console, it)
    _render_finish(console, it.finish)
    _render_offline(console, it)
    _render_online(console, it)
    for warning in it.warnings:
        console.print(f"\n[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)


def render_set(console: "Console", it: "SetExplanation") -> None:
    """The lookups, what is derived, and the program of every view that is read."""
    request = f", given {', '.join(f'{name} {kind}' for name, kind in it.request)}" if it.request else ""
    console.print(
        f"[bold]{escape(it.set)}[/bold]  {counted(len(it.columns), 'feature')} from {counted(len(it.lookups), 'lookup')}{escape(request)}",
        soft_wrap=True,
    )
    _heading(console, "Lookups", "each is one backfill offline, two reads per key online")
    made = table("view", "spine column -> key", "features")
    for lookup in it.lookups:
        keys = ", ".join(column if column == key else f"{column} -> {key}" for key, column in lookup.key) or "the one global key"
        features = ", ".join(name if name == feature else f"{name} = {feature}" for feature, name in lookup.features)
        add_rows(made, [(lookup.view, keys, features)])
    console.print(made)
    _render_finish(console, it.finish)
    for view in it.views:
        console.print()
        _render_head(console, view)
        _render_program(console, view)
        _render_finish(console, view.finish)
        for warning in view.warnings:
            console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
    console.print("\n[dim]featreg explain VIEW prints the scan and both plans of one of these.[/dim]")


def _render_head(console: "Console", it: "ViewExplanation") -> None:
    keys = ", ".join(key if key == column else f"{key} = {column}" for key, column in it.key) or "one global entity"
    console.print(
        f"[bold]{escape(it.view)}[/bold]  of {escape(keys)}, from {escape(it.source)}, {it.freshness}  [dim]id {it.id[:12]}[/dim]",
        soft_wrap=True,
    )
    known = f"event time {it.event_time}, readable {it.available}" + (f"; {it.stream}" if it.stream else "")
    where = f"; rows where {it.where}" if it.where else ""
    console.print(f"[dim]{escape(known + where)}[/dim]", soft_wrap=True)
    if not it.located:
        console.print(f"[dim]no data is known for {escape(it.source)} here: the SQL reads it as declared[/dim]", soft_wrap=True)


def _render_program(console: "Console", it: "ViewExplanation") -> None:
    _heading(console, "Sweep program", "what every event is folded into, and what a window merges")
    made = table("feature", "type", "aggregation", "input", "where", "window", "hop", "covers", "partial", right=("partial",))
    cells = (
        (line.name, line.type, line.aggregation, line.input, line.where, line.window, line.hop, _covers(line.span), f"#{line.partial}")
        for line in it.features
    )
    console.print(add_rows(made, cells))
    made = table("partial", "keeps", "tile", "words", "answers", right=("words",))
    rows = (
        (
            f"#{line.number}",
            line.kind,
            line.hop,
            f"{line.words}{' +' if line.grows else ''}",
            ", ".join(line.features) or "whether a window has a row",
        )
        for line in it.partials
    )
    console.print(add_rows(made, rows))


def _render_finish(console: "Console", finish: "tuple[DerivedLine, ...]") -> None:
    if not finish:
        return
    _heading(console, "Finish", "one loop over columns offline, over one row online")
    made = table("feature", "type", "expression")
    console.print(add_rows(made, ((line.name, line.type, line.expression) for line in finish)))


def _render_offline(console: "Console", it: "ViewExplanation") -> None:
    _heading(console, "Offline", f"program {it.offline.program[:12]}")
    buckets = len(it.offline.buckets)
    spread = f"{buckets} buckets of keys, one after the other; the first:" if buckets > 1 else "one pass over all keys:"
    console.print(
        f"  Events and spine meet by key, in order of instants; each event is folded into its tile, "
        f"each spine row merges the tiles of its windows.\n"
        f"  History before the first spine row that is scanned: {it.offline.history}.  {spread}",
        soft_wrap=True,
    )
    _print_sql(console, it.offline.buckets[0])


def _render_online(console: "Console", it: "ViewExplanation") -> None:
    same = "the same program" if it.online.program == it.offline.program else "the whole view's program"
    _heading(console, "Online", f"program {it.online.program[:12]}: {same}")
    console.print(
        f"  Per key, tiles of the rows before S, and a head of the rows since.  S trails the watermark by {it.online.replay}; "
        f"a read at its cutoff folds the head in, merges and finishes.  Fresh as of {it.online.freshness}.",
        soft_wrap=True,
    )
    made = table("tiles of", "levels", "live at most", "bytes each", right=("live at most", "bytes each"))
    cells = (
        (tile.hop, ", ".join(tile.levels), "its rows" if tile.live is None else tile.live, tile.bytes_each) for tile in it.online.tiles
    )
    console.print(add_rows(made, cells))
    grows = " and the values that partials marked + keep" if any(line.grows for line in it.partials) else ""
    if it.online.bytes_per_key is not None:
        console.print(f"  At most {bytes_text(it.online.bytes_per_key)} a key{grows}.", soft_wrap=True)
    elif it.online.rows_per_key is not None:
        console.print(f"  Some {it.online.rows_per_key:,.0f} rows a key in the exact window{grows}.", soft_wrap=True)
    if it.measure is not None:
        from featreg.instants import format_instant

        between = f"{format_instant(it.measure.first)} to {format_instant(it.measure.last)}"
        console.print(f"  Here: {it.measure.rows:,} rows of {it.measure.keys:,} keys, {between}.  The first run reads:", soft_wrap=True)
    _print_sql(console, it.online.sql)


def _heading(console: "Console", title: str, beside: str) -> None:
    console.print(f"\n[bold cyan]{title}[/bold cyan]  [dim]{escape(beside)}[/dim]", soft_wrap=True)


def _print_sql(console: "Console", sql: str) -> None:
    from featreg.plan.explain import readable_sql

    console.print(
        "\n".join(f"  {line}" for line in readable_sql(sql).splitlines()),
        markup=False,
        style="dim" if console.is_terminal else "",
        soft_wrap=True,
    )


def _covers(span: tuple[int, int] | None) -> str:
    from featreg.plan.explain import duration_words

    if span is None:
        return "all of history"
    least, most = span
    return duration_words(least) if most == least else f"{duration_words(least)} .. {duration_words(most + 1)}"
