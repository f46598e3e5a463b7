"""What every online store does, run for each of them: `STORES` is the list to add to."""

import multiprocessing
import os
import random
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featreg.errors import StoreError
from featreg.stores.contract import Beside, Keys, StoreConflict
from featreg.stores.lmdb import open_store
from featreg.stores.redis import open_redis
from tests.redis_process import RedisProcess
from tests.sqlite_store import SqliteStore

STORES = {"lmdb": open_store, "redis": open_redis, "outside": SqliteStore}

processes = multiprocessing.get_context("forkserver")  # children that inherit nothing of this process
processes.set_forkserver_preload([__name__])


@pytest.fixture(params=STORES)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RedisProcess(tmp_path_factory.mktemp("redis")) as one:
        yield one


@pytest.fixture
def place_of(tmp_path, server):
    """Where a store of a kind is, by a name: a path or a URL."""
    return lambda kind, name: tmp_path / name if kind != "redis" else server.url(f"{tmp_path.name}-{name}")


@pytest.fixture
def place(kind, place_of):
    return place_of(kind, "online")


@pytest.fixture
def store(kind, place):
    with STORES[kind](place) as opened:
        yield opened


def everything(store):
    return dict(store.scan(b"", limit=1_000_000))


def gathered(store, *parts):
    """What `gather` hands over, part by part; keys that are a list have no prefix."""
    found = []

    def take(number, values, starts):
        found.append((number, [bytes(values[i:j]) for i, j in pairwise(starts)]))

    store.gather([part if isinstance(part, Keys) else Keys([b""], part) for part in parts], take)
    assert [number for number, _ in found] == list(range(len(parts)))
    return [values for _, values in found]


# Bytes by key


def test_a_get_answers_in_the_order_of_its_keys_and_none_for_an_unknown_one(store):
    store.write([(b"b", b"2"), (b"a", b"1")])
    assert store.get([b"b", b"?", b"a", b"b"]) == [b"2", None, b"1", b"2"]
    assert store.get([]) == []


def test_keys_beside_others_are_of_the_same_instant_whoever_wrote(kind, place, store):
    """Also when nothing, or other keys alone, were written since the last read."""
    beside = Beside([b"known", b"never"])
    store.write([(b"a", b"1")])
    assert store.get([b"a"], beside) == [b"1"] and beside.values == [None, None]
    for number, write in enumerate((store.write, None, lambda puts: other.write(puts), lambda puts: other.write([(b"b", b"")]))):
        with STORES[kind](place) as other:
            before = list(beside.values)
            if write is not None:
                write([(b"known", b"%d" % number), (b"a", b"%d" % number)])
            assert store.get([b"a", b"?", b"b"], beside)[:2] == [store.get([b"a"])[0], None]
            assert beside.values == [store.get([b"known"])[0], None] and (write is not None or beside.values == before)
    assert store.get([], beside) == [] and beside.values == [b"2", None]


def test_gathered_values_are_those_of_a_get_one_behind_another(store):
    long = b"long" * 200
    store.write([(b"b", b"22"), (b"a", b"1"), (b"e", b""), (long, b"333")])
    for parts in ([[b"b", b"?", b"a", b"e", b"b"]], [[long, b"a"], [], [b"?", b"b"]], [[]], []):
        found = [[value or b"" for value in store.get(keys)] for keys in parts]
        assert gathered(store, *parts) == found


def test_keys_are_gathered_behind_each_of_their_prefixes(store):
    store.write([(b"b", b"2"), (b"ab", b"12"), (b"long" * 200, b"333"), (b"a", b"1")])
    assert gathered(store, Keys([b"", b"a"], [b"b", b"?"]), Keys([b"long", b"?"], [b"", b"long" * 199])) == [
        [b"2", b"", b"12", b""],
        [b"", b"333", b"", b""],
    ]
    assert gathered(store, Keys([], [b"b"]), Keys([b"a", b""], [])) == [[], []]
    with pytest.raises(StoreError, match="1 byte or more"):
        gathered(store, Keys([b"a", b""], [b"b", b""]))


def test_what_taking_a_part_raises_is_raised_and_the_store_answers_on(store):
    store.write([(b"a", b"1"), (b"b", b"2")])

    def take(number, values, starts):
        raise ValueError(f"part {number}")

    with pytest.raises(ValueError, match="part 0"):
        store.gather([Keys([b""], [b"a"]), Keys([b""], [b"b"])], take)
    assert gathered(store, [b"b"], [b"a"]) == [[b"2"], [b"1"]]


def test_an_empty_value_is_a_value(store):
    store.write([(b"a", b"")])
    assert store.get([b"a", b"b"]) == [b"", None]
    assert store.scan(b"a") == [(b"a", b"")]


def test_a_key_is_any_bytes_but_none(store):
    keys = [bytes([first, second]) for first in (0, 1, 127, 128, 255) for second in (1, 255)]
    keys += [b"\0", b"\xff", b"\0\1" * 511, b"\xff" * 600]
    store.write([(key, key) for key in keys])
    assert store.get(keys) == keys
    assert [key for key, _ in store.scan(b"")] == sorted(keys)
    with pytest.raises(StoreError, match="1 byte or more"):
        store.write([(b"", b"x")])
    with pytest.raises(StoreError, match="1 byte or more"):
        store.get([b""])


def test_of_a_key_put_twice_the_last_counts_and_a_put_comes_after_a_delete(store):
    store.write([(b"a", b"1"), (b"b", b"1"), (b"a", b"2")])
    store.write([(b"b", b"3")], deletes=[b"a", b"b", b"never there"])
    assert everything(store) == {b"b": b"3"}


@pytest.mark.parametrize("length", [478, 479, 480, 510, 511, 512, 600, 5_000, 100_000])
def test_a_key_of_any_length_is_kept_whole(store, length):
    key, twin = b"k" * (length - 1) + b"1", b"k" * (length - 1) + b"2"
    store.write([(key, b"one"), (twin, b"two")])
    assert store.get([twin, key, key + b"\0"]) == [b"two", b"one", None]
    assert store.scan(b"k" * 64) == [(key, b"one"), (twin, b"two")]
    store.write([], deletes=[key])
    assert store.get([key, twin]) == [None, b"two"]


def test_a_scan_returns_what_begins_with_the_prefix_page_by_page_in_order(store):
    names = [b"view/%05d" % number for number in range(2_500)]
    neighbours = [(b"view", b""), (b"view0", b""), (b"vie", b"")]
    store.write([(name, name[-3:]) for name in random.Random(1).sample(names, len(names))] + neighbours)
    found, start = [], None
    while page := store.scan(b"view/", start, limit=700):
        found, start = found + page, page[-1][0] + b"\0"
    assert found == [(name, name[-3:]) for name in names]
    assert store.scan(b"view/", b"view/02499") == [(b"view/02499", b"499")]
    assert store.scan(b"view/", b"aaa", limit=1) == [(b"view/00000", b"000")]
    assert store.scan(b"view/", b"w") == store.scan(b"x") == store.scan(b"view/", limit=0) == []


# long keys that agree for 470 to 500 bytes and differ behind, among short ones and raw bytes
heads = st.sampled_from([b"p", b"p" * 470, b"p" * 479, b"p" * 480, b"p" * 500])
short_keys = st.binary(min_size=1, max_size=3).filter(lambda key: not key.startswith(b"\0\0"))
keys = st.one_of(short_keys, st.tuples(heads, st.binary(max_size=40)).map(b"".join))
# values of some bytes, and around what fills one page, two and three: with and without the name of a long key before them
pages = st.tuples(st.integers(0, 3), st.integers(-600, 2), st.binary(min_size=1, max_size=1))
values = st.one_of(st.binary(max_size=5), pages.map(lambda drawn: drawn[2] * max(0, 4080 * drawn[0] + drawn[1])))
writes = st.tuples(st.lists(st.tuples(keys, values)), st.lists(keys), st.booleans())
steps = st.one_of(writes, keys)


@settings(deadline=None)
@given(steps=st.lists(steps, max_size=8), probes=st.lists(keys), prefix=st.one_of(st.just(b""), keys), start=st.one_of(st.none(), keys))
@pytest.mark.parametrize("name", STORES)
def test_a_store_is_a_sorted_dictionary(tmp_path_factory, server, name, steps, probes, prefix, start):
    """After any writes and prefix deletes, get and scan answer what a dict answers."""
    place = server.url("dictionary") if name == "redis" else tmp_path_factory.getbasetemp() / f"dictionary of {name}"
    with STORES[name](place) as store:
        store.delete_prefix(b"")
        model = {}
        for step in steps:
            if isinstance(step, bytes):
                gone = [key for key in model if key.startswith(step)]
                assert store.delete_prefix(step) == len(gone)
                puts, deletes = [], gone
            else:
                puts, deletes, expects = step
                store.write(puts, deletes, {key: model.get(key) for key, _ in puts} if expects else None)
            model = {key: value for key, value in model.items() if key not in deletes} | dict(puts)
        probes = probes + list(model)
        assert store.get(probes) == [model.get(key) for key in probes]
        expected = sorted((key, value) for key, value in model.items() if key.startswith(prefix) and key >= (start or b""))
        assert store.scan(prefix, start) == expected
        assert store.scan(prefix, start, limit=2) == expected[:2]
        assert store.stat().entries == len(model)


def test_a_deleted_prefix_is_gone_and_its_neighbours_are_not(store):
    store.write([(b"old/%d" % number, b"x" * 100) for number in range(5_000)] + [(b"old", b"1"), (b"old0", b"2"), (b"new", b"3")])
    full = store.stat()
    assert store.delete_prefix(b"old/") == 5_000
    assert everything(store) == {b"old": b"1", b"old0": b"2", b"new": b"3"}
    assert (full.entries, store.stat().entries) == (5_003, 3)
    assert full.bytes > 500_000
    assert 0 < store.stat().bytes < 20_000


# All or nothing


def test_a_write_whose_expectation_fails_writes_nothing_and_says_what_it_found(store):
    store.write([(b"a", b"1"), (b"k" * 600, b"long")])
    with pytest.raises(StoreConflict) as raised:
        store.write([(b"a", b"2"), (b"new", b"2")], deletes=[b"k" * 600], expect={b"k" * 600: b"long", b"a": b"0"})
    assert (raised.value.key, raised.value.expected, raised.value.found) == (b"a", b"0", b"1")
    with pytest.raises(StoreConflict):
        store.write([(b"a", b"2")], expect={b"a": None})
    assert everything(store) == {b"a": b"1", b"k" * 600: b"long"}
    store.write([(b"a", b"2")], expect={b"a": b"1", b"new": None, b"k" * 600: b"long"})
    assert store.get([b"a"]) == [b"2"]


def test_what_a_write_expects_is_compared_when_anyone_wrote_since_it_was_seen(store):
    store.write([(b"a", b"1"), (b"b", b"1")])
    seen, found = store.instant(), store.get([b"a"])[0]
    store.write([(b"b", b"2")])
    store.write([(b"a", b"2")], expect={b"a": found}, seen=seen)
    assert store.get([b"a"]) == [b"2"]
    seen, found = store.instant(), store.get([b"a"])[0]
    store.write([(b"a", b"3")])
    for number in (seen, store.instant() and store.instant() - 1):
        with pytest.raises(StoreConflict):
            store.write([(b"a", b"4")], expect={b"a": found}, seen=number)
    assert store.get([b"a"]) == [b"3"]
    seen, found = store.instant(), store.get([b"a"])[0]
    store.write([(b"a", b"5")], expect={b"a": found}, seen=seen)
    assert store.get([b"a"]) == [b"5"]
    assert store.instant() != seen or seen is None


def test_puts_that_fail_while_they_are_made_write_nothing(store):
    def puts():
        yield b"a", b"1"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write(puts())
    store.write([(b"b", b"1")])
    assert everything(store) == {b"b": b"1"}


GENERATION_KEYS = [b"%04d" % (number * 7919 % 10_000) for number in range(300)]


def write_generations(kind, place, pipe, bulk):
    """Put one number under all keys, then the next, and send each number when its write has returned."""
    with STORES[kind](place) as store:
        number = int(store.get([GENERATION_KEYS[0]])[0] or 0)
        with store.bulk() if bulk else threading.Lock():
            while True:
                number += 1
                store.write([(key, b"%d" % number + b" " * (number % 3 * 900)) for key in GENERATION_KEYS])
                pipe.send(number)


@pytest.mark.parametrize("bulk", [False, True])
def test_a_writer_killed_at_any_instant_leaves_the_old_or_the_new_whole(kind, place, bulk):
    """30 times SIGKILL after a random pause: all keys hold one number, and no finished write is lost, in `bulk` neither."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    pauses = random.Random(seed)
    with STORES[kind](place) as store:
        for _ in range(30):
            ours, theirs = processes.Pipe()
            writer = processes.Process(target=write_generations, args=(kind, place, theirs, bulk))
            writer.start()
            theirs.close()
            finished = [ours.recv()]
            time.sleep(pauses.uniform(0, 0.03))
            writer.kill()
            writer.join()
            try:
                while True:
                    finished.append(ours.recv())
            except EOFError:
                pass
            found = {int(value) for value in store.get(GENERATION_KEYS)}
            assert found in ({finished[-1]}, {finished[-1] + 1})


def write_for_a_while(kind, place, rounds):
    with STORES[kind](place) as store:
        for number in range(rounds):
            store.write([(b"k%03d" % key, b"%d" % number) for key in range(200)])


def test_a_get_and_a_scan_see_one_instant_while_another_process_writes(kind, place):
    with STORES[kind](place) as store:
        names = [b"k%03d" % key for key in range(200)]
        store.write([(name, b"0") for name in names])
        writer = processes.Process(target=write_for_a_while, args=(kind, place, 300))
        writer.start()
        seen = [0]
        while writer.is_alive():
            for values in (store.get(names), [value for _, value in store.scan(b"k")]):
                assert len(set(values)) == 1 and len(values) == 200
                seen.append(int(values[0]))
        assert writer.exitcode == 0
        assert int(store.get(names)[0]) == 299
        assert len(set(seen)) > 3


def add_one(store, key, times):
    for _ in range(times):
        while True:
            [found] = store.get([key])
            try:
                store.write([(key, b"%d" % (int(found or 0) + 1))], expect={key: found})
                break
            except StoreConflict:
                continue


def add_one_in_a_process(kind, place, times):
    with STORES[kind](place) as store:
        add_one(store, b"counter", times)


def test_two_processes_and_two_threads_that_count_together_lose_no_count(kind, place):
    with STORES[kind](place) as store:
        workers = [processes.Process(target=add_one_in_a_process, args=(kind, place, 100)) for _ in range(2)]
        workers += [threading.Thread(target=add_one, args=(store, b"counter", 100)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert store.get([b"counter"]) == [b"400"]


# Opening and closing


def test_what_was_written_is_there_when_the_store_is_opened_again(kind, place):
    with STORES[kind](place) as store, store.bulk():
        store.write([(b"a", b"1"), (b"k" * 600, b"2")])
    with STORES[kind](place) as store:
        assert everything(store) == {b"a": b"1", b"k" * 600: b"2"}


def test_a_store_opened_twice_is_closed_by_the_second_close(kind, place):
    same = Path(f"{place}/../{place.name}") if kind == "lmdb" else place
    first, second = STORES[kind](place), STORES[kind](same)
    first.close()
    second.write([(b"a", b"1")])
    assert second.get([b"a"]) == [b"1"]
    second.close()
    for call in (lambda: second.get([b"a"]), lambda: second.write([(b"a", b"1")]), lambda: second.scan(b"")):
        with pytest.raises(StoreError, match="closed"):
            call()


def test_a_forked_child_and_its_parent_both_go_on(store):
    """Reads, writes and the parent's snapshots do not suffer from a child that ends without a word."""
    store.write([(b"a", b"1")])
    child = os.fork()
    if child == 0:
        try:
            ok = store.get([b"a"]) == [b"1"]
            store.write([(b"child", b"1")])
            os._exit(0 if ok and store.get([b"child"]) == [b"1"] else 1)
        finally:
            os._exit(2)
    store.write([(b"parent", b"1")])
    assert os.waitpid(child, 0)[1] == 0
    assert everything(store) == {b"a": b"1", b"child": b"1", b"parent": b"1"}
