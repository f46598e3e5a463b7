"""What befalls a Redis store: a server that is killed, replaced, full, moved or closed to us. Never a wrong answer, never a secret."""

import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import featreg
from featreg.errors import StoreError, StoreUnavailable, UsageError
from featreg.session.keys import META
from featreg.session.profile import read_profile
from featreg.session.store import open_store
from featreg.stores.contract import Keys, StoreConflict
from featreg.stores.redis import open_redis
from featreg.stores.redis_server import RedisUrl
from tests.redis_process import RedisProcess, SentinelProcess, TlsProxy, free_port
from tests.shop import PROFILE, REALTIME_SHOP, WHOLE_SHOP, Shop, at, difference, order
from tests.sqlite_store import install
from tests.test_materialize import CUSTOMERS, a_few
from tests.test_store_contract import gathered


@pytest.fixture
def server(tmp_path):
    with RedisProcess(tmp_path) as one:
        yield one


def folder(tmp_path, name):
    made = tmp_path / name
    made.mkdir()
    return made


# Lost connections


def test_a_server_killed_and_restarted_is_waited_for_and_no_read_is_wrong(server):
    """Four readers over two kills: each sees the values in the order in which they were written, and never none."""
    with open_redis(server.url()) as store:
        store.write([(b"a", b"0")])
        problems, done = [], threading.Event()
        seen: list[list[bytes | None]] = [[], [], [], []]

        def read(values):
            try:
                while not done.is_set():
                    values.append(store.get([b"a"])[0])
            except Exception as problem:  # the claim is that there is none
                problems.append(problem)

        readers = [threading.Thread(target=read, args=(values,)) for values in seen]
        for reader in readers:
            reader.start()
        time.sleep(0.2)
        for number in range(1, 3):
            server.kill()
            time.sleep(0.2)
            server.start()
            store.write([(b"a", b"%d" % number)], expect={b"a": b"%d" % (number - 1)})
            time.sleep(0.7)  # longer than a reader's pause
        done.set()
        for reader in readers:
            reader.join()
        assert not problems
        assert [list(dict.fromkeys(values)) for values in seen] == [[b"0", b"1", b"2"]] * 4


def test_a_server_that_stays_away_is_an_error_that_says_where_without_the_password(tmp_path, caplog):
    url = f"redis://scott:tiger@127.0.0.1:{free_port()}/0"
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"no Redis server .* \(no connection\); tried for") as raised:
        open_redis(url, patience=2.5)
    assert 2.5 <= time.monotonic() - began < 6
    assert "waiting for" in caplog.text
    for text in (str(raised.value), repr(raised.value), caplog.text):
        assert "tiger" not in text and "scott" not in text


class Cutter:
    """Passes bytes to a port and back, and cuts a connection before some answers; every request arrives."""

    def __init__(self, port: int, seed: int):
        self.to, self.dice, self.cuts = port, random.Random(seed), 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.is_cutting = False
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                ours, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.carry, args=(ours,), daemon=True).start()

    def carry(self, ours: socket.socket) -> None:
        with ours, socket.create_connection(("127.0.0.1", self.to)) as theirs:
            try:
                while data := ours.recv(1 << 20):
                    theirs.sendall(data)
                    answer = theirs.recv(1 << 20)
                    if self.is_cutting and self.dice.random() < 0.2:
                        self.cuts += 1
                        return
                    ours.sendall(answer)
            except OSError:
                return


def test_a_write_whose_answer_is_lost_is_done_once(server):
    """A counter by compare-and-set over a line that is cut before a fifth of the answers: no count twice, none lost, no false conflict."""
    cutter = Cutter(server.port, 7)
    with cutter.listener, open_redis(f"redis://127.0.0.1:{cutter.port}/0") as store:
        cutter.is_cutting = True
        for number in range(150):
            store.write([(b"n", b"%d" % (number + 1)), (b"k%d" % number, b"")], expect={b"n": b"%d" % number if number else None})
        cutter.is_cutting = False
        assert store.get([b"n"]) == [b"150"]
        assert store.stat().entries == 151
    assert cutter.cuts > 20


def test_a_call_that_is_interrupted_leaves_no_answer_for_the_next(server):
    """Ctrl-C between question and answer: the next question gets its own answer."""
    with open_redis(server.url()) as store:
        store.write([(b"a", b"1"), (b"b", b"2")])

        class Interrupted:
            """The socket of a connection on which nothing is read any more."""

            def sendall(self, data: bytes) -> None:
                plain.sendall(data)

            def recv_into(self, *_: object) -> int:
                raise KeyboardInterrupt

            def __getattr__(self, name: str) -> object:
                return getattr(plain, name)

        for ask in (store.get, lambda keys: gathered(store, keys)):
            connection = store.server._connection()
            plain = connection._sock
            connection._sock = connection._parser._sock = Interrupted()
            with pytest.raises(KeyboardInterrupt):
                ask([b"a"])
            assert store.get([b"b"]) == [b"2"] and gathered(store, [b"b"]) == [[b"2"]]


def test_parts_are_taken_anew_from_the_first_when_the_connection_is_lost_between_two(server):
    with open_redis(server.url()) as store:
        store.write([(b"a", b"1"), (b"b", b"2" * 90_000)])
        connection = store.server._connection()
        plain, taken = connection._sock, list[int]()

        class Cut:
            """The socket of a connection that is lost behind the first part."""

            def recv_into(self, room: memoryview) -> int:
                if taken:
                    raise ConnectionResetError
                return plain.recv_into(room[:16])

            def __getattr__(self, name: str) -> object:
                return getattr(plain, name)

        def take(number: int, values: bytearray, starts: np.ndarray) -> None:
            taken.append(number)
            if number == 0:
                server.command("SET", "{featreg}b", "3")  # the second try reads both parts as they are by then
            found[number] = bytes(values)

        found = dict[int, bytes]()
        connection._sock = Cut()
        store.gather([Keys([b""], [b"a"]), Keys([b""], [b"b"])], take)
        assert taken == [0, 0, 1] and found == {0: b"1", 1: b"3"}


# Another server


@pytest.fixture
def pair(tmp_path) -> Iterator[tuple[RedisProcess, RedisProcess]]:
    """A master and its replica, in step."""
    with RedisProcess(folder(tmp_path, "master")) as master:
        with RedisProcess(folder(tmp_path, "replica"), "--replicaof", "127.0.0.1", str(master.port)) as replica:
            until = time.monotonic() + 20
            while replica.command("INFO", "replication")["master_link_status"] != "up":
                assert time.monotonic() < until
                time.sleep(0.05)
            yield master, replica


def test_a_replica_is_passed_over_and_takes_over_when_it_is_promoted(pair):
    master, replica = pair
    url = f"redis://127.0.0.1:{replica.port},127.0.0.1:{master.port}/0"
    with open_redis(url) as store:
        store.write([(b"a", b"1")])
        assert master.command("WAIT", "1", "5000") == 1
        assert store.scan(b"") == [(b"a", b"1")]
        master.kill()
        threading.Timer(0.5, lambda: replica.command("REPLICAOF", "NO", "ONE")).start()
        store.write([(b"b", b"2")], expect={b"a": b"1"})
        assert store.scan(b"") == [(b"a", b"1"), (b"b", b"2")]


def test_sentinels_say_who_the_master_is_before_and_after_a_failover(pair, tmp_path):
    """A real Sentinel, named behind one that is gone: the master is killed, its replica promoted, and nobody is told about it."""
    master, replica = pair
    with SentinelProcess(folder(tmp_path, "sentinel"), "shop", master.port, "lion") as sentinel:
        url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/shop/0?sentinel_password=lion"
        assert "lion" not in str(RedisUrl(url))
        with open_redis(url) as store:
            store.write([(b"a", b"1")])
            assert master.command("WAIT", "1", "5000") == 1
            until = time.monotonic() + 20
            while sentinel.replicas("shop") != 1:
                assert time.monotonic() < until
                time.sleep(0.05)
            master.kill()
            store.write([(b"b", b"2")], expect={b"a": b"1"})
            assert store.scan(b"") == [(b"a", b"1"), (b"b", b"2")]
            assert replica.command("GET", b"{featreg}b") == b"2"
        for wrong, told in (("redis+sentinel://h:1/", "name of the master"), ("redis+sentinel://h:1/shop/x", "a number")):
            with pytest.raises(UsageError, match=told):
                RedisUrl(wrong)


def test_tls_is_by_the_url_and_an_unknown_certificate_is_told_at_once(server, tmp_path):
    """Reads of many keys too, whose bytes come in pieces of 16 KB."""
    with TlsProxy(tmp_path, server.port) as proxy:
        with open_redis(f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={proxy.authority}") as store:
            store.write([(b"%d" % number, b"%d" % number * 3000) for number in range(100)])
            low, high = gathered(store, *([b"%d" % number for number in range(begin, begin + 50)] for begin in (0, 50)))
            assert low + high == [b"%d" % number * 3000 for number in range(100)]
            assert store.get([b"7"]) == [b"7" * 3000]
        began = time.monotonic()
        with pytest.raises(StoreError, match="certificate"):
            open_redis(f"rediss://127.0.0.1:{proxy.port}/0")
        assert time.monotonic() - began < 5


def test_work_of_many_writes_does_not_go_on_behind_a_server_that_was_replaced(server):
    """A restarted server may lack what it had confirmed: the run is told, and the next begins from what is there."""
    with open_redis(server.url()) as store:
        with pytest.raises(StoreError, match="restarted or replaced in the middle"), store.bulk():
            store.write([(b"a", b"1")])
            server.kill()
            server.start()
            store.write([(b"b", b"1")])
        assert store.get([b"a", b"b"]) == [b"1", None]
        with store.bulk():
            store.write([(b"b", b"1")])
        assert store.get([b"b"]) == [b"1"]


def test_a_cluster_is_asked_at_the_node_that_has_the_slot(tmp_path):
    """Two nodes, all slots at the second, the URL names the first; then the slots move there."""
    options = ("--cluster-enabled", "yes")
    with RedisProcess(folder(tmp_path, "a"), *options) as first, RedisProcess(folder(tmp_path, "b"), *options) as second:
        first.command("CLUSTER", "MEET", "127.0.0.1", str(second.port))
        second.command("CLUSTER", "ADDSLOTS", *map(str, range(16384)))
        until = time.monotonic() + 30
        while b"cluster_state:ok" not in first.command("CLUSTER", "INFO"):
            assert time.monotonic() < until
            time.sleep(0.05)
        with open_redis(first.url()) as store:
            store.write([(b"%d" % number, b"x") for number in range(100)], expect={b"5": None})
            store.write([], deletes=[b"5", b"6"])
            assert [key for key, _ in store.scan(b"", limit=3)] == [b"0", b"1", b"10"]
            assert store.get([b"5", b"7"]) == [None, b"x"]
            assert store.delete_prefix(b"") == 98
        assert (first.command("DBSIZE"), second.command("DBSIZE")) == (0, 1)  # what the writer leaves for a day


# Refused


def test_a_full_server_says_so_and_stores_nothing_in_part(tmp_path):
    with RedisProcess(tmp_path, "--maxmemory", "4mb") as server, open_redis(server.url()) as store:
        with pytest.raises(StoreError, match="memory is full; nothing of this write was stored"):
            for number in range(100):
                store.write([(b"%d/%d" % (number, key), b"x" * 10_000) for key in range(20)])
        for number in range(100):
            assert len(store.scan(b"%d/" % number)) in (0, 20)
        store.delete_prefix(b"0/")
        store.write([(b"small", b"1")])
        assert store.get([b"small"]) == [b"1"]


def test_a_server_whose_disk_is_gone_refuses_writes_and_takes_them_again_when_it_is_back(tmp_path):
    home = folder(tmp_path, "data")
    with RedisProcess(home, "--appendonly", "no") as server, open_redis(server.url()) as store:
        store.write([(b"a", b"1")])
        server.command("CONFIG", "SET", "save", "3600 1")
        home.rmdir()
        server.command("BGSAVE")
        until = time.monotonic() + 10
        while b"rdb_last_bgsave_status:err" not in server.info():
            assert time.monotonic() < until
            time.sleep(0.02)
        with pytest.raises(StoreError, match="refuses writes, for it cannot save them to its disk"):
            store.write([(b"a", b"2")])
        assert store.get([b"a"]) == [b"1"]
        home.mkdir()
        server.command("CONFIG", "SET", "dir", str(home))
        server.command("SAVE")
        store.write([(b"a", b"2")])
        assert store.get([b"a"]) == [b"2"]


def test_a_server_that_drops_keys_when_memory_is_short_holds_no_store(tmp_path):
    with RedisProcess(tmp_path, "--maxmemory-policy", "allkeys-lru") as server, pytest.raises(StoreError, match="allkeys-lru"):
        open_redis(server.url())


def test_a_wrong_password_is_told_at_once_and_not_shown(tmp_path):
    with RedisProcess(tmp_path, "--requirepass", "tiger") as server:
        with open_redis(f"redis://:tiger@127.0.0.1:{server.port}/0") as store:
            store.write([(b"a", b"1")])
        for url in (f"redis://:lion@127.0.0.1:{server.port}/0", f"redis://127.0.0.1:{server.port}/0"):
            with pytest.raises(StoreError, match="does not let us in") as raised:
                open_redis(url)
            assert "lion" not in str(raised.value) and raised.value.__cause__ is None and raised.value.__suppress_context__


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://:tiger@h",
        "redis://:tiger@h:port/0",
        "redis://:tiger@h/x?",
        "redis://:tiger@h/0?color=red",
        "redis://u:tiger@h/0?namespace={a}",
    ],
)
def test_what_is_no_url_is_told_without_its_password(url):
    with pytest.raises(UsageError) as raised:
        RedisUrl(url)
    assert "tiger" not in str(raised.value) and raised.value.__suppress_context__ | (raised.value.__context__ is None)


def test_namespaces_of_one_server_do_not_see_each_other(server):
    with open_redis(server.url("one")) as one, open_redis(server.url("two")) as two:
        one.write([(b"a", b"1")])
        two.write([(b"a", b"2")])
        assert one.delete_prefix(b"") == 1
        assert (one.get([b"a"]), two.get([b"a"])) == ([None], [b"2"])


def test_a_conflict_found_by_the_server_names_what_it_found(server):
    with open_redis(server.url()) as store:
        store.write([(b"a", b"\xff\0"), (b"empty", b"")])
        for expect, found in (({b"a": b"x"}, b"\xff\0"), ({b"empty": None}, b""), ({b"none": b""}, None)):
            with pytest.raises(StoreConflict) as raised:
                store.write([(b"a", b"2")], expect=expect)
            assert raised.value.found == found


# A profile's store


def profile_of(root, online):
    (root / "conf").mkdir(exist_ok=True)
    (root / "conf" / "local.toml").write_text(f"[online]\n{online}\n")
    return read_profile(root, "local")


def test_a_profile_keeps_its_password_to_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("REDIS_PASSWORD", "tiger")
    profile = profile_of(tmp_path, f'store = "redis"\nurl = "redis://:${{REDIS_PASSWORD}}@127.0.0.1:{free_port()}/0"')
    assert ":tiger@" in profile.online_url and "tiger" not in repr(profile)


def test_a_store_that_nobody_brought_is_named_with_those_that_are_here(tmp_path):
    with pytest.raises(UsageError, match=r"store 'reddis' is not here.\n  Did you mean 'redis'\?"):
        open_store(profile_of(tmp_path, 'store = "reddis"'))
    with pytest.raises(UsageError, match="needs its place"):
        open_store(profile_of(tmp_path, 'store = "redis"'))


def test_a_store_from_outside_comes_by_its_entry_point_and_serves_the_whole_path(tmp_path, monkeypatch):
    """A distribution on the path, as pip installs it: the same bytes as in LMDB, the training set's answers, parity, pushes."""
    install(folder(tmp_path, "site"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    log = 'stream="until_batch", tie_break="shop",'
    profile = f'{PROFILE}[online]\nstore = "sqlite"\nurl = "sqlite:kept/online"\n'
    shop = Shop(tmp_path / "shop", WHOLE_SHOP.replace('tie_break="shop",', log), profile)
    (shop.root / "conf" / "beside.toml").write_text(PROFILE)
    shop.applied()
    with shop.open() as ours, featreg.open(shop.root, profile="beside") as beside:
        shop.put("one", a_few(0, 1600, 300, 5))
        for registry in (ours, beside):
            registry.materialize(to=at(1600))
        store = ours.reader().store
        assert type(store).__module__ == "featreg_sqlite" and (shop.root / "kept" / "online").exists()
        assert is_same(dict(store.scan(b"", limit=1_000_000)), shop.stored())
        assert difference(ours, CUSTOMERS, [at(1600), at(1591), at(1800)], at(1600)) is None
        found = ours.parity("model")
        assert found.is_known and found.differing == found.late == 0
        before = ours.online("model", {"customer": "ann"}, at=at(1610)).values["n_1d"]
        ours.push("orders", [order(1605, "ann")])
        assert ours.online("model", {"customer": "ann"}, at=at(1610)).values["n_1d"] == before + 1


# The whole path


def is_same(stored: dict[bytes, bytes], others: dict[bytes, bytes]) -> bool:
    """Whether two stores hold the same of many keys, beside what is known of a run's files: how old one was when it was looked at."""
    assert len(stored) > 24 and stored.keys() == others.keys()
    return all(stored[one] == others[one] for one in stored if not one.startswith(META))


def shop_on(server: RedisProcess, root: Path, spec: str) -> Shop:
    """A shop whose profile `local` has its store in Redis, and `beside` the same in LMDB."""
    shop = Shop(root, spec, f'{PROFILE}[online]\nstore = "redis"\nurl = "{server.url()}"\n')
    (root / "conf" / "beside.toml").write_text(PROFILE)
    return shop.applied()


def test_any_runs_leave_the_same_bytes_in_redis_as_in_lmdb_and_answer_the_training_set(tmp_path, server):
    """Realtime and daily, late rows, a repeated run, a rebuild, garbage: byte by byte, cell by cell, and by parity."""
    shop = shop_on(server, tmp_path, WHOLE_SHOP)
    with shop.open() as ours, featreg.open(tmp_path, profile="beside") as beside, open_redis(server.url()) as redis_store:
        for step, to in enumerate((1500, 1600, 1600, 4000)):
            if step != 2:
                shop.put(str(step), a_few(max(0, to - 1600), to, 300, step))
            for registry in (ours, beside):
                registry.materialize(to=at(to), rebuild=step == 3)
            stored = dict(redis_store.scan(b"", limit=1_000_000))
            assert is_same(stored, shop.stored())
            assert difference(ours, CUSTOMERS, [at(to), at(to - 9), at(to + 200)], at(to)) is None
            assert ours.online("model", CUSTOMERS[3], at=at(to)).status == beside.online("model", CUSTOMERS[3], at=at(to)).status
        found = ours.parity("model")
        assert found.is_known and found.differing == found.late == 0
        assert [one for one in ours.doctor() if one.is_problem] == []
        for amount in (0, 1):
            where = f'freshness=REALTIME,\n    where="amount > {amount}",'
            (tmp_path / "features" / "shop.py").write_text(WHOLE_SHOP.replace("freshness=REALTIME,", where))
            ours.apply()
            ours.materialize(to=at(4000))
        garbage = ours.gc(delete=True)
        assert sum(one.entries for one in garbage) > 24 and ours.gc() == []
        assert difference(ours, CUSTOMERS, [at(4000)], at(4000)) is None


def test_a_run_cut_off_by_a_dead_server_is_finished_by_the_next(tmp_path, server):
    shop = shop_on(server, tmp_path / "shop", REALTIME_SHOP)
    keys = [{"customer": f"c{number}"} for number in range(6000)]
    shop.put("one", [order(number % 50, f"c{number % 6000}", number / 8) for number in range(12_000)])
    killed: list[int] = []

    def kill(view: str, rows: int) -> None:
        if not killed:
            killed.append(rows)
            server.kill()
            server.start()

    with shop.open() as registry:
        with pytest.raises(StoreError, match="Run the same command again"):
            registry.materialize(to=at(60), progress=kill)
        assert registry.online("model", keys[0], at=at(60)).status["n_1d"] == "missing"
        (receipt,) = registry.materialize(to=at(60))
        assert killed and "interrupted" in receipt.note
        assert difference(registry, [*keys[::100], {"customer": "nobody"}], [at(60), at(200)], at(60)) is None


def test_a_server_that_comes_back_empty_answers_missing_and_never_an_empty_window(tmp_path, server):
    """Nothing was saved, so nothing is materialized: that is what the vector says, until a run fills the store anew."""
    shop = shop_on(server, tmp_path, REALTIME_SHOP)
    shop.put("one", [order(0), order(1)])
    with shop.open() as registry:
        registry.materialize(to=at(10))
        assert registry.online("model", {"customer": "ann"}, at=at(10)).values["n_1d"] == 2
        server.command("FLUSHALL")
        vector = registry.online("model", {"customer": "ann"}, at=at(10))
        assert set(vector.status.values()) == {"missing"} and set(vector.values.values()) == {None}
        registry.materialize(to=at(10))
        assert registry.online("model", {"customer": "ann"}, at=at(10)).values["n_1d"] == 2
