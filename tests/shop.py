"""A small shop: definitions, files of orders, and a process in which a verb may be killed.

`Shop` is a repository in a folder.  `Forks` is a process that has imported everything and
forks a child for each run, so that a run to be killed begins in milliseconds.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import featreg
from tests.test_worlds import first_difference

ROOT = Path(__file__).parent.parent
START = datetime(2024, 3, 1, tzinfo=UTC)

ENTITY = """
from featreg import REALTIME, Delay, Entity, EventSource, Every, FeatureSet, FeatureView, agg, derive

customer = Entity(name="customer", key={"customer": "VARCHAR"})
"""
ORDERS = """
orders = EventSource(
    name="orders",
    columns={
        "customer": "VARCHAR",
        "amount": "DOUBLE",
        "cents": "BIGINT",
        "shop": "VARCHAR",
        "bought_at": "TIMESTAMP",
        "loaded_at": "TIMESTAMP",
    },
    event_time="bought_at",
    available="loaded_at",
    tie_break="shop",
)
"""
RECENT = """
recent = FeatureView(
    name="recent",
    entity=customer,
    source=orders,
    freshness=REALTIME,
    features={
        "n": agg.count().over("10m", "1d"),
        "spent": agg.sum("amount").over("1h", "1d", None),
        "cents": agg.sum("cents").over("1d"),
        "shops": agg.count_distinct("shop").over("1d"),
        "last_shop": agg.last("shop"),
        "top": agg.top_n("amount", 3).over("1h", hop="exact"),
        "share": derive("n_10m / n_1d"),
    },
)
"""
DAILY = """
daily = FeatureView(
    name="daily",
    entity=customer,
    source=orders,
    freshness=Every("1d", offset="3h", delay="2h"),
    features={"orders": agg.count().over("2d"), "largest": agg.max("amount").over("2d")},
)
"""
REALTIME_SET = 'model = FeatureSet(name="model", features=[recent.all()])\n'
BOTH_SET = 'model = FeatureSet(name="model", features=[recent.all(), daily.all()])\n'
REALTIME_SHOP = ENTITY + ORDERS + RECENT + REALTIME_SET
WHOLE_SHOP = ENTITY + ORDERS + RECENT + DAILY + BOTH_SET
PROFILE = '[sources]\norders = "data/*.parquet"\n'
COLUMNS = {
    "customer": pa.string(), "amount": pa.float64(), "cents": pa.int64(), "shop": pa.string(),
    "bought_at": pa.timestamp("us", "UTC"), "loaded_at": pa.timestamp("us", "UTC"),
}  # fmt: skip


def at(minutes: float) -> datetime:
    """An instant, in minutes after the shop opened."""
    return START + timedelta(minutes=minutes)


def order(
    minutes: float, customer: str | None = "ann", amount: float | None = 1.0, shop: str | None = "a", loaded: float | None = None
) -> dict[str, Any]:
    """A row: bought after so many minutes, loaded at once or at `loaded`."""
    return {
        "customer": customer, "amount": amount, "cents": None if amount is None else round(100 * amount), "shop": shop,
        "bought_at": at(minutes), "loaded_at": at(minutes if loaded is None else loaded),
    }  # fmt: skip


def order_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    rows = list(rows)
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in COLUMNS.items()})


class Shop:
    """A repository at `root`: specs in `features/shop.py`, orders in `data/`."""

    def __init__(self, root: Path, spec: str = REALTIME_SHOP, profile: str = PROFILE):
        self.root = root
        for name, text in {"features/shop.py": spec, "conf/local.toml": profile}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (root / "data").mkdir(exist_ok=True)

    def open(self) -> Any:
        return featreg.open(self.root)

    def applied(self) -> "Shop":
        with self.open() as registry:
            registry.apply()
        return self

    def commit(self) -> "Shop":
        """Commit the specs, in a repository that is made when there is none."""
        for arguments in (("init", "-q"), ("add", "features"), ("commit", "-q", "--allow-empty", "-m", "specs")):
            subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=self.root, check=True, capture_output=True)
        return self

    def put(self, name: str, rows: Iterable[Mapping[str, Any]] | pa.Table) -> Path:
        """Write a file of orders, whole or not at all."""
        path = self.root / "data" / f"{name}.parquet"
        part = path.with_suffix(".part")
        pq.write_table(rows if isinstance(rows, pa.Table) else order_table(rows), part)
        part.replace(path)
        return path

    def stored(self) -> dict[bytes, bytes]:
        """Every byte of the online store."""
        from featreg.stores.lmdb import open_store

        path = self.root / ".featreg" / "online"
        if not path.exists():
            return {}
        with open_store(path, create=False) as store:
            return dict(store.scan(b"", limit=1_000_000))


def spine_of(keys: Sequence[Mapping[str, Any]], moment: datetime) -> pa.Table:
    customers = pa.array([key["customer"] for key in keys], pa.string())
    return pa.table({"customer": customers, "as_of": pa.array([moment] * len(keys), pa.timestamp("us", "UTC"))})


def difference(registry: Any, keys: Sequence[Mapping[str, Any]], moments: Iterable[datetime], known_at: datetime) -> str | None:
    """The first cell in which online and the training set known at the watermark differ; None when they agree to the bit."""
    for moment in moments:
        vectors = registry.online("model", list(keys), at=moment)
        table = registry.training_set("model", spine_of(keys, moment), time="as_of", known_at=known_at).to_arrow()
        names = [name for name in table.column_names if name not in ("customer", "as_of")]
        found = first_difference(names, table.select(names).to_pylist(), [vector.values for vector in vectors])
        if found is not None:
            return f"at {moment}: {found}"
    return None


def kernel_folder(default: Path) -> str:
    """Where compiled kernels are, for this process and those it starts."""
    return os.environ.get("NUMBA_CACHE_DIR") or str(default)


# Runs in another process

_SERVER = """
import sys
sys.path.insert(0, {root!r})
from tests.shop import serve_forks
serve_forks()
"""


class Forks:
    """A process that forks: `start` gives the pid of a child that calls `function(*arguments)`, `outcome` how it ended."""

    def __init__(self, kernels: str):
        self.kernels = kernels
        environment = os.environ | {"NUMBA_CACHE_DIR": kernels}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER.format(root=str(ROOT))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    def start(self, function: str, *arguments: Any) -> int:
        """function: `module:name`.  Returns when the child is about to call it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([function, arguments]) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def outcome(self) -> int:
        """Wait for the child: its exit code, or minus the signal that ended it."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self._line())

    def run(self, function: str, *arguments: Any) -> int:
        self.start(function, *arguments)
        return self.outcome()

    def kill_after(self, seconds: float, function: str, *arguments: Any, how: int = signal.SIGKILL) -> int:
        pid = self.start(function, *arguments)
        time.sleep(seconds)
        os.kill(pid, how)
        return self.outcome()

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the forking process ended"
        return line


def serve_forks() -> None:
    """Read calls, fork, tell the child's pid, wait, tell how it ended."""
    from importlib import import_module

    import git  # noqa: F401
    import pandas  # noqa: F401

    import featreg.session.apply
    import featreg.session.materialize
    import featreg.session.online
    import featreg.session.training_set  # noqa: F401

    while line := sys.stdin.readline():
        function, arguments = json.loads(line)
        module, _, name = function.partition(":")
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(ready)
                os.dup2(2, 1)
                called = getattr(import_module(module), name)
                os.write(told, b"x")
                os.close(told)
                code = called(*arguments) or 0
            except KeyboardInterrupt:
                code = 130
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        print(pid, flush=True)
        sys.stdin.readline()  # until someone asks for the outcome the pid is the child's, alive or not
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
