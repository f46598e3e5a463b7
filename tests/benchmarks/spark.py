"""Time a training set on Spark, local[2], against the best plain Spark SQL: 28 features, four windows, in one run on one machine.

    python -m tests.benchmarks.spark --events 10_000_000
    python -m tests.benchmarks.spark --growth 1_000_000 10_000_000

Each side runs in a fresh process with the same settings.  Its session is started, and a small run of the same query done,
before the clock: start-up is reported apart.  Memory is that of the driver, the JVM and all Python workers together.

The rival counts exact windows with running frames alone: time is cut into blocks as long as the window, so that a window is the
end of one block and the beginning of the next; an aggregate over it is a suffix at its start joined with a prefix at its end.  Each
spine row stands in the stream twice, where its window starts and where it ends.  Sliding RANGE frames, which everyone
writes first, search each frame anew: `--rivals sliding` shows them.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.benchmarks import data, ours
from tests.benchmarks.rivals import WINDOWS

HEAP = "4g"


def featreg_on_spark(events_path: str, spine_path: str, out_path: str) -> tuple[float, float]:
    """(seconds of starting, seconds of filling and writing part files)."""
    import pyarrow.parquet as pq

    import featreg

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        ours.repository(Path(scratch), events_path, ours.ALL)
        profile = Path(scratch) / "conf/local.toml"
        settings = f'[spark]\nmaster = "local[2,4]"\ndriver.memory = "{HEAP}"\n{os.environ.get("BENCH_SPARK", "")}\n'
        profile.write_text('engine = "spark"\n' + profile.read_text() + settings)
        with featreg.open(scratch) as registry:
            few = pq.ParquetFile(spine_path).iter_batches(1000).__next__()
            some = pq.ParquetFile(events_path).iter_batches(1000).__next__()
            registry.training_set("bench_set", few, time="as_of", draft=True, sources={"events": some}).to_arrow()
            ready = time.perf_counter()
            registry.training_set("bench_set", spine_path, time="as_of", draft=True).write(out_path)
            return ready - began, time.perf_counter() - ready


def _session():  # type: ignore[no-untyped-def]
    from featreg.engines.spark import _start

    settings = {"master": "local[2,4]", "driver.memory": HEAP, "sql.session.timeZone": "UTC", "sql.shuffle.partitions": "16"}
    return _start(settings, Path(tempfile.gettempdir()) / "featreg-benchmarks")


def frames(events_path: str, spine_path: str, out_path: str) -> tuple[float, float]:
    """Plain Spark SQL: prefixes and suffixes by running frames."""
    return _timed(_frames_query, events_path, spine_path, out_path)


def sliding(events_path: str, spine_path: str, out_path: str) -> tuple[float, float]:
    """Plain Spark SQL: one sliding RANGE frame for each window."""
    return _timed(_sliding_query, events_path, spine_path, out_path)


def _timed(query, events_path: str, spine_path: str, out_path: str) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    session = _session()
    session.range(1000).selectExpr("sum(id) OVER (ORDER BY id)").collect()
    session.read.parquet(events_path).createOrReplaceTempView("events")
    session.read.parquet(spine_path).selectExpr("user_id", "as_of", "_metadata.row_index AS row").createOrReplaceTempView("spine")
    ready = time.perf_counter()
    session.sql(query()).write.parquet(out_path)
    done = time.perf_counter()
    session.stop()
    return ready - began, done - ready


_PARTS = (
    "count(event) OVER {frame} AS n, sum(value) OVER {frame} AS s, count(value) OVER {frame} AS c, min(value) OVER {frame} AS low, "
    "max(value) OVER {frame} AS high, max(newest) OVER {frame} AS last, bit_or(bit) OVER {frame} AS bits"
)
_EVENTS = (
    "SELECT user_id AS k, unix_micros(CAST(event_at AS TIMESTAMP)) AS t, 1 AS event, value, shiftleft(1L, CAST(category AS INT)) AS bit, "
    "struct(unix_micros(CAST(event_at AS TIMESTAMP)) AS t, value IS NOT NULL AS known, value) AS newest, CAST(NULL AS BIGINT) AS row "
    "FROM events"
)
_NO_EVENT = (
    "CAST(NULL AS INT), CAST(NULL AS DOUBLE), CAST(NULL AS BIGINT), CAST(NULL AS STRUCT<t: BIGINT, known: BOOLEAN, value: DOUBLE>), row"
)


def _frames_query() -> str:
    windows = []
    for name, width in WINDOWS.items():
        at = "unix_micros(CAST(as_of AS TIMESTAMP))"
        # At one instant spine rows stand before events: they are outside where it ends and inside where it starts.
        both = (
            f"SELECT *, t div {width} AS block, 1 AS turn, 0 AS edge FROM ({_EVENTS}) UNION ALL "
            f"SELECT user_id, {at}, {_NO_EVENT}, {at} div {width}, 0, 1 FROM spine UNION ALL "
            f"SELECT user_id, {at} - {width}, {_NO_EVENT}, ({at} - {width}) div {width}, 0, 2 FROM spine"
        )
        prefix = "(PARTITION BY k, block ORDER BY t, turn ROWS UNBOUNDED PRECEDING)"
        suffix = "(PARTITION BY k, block ORDER BY t DESC, turn DESC ROWS UNBOUNDED PRECEDING)"
        halves = " UNION ALL ".join(
            f"SELECT row, {_PARTS.format(frame=frame)}, edge, {edge} AS wanted FROM both_{name}"
            for frame, edge in ((prefix, 1), (suffix, 2))
        )
        joined = (
            f"SELECT row, sum(n) AS count_{name}, sum(s) AS sum_{name}, sum(s) / sum(c) AS avg_{name}, min(low) AS min_{name}, "
            f"max(high) AS max_{name}, max(last).value AS last_{name}, bit_count(coalesce(bit_or(bits), 0)) AS count_distinct_{name} "
            f"FROM ({halves}) WHERE edge = wanted GROUP BY row"
        )
        windows.append((f"both_{name} AS ({both})", f"answer_{name} AS ({joined})"))
    tables = ", ".join(text for pair in windows for text in pair)
    joins = " ".join(f"JOIN answer_{name} USING (row)" for name in WINDOWS)
    return f"WITH {tables} SELECT * FROM spine {joins} ORDER BY row"


def _sliding_query() -> str:
    both = f"SELECT * FROM ({_EVENTS}) UNION ALL SELECT user_id, unix_micros(CAST(as_of AS TIMESTAMP)), {_NO_EVENT} FROM spine"
    parts = []
    for name, width in WINDOWS.items():
        frame = f"(PARTITION BY k ORDER BY t RANGE BETWEEN {width} PRECEDING AND 1 PRECEDING)"
        aliases = {alias: f"{alias}_{name}" for alias in ("n", "s", "c", "low", "high", "last", "bits")}
        text = _PARTS.format(frame=frame)
        for alias, new in aliases.items():
            text = text.replace(f" AS {alias}", f" AS {new}", 1) if f" AS {alias}," in text or text.endswith(f" AS {alias}") else text
        parts.append(text)
    return f"WITH both_rows AS ({both}) SELECT * FROM (SELECT row, {', '.join(parts)} FROM both_rows) WHERE row IS NOT NULL ORDER BY row"


# Measuring


class _Tree:
    """This process and all below it: the most memory held at one time, and the CPU seconds of all.

    Looked at every 0.2 s; shared pages count once (PSS).
    """

    def __init__(self) -> None:
        self.peak, self.cpu, self._over = 0, dict[int, float](), threading.Event()
        self.timeline = [(time.perf_counter(), 0.0)]
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> int:
        self._over.set()
        self._thread.join()
        return self.peak

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            family = _family(os.getpid())
            self.peak = max(self.peak, sum(map(_held, family)))
            for process in family:
                self.cpu[process] = max(self.cpu.get(process, 0.0), _worked(process))
            self.timeline.append((time.perf_counter(), sum(self.cpu.values())))

    def cpu_since(self, instant: float) -> float:
        """CPU seconds from then on: what the work takes whatever else the machine does."""
        return self.timeline[-1][1] - max((cpu for at, cpu in self.timeline if at <= instant), default=0.0)


def _family(parent: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            children.setdefault(int((entry / "stat").read_text().rpartition(")")[2].split()[1]), []).append(int(entry.name))
        except OSError:
            continue
    found, waiting = [], [parent]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def _worked(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _held(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def measured(side: str, events: Path, spine: Path) -> dict[str, float]:
    """Run one side in a fresh process."""
    with tempfile.TemporaryDirectory() as scratch:
        call = [sys.executable, "-m", "tests.benchmarks.spark", "--side", side, str(events), str(spine), f"{scratch}/out"]
        done = subprocess.run(call, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{side} left with {done.returncode}:\n" + "\n".join(done.stderr.splitlines()[-15:]))
        return json.loads(done.stdout.splitlines()[-1])


def _say(name: str, one: dict[str, float], events: int, mine: dict[str, float] | None = None) -> None:
    ratio = "" if mine is None else f"  {one['seconds'] / mine['seconds']:.1f} x featreg's time, {one['cpu'] / mine['cpu']:.1f} x its CPU"
    print(f"{name:<10} {one['seconds']:7.1f} s  {one['bytes'] / 1e9:5.2f} GB  start {one['start']:.1f} s"
          f"  {events / one['seconds'] / 1e6:5.2f} M events/s  {one['cpu']:.0f} s of CPU{ratio}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--hot", type=float, default=0.0, help="the share of rows that belong to one key")
    parser.add_argument("--rivals", nargs="*", default=["frames"], help="frames, sliding, or none: featreg's side alone")
    parser.add_argument("--growth", type=int, nargs="*", default=[])
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        side, events_path, spine_path, out_path = asked.side
        tree = _Tree()
        start, seconds = {"featreg": featreg_on_spark, "frames": frames, "sliding": sliding}[side](events_path, spine_path, out_path)
        begun = time.perf_counter() - seconds
        print(json.dumps({"start": start, "seconds": seconds, "bytes": tree.end(), "cpu": tree.cpu_since(begun)}))
        return
    found: dict[int, float] = {}
    for events in asked.growth or [asked.events]:
        options = {"hot": asked.hot} if asked.hot else {}
        paths = data.events(events, **options), data.spine(events // 10, **options)
        one = measured("featreg", *paths)
        found[events] = one["seconds"]
        _say("featreg", one, events)
        for rival in [] if asked.growth else asked.rivals:
            found_rival, again = measured(rival, *paths), measured("featreg", *paths)  # before and behind it: the machine may be shared
            _say("featreg", again, events)
            _say(rival, found_rival, events, {name: (one[name] + again[name]) / 2 for name in one})
    if len(found) > 1:
        (low, quick), *_, (high, slow) = found.items()
        print(f"time grows with exponent {math.log(slow / quick) / math.log(high / low):.2f}")


if __name__ == "__main__":
    main()
