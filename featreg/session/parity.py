"""Compare online with offline: the store's bytes against a fresh scan, cell by cell, bit for bit."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from featreg.compile import CompiledSet
from featreg.errors import UsageError
from featreg.instants import format_instant
from featreg.session.tables import key_type
from featreg.stores.codec import key_decoder
from featreg.sweep.words import arrow_type

if TYPE_CHECKING:
    from featreg.session.registry import Registry

_MOST_EXAMPLES = 10
_AT = "featreg_as_of"


@dataclass(frozen=True)
class Parity:
    """What a comparison found.  by_feature: cells that differ · examples: (feature, key, online, offline), the first ones.

    No cells were compared when the store is empty: `is_known` is then False, which is not a pass.
    """

    set: str
    at: int
    keys: int
    cells: int
    differing: int
    by_feature: Mapping[str, int]
    examples: tuple[tuple[str, Mapping[str, Any], Any, Any], ...]

    @property
    def is_known(self) -> bool:
        return self.cells > 0

    def __str__(self) -> str:
        if not self.is_known:
            return f"{self.set}: nothing to compare: the store has no key of its views."
        return (
            f"{self.set} at {format_instant(self.at)}: {self.cells - self.differing:,} of {self.cells:,} cells agree ({self.keys:,} keys)"
        )


def compare(registry: "Registry", name: str, compiled: CompiledSet, sample: int, at: int | None, seed: int = 0) -> Parity:
    """Read `sample` keys of the store online, fill the same keys offline, compare.

    Offline knows what the store knows: each view up to its own watermark, so views must stand at one.
    at: default the watermark.
    """
    reader = registry.reader()
    set_reader = reader.set_reader(name)
    watermarks = {lookup.view.name: lookup.stored_state(reader.store).watermark for lookup in set_reader.lookups}
    if any(watermark is None for watermark in watermarks.values()):
        missing = ", ".join(sorted(view for view, watermark in watermarks.items() if watermark is None))
        raise UsageError(f"{missing}: not materialized yet, so there is nothing to compare.\n  Run `featreg materialize`.")
    if len(set(watermarks.values())) > 1:
        shown = ", ".join(f"{view} at {format_instant(mark)}" for view, mark in watermarks.items() if mark is not None)
        raise UsageError(f"the views stand at different instants ({shown}).\n  Run `featreg materialize` for all of them first.")
    watermark = next(iter(watermarks.values()))
    assert watermark is not None
    as_of = watermark if at is None else at
    rows = _sampled(set_reader, reader.store, compiled, sample, random.Random(seed))
    if not rows:
        return Parity(name, as_of, 0, 0, 0, {}, ())
    vectors = reader.read(name, rows, as_of)
    spine = _spine(rows, compiled, registry, as_of)
    offline = registry.training_set(name, spine, time=_AT, known_at=watermark).to_arrow()
    by_feature: dict[str, int] = {}
    examples: list[tuple[str, Any, Any, Any]] = []
    for feature, _ in compiled.columns:
        expected = offline[feature].to_pylist()
        for row, vector, wanted in zip(rows, vectors, expected):  # type: ignore[arg-type]
            found = vector.values[feature]
            if not same_bits(found, wanted):
                by_feature[feature] = by_feature.get(feature, 0) + 1
                if len(examples) < _MOST_EXAMPLES:
                    examples.append((feature, row, found, wanted))
    return Parity(name, as_of, len(rows), len(rows) * len(compiled.columns), sum(by_feature.values()), by_feature, tuple(examples))


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
        names = _names(store, lookup.prefix, sample, dice)
        pools.append([decode(name[len(lookup.prefix) : -1]) for name in names])
    rows = []
    for i in range(max(map(len, pools), default=0)):
        row: dict[str, Any] = {}
        for pool, lookup in zip(pools, set_reader.lookups):
            key = pool[i % len(pool)] if pool else (None,) * len(lookup.columns)
            row |= {column: value for column, value in zip(lookup.columns, key) if column not in row}
        row |= {column: _request_value(kind.name, dice) for column, kind in compiled.request}
        rows.append(row)
    return rows[:sample]


def _names(store: Any, prefix: bytes, sample: int, dice: random.Random) -> list[bytes]:
    """Some keys under a prefix, spread over it: a page from each of many random places."""
    first = store.scan(prefix, limit=4 * sample)
    names = [name for name, _ in first if name.endswith(b"\0")]
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
        found |= {name for name, _ in store.scan(prefix, start, limit=4) if name.endswith(b"\0")}
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


def _spine(rows: list[dict[str, Any]], compiled: CompiledSet, registry: "Registry", as_of: int) -> pa.Table:
    views = registry.applied().compiled.views
    types = {column: kind for lookup in compiled.lookups for column, (_, kind) in zip(lookup.spine_columns, views[lookup.view].key)}
    columns = {}
    for column, kind in types.items():
        wanted = arrow_type(kind) if kind.name == "TIMESTAMP" else key_type(kind)
        columns[column] = pa.array([row[column] for row in rows], wanted)
    columns |= {column: pa.array([row[column] for row in rows], arrow_type(kind)) for column, kind in compiled.request}
    return pa.table(columns | {_AT: pa.array([as_of] * len(rows), pa.timestamp("us", tz="UTC"))})
