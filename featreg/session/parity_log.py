"""Compute logged vectors again, offline, and say of every cell that is another now what made it so.

    LOGIC    nothing explains it: it must never be
    LATE     rows that came after it was served
    STALE    rows that were there and that the view had not taken in
    VERSION  the feature means something else now
    MISSING  the view had never been filled

What a view had when it served is known to the row: a vector is computed from just that too, and only what agrees with it is explained.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from featreg.compile import Compiled, CompiledSet, CompiledView, Lookup
from featreg.define import EventSource
from featreg.plan.relation import ARRIVED, END, SEGMENT, Relation, quote
from featreg.plan.scan_sql import held_sql
from featreg.registry.events import Event
from featreg.registry.push_log import PushLog
from featreg.registry.pushed import START, Position
from featreg.session.cells import from_json, row_from_json, to_json
from featreg.session.order import in_order
from featreg.session.serve_log import SERVED
from featreg.session.sources import SourceFinder
from featreg.session.tables import request_column, spine_of_rows
from featreg.session.training_set import Spine, as_column, check_spine, fill, look_up
from featreg.session.vectors import MISSING as MISSING_STATUS
from featreg.sweep.finish import Column, derive_columns
from featreg.sweep.words import arrow_type
from featreg.vocabulary import DataType

if TYPE_CHECKING:
    from featreg.session.registry import Registry

CAUSES = ("LOGIC", "LATE", "STALE", "VERSION", "MISSING")
LOGIC, LATE, STALE, VERSION, MISSING = CAUSES
_MOST_EXAMPLES = 5  # of each cause
_AS_OF, _VECTOR = "featreg_as_of", "featreg_vector"
_ALL = 1 << 62


@dataclass(frozen=True)
class LoggedDifference:
    """A cell that is another now than when it was served.  as_of: UTC microseconds."""

    cause: str
    feature: str
    row: Mapping[str, Any]
    as_of: int
    served: Any
    offline: Any


@dataclass(frozen=True)
class LoggedParity:
    """What was found.  by_feature: feature -> cause -> cells; examples: the first few of each cause.

    undated: sources whose files do not say when their rows could first be read: what is STALE by them may be LATE.
    No vector was logged: `is_known` is False, which is not a pass.
    """

    set: str
    vectors: int
    cells: int
    by_feature: Mapping[str, Mapping[str, int]]
    examples: tuple[LoggedDifference, ...]
    undated: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        return self.vectors > 0

    @property
    def causes(self) -> dict[str, int]:
        """How many cells of each cause, in the order of CAUSES."""
        return {cause: sum(counts.get(cause, 0) for counts in self.by_feature.values()) for cause in CAUSES}

    @property
    def agreeing(self) -> int:
        return self.cells - sum(self.causes.values())

    def __str__(self) -> str:
        if not self.is_known:
            return f"{self.set}: UNKNOWN: no served vector is in the log. Set [online] log to the share of keys to log, such as 0.01."
        told = ", ".join(f"{count:,} {cause}" for cause, count in self.causes.items() if count)
        agreeing = f"{self.set}: {self.agreeing:,} of {self.cells:,} logged cells agree" + (f"; {told}" if told else "")
        if not (self.causes[STALE] and self.undated):
            return agreeing
        sources = ", ".join(self.undated)
        return f"{agreeing}\n  STALE may be LATE: files of {sources} have no available= column, so they do not say when a row came."


def compare_logged(registry: "Registry", name: str) -> LoggedParity:
    """Compare every logged vector of a set with what is computed now."""
    served: dict[tuple[str | None, int], list[Event]] = defaultdict(list)
    for event in registry.events.read(SERVED):
        if event.body["set"] == name:
            served[event.body["pin"], event.body["generation"]].append(event)
    found: list[LoggedDifference] = []
    cells = 0
    for (pin, generation), events in sorted(served.items(), key=lambda item: item[0][1]):
        compiled = registry.pinned(pin, name).compiled if pin is not None else registry.applied_at(generation).compiled
        cells += len(events) * len(compiled.sets[name].columns)
        found += _differences(registry, compiled, compiled if pin is not None else registry.applied().compiled, name, events)
    by_feature: dict[str, Counter[str]] = defaultdict(Counter)
    kept: dict[str, list[LoggedDifference]] = defaultdict(list)
    for one in found:
        by_feature[one.feature][one.cause] += 1
        if len(kept[one.cause]) < _MOST_EXAMPLES:
            kept[one.cause].append(one)
    examples = tuple(one for cause in CAUSES for one in kept[cause])
    counted = {feature: dict(counts) for feature, counts in by_feature.items()}
    return LoggedParity(name, sum(map(len, served.values())), cells, counted, examples, _undated(registry, name) if served else ())


def _undated(registry: "Registry", name: str) -> tuple[str, ...]:
    """Sources of a set with files and without a column of when rows arrived."""
    compiled = registry.applied().compiled
    lookups = compiled.sets[name].lookups if name in compiled.sets else ()
    sources = {view.scan.source.name: view.scan.source for view in (compiled.views[lookup.view] for lookup in lookups)}
    return tuple(
        sorted(one for one, source in sources.items() if one in registry.profile.sources and source.available_column is None)
    )


def _differences(
    registry: "Registry", compiled: Compiled, now: Compiled, name: str, events: Sequence[Event]
) -> list[LoggedDifference]:
    feature_set = compiled.sets[name]
    spine = _spine(feature_set, compiled, events)
    offline = _filled(registry, feature_set, compiled.views, spine)
    wrong = {
        (row, feature)
        for feature, _ in feature_set.columns
        for row, wanted in enumerate(offline[feature])
        if to_json(wanted) != events[row].body["values"][feature]
    }
    causes = _explained(registry, feature_set, compiled.views, events, wrong, offline)
    newest = now.sets.get(name)
    if newest is not None and newest.ids != feature_set.ids:
        causes |= _of_another_version(registry, feature_set, newest, now, events, wrong, offline)
    return [
        LoggedDifference(
            cause, feature, row_from_json(events[row].body["row"]), events[row].body["as_of"],
            from_json(events[row].body["values"][feature]), value,
        )
        for (row, feature), (cause, value) in sorted(causes.items())
    ]  # fmt: skip


def _of_another_version(registry, feature_set: CompiledSet, newest: CompiledSet, now: Compiled, events, wrong, offline):  # type: ignore[no-untyped-def]
    """Cells that were right when they were served and are another by what is applied now."""
    ids = dict(newest.ids)
    moved = [feature for feature, one in feature_set.ids if feature in ids and ids[feature] != one]
    columns = {column for lookup in newest.lookups for column in lookup.spine_columns} | {column for column, _ in newest.request}
    if not moved or not columns <= set(events[0].body["row"]):
        return {}
    found = _filled(registry, newest, now.views, _spine(newest, now, events))
    return {
        (row, feature): (VERSION, found[feature][row])
        for feature in moved
        for row in range(len(events))
        if (row, feature) not in wrong and to_json(found[feature][row]) != to_json(offline[feature][row])
    }


def _explained(
    registry: "Registry", feature_set: CompiledSet, views: Mapping[str, CompiledView], events: Sequence[Event],
    wrong: set[tuple[int, str]], offline: Mapping[str, list],
) -> dict[tuple[int, str], tuple[str, Any]]:  # fmt: skip
    """The cause of each cell of `wrong`: by computing its vector from what its views had, and from what featreg had by then."""
    causes = {}
    rows = sorted({row for row, _ in wrong})
    chosen = [events[row] for row in rows]
    number = {row: n for n, row in enumerate(rows)}
    had = _from_what_was(registry, feature_set, views, chosen, of_view=True) if chosen else {}
    there = _from_what_was(registry, feature_set, views, chosen, of_view=False) if chosen else {}
    for row, feature in wrong:
        logged, wanted = events[row].body["values"][feature], offline[feature][row]
        if events[row].body["status"][feature] == MISSING_STATUS:
            cause = MISSING
        elif to_json(had[feature][number[row]]) != logged:
            cause = LOGIC
        else:
            cause = STALE if to_json(there[feature][number[row]]) == to_json(wanted) else LATE
        causes[row, feature] = (cause, wanted)
    return causes


def _filled(registry: "Registry", feature_set: CompiledSet, views: Mapping[str, CompiledView], spine: pa.Table) -> dict[str, list]:
    finder = SourceFinder(registry.engine, registry.profile, {})

    def relation_of(view: CompiledView) -> tuple[Relation, int]:
        return finder.find(view.scan.source, finder.batched_until(view))

    table, _ = fill(registry.engine, feature_set, views, relation_of, check_spine(spine, _AS_OF, feature_set))
    return {name: table[name].to_pylist() for name in feature_set.names}


def _spine(feature_set: CompiledSet, compiled: Compiled, events: Sequence[Event]) -> pa.Table:
    rows = [row_from_json(event.body["row"]) for event in events]
    return spine_of_rows(feature_set, compiled.views, rows, [event.body["as_of"] for event in events], _AS_OF)


def _from_what_was(
    registry: "Registry", feature_set: CompiledSet, views: Mapping[str, CompiledView], events: Sequence[Event], of_view: bool
) -> dict[str, list]:
    """The vectors from the rows that their views had, or else from those that featreg had when they were served.

    Every vector has a history of its own, so each becomes a key of its own: one sweep, whatever their number.
    """
    engine, count = registry.engine, len(events)
    columns: dict[str, Column] = {}
    rows = [row_from_json(event.body["row"]) for event in events]
    for lookup in feature_set.lookups:
        view = views[lookup.view]
        held = [event.body["views"][lookup.view] for event in events]
        cadence = view.cadence
        cutoffs = [
            one["cutoff"] if of_view and one["cutoff"] is not None else cadence.cutoff(event.body["as_of"])
            for event, one in zip(events, held)
        ]
        relation = _histories(registry, view, lookup, rows, events, held, of_view)
        vector = DataType("BIGINT")
        source = view.scan.source
        keyed = source.model_copy(update={"columns": (*source.columns, (_VECTOR, vector))})
        alone = replace(view, key=((_VECTOR, vector),), scan=replace(view.scan, source=keyed, keys=((_VECTOR, vector),)))
        spine = Spine(pa.table({_VECTOR: pa.array(range(count), pa.int64())}), np.array(cutoffs, np.int64) + cadence.delay)
        found, _ = look_up(engine, replace(lookup, spine_columns=(_VECTOR,)), alone, (relation, count), spine, None, None)
        columns |= found
    if feature_set.derived:
        request = _spine_request(feature_set, rows)
        columns |= derive_columns(in_order(feature_set), {**columns, **request}, count)
    return {name: columns[name].arrow().to_pylist() for name in feature_set.names}


def _spine_request(feature_set: CompiledSet, rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    found = {}
    for name, kind in feature_set.request:
        table = pa.table({name: pa.array([row[name] for row in rows], arrow_type(kind))})
        found[name] = as_column(request_column(table, name, kind, "the log"), kind)
    return found


def _histories(
    registry: "Registry", view: CompiledView, lookup: Lookup, rows: Sequence[Mapping[str, Any]], events: Sequence[Event],
    held: Sequence[Mapping[str, Any]], of_view: bool,
) -> Relation:  # fmt: skip
    """Each vector's own rows of its source, under its number."""
    source, engine = view.scan.source, registry.engine
    finder = SourceFinder(engine, registry.profile, {})
    log = PushLog(registry.profile.push_path(source.name))
    records = list(log.heads())
    places = [START, *(record.position for record in records)]
    times = np.maximum.accumulate([record.at for record in records]) if records else np.zeros(0, np.int64)

    def until(event: Event, one: Mapping[str, Any]) -> Position:
        """Up to where the log counts."""
        if not of_view:
            return places[int(np.searchsorted(times, event.at, "right"))]
        return START if one["log"] is None else Position(*one["log"])

    kinds, key_columns = [kind for _, kind in view.scan.keys], [column for column, _ in view.scan.keys]
    keys = {
        f"k{i}": pa.array([row[column] for row in rows], arrow_type(kind))
        for i, (column, kind) in enumerate(zip(lookup.spine_columns, kinds))
    }
    batched = [_ALL if not of_view else -_ALL if one["batched"] is None else one["batched"] for one in held]
    had = [until(event, one) for event, one in zip(events, held)]
    numbers = {_VECTOR: pa.array(range(len(rows)), pa.int64())}
    bounds = {"segment": pa.array([one.segment for one in had], pa.string()), "upto": pa.array([one.end for one in had], pa.int64())}
    bounds["batched"] = pa.array(batched, pa.int64())
    engine.register("featreg_served", pa.table(numbers | keys | bounds))
    part: Relation | None = None
    if (found := finder.of_log(source, log, START, None, "history", with_marks=True)) is not None:
        pushed = found[0]
        had_all_before = f"{quote(SEGMENT)} < featreg_served.segment"
        reached = f"({had_all_before} OR ({quote(SEGMENT)} = featreg_served.segment AND {quote(END)} <= featreg_served.upto))"
        since = "batched" if source.stream_mode == "until_batch" else None
        part = _own(source, pushed, held_sql(source, pushed, key_columns, reached, since, None))
    if source.name in registry.profile.sources:
        files = finder.files_alone(source)
        before = log.boundary() if records and source.stream_mode != "until_batch" else None
        own = _own(source, files, held_sql(source, files, key_columns, "TRUE", None, "batched"))
        part = replace(own, before=before, beside=part)
    return part if part is not None else replace(finder.nothing(source), text=_nothing(engine, source))


def _own(source: EventSource, relation: Relation, text: str) -> Relation:
    known = {name.lower() for name in source.types} | ({ARRIVED} if source.arrives else set())
    columns = tuple((name, kind) for name, kind in relation.columns if name.lower() in known)
    return replace(relation, text=text, columns=(*columns, (_VECTOR, "BIGINT")), since=None, before=None, beside=None, files=None)


def _nothing(engine: Any, source: Any) -> str:
    table = pa.table({name: pa.array([], arrow_type(kind)) for name, kind in (*source.columns, (_VECTOR, DataType("BIGINT")))})
    engine.register("featreg_history", table)
    return quote("featreg_history")

