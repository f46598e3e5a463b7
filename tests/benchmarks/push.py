"""Time pushes of zipf keys into 2 views of 20 features, and reads by another process meanwhile; or soak.

    python -m tests.benchmarks.push                   # batches of 10,000, 1,000 and 100, with a reader beside
    python -m tests.benchmarks.push --soak 300        # at half the greatest rate: memory, file sizes, descriptors
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.benchmarks import data
from tests.benchmarks.online import repository

RATE = 1_000  # events a second of the events' own time, so that windows move and tiles are folded while it runs
WARM = 400_000  # events that are there when the clock starts


def pushed_repository(root: Path) -> None:
    """The program of the online benchmark, its events pushed and in no file."""
    repository(root, varchar=False)
    spec = root / "features" / "bench.py"
    spec.write_text(spec.read_text().replace('event_time="event_at",', 'event_time="event_at", stream="log",'))
    (root / "conf" / "local.toml").write_text("")


def portions(count: int, size: int) -> Any:
    """`count` events in tables of `size`, zipf keys, in the order of their time; drawn anew when they end."""
    import pyarrow.parquet as pq

    table = pq.read_table(data.events(4_000_000))
    users, values, categories = (table[name].combine_chunks() for name in ("user_id", "value", "category"))
    at, done = data.START_AT, 0
    while done < count:
        begin = done % (len(table) - size)
        times = pa.array(at + (np.arange(size) * 1_000_000) // RATE, pa.timestamp("us"))
        yield pa.table({
            "user_id": users.slice(begin, size), "event_at": times, "value": values.slice(begin, size),
            "category": categories.slice(begin, size),
        })  # fmt: skip
        at, done = at + size * 1_000_000 // RATE, done + size


def read_beside(root: str, told: Any, ready: Any, stop: Any) -> None:
    """Read one key after another at its view's watermark, and tell how long each took."""
    import pyarrow.parquet as pq

    import featreg
    from featreg.errors import RefusedError
    from featreg.kernels import use_cache

    use_cache(Path(tempfile.gettempdir()) / "featreg-benchmarks")
    users = np.random.default_rng(3).choice(pq.read_table(data.events(4_000_000))["user_id"].to_numpy(), 100_000)
    taken, number = [], 0
    with featreg.open(root) as registry:
        moment = registry.online("bench", {"user_id": 1}).watermark["a"] + 1
        while not stop.is_set():
            began = time.perf_counter_ns()
            try:
                vector = registry.online("bench", {"user_id": int(users[number % len(users)])}, at=moment)
            except RefusedError:  # the events' own time, which runs faster than the clock, has left that instant behind
                moment = registry.online("bench", {"user_id": 1}).watermark["a"] + 1
                continue
            taken.append(time.perf_counter_ns() - began)
            moment, number = vector.watermark["a"] + 1, number + 1
            if number == 300:
                ready.set()
                taken.clear()
            if number % 50 == 0:
                time.sleep(0.002)  # 10,000 reads a second at most, as of a busy server
    told.put(taken)


class Reader:
    """Reads in another process while something is done."""

    def __init__(self, root: Path):
        context = multiprocessing.get_context("spawn")
        self.told, self.ready, self.stop = context.Queue(), context.Event(), context.Event()
        self.process = context.Process(target=read_beside, args=(str(root), self.told, self.ready, self.stop))
        self.process.start()
        self.ready.wait()

    def end(self) -> tuple[float, float, int]:
        """p50 and p99 in microseconds, and how many reads."""
        self.stop.set()
        taken = np.array(self.told.get())
        self.process.join()
        half, most = np.percentile(taken, [50, 99]) / 1000
        return float(half), float(most), len(taken)


def throughput(sizes: list[int], seconds: float) -> None:
    import featreg

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        pushed_repository(root)
        with featreg.open(root) as registry:
            registry.apply()
            for rows in portions(WARM, 10_000):
                registry.push("events", rows)
            reader = Reader(root)
            time.sleep(seconds)
            half, most, reads = reader.end()
            print(f"reads alone                          p50 {half:7.1f} us  p99 {most:7.1f} us  ({reads:,} reads)")
            later = 10 * 86_400 * 1_000_000
            for size in sizes:
                for beside in (False, True):
                    batches = [moved(rows, later) for rows in portions(max(size, min(2_000_000, size * 4_000)), size)]
                    reader = Reader(root) if beside else None
                    began, spent_before, count = time.perf_counter(), time.process_time(), 0
                    for rows in batches:
                        registry.push("events", rows)
                        count += size
                        if time.perf_counter() - began > seconds:
                            break
                    rate = count / (time.perf_counter() - began)
                    cpu = (time.process_time() - spent_before) / count * 1e6
                    told = "" if reader is None else "  reads meanwhile p50 {:.1f} us  p99 {:.1f} us  ({:,})".format(*reader.end())
                    how = f"{size:>6,}{' and a reader' if beside else '':13}"
                    print(f"push, batches of {how} {rate:>10,.0f} events/s  {cpu:6.1f} us of CPU an event{told}", flush=True)
                    later += 86_400 * 1_000_000


def moved(rows: pa.Table, micros: int) -> pa.Table:
    times = pa.array(rows["event_at"].cast(pa.int64()).to_numpy() + micros, pa.timestamp("us"))
    return rows.set_column(1, "event_at", times)


def soak(seconds: float, rate: float) -> None:
    """Push at a rate for so long, and tell every tenth of it what is held."""
    import featreg

    size = 10_000
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        pushed_repository(root)
        with featreg.open(root) as registry:
            registry.apply()
            began, told, pushed = time.perf_counter(), 0.0, 0
            for rows in portions(1 << 62, size):
                registry.push("events", rows)
                pushed += size
                spent = time.perf_counter() - began
                if spent - told >= seconds / 10:
                    told = spent
                    print(f"{spent:6.0f} s  {pushed:>12,} events  {held(root)}", flush=True)
                if spent >= seconds:
                    return
                time.sleep(max(0.0, pushed / rate - spent))


def held(root: Path) -> str:
    store, log = (root / ".featreg" / "online" / "data.mdb"), root / ".featreg" / "registry" / "push"
    logged = sum(path.stat().st_size for path in log.rglob("*.segment")) / 1e6
    sealed = sum(path.stat().st_size for path in log.rglob("*.pushed.parquet")) / 1e6
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, mapped = (int(status[name].split()[0]) / 1e3 for name in ("RssAnon", "RssFile"))
    return (
        f"{own:,.0f} MB own, {mapped:,.0f} MB of files, {len(os.listdir('/proc/self/fd'))} descriptors, "
        f"store {store.stat().st_blocks * 512 / 1e6:,.0f} MB, log {logged:,.0f} MB and sealed {sealed:,.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,1000,100")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--soak", type=float, default=0)
    parser.add_argument("--rate", type=float, default=60_000, help="events a second of the soak")
    asked = parser.parse_args()
    from featreg.kernels import use_cache

    use_cache(Path(tempfile.gettempdir()) / "featreg-benchmarks")
    if asked.soak:
        soak(asked.soak, asked.rate)
    else:
        throughput([int(size) for size in asked.sizes.split(",")], asked.seconds)


if __name__ == "__main__":
    main()
