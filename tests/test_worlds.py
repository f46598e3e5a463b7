"""The product, through its public API alone, against the oracle in random worlds.

    sweep = oracle · Python spec = SQL spec · online after any materialize steps = training set at that instant

Equality is to the bit, of types too.  A failing world is shrunk and printed whole: spec, events, spine, the first cell that differs.
"""

import ast
import re
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis.errors import UnsatisfiedAssumption

import featreg
from featreg.plan import offline
from featreg.plan.offline import plan_backfill
from featreg.session import training_set
from tests import oracle
from tests.oracle import OracleOverflow
from tests.worlds import AGGREGATIONS, KEY_TYPES, Step, World, arrow_type, from_micros, seeded_world, worlds, worlds_in_steps

_NUMBERS = count()
SET = "world_set"


# Comparing


@pytest.fixture(autouse=True)
def few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backfill of few rows goes the way of many: rows held in shares, windows by spans."""
    monkeypatch.setattr(offline, "SMALL_ROWS", 0)



def bits(value: object) -> object:
    """A value such that == means bit-identical: doubles by their bytes, True is not 1, an instant in its microseconds."""
    match value:
        case float():
            return ("double", struct.pack("<d", value))
        case bool() | int() | str() | None:
            return (type(value).__name__, value)
        case Decimal():
            return ("decimal", value.as_tuple().exponent, value)
        case datetime():
            return ("instant", oracle.instant(value))
        case date():
            return ("date", value.isoformat())
        case list():
            return ("list", tuple(map(bits, value)))
        case tuple():
            return tuple(map(bits, value))
    raise TypeError(f"no cell holds a {type(value)}")


def same_type(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether two Arrow types are one, but for the names of a list's or map's children."""
    if pa.types.is_map(wanted):
        return pa.types.is_map(found) and same_type(found.key_type, wanted.key_type) and same_type(found.item_type, wanted.item_type)
    if pa.types.is_list(wanted):
        return pa.types.is_list(found) and same_type(found.value_type, wanted.value_type)
    return found == wanted


def first_difference(names: Sequence[str], wanted: Sequence[Mapping[str, object]], found: Sequence[Mapping[str, object]]) -> str | None:
    """The first cell that differs, in words."""
    if len(wanted) != len(found):
        return f"{len(wanted)} rows wanted, {len(found)} found"
    for number, (left, right) in enumerate(zip(wanted, found, strict=True)):
        for name in names:
            if bits(left[name]) != bits(right[name]):
                return f"row {number}, {name}: wanted {_told(left[name])}, found {_told(right[name])}"
    return None


def _told(value: object) -> str:
    return f"{value!r} ({value.hex()}, {struct.pack('>d', value).hex()})" if isinstance(value, float) else repr(value)


def check_table(world: World, table: pa.Table, wanted: Sequence[Mapping[str, object]], spine: pa.Table) -> None:
    """The spine's columns as they were, then the features in order, each of its type, each cell to the bit."""
    assert table.column_names == [*spine.column_names, *world.types]
    assert table.num_rows == spine.num_rows
    for name in spine.column_names:
        assert table.schema.field(name).type == spine.schema.field(name).type, f"spine column {name}"
        assert [bits(v) for v in table[name].to_pylist()] == [bits(v) for v in spine[name].to_pylist()], f"spine column {name}"
    for name, type_text in world.types.items():
        found = table.schema.field(name).type
        assert same_type(found, arrow_type(type_text)), f"{name} is a {found}, and {type_text} is declared"
    difference = first_difference(list(world.types), wanted, table.select(list(world.types)).to_pylist())
    assert difference is None, difference


@contextmanager
def shown(world: World, *more: object) -> Iterator[None]:
    """Whatever goes wrong inside is told together with the world it went wrong in."""
    try:
        yield
    except (UnsatisfiedAssumption, KeyboardInterrupt):
        raise
    except Exception as error:
        text = "\n".join(["", f"{type(error).__name__}: {error}", "", world.shown(), *map(str, more)])
        raise AssertionError(text) from error


# Repositories


@contextmanager
def repository(parent: Path, files: Mapping[str, str]) -> Iterator[Path]:
    """A directory with these files, gone afterwards."""
    root = parent / f"world{next(_NUMBERS)}"
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def in_python(world: World) -> dict[str, str]:
    return {"features/world.py": world.python}


def in_sql(world: World) -> dict[str, str]:
    return {"features/world.py": world.base} | {f"features/{name}": text for name, text in world.sql.items()}


def draft(root: Path, world: World) -> pa.Table:
    with featreg.open(root) as registry:
        return registry.training_set(SET, world.spine, time="as_of", draft=True, sources={"events": world.events}).to_arrow()


# The claims


def check_sweep(parent: Path, world: World) -> None:
    with shown(world), repository(parent, in_python(world)) as root:
        if world.overflows:
            with pytest.raises(featreg.OverflowDataError):
                draft(root, world)
        else:
            check_table(world, draft(root, world), world.expected(), world.spine)


def test_the_sweep_returns_what_the_double_loop_over_all_rows_returns(tmp_path: Path, try_worlds: Callable[..., None]) -> None:
    """Backfill = definition, in small worlds that shrink."""
    try_worlds(lambda world: check_sweep(tmp_path, world), worlds())


def test_rows_that_the_engine_sorts_give_what_the_double_loop_gives(tmp_path, try_worlds, monkeypatch) -> None:
    """The way of what does not fit into memory: as if there were room for no event at all."""
    monkeypatch.setattr(training_set, "plan_backfill", lambda *arguments: replace(plan_backfill(*arguments), room=0))
    try_worlds(lambda world: check_sweep(tmp_path, world), worlds(), share=0.25)


def test_the_sweep_equals_the_oracle_in_larger_worlds(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Hundreds of rows: many tiles, many merges, more than one batch of values to a key."""
    first = 1000 * pytestconfig.getoption("--world-seed")
    for seed in range(first, first + max(1, pytestconfig.getoption("--worlds") // 15)):
        world = seeded_world(seed)
        try:
            check_sweep(tmp_path, world)
        except AssertionError as error:
            raise AssertionError(f"seeded_world({seed})\n{error}") from error


def test_a_view_in_sql_has_the_values_and_the_definition_ids_of_the_view_in_python(tmp_path: Path, try_worlds: Callable[..., None]) -> None:
    """Two spellings, one meaning."""

    def check(world: World) -> None:
        spellings = []
        with shown(world, *world.sql.values()):
            for files in (in_python(world), in_sql(world)):
                with repository(tmp_path, files) as root, featreg.open(root) as registry:
                    spellings.append(registry.ids(draft=True))
                    if not world.overflows:
                        table = registry.training_set(
                            SET, world.spine, time="as_of", draft=True, sources={"events": world.events}
                        ).to_arrow()
                        check_table(world, table, world.expected(), world.spine)
            assert spellings[0] == spellings[1]
            assert set(spellings[0]) >= {f"{each.view.name}.{name}" for each in world.chosen for name in each.view.types}

    try_worlds(check, worlds(most_events=8, most_spine=3), share=0.5)


def test_online_after_any_steps_is_the_training_set_at_that_instant(tmp_path: Path, try_worlds: Callable[..., None]) -> None:
    """After each run: store = training set known at the watermark = oracle, at instants on both sides of the watermark."""

    def check(drawn: tuple[World, list[Step]]) -> None:
        world, steps = drawn
        story = [
            f"rows {step.rows}, materialize(to={from_micros(step.to)}), read at {[str(from_micros(at)) for at in step.reads]}"
            for step in steps
        ]
        with shown(world, "steps", *story), repository(tmp_path, in_python(world) | _profile()) as root:
            arrived: list[int] = []
            with featreg.open(root) as registry:
                registry.apply()
                for number, step in enumerate(steps):
                    arrived += step.rows
                    pq.write_table(world.events.take(pa.array(step.rows, pa.int64())), root / f"data/part_{number}.parquet")
                    registry.materialize(to=from_micros(step.to))
                    for at in step.reads:
                        check_read(registry, world, [world.event_rows[n] for n in arrived], step.to, at)

    try_worlds(check, worlds_in_steps(), share=0.5)


def check_read(registry: object, world: World, rows: Sequence[Mapping[str, object]], watermark: int, at: int) -> None:
    spine_rows = [dict(row) | {"as_of": from_micros(at)} for row in world.spine_rows]
    place = f"watermark {from_micros(watermark)}, at {from_micros(at)}"
    wanted = world.expected(known_at=watermark, rows=rows, spine=spine_rows)
    keys = [{name: value for name, value in row.items() if name not in ("row_label", "as_of")} for row in spine_rows]
    if keys:
        compare_online(place, world, wanted, registry.online(SET, keys, at=from_micros(at)))
        compare_online(f"{place}, one key", world, wanted[:1], [registry.online(SET, keys[0], at=from_micros(at))])
    spine = _at(world.spine, at)
    if any(isinstance(value, OracleOverflow) for row in wanted for value in row.values()):
        with pytest.raises(featreg.OverflowDataError):
            registry.training_set(SET, spine, time="as_of", known_at=from_micros(watermark))
        return
    table = registry.training_set(SET, spine, time="as_of", known_at=from_micros(watermark)).to_arrow()
    try:
        check_table(world, table, wanted, spine)
    except AssertionError as error:
        raise AssertionError(f"training_set, {place}: {error}") from error


def compare_online(place: str, world: World, wanted: Sequence[Mapping[str, object]], vectors: Sequence[object]) -> None:
    assert len(vectors) == len(wanted), f"{place}: {len(vectors)} vectors for {len(wanted)} keys"
    for number, (row, vector) in enumerate(zip(wanted, vectors, strict=True)):
        assert list(vector.values) == list(world.types), f"{place}: the names of a vector"
        for name, value in row.items():
            status, found = vector.status[name], vector.values[name]
            if isinstance(value, OracleOverflow):
                assert status == "error" and found is None, (
                    f"online, {place}, key {number}, {name}: wanted an error, found {found!r}, {status}"
                )
            else:
                assert status in ("ok", "empty", "stale"), f"online, {place}, key {number}, {name}: {status}"
                assert bits(found) == bits(value), f"online, {place}, key {number}, {name}: wanted {_told(value)}, found {_told(found)}"


def _at(spine: pa.Table, at: int) -> pa.Table:
    index = spine.schema.get_field_index("as_of")
    return spine.set_column(index, "as_of", pa.array([at] * spine.num_rows, pa.int64()).cast(pa.timestamp("us", "UTC")))


def _profile() -> dict[str, str]:
    return {"conf/local.toml": '[sources]\nevents = "data/*.parquet"\n', "data/.keep": ""}


# The worlds themselves


@pytest.fixture(scope="module")
def many() -> list[World]:
    return [seeded_world(seed, most_events=24, most_spine=8, most_features=5) for seed in range(300)]


def test_every_word_of_the_language_is_in_some_world(many: list[World]) -> None:
    """No aggregation, key type, hop, freshness, or kind of arrival is left to luck."""
    text = "\n".join(world.python for world in many)
    for name in AGGREGATIONS:
        assert f"agg.{name.removesuffix('()')}(" in text
    for word in (
        "where=",
        "ignore_nulls=True",
        "hop='exact'",
        "hop='7s'",
        "Every(",
        "REALTIME",
        "Delay(",
        "available='seen_at'",
        "tie_break=",
        ".prefix(",
    ):
        assert word in text
    for word in (".on(k=", "thing.on(", "derive(", "derived=", "request=", "within=", "max_rejected", ".over(None", "DATE"):
        assert word in text
    keys = Counter(tuple(type_text for _, type_text in _key(world)) for world in many)
    assert set(keys) == set(KEY_TYPES)


def _key(world: World) -> list[tuple[str, str]]:
    return list(ast.literal_eval(re.search(r"Entity\(name='thing', key=(\{.*?\})\)", world.python)[1]).items())


def test_worlds_have_no_rows_one_row_late_rows_ties_and_overflows(many: list[World]) -> None:
    assert any(not world.event_rows for world in many) and any(len(world.event_rows) == 1 for world in many)
    assert any(not world.spine_rows for world in many) and any(len(world.spine_rows) == 1 for world in many)
    assert any(world.overflows for world in many)
    assert any(None in row.values() for world in many for row in world.spine_rows)
    assert sum(len({str(row) for row in world.event_rows}) < len(world.event_rows) for world in many) > 20
    assert sum(any(row["as_of"] < from_micros(0) for row in world.spine_rows) for world in many) > 20


def test_a_world_is_the_same_for_the_same_seed() -> None:
    one, two = seeded_world(7), seeded_world(7)
    assert (one.python, one.sql, one.event_rows, one.spine_rows) == (two.python, two.sql, two.event_rows, two.spine_rows)
    assert one.events.equals(two.events) and one.spine.equals(two.spine)


def _closed_top(event_at: int, visible: int, cutoff: int, window: int | None, hop: int) -> bool:
    return visible <= cutoff and (window is None or oracle.floor_to(cutoff - window, hop) <= event_at)


def _open_bottom(event_at: int, visible: int, cutoff: int, window: int | None, hop: int) -> bool:
    return visible < cutoff and (window is None or oracle.floor_to(cutoff - window, hop) < event_at)


def _no_hop(event_at: int, visible: int, cutoff: int, window: int | None, hop: int) -> bool:
    return visible < cutoff and (window is None or cutoff - window <= event_at)


def _visible_in_window(event_at: int, visible: int, cutoff: int, window: int | None, hop: int) -> bool:
    return visible < cutoff and (window is None or oracle.floor_to(cutoff - window, hop) <= visible)


def _event_time_only(event_at: int, visible: int, cutoff: int, window: int | None, hop: int) -> bool:
    return event_at < cutoff and (window is None or oracle.floor_to(cutoff - window, hop) <= event_at)


def _nan_lowest(value: object) -> tuple[int, object]:
    place, payload = oracle_rank(value)
    return (-1, 0) if place == 2 else (place, payload)


def _utf16(value: object) -> tuple[int, object]:
    return (1, value.encode("utf-16-be")) if isinstance(value, str) else oracle_rank(value)


oracle_rank = oracle.rank
oracle_cutoff = oracle.cutoff_at


@pytest.mark.parametrize(
    "part, near_miss",
    [
        ("counts", _closed_top),
        ("counts", _open_bottom),
        ("counts", _no_hop),
        ("counts", _visible_in_window),
        ("counts", _event_time_only),
        ("cutoff_at", lambda view, as_of, known_at=None: as_of),
        ("cutoff_at", lambda view, as_of, known_at=None: oracle_cutoff(view, as_of - 1, known_at) if view.period else as_of),
        ("visible_at", lambda event_at, available: event_at if available is None else available),
        ("hop_of", lambda feature: 1_000_000),
        ("floor_to", lambda at, hop: int(at / hop) * hop),
        ("rank", _nan_lowest),
        ("rank", _utf16),
        ("normal", lambda value: value),
    ],
)
def test_the_worlds_tell_the_rule_from_its_near_misses(
    monkeypatch: pytest.MonkeyPatch, many: list[World], part: str, near_miss: Callable[..., object]
) -> None:
    """An oracle with one mistake in it disagrees with the true one somewhere: so would a product with that mistake."""
    many = many + [seeded_world(seed) for seed in range(10)]
    true = [world.expected() for world in many]
    monkeypatch.setattr(oracle, part, near_miss)
    names = [list(world.types) for world in many]
    assert any(_differ(n, wanted, world.expected()) for n, wanted, world in zip(names, true, many, strict=True))


def _differ(names: Sequence[str], wanted: Sequence[Mapping[str, object]], found: Sequence[Mapping[str, object]]) -> bool:
    def told(row: Mapping[str, object]) -> list[object]:
        return ["overflow" if isinstance(row[name], OracleOverflow) else bits(row[name]) for name in names]

    return any(told(left) != told(right) for left, right in zip(wanted, found, strict=True))
