"""Time pushes of zipf keys into 2 views of 20 features, and reads by another process meanwhile; or soak, or push to a hot key.

    python -m tests.benchmarks.push                   # batches of 10,000, 1,000 and 100, with a reader beside
    python -m tests.benchmarks.push --soak 300        # at half the greatest rate; leaves with 1 if memory, store or descriptors grow
    python -m tests.benchmarks.push --hot 10000       # so many pushes of one row to one key, 0.05 s apart: bytes and times
    python -m tests.benchmarks.push --hot-share 0.2   # a minute of 50,000 events a second, so many of them of one key
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.benchmarks import data
from tests.benchmarks.online import repository

RATE = 1_000  # events a second of the events' own time, so that windows move and tiles are folded while it runs
WARM = 400_000  # events that are there when the clock starts
FILL = 8_000_000  # events before a soak, 14 days of their own time: windows are full then
SOAK_KEYS = 20_000  # each of which has come often enough by then that its tiles are there and its head is as long as it gets


def pushed_repository(root: Path) -> None:
    """The program of the online benchmark, its events pushed and in no file."""
    repository(root, varchar=False)
    spec = root / "features" / "bench.py"
    spec.write_text(spec.read_text().replace('event_time="event_at",', 'event_time="event_at", stream="log",'))
    (root / "conf" / "local.toml").write_text("")


def portions(count: int, size: int, rate: float = RATE, keys: int | None = None) -> Any:
    """`count` events in tables of `size`, zipf keys, in the order of their time, so many a second of it; drawn anew when they end.

    keys: how many different ones there are; None for all of the file.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(data.events(4_000_000))
    users, values, categories = (table[name].combine_chunks() for name in ("user_id", "value", "category"))
    if keys is not None:
        users = pa.array(users.to_numpy() % keys)
    at, done = data.START_AT, 0
    while done < count:
        begin = done % (len(table) - size)
        times = pa.array(at + (np.arange(size) * 1_000_000 / rate).astype(np.int64), pa.timestamp("us"))
        yield pa.table({
            "user_id": users.slice(begin, size), "event_at": times, "value": values.slice(begin, size),
            "category": categories.slice(begin, size),
        })  # fmt: skip
        at, done = at + int(size * 1_000_000 / rate), done + size


def read_beside(root: str, told: Any, ready: Any, stop: Any) -> None:
    """Read one key after another at its view's watermark, and tell how long each took."""
    import pyarrow.parquet as pq

    import featreg
    from featreg.errors import RefusedError
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


@dataclass(frozen=True)
class Held:
    """What is held at a moment: MB of the process's own, of mapped files, of the store and what lives in it, of the log; descriptors."""

    second: float
    own: float
    mapped: float
    store: float
    live: float
    log: float
    sealed: float
    descriptors: int

    def __str__(self) -> str:
        return (
            f"{self.own:,.0f} MB own, {self.mapped:,.0f} MB of files, {self.descriptors} descriptors, store {self.store:,.0f} MB of which "
            f"{self.live:,.0f} MB live, log {self.log:,.0f} MB and sealed {self.sealed:,.0f} MB"
        )


def held(root: Path, second: float) -> Held:
    from featreg.stores.lmdb import open_store

    with open_store(root / ".featreg" / "online") as opened:
        live = opened.stat().bytes / 1e6
    store, log = (root / ".featreg" / "online" / "data.mdb"), root / ".featreg" / "registry" / "push"
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, mapped = (int(status[name].split()[0]) / 1e3 for name in ("RssAnon", "RssFile"))
    logged, sealed = (sum(path.stat().st_size for path in log.rglob(name)) / 1e6 for name in ("*.segment", "*.pushed.parquet"))
    return Held(second, own, mapped, store.stat().st_blocks * 512 / 1e6, live, logged, sealed, len(os.listdir("/proc/self/fd")))


def soak(seconds: float, rate: float) -> None:
    """Fill all windows as fast as it goes, then push for so long at half that rate, or at `rate`; the first minute is then compared with
    the last.

    The events' own time runs so fast that 7 days are over when the windows are full.  The log is the source of record: it grows.
    """
    import featreg

    size, moments = 10_000, list[Held]()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        pushed_repository(root)
        with featreg.open(root) as registry:
            registry.apply()
            began, pushed, told, is_full = time.perf_counter(), 0, 0.0, False
            for rows in portions(1 << 62, size, FILL / (14 * 86_400), SOAK_KEYS):
                registry.push("events", rows)
                pushed += size
                spent = time.perf_counter() - began
                if not is_full and pushed >= FILL:
                    is_full, rate = True, rate or pushed / spent / 2
                    print(f"windows full after {spent:.0f} s and {pushed:,} events; from here on {rate:,.0f} events/s", flush=True)
                    began, pushed, spent = time.perf_counter(), 0, 0.0
                if is_full:
                    if not moments or spent - moments[-1].second >= 2:
                        moments.append(held(root, spent))
                    if spent - told >= seconds / 10:
                        told = spent
                        print(f"{spent:6.0f} s  {pushed:>12,} events  {moments[-1]}", flush=True)
                    if spent >= seconds:
                        break
                    time.sleep(max(0.0, pushed / rate - spent))
    print(f"pushed {pushed / spent:,.0f} events/s of {rate:,.0f}")
    first = [one for one in moments if one.second < min(60, seconds / 3)]
    last = [one for one in moments if one.second > seconds - min(60, seconds / 3)]
    grown = []
    for name, most in (("own", 1.1), ("live", 1.02), ("store", 1.1), ("descriptors", 1.2)):
        before, after = (max(getattr(one, name) for one in some) for some in (first, last))
        print(f"{name:<12} first minute {before:10,.0f}  last minute {after:10,.0f}")
        grown += [name] if after > most * before else []
    if grown:
        raise SystemExit(f"grew: {', '.join(grown)}")


def hot(count: int, share: float) -> None:
    """Push to one key: `count` rows one by one, 0.05 s apart; or a minute of 50,000 events a second in batches, a share of them its."""
    import featreg

    dice, size = np.random.default_rng(1), 1 if count else 10_000
    step, count = (50_000, count) if count else (200_000, 300)  # microseconds of the events' own time from push to push
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        pushed_repository(root)
        with featreg.open(root) as registry:
            registry.apply()
            registry.push("events", event_rows(dice, dice.integers(0, 1000, 1000), data.START_AT + np.arange(1000)))
            sizes = sizes_written(registry)
            spent = 0.0
            for number in range(1, count + 1):
                at = data.START_AT + number * step
                users = np.where(dice.random(size) < share, 7, dice.integers(0, 100_000, size)) if size > 1 else np.array([7])
                rows = event_rows(dice, users, at + np.arange(size) * (step // size))
                began = time.perf_counter()
                registry.push("events", rows)
                spent += time.perf_counter() - began
                if number % (count // 10) == 0:
                    reads = [_seconds(lambda: registry.online("bench", {"user_id": 7}, at=at + step)) for _ in range(200)]  # noqa: B023
                    back = _seconds(lambda: registry.online("bench", {"user_id": 7}, at=at - 1_000_000))  # noqa: B023
                    print(
                        f"{number:>7,} pushes  {sum(sizes) / len(sizes):12,.0f} bytes and {spent / len(sizes) * 1e3:7.2f} ms a push"
                        f"  read now p50 {np.median(reads) * 1e6:7.1f} us, a second back {back * 1e3:6.2f} ms",
                        flush=True,
                    )
                    sizes.clear()
                    spent = 0.0


def event_rows(dice: np.random.Generator, users: np.ndarray, at: np.ndarray) -> pa.Table:
    count = len(users)
    times = pa.array(at, pa.timestamp("us"))
    return pa.table({"user_id": users, "event_at": times, "value": dice.normal(size=count), "category": dice.integers(0, 9, count)})


def sizes_written(registry: Any) -> list[int]:
    """The bytes of each write to the online store from now on."""
    store, sizes = registry.pusher("events").store, list[int]()
    write = store.write

    def counted(puts: Any, *more: Any) -> float:
        puts = list(puts)
        sizes.append(sum(len(value) for _, value in puts))
        return write(puts, *more)

    store.write = counted
    return sizes


def _seconds(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,1000,100")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--soak", type=float, default=0)
    parser.add_argument("--rate", type=float, default=0, help="events a second of a soak; default: half of what it takes")
    parser.add_argument("--hot", type=int, default=0)
    parser.add_argument("--hot-share", type=float, default=0)
    asked = parser.parse_args()
    if asked.soak:
        soak(asked.soak, asked.rate)
    elif asked.hot or asked.hot_share:
        hot(asked.hot, asked.hot_share)
    else:
        throughput([int(size) for size in asked.sizes.split(",")], asked.seconds)


if __name__ == "__main__":
    main()
