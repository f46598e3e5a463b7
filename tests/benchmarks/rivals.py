"""What a practitioner would write by hand for the benchmark's training set: DuckDB SQL and Polars, each as fast as we could make it.

    python -m tests.benchmarks.rivals --events 1_000_000

Each rival is `rival(events_path, spine_path, out_path) -> seconds` and writes one row per spine row, in the spine's order:
count, sum, avg, min, max, last (and count_distinct of the category, in SQL) over 1h, 1d, 7d and 30d.  Upper bounds are
exclusive; `last` is the newest row, NULL or not, and of ties the largest value, NULL lowest.  Sums are plain floating point.

What made them fast: the SQL that everyone writes, one RANGE frame per window over events and spine together, searches the
frame's edges again for each of its aggregates.  Searching them once, as row counts, and aggregating over ROWS frames takes a
third to a quarter of the time (1 M events, same run: 6.1 s against 22.5 s).  Event rows have empty frames; events that no spine
row can see are pruned.  Tried and slower: buckets of keys (they save memory, not time), key and instant as one integer to order by,
the windows' starts as rows of their own.
"""

import argparse
import tempfile
import time
from datetime import timedelta
from pathlib import Path

SECOND = 1_000_000
WINDOWS = {"1h": 3_600 * SECOND, "1d": 86_400 * SECOND, "7d": 604_800 * SECOND, "30d": 2_592_000 * SECOND}
HOPS = {"1h": 60 * SECOND, "1d": 1_800 * SECOND, "7d": 10_800 * SECOND, "30d": 43_200 * SECOND}
EPOCH = 1_735_689_600 * SECOND  # 2025-01-01, where the data begins: key and instant then fit one integer, 2^44 us (203 days) a key
FEATURES = tuple(f"{name}_{window}" for window in WINDOWS for name in ("count", "sum", "avg", "min", "max", "last", "count_distinct"))


def duckdb_rows(events_path: str, spine_path: str, out_path: str, hops: bool = True, distinct: str = "bits", buckets: int = 1) -> float:
    """The fastest SQL we found: frames' edges searched once per window, as row counts; then every aggregate over ROWS frames.

    hops: whether a window starts on featreg's hop grid, as ours does, or exactly (to compare with Polars).
    distinct: "bits" counts categories as bits of one integer, which only codes below 64 allow; "plain" is count(DISTINCT).
    buckets: run the statement that many times, each for its share of the keys.
    """
    return _run_duckdb(_rows_statement, events_path, spine_path, out_path, hops, distinct, buckets)


def duckdb_rows_plain(events_path: str, spine_path: str, out_path: str) -> float:
    """`duckdb_rows` for categories that are no small codes."""
    return duckdb_rows(events_path, spine_path, out_path, distinct="plain")


def duckdb_range(events_path: str, spine_path: str, out_path: str, hops: bool = True, distinct: str = "bits", buckets: int = 1) -> float:
    """The SQL that everyone writes: union of events and spine, one RANGE frame per window; options as `duckdb_rows`."""
    return _run_duckdb(_range_statement, events_path, spine_path, out_path, hops, distinct, buckets)


def polars_rolling(events_path: str, spine_path: str, out_path: str) -> float:
    """Polars `rolling` with closed="left", exact windows, no count_distinct; `last` by an as-of join.

    Grouping by key is slower than one integer index of key and instant, far enough apart that no window reaches the key before.
    """
    import polars as pl

    started = time.perf_counter()
    spine = pl.scan_parquet(spine_path).with_row_index("row").rename({"as_of": "t"})
    first = spine.select(pl.col("t").min()).collect().item() - timedelta(days=30)
    key_and_instant = pl.col("user_id") * 2**44 + pl.col("t").cast(pl.Int64) - EPOCH
    events = (
        pl.scan_parquet(events_path)
        .select("user_id", pl.col("event_at").alias("t"), "value")
        .filter(pl.col("t") >= first)
        .join(spine.select("user_id").unique(), on="user_id", how="semi")
        .select(pl.lit(1, pl.UInt32).alias("event"), "value", z=key_and_instant)
    )
    asked = spine.select("row", z=key_and_instant)
    both = pl.concat([events, asked], how="diagonal_relaxed").sort("z").collect()
    is_asked = both["row"].is_not_null()
    frames = [
        both.lazy()
        .rolling("z", period=f"{width}i", closed="left")
        .agg(
            pl.col("event").sum().cast(pl.Int64).alias(f"count_{window}"),
            # The sum of no values is NULL here, 0 in Polars.
            pl.when(pl.col("value").count() > 0).then(pl.col("value").sum()).alias(f"sum_{window}"),
            pl.col("value").mean().alias(f"avg_{window}"),
            pl.col("value").min().alias(f"min_{window}"),
            pl.col("value").max().alias(f"max_{window}"),
        )
        .drop("z")
        .filter(is_asked)
        for window, width in WINDOWS.items()
    ]
    windowed = pl.concat([both.select("row", "z").filter(is_asked), *pl.collect_all(frames)], how="horizontal")
    newest = _newest_before(pl, events.collect(), windowed)
    last = [pl.when(pl.col("seen") >= pl.col("z") - width).then("newest").alias(f"last_{window}") for window, width in WINDOWS.items()]
    order = ["row", *(name for name in FEATURES if not name.startswith("count_distinct"))]
    newest.with_columns(last).select(order).sort("row").drop("row").write_parquet(out_path)
    return time.perf_counter() - started


def _newest_before(pl, events, asked):  # type: ignore[no-untyped-def]
    """`asked` with the newest event before each z: its z as `seen` and its value as `newest`; sorted by z."""
    ordered = events.sort("z", "value", nulls_last=False).select("z", seen=pl.col("z"), newest=pl.col("value"))
    return asked.join_asof(ordered, on="z", strategy="backward", allow_exact_matches=False, check_sortedness=False)


def duckdb_asof(events_path: str, spine_path: str, out_path: str) -> float:
    """The latest value before each instant by ASOF JOIN, ties resolved by the largest value, NULL lowest."""
    return _timed_copy(
        f"""
        WITH newest AS (
          SELECT user_id, event_at, max(value) AS value FROM read_parquet('{events_path}')
          WHERE user_id IN (SELECT user_id FROM read_parquet('{spine_path}')) GROUP BY ALL
        )
        SELECT value AS last_value
        FROM read_parquet('{spine_path}', file_row_number = true) AS spine ASOF LEFT JOIN newest
          ON spine.user_id = newest.user_id AND spine.as_of > newest.event_at
        ORDER BY file_row_number""",
        out_path,
    )


def _run_duckdb(statement, events_path, spine_path, out_path, hops, distinct, buckets) -> float:  # type: ignore[no-untyped-def]
    if buckets == 1:
        return _timed_copy(statement(events_path, spine_path, hops, distinct, "true") + " ORDER BY row", out_path, drop="row")
    import duckdb

    with duckdb.connect() as connection:
        started = time.perf_counter()
        connection.execute("SET preserve_insertion_order = false")
        for bucket in range(buckets):
            into = "CREATE TEMP TABLE answer AS" if bucket == 0 else "INSERT INTO answer"
            connection.execute(f"{into} {statement(events_path, spine_path, hops, distinct, f'hash(user_id) % {buckets} = {bucket}')}")
        connection.execute(f"COPY (SELECT * EXCLUDE (row) FROM (FROM answer ORDER BY row)) TO '{out_path}' (FORMAT parquet)")
        return time.perf_counter() - started


def _timed_copy(select: str, out_path: str, drop: str = "") -> float:
    import duckdb

    with duckdb.connect() as connection:
        started = time.perf_counter()
        inner = f"SELECT * EXCLUDE ({drop}) FROM ({select})" if drop else select
        connection.execute(f"COPY ({inner}) TO '{out_path}' (FORMAT parquet)")
        return time.perf_counter() - started


def _both(events_path: str, spine_path: str, hops: bool, bucket: str) -> str:
    """Events that some spine row can see, and the spine rows; with how far back each spine row's windows reach, 0 for events."""
    starts = {w: f"(t - {width}) // {HOPS[w]} * {HOPS[w]}" if hops else f"(t - {width})" for w, width in WINDOWS.items()}
    reaches = ", ".join(f"CASE WHEN row IS NULL THEN 0 ELSE t - {start} END AS reach_{w}" for w, start in starts.items())
    return f"""
      rows_of_both AS (
        SELECT
          user_id AS k, epoch_us(event_at) AS t, 1::TINYINT AS event, value, category, NULL::BIGINT AS row,
          {{'t': t, 'known': value IS NOT NULL, 'value': value}} AS newest
        FROM read_parquet('{events_path}')
        WHERE event_at >= (SELECT min(as_of) FROM read_parquet('{spine_path}')) - INTERVAL 31 DAY
          AND user_id IN (SELECT user_id FROM read_parquet('{spine_path}')) AND {bucket}
        UNION ALL
        SELECT user_id, epoch_us(as_of), NULL, NULL, NULL, file_row_number, NULL
        FROM read_parquet('{spine_path}', file_row_number = true) WHERE {bucket}
      ), reaching AS (SELECT *, {reaches} FROM rows_of_both)"""


def _rows_statement(events_path: str, spine_path: str, hops: bool, distinct: str, bucket: str) -> str:
    ranges = ", ".join(f"range_{w} AS (PARTITION BY k ORDER BY t RANGE BETWEEN reach_{w} PRECEDING AND 1 PRECEDING)" for w in WINDOWS)
    counted = ", ".join(f"count(*) OVER range_{w} AS rows_{w}" for w in WINDOWS)
    # Rows of the same instant stand before or after a spine row as the sort happens to leave them; `peers` steps over the former.
    frames = ", ".join(
        f"frame_{w} AS (PARTITION BY k ORDER BY place "
        f"ROWS BETWEEN CASE WHEN row IS NULL THEN 0 ELSE rows_{w} + peers END PRECEDING AND 1 + peers PRECEDING)"
        for w in WINDOWS
    )
    return f"""
      WITH {_both(events_path, spine_path, hops, bucket)}, placed AS (
        SELECT *, row_number() OVER by_instant AS place, row_number() OVER by_instant - rank() OVER by_instant AS peers, {counted}
        FROM reaching WINDOW by_instant AS (PARTITION BY k ORDER BY t), {ranges}
      ), answered AS (SELECT row, t, {_REACHES}, {_aggregates(distinct)} FROM placed WINDOW {frames})
      SELECT row, {_finished(distinct)} FROM answered WHERE row IS NOT NULL"""


def _range_statement(events_path: str, spine_path: str, hops: bool, distinct: str, bucket: str) -> str:
    frames = ", ".join(f"frame_{w} AS (PARTITION BY k ORDER BY t RANGE BETWEEN reach_{w} PRECEDING AND 1 PRECEDING)" for w in WINDOWS)
    return f"""
      WITH {_both(events_path, spine_path, hops, bucket)},
      answered AS (SELECT row, t, {_REACHES}, {_aggregates(distinct)} FROM reaching WINDOW {frames})
      SELECT row, {_finished(distinct)} FROM answered WHERE row IS NOT NULL"""


_REACHES = ", ".join(f"reach_{w}" for w in WINDOWS)


def _aggregates(distinct: str) -> str:
    """The window aggregates; avg is a quotient of two of them, and the newest row of the longest window answers `last` for all."""
    categories = "bit_or(1::BIGINT << category)" if distinct == "bits" else "count(DISTINCT category)"
    each = (
        f"count(event) OVER frame_{w} AS count_{w}, sum(value) OVER frame_{w} AS sum_{w}, count(value) OVER frame_{w} AS values_{w}, "
        f"min(value) OVER frame_{w} AS min_{w}, max(value) OVER frame_{w} AS max_{w}, {categories} OVER frame_{w} AS categories_{w}"
        for w in WINDOWS
    )
    return ", ".join([*each, "max(newest) OVER frame_30d AS newest"])


def _finished(distinct: str) -> str:
    """The answer's columns, in the order of FEATURES."""
    counted = "bit_count(coalesce(categories_{w}, 0))::BIGINT" if distinct == "bits" else "categories_{w}"
    return ", ".join(
        f"count_{w}, sum_{w}, sum_{w} / nullif(values_{w}, 0) AS avg_{w}, min_{w}, max_{w}, "
        f"CASE WHEN newest.t >= t - reach_{w} THEN newest.value END AS last_{w}, {counted.format(w=w)} AS count_distinct_{w}"
        for w in WINDOWS
    )


def main() -> None:
    from tests.benchmarks import data
    from tests.benchmarks.measure import run_measured

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rivals", nargs="*", default=["duckdb_rows", "duckdb_rows_plain", "duckdb_range", "polars_rolling"])
    asked = parser.parse_args()
    events, spine = data.events(asked.events), data.spine(asked.events // 10)
    with tempfile.TemporaryDirectory() as scratch:
        for rival in asked.rivals:
            measured = run_measured("tests.benchmarks.rivals", rival, events, spine, Path(scratch) / f"{rival}.parquet")
            print(f"{rival:<18} {measured}", flush=True)
        events, spine = data.events(1_000_000), data.spine(100_000)
        print(
            f"{'duckdb_asof':<18} {run_measured('tests.benchmarks.rivals', 'duckdb_asof', events, spine, Path(scratch) / 'asof.parquet')}"
        )


if __name__ == "__main__":
    main()
