"""Time a training set against its rivals: 28 features, four windows, in one run on one machine.

python -m tests.benchmarks.training_set --events 10_000_000
python -m tests.benchmarks.training_set --growth 1_000_000 3_000_000 10_000_000 30_000_000
"""

import argparse
import math
import tempfile
from pathlib import Path

from tests.benchmarks import data
from tests.benchmarks.measure import Measured, run_measured

RIVALS = ("duckdb_rows", "duckdb_rows_plain", "polars_rolling")
OF_24 = ("polars_rolling",)  # has no distinct counts: it is held against both


def compare(events: int, rivals: list[str]) -> None:
    """28 features over `events` events and a tenth of that in spine rows."""
    paths = data.events(events), data.spine(events // 10)
    with tempfile.TemporaryDirectory() as scratch:
        ours = _best("tests.benchmarks.ours", "training_set", *paths, Path(scratch) / "ours.parquet")
        _say("featreg", ours, events)
        for rival in rivals:
            theirs = run_measured("tests.benchmarks.rivals", rival, *paths, Path(scratch) / f"{rival}.parquet")
            _say(rival, theirs, events, ours)
            if rival in OF_24:
                of_24 = _best("tests.benchmarks.ours", "without_distinct", *paths, Path(scratch) / "ours.parquet")
                _say("featreg, 24 features", of_24, events)
                print(f"{rival:<22} {theirs.seconds / of_24.seconds:.2f} x featreg for the same 24 features", flush=True)


def latest() -> None:
    """One `agg.last` against an ASOF JOIN with ties resolved: 1 M events, 100 k spine rows."""
    paths = data.events(1_000_000), data.spine(100_000)
    with tempfile.TemporaryDirectory() as scratch:
        ours = _best("tests.benchmarks.ours", "latest", *paths, Path(scratch) / "ours.parquet")
        _say("featreg, last", ours, 1_000_000)
        _say("ASOF JOIN", _best("tests.benchmarks.rivals", "duckdb_asof", *paths, Path(scratch) / "asof.parquet"), 1_000_000, ours)


def hot_and_exact(events: int) -> None:
    """A key with a fifth of all rows; 30-day windows with exact edges; both."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, function, options in (
            ("hot key", "training_set", {"hot": 0.2}),
            ("exact 30d", "exact", {}),
            ("hot key, exact 30d", "exact", {"hot": 0.2}),
        ):
            paths = data.events(events, **options), data.spine(events // 10, **options)
            _say(name, run_measured("tests.benchmarks.ours", function, *paths, Path(scratch) / "out.parquet"), events)


def growth(sizes: list[int]) -> None:
    """How time grows with events: the exponent between the first and the last size."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for size in sizes:
            measured = _best(
                "tests.benchmarks.ours", "training_set", data.events(size), data.spine(size // 10), Path(scratch) / "out.parquet"
            )
            found.append(measured.seconds)
            _say(f"{size:,} events", measured, size)
    exponent = math.log(found[-1] / found[0]) / math.log(sizes[-1] / sizes[0])
    print(f"time grows with exponent {exponent:.2f}")


def _best(module: str, function: str, *args: object) -> Measured:
    return min((run_measured(module, function, *args) for _ in range(2)), key=lambda one: one.seconds)


def _say(name: str, measured: Measured, events: int, ours: Measured | None = None) -> None:
    ratio = f"  {measured.seconds / ours.seconds:5.2f} x featreg" if ours else ""
    print(f"{name:<22} {measured}  {events / measured.seconds / 1e6:6.2f} M events/s{ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rivals", nargs="*", default=list(RIVALS))
    parser.add_argument("--growth", type=int, nargs="*")
    parser.add_argument("--latest", action="store_true")
    parser.add_argument("--hot", action="store_true")
    asked = parser.parse_args()
    if asked.growth:
        growth(asked.growth)
    elif asked.latest:
        latest()
    elif asked.hot:
        hot_and_exact(asked.events)
    else:
        compare(asked.events, asked.rivals)


if __name__ == "__main__":
    main()
