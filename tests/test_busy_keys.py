"""A key with many rows that the past still wants costs a push its own rows and a read of now a few, and answers every instant since S."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from featreg.errors import RefusedError, StoreError
from featreg.session import busy_keys
from featreg.session.keys import records_of
from tests.redis_process import RedisProcess
from tests.shop import ENTITY, REALTIME_SET, RECENT, Shop, at, order, spine_of
from tests.test_push import KEYS, LOG, NO_FILES, shop_of, trained
from tests.test_until_batch import PROFILE, UNTIL_BATCH

SECOND = 1 / 60  # in minutes


@pytest.fixture
def soon_busy(monkeypatch: pytest.MonkeyPatch) -> int:
    """A key is busy from so few rows on that small data have busy keys."""
    monkeypatch.setattr(busy_keys, "CLOSE_ROWS", 12)
    return 12


def answered(registry: Any, minutes: float) -> list[dict]:
    return [vector.values for vector in registry.online("model", KEYS, at=at(minutes))]


def records(stored: dict[bytes, bytes], kind: str) -> dict[bytes, bytes]:
    """The records of a kind, of all views' keys."""
    spaces = {key[1:9].hex() for key in stored if key[0] == 1}
    return {key: value for space in spaces for key, value in stored.items() if key.startswith(getattr(records_of(space), kind))}


def sizes_written(registry: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What each write to the store puts, in bytes, from now on."""
    store = registry.pusher("orders").store
    write, sizes = store.write, []

    def counted(puts: Any, *more: Any, **named: Any) -> float:
        puts = list(puts)
        sizes.append(sum(len(value) for _, value in puts))
        return write(puts, *more, **named)

    monkeypatch.setattr(store, "write", counted)
    return sizes


def test_pushes_to_one_key_cost_their_rows_however_many_came_in_the_last_minutes(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows 0.05 s apart, all behind S, and no exact window, whose rows are tiles.  10,000 with --long, and then as busy as in use."""
    count = 10_000 if request.config.getoption("--long") else 200
    if count == 200:
        monkeypatch.setattr(busy_keys, "CLOSE_ROWS", 12)
    spec = ENTITY + LOG + RECENT.replace('"top": agg.top_n("amount", 3).over("1h", hop="exact"),', "") + REALTIME_SET
    shop, dice = Shop(tmp_path, spec, NO_FILES).applied(), random.Random(1)
    with shop.open() as registry:
        registry.push("orders", [order(0, "bob")])
        sizes = sizes_written(registry, monkeypatch)
        for number in range(count):
            registry.push("orders", [order(1 + number * 0.05 * SECOND, "ann", number % 7 / 8)])
        third = count // 3
        assert sum(sizes[-third:]) < 1.1 * sum(sizes[third : 2 * third]), "what a push writes does not grow"
        newest = 1 + count * 0.05 * SECOND
        read = max(map(len, records(shop.stored(), "head").values())) + max(map(len, records(shop.stored(), "state").values()))
        assert read < 20_000, "a read of now has a short head"
        in_pieces = sum(map(len, records(shop.stored(), "piece").values()))
        assert in_pieces > 30 * (count - 2 * busy_keys.CLOSE_ROWS), "the rows are there for reads of the past"
        for minutes in (newest, *(dice.uniform(-8, newest) for _ in range(6))):
            assert answered(registry, minutes) == trained(registry, at(minutes))
        later = 50 + count // 50
        for minutes in range(1, later):
            registry.push("orders", [order(newest + minutes, "ann")])
        assert records(shop.stored(), "piece") == records(shop.stored(), "base") == {}, "what reads of the past want no more is gone"
        assert answered(registry, newest + later) == trained(registry, at(newest + later))
        with pytest.raises(RefusedError, match="the earliest is"):
            answered(registry, newest)


def pushed_anyhow(dice: random.Random, clock: float) -> Iterator[tuple[float, list[dict]]]:
    """Portions of rows of two keys around a clock that goes on: late and NULL ones among them."""
    for _ in range(40):
        clock += dice.random() * dice.choice((0.1, 1, 4))
        rows = []
        for _ in range(dice.choice((1, 2, 9, 40))):
            happened = clock - dice.choice((0, 0, 0, 2, 30)) * dice.random()
            late = dice.choice((0, 0, 0, 1, 5))
            amount = dice.choice((None, 0.1, 1e9, -0.3, 7.0))
            rows.append(order(happened, dice.choice(("ann", "ann", "bob")), amount, dice.choice("abcé"), happened + late))
        yield clock, rows


@pytest.mark.parametrize("seed", range(2))
def test_every_instant_since_s_is_answered_as_trained_whatever_was_pushed(tmp_path: Path, soon_busy: int, seed: int) -> None:
    dice = random.Random(seed)
    shop = shop_of(tmp_path)
    asked = reached = 0
    with shop.open() as registry:
        for number, (clock, rows) in enumerate(pushed_anyhow(dice, 0.0)):
            registry.push("orders", rows)
            if number % 4 == 3:
                reached += bool(records(shop.stored(), "base"))
                for minutes in (clock + 6, clock + 6 - 14 * dice.random(), clock + 300):
                    try:
                        found = answered(registry, minutes)
                    except RefusedError:
                        continue
                    asked += 1
                    assert found == trained(registry, at(minutes)), (number, minutes)
    assert asked >= 10 and reached > 6


def test_rows_of_a_busy_key_give_way_to_files(tmp_path: Path, soon_busy: int) -> None:
    """A run takes the pieces apart: rows that it covers are gone, the others count; and a key of no row in a file is taken apart too."""
    shop = shop_of(tmp_path, UNTIL_BATCH, PROFILE)
    shop.put("none", [])
    with shop.open() as registry:
        registry.materialize(to=at(0))
        for number in range(60):
            registry.push("orders", [order(number / 10 + n / 100, customer, 1.0) for n in range(4) for customer in ("ann", "bob")])
        assert len(records(shop.stored(), "base")) == 2
        assert [one["spent"] for one in answered(registry, 7)] == [240.0, 240.0, None]
        shop.put("some", [order(n / 10, "ann", 0.5) for n in range(31)])  # up to 3.0
        registry.materialize(to=at(3.5))
        assert [one["spent"] for one in answered(registry, 7)] == [0.5 * 31 + 4 * 30 - 1, 4 * 30 - 1, None]
        for number in range(60, 90):
            registry.push("orders", [order(number / 10 + n / 100, "ann", 1.0) for n in range(4)])
        assert answered(registry, 9.5)[0]["spent"] == 0.5 * 31 + 4 * 60 - 1
        assert answered(registry, 4.005)[0]["spent"] == 0.5 * 31 + 4 * 10 - 1 + 1
        shop.put("rest", [order(8.905, "ann", 0.5)])
        registry.materialize(to=at(9.6))
        assert answered(registry, 10)[0]["spent"] == 0.5 * 32 + 3
        assert answered(registry, 10)[1]["spent"] is None
        assert answered(registry, 10) == trained(registry, at(10))
        registry.push("orders", [order(11, "ann", 1.0)])
        assert answered(registry, 12)[0]["spent"] == 0.5 * 32 + 4


def test_a_run_over_files_and_a_log_leaves_busy_keys_whole(tmp_path: Path, soon_busy: int) -> None:
    shop = shop_of(tmp_path, LOG, PROFILE)
    shop.put("before", [order(n / 10 - 100, "ann") for n in range(50)])
    with shop.open() as registry:
        registry.materialize(to=at(0))
        for number in range(90):
            registry.push("orders", [order(number / 10 + n / 100, "ann", number / 8) for n in range(2)])
            if number % 30 == 29:
                registry.materialize(to=at(number / 10))
                for minutes in (number / 10 - 5, number / 10 - 0.3, number / 10 + 1):
                    assert answered(registry, minutes) == trained(registry, at(minutes))
        assert records(shop.stored(), "base")


def test_a_reader_beside_a_pusher_gets_what_is_trained(tmp_path: Path, soon_busy: int) -> None:
    """Pieces come and go while it looks for them: each answer is of one instant of the store."""
    shop, asked, problems = shop_of(tmp_path), [], []
    came_to, done, dice = [1.0], threading.Event(), random.Random(7)

    def read() -> None:
        try:
            with shop.open() as mine:
                while not done.is_set():
                    newest = came_to[0]
                    minutes = newest - dice.random() * min(9.0, newest - 1)
                    asked.append((minutes, answered(mine, minutes)))
        except BaseException as problem:
            problems.append(problem)

    with shop.open() as registry:
        registry.push("orders", [order(1, "ann")])
        reader = threading.Thread(target=read)
        reader.start()
        for number in range(1, 90):
            registry.push("orders", [order(1 + number * 5 * SECOND + n / 1_000, "ann", number % 9 / 8) for n in range(6)])
            came_to[0] = 1 + number * 5 * SECOND
        done.set()
        reader.join()
        assert not problems and len(asked) > 15
        for minutes, found in dice.sample(asked, 15):
            assert found == trained(registry, at(minutes)), minutes


def test_busy_keys_are_kept_in_redis_too(tmp_path: Path, soon_busy: int) -> None:
    with RedisProcess(tmp_path) as redis:
        shop = shop_of(tmp_path / "shop", LOG, f'[online]\nstore = "redis"\nurl = "{redis.url()}"\n')
        with shop.open() as registry:
            for number in range(120):
                registry.push("orders", [order(number / 10 + n / 100, "ann", number / 8) for n in range(4)])
            assert registry.pusher("orders").store.scan(b"\1") != []
            for minutes in (12, 11.3, 6.5, 2.2):
                assert answered(registry, minutes) == trained(registry, at(minutes))


def test_a_set_that_asks_a_view_twice_reaches_back_for_both(tmp_path: Path, soon_busy: int) -> None:
    """Many rows with one friend between them: the view is read for three keys and for one."""
    twice = 'model = FeatureSet(name="model", features=[recent.all(), recent["n_10m", "spent"].on(customer="friend").prefix("f_")])\n'
    with Shop(tmp_path, ENTITY + LOG + RECENT + twice, NO_FILES).applied().open() as registry:
        for number in range(60):
            registry.push("orders", [order(number / 10 + n / 100, customer) for n in range(4) for customer in ("ann", "bob")])
        rows = [key | {"friend": "bob"} for key in KEYS]
        for minutes in (6, 2.345):
            spine = spine_of(KEYS, at(minutes)).append_column("friend", [["bob"] * 3])
            table = registry.training_set("model", spine, time="as_of").to_arrow()
            wanted = table.drop_columns(["customer", "as_of", "friend"]).to_pylist()
            assert [vector.values for vector in registry.online("model", rows, at=at(minutes))] == wanted
            assert registry.online("model", rows[0], at=at(minutes)).values == wanted[0]


def test_parity_finds_busy_keys_and_no_difference(tmp_path: Path, soon_busy: int) -> None:
    with shop_of(tmp_path).open() as registry:
        for number in range(60):
            registry.push("orders", [order(number / 10 + n / 100, customer) for n in range(4) for customer in ("ann", "bob")])
        found = registry.parity("model")
        assert found.cells > 0 and found.differing == 0


def test_a_piece_that_is_gone_is_an_error_with_the_next_step(tmp_path: Path, soon_busy: int) -> None:
    with shop_of(tmp_path).open() as registry:
        for number in range(40):
            registry.push("orders", [order(number / 10 + n / 100, "ann") for n in range(4)])
        store = registry.pusher("orders").store
        store.write([], records(dict(store.scan(b"\1")), "piece"))
        with pytest.raises(StoreError, match=r"lacks a part of a key: it is damaged\.\n  .*featreg materialize --rebuild"):
            registry.push("orders", [order(60 + n / 100, "ann") for n in range(40)])
        with pytest.raises(StoreError, match="lacks a part of a key"):
            answered(registry, 0.5)
