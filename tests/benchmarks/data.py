"""Make the benchmark's events and spines: the same bytes for the same parameters, kept in a temp directory.

    python -m tests.benchmarks.data --events 10_000_000

Events are a log: written in time order, keys drawn from a bounded zipf law, so that a few users have most rows
and most users a few.  Times have milliseconds, as logs do, so a busy key has ties.
"""

import argparse
import os
import tempfile
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 122_880  # DuckDB's own row group, so that its scan runs one thread a group
CHUNK = 8 * ROW_GROUP
DAY = 86_400_000_000
START_AT = 1_735_689_600_000_000  # 2025-01-01T00:00:00Z
MILLISECOND = 1_000
FORM = 1  # raise when the rows change, so that no cached file of an older form is read

EVENT_SCHEMA = pa.schema([("user_id", pa.int64()), ("event_at", pa.timestamp("us")), ("value", pa.float64()), ("category", pa.int64())])
SPINE_SCHEMA = pa.schema([("user_id", pa.int64()), ("as_of", pa.timestamp("us"))])


@dataclass(frozen=True)
class Events:
    """n: rows.  exponent: zipf's s.  nulls: share of NULL values.  hot: share of rows that all belong to one more key, 0."""

    n: int
    keys: int = 100_000
    days: int = 90
    seed: int = 7
    exponent: float = 1.1
    nulls: float = 0.02
    categories: int = 20
    varchar: bool = False
    hot: float = 0.0


def events(n: int, keys: int = 100_000, days: int = 90, seed: int = 7, **options: object) -> Path:
    """The Parquet file of `n` events: user_id BIGINT, event_at TIMESTAMP (ascending), value DOUBLE, category BIGINT or VARCHAR.

    options: the other fields of `Events`.  10 M rows take about 3 s the first time and nothing after that.
    """
    recipe = Events(n, keys, days, seed, **options)  # type: ignore[arg-type]
    return _cached("events", recipe, _event_schema(recipe), _event_chunk)


def spine(n: int, keys: int = 100_000, days: int = 90, seed: int = 7, **options: object) -> Path:
    """The Parquet file of `n` spine rows: user_id drawn as the events of the same parameters, as_of uniform, in no order."""
    return _cached("spine", Events(n, keys, days, seed, **options), SPINE_SCHEMA, _spine_chunk)  # type: ignore[arg-type]


def _event_chunk(recipe: Events, chunk: int) -> pa.Table:
    rng = np.random.default_rng([recipe.seed, 1, chunk])
    start, rows = chunk * CHUNK, min(CHUNK, recipe.n - chunk * CHUNK)
    span = recipe.days * DAY // MILLISECOND
    # Each chunk has its own slice of time, so the file is in time order and 100 M rows need the memory of one chunk.
    at = np.sort(rng.integers(span * start // recipe.n, span * (start + rows) // recipe.n, rows))
    value = np.round(rng.lognormal(3.0, 1.0, rows), 2)
    category = rng.integers(0, recipe.categories, rows)
    columns = [
        pa.array(_draw_keys(rng, recipe, rows)),
        _instants(at),
        pa.array(value, mask=rng.random(rows) < recipe.nulls),
        pa.array(np.array([f"category {code:02d}" for code in range(recipe.categories)])[category] if recipe.varchar else category),
    ]
    return pa.table(columns, schema=_event_schema(recipe))


def _spine_chunk(recipe: Events, chunk: int) -> pa.Table:
    rng = np.random.default_rng([recipe.seed, 2, chunk])
    rows = min(CHUNK, recipe.n - chunk * CHUNK)
    at = rng.integers(0, recipe.days * DAY // MILLISECOND, rows)
    return pa.table([pa.array(_draw_keys(rng, recipe, rows)), _instants(at)], schema=SPINE_SCHEMA)


def _event_schema(recipe: Events) -> pa.Schema:
    return EVENT_SCHEMA.set(3, pa.field("category", pa.string())) if recipe.varchar else EVENT_SCHEMA


def _instants(milliseconds: np.ndarray) -> pa.Array:
    return pa.array(START_AT + milliseconds * MILLISECOND).cast(pa.timestamp("us"))


def _draw_keys(rng: np.random.Generator, recipe: Events, rows: int) -> np.ndarray:
    cumulative, user_ids = _key_law(recipe.keys, recipe.exponent, recipe.seed)
    drawn = user_ids[np.searchsorted(cumulative, rng.random(rows), side="right")]
    if recipe.hot:
        drawn[rng.random(rows) < recipe.hot] = 0
    return drawn


@lru_cache(maxsize=4)
def _key_law(keys: int, exponent: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative shares by rank, and each rank's user id (1..keys, shuffled: a busy key is not a small number)."""
    weights = np.arange(1, keys + 1, dtype=np.float64) ** -exponent
    cumulative = np.cumsum(weights) / weights.sum()
    cumulative[-1] = 1.0
    return cumulative, np.random.default_rng([seed, 0]).permutation(keys).astype(np.int64) + 1


def _cached(kind: str, recipe: Events, schema: pa.Schema, make_chunk) -> Path:  # type: ignore[no-untyped-def]
    """The file of this recipe; written beside its name and renamed, so that a killed run leaves no half of one."""
    folder = Path(tempfile.gettempdir()) / "featreg-benchmarks"
    folder.mkdir(exist_ok=True)
    name = "-".join(f"{value:g}" if isinstance(value, float) else str(int(value)) for value in asdict(recipe).values())
    path = folder / f"{kind}-{FORM}-{name}.parquet"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}.part")
        with pq.ParquetWriter(part, schema) as writer:
            for chunk in range(-(-recipe.n // CHUNK)):
                writer.write_table(make_chunk(recipe, chunk), row_group_size=ROW_GROUP)
        part.replace(path)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    count = parser.parse_args().events
    print(events(count))
    print(spine(count // 10))
