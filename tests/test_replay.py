"""Realtime is a replay that happens once: what was answered while rows came in is what training sees afterwards, cell by cell.

Bounded here; `--long` feeds all of 2013 in each way, asks 20,000 times on the way, and kills 50 times.
"""

import random
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import featreg
from featreg.cli.flights import prepare_flights
from featreg.registry.push_log import PushLog
from featreg.session import busy_keys
from featreg.session.parity import same_bits
from tests.redis_process import RedisProcess
from tests.service_process import EVERYTHING, ServiceProcess
from tests.shop import Forks, kernel_folder

SPEC = """
from featreg import Delay, Entity, EventSource, FeatureSet, FeatureView, agg, derive

aircraft = Entity(name="aircraft", key={"tailnum": "VARCHAR"})
airport = Entity(name="airport", key={"airport": "VARCHAR"})
departures = EventSource(
    name="departures",
    columns={
        "departed_at": "TIMESTAMP", "known_at": "TIMESTAMP", "tailnum": "VARCHAR", "carrier": "VARCHAR", "flight": "BIGINT",
        "origin": "VARCHAR", "dest": "VARCHAR", "dep_delay": "DOUBLE",
    },
    event_time="departed_at", AVAILABLE
    tie_break=("carrier", "flight"),
    stream="log",
)
by_aircraft = FeatureView(name="by_aircraft", entity=aircraft, source=departures, features={
    "flights": agg.count().over("1d", "7d"),
    "delay": agg.avg("dep_delay").over("1d", "7d"),
    "worst": agg.max("dep_delay").over("30d"),
    "spread": agg.stddev("dep_delay").over("7d"),
    "late": agg.count(where="dep_delay > 15").over("7d"),
    "places": agg.count_distinct("dest").over("7d"),
    "last_origin": agg.last("origin"),
    "late_share": derive("late_7d / flights_7d"),
})
by_airport = FeatureView(name="by_airport", entity=airport.on(airport="origin"), source=departures, features={
    "flights": agg.count().over("15m", "1h", "1d"),
    "delay": agg.avg("dep_delay").over("1h", "1d"),
    "carriers": agg.histogram("carrier", k=3).over("1d"),
    "recent": agg.last_n("dest", 3).over("6h"),
    "late": agg.count(where="dep_delay > 15").over("30m", hop="exact"),
})
model = FeatureSet(name="model", features=[by_aircraft.all(), by_airport.all().on(airport="origin").prefix("o_")])
"""
KINDS = {"known_at": 'available="known_at",', "delay": 'available=Delay("15m"),', "at_once": ""}


SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> pa.Table:
    """Departures of 2013 in order: all of them with --long, else those of ten days."""
    table = pq.read_table(prepare_flights(tmp_path_factory.mktemp("flights"))["departures"])
    if not request.config.getoption("--long"):
        table = table.filter(pc.less(table["departed_at"], pa.scalar(datetime(2013, 1, 11), table["departed_at"].type)))
    return table.sort_by([("departed_at", "ascending"), ("carrier", "ascending"), ("flight", "ascending")])


def repository(root: Path, kind: str) -> Path:
    (root / "features").mkdir(parents=True)
    (root / "features" / "flights.py").write_text(SPEC.replace("AVAILABLE", KINDS[kind]))
    with featreg.open(root) as registry:
        registry.apply()
    return root


def micros(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()


def with_known_at(table: pa.Table, known: np.ndarray) -> pa.Table:
    return table.append_column("known_at", pa.array(known, pa.timestamp("us")))


def ask_at(registry: Any, table: pa.Table, dice: random.Random, begin: int, end: int, moment: int) -> dict:
    """A vector of an aircraft and an airport of rows near the place that the feed has come to."""
    row = table.slice(dice.randrange(max(0, begin - 3_000), end), 1).to_pylist()[0]
    key = {"tailnum": row["tailnum"], "origin": row["origin"]}
    return key | {"moment": moment, "values": registry.online("model", key, at=moment).values}


def differing(registry: Any, asked: Sequence[dict]) -> list[str]:
    """The cells in which what was answered then is not what training sees now."""
    spine = pa.table({
        "tailnum": pa.array([one["tailnum"] for one in asked], pa.string()), "origin": pa.array([one["origin"] for one in asked]),
        "asked_at": pa.array([one["moment"] for one in asked], pa.timestamp("us", "UTC")),
    })  # fmt: skip
    table = registry.training_set("model", spine, time="asked_at").to_arrow()
    names = [name for name in table.column_names if name not in spine.column_names]
    trained = table.select(names).to_pylist()
    assert sum(row["flights_7d"] for row in trained) > 2 * len(asked), "the questions are about something"
    return [
        f"{name} of {one['tailnum']}, {one['origin']} at {one['moment']}: {one['values'][name]!r} was answered, {row[name]!r} is trained"
        for one, row in zip(asked, trained)
        for name in names
        if not same_bits(one["values"][name], row[name])
    ]


REPLAYS = [("at_once", "in order"), ("delay", "in order"), ("known_at", "late"), ("known_at", "twice"), ("at_once", "out of order")]


@pytest.mark.parametrize(("kind", "how"), REPLAYS)
def test_what_was_answered_is_what_is_trained(
    tmp_path: Path, flights: pa.Table, request: pytest.FixtureRequest, kind: str, how: str
) -> None:
    """Rows arrive in portions, questions come between them, and afterwards not one cell is another.

    late: a tenth of the rows is delivered up to two days later, and says so · twice: every push is sent again under its id ·
    out of order: rows overtake each other by up to five minutes.
    """
    count, portion = (20_000, 600) if request.config.getoption("--long") else (400, 60)
    with featreg.open(repository(tmp_path, kind)) as registry:
        asked = replayed(registry, flights, kind, how, count, portion)
        assert differing(registry, asked) == []
    assert len(asked) >= count - 1


def replayed(service: Any, flights: pa.Table, kind: str, how: str, count: int, portion: int) -> list[dict]:
    """Push rows in portions to what pushes and answers, and ask it between them; what it answered."""
    dice = random.Random(f"{kind} {how}")
    chance = np.random.default_rng(dice.randrange(1 << 30))
    departed = micros(flights["departed_at"])
    late = np.where(chance.random(len(departed)) < 0.1, chance.integers(0, 48 * HOUR, len(departed)), 0)
    known = departed + (late if how == "late" else 0) + (SECOND if kind == "known_at" else 0)
    visible = departed + 15 * MINUTE if kind == "delay" else known if kind == "known_at" else departed
    order = np.argsort(visible + (chance.integers(0, 5 * MINUTE, len(visible)) if how == "out of order" else 0), kind="stable")
    table, visible = with_known_at(flights, known).take(order), visible[order]
    first_unseen = np.append(np.minimum.accumulate(visible[::-1])[::-1], visible.max() + HOUR)  # of rows from here on
    begin = 0
    asked: list[dict] = []
    while begin < len(visible):
        end = min(len(visible), begin + dice.randrange(1, 2 * portion))
        rows, name = table.slice(begin, end - begin), f"push {begin}"
        assert service.push("departures", rows, id=name).accepted == end - begin
        if how == "twice":
            assert service.push("departures", rows, id=name).duplicate
        newest, until = int(visible[:end].max()), int(first_unseen[end])
        for _ in range(round(count * end / len(visible)) - len(asked)):
            moment = min(dice.randrange(newest - 9 * MINUTE, newest + HOUR), until)
            asked.append(ask_at(service, table, dice, begin, end, moment))
        begin = end
    return asked


def test_what_was_answered_over_http_from_redis_is_what_is_trained(
    tmp_path: Path, flights: pa.Table, request: pytest.FixtureRequest
) -> None:
    """The same replay through a service in a process of its own: pushes and reads over HTTP, in JSON, from a real redis-server."""
    count, portion = (4_000, 600) if request.config.getoption("--long") else (120, 400)
    root = repository(tmp_path / "shop", "known_at")
    with RedisProcess(tmp_path) as redis:
        (root / "conf").mkdir()
        (root / "conf" / "local.toml").write_text(f'[online]\nstore = "redis"\nurl = "{redis.url()}"\n[serve]\ndeadline = 60.0\n')
        with ServiceProcess(root) as service, featreg.Client(service.url, EVERYTHING, timeout=60) as client:
            asked = replayed(client, flights, "known_at", "late", count, portion)
        with featreg.open(root) as registry:
            assert differing(registry, asked) == []
    assert len(asked) >= count - 1


def feed(root: str, rows: str, portion: int) -> None:
    """Push a file in portions from where the last one came to, each under its id; the one at hand when it was killed is sent again.

    Keys are busy from few rows on.
    """
    busy_keys.CLOSE_ROWS = 8
    progress = Path(root, "progress")
    begin = int(progress.read_text()) if progress.exists() else 0
    table = pq.read_table(rows)
    with featreg.open(root) as registry:
        while begin < table.num_rows:
            registry.push("departures", table.slice(begin, portion), id=f"push {begin}")
            begin += portion
            part = progress.with_suffix(".part")
            part.write_text(str(begin))
            part.replace(progress)


def test_a_pusher_killed_at_any_moment_loses_nothing_and_counts_nothing_twice(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, flights: pa.Table, request: pytest.FixtureRequest
) -> None:
    """kill -9 before, in and after the write to the log and to the views, and while it holds the lease; airports are busy keys."""
    kills, rows = (50, 60_000) if request.config.getoption("--long") else (8, 8_000)
    dice = random.Random(5)
    root, file = repository(tmp_path / "shop", "at_once"), tmp_path / "rows.parquet"
    (root / "conf").mkdir()
    (root / "conf" / "local.toml").write_text('[online]\nreplay = "1d"\n')
    table = with_known_at(flights, micros(flights["departed_at"])).slice(0, rows)
    pq.write_table(table, file)
    forks, portion = Forks(kernel_folder(tmp_path_factory.getbasetemp() / "kernels")), max(20, rows // kills // 50)
    try:
        killed = 0
        for _ in range(kills):
            if forks.kill_after(dice.uniform(0.05, 0.4), "tests.test_replay:feed", str(root), str(file), portion) >= 0:
                break  # a fast machine is done
            killed += 1
        assert killed >= kills // 2, "the feed ended before it was killed often enough"
        assert forks.run("tests.test_replay:feed", str(root), str(file), portion) == 0
    finally:
        forks.close()
    log = PushLog(root / ".featreg" / "registry" / "push" / "departures")
    assert sum(record.rows.num_rows for record in log.read()) == table.num_rows
    newest = int(micros(table["departed_at"]).max())
    with featreg.open(root) as registry:
        asked = [ask_at(registry, table, dice, 0, table.num_rows, newest + (n - 150) * 9 * MINUTE) for n in range(300)]
        assert differing(registry, asked) == []


def push_mine(root: str, rows: str, which: int) -> None:
    table = pq.read_table(rows)
    with featreg.open(root) as registry:
        for begin in range(which * 50, table.num_rows, 100):
            registry.push("departures", table.slice(begin, 50))


def test_two_pushers_at_once_take_turns(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, flights: pa.Table) -> None:
    root, file = repository(tmp_path / "shop", "at_once"), tmp_path / "rows.parquet"
    table = with_known_at(flights, micros(flights["departed_at"])).slice(0, 2_000)
    pq.write_table(table, file)
    pushers = [Forks(kernel_folder(tmp_path_factory.getbasetemp() / "kernels")) for _ in range(2)]
    try:
        for which, pusher in enumerate(pushers):
            pusher.start("tests.test_replay:push_mine", str(root), str(file), which)
        assert [pusher.outcome() for pusher in pushers] == [0, 0]
    finally:
        for pusher in pushers:
            pusher.close()
    dice, newest = random.Random(3), int(micros(table["departed_at"]).max())
    with featreg.open(root) as registry:
        asked = [ask_at(registry, table, dice, 0, table.num_rows, newest + n * MINUTE) for n in range(100)]
        assert differing(registry, asked) == []
        assert sum(one.rows.num_rows for one in registry.pusher("departures").log.read()) == table.num_rows
