"""What only the LMDB store has: a map, a lease, reader slots, a format and a disk that fills up."""

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import lmdb
import pytest

from featreg.errors import FeatregError, LeaseHeldError, StoreError
from featreg.stores.lmdb import open_store
from tests.test_store_contract import everything, processes

MIB = 1 << 20
ROOT = Path(__file__).parent.parent


@pytest.fixture
def place(tmp_path):
    return tmp_path / "online"


@pytest.fixture
def child():
    """Start a function in a process; give the process and our end of its pipe. Whatever still runs at the end is killed."""
    started = []

    def start(function, *arguments):
        ours, theirs = processes.Pipe()
        process = processes.Process(target=function, args=(*arguments, theirs))
        process.start()
        theirs.close()
        started.append(process)
        return process, ours

    yield start
    for process in started:
        process.kill()
        process.join()


def large_rows(first, count, size=10_000):
    return [(b"%06d" % number, bytes([number % 251]) * size) for number in range(first, first + count)]


# The map


def test_the_map_grows_by_itself_and_a_write_larger_than_it_is_one_write(place):
    with open_store(place, initial_map=MIB) as store:
        rows = large_rows(0, 3_000)
        store.write(rows)
        assert everything(store) == dict(rows)
    assert (place / "data.mdb").stat().st_size > 30_000_000


def test_the_map_grows_under_threads_that_read(place):
    """No reader sees anything but whole values while the map moves under it."""
    with open_store(place, initial_map=MIB) as store:
        store.write(large_rows(0, 10))
        keys, wanted = [key for key, _ in large_rows(0, 10)], [value for _, value in large_rows(0, 10)]
        wrong, done = [], threading.Event()

        def read():
            while not done.is_set():
                try:
                    if store.get(keys) != wanted:
                        wrong.append("a value")
                except Exception as error:
                    wrong.append(error)

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        for first in range(10, 2_000, 50):
            store.write(large_rows(first, 50))
        done.set()
        for reader in readers:
            reader.join()
        assert wrong == []


def write_large(place, pipe):
    with open_store(place, initial_map=MIB) as store:
        store.write(large_rows(0, 2_000))


def test_a_map_that_another_process_grew_is_followed_by_reads_and_writes(place, child):
    with open_store(place, initial_map=MIB) as store:
        store.write([(b"a", b"1")])
        writer, _ = child(write_large, place)
        writer.join()
        assert store.get([b"a", b"000007"]) == [b"1", b"\7" * 10_000]
        store.write([(b"b", b"1")])
        assert store.stat().entries == 2_002
    with open_store(place, initial_map=MIB) as store:  # smaller than the file
        store.write([(b"c", b"1")])


# The lease


def hold_the_lease(place, pipe):
    store = open_store(place)
    with store._lease.held():
        pipe.send(os.getpid())
        pipe.recv()


def test_who_waits_a_second_is_told_who_writes_and_at_the_timeout_gets_an_error_that_names_him(place, child):
    told = []
    with open_store(place, lease_timeout=1.5, on_wait=told.append) as store:
        before = time.time()
        holder, pipe = child(hold_the_lease, place)
        pid = pipe.recv()
        started = time.monotonic()
        with pytest.raises(LeaseHeldError, match=rf"waited 1\.5 s to write; the lease is held by pid {pid} on ") as raised:
            store.write([(b"a", b"1")])
        assert 1.4 < time.monotonic() - started < 5
        assert raised.value.exit_code == 4
        assert [seen.pid for seen in told] == [raised.value.holder.pid] == [pid]
        assert before * 1e6 - 1 <= raised.value.holder.since <= time.time() * 1e6
        assert store.get([b"a"]) == [None]
        pipe.send("go")
        holder.join()
        store.write([(b"a", b"1")])


def test_the_default_is_to_log_who_is_waited_for(place, child, caplog):
    with open_store(place, lease_timeout=1.2) as store:
        _, pipe = child(hold_the_lease, place)
        pid = pipe.recv()
        with pytest.raises(LeaseHeldError):
            store.write([(b"a", b"1")])
    assert f"the lease is held by pid {pid}" in caplog.text


def test_the_lease_of_a_killed_holder_is_free_and_that_of_a_stopped_one_is_not(place, child):
    with open_store(place, lease_timeout=0.3) as store:
        holder, pipe = child(hold_the_lease, place)
        os.kill(pipe.recv(), signal.SIGSTOP)
        with pytest.raises(LeaseHeldError, match=f"pid {holder.pid}"):
            store.write([(b"a", b"1")])
        holder.kill()
        store.write([(b"a", b"2")])
        assert store.get([b"a"]) == [b"2"]


def die_in_a_transaction(place, pipe):
    def stop_half_way(transaction):
        for number in range(500):
            transaction.put(b"%04d" % number, b"new" * 1_000)
        pipe.send("half way")
        time.sleep(60)

    store = open_store(place)
    with store._lease.held():
        store._commit(stop_half_way)


def test_a_writer_killed_inside_its_transaction_leaves_what_was_there_and_the_way_free(place, child):
    with open_store(place, lease_timeout=2) as store:
        old = [(b"%04d" % number, b"old") for number in range(1_000)]
        store.write(old)
        writer, pipe = child(die_in_a_transaction, place)
        pipe.recv()
        assert everything(store) == dict(old)
        writer.kill()
        store.write([(b"after", b"1")])
        assert everything(store) == dict(old) | {b"after": b"1"}


def write_in_a_loop(place, pipe):
    with open_store(place) as store:
        pipe.send("ready")
        while not pipe.poll():
            store.write([(b"loop", b"%d" % number) for number in range(2_000)])


def test_a_writer_in_a_loop_lets_others_have_their_turn(place, child):
    with open_store(place) as store:
        for _ in range(2):
            child(write_in_a_loop, place)[1].recv()
        started = time.monotonic()
        for number in range(20):
            store.write([(b"mine", b"%d" % number)])
        assert time.monotonic() - started < 5


def test_threads_of_one_process_wait_for_each_other_as_processes_do(place):
    with open_store(place, lease_timeout=0.2) as store, store._lease.held():
        raised = []

        def write():
            try:
                store.write([(b"a", b"1")])
            except LeaseHeldError as error:
                raised.append(error.holder.pid)

        other = threading.Thread(target=write)
        other.start()
        other.join()
        assert raised == [os.getpid()]


# Reader slots


def test_no_read_transaction_outlives_a_call(place):
    with open_store(place) as store:
        store.write([(b"a", b"1"), (b"b", b"2")])
        store.get([b"a"])
        store.scan(b"", limit=1)
        store.stat()
        slots = store._environment.readers().splitlines()[1:]
        assert slots and all(slot.split()[-1] == "-" for slot in slots)


def read_without_end(place, pipe):
    store = open_store(place)
    transaction = store._environment.begin()
    pipe.send(transaction.get(b"a"))
    time.sleep(60)


def test_a_reader_killed_in_its_transaction_does_not_keep_old_pages_for_ever(place, child):
    with open_store(place) as store:
        store.write([(b"a", b"1")])
        reader, pipe = child(read_without_end, place)
        pipe.recv()
        reader.kill()
        reader.join()
    with open_store(place) as store:
        for number in range(200):
            store.write([(b"a", bytes([number]) * 100_000)])
    assert (place / "data.mdb").stat().st_size < 2_000_000


def test_an_environment_that_cannot_go_on_is_opened_anew(place):
    """LMDB panics for ever after a failed write of a meta page; the store comes back by itself."""
    with open_store(place) as store:
        store.write([(b"a", b"1")])
        broken = store._environment

        def panic():
            raise lmdb.PanicError("mdb_txn_begin")

        store._begin = panic
        assert store.get([b"a"]) == [b"1"]
        assert store._environment is not broken


def test_a_fork_amid_reads_and_writes_of_other_threads_harms_neither_side(place):
    with open_store(place) as store:
        store.write(large_rows(0, 50, 100))
        wanted, wrong, done = dict(large_rows(0, 50, 100)), [], threading.Event()

        def work(put):
            while not done.is_set():
                try:
                    if everything(store) != wanted:
                        wrong.append("entries")
                    if put:
                        store.write(wanted.items())
                except Exception as error:
                    wrong.append(error)

        threads = [threading.Thread(target=work, args=(put,)) for put in (True, False, False)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                try:
                    store.write(wanted.items())
                    os._exit(0 if everything(store) == wanted else 1)
                finally:
                    os._exit(2)
            assert os.waitpid(child, 0)[1] == 0
        done.set()
        for thread in threads:
            thread.join()
        assert wrong == []


# Keys


def test_the_key_of_a_long_key_s_row_is_itself_a_key_like_any_other(place):
    """A caller's 511-byte key that looks like the stored form of a longer one does not reach the longer one's value."""
    long = b"k" * 600
    look_alike = long[:479] + hashlib.sha256(long).digest()
    with open_store(place) as store:
        store.write([(long, b"long")])
        assert store.get([look_alike]) == [None]
        store.write([(look_alike, b"other")])
        assert store.get([long, look_alike]) == [b"long", b"other"]
        assert everything(store) == {long: b"long", look_alike: b"other"}


# Opening


def test_a_store_of_a_newer_format_is_refused_before_it_is_touched(place):
    open_store(place).close()
    note = place / "format.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"format": 4, "what_is_this": []}))
    before = (place / "data.mdb").read_bytes()
    with pytest.raises(StoreError, match=r"format 4, written by a newer featreg.*\n  Upgrade featreg"):
        open_store(place)
    assert (place / "data.mdb").read_bytes() == before


def test_a_store_of_an_older_format_is_read_and_is_of_this_one_from_then_on(place):
    """Long values stood in one piece then; one of them was as long as a piece."""
    open_store(place).close()
    lengths = {b"%d" % length: length for length in (1, 4079, 4080, 4081, 8160, 20_000)}
    with lmdb.open(str(place), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, length in lengths.items():
            transaction.put(key, bytes(length))
    note = place / "format.json"
    note.write_text(note.read_text().replace("3", "2"))
    with open_store(place) as store:
        assert store.scan(b"") == sorted((key, bytes(length)) for key, length in lengths.items())
        store.write([(key, bytes(8160)) for key in lengths])
        assert store.get(list(lengths)) == [bytes(8160)] * len(lengths)
    assert json.loads(note.read_text()) == {"store": "lmdb", "format": 3}


def test_a_value_is_in_pieces_of_a_page_and_leaves_none_behind(place):
    """So that any free page will do: a file does not grow for want of two that stand side by side."""
    dice = random.Random(4)
    model: dict[bytes, bytes] = {}
    with open_store(place) as store:
        for _ in range(300):
            puts = {dice.choice([b"a", b"b", b"c", b"k" * 600]): bytes(dice.randrange(30_000)) for _ in range(2)}
            deletes = [dice.choice([b"a", b"b", b"c", b"k" * 600])]
            store.write(puts.items(), deletes, {key: model.get(key) for key in puts} if dice.random() < 0.5 else None)
            model = {key: value for key, value in model.items() if key not in deletes} | puts
            assert dict(store.scan(b"")) == model
        with pytest.raises(StoreError, match="two zero bytes"):
            store.write([(b"\0\0a", b"")])
    with lmdb.open(str(place), map_size=1 << 24) as environment, environment.begin() as transaction:
        stored = dict(transaction.cursor())
        assert max(map(len, stored.values())) <= environment.stat()["psize"] - 16
        pieces = sum((len(value) + (604 if key == b"k" * 600 else 0)) // 4080 for key, value in model.items())
        assert len(stored) == len(model) + pieces


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "x"}', "\x00"])
def test_a_format_note_that_featreg_did_not_write_is_refused(place, text):
    open_store(place).close()
    (place / "format.json").write_text(text)
    with pytest.raises(StoreError, match=r"format\.json"):
        open_store(place)


def test_an_lmdb_folder_of_someone_else_is_refused(place):
    place.mkdir()
    lmdb.open(str(place)).close()
    with pytest.raises(StoreError, match="not a featreg store"):
        open_store(place)


def test_a_damaged_file_is_an_error_that_says_what_to_do(place):
    open_store(place).close()
    (place / "data.mdb").write_bytes(b"not LMDB at all" * 1_000)
    with pytest.raises(StoreError, match=r"damaged.*\n  Remove the folder and materialize anew"):
        open_store(place)


def test_a_missing_store_is_made_only_where_that_is_wanted(place):
    with pytest.raises(StoreError, match=r"no online store.*\n  Run featreg materialize"):
        open_store(place, create=False)
    assert not place.exists()
    open_store(place).close()
    open_store(place, create=False).close()


def test_a_store_is_one_by_whichever_path_it_is_reached(place, tmp_path):
    link = tmp_path / "link"
    with open_store(place) as store:
        link.symlink_to(place)
        with open_store(link) as linked:
            assert linked is store


def test_a_store_whose_folder_was_removed_is_not_mistaken_for_the_new_one(place):
    old = open_store(place)
    old.write([(b"a", b"1")])
    for file in place.iterdir():
        file.unlink()
    with open_store(place) as new:
        assert new.get([b"a"]) == [None]
        with pytest.raises(StoreError, match="removed or replaced"):
            old.get([b"a"])
        old.close()
        new.write([(b"a", b"2")])
        assert new.get([b"a"]) == [b"2"]


# A full disk

FILL = """
import sys
from pathlib import Path
from tests.test_store_lmdb import fill_the_disk
fill_the_disk(Path(sys.argv[1]), sys.argv[2])
"""


def fill_the_disk(place, how):
    """Write until the disk is full: what was written before is whole, and the write that failed succeeds when there is room again."""
    ballast = place.parent / "ballast"
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, resource.RLIM_INFINITY))
    else:
        ballast.write_bytes(b"x" * 3 * MIB)
    with open_store(place) as store:
        kept, first = {}, 0
        try:
            while first < 10_000:
                store.write(large_rows(first, 20))
                kept |= dict(large_rows(first, 20))
                first += 20
        except StoreError as error:
            assert "Make room, then run the same command again" in str(error)
        assert 100 < len(kept) < 1_000
        for _ in range(3):
            try:
                store.write(large_rows(first, 20))
                raise AssertionError("the disk should still be full")
            except FeatregError:
                assert everything(store) == kept
        if how == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        else:
            ballast.unlink()
        store.write(large_rows(first, 20))
        kept |= dict(large_rows(first, 20))
    with open_store(place) as store:
        assert everything(store) == kept


def run_full_disk(place, how, before=()):
    command = [*before, sys.executable, "-c", FILL, str(place), how]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_disk_that_refuses_writes_loses_nothing(place):
    """RLIMIT_FSIZE: the kernel refuses every byte behind 4 MiB."""
    done = run_full_disk(place, "limit")
    assert done.returncode == 0, done.stderr


def test_a_full_disk_loses_nothing(tmp_path):
    """A real ENOSPC on 8 MiB of tmpfs in a mount namespace; where none may be made, the limit once more."""
    ways = [["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]]
    mount = f"mount -t tmpfs -o size=8m tmpfs '{tmp_path}'"
    allowed = [way for way in ways if subprocess.run([*way, "sh", "-c", mount], check=False, capture_output=True).returncode == 0]
    if allowed:
        done = run_full_disk(tmp_path / "online", "disk", [*allowed[0], "sh", "-c", mount + ' && exec "$@"', "sh"])
    else:
        done = run_full_disk(tmp_path / "online", "limit")
    assert done.returncode == 0, done.stderr
