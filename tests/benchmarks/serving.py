"""Time serving: reads from Redis beside a bare GET, and the HTTP service beside its load generator.

    python -m tests.benchmarks.serving redis --events 1_000_000

20 features of two views, as in `tests.benchmarks.online`.  The server is a real redis-server on loopback.
The bare GET and MGET are redis-py's own (with hiredis), of the bytes that the read needs, in the same run.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks import data
from tests.benchmarks.online import _warm, repository
from tests.redis_process import RedisProcess


def filled(root: Path, events: int, url: str | None) -> tuple[int, np.ndarray]:
    """A repository, applied and materialized; the instant to read at, and keys drawn as events are."""
    import featreg

    path = data.events(events, varchar=False)
    repository(root, False)
    if url is not None:
        with (root / "conf" / "local.toml").open("a") as profile:
            profile.write(f'[online]\nstore = "redis"\nurl = "{url}"\n')
    table = pq.read_table(path)
    pq.write_table(table, root / "events" / "1.parquet", row_group_size=122_880)
    end = int(table["event_at"][len(table) - 1].cast(pa.int64()).as_py()) + 1
    with featreg.open(root) as registry:
        registry.apply()
        _warm(root, False)
        began = time.perf_counter()
        receipts = registry.materialize(to=end)
        seconds = time.perf_counter() - began
        rows = sum(one.rows for one in receipts)
        print(f"materialize            {seconds:7.2f} s  {sum(one.bytes for one in receipts) / 1e6:,.0f} MB  {rows / seconds / 1e6:.2f} M rows/s")
    return end, np.random.default_rng(1).choice(table["user_id"].to_numpy(), 20_000)


def redis_reads(events: int) -> None:
    import redis

    import featreg

    with tempfile.TemporaryDirectory() as scratch, RedisProcess(Path(scratch)) as server:
        root = Path(scratch) / "repository"
        root.mkdir()
        end, drawn = filled(root, events, server.url())
        keys = [{"user_id": int(user)} for user in drawn]
        with featreg.open(root) as registry, redis.Redis(port=server.port) as client:
            registry.online("bench", keys[0], at=end)
            reader = registry.reader().set_reader("bench")
            store = registry.reader().store
            names = [[name for lookup in reader.lookups for name in lookup.names(key)] for key in keys[:3000]]
            for some, read in ((1, lambda i: keys[i % 3000]), (100, lambda i: keys[100 * (i % 30) : 100 * (i % 30) + 100])):
                asked: dict[int, list[bytes]] = {}
                for i in range(3000 if some == 1 else 30):
                    wanted = names[i] if some == 1 else list(dict.fromkeys(name for one in names[100 * i : 100 * i + 100] for name in one))
                    asked[i] = [name for name, value in zip(wanted, store.get(wanted)) if value]
                    if some == 1:  # the same bytes, as one value
                        client.set(b"bare:%d" % i, b"".join(value or b"" for value in store.get(wanted)))
                size = np.mean([sum(len(value or b"") for value in store.get(one)) for one in asked.values()])
                tag = store._tag
                tagged = {i: [tag + name for name in one] for i, one in asked.items()}
                bare: Callable[[int], object] = (
                    (lambda i: client.get(b"bare:%d" % (i % 3000))) if some == 1 else (lambda i: client.mget(tagged[i % 30]))
                )
                ours = lambda i: registry.online("bench", read(i), at=end)  # noqa: B023, E731
                times = 6000 if some == 1 else 600
                bare_us, our_us = interleaved((bare, ours), times)
                print(f"redis, {some:>3} keys, {size:,.0f} bytes: bare p50 {bare_us[0]:7.1f} p99 {bare_us[1]:7.1f} us · "
                      f"online p50 {our_us[0]:7.1f} p99 {our_us[1]:7.1f} us · ratio {our_us[0] / bare_us[0]:.2f}, "
                      f"{our_us[0] - bare_us[0]:+.0f} us")  # fmt: skip


def interleaved(calls: tuple[Callable[[int], object], ...], times: int) -> list[tuple[float, float]]:
    """p50 and p99 in microseconds of each call, in turns of a hundred, so that what the machine does befalls all alike."""
    taken: list[list[int]] = [[] for _ in calls]
    for begin in range(-100, times, 100):
        for call, mine in zip(calls, taken):
            for i in range(begin, begin + 100):
                began = time.perf_counter_ns()
                call(i % times)
                if begin >= 0:
                    mine.append(time.perf_counter_ns() - began)
    return [(float(np.percentile(mine, 50)) / 1000, float(np.percentile(mine, 99)) / 1000) for mine in taken]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["redis"])
    parser.add_argument("--events", type=int, default=1_000_000)
    asked = parser.parse_args()
    redis_reads(asked.events)


if __name__ == "__main__":
    main()
