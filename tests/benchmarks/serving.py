"""Time serving: reads from Redis beside a bare GET, and the HTTP service beside its load generator.

    python -m tests.benchmarks.serving redis --events 1_000_000
    python -m tests.benchmarks.serving http --workers 2          # also --store redis, --seconds 60

20 features of two views, as in `tests.benchmarks.online`.  The server is a real redis-server on loopback.
The bare GET and MGET are redis-py's own (with hiredis), of the bytes that the read needs, in the same run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featreg.serve.wire import instant_text
from tests.benchmarks import data
from tests.benchmarks.online import _warm, repository
from tests.redis_process import RedisProcess, free_port
from tests.service_process import PROGRAM


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
        size = sum(one.bytes for one in receipts) / 1e6
        print(f"materialize            {seconds:7.2f} s  {size:,.0f} MB  {rows / seconds / 1e6:.2f} M rows/s")
    return end, np.random.default_rng(1).choice(table["user_id"].to_numpy(), 20_000)


def redis_reads(events: int) -> None:
    import redis

    import featreg

    with tempfile.TemporaryDirectory() as scratch, RedisProcess(Path(scratch)) as server:
        root = Path(scratch) / "repository"
        root.mkdir()
        end, drawn = filled(root, events, server.url())
        keys = [{"user_id": int(user)} for user in drawn[:3000]]
        with featreg.open(root) as registry, redis.Redis(port=server.port) as client:
            registry.online("bench", keys[0], at=end)
            reader = registry.reader().set_reader("bench")
            store: Any = registry.reader().store
            names = [[name for lookup in reader.lookups for name in lookup.names_of(lookup.key.encoded(key))] for key in keys]
            for i, wanted in enumerate(names):  # the same bytes, as one value
                client.set(b"bare:%d" % i, b"".join(value or b"" for value in store.get(wanted)))
            _compare(
                "1 key", 6000, lambda i: client.get(b"bare:%d" % (i % 3000)), lambda i: registry.online("bench", keys[i % 3000], at=end)
            )  # fmt: skip
            pages = []
            for i in range(30):
                wanted = list(dict.fromkeys(name for one in names[100 * i : 100 * i + 100] for name in one))
                pages.append([store._tag + name for name, value in zip(wanted, store.get(wanted)) if value])
            _compare(
                "100 keys", 600, lambda i: client.mget(pages[i % 30]),
                lambda i: registry.online("bench", keys[100 * (i % 30) : 100 * (i % 30) + 100], at=end),
            )  # fmt: skip


def _compare(what: str, times: int, bare: Callable[[int], Any], ours: Callable[[int], Any]) -> None:
    found = bare(0)
    size = len(found) if isinstance(found, bytes) else sum(map(len, found))
    (bare_p50, bare_p99), (our_p50, our_p99) = interleaved((bare, ours), times)
    print(
        f"redis, {what:<8} ({size:,} bytes)  bare p50 {bare_p50:7.1f} p99 {bare_p99:7.1f} us"
        f"   online p50 {our_p50:7.1f} p99 {our_p99:7.1f} us   ratio {our_p50 / bare_p50:.2f}, {our_p50 - bare_p50:+.0f} us"
    )


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


@contextmanager
def service(root: Path, workers: int, token: str) -> Iterator[int]:
    """`featreg serve` in processes of its own; the port, once it answers."""
    port = free_port()
    environment = os.environ | {"FEATREG_TOKENS": f'[bench]\ntoken = "{token}"\nread = ["*"]\npush = ["*"]\nmetrics = true\n'}
    command = [sys.executable, "-c", PROGRAM, "-C", str(root), "serve", "--port", str(port), "--workers", str(workers)]
    with (root / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, env=environment)
    try:
        until = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                    break
            except OSError:
                if time.monotonic() > until or process.poll() is not None:
                    raise RuntimeError((root / "serve.log").read_text()[-2000:]) from None
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def http_reads(events: int, workers: int, seconds: float, connections: int, store: str) -> None:
    token = "a-token-for-the-benchmark"
    with tempfile.TemporaryDirectory() as scratch, RedisProcess(Path(scratch)) if store == "redis" else nullcontext() as server:
        root = Path(scratch) / "repository"
        root.mkdir()
        end, drawn = filled(root, events, server.url() if server is not None else None)
        bodies = [json.dumps({"keys": {"user_id": int(user)}, "at": instant_text(end)}) for user in drawn[:5000]]
        head = f"POST /v1/features/bench HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n"
        requests = [f"{head}content-length: {len(body)}\r\n\r\n{body}" for body in bodies]
        with service(root, workers, token) as port:
            for some in (0.1 * seconds, seconds):
                told = json.dumps({"requests": requests, "port": port, "connections": connections, "seconds": some})
                before, worked = resident_of(root), cpu_seconds_of(root)
                command = [sys.executable, "-m", "tests.benchmarks.load"]
                found = json.loads(subprocess.run(command, input=told, capture_output=True, text=True, check=True).stdout)
            cpu, count, p50, p99 = cpu_seconds_of(root) - worked, found["requests"], found["p50"], found["p99"]
            print(
                f"http, {store}, {workers} workers, {connections} connections: {count / seconds:,.0f} requests/s  p50 {p50:.2f} ms  "
                f"p99 {p99:.2f} ms  {found['failed']} failed  "
                f"{cpu / count * 1e6:.0f} us of CPU each  resident {before:,.0f} -> {resident_of(root):,.0f} MB"
            )
            if shutil.which("wrk"):
                print(_wrk(Path(scratch), port, token, bodies, connections, seconds))


def _processes(root: Path) -> Iterator[Path]:
    """/proc/PID of all that serve the repository: the supervisor and its workers, which inherit what it tells them."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            told = (path / "environ").read_text() + (path / "cmdline").read_text()
        except OSError:
            continue
        if str(root) in told and "tests.benchmarks" not in told:
            yield path


def resident_of(root: Path) -> float:
    """MB."""
    return sum(int((path / "statm").read_text().split()[1]) for path in _processes(root)) * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds_of(root: Path) -> float:
    """User and system, so far."""
    ticks = sum(sum(map(int, (path / "stat").read_text().rpartition(")")[2].split()[11:13])) for path in _processes(root))
    return ticks / os.sysconf("SC_CLK_TCK")


def _wrk(folder: Path, port: int, token: str, bodies: list[str], connections: int, seconds: float) -> str:
    (folder / "bodies.txt").write_text("\n".join(bodies))
    (folder / "ask.lua").write_text(f"""
wrk.method = "POST"
wrk.headers["Authorization"] = "Bearer {token}"
wrk.headers["Content-Type"] = "application/json"
local bodies, i = {{}}, 0
for line in io.lines("{folder}/bodies.txt") do bodies[#bodies + 1] = line end
request = function() i = i + 1; return wrk.format(nil, "/v1/features/bench", nil, bodies[i % #bodies + 1]) end
""")
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{int(min(seconds, 60))}",
        "-s",
        str(folder / "ask.lua"),
        "--latency",
        f"http://127.0.0.1:{port}",
    ]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    kept = [" ".join(line.split()) for line in lines if line.strip().startswith(("50%", "99%", "Requests/sec", "Non-2xx"))]
    return "wrk: " + "  ".join(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["redis", "http"])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--store", choices=["lmdb", "redis"], default="lmdb")
    asked = parser.parse_args()
    if asked.what == "redis":
        redis_reads(asked.events)
    else:
        http_reads(asked.events, asked.workers, asked.seconds, asked.connections, asked.store)


if __name__ == "__main__":
    main()
