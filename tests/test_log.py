"""A record that was edited, taken out or cut off is named; of many who apply at once exactly one is first."""

import multiprocessing
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from featreg.errors import RefusedError, StoreError
from featreg.registry.log import ControlLog
from tests.shop import REALTIME_SHOP, Shop

ROUNDS = 50


def log_of(folder: Path, records: int = 5) -> ControlLog:
    log = ControlLog(folder)
    for number in range(records):
        log.append("apply", {"number": number, "text": "é"}, number)
    return log


def edit(log: ControlLog, *statements: str) -> None:
    connection = sqlite3.connect(log.path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_a_log_as_it_was_written_is_sound(tmp_path: Path) -> None:
    assert log_of(tmp_path).problems() == [] == ControlLog(tmp_path / "none").problems()


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
def test_what_was_done_to_a_log_is_named(tmp_path: Path, statement: str, told: str) -> None:
    log = log_of(tmp_path)
    edit(log, statement)
    assert any(told in problem for problem in log.problems()), log.problems()


def test_a_log_of_the_first_form_gets_its_chain_with_the_next_record(tmp_path: Path) -> None:
    log = log_of(tmp_path, 3)
    before = log.records()
    edit(log, "ALTER TABLE records DROP COLUMN chain", "DROP TABLE head", "PRAGMA user_version = 1")
    assert log.records() == before and log.problems() == []
    log.append("pin", {}, 3)
    assert log.records()[:3] == before and log.problems() == []
    edit(log, "UPDATE records SET body = '{}' WHERE generation = 1")
    assert any("record 1 ('apply') was edited" in problem for problem in log.problems())


def test_a_log_of_a_newer_featreg_is_left_alone(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    edit(log, "PRAGMA user_version = 9")
    for ask in (log.records, log.problems, lambda: log.append("apply", {}, 5)):
        with pytest.raises(StoreError, match="newer featreg"):
            ask()


def _apply(root: str, number: int, ready: "multiprocessing.synchronize.Barrier", outcomes: "multiprocessing.Queue") -> None:
    import featreg

    log = ControlLog(Path(root))
    for round_ in range(ROUNDS):
        ready.wait(60)
        expected = log.generation()
        ready.wait(60)
        try:
            outcomes.put((round_, number, log.append("apply", {"by": number}, expected).generation, ""))
        except featreg.FeatregError as error:
            outcomes.put((round_, number, 0, str(error)))


def test_of_ten_who_apply_at_once_one_is_first_and_nothing_is_lost(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("spawn")
    ready, outcomes = processes.Barrier(10), processes.Queue()
    crew = [processes.Process(target=_apply, args=(str(tmp_path), number, ready, outcomes)) for number in range(10)]
    for process in crew:
        process.start()
    found = [outcomes.get(timeout=120) for _ in range(10 * ROUNDS)]
    for process in crew:
        process.join()
    for round_ in range(ROUNDS):
        mine = [one for one in found if one[0] == round_]
        assert sorted(generation for *_, generation, _ in mine) == [0] * 9 + [round_ + 1]
        assert all("was first: 'apply' is generation" in text for *_, generation, text in mine if generation == 0)
    log = ControlLog(tmp_path)
    winners = {round_: number for round_, number, generation, _ in found if generation}
    assert [record.body["by"] for record in log.records()] == [winners[round_] for round_ in range(ROUNDS)]
    assert log.problems() == []


def test_the_second_of_two_applies_is_told_who_was_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, spec = Shop(tmp_path).applied(), tmp_path / "features" / "shop.py"
    with shop.open() as first, shop.open() as second:
        at_first: Callable[[], int] = second.log.generation
        monkeypatch.setattr(second.log, "generation", lambda known=at_first(): known)
        spec.write_text(REALTIME_SHOP.replace('agg.last("shop")', 'agg.first("shop")'))
        first.apply()
        spec.write_text(REALTIME_SHOP.replace('agg.sum("cents")', 'agg.sum("cents + 1")'))
        with pytest.raises(RefusedError, match="was first: 'apply' is generation 2, and this was begun at 1"):
            second.apply()


def test_doctor_names_problems_with_their_remedies(tmp_path: Path) -> None:
    shop = Shop(tmp_path).applied()
    with shop.open() as registry:
        (note,) = registry.doctor()
        assert (note.where, note.is_problem) == ("store", False)
        registry.pin("delay:1", "model")
        edit(registry.log, "DELETE FROM records WHERE generation = 1")
        told = [(one.where, one.what) for one in registry.doctor() if one.is_problem]
        assert ("log", "record 1 is missing from the log.") in told
        assert ("pin", "delay:1 pins generation 1, which is not in the log.") in told
