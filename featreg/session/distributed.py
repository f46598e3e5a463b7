"""Fill a spine with Spark: stage it, sweep each lookup's partitions, assemble in the spine's order.

The driver holds the plan, counts and what it was handed; rows go from executor to executor.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featreg.compile import CompiledSet, CompiledView, Lookup
from featreg.compile.program import SweepProgram
from featreg.define import EventSource
from featreg.engines.duckdb import source_files
from featreg.engines.kept import from_bytes
from featreg.engines.spark import AS_WRITTEN, Overflown, Rows, Spark, arrow_schema, is_frame, is_uri
from featreg.engines.spread import PLACED, Split
from featreg.engines.worker import ROWS, InFiles
from featreg.errors import DataError, OverflowDataError, RejectedRowsError
from featreg.instants import format_instant
from featreg.plan.relation import Relation, quote
from featreg.plan.scan_sql import ScanText, scan_text
from featreg.session.keeping import Fingerprint, Keeper, as_parquet, fingerprint_of, formed, named, numbers_sql
from featreg.session.manifest import SPINE_PART, fingerprint_of_parts, part_fingerprint, training_manifest
from featreg.session.order import in_order
from featreg.session.output import write_blocks, write_parts
from featreg.session.sources import SourceFinder
from featreg.session.tables import instants_of, read_table, request_column
from featreg.session.tasks import (
    BLOBS,
    FILE,
    FRAGMENTS,
    NUMBERS,
    STAGED,
    START,
    WRITTEN,
    Ask,
    Assemble,
    Carry,
    CountBlock,
    Lift,
    Numbering,
    StageSpine,
    SweepPartition,
    WriteBlock,
    stream_fields,
)
from featreg.session.training_set import ViewReceipt, check_spine, cutoffs, needed_of, program_of
from featreg.snapshots.manifest import Snapshot
from featreg.snapshots.numbers import read_numbers, summed
from featreg.snapshots.objects import ObjectStore
from featreg.sweep.stream import Layout
from featreg.sweep.warm import BACKFILL, compile_for
from featreg.sweep.words import arrow_type

if TYPE_CHECKING:
    import pandas
    import polars
    from pyspark.sql import DataFrame

    from featreg.session.registry import Registry

BLOCK_ROWS = SPINE_PART  # spine rows of a part file: 28 columns of doubles are 30 MB


def distributed_training_set(
    registry: "Registry", compiled: CompiledSet, views: Mapping[str, CompiledView], finder: SourceFinder, staged: "StagedSpine",
    batched: Mapping[str, int | None], known_at: int | None, revision: dict[str, Any], asked: dict[str, Any],
    snapshots: Mapping[str, Snapshot], progress: Callable[[str, int], None] | None,
) -> "DistributedTrainingSet":  # fmt: skip
    """What `Registry.training_set` gives with Spark.  batched: by view, see `SourceFinder.batched_until`."""
    engine = registry.spark

    def source_of(view: CompiledView) -> Source:
        return _source_of(engine, finder, view, batched[view.name])

    filling = fill_with_spark(engine, compiled, views, source_of, staged, known_at, progress)
    facts = training_manifest(
        compiled, revision, finder.files, registry.root, staged.table, staged, filling.receipts, asked, snapshots, engine="spark"
    )
    return DistributedTrainingSet(filling, facts, filling.receipts)


@dataclass(frozen=True)
class Source:
    """A source's rows for workers: the parts that stand beside each other, and how a scan is spelled over them.

    about: how many rows; None when only Spark could say.
    """

    parts: tuple[Rows, ...]
    about: int | None

    @property
    def relation(self) -> Relation:
        whole: Relation | None = None
        for part in reversed(self.parts):
            whole = replace(part.relation, beside=whole)
        assert whole is not None
        return whole


def _source_of(engine: Spark, finder: SourceFinder, view: CompiledView, batched: int | None) -> Source:
    source = view.scan.source
    name = source.name
    if is_frame(finder.given.get(name)):
        return Source((engine.frame_rows(finder.given[name]),), None)
    location = finder.profile.sources.get(name)
    if name in finder.given or name in finder.placed or location is None or not engine.reads_itself(location):
        relation, about = finder.find(source, batched)
        return Source(tuple(rows_of_part(engine, part) for part in relation.parts), about)
    found, log = engine.located(name, location), finder.log_of(source)
    finder.files[name] = []
    if log is None:
        return Source((found,), None)
    pushed = finder.pushed_rows(source, log[0], batched)
    bounded = finder.before_the_stream(source, found.relation, pushed)
    return Source((replace(found, relation=bounded), rows_of_part(engine, pushed)), None)


def rows_of_part(engine: Spark, part: Relation) -> Rows:
    """Rows that the driver's DuckDB has found: in files, by a query, or in a table that it holds."""
    table = next((table for name, table in engine.duckdb.tables.items() if quote(name) == part.text), None)
    rows = engine.files(part) if table is None else engine.given(table)
    return replace(rows, relation=replace(rows.relation, since=part.since, before=part.before))


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


def fill_with_spark(
    engine: Spark,
    compiled: CompiledSet,
    views: Mapping[str, CompiledView],
    source_of: Callable[[CompiledView], Source],
    spine: StagedSpine,
    known_at: int | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> "Filling":
    """Sweep every lookup; results are staged by the executors.  Raises: as `training_set.fill` does."""
    for name, kind in compiled.request:
        request_column(spine.schema.empty_table(), name, kind, "the spine")
    staged, receipts = [], []
    for number, lookup in enumerate(compiled.lookups):
        view = views[lookup.view]
        fragments, receipt = _look_up(engine, number, lookup, view, source_of(view), spine, known_at)
        staged.append(fragments)
        receipts.append(receipt)
        if progress is not None:
            progress(view.name, receipt.events)
    return Filling(engine, compiled, views, spine, tuple(staged), tuple(receipts))


def _look_up(engine: Spark, number: int, lookup: Lookup, view: CompiledView, source: Source, spine: StagedSpine, known_at: int | None):
    began = time.perf_counter()
    needed, features = needed_of(lookup, view), view.by_name
    program = program_of(view, needed)
    if engine.is_local:
        compile_for(BACKFILL, [program])  # once here, not in every worker
    key_types = tuple(kind for _, kind in view.scan.keys)
    first, last = cutoffs(np.array([spine.first, spine.last]), view.cadence, known_at).tolist()
    earliest = None if program.longest is None else first - program.longest
    scan = scan_text(view, program, source.relation, earliest, last if known_at is None else min(last, known_at))
    input_types = tuple(item.type for item in program.inputs)
    fields = stream_fields(key_types, input_types, scan.event_is_visible)
    split = _split(engine, program, scan, first, last)
    spread = engine.spread(scan.keys, None if source.about is None else source.about + len(spine), split)
    keys = tuple(zip(lookup.spine_columns, (kind for _, kind in view.key)))
    since = None if earliest is None else (view.scan.source.event_time, earliest)
    events = []
    for rows, (sql, _) in zip(source.parts, scan.parts):
        frame, held = engine.chosen(rows, scan.reads, since)
        events.append(engine.run(frame, Lift(scan.events(sql), held, fields, spread), PLACED))
    asked = engine.run(spine.chunks, Ask(spine.numbering, spine.time, keys, view.cadence, known_at, fields, spread), PLACED)
    derived = tuple((name, typed) for name in needed if (typed := features[name].derived) is not None)
    layout = Layout(key_types, input_types, scan.event_is_visible)
    task = SweepPartition(number, spine.numbering, program, layout, fields, lookup.features, derived, engine.folder("swept"))
    together = engine.together([*events, asked], spread)
    try:
        fragments = engine.stage(engine.run(together, task, FRAGMENTS), FRAGMENTS)
    except Overflown as error:
        raise _overflow(engine, error, lookup, spine) from None
    finally:
        engine.done(spread)
    counted = engine.collected(fragments.where("block < 0").select("events", "rejected"))
    event_count, rejected = sum(one["events"] for one in counted), sum(one["rejected"] for one in counted)
    found = (examples_of(engine, view.scan.source, rows, sql) for rows, (_, sql) in zip(source.parts, scan.parts)) if rejected else ()
    examples = tuple(example for some in found for example in some)[:3]
    if rejected > view.scan.source.max_rejected:
        raise RejectedRowsError(view.scan.source.name, rejected, view.scan.source.max_rejected, examples)
    receipt = ViewReceipt(view.name, event_count, rejected, examples, time.perf_counter() - began)
    return fragments.where("block >= 0"), receipt


def _split(engine: Spark, program: SweepProgram, scan: ScanText, first: int, last: int) -> Split | None:
    """Cut keys in time, so that one is more than one task's work: as the profile says, and a view without a key for every core.

    Nothing is cut into parts shorter than the longest window: each part reads that much of what is before it once more.
    first, last: of the cutoffs.
    """
    wanted = engine.split or (1 if scan.keys else engine.cores)
    if program.longest is None or (parts := min(wanted, (last - first) // max(program.longest, 1))) < 2:
        return None
    borders = tuple(first + (last - first) * part // parts for part in range(1, parts))
    return Split(borders, program.longest, "t" if scan.event_is_visible else "e")


def examples_of(engine: Spark, source: EventSource, rows: Rows, sql: str) -> list[str]:
    """Three rejected rows, as they stand in the data.  sql: a scan's text for them."""
    frame, held = engine.chosen(rows, [name for name, _ in source.columns])
    task = Lift(f"SELECT * FROM {sql} AS told (example)", held, {"example": pa.string()})
    return [one["example"] for one in engine.collected(engine.run(frame, task, "example string").limit(3))]


def _overflow(engine: Spark, error: Overflown, lookup: Lookup | None, spine: StagedSpine) -> OverflowDataError:
    row = spine.row(engine, error.facts["row"])
    key = {part: row[part][0].as_py() for part in (lookup.spine_columns if lookup else ())}
    return OverflowDataError(error.facts["overflow"], key, format_instant(int(instants_of(row, spine.time, "the spine")[0])))


@dataclass(frozen=True)
class Filling:
    """A spine whose lookups are swept and staged: what is left is to put rows together, once or more often."""

    engine: Spark
    compiled: CompiledSet
    views: Mapping[str, CompiledView]
    spine: StagedSpine
    staged: "tuple[DataFrame, ...]"
    receipts: tuple[ViewReceipt, ...]

    def _assemble(self, shown: tuple[str, ...]) -> Assemble:
        request = tuple(name for name, _ in self.compiled.request)
        carried = tuple(dict.fromkeys((*shown, *(request if self.compiled.derived else ()))))
        types = {
            name: self.views[lookup.view].by_name[feature].type for lookup in self.compiled.lookups for feature, name in lookup.features
        }
        derived = tuple(in_order(self.compiled))
        used = self.compiled.request if derived else ()
        return Assemble(self.spine.numbering, len(self.staged), carried, shown, self.compiled.names, types, used, derived)

    def _frame(self, task: "Assemble | CountBlock | WriteBlock", schema: Any) -> "DataFrame":
        block = task if isinstance(task, Assemble) else task.assemble
        parts = list(self.staged[: block.lookups])
        if block.carried:
            parts.append(self.engine.run(self.spine.chunks, Carry(self.spine.numbering, block.carried), FRAGMENTS))
        whole = parts[0]
        for part in parts[1:]:
            whole = whole.unionByName(part)
        return self.engine.run(whole.repartition(len(self.spine.numbering.slots), "slot"), task, schema)

    def blocks(self) -> Iterator[pa.Table]:
        """The filled spine, block by block, in its order; one block is in memory."""
        table = self.spine.table
        names = () if table is not None else tuple(self.spine.schema.names)
        frame, first = self._frame(self._assemble(names), BLOBS), 0
        try:
            for one in self.engine.streamed(frame):
                assert one["block"] * self.spine.numbering.block_rows == first, "blocks come in the spine's order"
                block = from_bytes(pa.scalar(one["rows"]))
                if table is not None:
                    mine = table.slice(first, block.num_rows)
                    block = pa.table([*mine.columns, *block.columns], schema=self.schema)
                yield block
                first += block.num_rows
        except Overflown as error:
            raise _overflow(self.engine, error, None, self.spine) from None
        assert first == len(self.spine), f"{first} of {len(self.spine)} rows came back"

    def fingerprint(self) -> tuple[Fingerprint, str]:
        """What the rows are, and what the spine is: counted by executors, a block each, and added up here."""
        spine = tuple(self.spine.schema.names)
        columns, left_out = formed(self.engine.duckdb_columns(self.schema), len(self.compiled.names))
        task = CountBlock(self._assemble(spine), spine, numbers_sql(columns, ROWS))
        try:
            found = sorted(self.engine.collected(self._frame(task, NUMBERS)))
        except Overflown as error:
            raise _overflow(self.engine, error, None, self.spine) from None
        numbers = summed(read_numbers(one[2:]) for one in found)
        assert numbers.count == len(self.spine), f"{numbers.count} of {len(self.spine)} rows were met"
        parts = [one["spine"] for one in found] or [part_fingerprint(_bare(self.spine.schema).empty_table())]
        return fingerprint_of(columns, left_out, numbers), fingerprint_of_parts(parts)

    def put_spine(self, objects: ObjectStore) -> str:
        """Keep the spine's rows; those that executors read pass through the driver, a block at a time."""
        if self.spine.table is not None:
            return objects.put_bytes(as_parquet(self.spine.table))
        names = tuple(self.spine.schema.names)
        frame = self._frame(Assemble(self.spine.numbering, 0, names, names, (), {}, (), ()), BLOBS)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "spine.parquet")
            with pq.ParquetWriter(file, _bare(self.spine.schema), compression="zstd") as writer:
                for one in self.engine.streamed(frame):
                    writer.write_table(from_bytes(pa.scalar(one["rows"])))
            return objects.put_file(file)[0]

    @cached_property
    def schema(self) -> pa.Schema:
        features = [pa.field(name, arrow_type(kind)) for name, kind in self.compiled.columns]
        return pa.schema([*self.spine.schema, *features])

    def write_parts(self, path: str) -> None:
        """Write Parquet part files by the executors; each is a block, so their names' order is the spine's.

        In a folder workers write them; at a URI Spark does.
        """
        plain = pa.schema([_plain(one) for one in self.schema])
        try:
            self._to_uri(path, plain) if is_uri(path) else self._to_folder(Path(path), plain)
        except Overflown as error:
            raise _overflow(self.engine, error, None, self.spine) from None

    def _to_folder(self, folder: Path, plain: pa.Schema) -> None:
        """What attempts have written that were given up lies elsewhere, and is taken away."""
        attempts = folder.with_name(f"{folder.name}.attempts")
        for place in (folder, attempts):
            place.mkdir()
        try:
            task = WriteBlock(self._assemble(tuple(self.spine.schema.names)), str(attempts), plain)
            for one in self.engine.collected(self._frame(task, WRITTEN)):
                os.replace(attempts / one["name"], folder / f"part-{one['block']:06d}.parquet")
            if not len(self.spine):
                pq.write_table(plain.empty_table(), folder / "part-000000.parquet")
        except FileNotFoundError as error:
            raise DataError(
                f"{error.filename}: an executor has written it, and it is not seen here.\n"
                "  Write to a folder that all machines mount, or to a URI of a file system that all of them reach."
            ) from None
        finally:
            shutil.rmtree(attempts, ignore_errors=True)

    def _to_uri(self, uri: str, plain: pa.Schema) -> None:
        from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

        spark_schema = from_arrow_schema(plain, prefer_timestamp_ntz=True)
        task = replace(self._assemble(tuple(self.spine.schema.names)), target=to_arrow_schema(spark_schema, timezone="UTC"))
        with self.engine.told(f"writing {uri}"):
            self._frame(task, spark_schema).write.parquet(uri)


def _bare(schema: pa.Schema) -> pa.Schema:
    """Names and types alone, as blocks have them."""
    return pa.schema([(one.name, one.type) for one in schema])


def _plain(one: pa.Field) -> pa.Field:
    """A field as Spark can write it."""
    kind = one.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_timestamp(kind):
        kind = pa.timestamp("us", kind.tz)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        kind = pa.string()
    return pa.field(one.name, kind)


@dataclass(frozen=True)
class DistributedTrainingSet:
    """A training set whose rows are where the executors left them, until they are written or asked for.

    n spine rows in, n rows out, same order.  It is good while its registry is open.
    """

    filling: Filling
    facts: Mapping[str, Any]
    receipts: tuple[ViewReceipt, ...] = field(default=())
    keeper: Keeper | None = field(default=None, repr=False, compare=False)  # who records it; nobody for a draft

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """What made it.  With its id and content id, but for a draft; executors work them out when this is first asked for."""
        if self.keeper is None:
            return self.facts
        found, spine = self.filling.fingerprint()
        told = self.facts["spine"]
        return named({**self.facts, "spine": {**told, "sha256": told["sha256"] or spine}}, found)

    def __len__(self) -> int:
        return len(self.filling.spine)

    def to_arrow(self) -> pa.Table:
        """All rows, in the driver's memory."""
        blocks = list(self.filling.blocks())
        return pa.concat_tables(blocks) if blocks else self.filling.schema.empty_table()

    def to_pandas(self) -> "pandas.DataFrame":
        return self.to_arrow().to_pandas()

    def to_polars(self) -> "polars.DataFrame":
        import polars

        return polars.from_arrow(self.to_arrow())  # type: ignore[return-value]

    def write(self, path: str | Path) -> Path | str:
        """A folder: Parquet part files, written by the executors, in the spine's order.  A file: .parquet or .csv, through the driver.

        The manifest is beside it as `<path>.manifest.json`.  All is written whole or not at all.  The log holds what made it, so that
        `featreg reproduce ID` can make it again; a draft is written and no more.
        """
        whole, began = self.manifest, time.perf_counter()
        written = self.write_again(whole, path)
        if self.keeper is not None:
            self.keeper.hold(whole, written, self.filling.put_spine, time.perf_counter() - began)
        return written

    def write_again(self, manifest: Mapping[str, Any], path: str | Path) -> Path | str:
        """Write it, and record nothing."""
        if is_uri(str(path)) or Path(path).suffix not in (".parquet", ".csv"):
            return write_parts(self.filling.write_parts, manifest, str(path), self.filling.engine.storage if is_uri(str(path)) else None)
        return write_blocks(self.filling.schema, self.filling.blocks(), manifest, Path(path))

    def _repr_html_(self) -> str:
        return next(self.filling.blocks(), self.filling.schema.empty_table()).slice(0, 20).to_pandas().to_html()
