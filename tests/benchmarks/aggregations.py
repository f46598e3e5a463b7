"""Time every aggregation over every type that it takes: rows a second of the sweep alone, and the ratio to `sum` of DOUBLE.

    python -m tests.benchmarks.aggregations --events 1_000_000

A view with that one aggregation over 7 days; the engine's sorted rows are held in memory, and the best of four walks on one
thread counts, so neither the sort nor compiling is in it.  count_distinct and histogram see 20 values of each type, the others
many: a histogram of values that never repeat is as large as its window.  A pair below a fifth of `sum` is marked.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featreg.algebra.schedule import Chunk
from featreg.algebra.table import AGGREGATIONS
from featreg.compile import compile_definitions
from featreg.compile.compiled import CompiledView
from featreg.compile.program import build_program
from featreg.engines.duckdb import DuckDB
from featreg.load import load_files
from featreg.plan.offline import plan_backfill
from featreg.sweep.stream import BATCH_ROWS, Layout, Tally, chunks
from featreg.sweep.sweeper import Results, Sweeper
from featreg.vocabulary import parse_type
from tests.benchmarks import data

TYPES = {
    "d": "DOUBLE", "i": "BIGINT", "m": "DECIMAL(12,2)", "w": "DECIMAL(30,2)", "f": "BOOLEAN", "s": "VARCHAR", "day": "DATE",
    "at": "TIMESTAMP",
}  # fmt: skip
ARGUMENTS = {"arg_min": ', by="d"', "arg_max": ', by="d"', "first_n": ", n=5", "last_n": ", n=5", "top_n": ", n=5"}
LEAST = 0.2


def pairs() -> Iterator[tuple[str, str]]:
    """Every (aggregation, column) that the compiler takes, `sum` of DOUBLE first."""
    yield "sum", "d"
    for name, aggregation in AGGREGATIONS.items():
        for column, text in TYPES.items():
            if aggregation.takes(parse_type(text)) and (name, column) != ("sum", "d"):
                yield name, column


def view_of(name: str, column: str) -> CompiledView:
    columns = ", ".join(f'"{one}": "{text}", "few_{one}": "{text}"' for one, text in TYPES.items())
    lifted = f"few_{column}" if AGGREGATIONS[name].kind == "tally" else column
    source = f"""
from featreg import Entity, EventSource, FeatureView, agg
user = Entity(name="user", key={{"user_id": "BIGINT"}})
events = EventSource(name="events", columns={{"user_id": "BIGINT", "event_at": "TIMESTAMP", {columns}}}, event_time="event_at")
view = FeatureView(name="view", entity=user, source=events, features={{"f": agg.{name}("{lifted}"{ARGUMENTS.get(name, "")}).over("7d")}})
"""
    return compile_definitions(load_files({"features/bench.py": source.encode()})).views["view"]


def typed_events(n: int, folder: Path) -> Path:
    """The benchmark's events with two columns of each type: one of many values, one of 20 (`few_`)."""
    table = pq.read_table(data.events(n))
    path = folder / "typed.parquet"
    columns = {name: table[name] for name in ("user_id", "event_at")}
    columns |= _typed(pc.fill_null(table["value"], 1.0), table["event_at"], "")
    start = pa.scalar(data.START_AT, pa.int64())
    days = pc.cast(pc.add(start, pc.multiply(table["category"], data.DAY)), pa.timestamp("us"))
    columns |= _typed(pc.cast(table["category"], pa.float64()), days, "few_")
    pq.write_table(pa.table(columns), path, row_group_size=data.ROW_GROUP)
    return path


def _typed(value: pa.ChunkedArray, moment: pa.ChunkedArray, prefix: str) -> dict[str, pa.ChunkedArray]:
    cents = pc.round(value, 2)
    made = {
        "d": value, "i": pc.cast(pc.round(pc.multiply(value, 100.0)), pa.int64()), "m": pc.cast(cents, pa.decimal128(12, 2), safe=False),
        "w": pc.cast(cents, pa.decimal128(30, 2), safe=False), "f": pc.greater(value, 20.0 if prefix == "" else 10.0),
        "s": pc.cast(value, pa.string()), "day": pc.cast(moment, pa.date32(), safe=False), "at": moment,
    }  # fmt: skip
    return {prefix + name: column for name, column in made.items()}


def rows_a_second(view: CompiledView, engine: DuckDB, events: Path, spine: pa.Table) -> float:
    """Rows of the sorted stream over the seconds that the sweep takes for them."""
    program = build_program(view)
    instants = spine["t"].to_numpy()
    plan = plan_backfill(
        view, program, engine.location("events", str(events), events.parent), "spine", int(instants.min()), int(instants.max()), 0, None
    )
    layout = Layout(plan.key_types, tuple(one.type for one in program.inputs), plan.event_is_visible)
    held = [(chunk, continues) for chunk, continues, _ in chunks(engine.batches(plan.buckets[0].sorted, BATCH_ROWS), layout, Tally())]
    results = Results(len(program.columns), len(spine))
    return sum(len(chunk.key_index) for chunk, _ in held) / min(_walk(Sweeper(program, results), held) for _ in range(4))


def _walk(sweeper: Sweeper, held: list[tuple[Chunk, bool]]) -> float:
    began = time.thread_time()
    for chunk, continues in held:
        sweeper.feed(chunk, continues)
    return time.thread_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="*", default=list(AGGREGATIONS), help="these aggregations (and sum)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        events = typed_events(asked.events, Path(scratch))
        asked_at = pq.read_table(data.spine(asked.events // 10))
        spine = pa.table({"k0": asked_at["user_id"], "t": asked_at["as_of"].cast(pa.int64()), "r": pa.array(np.arange(len(asked_at)))})
        engine = DuckDB({"memory_limit": "4GB"}, Path(scratch) / "spill")
        engine.register("spine", spine)
        base, slow = 0.0, []
        for name, column in pairs():
            if name not in asked.only and (name, column) != ("sum", "d"):
                continue
            rate = rows_a_second(view_of(name, column), engine, events, spine)
            base = base or rate
            mark = "" if rate >= LEAST * base else f"  below {LEAST:.0%}"
            if mark:
                slow.append(f"{name}({TYPES[column]})")
            print(f"{name:<15} {TYPES[column]:<14} {rate / 1e6:7.2f} M rows/s  {rate / base:6.2f} x sum{mark}", flush=True)
        print(f"below a fifth of sum: {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()
