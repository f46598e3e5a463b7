"""Pushed rows count until files cover them: never does a materialize take an answer away for which no file has anything yet."""

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from featreg.cli import main
from featreg.errors import RefusedError
from featreg.instants import parse_instant
from featreg.session import busy_keys
from tests.shop import PROFILE, at, order
from tests.test_push import KEYS, UNTIL_BATCH, answered, shop_of, trained

EVENT_ONLY = UNTIL_BATCH.replace('available="loaded_at",', "")


def spent(registry: Any, minutes: float) -> list[float | None]:
    """Of ann, bob and eve, as it is answered, which is as it is trained."""
    found = answered(registry, at(minutes))
    assert found == trained(registry, at(minutes))
    return [one["spent_1d"] for one in found]


@pytest.mark.parametrize("to", [None, 60, 9.5])
def test_files_that_lag_take_nothing_away(tmp_path: Path, to: float | None) -> None:
    """Whatever `to` is, nothing says more of the files than their newest row."""
    shop = shop_of(tmp_path, UNTIL_BATCH, PROFILE)
    shop.put("one", [order(n, "ann") for n in range(4)])
    with shop.open() as registry:
        registry.materialize(to=at(2))
        registry.push("orders", [order(n, "ann", 10.0) for n in (2, 3, 4, 5)] + [order(9, "bob", 10.0)])
        assert spent(registry, 10) == [32 + 10, 10, None]
        (receipt,) = registry.materialize(to=None if to is None else at(to))
        assert "files reach to 2024-03-01T00:03:00Z; pushed rows that are visible from then on stay" in receipt.note
        if to is not None:
            assert receipt.watermark == parse_instant(at(to))
        assert spent(registry, 10) == [4 + 20, 10, None], "of the rows at 2 and 3 those of the file count, of all others the pushed ones"
        found = registry.parity("model", at=at(10))
        assert found.cells > 0 and found.differing == found.late == 0


def test_a_push_behind_a_run_counts_although_its_instant_is_before_that_run(tmp_path: Path) -> None:
    """The run came to now; the files did not."""
    shop = shop_of(tmp_path, EVENT_ONLY, PROFILE)
    shop.put("one", [order(0, "ann")])
    with shop.open() as registry:
        registry.materialize()
        registry.push("orders", [order(5, "ann", 7.0), order(0, "ann", 99.0)])
        assert spent(registry, 10)[0] == 8.0, "a file has the instant of the second row, so the file is right"
        shop.put("two", [order(5, "ann", 8.0), order(6, "bob", 1.0)])
        registry.materialize()
        assert spent(registry, 10) == [9.0, 1.0, None]


def test_files_that_came_since_are_read_by_a_run_to_the_same_instant(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, UNTIL_BATCH, PROFILE)
    shop.put("one", [order(0, "ann")])
    with shop.open() as registry:
        registry.materialize(to=at(60))
        registry.push("orders", [order(5, "ann", 7.0)])
        assert "nothing to do" in registry.materialize(to=at(60))[0].note
        shop.put("two", [order(6, "ann", 2.0)])
        (receipt,) = registry.materialize(to=at(60))
        assert (receipt.rows, receipt.late_rows, receipt.note) == (1, 0, "")
        assert spent(registry, 61)[0] == 3.0


def test_a_row_of_a_file_that_is_dated_in_the_future_covers_nothing(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, EVENT_ONLY, PROFILE)
    shop.put("one", [order(0, "ann"), order(0, "ann") | {"bought_at": datetime(2999, 1, 1, tzinfo=UTC)}])
    with shop.open() as registry:
        registry.push("orders", [order(5, "ann", 7.0)])
        registry.materialize()
        assert spent(registry, 10)[0] == 8.0


def test_without_a_row_in_any_file_what_was_pushed_stays(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, EVENT_ONLY, PROFILE)
    shop.put("one", [])
    with shop.open() as registry:
        registry.materialize()
        registry.push("orders", [order(n, "ann") for n in range(30)])
        (receipt,) = registry.materialize()
        assert receipt.note.startswith("no file has a row yet; pushed rows")
        assert [spent(registry, moment)[0] for moment in (5, 40)] == [5.0, 30.0], "nothing is folded: any instant is there"


def test_what_may_still_give_way_is_never_folded(tmp_path: Path) -> None:
    """Hours of pushed rows stay rows while files lag by more than `replay`, and give way one by one when files come."""
    shop = shop_of(tmp_path, EVENT_ONLY, PROFILE)
    shop.put("one", [order(0, "ann")])
    with shop.open() as registry:
        registry.materialize()
        for begin in range(1, 200, 20):
            registry.push("orders", [order(n, "ann", 10.0) for n in range(begin, begin + 20)])
            registry.materialize(to=at(begin + 60))
        for until in (50, 51, 120):
            shop.put(f"to {until}", [order(until, "ann", 0.5)])
            registry.materialize(to=at(300))
        assert spent(registry, 301)[0] == 1 + 0.5 * 3 + 10 * 80, "rows pushed up to 120 were in no file"
        with pytest.raises(RefusedError, match="the earliest is"):
            registry.online("model", KEYS[0], at=at(60))


@pytest.mark.parametrize("seed", range(3))
def test_in_any_order_of_pushes_files_and_runs_files_count_up_to_their_newest_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The second witness is the rule as a loop over rows: those of files that a run has read, and pushed ones visible behind them."""
    dice = random.Random(seed)
    monkeypatch.setattr(busy_keys, "CLOSE_ROWS", (busy_keys.CLOSE_ROWS, 1, 5)[seed])
    shop = shop_of(tmp_path, UNTIL_BATCH, PROFILE)
    files: list[dict] = []
    pushed: list[dict] = []
    clock, read, came_to, covered = 10.0, 0, parse_instant(at(0)), parse_instant(at(-60))

    def drawn(amount: float) -> dict:
        happened = clock - dice.choice((0, 0, 1, 3, 25)) * dice.random()
        return order(happened, dice.choice(("ann", "bob")), amount, loaded=happened + dice.choice((0, 0, 2)))

    def visible(row: dict) -> int:
        return parse_instant(max(row["bought_at"], row["loaded_at"]))

    with shop.open() as registry:
        shop.put("none", [])
        registry.materialize(to=at(0))
        for step in range(40):
            clock += dice.random() * 3
            match dice.choice(("push", "push", "file", "run")):
                case "push":
                    rows = [drawn(10.0 + step) for _ in range(dice.randrange(1, 6))]
                    pushed += rows
                    registry.push("orders", rows)
                case "file":
                    rows = [drawn(0.5) for _ in range(dice.randrange(1, 4))]
                    files += rows
                    shop.put(f"{step}", rows)
                case "run":
                    to = at(clock + dice.choice((-2, 0, 0, 30)))
                    (receipt,) = registry.materialize(to=to)
                    if not receipt.note.startswith("nothing to do"):
                        read, came_to = len(files), max(came_to, parse_instant(to))
                        covered = max(covered, min(came_to, 1 + max(map(visible, files), default=covered)))
            then = at(clock + 40)
            counting = [row for row in files[:read] if visible(row) < covered] + [row for row in pushed if visible(row) >= covered]
            wanted = [sum(row["amount"] for row in counting if row["customer"] == key["customer"]) or None for key in KEYS]
            assert [one["spent"] for one in answered(registry, then)] == wanted, step
        registry.materialize(to=then)
        assert answered(registry, then) == trained(registry, then)


def test_the_command_line_tells_what_stays(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shop = shop_of(tmp_path, UNTIL_BATCH, PROFILE)
    shop.put("one", [order(0, "ann")])
    with shop.open() as registry:
        registry.push("orders", [order(5, "ann", 7.0)])
    assert main(["--root", str(tmp_path), "materialize"]) == 0
    assert "files reach to 2024-03-01T00:00:00Z; pushed rows that are visible from then on stay" in capsys.readouterr().out
