"""Time what is asked of a source of 10,000 files before anything is scanned.

    python -m tests.benchmarks.coverage --files 10_000

An hour of orders in each file.  A snapshot is taken, then taken again; then the coverage of a training set of all that time is
asked for: of the snapshot, of the location as it stands, and of the location with one file gone.  CPU beside wall, since a busy
machine has a say in the latter.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import featreg
from featreg.instants import HOUR, parse_instant
from featreg.session.coverage import coverage_of, place_snapshots
from featreg.snapshots.coverage import Need
from featreg.snapshots.scheme import read_scheme

_SPEC = """
from featreg import EventSource
orders = EventSource(name="orders", columns={"customer": "VARCHAR", "at": "TIMESTAMP"}, event_time="at", partition="%Y-%m-%d-%H",
                     starts="2024-01-01")
"""


def timed(what: str, work: Callable[[], Any]) -> Any:
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    print(f"{what:42} {time.perf_counter() - wall:6.2f} s wall  {time.process_time() - cpu:6.2f} s CPU", flush=True)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--files", type=int, default=10_000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, start = Path(folder), parse_instant("2024-01-01")
        for name, text in {"features/shop.py": _SPEC, "conf/local.toml": '[sources]\norders = "data/*.parquet"\n'}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        (root / "data").mkdir()
        scheme = read_scheme("%Y-%m-%d-%H", "orders")
        assert scheme is not None
        for number, slot in enumerate(scheme.slots(start, start + chosen.files * HOUR)):
            rows = {"customer": [f"c{number}", "ann"], "at": pa.array([slot.start, slot.start + 1], pa.timestamp("us"))}
            pq.write_table(pa.table(rows), root / "data" / f"{slot.name}.parquet", compression="none")
        time.sleep(2.1)  # so that the files' times say that nobody touches them
        need = {"orders": Need(start, start + chosen.files * HOUR)}
        with featreg.open(root) as registry:
            taken = timed("take", lambda: registry.snapshot("orders"))
            timed("take again", lambda: registry.snapshot("orders"))
            sources = dict(registry.compile().sources)

            def covered(placed: Any = None) -> Any:
                return coverage_of(registry, need, sources, placed or {}, set())[0]

            found = timed("coverage of the snapshot", lambda: covered(place_snapshots(registry, taken.id, {"orders"})))
            assert not found.failing, found.failing[:2]
            assert not timed("coverage of the location", covered).failing
            next(iter(sorted((root / "data").iterdir())[5:6])).unlink()
            assert len(timed("coverage of the location, one file gone", covered).failing) == 1


if __name__ == "__main__":
    main()
