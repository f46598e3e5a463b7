"""Options of the test run: how many random worlds, and from which seed."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from featreg.kernels import use_cache

if TYPE_CHECKING:
    from tests.postgres import Postgres

use_cache(Path(__file__).parent.parent / ".featreg")  # before a test imports a kernel: one folder for all, of exactly these sources

WORLDS, ROUNDS, KILLS, REQUESTS, TABLES = 300, 50, 25, 150, 20


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("featreg")
    group.addoption("--worlds", type=int, default=WORLDS, help=f"how many random worlds each comparison is made in (default {WORLDS})")
    group.addoption("--rounds", type=int, default=ROUNDS, help=f"how often ten processes apply at once (default {ROUNDS})")
    group.addoption("--kills", type=int, default=KILLS, help=f"how often apply and materialize are killed (default {KILLS})")
    group.addoption("--tables", type=int, default=TABLES, help=f"how many tables get content ids from all engines (default {TABLES})")
    group.addoption(
        "--world-seed", type=int, default=0, help="what the worlds are drawn from; the same seed gives the same worlds (default 0)"
    )
    group.addoption(
        "--requests", type=int, default=REQUESTS, help=f"how many requests are drawn from the service's description (default {REQUESTS})"
    )
    group.addoption(
        "--long", action="store_true",
        help="realtime claims at full length: all flights of 2013, 20,000 asks, 50 kills, 10,000 pushes (default: a bounded part of each)",
    )  # fmt: skip


def pytest_report_header(config: pytest.Config) -> str:
    return f"worlds: --worlds {config.getoption('--worlds')} --world-seed {config.getoption('--world-seed')}"


@pytest.fixture(scope="session")
def postgres() -> "Iterator[Postgres]":
    """A PostgreSQL server for the run of the tests."""
    from tests.postgres import postgres_server

    with postgres_server() as server:
        yield server


@pytest.fixture
def try_worlds(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Run `check(world)` in `--worlds` worlds of a strategy, times `share`; the first that fails is shrunk and shown."""
    number, world_seed = request.config.getoption("--worlds"), request.config.getoption("--world-seed")

    def run(check: Callable[[object], None], strategy: SearchStrategy, share: float = 1.0) -> None:
        phases = [Phase.generate] if os.environ.get("FEATREG_NO_SHRINK") else [Phase.generate, Phase.shrink]

        @seed(world_seed)
        @settings(
            max_examples=max(1, round(number * share)),
            database=None,
            deadline=None,
            derandomize=False,
            report_multiple_bugs=False,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def in_worlds(world: object) -> None:
            check(world)

        in_worlds()

    return run
