"""The online store is filled step by step: whatever happened on the way, it answers what the training set answers."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featreg
from featreg.algebra.schedule import GROUP_FIRST_LEVEL, GROUP_LEVELS, SLOT_GROUP
from featreg.compile.program import build_program
from featreg.errors import RefusedError, UsageError
from featreg.instants import parse_instant
from featreg.plan.groups import space_of
from featreg.plan.online import view_state
from featreg.session.key_writer import FOLD_ROWS
from featreg.session.keys import SERVED_KEY, STAMP_KEY, key_prefix, meta_key, records_of
from featreg.stores.lmdb import open_store
from featreg.sweep.keep import AT_COUNTS
from featreg.sweep.sweeper import Sweeper
from tests.shop import ENTITY, ORDERS, PROFILE, REALTIME_SET, WHOLE_SHOP, Forks, Shop, at, difference, kernel_folder, order

KILLS = 20
CUSTOMERS = [{"customer": f"customer{number}"} for number in range(24)] + [{"customer": "nobody"}, {"customer": None}]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    server = Forks(kernel_folder(tmp_path_factory.getbasetemp() / "kernels"))
    yield server
    server.close()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path).applied()


def a_few(first: float, last: float, count: int, seed: int) -> list[dict[str, Any]]:
    """Orders visible in [first, last) minutes: doubles of all sizes, NULLs, ties, some bought long before they were loaded."""
    dice = random.Random(seed)
    rows = []
    for _ in range(count):
        loaded = dice.randrange(int(first * 60), int(last * 60)) / 60
        bought = loaded - dice.choice((0, 0, 0, 3, 90))
        amount = dice.choice((None, 0.1, 0.2, 1e16, -1e16, 1.5, float("nan"), 3.25))
        rows.append(
            order(bought, f"customer{dice.randrange(24)}", None, dice.choice("abcde"), loaded)
            | {"amount": amount, "cents": dice.randrange(100)}
        )
    return rows


def around(minutes: float) -> list[Any]:
    """Instants to read at: a watermark, before it as far as replay allows, behind it."""
    return [at(minutes), at(minutes - 9), at(minutes) + timedelta(microseconds=1), at(minutes + 200)]


# Incremental


def test_a_second_run_reads_what_is_new_and_a_third_nothing(shop: Shop) -> None:
    """rows counts what was folded or kept: 3, then 2, then none; each order is in it once."""
    shop.put("one", [order(0), order(1, "bob"), order(2)])
    with shop.open() as registry:
        assert [receipt.rows for receipt in registry.materialize(to=at(10))] == [3]
        shop.put("two", [order(11), order(12, "eve")])
        (second,) = registry.materialize(to=at(20))
        assert (second.rows, second.keys, second.late_rows, second.watermark) == (2, 2, 0, parse_instant(at(20)))
        (third,) = registry.materialize(to=at(20))
        assert (third.rows, third.bytes) == (0, 0) and "never rewinds" in third.note
        assert registry.online("model", {"customer": "ann"}, at=at(20)).values["n_1d"] == 3
        assert difference(registry, [{"customer": name} for name in ("ann", "bob", "eve", "nobody")], around(20), at(20)) is None


def test_a_run_that_finds_no_rows_still_moves_the_watermark(shop: Shop) -> None:
    shop.put("one", [order(0)])
    with shop.open() as registry:
        registry.materialize(to=at(10))
        (receipt,) = registry.materialize(to=at(60))
        assert (receipt.rows, receipt.watermark) == (0, parse_instant(at(60)))
        assert registry.online("model", {"customer": "ann"}, at=at(60)).values["n_1d"] == 1


def test_rows_of_a_known_file_wait_until_they_are_visible(shop: Shop) -> None:
    """A file may hold the future: its rows come with the run that passes their visible instant, once."""
    shop.put("one", [order(0), order(5, loaded=15), order(30)])
    with shop.open() as registry:
        assert [registry.materialize(to=at(to))[0].rows for to in (10, 20, 40, 50)] == [1, 1, 1, 0]
        assert registry.online("model", {"customer": "ann"}, at=at(50)).values["n_1d"] == 3


def test_a_store_never_rewinds(shop: Shop) -> None:
    shop.put("one", [order(0), order(15)])
    with shop.open() as registry:
        registry.materialize(to=at(20))
        before = shop.stored()
        (receipt,) = registry.materialize(to=at(5))
        assert receipt.watermark == parse_instant(at(20)) and receipt.rows == 0
        assert shop.stored() == before


def test_late_rows_are_folded_and_counted(shop: Shop) -> None:
    """A new file brings rows from before the watermark; they are in the value now, as in a training set of all files."""
    shop.put("one", [order(0), order(100)])
    with shop.open() as registry:
        registry.materialize(to=at(120))
        shop.put("late", [order(50), order(60, "bob"), order(121)])
        (receipt,) = registry.materialize(to=at(130))
        assert (receipt.rows, receipt.late_rows) == (3, 2)
        assert difference(registry, [{"customer": "ann"}, {"customer": "bob"}], around(130), at(130)) is None
        assert registry.online("model", {"customer": "ann"}, at=at(130)).values["n_1d"] == 4


def test_a_run_to_where_the_store_is_takes_in_files_that_no_run_has_read(shop: Shop) -> None:
    shop.put("one", [order(0), order(100)])
    with shop.open() as registry:
        registry.materialize(to=at(120))
        shop.put("late", [order(50), order(121)])
        assert registry.parity("model").late > 0
        (receipt,) = registry.materialize(to=at(120))
        assert (receipt.rows, receipt.late_rows, receipt.watermark) == (1, 1, parse_instant(at(120)))
        assert registry.parity("model").late == registry.parity("model").differing == 0
        before = shop.stored()
        (again,) = registry.materialize(to=at(120))
        assert again.note.startswith("nothing to do") and shop.stored() == before
        (later,) = registry.materialize(to=at(130))
        assert (later.rows, later.late_rows) == (1, 0)
        assert registry.online("model", {"customer": "ann"}, at=at(130)).values["n_1d"] == 4


@pytest.mark.parametrize("seed", range(3))
def test_any_steps_and_one_step_are_one_store(tmp_path: Path, seed: int) -> None:
    """Ten files in any order, runs in between anywhere, late rows among them: the same answers as one run over all, to the bit."""
    dice = random.Random(seed)
    stepped, whole = Shop(tmp_path / "stepped").applied(), Shop(tmp_path / "whole").applied()
    files = [a_few(60 * number, 60 * number + 60, 40, 100 * seed + number) for number in range(10)]
    for number, rows in enumerate(files):
        whole.put(f"f{number}", rows)
    with stepped.open() as one, whole.open() as other:
        for number in dice.sample(range(10), 10):
            stepped.put(f"f{number}", files[number])
            if dice.random() < 0.6:
                one.materialize(to=at(dice.randrange(650)))
        one.materialize(to=at(660))
        other.materialize(to=at(660))
        for moment in around(660):
            left, right = (registry.online("model", CUSTOMERS, at=moment) for registry in (one, other))
            assert [repr(vector.values) for vector in left] == [repr(vector.values) for vector in right]
        assert difference(one, CUSTOMERS, around(660), at(660)) is None


def test_a_known_file_that_changed_or_is_gone_is_refused_and_rebuild_fills_anew(shop: Shop) -> None:
    path = shop.put("one", [order(0), order(1, "bob")])
    with shop.open() as registry:
        registry.materialize(to=at(10))
        before = shop.stored()
        shop.put("one", [order(0)])
        with pytest.raises(RefusedError, match=r"one\.parquet has changed since it was read.*\n.*--rebuild") as raised:
            registry.materialize(to=at(20))
        assert raised.value.exit_code == 4
        path.rename(path.with_name("two.parquet"))
        with pytest.raises(RefusedError, match=r"one\.parquet was read by an earlier run and is gone"):
            registry.materialize(to=at(20))
        assert shop.stored() == before
        registry.materialize(to=at(20), rebuild=True)
        assert registry.online("model", {"customer": "bob"}, at=at(20)).status["n_1d"] == "empty"
        assert difference(registry, [{"customer": "ann"}, {"customer": "bob"}], around(20), at(20)) is None


def test_a_rebuild_that_cannot_read_its_source_leaves_the_store_as_it_is(shop: Shop) -> None:
    path = shop.put("one", [order(0)])
    with shop.open() as registry:
        registry.materialize(to=at(10))
        before = shop.stored()
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(featreg.DataError, match="cannot be read"):
            registry.materialize(to=at(20), rebuild=True)
        path.unlink()
        with pytest.raises(featreg.DataError, match=r"no file at data/\*\.parquet"):
            registry.materialize(to=at(20), rebuild=True)
        assert shop.stored() == before


def test_views_may_be_chosen_and_unknown_ones_are_an_error(tmp_path: Path) -> None:
    shop = Shop(tmp_path, WHOLE_SHOP).applied()
    shop.put("one", [order(0)])
    with shop.open() as registry:
        assert [receipt.view for receipt in registry.materialize(to=at(10), views=["daily"])] == ["daily"]
        assert registry.online("model", {"customer": "ann"}, at=at(10)).status["n_1d"] == "missing"
        with pytest.raises(UsageError, match="Did you mean 'daily'"):
            registry.materialize(to=at(10), views=["dayly"])
        with pytest.raises(UsageError, match=r"that is a view.\n  Write materialize\(views=\['daily'\]\)"):
            registry.materialize("daily")
        assert [receipt.view for receipt in registry.materialize(to=at(11), views="daily")] == ["daily"]


# Killed


def grow_and_materialize(root: str, first: int, rounds: int, keys_a_write: int) -> None:
    """What the killed process does: hour by hour one more file, then a run."""
    import featreg.session.materialize as steps

    steps.KEYS_A_WRITE = keys_a_write
    shop = Shop(Path(root), WHOLE_SHOP)
    with shop.open() as registry:
        for hour in range(first, first + rounds):
            shop.put(f"hour{hour:05}", a_few(60 * hour, 60 * hour + 60, 60, hour))
            registry.materialize(to=at(60 * hour + 60))


def hours(shop: Shop) -> int:
    """How many hours of orders there are."""
    return 1 + max(int(path.stem[4:]) for path in (shop.root / "data").glob("hour*.parquet"))


def check_after(shop: Shop) -> None:
    """The next run, then online = training set, to the bit, before and behind the watermark."""
    with shop.open() as registry:
        to = 60 * hours(shop) + 1
        registry.materialize(to=at(to))
        found = difference(registry, CUSTOMERS, around(to), at(to))
        assert found is None, found


@pytest.fixture
def growing(tmp_path: Path, forks: Forks) -> Shop:
    """A shop with two hours in it, and kernels compiled."""
    shop = Shop(tmp_path, WHOLE_SHOP).applied()
    assert forks.run(f"{__name__}:grow_and_materialize", str(shop.root), 0, 2, 8) == 0
    check_after(shop)
    return shop


def test_a_process_killed_at_any_microsecond_leaves_a_store_that_the_next_run_makes_whole(growing: Shop, forks: Forks) -> None:
    """SIGKILL while files grow and runs of many small writes follow each other; on a fast machine few kills meet a run, so some more."""
    dice = random.Random(int(os.environ.get("FEATREG_KILL_SEED", "0")))
    kills = int(os.environ.get("FEATREG_KILLS", str(KILLS)))
    number = unfinished = 0
    while number < kills or (unfinished == 0 and number < 10 * kills):
        outcome = forks.kill_after(dice.uniform(0.05, 0.9), f"{__name__}:grow_and_materialize", str(growing.root), hours(growing), 40, 2)
        assert outcome == -signal.SIGKILL
        unfinished += any_begun(growing)
        if number % 4 == 3:
            check_after(growing)
        number += 1
    check_after(growing)
    assert unfinished > 0, "no kill met a run"


def any_begun(shop: Shop) -> bool:
    with shop.open() as registry, open_store(registry.profile.online_path) as store:
        return any(view_state(store.get([meta_key(space_of(view))])[0]).begun for view in registry.applied().compiled.views.values())


def die_at_write(root: str, hour: int, number: int, inside: bool) -> None:
    """Kill oneself in the n-th write of a run: with its rows put and not committed, or right behind the commit."""
    from featreg.stores.lmdb import LmdbStore
    from featreg.stores.lmdb_records import Records

    seen, put, run = [0], Records.change, LmdbStore._run

    def put_and_die(records: Any, *what: Any) -> None:
        put(records, *what)
        if inside and seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def run_and_die(store: Any, change: Callable[..., None]) -> None:
        run(store, change)
        if not inside and seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        seen[0] += 1

    Records.change, LmdbStore._run = put_and_die, run_and_die
    grow_and_materialize(root, hour, 1, 4)


def test_a_kill_in_every_write_of_a_run_inside_the_transaction_or_right_behind_it(growing: Shop, forks: Forks) -> None:
    """Write 0 says that a run begins, the next ones bring its keys, the last ones say that it ended."""
    for number in range(5):
        for inside in (True, False):
            outcome = forks.run(f"{__name__}:die_at_write", str(growing.root), hours(growing), number, inside)
            assert outcome == -signal.SIGKILL
            check_after(growing)


def test_an_interrupted_run_is_finished_and_then_the_one_that_was_asked_for_is_made(growing: Shop, forks: Forks) -> None:
    hour = hours(growing)
    assert forks.run(f"{__name__}:die_at_write", str(growing.root), hour, 2, False) == -signal.SIGKILL
    assert any_begun(growing)
    with growing.open() as registry:
        to = 60 * hour + 200
        first, _ = registry.materialize(to=at(to))
        assert first.watermark == parse_instant(at(to))
        assert "had been interrupted" in first.note
        assert difference(registry, CUSTOMERS, around(to), at(to)) is None


def rebuild_and_die(root: str, number: int) -> None:
    import featreg.stores.lmdb as lmdb_store

    run, seen = lmdb_store.LmdbStore._run, [0]

    def run_and_die(store: Any, change: Callable[..., None]) -> None:
        run(store, change)
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        seen[0] += 1

    import featreg.session.materialize as steps

    lmdb_store.LmdbStore._run, steps.KEYS_A_WRITE = run_and_die, 8
    with featreg.open(root) as registry:
        registry.materialize(to=at(100), rebuild=True)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_rebuild_that_was_killed_leaves_nothing_of_the_old_rows(shop: Shop, forks: Forks, number: int) -> None:
    """Half of the keys still have the old run's state, under the number that the new run has too."""
    shop.put("one", [order(minute, f"customer{minute}") for minute in range(24)])
    with shop.open() as registry:
        registry.materialize(to=at(60))
    shop.put("one", [order(minute, f"customer{minute}", 2.0) for minute in range(24)])
    assert forks.run(f"{__name__}:rebuild_and_die", str(shop.root), number) == -signal.SIGKILL
    with shop.open() as registry:
        assert registry.online("model", {"customer": "customer0"}, at=at(60)).status["n_1d"] == "missing"
        registry.materialize(to=at(60))
        assert difference(registry, CUSTOMERS, around(60), at(60)) is None


# Two at a time


def materialize_often(root: str, seed: int) -> None:
    import featreg.session.materialize as steps

    steps.KEYS_A_WRITE = 1 + seed
    dice = random.Random(seed)
    with featreg.open(root) as registry:
        for to in range(0, 300, 30):
            registry.materialize(to=at(to + dice.choice((0, 1, 7))))


def test_processes_that_materialize_at_the_same_time_fold_every_row_once(tmp_path: Path, forks: Forks) -> None:
    """Runs meet at every point: begun by one, written by both, ended by the other."""
    shop = Shop(tmp_path).applied()
    for number in range(5):
        shop.put(f"hour{number:05}", a_few(60 * number, 60 * number + 60, 80, number))
    others = [Forks(forks.kernels) for _ in range(2)]
    try:
        for seed, other in enumerate(others):
            other.start(f"{__name__}:materialize_often", str(shop.root), seed)
        assert [other.outcome() for other in others] == [0, 0]
    finally:
        for other in others:
            other.close()
    check_after(shop)


def test_rows_that_no_window_sees_cost_no_memory(shop: Shop) -> None:
    """A key whose new rows are all out of every window: nothing to do for a group of tiles is not a lack of room."""
    shop.put("one", [order(0, loaded=10_000 + number / 20) for number in range(800)])
    with shop.open() as registry:
        sizes = []
        finish = Sweeper.finish

        def finish_and_look(sweeper: Sweeper, *arguments: Any) -> None:
            finish(sweeper, *arguments)
            sizes.append(len(sweeper.ops))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sweeper, "finish", finish_and_look)
            registry.materialize(to=at(10_001))
            for number in range(8):
                registry.materialize(to=at(10_021 + 2 * number))
        assert set(sizes) == {1 << 14}


# What a key costs


def test_bytes_and_time_of_a_key_depend_on_its_live_tiles_and_not_on_the_number_of_runs(shop: Shop) -> None:
    """200 runs on one key, ten minutes apart: the state grows to one day of tiles, then stays; so does the time of a read."""
    shop.put("all", [order(3 * number, "ann", 0.1 * number, "abc"[number % 3]) for number in range(667)])
    sizes, seconds = [], []
    with shop.open() as registry:
        for number in range(200):
            (receipt,) = registry.materialize(to=at(10 * number + 10))
            assert receipt.rows > 0
            sizes.append(sum(len(value) for name, value in shop.stored().items() if not name.startswith(b"\0view")))
            if number in (149, 199):
                seconds.append(read_time(registry, at(10 * number + 10)))
        assert difference(registry, [{"customer": "ann"}], around(2000), at(2000)) is None
    assert max(sizes[150:]) <= 1.05 * max(sizes[:150])
    assert sizes[-1] < 60_000
    assert seconds[1] < 3 * seconds[0] + 0.001, seconds


def read_time(registry: Any, moment: Any) -> float:
    """Seconds of the fastest of many reads."""
    best = 1.0
    for _ in range(100):
        began = time.perf_counter()
        registry.online("model", {"customer": "ann"}, at=moment)
        best = min(best, time.perf_counter() - began)
    return best


# Parity


def newest_count(view: Any, state: bytes) -> int:
    """Where in a key's state the newest tile of `n_1d` has its count, in words."""
    program = build_program(view)
    groups, slots = program.tables.groups, program.tables.slots
    words = np.frombuffer(state, np.int64)
    counts = words[AT_COUNTS : AT_COUNTS + len(program.tables.shifts)]
    wanted = next(column.slot for column in program.columns if column.name == "n_1d")
    place = AT_COUNTS + len(counts) + int(counts.sum())
    for number, slot in enumerate(program.slots):
        group = groups[slots[number, SLOT_GROUP]]
        tiles = counts[group[GROUP_FIRST_LEVEL] : group[GROUP_FIRST_LEVEL] + group[GROUP_LEVELS]]
        if slot == wanted:
            return place + int(tiles[0]) - 1
        place += slot.width * int(tiles.sum())
    raise AssertionError("no such slot")


def test_a_long_head_of_rows_that_are_one_word_each_is_read_with_room_for_a_tile_of_each(tmp_path: Path) -> None:
    spec = ENTITY + ORDERS.replace('available="loaded_at",', "").replace('tie_break="shop",', "")
    spec += 'recent = FeatureView(name="recent", entity=customer, source=orders, features={"n": agg.count().over("1h", "2d", hop="1m")})\n'
    shop = Shop(tmp_path, spec + REALTIME_SET, PROFILE + '[online]\nreplay = "1d"\n').applied()
    shop.put("one", [order(minute, name) for name in ("ann", "bob") for minute in range(2800)])
    with shop.open() as registry:
        registry.materialize(to=at(2800))
        both = [{"customer": "ann"}, {"customer": "bob"}, {"customer": "cy"}]
        for vector, n in zip(registry.online("model", both, at=at(2800)), (2800, 2800, 0), strict=True):
            assert vector.values == {"n_1h": min(n, 60), "n_2d": n}
        assert registry.online("model", both[0], at=at(2800)).values == {"n_1h": 60, "n_2d": 2800}


def test_parity_agrees_and_finds_one_corrupted_tile(shop: Shop) -> None:
    """One more in the count of one tile of one key, written into the store's bytes, is found and named."""
    shop.put("one", a_few(0, 600, 1600, 1))
    with shop.open() as registry:
        registry.materialize(to=at(600))
        good = registry.parity("model", sample=100)
        assert (good.keys, good.cells, good.differing) == (24, 240, 0)
        view = registry.applied().compiled.views["recent"]
        name = records_of(space_of(view)).state + b"customer7\0\0"
        with open_store(registry.profile.online_path) as store:
            state = store.get([name])[0]
            assert state is not None
            words = np.frombuffer(state, np.int64).copy()
            words[newest_count(view, state)] += 1
            store.write([(name, words.tobytes())])
            bad = registry.parity("model", sample=100)
            store.write([(name, state)])
        (example,) = [example for example in bad.examples if example.feature == "n_1d"]
        assert example.key["customer"] == "customer7" and example.online == example.offline + 1
        assert (bad.late, bad.late_by_feature) == (0, {})
        assert set(bad.by_feature) <= {"n_1d", "share"} and bad.differing == sum(bad.by_feature.values())
        assert registry.parity("model", sample=100).differing == 0


def test_parity_calls_late_what_only_rows_that_came_late_explain_and_nothing_else(shop: Shop) -> None:
    """A file with a row from before the watermark: that customer's cells are LATE until a run takes it in; a corrupted tile is none."""
    shop.put("one", [order(minute, customer) for minute in (*range(40), 585) for customer in ("ann", "bob", "eve")])
    with shop.open() as registry:
        registry.materialize(to=at(600))
        shop.put("two", [order(595, "ann"), order(612, "bob")])  # bob's comes after the watermark: nobody knows it as of then
        found = registry.parity("model")
        assert (found.keys, found.differing, found.by_feature) == (3, 0, {})
        # An order more changes every count and sum of ann's, her highest three and her share, but no distinct or newest shop.
        assert set(found.late_by_feature) >= {"n_10m", "n_1d", "spent_1h", "cents_1d", "top_1h"}
        assert not set(found.late_by_feature) & {"shops_1d", "last_shop"} and found.late == sum(found.late_by_feature.values())
        assert all(one.is_late and one.key["customer"] == "ann" for one in found.examples)
        (count,) = [one for one in found.examples if one.feature == "n_1d"]
        assert (count.online, count.offline) == (41, 42)
        assert f"{found.late} are late" in str(found)

        view = registry.applied().compiled.views["recent"]
        names = {customer: records_of(space_of(view)).state + customer.encode() + b"\0\0" for customer in ("ann", "bob")}
        with open_store(registry.profile.online_path) as store:
            states = store.get(list(names.values()))
            for name, state in zip(names.values(), states):
                assert state is not None
                words = np.frombuffer(state, np.int64).copy()
                words[newest_count(view, state)] += 7
                store.write([(name, words.tobytes())])
            broken = registry.parity("model")
            store.write([(name, state) for name, state in zip(names.values(), states) if state is not None])
        assert {one.key["customer"] for one in broken.examples if one.feature == "n_1d" and not one.is_late} == {"ann", "bob"}
        assert broken.by_feature["n_1d"] == 2 and "n_1d" not in broken.late_by_feature and broken.late_by_feature["spent_1h"] == 1

        registry.materialize(to=at(620))
        after = registry.parity("model")
        assert (after.differing, after.late) == (0, 0)


def test_a_file_that_was_rewritten_makes_cells_differ_and_not_late(shop: Shop) -> None:
    shop.put("one", [order(0), order(1)])
    with shop.open() as registry:
        registry.materialize(to=at(10))
        shop.put("one", [order(0), order(1), order(2)])
        found = registry.parity("model")
        assert found.differing > 0 and found.late == 0


def test_parity_of_an_empty_store_is_an_error_that_says_to_materialize(shop: Shop) -> None:
    shop.put("one", [order(0)])
    with shop.open() as registry, pytest.raises(UsageError, match="featreg materialize"):
        registry.parity("model")


def test_the_store_of_a_view_begins_with_its_space(shop: Shop) -> None:
    """What belongs to a view is under its space's names, so that forgetting it leaves the others whole."""
    shop.put("one", [order(0)])
    with shop.open() as registry:
        registry.materialize(to=at(10))
        space = space_of(registry.applied().compiled.views["recent"])
    stored = shop.stored()
    assert meta_key(space) in stored
    known = (meta_key(space), STAMP_KEY, SERVED_KEY)
    assert all(name in known or name.startswith(key_prefix(space)) for name in stored)


def test_a_key_is_written_small_and_its_tiles_only_when_rows_have_gathered(shop: Shop) -> None:
    """100 runs of one row each: a run writes the head, and one in FOLD_ROWS the tiles too; what is read is the same all along."""
    shop.put("all", [order(20 * number, "ann", 0.1 * number, "abc"[number % 3]) for number in range(100)])
    states = set()
    with shop.open() as registry:
        name = records_of(space_of(registry.applied().compiled.views["recent"])).state + b"ann\0\0"
        for number in range(100):
            registry.materialize(to=at(20 * number + 1))
            states.add(shop.stored().get(name))
        assert len(states - {None}) == 100 // (FOLD_ROWS + 1)
        assert difference(registry, [{"customer": "ann"}], around(1981), at(1981)) is None
