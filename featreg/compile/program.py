"""Build the sweep program of a view: which partials, in which tiles, for which windows.

Features that need the same partial share a slot (count, sum, avg, min and max of a column
are one sum with its extremes); slots that share a hop share tiles and make a group.  Group 0 has one tile
for all of history: features without a window, and those that follow for any trailing
window from one newest-row partial.  Its first slot is the newest event time, which
tells whether a window has a row at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from featreg.algebra import schedule as s
from featreg.algebra.table import AGGREGATIONS
from featreg.compile.compiled import CompiledFeature, CompiledView, Input
from featreg.expressions import Typed, analyze
from featreg.instants import EXACT
from featreg.vocabulary import BIGINT, DataType

FROM_EVENT_TIME, FROM_VISIBLE = -1, -2
WIDE_DIGITS = 18
WIDTHS = {s.COUNT: 1, s.SUM: 5, s.INTEGER_SUM: 3, s.EXTREME: 3, s.MOMENTS: 9, s.WIDE_MOMENTS: 15, s.TALLY: 1}
MOST_IN_TOP_LEVEL = 16


@dataclass(frozen=True)
class Slot:
    """One partial per tile, and what it is made from; equal slots are one."""

    kind: int
    hop: int
    input: Input | None = None
    mask: Input | None = None
    mode: int = 0
    limit: int = 0
    parts: tuple[tuple[int | Input, bool, bool], ...] = ()
    is_text: bool = False

    @property
    def width(self) -> int:
        if self.kind == s.RANKED:
            return 1 + self.limit * (1 + len(self.parts))
        return WIDTHS[self.kind] + (2 if self.has_extremes else 0)

    @property
    def has_extremes(self) -> bool:
        """A sum that keeps the extremes of its values too."""
        return self.kind in (s.SUM, s.INTEGER_SUM) and self.mode > 0


@dataclass(frozen=True)
class Column:
    """One result of the sweep, by its place: an aggregate's value, or (no feature) whether a window has a row."""

    name: str
    type: DataType
    slot: Slot
    window: tuple[int, int]
    final: int
    scale: int = 0


@dataclass(frozen=True)
class SweepProgram:
    """The tables that kernels walk, and what their columns are.

    inputs: what the scan lifts, in order · columns: results in order · presence: column of a window's presence ·
    slots, group_hops: for people to read.
    """

    tables: s.Program
    inputs: tuple[Input, ...]
    columns: tuple[Column, ...]
    presence: dict[tuple[int, int], int]
    slots: tuple[Slot, ...]
    hops: tuple[int, ...]
    shifts: tuple[tuple[int, ...], ...]
    longest: int | None
    kinds: frozenset[int] = field(default=frozenset())


def build_program(
    view: CompiledView, names: Iterable[str] | None = None, wanted: Iterable[str] | None = None, presence: bool = False
) -> SweepProgram:
    """The program that keeps partials for the aggregates `names` and gives results for those `wanted` (default: all)."""
    stored = [f for f in view.features if f.aggregation and (names is None or f.name in set(names))]
    given = [f for f in stored if wanted is None or f.name in set(wanted)]
    slot_of = _shared({f.name: _slot(view, f) for f in stored})
    newest = Slot(s.EXTREME, 0)
    slots = dict.fromkeys((newest, *slot_of.values()))
    windows: dict[Slot, dict[tuple[int, int], None]] = {slot: {} for slot in slots}
    for feature in stored:
        windows[slot_of[feature.name]][_window(feature)] = None
    columns = [_column(feature, slot_of[feature.name]) for feature in given]
    presences: dict[tuple[int, int], int] = {}
    if presence:
        for feature in given:
            presences.setdefault(_window(feature), len(columns) + len(presences))
        columns += [Column("", BIGINT, newest, window, s.AS_PRESENCE) for window in presences]
    windows[newest] |= dict.fromkeys(presences)
    return _lay_out(tuple(slots), windows, tuple(columns), presences)


_OF_FIXED_SIZE = (s.COUNT, s.SUM, s.INTEGER_SUM, s.EXTREME, s.MOMENTS, s.WIDE_MOMENTS)


def program_in_order(program: SweepProgram) -> SweepProgram | None:
    """The program with the same columns for keys whose event times never step back; None where windows need tiles all the same.

    Slots of one input become one whatever their hops are, and the group of all of them is IN_ORDER.
    """
    used = dict.fromkeys(column.slot for column in program.columns)
    if program.presence or any(slot.hop > 0 and slot.kind not in _OF_FIXED_SIZE for slot in used):
        return None
    modes: dict[tuple[int, Input | None], int] = {}
    for slot in used:
        if slot.hop > 0:
            modes[slot.kind, slot.input] = max(slot.mode, modes.get((slot.kind, slot.input), 0))

    def moved(slot: Slot) -> Slot:
        return replace(slot, hop=s.IN_ORDER, mode=modes[slot.kind, slot.input]) if slot.hop > 0 else slot

    columns = tuple(replace(column, slot=moved(column.slot)) for column in program.columns)
    windows: dict[Slot, dict[tuple[int, int], None]] = {}
    for column in columns:
        windows.setdefault(column.slot, {})[column.window] = None
    return _lay_out(tuple(windows), windows, columns, {}, program.inputs)


def _window(feature: CompiledFeature) -> tuple[int, int]:
    return (-1, EXACT) if feature.window is None else (feature.window, feature.hop or EXACT)


def _is_wide(data_type: DataType) -> bool:
    return data_type.name == "DECIMAL" and data_type.precision > WIDE_DIGITS


def _is_text(data_type: DataType) -> bool:
    return data_type.name == "VARCHAR" or _is_wide(data_type)


def _slot(view: CompiledView, f: CompiledFeature) -> Slot:
    """The partial that answers a feature."""
    aggregation = AGGREGATIONS[f.aggregation]
    hop = 0 if f.window is None or aggregation.newest else f.hop or EXACT
    if f.aggregation == "count":
        return Slot(s.COUNT, hop, Input(f.column, f.where) if f.column is not None or f.where is not None else None)
    assert f.column is not None
    lifted, text = Input(f.column, f.where), _is_text(f.column.type)
    match aggregation.kind:
        case "sums":
            kind = s.SUM if f.column.type.name == "DOUBLE" else s.WIDE_MOMENTS if text else s.INTEGER_SUM
            return Slot(kind, hop, lifted, is_text=text)
        case "moments":
            return Slot(s.MOMENTS if f.column.type.name == "DOUBLE" else s.WIDE_MOMENTS, hop, lifted, is_text=text)
        case "extremes" if not text:
            return Slot(s.EXTREME, hop, lifted)
        case "tally":
            return Slot(s.TALLY, hop, lifted, mode=1 if aggregation.newest else 0, limit=f.limit, is_text=text)
    ties = tuple(
        (Input(_column_of(view, name), None), _is_text(view.scan.source.types[name]), False) for name in view.scan.source.tie_break
    )
    moment = ((FROM_EVENT_TIME, False, False), (FROM_VISIBLE, False, False), *ties) if aggregation.ordered else ()
    required = f.aggregation not in ("first", "last") or f.ignore_nulls
    by = ((Input(f.by, f.where), _is_text(f.by.type), True),) if f.by is not None else ()
    parts = (*by, *moment, (lifted, text, required))
    mask = Input(None, f.where) if f.where is not None and not required else None
    last = f.aggregation in ("last", "last_n", "top_n", "arg_max", "max")
    return Slot(s.RANKED, hop, None, mask, 1 if last else -1, f.limit or 1, parts)


def _column_of(view: CompiledView, name: str) -> Typed:
    return analyze('"' + name.replace('"', '""') + '"', view.scan.source.types)


_OF_ONE_COLUMN = (s.SUM, s.INTEGER_SUM, s.WIDE_MOMENTS, s.EXTREME, s.COUNT)  # each has in it what those after it keep


def _shared(slots: Mapping[str, Slot]) -> dict[str, Slot]:
    """One partial for all that is kept of a column: a sum counts, and has the extremes with it where they are asked for."""
    together: dict[tuple[int, Input | None], dict[int, Slot]] = {}
    for slot in slots.values():
        if slot.kind in _OF_ONE_COLUMN:
            together.setdefault((slot.hop, slot.input), {})[slot.kind] = slot

    def shared(slot: Slot) -> Slot:
        mates = together[slot.hop, slot.input] if slot.kind in _OF_ONE_COLUMN else {}
        if slot.kind in (s.COUNT, s.EXTREME, s.SUM, s.INTEGER_SUM):
            for kind in (s.SUM, s.INTEGER_SUM):
                if kind in mates:
                    return replace(mates[kind], mode=int(s.EXTREME in mates))
        if slot.kind == s.COUNT:
            return next((mates[kind] for kind in _OF_ONE_COLUMN if kind in mates), slot)
        return slot

    return {name: shared(slot) for name, slot in slots.items()}


_FINALS = {
    "count": s.AS_COUNT,
    "avg": s.AS_AVG,
    "var": s.AS_VAR,
    "stddev": s.AS_STDDEV,
    "count_distinct": s.AS_DISTINCT,
    "histogram": s.AS_MAP,
}


def _column(f: CompiledFeature, slot: Slot) -> Column:
    final = _FINALS.get(f.aggregation, s.AS_LIST if f.type.name == "LIST" else s.AS_VALUE)
    if slot.kind != s.RANKED and f.aggregation in ("min", "all", "max", "any"):
        final = s.AS_LOWEST if f.aggregation in ("min", "all") else s.AS_HIGHEST
    if f.aggregation == "sum":
        final = s.AS_WIDE_SUM if f.type.name == "DECIMAL" else s.AS_SUM
    scale = f.column.type.scale if f.column is not None else 0
    return Column(f.name, f.type, slot, _window(f), final, scale)


def level_shifts(hop: int, longest: int) -> tuple[int, ...]:
    """How far each level's tile numbers are shifted: 8 tiles to one, until the longest window holds a handful.

    The finest tiles of an exact window are its rows; the level above them is some 4096 to a window.
    """
    if hop in (0, s.IN_ORDER):
        return (0,)
    if hop == EXACT:
        top = max(0, (longest // MOST_IN_TOP_LEVEL).bit_length())
        return (0, *(shift for shift in (top - 9, top - 6, top - 3, top) if shift > 0))
    shifts = [0]
    while longest // hop >> shifts[-1] > MOST_IN_TOP_LEVEL:
        shifts.append(shifts[-1] + 3)
    return tuple(shifts)


def _lay_out(
    slots: tuple[Slot, ...],
    windows: dict[Slot, dict[tuple[int, int], None]],
    columns: tuple[Column, ...],
    presence: dict[tuple[int, int], int],
    lifted: tuple[Input, ...] | None = None,
) -> SweepProgram:
    """Number slots, windows and inputs; those that are lifted already keep their numbers."""
    hops = tuple(dict.fromkeys((*((0,) if lifted is None else ()), *sorted(slot.hop for slot in slots))))
    ordered = tuple(slot for hop in hops for slot in slots if slot.hop == hop)
    inputs = {item: number for number, item in enumerate(lifted or ())}
    parts: list[tuple[int, int, int]] = []
    slot_rows: list[tuple[int, ...]] = []
    group_rows: list[tuple[int, ...]] = []
    window_rows: list[tuple[int, int]] = []
    shifts: list[tuple[int, ...]] = []
    local: dict[tuple[int, tuple[int, int]], int] = {}

    def number(item: Input | None) -> int:
        return -1 if item is None else inputs.setdefault(item, len(inputs))

    for g, hop in enumerate(hops):
        mine = [slot for slot in ordered if slot.hop == hop]
        group_windows = list(dict.fromkeys(window for slot in mine for window in windows[slot]))
        longest = max((width for width, _ in group_windows), default=0)
        bounded = hop > 0 and all(width >= 0 for width, _ in group_windows)
        levels = level_shifts(hop, longest)
        group_rows.append(
            (
                hop,
                len(levels),
                longest if bounded else -1,
                sum(len(levels) for levels in shifts),
                len(window_rows),
                len(group_windows),
                len(slot_rows),
                len(mine),
            )
        )
        shifts.append(levels)
        for window in group_windows:
            local[g, window] = len(window_rows) - group_rows[-1][s.GROUP_FIRST_WINDOW]
            window_rows.append(window)
        for slot in mine:
            span = -1 if any(width < 0 for width, _ in windows[slot]) else max((w + h for w, h in windows[slot]), default=0)
            slot_rows.append(
                (
                    slot.kind,
                    g,
                    slot.width,
                    number(slot.input),
                    number(slot.mask),
                    slot.mode,
                    slot.limit,
                    len(parts),
                    len(slot.parts),
                    span,
                    slot.is_text,
                )
            )
            parts += [(part if isinstance(part, int) else number(part), text, required) for part, text, required in slot.parts]
    routes = np.zeros((len(ordered), max((row[s.GROUP_WINDOWS] for row in group_rows), default=0), 2), np.int64)
    output_rows: list[tuple[int, int, int, int]] = []
    for i, slot in enumerate(ordered):
        for window in windows[slot]:
            results = [(c, column) for c, column in enumerate(columns) if column.slot == slot and column.window == window]
            routes[i, local[hops.index(slot.hop), window]] = (len(output_rows), len(results))
            output_rows += [(column.final, c, column.scale, _gives_double(column)) for c, column in results]
    tables = s.Program(
        _table(group_rows, s.GROUP_FIELDS),
        np.array([shift for levels in shifts for shift in levels], np.int64),
        _table(window_rows, 2),
        _table(slot_rows, s.SLOT_FIELDS),
        _table(parts, 3),
        routes,
        _table(output_rows, 4),
    )
    all_windows = [width for slot in slots for width, _ in windows[slot]]
    unbounded = any(width < 0 for width in all_windows)
    span_of_all = None if unbounded else max((w + h for slot in slots for w, h in windows[slot]), default=0)
    kinds = frozenset(slot.kind for slot in ordered) | ({s.SPANS} if s.IN_ORDER in hops else set())
    return SweepProgram(tables, tuple(inputs), columns, presence, ordered, hops, tuple(shifts), span_of_all, kinds)


def _gives_double(column: Column) -> int:
    element = column.type.element or column.type
    return int(element.name == "DOUBLE")


def _table(rows: Sequence[tuple[int, ...]], fields: int) -> np.ndarray:
    return np.array(rows, np.int64).reshape(len(rows), fields)
