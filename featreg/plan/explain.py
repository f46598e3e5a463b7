"""Say what a view or a set does, as a value: the scan, the one sweep program, and the two plans that run it.

Nothing runs here.  The SQL in an explanation is the text that the session executes;
`readable_sql` changes its white space and no more.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from featreg.algebra import schedule as s
from featreg.algebra.table import AGGREGATIONS
from featreg.canonical import content_id
from featreg.compile.compiled import CompiledFeature, CompiledSet, CompiledView, Input, Lookup
from featreg.compile.program import FROM_EVENT_TIME, FROM_VISIBLE, Slot, SweepProgram, build_program
from featreg.compile.words import available_text, freshness_text, stream_text
from featreg.define import Aggregate, Derived, EventSource
from featreg.expressions import meaning
from featreg.instants import DAY, EXACT, HOUR, MINUTE, SECOND, format_duration, window_start
from featreg.plan.offline import plan_backfill
from featreg.plan.online import plan_run
from featreg.plan.relation import Relation, quote
from featreg.plan.scan_sql import duckdb_type, scan_text

SPINE = "featreg_spine"
WARN_ROWS = 10_000  # of one key in an exact window
_PARTIALS = {
    s.COUNT: "count",
    s.SUM: "exact sum",
    s.INTEGER_SUM: "128-bit sum",
    s.EXTREME: "extreme",
    s.RANKED: "ranked rows",
    s.MOMENTS: "exact moments",
    s.WIDE_MOMENTS: "wide moments",
    s.TALLY: "value -> count",
}


@dataclass(frozen=True)
class Measure:
    """What a source holds for a view, when someone looked: good rows, keys, the instants they lie between (UTC microseconds).

    busiest: the most rows that one key has within one aligned stretch of the longest exact window; 0 without one.
    """

    rows: int
    keys: int
    first: int
    last: int
    busiest: int = 0


@dataclass(frozen=True)
class FeatureLine:
    """An aggregate as a row of the program.  span: the shortest and the longest history that its window covers, microseconds."""

    name: str
    aggregation: str
    input: str
    where: str
    type: str
    window: str
    hop: str
    span: tuple[int, int] | None
    partial: int


@dataclass(frozen=True)
class DerivedLine:
    """A feature computed from others once they are there."""

    name: str
    expression: str
    type: str
    uses: tuple[str, ...]


@dataclass(frozen=True)
class PartialLine:
    """One partial of a tile, the features it answers, and its 64-bit words; `grows` when values are kept beside it."""

    number: int
    kind: str
    hop: str
    words: int
    grows: bool
    features: tuple[str, ...]


@dataclass(frozen=True)
class TileLine:
    """The tiles of one hop: the width of each level, how many of all levels live at most, bytes of one.  None: as many as rows."""

    hop: str
    levels: tuple[str, ...]
    live: int | None
    bytes_each: int


@dataclass(frozen=True)
class OfflinePlan:
    """A backfill: the partials it folds into, the longest history that it scans, and the SQL that it runs by bucket of keys."""

    program: str
    history: str
    buckets: tuple[str, ...]


@dataclass(frozen=True)
class OnlinePlan:
    """A materialization: the partials it keeps per key, their size, and its SQL.

    bytes_per_key: of full tiles, without the values that growing partials keep beside them; None when it depends on rows.
    rows_per_key: of the longest exact window, on average by what was measured; None when nothing was.
    """

    program: str
    freshness: str
    replay: str
    tiles: tuple[TileLine, ...]
    bytes_per_key: int | None
    rows_per_key: float | None
    sql: str


@dataclass(frozen=True)
class ViewExplanation:
    """A view, or the part of it that a set reads."""

    view: str
    id: str
    source: str
    located: bool
    key: tuple[tuple[str, str], ...]
    where: str
    event_time: str
    available: str
    stream: str
    freshness: str
    scan_sql: str
    features: tuple[FeatureLine, ...]
    partials: tuple[PartialLine, ...]
    finish: tuple[DerivedLine, ...]
    offline: OfflinePlan
    online: OnlinePlan
    measure: Measure | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class LookupLine:
    """One visit of a set to a view.  key: (entity key, spine column); features: (in the view, in the set)."""

    view: str
    key: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SetExplanation:
    """A set: its lookups in order, its finish, and the part of each view that it reads."""

    set: str
    request: tuple[tuple[str, str], ...]
    lookups: tuple[LookupLine, ...]
    finish: tuple[DerivedLine, ...]
    columns: tuple[tuple[str, str], ...]
    views: tuple[ViewExplanation, ...]


def declared_relation(source: EventSource) -> Relation:
    """The source as a table of its own name with the declared types, for when no location is known."""
    return Relation(quote(source.name), tuple((name, duckdb_type(kind)) for name, kind in source.columns))


def explain_view(
    view: CompiledView,
    relation: Relation | None = None,
    replay: int = 10 * MINUTE,
    measure: Measure | None = None,
    names: tuple[str, ...] | None = None,
) -> ViewExplanation:
    """Explain a view, or the features `names` and what they are derived from.

    relation: where its rows are; None reads them as declared.  replay: microseconds, as in `[online]`.
    """
    shown = view.closure(names if names is not None else tuple(feature.name for feature in view.features))
    program = build_program(view, shown)
    rows = relation or declared_relation(view.scan.source)
    source, definition = view.scan.source, view.definition
    specs = {output.name: output.spec for output in definition.outputs}
    features = [feature for feature in view.features if feature.name in shown]
    return ViewExplanation(
        view=view.name,
        id=view.id,
        source=source.name,
        located=relation is not None,
        key=tuple((key, column) for key, column in definition.key_columns),
        where=definition.where or "",
        event_time=source.event_time,
        available=available_text(source),
        stream=stream_text(source),
        freshness=freshness_text(view.cadence),
        scan_sql=scan_text(view, program, rows, None, None).sql,
        features=tuple(_feature_line(f, specs[f.name], program) for f in features if f.aggregation),
        partials=tuple(_partial_line(number, slot, program) for number, slot in enumerate(program.slots)),
        finish=tuple(_derived_line(f, specs[f.name]) for f in features if f.derived is not None),
        offline=_offline(view, program, rows, measure),
        online=_online(view, rows, replay, measure),
        measure=measure,
        warnings=tuple(_warnings(view, features, measure)),
    )


def explain_set(feature_set: CompiledSet, views: tuple[ViewExplanation, ...], keys: dict[str, tuple[str, ...]]) -> SetExplanation:
    """Explain a set over the explanations of its views.  keys: a view's entity keys in order."""
    return SetExplanation(
        set=feature_set.name,
        request=tuple((name, str(kind)) for name, kind in feature_set.request),
        lookups=tuple(_lookup_line(lookup, keys[lookup.view]) for lookup in feature_set.lookups),
        finish=tuple(
            DerivedLine(name, spec.expression, str(typed.type), tuple(sorted(typed.columns))) for name, typed, spec in feature_set.derived
        ),
        columns=tuple((name, str(kind)) for name, kind in feature_set.columns),
        views=views,
    )


def features_read(feature_set: CompiledSet) -> dict[str, tuple[str, ...]]:
    """The features that a set reads of each view, each once, in order."""
    read: dict[str, dict[str, None]] = {}
    for lookup in feature_set.lookups:
        read.setdefault(lookup.view, {}).update(dict.fromkeys(feature for feature, _ in lookup.features))
    return {view: tuple(names) for view, names in read.items()}


def longest_exact(view: CompiledView) -> int:
    """The longest window with hop "exact" whose rows must be kept; 0 without one."""
    return max((slot_window for feature in view.features if (slot_window := _exact_window(feature))), default=0)


def program_id(program: SweepProgram) -> str:
    """The identity of the partials that a program keeps: offline and online are one program when it is one id."""
    return content_id([[_slot_meaning(slot) for slot in program.slots], list(program.hops), [list(levels) for levels in program.shifts]])


def duration_words(micros: int) -> str:
    """A duration for people: `7d 3h`.

    >>> duration_words(7 * DAY + 3 * HOUR), duration_words(0)
    ('7d 3h', '0s')
    """
    words = []
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("us", 1)):
        if micros >= size:
            words.append(f"{micros // size}{unit}")
            micros %= size
    return " ".join(words) or "0s"


_TOKEN = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|[(),]|\s+|[^\s(),'\"]+")
_CLAUSES = {"FROM", "WHERE", "ORDER", "UNION", "HAVING", "LIMIT"}


def readable_sql(sql: str, width: int = 110) -> str:
    """The same tokens on several lines: only white space between tokens is changed, never inside quotes."""
    tokens = _TOKEN.findall(sql)
    assert "".join(tokens) == sql
    return "\n".join(_wrapped(line, width) for line in _clause_lines(tokens))


def _clause_lines(tokens: list[str]) -> Iterator[str]:
    """A line for every clause of a SELECT, indented by how many subqueries it is in."""
    line, depth, subqueries = "", 0, [0]
    previous = ""
    for i, token in enumerate(tokens):
        following = next((t for t in tokens[i + 1 :] if not t.isspace()), "")
        if token == "(":
            depth += 1
            if following.upper() in ("SELECT", "("):
                subqueries.append(depth)
        opens_clause = depth == subqueries[-1] and token.upper() in _CLAUSES and previous.isspace()
        begins_query = token.upper() == "SELECT" and previous in ("(", " ") and line.strip() not in ("", "(")
        if (opens_clause or begins_query) and line.strip():
            yield line.rstrip()
            line = "  " * (len(subqueries) - 1)
        if token == ")":
            if subqueries[-1] == depth and depth:
                subqueries.pop()
            depth -= 1
        line += token if line.strip() or not token.isspace() else ""
        previous = token
    if line.strip():
        yield line.rstrip()


def _wrapped(line: str, width: int) -> str:
    """Break a long line behind the commas of its own list, before it is longer than `width` where that can be."""
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    parts, depth, shallowest = [""], 0, 0
    for token in _TOKEN.findall(line):
        depth += {"(": 1, ")": -1}.get(token, 0)
        shallowest = min(shallowest, depth)  # a line may close what an earlier one opened
        parts[-1] += token
        if token == "," and depth == shallowest:
            parts.append("")
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) > width:
            lines.append(indent + part.lstrip())
        else:
            lines[-1] += part
    return "\n".join(lines)


def _feature_line(feature: CompiledFeature, spec: Aggregate | Derived, program: SweepProgram) -> FeatureLine:
    assert isinstance(spec, Aggregate)
    column = next(column for column in program.columns if column.name == feature.name)
    extra = [f"n={spec.n}" if spec.n else "", f"k={spec.k}" if spec.k else "", "ignore nulls" if spec.ignore_nulls else ""]
    said = ", ".join(filter(None, extra))
    by = f" by {spec.by}" if spec.by else ""
    return FeatureLine(
        name=feature.name,
        aggregation=feature.aggregation + (f" ({said})" if said else ""),
        input=(spec.column or "rows") + by,
        where=spec.where or "",
        type=str(feature.type),
        window="all" if feature.window is None else format_duration(feature.window),
        hop=_hop_text(feature.hop),
        span=_span(feature),
        partial=program.slots.index(column.slot),
    )


def _derived_line(feature: CompiledFeature, spec: Aggregate | Derived) -> DerivedLine:
    assert isinstance(spec, Derived)
    return DerivedLine(feature.name, spec.expression, str(feature.type), feature.uses)


def _partial_line(number: int, slot: Slot, program: SweepProgram) -> PartialLine:
    features = tuple(column.name for column in program.columns if column.slot == slot and column.name)
    newest = slot == program.slots[0] and slot.input is None
    kind = "newest event time" if newest else _PARTIALS[slot.kind]
    hop = "one per key" if slot.hop == 0 else _hop_text(slot.hop)
    grows = slot.kind == s.TALLY or slot.is_text
    return PartialLine(number, kind, hop, slot.width, grows, features)


def _lookup_line(lookup: Lookup, keys: tuple[str, ...]) -> LookupLine:
    return LookupLine(lookup.view, tuple(zip(keys, lookup.spine_columns)), lookup.features)


def _hop_text(hop: int | None) -> str:
    return "" if hop is None else "exact" if hop == EXACT else format_duration(hop)


def _span(feature: CompiledFeature) -> tuple[int, int] | None:
    """The shortest and the longest history: a cutoff on the grid, and one a microsecond before its next line."""
    if feature.window is None:
        return None
    hop = feature.hop or EXACT
    cutoffs = (feature.window // hop * hop + (feature.window % hop), feature.window + hop - 1)
    spans = [cutoff - start for cutoff in cutoffs if (start := window_start(cutoff, feature.window, hop)) is not None]
    return min(spans), max(spans)


def _offline(view: CompiledView, program: SweepProgram, relation: Relation, measure: Measure | None) -> OfflinePlan:
    """The plan of a spine that goes over everything that was measured, or (nothing was) from 1970 to 2100."""
    first, last, rows = (measure.first, measure.last + 1, measure.rows) if measure else (0, 130 * 365 * DAY, 1)
    plan = plan_backfill(view, program, relation, SPINE, first, last, rows, None)
    history = "all of it" if program.longest is None else duration_words(program.longest)
    return OfflinePlan(program_id(program), history, plan.queries)


def _online(view: CompiledView, relation: Relation, replay: int, measure: Measure | None) -> OnlinePlan:
    """The plan of a first run; the store keeps the whole view, whichever features a set reads of it."""
    program = build_program(view)
    tiles = tuple(_tile_line(g, program) for g in range(len(program.hops)))
    exact = longest_exact(view)
    rows = _rows_per_key(exact, measure) if exact else None
    words = 5 + sum(len(levels) for levels in program.shifts) + 1  # the header of a key's state
    bounded = all(tile.live is not None for tile in tiles)
    size = words * 8 + sum((tile.live or 0) * tile.bytes_each for tile in tiles) if bounded else None
    to = measure.last + 1 if measure else 130 * 365 * DAY
    since = view.cadence.cutoff(to - replay)
    sql, _ = plan_run(view, program, None, relation, None, to, since)
    return OnlinePlan(program_id(program), freshness_text(view.cadence), duration_words(replay), tiles, size, rows, sql)


def _tile_line(group: int, program: SweepProgram) -> TileLine:
    hop, levels = program.hops[group], program.shifts[group]
    slots = [slot for slot in program.slots if slot.hop == hop]
    width = 8 * (1 + sum(slot.width for slot in slots))
    if hop == 0:
        return TileLine("one per key", (), 1, width)
    longest = int(program.tables.groups[group, s.GROUP_SPAN]) + hop
    live = None if hop == EXACT else sum(-(-longest // (hop << shift)) + 1 for shift in levels)
    named = tuple("row" if hop == EXACT and shift == 0 else duration_words(hop << shift) for shift in levels)
    return TileLine(_hop_text(hop), named, live, width)


def _rows_per_key(window: int, measure: Measure | None) -> float | None:
    if measure is None or not measure.keys:
        return None
    return measure.rows / measure.keys * min(1.0, window / max(1, measure.last - measure.first))


def _warnings(view: CompiledView, features: list[CompiledFeature], measure: Measure | None) -> Iterator[str]:
    exact = [feature.name for feature in features if _exact_window(feature)]
    if exact and (measure is None or measure.busiest > WARN_ROWS):
        window = duration_words(longest_exact(view))
        known = "" if measure is None else f": the busiest key has some {measure.busiest:,} in {window}"
        yield (
            f"{', '.join(exact)}: an exact window keeps every row of it online{known}. "
            f"Leave hop out for tiles, or keep to keys with at most {WARN_ROWS:,} rows in {window}."
        )


def _exact_window(feature: CompiledFeature) -> int | None:
    if not feature.aggregation or feature.hop != EXACT or feature.window is None or AGGREGATIONS[feature.aggregation].newest:
        return None
    return feature.window


def _slot_meaning(slot: Slot) -> list:
    def lifted(item: int | Input | None) -> object:
        match item:
            case Input():
                return [None if part is None else meaning(part) for part in (item.expression, item.where)]
            case int():
                return {FROM_EVENT_TIME: "event time", FROM_VISIBLE: "visible instant"}[item]
        return None

    parts = [[lifted(part), text, required] for part, text, required in slot.parts]
    return [slot.kind, slot.hop, slot.mode, slot.limit, slot.is_text, lifted(slot.input), lifted(slot.mask), parts]
