"""Time pushes into Redis, by the library and over HTTP; or soak the service: pushes and reads over HTTP from Redis, and what is held.

    python -m tests.benchmarks.serving_push                    # batches of 10,000, 1,000 and 100
    python -m tests.benchmarks.serving_push --soak 300         # 5 minutes; a tenth of it a line; leaves with 1 where memory grows

2 views of 20 features and zipf keys, as in `tests.benchmarks.push`, with a real redis-server on loopback.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tests.benchmarks import data
from tests.benchmarks.push import moved, portions, pushed_repository
from tests.benchmarks.serving import _processes, resident_of, service
from tests.redis_process import RedisProcess

TOKEN = "a-token-for-the-benchmark"
DAY = 86_400 * 1_000_000
WARM = 700_000  # events that are there when the clock starts: more than [online] replay keeps as rows, so that what is held is level
GROWTH = 1.15  # of the service's memory from the second fifth of a soak to its end, at most


def repository_on(root: Path, url: str) -> None:
    root.mkdir()
    pushed_repository(root)
    (root / "conf" / "local.toml").write_text(f'[online]\nstore = "redis"\nurl = "{url}"\n[serve]\ndeadline = 30.0\n')


def throughput(sizes: list[int], seconds: float) -> None:
    import featreg

    with tempfile.TemporaryDirectory() as scratch, RedisProcess(Path(scratch)) as server:
        root = Path(scratch) / "repository"
        repository_on(root, server.url())
        with featreg.open(root) as registry:
            registry.apply()
            for rows in portions(WARM, 10_000):
                registry.push("events", rows)
            for number, size in enumerate(sizes):
                _time(f"library, {size:>6,}", registry.push, size, seconds, (2 * number + 1) * DAY)
            with service(root, 1, TOKEN) as port, featreg.Client(f"http://127.0.0.1:{port}", TOKEN, timeout=60) as client:
                for number, size in enumerate(sizes):
                    _time(f"HTTP,    {size:>6,}", client.push, size, seconds, (2 * (number + len(sizes)) + 1) * DAY)


def _time(what: str, push: Callable[[str, Any], Any], size: int, seconds: float, later: int) -> None:
    batches = [moved(rows, later) for rows in portions(max(4 * size, min(1_000_000, size * 4_000)), size)]
    push("events", batches.pop(0))
    began, taken = time.perf_counter(), list[float]()
    for rows in batches:
        push("events", rows)
        taken.append(time.perf_counter() - began)
        if taken[-1] > seconds:
            break
    half = len(taken) // 2
    late = (len(taken) - half) * size / (taken[-1] - taken[half - 1])
    print(f"redis, push by {what} a batch  {len(taken) * size / taken[-1]:>10,.0f} events/s, in the second half {late:,.0f}", flush=True)


class Readers:
    """Threads that read over HTTP, one key or a hundred, and say what went wrong and how long each took."""

    def __init__(self, port: int, threads: int, pause: float):
        self.taken: list[float] = []
        self.problems: list[str] = []
        self.stop = threading.Event()
        users = np.random.default_rng(5).choice(pq.read_table(data.events(4_000_000))["user_id"].to_numpy(), 50_000)
        self.threads = [threading.Thread(target=self._read, args=(port, users[one::threads], pause)) for one in range(threads)]
        for thread in self.threads:
            thread.start()

    def _read(self, port: int, users: np.ndarray, pause: float) -> None:
        import featreg
        from featreg.errors import RefusedError

        number, moment = 0, None
        with featreg.Client(f"http://127.0.0.1:{port}", TOKEN, timeout=30) as client:
            while not self.stop.is_set():
                some = [{"user_id": int(user)} for user in users[number % 40_000 // 100 * 20 :][: 100 if number % 50 == 0 else 1]]
                began = time.perf_counter()
                try:
                    vectors = client.online("bench", some, at=moment)
                    moment = vectors[0].watermark["a"] + 1  # type: ignore[index]
                    if len(vectors) != len(some):  # type: ignore[arg-type]
                        self.problems.append("another number of vectors")
                except RefusedError:  # the events' own time runs faster than the clock and has left that instant behind
                    moment = None
                except Exception as problem:
                    self.problems.append(f"{type(problem).__name__}: {problem}")
                self.taken.append(time.perf_counter() - began)
                number += 1
                time.sleep(pause)

    def quantiles(self) -> tuple[float, float, int]:
        """p50 and p99 in ms since the last look, and how many reads."""
        taken, self.taken = self.taken, []
        half, most = np.percentile(taken or [0.0], [50, 99]) * 1000
        return float(half), float(most), len(taken)

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


def soak(seconds: float, rate: float) -> int:
    import featreg

    with tempfile.TemporaryDirectory() as scratch, RedisProcess(Path(scratch)) as server:
        root = Path(scratch) / "repository"
        repository_on(root, server.url())
        with featreg.open(root) as registry:
            registry.apply()
            for rows in portions(WARM, 10_000):
                registry.push("events", rows)
        size, held = 1_000, list[float]()
        with service(root, 1, TOKEN) as port, featreg.Client(f"http://127.0.0.1:{port}", TOKEN, timeout=60) as client:
            readers = Readers(port, 4, 0.005)
            try:
                began, told, pushed, reads = time.perf_counter(), 0.0, 0, 0
                for rows in portions(1 << 62, size):
                    pushed += client.push("events", moved(rows, DAY)).accepted
                    spent = time.perf_counter() - began
                    if spent - told >= seconds / 10:
                        told = spent
                        half, most, count = readers.quantiles()
                        reads += count
                        held.append(resident_of(root))
                        print(
                            f"{spent:5.0f} s  {pushed:>10,} pushed  {reads:>8,} reads, p50 {half:.1f} ms p99 {most:.1f} ms  "
                            f"service {held[-1]:,.0f} MB, {_descriptors(root)} descriptors  "
                            f"redis {int(server.command('INFO')['used_memory']) / 1e6:,.0f} MB  {len(readers.problems)} problems",
                            flush=True,
                        )
                    if spent >= seconds:
                        break
                    time.sleep(max(0.0, pushed / rate - spent))
            finally:
                readers.end()
    growth = max(held[-3:]) / max(held[1:3])
    print(f"soak of {seconds:.0f} s: memory x {growth:.2f}, problems: {readers.problems[:3] or 'none'}")
    return int(growth > GROWTH or bool(readers.problems))


def _descriptors(root: Path) -> int:
    return sum(len(list((path / "fd").iterdir())) for path in _processes(root))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,1000,100")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--soak", type=float, default=0)
    parser.add_argument("--rate", type=float, default=10_000, help="events a second of the soak")
    asked = parser.parse_args()
    if asked.soak:
        sys.exit(soak(asked.soak, asked.rate))
    throughput([int(size) for size in asked.sizes.split(",")], asked.seconds)


if __name__ == "__main__":
    main()
