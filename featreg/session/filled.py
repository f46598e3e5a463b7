"""Put a filled spine together: write it by executors, bring it, and count what it is on the way."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from featreg.compile import CompiledSet, CompiledView, Lookup
from featreg.engines.kept import from_bytes
from featreg.engines.spark import Overflown, Spark, is_uri
from featreg.engines.worker import ROWS
from featreg.errors import DataError, OverflowDataError
from featreg.instants import format_instant
from featreg.session.keeping import Fingerprint, Keeper, as_parquet, fingerprint_of, formed, named, numbers_sql
from featreg.session.manifest import fingerprint_of_parts, part_fingerprint
from featreg.session.order import in_order
from featreg.session.output import write_blocks, write_parts
from featreg.session.staged_spine import StagedSpine
from featreg.session.tables import instants_of
from featreg.session.tasks import BLOBS, COUNTED, FRAGMENTS, WRITTEN, Assemble, Carry, CountBlock, Counting, WriteBlock
from featreg.session.training_set import ViewReceipt
from featreg.snapshots.families import Column
from featreg.snapshots.numbers import LIMBS, read_numbers, summed
from featreg.snapshots.objects import ObjectStore
from featreg.sweep.words import arrow_type

if TYPE_CHECKING:
    import pandas
    import polars
    from pyspark.sql import DataFrame, Row


def overflow_of(engine: Spark, error: Overflown, lookup: Lookup | None, spine: StagedSpine) -> OverflowDataError:
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

    def blocks(self, counted: "list[Row] | None" = None) -> Iterator[pa.Table]:
        """The filled spine, block by block, in its order; one block is in memory.  counted: gets what each block's rows are."""
        table = self.spine.table
        names = () if table is not None else tuple(self.spine.schema.names)
        if counted is None:
            frame = self._frame(self._assemble(names), BLOBS)
        else:
            frame = self._frame(self._counting_block((*names, *self.compiled.names)), COUNTED)
        first = 0
        try:
            for one in self.engine.streamed(frame):
                assert one["block"] * self.spine.numbering.block_rows == first, "blocks come in the spine's order"
                block = from_bytes(pa.scalar(one["rows"]))
                if table is not None:
                    mine = table.slice(first, block.num_rows)
                    block = pa.table([*mine.columns, *block.columns], schema=self.schema)
                if counted is not None:
                    counted.append(one)
                yield block
                first += block.num_rows
        except Overflown as error:
            raise overflow_of(self.engine, error, None, self.spine) from None
        assert first == len(self.spine), f"{first} of {len(self.spine)} rows came back"

    def fingerprint(self) -> tuple[Fingerprint, str]:
        """What the rows are, and what the spine is: counted by executors, a block each, and added up here."""
        try:
            found = self.engine.collected(self._frame(self._counting_block(None), COUNTED))
        except Overflown as error:
            raise overflow_of(self.engine, error, None, self.spine) from None
        return self.summed(found)

    def summed(self, counted: "Sequence[Row]") -> tuple[Fingerprint, str]:
        """What all rows and the spine are, from what was counted of each block."""
        found = sorted((one["block"], one["spine"], *(one[f"n{n}"] for n in range(1 + LIMBS))) for one in counted)
        numbers = summed(read_numbers(one[2:]) for one in found)
        assert numbers.count == len(self.spine), f"{numbers.count} of {len(self.spine)} rows were met"
        parts = [one[1] for one in found] or [part_fingerprint(_bare(self.spine.schema).empty_table())]
        return fingerprint_of(*self._formed, numbers), fingerprint_of_parts(parts)

    @cached_property
    def _formed(self) -> "tuple[tuple[Column, ...], tuple[str, ...]]":
        """The columns that are in the content id, and those that are left out."""
        return formed(self.engine.duckdb_columns(self.schema), len(self.compiled.names))

    @property
    def _counting(self) -> Counting:
        return Counting(tuple(self.spine.schema.names), numbers_sql(self._formed[0], ROWS))

    def _counting_block(self, sent: tuple[str, ...] | None) -> CountBlock:
        return CountBlock(self._assemble(tuple(self.spine.schema.names)), self._counting, sent)

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

    def write_parts(self, path: str, counts: bool) -> "list[Row]":
        """Write Parquet part files by the executors; each is a block, so their names' order is the spine's.

        In a folder workers write them; at a URI Spark does.  Returns what each block's rows are, where that is wanted.
        """
        plain = pa.schema([_plain(one) for one in self.schema])
        try:
            return self._to_uri(path, plain, counts) if is_uri(path) else self._to_folder(Path(path), plain, counts)
        except Overflown as error:
            raise overflow_of(self.engine, error, None, self.spine) from None

    def _to_folder(self, folder: Path, plain: pa.Schema, counts: bool) -> "list[Row]":
        """What attempts have written that were given up lies elsewhere, and is taken away."""
        attempts = folder.with_name(f"{folder.name}.attempts")
        for place in (folder, attempts):
            place.mkdir()
        try:
            counting = self._counting if counts else None
            task = WriteBlock(self._assemble(tuple(self.spine.schema.names)), str(attempts), plain, counting)
            written = self.engine.collected(self._frame(task, WRITTEN))
            for one in written:
                os.replace(attempts / one["name"], folder / f"part-{one['block']:06d}.parquet")
            if not len(self.spine):
                pq.write_table(plain.empty_table(), folder / "part-000000.parquet")
            return written
        except FileNotFoundError as error:
            raise DataError(
                f"{error.filename}: an executor has written it, and it is not seen here.\n"
                "  Write to a folder that all machines mount, or to a URI of a file system that all of them reach."
            ) from None
        finally:
            shutil.rmtree(attempts, ignore_errors=True)

    def _to_uri(self, uri: str, plain: pa.Schema, counts: bool) -> "list[Row]":
        """Spark's own writer tells nothing of rows, so those that are to be counted are put together twice.

        To let them wait on the executors' disks in between was measured to cost as much, and takes memory of the JVM.
        """
        from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

        found = self.engine.collected(self._frame(self._counting_block(None), COUNTED)) if counts else []
        spark_schema = from_arrow_schema(plain, prefer_timestamp_ntz=True)
        task = replace(self._assemble(tuple(self.spine.schema.names)), target=to_arrow_schema(spark_schema, timezone="UTC"))
        with self.engine.told(f"writing {uri}"):
            self._frame(task, spark_schema).write.parquet(uri)
        return found


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
        """What made it.  With its id and content id, but for a draft; executors work them out when this is first asked for, or while
        they write."""
        return self.facts if self.keeper is None else self._named(self.filling.fingerprint())

    def _named(self, counted: tuple[Fingerprint, str]) -> Mapping[str, Any]:
        found, spine = counted
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
        began = time.perf_counter()
        written = self.write_again(path)
        if self.keeper is not None:
            self.keeper.hold(self.manifest, written, self.filling.put_spine, time.perf_counter() - began)
        return written

    def write_again(self, path: str | Path) -> Path | str:
        """Write it, and record nothing.  What its rows are is counted meanwhile where nobody has asked for the manifest before."""
        counts = self.keeper is not None and "manifest" not in vars(self)
        counted: list[Row] = []

        def manifest() -> Mapping[str, Any]:
            if counts:
                vars(self)["manifest"] = self._named(self.filling.summed(counted))
            return self.manifest

        if is_uri(str(path)) or Path(path).suffix not in (".parquet", ".csv"):
            storage = self.filling.engine.storage if is_uri(str(path)) else None
            return write_parts(lambda place: counted.extend(self.filling.write_parts(place, counts)), manifest, str(path), storage)
        return write_blocks(self.filling.schema, self.filling.blocks(counted if counts else None), manifest, Path(path))

    def _repr_html_(self) -> str:
        return next(self.filling.blocks(), self.filling.schema.empty_table()).slice(0, 20).to_pandas().to_html()
