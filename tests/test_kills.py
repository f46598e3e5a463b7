"""A kill anywhere in apply and materialize: one whole version is served all along, and the same commands again finish the job."""

import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import featreg
from tests.shop import BOTH_SET, DAILY, ENTITY, ORDERS, RECENT, Forks, Shop, at, kernel_folder, order

CUSTOMERS = [f"customer {number}" for number in range(300)]
NOW = at(60 * 40)
SPEC = ENTITY + ORDERS + RECENT + DAILY + BOTH_SET


def spec_of(factor: int) -> str:
    """Every amount times a factor, so that two versions have no value in common."""
    times = f'"amount * {factor}"'
    return SPEC.replace('"amount"', times).replace(f"{times}: ", '"amount": ').replace('agg.sum("cents")', f'agg.sum("cents * {factor}")')


def expected(factor: int) -> dict[str, Any]:
    """By hand: every customer bought for 1 sixteen hours ago, and for 2 and 4 within the hour; daily knows only the first."""
    return {
        "spent_1h": 6.0 * factor, "spent_1d": 7.0 * factor, "cents_1d": 700 * factor, "top_1h": [4.0 * factor, 2.0 * factor],
        "largest_2d": 1.0 * factor,
    }  # fmt: skip


def apply_and_materialize(root: str, factor: int) -> None:
    Path(root, "features", "shop.py").write_text(spec_of(factor))
    with featreg.open(root) as registry:
        registry.apply()
        registry.materialize(to=NOW)


def served(registry: Any, customer: str) -> dict[str, Any]:
    values = registry.online("model", {"customer": customer}, at=NOW).values
    return {name: values[name] for name in expected(1)}


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Forks]:
    running = Forks(kernel_folder(tmp_path / "kernels"))
    yield running
    running.close()


def test_one_whole_version_is_served_throughout_and_a_rerun_finishes(tmp_path: Path, forks: Forks, request: pytest.FixtureRequest) -> None:
    kills, chance = request.config.getoption("--kills"), random.Random(request.config.getoption("--world-seed"))
    shop = Shop(tmp_path / "shop", spec_of(1))
    rows = [
        order(minutes, customer, amount=amount, shop="b")
        for customer in CUSTOMERS
        for minutes, amount in ((60 * 24, 1.0), (60 * 39 + 15, 2.0), (60 * 39 + 30, 4.0))
    ]
    shop.put("one", rows)
    began = time.perf_counter()
    assert forks.run("tests.test_kills:apply_and_materialize", str(shop.root), 1) == 0
    longest = time.perf_counter() - began
    wrong: list[str] = []
    versions, done = [expected(1)], threading.Event()

    def read() -> None:
        """Any customer, all the time, by a reader that is never opened anew."""
        numbers = random.Random(1)
        with shop.open() as registry:
            while not done.is_set():
                found = served(registry, numbers.choice(CUSTOMERS))
                if found not in versions:
                    wrong.append(f"{found} is none of {versions}")
                done.wait(0.001)

    reader = threading.Thread(target=read)
    reader.start()
    ended = set()
    try:
        for factor in range(2, 2 + kills):
            versions = [versions[-1], expected(factor)]
            ended.add(forks.kill_after(chance.uniform(0, longest), "tests.test_kills:apply_and_materialize", str(shop.root), factor))
            with shop.open() as registry:
                found = [served(registry, customer) for customer in CUSTOMERS[::30]]
                assert found[0] in versions and all(one == found[0] for one in found), found
            began = time.perf_counter()
            assert forks.run("tests.test_kills:apply_and_materialize", str(shop.root), factor) == 0
            longest = time.perf_counter() - began
            with shop.open() as registry:
                assert [served(registry, customer) for customer in CUSTOMERS[::30]] == [expected(factor)] * 10
                assert registry.log.problems() == [] and not [one for one in registry.doctor() if one.is_problem]
            assert not wrong, wrong[0]
    finally:
        done.set()
        reader.join()
    assert not wrong, wrong[0]
    assert -signal.SIGKILL in ended
    with shop.open() as registry:
        parity = registry.parity("model", sample=50)
        assert parity.is_known and parity.differing == 0
