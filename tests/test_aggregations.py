"""The laws of all aggregations at once, for every type that each takes: compiled, through tiles, and against the oracle.

A tile is a fold of its rows and a window a merge of its tiles.  So the same rows under hops of a
microsecond (every row a tile), a second, half an hour, a day (one tile) and without a window are the
law that folding is merging singletons; in any order and any portions, put down as bytes and taken up
again, the laws that merging is associative, commutative and has the empty tile for identity.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numba import njit

import featreg
from featreg.algebra.pools import compare_text, is_same_text
from featreg.algebra.schedule import LENGTH_BITS, OVERFLOW
from featreg.algebra.table import AGGREGATIONS
from featreg.compile import CompiledView
from featreg.compile.program import build_program
from featreg.engines.duckdb import DuckDB
from featreg.plan import offline
from featreg.plan.online import plan_run
from featreg.sweep.kept import KeptSweeper, joined, take_rows
from featreg.sweep.stream import Layout, Tally, chunks
from featreg.sweep.words import to_arrow
from featreg.vocabulary import parse_type
from tests.oracle import Feature, OracleOverflow, View, aggregate, lift_all, normal
from tests.test_worlds import bits
from tests.worlds import COLUMNS, DAY, EXTREMES, POOLS, SECOND, arrow_type, from_micros

CUTOFF = 19_800 * DAY
TYPED = {column: text for column, text in COLUMNS.items() if column != "rank"}
ALL = {"world": "BIGINT", "at": "TIMESTAMP", "rank": "BIGINT"} | TYPED
HOPS = {"alone": ("1d", "exact"), "seconds": ("1d", "1s"), "half_hours": ("1d", "30m"), "one": ("1d", "1d"), "all_time": (None, None)}
EMPTY = b""


@pytest.fixture(autouse=True)
def few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backfill of few rows goes the way of many: rows held in shares, windows by spans."""
    monkeypatch.setattr(offline, "SMALL_ROWS", 0)



def pairs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every (aggregation, column) that there is, with its other arguments; two for what has a number."""
    for name, aggregation in AGGREGATIONS.items():
        for column, text in TYPED.items():
            if not aggregation.takes(parse_type(text)):
                continue
            match name:
                case "arg_min" | "arg_max":
                    yield name, column, {"by": "x"}
                    yield name, "s", {"by": column}
                case "first_n" | "last_n" | "top_n":
                    yield name, column, {"n": 2}
                case "histogram":
                    yield name, column, {}
                    yield name, column, {"k": 1}
                case "first" | "last":
                    yield name, column, {}
                    yield name, column, {"ignore_nulls": True}
                case _:
                    yield name, column, {}


PAIRS = {f"{name}_{column}_{'_'.join(map(str, more.values()))}".lower(): (name, column, more) for name, column, more in pairs()}


def spec() -> str:
    """One view per hop, each with every pair."""
    lines = [
        "from featreg import REALTIME, Entity, EventSource, FeatureSet, FeatureView, agg",
        "world = Entity(name='world', key={'world': 'BIGINT'})",
        f"events = EventSource(name='events', columns={ALL!r}, event_time='at', tie_break='rank')",
    ]
    for view, (window, hop) in HOPS.items():
        lines.append(f"{view} = FeatureView(name='{view}', entity=world, source=events, freshness=REALTIME, features={{")
        for feature, (name, column, more) in PAIRS.items():
            arguments = ", ".join([repr(column), *(f"{key}={value!r}" for key, value in more.items())])
            over = "" if window is None else f".over({window!r}, hop={hop!r})"
            lines.append(f"    {feature!r}: agg.{name}({arguments}){over},")
        lines.append("})")
        lines.append(f"{view}_set = FeatureSet(name='{view}', features=[{view}.all()])")
    return "\n".join(lines)


def oracle_view() -> View:
    def read(column: str) -> Any:
        return lambda row: normal(row[column])

    features = tuple(
        Feature(
            feature, name, read(column), read(more["by"]) if "by" in more else None, more.get("n"), more.get("k"),
            more.get("ignore_nulls", False), scale=parse_type(TYPED[column]).scale,
        )
        for feature, (name, column, more) in PAIRS.items()
    )  # fmt: skip
    return View(key=(), event_time="at", features=features, tie_break=("rank",))


ORACLE = oracle_view()


def expected(rows: list[dict[str, Any]]) -> dict[str, object]:
    facts = lift_all(ORACLE, rows)
    answers: dict[str, object] = {}
    for feature in ORACLE.features:
        try:
            answers[feature.name] = bits(aggregate(feature, facts))
        except OracleOverflow:
            answers[feature.name] = "overflow"
    return answers


@st.composite
def tables(draw: Any, most: int = 14) -> list[dict[str, Any]]:
    """Rows of the last half day, with ties of every kind, and values that cancel, overflow, are NULL or NaN."""
    dice = random.Random(draw(st.integers(0, 2**32)))
    extreme = draw(st.integers(0, 5)) == 5
    pools = {}
    for column, text in TYPED.items():
        wild = EXTREMES[text] if extreme and text in EXTREMES else dice.choice(POOLS[text])
        pools[column] = [*dice.sample(wild, min(len(wild), dice.randint(1, 5))), *([None] if dice.random() < 0.6 else [])]
    moments = [CUTOFF - 1 - dice.choice((0, 1, SECOND, 1_799 * SECOND, 7_200 * SECOND, DAY // 2 - 1)) - dice.randrange(3) for _ in range(5)]
    return [
        {"at": from_micros(dice.choice(moments)), "rank": dice.choice((None, 1, 2))}
        | {column: dice.choice(pool) for column, pool in pools.items()}
        for _ in range(draw(st.integers(0, most)))
    ]


def arrow(*worlds: list[dict[str, Any]]) -> pa.Table:
    """The rows of all worlds in one table, each with the number of its world."""
    rows = [row | {"world": number} for number, world in enumerate(worlds) for row in world]
    return pa.table({name: pa.array([row[name] for row in rows], arrow_type(text)) for name, text in ALL.items()})


laws = settings(
    max_examples=30,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("aggregations")
    (root / "features").mkdir()
    (root / "features/all.py").write_text(spec())
    with featreg.open(root) as registry:
        registry.apply()
        yield registry


def test_there_is_a_pair_for_every_aggregation_and_every_type() -> None:
    assert {name for name, _, _ in PAIRS.values()} == set(AGGREGATIONS)
    assert {column for _, column, _ in PAIRS.values()} == set(TYPED)
    assert len(PAIRS) > 150


@pytest.mark.parametrize("hop", HOPS)
def test_every_aggregation_of_every_type_is_what_the_oracle_says_under_every_hop(registry: Any, hop: str) -> None:
    """A backfill of ten worlds, a key each; where cells overflow, the error names one of them."""

    def filled(events: pa.Table, numbers: list[int]) -> Any:
        spine = pa.table({"world": numbers, "as_of": pa.array([CUTOFF] * len(numbers), pa.int64()).cast(pa.timestamp("us", "UTC"))})
        return registry.training_set(hop, spine, time="as_of", sources={"events": events}).table.drop(["world", "as_of"]).to_pylist()

    @settings(laws, max_examples=4)
    @given(st.lists(tables(), min_size=10, max_size=10))
    def check(worlds: list[list[dict[str, Any]]]) -> None:
        wanted, events = [expected(rows) for rows in worlds], arrow(*worlds)
        beyond = [number for number, cells in enumerate(wanted) if "overflow" in cells.values()]
        within = [number for number in range(len(worlds)) if number not in beyond]
        for number, found in zip(within, filled(events, within), strict=True):
            same(hop, wanted[number], {name: bits(value) for name, value in found.items()})
        if beyond:
            with pytest.raises(featreg.OverflowDataError) as raised:
                filled(events, beyond)
            assert wanted[raised.value.key["world"]][raised.value.feature.removesuffix("_1d")] == "overflow"

    check()


def same(where: str, wanted: dict[str, object], found: dict[str, object]) -> None:
    assert len(wanted) == len(found)
    for (feature, left), right in zip(wanted.items(), found.values(), strict=True):  # a window's name is behind the feature's
        assert left == right, f"{where}: {feature}: wanted {left}, found {right}"


# Kept states


class Steps:
    """A key that gets rows in portions; between any two its state is bytes."""

    def __init__(self, engine: DuckDB, view: CompiledView):
        self.engine, self.view = engine, view
        self.program = build_program(view)
        self.sweeper = KeptSweeper(self.program)

    def chunk(self, rows: list[dict[str, Any]]) -> Any:
        """All rows, lifted by the scan that a run makes."""
        relation = self.engine.register("events_of_steps", arrow(rows))
        sql, scan = plan_run(self.view, self.program, None, relation, None, CUTOFF, CUTOFF - DAY)
        layout = Layout((parse_type("BIGINT"),), tuple(item.type for item in self.program.inputs), scan.event_is_visible)
        ((chunk, _, _),) = chunks(self.engine.batches(sql, 1 << 16), layout, Tally())
        assert len(chunk.key_index) == len(rows)
        return chunk

    def state(self, chunk: Any, portions: list[list[int]]) -> bytes:
        """Bring the portions one after another, from bytes to bytes."""
        state = EMPTY
        for number, rows in enumerate(portions):
            words, starts = joined([state or None])
            self.sweeper.bring(words, starts, take_rows(chunk, np.array(rows, np.int64)), 1)
            written, _ = self.sweeper.dump(1, CUTOFF - DAY // 4, number)
            state = bytes(written)
        return state

    def read(self, state: bytes) -> dict[str, object]:
        words, starts = joined([state or None])
        head, head_starts = joined([None])
        results = self.sweeper.read(words, starts, head, head_starts, np.array([CUTOFF], np.int64))
        found: dict[str, object] = {}
        for place, column in enumerate(self.program.columns):
            if results.valid[place, 0] == OVERFLOW:
                found[column.name] = "overflow"
                continue
            array = to_arrow(results.words[place], results.valid[place], column.type, self.sweeper.out_heap, self.sweeper.out_text)
            found[column.name] = bits(array.to_pylist()[0])
        return found


@pytest.mark.parametrize("hop", HOPS)
def test_rows_in_any_order_and_any_portions_from_bytes_to_bytes_are_one_value(registry: Any, hop: str) -> None:
    """bring, dump, load, bring, …, read: to the bit what the oracle says of all rows at once, whoever came first."""
    steps = Steps(registry.engine, registry.applied().compiled.views[hop])

    @laws
    @given(tables(), st.randoms(use_true_random=False))
    def check(rows: list[dict[str, Any]], dice: random.Random) -> None:
        wanted = expected(rows)
        if not rows:
            same(hop, wanted, steps.read(EMPTY))
            return
        chunk = steps.chunk(rows)
        order = list(range(len(rows)))
        dice.shuffle(order)
        cuts = sorted(dice.sample(range(len(rows) + 1), dice.randint(0, min(4, len(rows)))))
        portions = [order[low:high] for low, high in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
        for way in (portions, [order], [[row] for row in order], [sorted(order), []]):
            same(f"{hop} {way}", wanted, steps.read(steps.state(chunk, way)))

    check()


@pytest.mark.parametrize("hop", HOPS)
def test_an_empty_portion_adds_no_byte_and_the_same_way_twice_gives_the_same_bytes(registry: Any, hop: str) -> None:
    """Identity: taking a state up and putting it down again leaves its size; only the entries of a map may lie in another order."""
    steps = Steps(registry.engine, registry.applied().compiled.views[hop])

    @settings(laws, max_examples=10)
    @given(tables())
    def check(rows: list[dict[str, Any]]) -> None:
        if rows:
            chunk, everything = steps.chunk(rows), list(range(len(rows)))
            once, again = steps.state(chunk, [everything]), steps.state(chunk, [everything, [], [], []])
            assert len(once) == len(again)
            assert steps.state(chunk, [everything]) == once
            same(hop, steps.read(once), steps.read(again))

    check()


@njit
def _compared(pool: np.ndarray, a: int, b: int) -> tuple[bool, int]:
    return is_same_text(pool, a, pool, b), compare_text(pool, a, pool, b)


def test_texts_are_the_same_when_every_byte_is() -> None:
    """Of all lengths around those that are compared by words, one byte apart at each place, wherever they stand."""
    for length in range(42):
        text = bytes(random.Random(length).randbytes(length))
        others = [text, text + b"\0", text[:-1], *(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :] for at in range(length))]
        for other in others:
            pool = np.frombuffer(b"???" + text + b"?" + other + b"?" * 8, np.uint8)
            a, b = 3 << LENGTH_BITS | length, (4 + length) << LENGTH_BITS | len(other)
            same, order = _compared(pool.copy(), a, b)
            assert same == (text == other) and (order > 0) - (order < 0) == (text > other) - (text < other)
