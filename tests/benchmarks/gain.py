"""Time what it costs a filled view of 50 features to gain one: about what the one costs alone.

    python -m tests.benchmarks.gain --events 1_000_000
"""

import argparse
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks import data

SPEC = """
from featreg import Entity, EventSource, FeatureSet, FeatureView, agg
user = Entity(name="user", key={{"user_id": "BIGINT"}})
events = EventSource(
    name="events", columns={{"user_id": "BIGINT", "event_at": "TIMESTAMP", "value": "DOUBLE", "category": "BIGINT"}}, event_time="event_at"
)
wide = FeatureView(name="wide", entity=user, source=events, features={{{features}}})
"""
AGGREGATIONS = ("count", "sum", "min", "max", "var")
FIFTY = [f'"{name}": agg.{name}("value").over({", ".join(repr(f"{days}d") for days in range(1, 11))})' for name in AGGREGATIONS]
ONE = '"kinds": agg.avg("category").over("30d")'


def run(events: int) -> None:
    table = pq.read_table(data.events(events))
    end = int(table["event_at"][len(table) - 1].cast(pa.int64()).as_py()) + 1
    for number in range(2):  # the first compiles kernels
        with tempfile.TemporaryDirectory() as scratch:
            rows = table if number else table.slice(0, 20_000)
            fifty, gained = _materialize(Path(scratch, "a"), rows, end, [FIFTY, [*FIFTY, ONE]])
            (alone,) = _materialize(Path(scratch, "b"), rows, end, [[ONE]])
    for what, (seconds, size) in {"50 features": fifty, "one more": gained, "that one in a view of its own": alone}.items():
        print(f"{what:<30} {seconds:6.2f} s {size / 1e6:8.1f} MB   {seconds / fifty[0]:6.1%} of time, {size / fifty[1]:.1%} of bytes")


def _materialize(root: Path, rows: pa.Table, end: int, states: list[list[str]]) -> list[tuple[float, int]]:
    """Seconds and bytes written for each state of the view in turn."""
    import featreg

    for folder in ("features", "conf", "events"):
        (root / folder).mkdir(parents=True)
    pq.write_table(rows, root / "events" / "1.parquet", row_group_size=122_880)
    (root / "conf" / "local.toml").write_text('[sources]\nevents = "events/*.parquet"\n[duckdb]\nmemory_limit = "2GB"\n')
    taken = []
    for features in states:
        (root / "features" / "wide.py").write_text(SPEC.format(features=", ".join(features)))
        with featreg.open(root) as registry:
            registry.apply()
            began = time.perf_counter()
            (receipt,) = registry.materialize(to=end)
            taken.append((time.perf_counter() - began, receipt.bytes))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    run(parser.parse_args().events)


if __name__ == "__main__":
    main()
