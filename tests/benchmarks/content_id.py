"""Time the content id of a table of 19 columns beside the SHA-256 of its file.

    python -m tests.benchmarks.content_id --rows 2_000_000

The columns of a table of flights: integers, doubles, texts and instants, as many of each.  The file is read from Parquet each time;
the best of three counts.  GB/s are bytes of the file; the bytes that are hashed as rows are given too.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from featreg.canonical import file_id
from featreg.engines.duckdb import DuckDB
from featreg.snapshots.families import duckdb_columns
from featreg.snapshots.row_sql import duckdb_numbers, duckdb_row_hash

_COLUMNS = (
    *(f"(hash(i + {k}) % 10000)::BIGINT AS i{k}" for k in range(6)),
    *(f"CASE WHEN i % 50 <> {k} THEN (hash(i * {k + 1}) % 100000) / 7 END AS d{k}" for k in range(6)),
    *(f"'N' || (hash(i + {k}) % 4000) AS s{k}" for k in range(5)),
    *(f"make_timestamp(1356998400000000 + (i * {60_000_000 + k})::BIGINT) AS t{k}" for k in range(2)),
)


def best(work: Callable[[], object], times: int = 3) -> tuple[float, float]:
    """Seconds of the fastest of a few calls, and of processor time of the one that took least: another program slows only the first."""

    def once() -> tuple[float, float]:
        began, cpu = time.perf_counter(), time.process_time()
        work()
        return time.perf_counter() - began, time.process_time() - cpu

    walls, cpus = zip(*(once() for _ in range(times)))
    return min(walls), min(cpus)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=2_000_000)
    options.add_argument("--threads", type=int, default=2)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine, path = DuckDB({"threads": chosen.threads}, Path(folder, "spill")), Path(folder, "rows.parquet")
        engine.rows(f"COPY (SELECT {', '.join(_COLUMNS)} FROM range({chosen.rows}) AS r(i)) TO '{path}'")
        relation = engine.location("rows", str(path), Path(folder))
        columns = duckdb_columns(relation.columns, "rows")
        row_text = duckdb_row_hash(columns).removeprefix("sha256(").removesuffix(")")
        row_bytes = engine.rows(f"SELECT sum(strlen({row_text})) FROM {relation.text}")[0][0]
        rows_seconds, rows_cpu = best(lambda: engine.rows(duckdb_numbers(columns, relation.text)))
        (file_seconds, _), size = best(lambda: file_id(path)), path.stat().st_size
        engine.close()
    print(f"{chosen.rows:,} rows of {len(columns)} columns: {size / 1e6:.0f} MB of Parquet, {row_bytes / 1e6:.0f} MB as the texts of rows")
    print(f"content id   {rows_seconds:6.2f} s  {chosen.rows / rows_seconds / 1e6:5.2f} M rows/s  {size / rows_seconds / 1e9:5.3f} GB/s"
          f"  ({row_bytes / rows_seconds / 1e9:.2f} GB/s of row texts)"
          f"  {rows_cpu:.2f} s of CPU")  # fmt: skip
    print(f"file's hash  {file_seconds:6.2f} s  {chosen.rows / file_seconds / 1e6:5.2f} M rows/s  {size / file_seconds / 1e9:5.3f} GB/s")


if __name__ == "__main__":
    main()
