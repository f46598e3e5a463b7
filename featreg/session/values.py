"""Show how the values of changed features differ: both versions run on one sampled spine.

The spine is rows of the source as they come, by the hash of what they are, so that a sample is the same every time: their keys,
each as of the microsecond after its row could be seen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from featreg.compile import CompiledView, Lookup
from featreg.compile.difference import Change, ChangeKind, State
from featreg.errors import UsageError
from featreg.instants import format_instant
from featreg.plan.relation import quote
from featreg.plan.scan_sql import VERDICT, VISIBLE, check_sql
from featreg.session.parity import same_bits
from featreg.session.sources import SourceFinder
from featreg.session.training_set import Spine, look_up

if TYPE_CHECKING:
    from featreg.session.registry import Registry

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
_EXAMPLES = 3


@dataclass(frozen=True)
class Example:
    """A row of the spine whose value is another one."""

    key: Mapping[str, Any]
    as_of: str
    before: Any
    after: Any


@dataclass(frozen=True)
class ValueChange:
    """How one feature's values differ on `rows` rows.

    changed, nulls_before: None for a feature that is new, or whose key is another one.
    quantiles: of the difference after - before where both are numbers, of the values for a new feature; at QUANTILES.
    note: what kept the versions from being compared.
    """

    name: str
    rows: int
    changed: int | None
    nulls_before: int | None
    nulls_after: int
    quantiles: tuple[float, ...]
    examples: tuple[Example, ...] = ()
    note: str = ""


def compare_values(registry: "Registry", changes: Iterable[Change], before: State, after: State, number: int) -> tuple[ValueChange, ...]:
    """Each new or semantically changed feature of a view, in the order of the changes.  number: of spine rows for each view.

    Raises: UsageError, DataError for a source that is not here or does not fit a version's contract.
    """
    if number < 1:
        raise UsageError("--values takes a number of rows, 1 or more.")
    from featreg.kernels import use_cache

    use_cache(registry.profile.state)
    by_view: dict[str, list[str]] = {}
    for change in changes:
        view, _, feature = change.name.partition(".")
        if change.kind in (ChangeKind.ADDITIVE, ChangeKind.SEMANTIC) and view in after.compiled.views:
            if feature in after.compiled.views[view].by_name:
                by_view.setdefault(view, []).append(feature)
    finder = SourceFinder(registry.engine, registry.profile, {})
    found: list[ValueChange] = []
    for name, features in by_view.items():
        now, was = after.compiled.views[name], before.compiled.views.get(name)
        spine = _sampled_spine(registry, finder, now, number)
        new = _values(registry, finder, now, features, spine)
        shared = [feature for feature in features if was is not None and feature in was.by_name]
        is_same_key = was is not None and was.key == now.key
        old = _values(registry, finder, was, shared, spine) if was is not None and shared and is_same_key else {}
        note = "" if is_same_key or not shared else "the key is another one, so the versions answer different questions"
        found += [_compared(f"{name}.{feature}", now, spine, old.get(feature), new[feature], note) for feature in features]
    return tuple(found)


def _sampled_spine(registry: "Registry", finder: SourceFinder, view: CompiledView, number: int) -> Spine:
    """Keys `k0`, `k1`, ... and instants, in the order of the instants."""
    source = view.scan.source
    columns = [quote(column) for column, _ in view.scan.keys]
    keys = "".join(f"{column} AS k{i}, " for i, column in enumerate(columns))
    parts = []
    for part in finder.find(source)[0].parts:
        checked = check_sql(source, part, {})[0]
        whole = " AND ".join([f"{quote(VERDICT)} = 0", *(f"{column} IS NOT NULL" for column in columns)])
        parts.append(f"SELECT {keys}{quote(VISIBLE)} AS v FROM ({checked}) WHERE {whole}")
    listed = ", ".join([*(f"k{i}" for i in range(len(columns))), "v"])
    union = " UNION ALL ".join(parts)
    sampled = f"SELECT {listed} FROM ({union}) ORDER BY hash({listed}) LIMIT {number}"
    table = registry.engine.table(f"SELECT * FROM ({sampled}) ORDER BY v, {listed}")
    as_of = np.asarray(table["v"].combine_chunks().cast(pa.int64()), np.int64) + 1
    return Spine(table.drop_columns(["v"]), as_of)


def _values(registry: "Registry", finder: SourceFinder, view: CompiledView, features: Sequence[str], spine: Spine) -> dict[str, list[Any]]:
    if len(spine.as_of) == 0:
        return {feature: [] for feature in features}
    keys = tuple(f"k{i}" for i in range(len(view.key)))
    lookup = Lookup(view.name, keys, tuple((feature, feature) for feature in features))
    columns, _ = look_up(registry.engine, lookup, view, finder.find(view.scan.source), spine, None, None)
    return {feature: columns[feature].arrow().to_pylist() for feature in features}


def _compared(name: str, view: CompiledView, spine: Spine, old: list[Any] | None, new: list[Any], note: str) -> ValueChange:
    nulls_after = sum(value is None for value in new)
    if old is None:
        return ValueChange(name, len(new), None, None, nulls_after, _quantiles(new) if not note else (), note=note)
    unlike = [row for row, (was, now) in enumerate(zip(old, new)) if not same_bits(was, now)]
    differences = [_number(now) - _number(was) for was, now in zip(old, new) if _is_number(was) and _is_number(now)]
    examples = tuple(_example(view, spine, row, old[row], new[row]) for row in unlike[:_EXAMPLES])
    return ValueChange(name, len(new), len(unlike), sum(value is None for value in old), nulls_after, _quantiles(differences), examples)


def _example(view: CompiledView, spine: Spine, row: int, old: Any, new: Any) -> Example:
    key = {part: spine.table[f"k{i}"][row].as_py() for i, (part, _) in enumerate(view.key)}
    return Example(key, format_instant(int(spine.as_of[row])), old, new)


def _quantiles(values: Sequence[Any]) -> tuple[float, ...]:
    """At QUANTILES, each a value that occurs; nothing of no finite number."""
    numbers = sorted(number for value in values if _is_number(value) and np.isfinite(number := _number(value)))
    return tuple(numbers[round(share * (len(numbers) - 1))] for share in QUANTILES) if numbers else ()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _number(value: Any) -> float:
    return float(value)
