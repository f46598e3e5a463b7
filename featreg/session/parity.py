"""Compare online with offline: the store's bytes against a fresh scan, cell by cell, bit for bit."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from featreg.compile import CompiledSet
from featreg.errors import UsageError
from featreg.instants import format_instant
from featreg.plan.online import ViewState
from featreg.session.answer import Vectors
from featreg.session.sources import SourceFinder
from featreg.session.tables import spine_of_rows
from featreg.session.training_set import check_spine, fill
from featreg.stores.codec import key_decoder

if TYPE_CHECKING:
    from featreg.session.registry import Registry

_MOST_EXAMPLES = 10
_AT = "featreg_as_of"


@dataclass(frozen=True)
class Difference:
    """A cell in which online and offline differ.  is_late: only by rows that came, late, in files that no run has read."""

    feature: str
    key: Mapping[str, Any]
    online: Any
    offline: Any
    is_late: bool = False


@dataclass(frozen=True)
class Parity:
    """What a comparison found.  Every cell agrees, is late, or differs.

    late: cells that lack rows from before the watermark, which came in files that no run has read; the next run takes them in.
    differing: cells that nothing explains.  by_feature, late_by_feature: how many of each · examples: the first ones, late ones last.
    No cells were compared when the store is empty: `is_known` is then False, which is not a pass.
    """

    set: str
    at: int
    keys: int
    cells: int
    differing: int
    late: int
    by_feature: Mapping[str, int]
    late_by_feature: Mapping[str, int]
    examples: tuple[Difference, ...]

    @property
    def agreeing(self) -> int:
        return self.cells - self.differing - self.late

    @property
    def is_known(self) -> bool:
        return self.cells > 0

    def __str__(self) -> str:
        if not self.is_known:
            return f"{self.set}: nothing to compare: the store has no key of its views."
        late = f", {self.late:,} {'is' if self.late == 1 else 'are'} late" if self.late else ""
        return f"{self.set} at {format_instant(self.at)}: {self.agreeing:,} of {self.cells:,} cells agree{late} ({self.keys:,} keys)"


def compare(
    registry: "Registry", name: str, compiled: CompiledSet, sample: int, at: int | None, progress: Callable[[str, int], None] | None = None,
    seed: int = 0,
) -> Parity:  # fmt: skip
    """Read `sample` keys of the store online, fill the same keys offline, compare.

    Offline knows what the store knows: each view up to its own watermark, so views must stand at one.
    Where cells differ, the same is filled from only the files that the store has read: what agrees with that is late.
    at: default the watermark.
    """
    reader = registry.reader()
    set_reader = reader.set_reader(name)
    if reader.is_behind(name):
        raise UsageError(f"{name}: what is applied is not filled yet, and the versions before answer.\n  Run `featreg materialize`.")
    states = {lookup.view.name: lookup.stored_states(reader.store) for lookup in set_reader.lookups}
    is_realtime = all(lookup.view.cadence.is_realtime for lookup in set_reader.lookups)
    watermark = _common_watermark(states, registry.profile.replay if is_realtime else None)
    as_of = watermark if at is None else at
    rows = _sampled(set_reader, reader.store, compiled, sample, random.Random(seed))
    if not rows:
        return Parity(name, as_of, 0, 0, 0, 0, {}, {}, ())
    _, answer = reader.answer(name, rows, as_of)  # nobody is served: it is in no log
    assert isinstance(answer, Vectors)
    vectors = answer.to_arrow()
    spine = spine_of_rows(compiled, registry.applied().compiled.views, rows, [as_of] * len(rows), _AT)
    offline = registry.training_set(name, spine, time=_AT, known_at=watermark, progress=progress).to_arrow()
    found = _differences(compiled, rows, vectors, offline)
    if found:
        read = _filled_from_files_read(registry, name, compiled, spine, states, watermark)
        unlike = None if read is None else {place for place, _ in _differences(compiled, rows, vectors, read)}
        found = [(place, replace(one, is_late=unlike is not None and place not in unlike)) for place, one in found]
    late = Counter(one.feature for _, one in found if one.is_late)
    differing = Counter(one.feature for _, one in found if not one.is_late)
    examples = sorted((one for _, one in found), key=lambda one: one.is_late)[:_MOST_EXAMPLES]
    cells = len(rows) * len(compiled.columns)
    return Parity(name, as_of, len(rows), cells, differing.total(), late.total(), dict(differing), dict(late), tuple(examples))


def _common_watermark(states: Mapping[str, list[ViewState]], replay: int | None) -> int:
    """The instant to compare at.  Raises: UsageError when a view is not materialized, or views stand too far apart.

    replay: how far behind its watermark each view can be read; None when views of `Every` are among them.
    """
    missing = ", ".join(sorted(view for view, groups in states.items() if any(state.watermark is None for state in groups)))
    if missing:
        raise UsageError(f"{missing}: not materialized yet, so there is nothing to compare.\n  Run `featreg materialize`.")
    marks = {view: state.watermark for view, groups in states.items() for state in groups if state.watermark is not None}
    if replay is not None and max(marks.values()) - min(marks.values()) <= replay:  # pushes move each source's views by themselves
        return min(marks.values())
    if len({state.watermark for groups in states.values() for state in groups}) > 1:
        shown = ", ".join(f"{view} at {format_instant(mark)}" for view, mark in marks.items())
        raise UsageError(f"the views stand at different instants ({shown}).\n  Run `featreg materialize` for all of them first.")
    return next(iter(marks.values()))


def _differences(
    compiled: CompiledSet, rows: list[dict[str, Any]], vectors: pa.Table, offline: pa.Table
) -> list[tuple[tuple[str, int], Difference]]:
    """((feature, row), the difference), by feature in declared order, then by row."""
    return [
        ((feature, row), Difference(feature, rows[row], found, wanted))
        for feature, _ in compiled.columns
        for row, (found, wanted) in enumerate(zip(vectors[feature].to_pylist(), offline[feature].to_pylist(), strict=True))
        if not same_bits(found, wanted)
    ]


def _filled_from_files_read(
    registry: "Registry", name: str, compiled: CompiledSet, spine: pa.Table, states: Mapping[str, list[ViewState]], watermark: int
) -> pa.Table | None:
    """The offline answer from only those files that each view's runs have read; None when one of them is gone.

    Of two groups that have read different files the one with fewer is taken: the other's cells agree with all files.
    """
    views = registry.applied().compiled.views
    read = {view: min((sorted(state.files or {}) for state in groups), key=len) for view, groups in states.items()}
    if registry.profile.engine == "spark":
        from featreg.session.distributed_files import frames_of

        frames = frames_of(registry.spark, registry.profile, [(views[view].scan.source, files) for view, files in read.items()])
        if frames is not None:
            return registry.training_set(name, spine, time=_AT, known_at=watermark, sources=frames).to_arrow()
    finder = SourceFinder(registry.engine, registry.profile, {})
    relations = {}
    for view, files in read.items():
        if not all((registry.root / file).is_file() for file in files):
            return None
        source = views[view].scan.source
        relation, log = finder.of_files(source.name, files), finder.log_of(source)
        if log is not None:
            pushed = finder.pushed_rows(source, log[0], finder.batched_until(views[view]))
            relation = pushed if relation is None else replace(finder.before_the_stream(source, relation, pushed), beside=pushed)
        if relation is None:
            return None
        relations[view] = relation
    table, _ = fill(
        registry.engine, compiled, views, lambda view: (relations[view.name], 0), check_spine(spine, _AT, compiled), watermark
    )
    return table


def same_bits(a: Any, b: Any) -> bool:
    """Whether two Python values are the same to the bit: NaN is NaN, and 0.0 is not -0.0."""
    if isinstance(a, float) and isinstance(b, float):
        return np.float64(a).view(np.int64) == np.float64(b).view(np.int64)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same_bits, a, b))
    return type(a) is type(b) and a == b


def _sampled(set_reader: Any, store: Any, compiled: CompiledSet, sample: int, dice: random.Random) -> list[dict[str, Any]]:
    """Rows whose keys are in the store, for each lookup in turn; other columns are taken from other lookups' keys."""
    pools: list[list[tuple]] = []
    for lookup in set_reader.lookups:
        decode = key_decoder([kind for _, kind in lookup.view.key])
        heads = lookup.groups[0].records.head
        pools.append([decode(name[len(heads) :]) for name in _names(store, heads, sample, dice)])
    rows = []
    for i in range(max(map(len, pools), default=0)):
        row: dict[str, Any] = {}
        for pool, lookup in zip(pools, set_reader.lookups):
            key = pool[i % len(pool)] if pool else (None,) * len(lookup.key.columns)
            row |= {column: value for column, value in zip(lookup.key.columns, key) if column not in row}
        row |= {column: _request_value(kind.name, dice) for column, kind in compiled.request}
        rows.append(row)
    return rows[:sample]


def _names(store: Any, prefix: bytes, sample: int, dice: random.Random) -> list[bytes]:
    """Some keys under a prefix, spread over it: a page from each of many random places."""
    first = store.scan(prefix, limit=4 * sample)
    names = [name for name, _ in first]
    if len(first) < 4 * sample:
        return dice.sample(names, min(sample, len(names)))
    found = set(names[: sample // 8])
    low, high = first[0][0], _last(store, prefix)
    width = max(len(low), len(high))
    low_number, high_number = (int.from_bytes(name.ljust(width, b"\0"), "big") for name in (low, high))
    for _ in range(4 * sample):
        if len(found) >= sample:
            break
        start = dice.randint(low_number, high_number).to_bytes(width, "big")
        found |= {name for name, _ in store.scan(prefix, start, limit=4)}
    return sorted(found)[:sample]


def _last(store: Any, prefix: bytes) -> bytes:
    low, high = 0, 1 << 64
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if store.scan(prefix, prefix + middle.to_bytes(9, "big")[1:], limit=1) else (low, middle)
    return prefix + low.to_bytes(9, "big")[1:] + b"\xff"


def _request_value(kind: str, dice: random.Random) -> Any:
    match kind:
        case "DOUBLE" | "FLOAT":
            return dice.uniform(-1000, 1000)
        case "BIGINT" | "INTEGER":
            return dice.randint(-1000, 1000)
        case "BOOLEAN":
            return dice.random() < 0.5
    return None
