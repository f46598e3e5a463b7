"""Time the online store: materialize 10 M events, again with 1 % new rows, then read one key and a hundred.

    python -m tests.benchmarks.online --events 10_000_000

Of 100 keys drawn so a third are there already, and cost nothing; "unlike" are 100 that are not.  A read of many answers columns:
timed are the call, the call and `to_arrow`, and the call and every vector made, with its dicts of values and of statuses.

20 features of two views: (count, sum, avg, max, last) over 1h and 7d; keys drawn as events are.  With --varchar
the last value is text and a count_distinct is added.  With --feast PYTHON, of a venv that has Feast, its get_online_features
reads the same vectors from SQLite in the same run.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks import data
from tests.benchmarks.feast_online import taken

FEATURES = """
        "count": agg.count().over("1h", "{window}"), "sum": agg.sum("value").over("1h", "{window}"),
        "avg": agg.avg("value").over("1h", "{window}"),
        "max": agg.max("value").over("1h", "{window}"), "last": agg.last("{last}").over("1h", "{window}"),{more}
"""


def repository(root: Path, varchar: bool, window: str = "7d") -> None:
    """Two views of the same events, and a set of both."""
    more = f' "kinds": agg.count_distinct("category").over("{window}"),' if varchar else ""
    features = FEATURES.format(last="category" if varchar else "value", more=more, window=window)
    (root / "features").mkdir()
    (root / "conf").mkdir()
    (root / "events").mkdir()
    (root / "features" / "bench.py").write_text(f"""
from featreg import Entity, EventSource, FeatureSet, FeatureView, agg
user = Entity(name="user", key={{"user_id": "BIGINT"}})
events = EventSource(
    name="events",
    columns={{"user_id": "BIGINT", "event_at": "TIMESTAMP", "value": "DOUBLE", "category": "{"VARCHAR" if varchar else "BIGINT"}"}},
    event_time="event_at",
)
a = FeatureView(name="a", entity=user, source=events, features={{{features}}})
b = FeatureView(name="b", entity=user, source=events, where="value IS NOT NULL", features={{{features}}})
bench = FeatureSet(name="bench", features=[a.all(), b.all().prefix("b_")])
""")
    memory = os.environ.get("BENCH_MEMORY", "2GB")
    (root / "conf" / "local.toml").write_text(f'[sources]\nevents = "events/*.parquet"\n[duckdb]\nmemory_limit = "{memory}"\n')


def run(events: int, varchar: bool, window: str, feast: str | None) -> None:
    import featreg
    from featreg.session.source_files import SETTLED

    path = data.events(events, varchar=varchar)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        repository(root, varchar, window)
        table = pq.read_table(path)
        first = len(table) * 99 // 100
        pq.write_table(table.slice(0, first), root / "events" / "1.parquet", row_group_size=122_880)
        ends = [int(table["event_at"][row].cast(pa.int64()).as_py()) + 1 for row in (first - 1, len(table) - 1)]
        with featreg.open(root) as registry:
            registry.apply()
            _warm(root, varchar)
            time.sleep(SETTLED / 1e9 + 0.1)  # of a file that is younger no mark is kept: the second run would hash it again
            began = time.perf_counter()
            receipts = registry.materialize(to=ends[0])
            full = time.perf_counter() - began
            rows, written = sum(one.rows for one in receipts), sum(one.bytes for one in receipts)
            print(
                f"materialize, first     {full:7.2f} s  {rows / full / 1e6:5.2f} M events/s  "
                f"{written / 1e6:,.0f} MB  {receipts[0].keys:,} keys a view"
            )
            pq.write_table(table.slice(first), root / "events" / "2.parquet", row_group_size=122_880)
            began = time.perf_counter()
            receipts = registry.materialize(to=ends[1])
            more = time.perf_counter() - began
            print(f"materialize, 1 % more  {more:7.2f} s  {more / full:6.1%} of the first  {receipts[0].keys:,} keys a view")
            users = table["user_id"].to_numpy()
            drawn = np.random.default_rng(1).choice(users, 20_000)
            one = _time("one key", lambda i: registry.online("bench", {"user_id": int(drawn[i])}, at=ends[1]), 10_000)
            keys = [{"user_id": int(user)} for user in drawn]
            hundreds = [keys[begin : begin + 100] for begin in range(0, 15_000, 100)]
            unlike = [[{"user_id": int(user)} for user in some] for some in different(drawn)]
            for what, asked in (("100 unlike", unlike), ("100 keys", hundreds)):
                _time(what, lambda i, asked=asked: registry.online("bench", asked[i % len(asked)], at=ends[1]), 500)
                _time(" … to_arrow", lambda i, asked=asked: registry.online("bench", asked[i % len(asked)], at=ends[1]).to_arrow(), 500)
                dicts = lambda i, asked=asked: list(registry.online("bench", asked[i % len(asked)], at=ends[1]))  # noqa: E731
                hundred = _time(" … as dicts", dicts, 500)
            if feast is not None:
                every = np.unique(users)
                vectors = registry.online("bench", [{"user_id": int(user)} for user in every], at=ends[1]).to_arrow()
                beside_feast(feast, root, vectors.append_column("user_id", pa.array(every)), drawn, one, hundred)


def different(drawn: np.ndarray) -> list[np.ndarray]:
    """Hundreds of users, none twice in one: each the first hundred of some that were drawn."""
    found = []
    for begin in range(0, len(drawn) - 400, 200):
        some = drawn[begin : begin + 400]
        found.append(some[np.sort(np.unique(some, return_index=True)[1])[:100]])
    return [some for some in found if len(some) == 100]


def beside_feast(python: str, root: Path, vectors: pa.Table, drawn: np.ndarray, one: float, hundred: float) -> None:
    """The same vectors in Feast's SQLite store, read for the same keys by its own process, as dicts; ours are medians in microseconds."""
    pq.write_table(vectors, root / "vectors.parquet")
    pq.write_table(pa.table({"user_id": drawn}), root / "keys.parquet")
    script = Path(__file__).with_name("feast_online.py")
    told = subprocess.run([python, script, root / "vectors.parquet", root / "keys.parquet"], capture_output=True, text=True)
    if told.returncode:
        raise SystemExit(f"{python} {script} ended with {told.returncode}:\n{told.stderr[-3000:]}")
    found = json.loads(told.stdout.splitlines()[-1])
    for name, ours, theirs in (("one key", one, found["one"]), ("100 keys", hundred, found["hundred"])):
        half, most = np.percentile(np.array(theirs) * 1e6, [50, 99])
        print(f"feast,  {name:<12} p50 {half:8.1f} us  p99 {most:8.1f} us  {half / ours:5.1f} times featreg's p50")


def _warm(root: Path, varchar: bool) -> None:
    """Compile before the clock starts, in a repository of its own."""
    import featreg

    with tempfile.TemporaryDirectory() as scratch:
        repository(Path(scratch), varchar)
        few = pq.read_table(root / "events" / "1.parquet").slice(0, 50_000)
        pq.write_table(few, Path(scratch) / "events" / "1.parquet")
        with featreg.open(scratch) as warm:
            warm.apply()
            warm.materialize(to=int(few["event_at"][len(few) - 1].cast(pa.int64()).as_py()) + 1)


def _time(name: str, call, times: int) -> float:
    low, half, most = np.percentile(taken(call, times), [5, 50, 99]) * 1e6
    print(f"online, {name:<12} p50 {half:8.1f} us  p99 {most:8.1f} us  (p5 {low:.1f} us)")
    return float(half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--varchar", action="store_true")
    parser.add_argument("--window", default="7d", help="the longer window: with 90d the first run folds all events, not a week of them")
    parser.add_argument("--feast", metavar="PYTHON", help="the Python of a venv that has Feast: read the same vectors from it too")
    asked = parser.parse_args()
    run(asked.events, asked.varchar, asked.window, asked.feast)


if __name__ == "__main__":
    main()
