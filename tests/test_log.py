"""What every control log must do, on SQLite and on PostgreSQL: one order, one winner, a chain that shows what was done to it."""

import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import featreg
from featreg.errors import RefusedError, StoreError, UsageError
from featreg.registry.kept_state import kept_problems, load_state, read_kept
from featreg.registry.log import ControlLog, open_log
from featreg.registry.postgres_log import PostgresLog
from featreg.registry.sqlite_log import SqliteLog
from featreg.registry.state import ControlState, fold
from tests.postgres import PASSWORD, Postgres
from tests.shop import REALTIME_SHOP, Shop

KINDS = ("sqlite", "postgres")
KEEP = 30  # records after which a state is kept


class Place:
    """Where a log is: the arguments that open it, and a way to do with its tables what featreg never does."""

    def __init__(self, kind: str, folder: Path, url: str | None):
        self.kind, self.folder, self.url = kind, folder, url

    def open(self, **options: Any) -> ControlLog:
        return open_log(self.folder, self.url, **options)

    def edit(self, *statements: str) -> None:
        """Statements name tables as SQLite has them."""
        if self.url is None:
            connection: Any = sqlite3.connect(self.folder / "control.sqlite")
        else:
            import psycopg

            connection = psycopg.connect(self.url)
            names = ("records", "head", "claim")
            statements = tuple(" ".join(f"featreg_{w}" if w in names else w for w in one.split(" ")) for one in statements)
        with connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    @property
    def profile(self) -> str:
        return "" if self.url is None else f'[registry]\nurl = "{self.url}"\n'


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    url = request.getfixturevalue("postgres").new_place() if request.param == "postgres" else None
    return Place(request.param, tmp_path / ".featreg" / "registry", url)


@pytest.fixture
def log(place: Place) -> Iterator[ControlLog]:
    opened = place.open()
    yield opened
    opened.close()


def filled(log: ControlLog, records: int = 5) -> ControlLog:
    for number in range(records):
        log.append("apply", {"number": number, "text": "é\u0000%s?"}, number)
    return log


def test_records_come_back_as_they_were_appended(log: ControlLog, place: Place) -> None:
    assert (log.exists(), log.records(), log.generation(), log.problems()) == (False, [], 0, [])
    assert log.last("apply") is log.record(1) is log.chain_at(1) is None
    before = time.time_ns() // 1000
    made = [log.append(kind, {"n": n, "text": "é\u0000%s?"}, n) for n, kind in enumerate(("apply", "pin", "apply"))]
    other = place.open()
    assert other.records() == made and [record.generation for record in made] == [1, 2, 3]
    assert other.records(after=1) == made[1:] and list(other.iterate(2)) == made[2:]
    assert list(other.iterate(kind="apply")) == [made[0], made[2]] and list(other.iterate(1, "apply")) == made[2:]
    assert (other.last("apply"), other.last("apply", before=3), other.last("pin"), other.last("x")) == (made[2], made[0], made[1], None)
    assert (other.record(2), other.record(9), other.generation()) == (made[1], None, 3)
    assert all(before <= record.at <= time.time_ns() // 1000 for record in made) and made[0].by.endswith(f"(pid {os.getpid()})")
    assert other.problems() == []
    other.close()


def test_who_expected_another_generation_is_told_who_was_first(log: ControlLog) -> None:
    first = log.append("apply", {}, 0)
    with pytest.raises(RefusedError) as raised:
        log.append("pin", {}, 0)
    assert f"{first.by} was first: 'apply' is generation 1, of 20" in str(raised.value) and "begun at 0" in str(raised.value)
    with pytest.raises(RefusedError, match="and this was begun at 7"):
        log.append("pin", {}, 7)
    assert log.records() == [first]


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE records SET body = '{}' WHERE generation = 3", "record 3 ('apply') was edited"),
        ("UPDATE records SET by = 'me' WHERE generation = 5", "record 5 ('apply') was edited"),
        ("UPDATE records SET chain = 'x' WHERE generation = 2", "record 2 ('apply') was edited"),
        ("DELETE FROM records WHERE generation = 2", "record 2 is missing"),
        ("DELETE FROM records WHERE generation IN (2, 3)", "records 2 to 3 are missing"),
        ("DELETE FROM records WHERE generation > 3", "the log ends at record 3 and had 5: it was cut off"),
        ("UPDATE records SET at = 0 WHERE generation = 4", "record 4 ('apply') is older than the one before it"),
    ],
)
def test_what_was_done_to_a_log_is_named(log: ControlLog, place: Place, statement: str, told: str) -> None:
    filled(log)
    assert log.problems() == []
    place.edit(statement)
    assert any(told in problem for problem in log.problems()), log.problems()


def test_a_log_of_a_newer_featreg_is_left_alone(log: ControlLog, place: Place) -> None:
    filled(log)
    place.edit("PRAGMA user_version = 9" if place.url is None else "UPDATE featreg_form SET form = 9")
    asks: list[Callable[[], object]] = [log.records, log.problems, log.generation, lambda: log.append("apply", {}, 5)]
    for ask in asks:
        with pytest.raises(StoreError, match="newer featreg"):
            ask()


# The claim


def test_a_claim_lets_nobody_else_begin_and_ends_with_its_record(log: ControlLog, place: Place) -> None:
    other = place.open()
    with log.claimed("apply", 0) as claim:
        with pytest.raises(RefusedError, match=r"\(pid \d+\) is at it: 'apply' was begun at 20.* ago, on generation 0"):
            with other.claimed("rollback", 0):
                pass
        pin = other.append("pin", {}, 0)  # what changes nothing that is applied need not wait
        record = log.append("apply", {}, claim=claim)
    assert (pin.generation, record.generation) == (1, 2)
    with pytest.raises(RefusedError, match="was first: 'apply' is generation 2"):
        with other.claimed("apply", 1):
            pass
    with other.claimed("apply", 2):
        pass  # nothing to do: the claim is given back all the same
    with log.claimed("apply", 2):
        pass
    with pytest.raises(ZeroDivisionError):
        with log.claimed("apply", 2):
            _ = 1 / 0
    with other.claimed("apply", 2):
        pass
    other.close()


def test_a_dead_claimant_is_followed_at_once_here_and_after_a_while_elsewhere(log: ControlLog, place: Place) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    filled(log, 1)

    def left(host: str, pid: int, ago: int) -> None:
        at = time.time_ns() // 1000 - ago * 1_000_000
        place.edit("DELETE FROM claim", f"INSERT INTO claim VALUES (1, 'x', 'apply', {at}, 'someone', '{host}', {pid})")

    here = __import__("socket").gethostname()
    left(here, gone.pid, 1)
    with log.claimed("apply", 1):
        pass
    left("elsewhere", gone.pid, 1)
    with pytest.raises(RefusedError, match="someone is at it"):
        with log.claimed("apply", 1):
            pass
    left("elsewhere", gone.pid, 200)
    with log.claimed("apply", 1):
        pass


def test_who_was_taken_for_dead_changes_nothing(log: ControlLog, place: Place) -> None:
    filled(log, 1)
    with log.claimed("apply", 1) as claim:
        place.edit("UPDATE claim SET at = at - 200000000, host = 'elsewhere'")
        other = place.open()
        with other.claimed("rollback", 1) as second:
            with pytest.raises(RefusedError, match="took over with 'rollback' at 20"):
                log.append("apply", {}, claim=claim)
            other.append("apply", {"again": 1}, claim=second)
        with pytest.raises(RefusedError, match="someone took over and is done"):
            log.append("apply", {}, claim=claim)
        other.close()
    assert [record.body.get("again") for record in log.records()] == [None, 1] and log.problems() == []


def _apply(root: str, number: int, rounds: int, ready: Any, outcomes: Any) -> None:
    """Apply a spec of one's own, round by round, from the generation that all have seen."""
    path = Path(root, "features", "shop.py")
    with featreg.open(root) as registry:
        for round_ in range(rounds):
            path.write_text(REALTIME_SHOP.replace('agg.sum("cents")', f'agg.sum("cents + {rounds * number + round_ + 1}")'))
            ready.wait(120)
            expected = registry.log.generation()
            ready.wait(120)
            try:
                outcomes.put((round_, number, registry.apply(expected=expected).generation, ""))
            except featreg.FeatregError as error:
                outcomes.put((round_, number, 0, str(error)))


def test_of_ten_who_apply_at_once_one_is_first_and_nothing_is_lost(place: Place, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Ten working trees, one log.  Who is refused is told who was first, or is at it."""
    rounds = request.config.getoption("--rounds")
    registry = place.profile or f'[registry]\npath = "{place.folder}"\n'
    roots = [str(Shop(tmp_path / f"tree{number}", profile=registry).root) for number in range(10)]
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.test_log", "featreg.session.registry", "featreg.session.apply"])
    ready, outcomes = processes.Barrier(10), processes.Queue()
    crew = [processes.Process(target=_apply, args=(root, number, rounds, ready, outcomes)) for number, root in enumerate(roots)]
    for process in crew:
        process.start()
    found = [outcomes.get(timeout=120) for _ in range(10 * rounds)]
    for process in crew:
        process.join(60)
        assert process.exitcode == 0
    for round_ in range(rounds):
        mine = [one for one in found if one[0] == round_]
        assert sorted(generation for *_, generation, _ in mine) == [0] * 9 + [round_ + 1]
        told = [text for *_, given, text in mine if given == 0]
        assert not [text for text in told if "was first: 'apply' is generation" not in text and "is at it: 'apply'" not in text]
    log = place.open()
    winners = {round_: number for round_, number, generation, _ in found if generation}
    for round_, record in enumerate(log.records()):
        assert f"cents + {rounds * winners[round_] + round_ + 1}" in record.body["files"]["features/shop.py"]
    assert log.generation() == rounds and log.problems() == []
    log.close()


# The clock


def test_a_clock_that_was_moved_back_is_an_error_unless_it_is_told_to_be_borne(log: ControlLog, place: Place) -> None:
    record = filled(log, 1).records()[0]
    log.now = lambda run: record.at - 3_500_000_000  # type: ignore[method-assign]
    with pytest.raises(RefusedError) as raised:
        log.append("pin", {}, 1)
    assert "the clock was moved back: it says 20" in str(raised.value) and "clock_tolerance be more than 1h" in str(raised.value)
    log.now = lambda run: record.at - 30_000_000  # type: ignore[method-assign]
    assert log.append("pin", {}, 1).at == record.at  # half a minute is two clocks; the order stays
    tolerant = place.open(clock_tolerance=4_000_000_000)
    tolerant.now = lambda run: record.at - 3_600_000_000  # type: ignore[method-assign]
    assert tolerant.append("pin", {}, 2).at == record.at and tolerant.problems() == []
    tolerant.close()


# The kept state


def many(log: ControlLog, number: int) -> None:
    """Records of every kind that the fold knows."""
    for n in range(log.generation(), log.generation() + number):
        match n % 5:
            case 0 | 1:
                log.append("apply", {"ids": {"v.a": f"a{n % 7}", f"v.b{n % 3}": "b"}}, n)
            case 2:
                log.append("pin", {"name": f"m:{n}", "set": "s", "generation": 1, "features": {"a": "a0"}}, n)
            case 3:
                log.append("unpin" if n % 2 else "keep", {"name": f"m:{n - 1}", "feature": f"v.b{n % 3}"}, n)
            case 4:
                log.append("retire", {"feature": f"v.b{n % 3}", "on": n}, n)


def test_a_kept_state_is_the_fold_of_all_records(tmp_path: Path) -> None:
    log, path = SqliteLog(tmp_path / "log"), tmp_path / "cache" / "state.json"
    assert load_state(log, path, KEEP) == ControlState()
    many(log, 20)
    assert load_state(log, path, KEEP) == fold(log.records()) and not path.exists()
    many(log, KEEP)
    whole = load_state(log, path, KEEP)
    assert whole == fold(log.records()) and read_kept(path)[1] == whole and len(whole.pins) > 3 < len(whole.removed_pins)
    many(log, 3)
    read: list[int] = []
    log.iterate, at_first = lambda after=0, kind=None: (read.append(after), at_first(after))[1], log.iterate  # type: ignore[method-assign,assignment]
    assert load_state(log, path, KEEP) == fold(at_first()) and read == [KEEP + 20]
    assert kept_problems(log, path) == []


def test_a_kept_state_of_another_log_or_of_an_edited_one_does_not_count(tmp_path: Path) -> None:
    log, path = SqliteLog(tmp_path / "log"), tmp_path / "state.json"
    many(log, KEEP)
    load_state(log, path, KEEP)
    other = SqliteLog(tmp_path / "other")
    many(other, 2)
    assert load_state(other, path, KEEP) == fold(other.records())
    many(other, KEEP)
    assert load_state(other, path, KEEP) == fold(other.records())
    for damage in (b"", b"{", b'{"form": 9}', b'{"form": 1, "generation": 1, "chain": "", "state": {}}'):
        path.write_bytes(damage)
        assert load_state(log, path, KEEP) == fold(log.records())
    path.write_text(path.read_text().replace('"a3": ', '"a9": '))
    assert kept_problems(log, path) == [f"the state kept in {path} is not what the log's records come to"]


# SQLite alone


def test_a_log_of_an_earlier_form_gets_what_it_lacks_with_its_next_record(tmp_path: Path) -> None:
    place = Place("sqlite", tmp_path, None)
    log = place.open()
    before = filled(log, 3).records()
    place.edit("DROP INDEX by_kind", "DROP TABLE claim", "PRAGMA user_version = 2")
    assert log.records() == before and log.generation() == 3 and log.problems() == []
    place.edit("ALTER TABLE records DROP COLUMN chain", "DROP TABLE head", "PRAGMA user_version = 1")
    assert log.records() == before and log.generation() == 3 and log.problems() == [] and log.last("apply") == before[2]
    with log.claimed("apply", 3) as claim:
        log.append("apply", {}, claim=claim)
    assert log.records()[:3] == before and log.problems() == []
    place.edit("UPDATE records SET body = '{}' WHERE generation = 1")
    assert any("record 1 ('apply') was edited" in problem for problem in log.problems())


def test_a_log_whose_first_writer_was_killed_before_it_made_a_table_is_empty(tmp_path: Path) -> None:
    (tmp_path / "control.sqlite").write_bytes(b"")
    log = SqliteLog(tmp_path)
    assert (log.records(), log.generation(), log.last("apply"), log.problems()) == ([], 0, None, [])
    assert log.append("apply", {}, 0).generation == 1
    (tmp_path / "control.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match="not a database"):
        log.records()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_log_whose_file_was_cut_off_is_told_by_doctor(tmp_path: Path, share: float) -> None:
    shop = Shop(tmp_path).applied()
    with shop.open() as registry:
        for _ in range(20):
            registry.log.append("note", {"text": "x" * 4000}, registry.log.generation())
        path = registry.log.path  # type: ignore[attr-defined]
    with path.open("rb+") as file:
        file.truncate(int(path.stat().st_size * share))
    with shop.open() as registry:
        (found,) = [one for one in registry.doctor() if one.where == "log"]
        assert found.is_problem and str(path) in found.what and "from a copy" in found.remedy


# PostgreSQL alone


def told_of(call: Callable[[], object], kind: type[Exception]) -> str:
    """The error's text and all that a traceback would show; no password is in it."""
    with pytest.raises(kind) as raised:
        call()
    import traceback

    shown = "".join(traceback.format_exception(raised.value))
    assert PASSWORD not in shown and "hunter2" not in shown and "%2F" not in shown, shown
    return str(raised.value)


def test_no_secret_of_the_url_is_in_an_error(postgres: Postgres, tmp_path: Path) -> None:
    wrong = PostgresLog(postgres.url("postgres", password="hunter2/3"))
    assert "password authentication failed" in told_of(wrong.records, StoreError)
    nowhere = PostgresLog("postgresql://ann:hunter2@127.0.0.1:1/db")
    assert "postgresql://ann@127.0.0.1:1/db: " in told_of(lambda: nowhere.append("apply", {}, 0), StoreError)
    assert "hunter2" not in repr(nowhere) + nowhere.name
    malformed = "postgresql://ann:hunter2@host:port:x/db?nonsense=1"
    told_of(lambda: PostgresLog(malformed), UsageError)
    profile = f'[registry]\nurl = "{postgres.url("postgres", "hunter2/3")}"\n'
    shop = Shop(tmp_path, profile=profile)
    told_of(lambda: shop.open().apply(), StoreError)
    assert "hunter2" not in repr(shop.open().profile)
    Shop(tmp_path, profile='[registry]\nurl = "mysql://ann:hunter2@host/db"\n')
    told_of(shop.open, UsageError)


def test_the_password_may_come_from_the_environment(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres.new_place()
    monkeypatch.setenv("LOG_URL", url)
    shop = Shop(tmp_path, profile='[registry]\nurl = "${LOG_URL}"\n').applied()
    with shop.open() as registry:
        assert registry.control().applied == 1 and not (tmp_path / ".featreg" / "registry").exists()
    assert open_log(tmp_path, url).generation() == 1


def test_a_log_goes_on_after_the_server_ended_its_connections(postgres: Postgres) -> None:
    url = postgres.new_place()
    log = filled(PostgresLog(url), 1)
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")  # type: ignore[arg-type]
    assert log.append("pin", {}, 1).generation == 2 and log.generation() == 2
    log.close()


def test_a_commit_of_which_nothing_was_heard_is_looked_up(postgres: Postgres) -> None:
    """The connection is ended inside the commit, by a trigger that is due then: nothing was written, and that is an error."""
    url = postgres.new_place()
    log = filled(PostgresLog(url), 1)
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION fall() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END';"
            "CREATE CONSTRAINT TRIGGER fall AFTER INSERT ON featreg_records DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION fall()"
        )
        with pytest.raises(StoreError, match="postgresql://featreg@"):
            log.append("apply", {}, 1)
        connection.execute("DROP TRIGGER fall ON featreg_records")
    assert log.generation() == 1 and log.append("apply", {}, 1).generation == 2
    # and the other way: it was written, and the answer was lost
    at_first = log.writing

    from contextlib import contextmanager

    @contextmanager
    def deaf() -> Iterator[Any]:
        with at_first() as run:
            yield run
        raise StoreError("the connection was lost")

    log.writing = deaf  # type: ignore[method-assign]
    assert log.append("apply", {"n": 3}, 2).generation == 3 and log.records()[-1].body == {"n": 3}
    log.close()


def test_a_forked_child_has_a_connection_of_its_own(postgres: Postgres) -> None:
    log = filled(PostgresLog(postgres.new_place()), 1)
    child = os.fork()
    if child == 0:
        os._exit(0 if log.append("pin", {}, 1).generation == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert log.append("pin", {}, 2).generation == 3 and log.problems() == []
    log.close()


def test_first_writers_at_once_make_the_tables_once(postgres: Postgres) -> None:
    url, wins = postgres.new_place(), []
    ready = threading.Barrier(6)

    def write() -> None:
        log = PostgresLog(url)
        ready.wait()
        try:
            wins.append(log.append("apply", {}, 0).generation)
        except RefusedError:
            pass
        log.close()

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wins == [1]


# The registry on either


def test_the_second_of_two_applies_is_refused_before_it_has_done_anything(place: Place, tmp_path: Path, monkeypatch: Any) -> None:
    shop, spec = Shop(tmp_path, profile=place.profile).applied(), tmp_path / "features" / "shop.py"
    with shop.open() as first, shop.open() as second:
        spec.write_text(REALTIME_SHOP.replace('agg.last("shop")', 'agg.first("shop")'))
        with first.log.claimed("apply", 1), pytest.raises(RefusedError, match="is at it: 'apply' was begun at 20"):
            monkeypatch.setattr("featreg.session.apply.read_spec_files", lambda root: pytest.fail("it began"))
            second.apply()
        monkeypatch.undo()
        first.apply()
        with pytest.raises(RefusedError, match=r"was first: 'apply' is generation 2, of 20.*, and this was begun at 1"):
            second.apply(expected=1)


def test_doctor_names_problems_with_their_remedies(place: Place, tmp_path: Path) -> None:
    shop = Shop(tmp_path, profile=place.profile).commit().applied()
    with shop.open() as registry:
        (note,) = registry.doctor()
        assert (note.where, note.is_problem) == ("store", False)
        registry.pin("delay:1", "model")
        place.edit("DELETE FROM records WHERE generation = 1")
        told = [(one.where, one.what) for one in registry.doctor() if one.is_problem]
        assert ("log", "record 1 is missing from the log.") in told
        assert ("pin", "delay:1 pins generation 1, which is not in the log.") in told
        assert json.dumps(told)
