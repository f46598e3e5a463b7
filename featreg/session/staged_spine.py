"""Take a spine in any form, stage it in chunks for workers, and number its rows.

Executors read the rows of files and of DataFrames; the driver holds what it was handed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from featreg.compile import CompiledSet
from featreg.engines.duckdb import source_files
from featreg.engines.kept import from_bytes
from featreg.engines.spark import AS_WRITTEN, Spark, arrow_schema, is_frame, is_uri
from featreg.engines.worker import InFiles
from featreg.session.manifest import SPINE_PART
from featreg.session.tables import read_table
from featreg.session.tasks import FILE, STAGED, START, Numbering, StageSpine
from featreg.session.training_set import check_spine

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

BLOCK_ROWS = SPINE_PART  # spine rows of a part file: 28 columns of doubles are 30 MB


@dataclass(frozen=True)
class StagedSpine:
    """The rows to fill as chunks for workers.

    table: the rows when the driver was handed them, else None.  first, last: of the as-of instants.
    """

    chunks: "DataFrame"
    schema: pa.Schema
    numbering: Numbering
    time: str
    first: int
    last: int
    table: pa.Table | None = None

    def __len__(self) -> int:
        return self.numbering.rows

    def row(self, engine: Spark, number: int) -> pa.Table:
        """One row, for an error that names it."""
        if self.table is not None:
            return self.table.slice(number, 1)
        bases = self.numbering.bases or {}
        chunk, base = max(((chunk, base) for chunk, base in bases.items() if base <= number), key=lambda one: one[1])
        return from_bytes(pa.scalar(engine.collected(self.chunks.where(f"number = {chunk}"))[0]["rows"])).slice(number - base, 1)


def stage_spine(engine: Spark, spine: Any, time: str, compiled: CompiledSet, root: Path) -> StagedSpine:
    """Take the spine in any form: of a Spark DataFrame and of Parquet files executors read the rows, all else the driver.

    A DataFrame's order is that of its partitions; that of files is by path, then as they stand in them.
    """
    found = _found_by_executors(engine, spine, root)
    if found is None:
        return _stage_table(engine, read_table(spine, engine.duckdb, root, "the spine"), time, compiled)
    frame, in_files, schema = found
    check_spine(schema.empty_table(), time, compiled)
    chunks = engine.stage(engine.run(frame, StageSpine(in_files, time, "the spine", engine.folder("spine")), STAGED), STAGED)
    parts = engine.collected(chunks.drop("rows"))
    bases, count = {}, 0
    for one in sorted(parts, key=lambda one: (one["file"], one["start"], one["number"])):
        bases[one["number"]] = count
        count += one["count"]
    first, last = min((one["low"] for one in parts), default=0), max((one["high"] for one in parts), default=0)
    return StagedSpine(chunks.select("number", "rows"), schema, _numbering(engine, count, bases), time, first, last)


def _stage_table(engine: Spark, table: pa.Table, time: str, compiled: CompiledSet) -> StagedSpine:
    checked = check_spine(table, time, compiled)
    rows, as_of = table.num_rows, checked.as_of
    step = 1 << 16
    chunks = engine.ship((at, table.slice(at, step)) for at in range(0, rows, step))
    first, last = (int(as_of.min()), int(as_of.max())) if rows else (0, 0)
    return StagedSpine(chunks, table.schema, _numbering(engine, rows, None), time, first, last, table)


def _numbering(engine: Spark, rows: int, bases: Mapping[int, int] | None) -> Numbering:
    blocks = max(1, -(-rows // BLOCK_ROWS))
    return Numbering(rows, BLOCK_ROWS, engine.slots(blocks), bases)


def _found_by_executors(engine: Spark, spine: Any, root: Path) -> "tuple[DataFrame, InFiles | None, pa.Schema] | None":
    """A spine that executors can read: a frame of its rows or of what a worker reads, and its columns."""
    if is_frame(spine):
        return spine, None, arrow_schema(spine)
    if not isinstance(spine, (str, Path)):
        return None
    text = str(spine)
    if is_uri(text):
        with engine.told("the spine"):
            frame = engine.session.read.options(**AS_WRITTEN, mergeSchema="true").parquet(text)
        placed = frame.selectExpr("*", f"_metadata.file_path AS {FILE}", f"_metadata.file_block_start AS {START}")
        return placed, None, arrow_schema(frame)
    if not text.lower().endswith((".parquet", ".pq")) and not (root / text).is_dir():
        return None
    whole = Path(text) if Path(text).exists() else root / text
    files = sorted(map(str, whole.rglob("*.parquet"))) if whole.is_dir() else source_files(str(whole), root)
    if not files:
        return None
    return engine.spine(files)
