"""featreg's side of the benchmarks, through the public API alone; each function returns the seconds of its work."""

import os
import tempfile
import time
from pathlib import Path

WINDOWS = '"1h", "1d", "7d", "30d"'
ALL = f"""
        "count": agg.count().over({WINDOWS}),
        "sum": agg.sum("value").over({WINDOWS}),
        "avg": agg.avg("value").over({WINDOWS}),
        "min": agg.min("value").over({WINDOWS}),
        "max": agg.max("value").over({WINDOWS}),
        "last": agg.last("value").over({WINDOWS}),
        "count_distinct": agg.count_distinct("category").over({WINDOWS}),
"""
WITHOUT_DISTINCT = "\n".join(line for line in ALL.splitlines() if "count_distinct" not in line)
LATEST = '"last": agg.last("value"),'
EXACT = """
        "count": agg.count().over("30d", hop="exact"),
        "sum": agg.sum("value").over("30d", hop="exact"),
        "max": agg.max("value").over("30d", hop="exact"),
"""


def repository(root: Path, events_path: str, features: str, settings: str = "", category: str = "BIGINT") -> None:
    """A repository with one view of the benchmark's events."""
    (root / "features").mkdir(parents=True, exist_ok=True)
    (root / "conf").mkdir(exist_ok=True)
    (root / "features" / "bench.py").write_text(f"""
from featreg import Entity, EventSource, FeatureSet, FeatureView, agg
user = Entity(name="user", key={{"user_id": "BIGINT"}})
events = EventSource(
    name="events",
    columns={{"user_id": "BIGINT", "event_at": "TIMESTAMP", "value": "DOUBLE", "category": "{category}"}},
    event_time="event_at",
)
view = FeatureView(name="bench", entity=user, source=events, features={{{features}}})
bench = FeatureSet(name="bench_set", features=[view.all()])
""")
    (root / "conf" / "local.toml").write_text(
        f'[sources]\nevents = "{events_path}"\n[duckdb]\nmemory_limit = "{os.environ.get("BENCH_MEMORY", "2GB")}"\n{settings}'
    )


def training_set(events_path: str, spine_path: str, out_path: str, features: str = ALL, category: str = "BIGINT") -> float:
    """Fill the spine and write it; kernels are compiled before the clock starts, as they are after the first run of any repository."""
    import pyarrow as pa

    import featreg
    from featreg.plan import offline

    with tempfile.TemporaryDirectory() as scratch:
        repository(Path(scratch), events_path, features, category=category)
        with featreg.open(scratch) as registry:
            kind = pa.string() if category == "VARCHAR" else pa.int64()
            moment = pa.timestamp("us")
            row = pa.table(
                {"user_id": pa.array([1]), "event_at": pa.array([0], moment), "value": [1.0], "category": pa.array([None], kind)}
            )
            one = pa.table({"user_id": pa.array([1]), "as_of": pa.array([1], moment)})
            small, offline.SMALL_ROWS = offline.SMALL_ROWS, 0  # few rows go the way of many, so that its kernels are compiled
            registry.training_set("bench_set", one, time="as_of", draft=True, sources={"events": row})
            offline.SMALL_ROWS = small
            registry.training_set("bench_set", one, time="as_of", draft=True, sources={"events": row})
            began = time.perf_counter()
            registry.training_set("bench_set", spine_path, time="as_of", draft=True).write(out_path)
            return time.perf_counter() - began


def without_distinct(events_path: str, spine_path: str, out_path: str) -> float:
    """The 24 features that a rival without distinct counts answers."""
    return training_set(events_path, spine_path, out_path, WITHOUT_DISTINCT)


def latest(events_path: str, spine_path: str, out_path: str) -> float:
    return training_set(events_path, spine_path, out_path, LATEST)


def exact(events_path: str, spine_path: str, out_path: str) -> float:
    return training_set(events_path, spine_path, out_path, EXACT)


def one_feature(events_path: str, spine_path: str, out_path: str, feature: str) -> float:
    return training_set(events_path, spine_path, out_path, feature, "BIGINT")
