"""Hold the records of one whole segment of a push log as Parquet: read in order as before, or by an engine, column by column, from disk.

A segment that is sealed is as many files as its rows have shapes, `<segment>.<number>.pushed.parquet`.  Beside its own columns each
row has those of its record (MARKS).  The files are written, read back, and only then is the segment removed: while it is there, it
is what counts, so a kill at any point leaves one whole form of each record.
"""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby, pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from featreg.durable import sync_folder
from featreg.errors import StoreError
from featreg.plan.relation import END, SEGMENT
from featreg.registry.pushed import Position, Pushed

if TYPE_CHECKING:
    import pyarrow.parquet as pq

SUFFIX = ".pushed.parquet"
AT, FIRST, LAST, ID, DIGEST, PART, OF = (f"featreg {name}" for name in ("at", "first", "last", "id", "digest", "part", "of"))
MARKS = pa.schema(
    [(SEGMENT, pa.string()), (END, pa.int64()), (AT, pa.int64()), (FIRST, pa.int64()), (LAST, pa.int64()), (ID, pa.string()),
     (DIGEST, pa.string()), (PART, pa.int32()), (OF, pa.int32())]
)  # fmt: skip
_GROUP_ROWS = 1 << 16  # of a row group: what is in memory of a file


def sealed_segments(folder: Path) -> dict[str, list[Path]]:
    """Segment -> its sealed files in order, by segment."""
    try:
        files = sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX))
    except FileNotFoundError:
        return {}
    return {name: list(parts) for name, parts in groupby(files, segment_of)}


def segment_of(file: Path) -> str:
    """What the segment of a sealed file was called."""
    return file.name.removesuffix(SUFFIX).rpartition(".")[0]


def seal(path: Path, records: Callable[[], Iterable[Pushed]]) -> None:
    """Put a segment's records into Parquet files and remove it.  records: them, from the start, each time it is called.

    Memory: a row group.  Raises: StoreError when the disk is full, or what was written is not what is read back; the segment stays.
    """
    made: list[tuple[Path, Path]] = []
    try:
        for number, (_, same) in enumerate(groupby(filter(_has_rows, records()), lambda record: record.rows.schema)):
            target = path.with_name(f"{path.name}.{number:06d}{SUFFIX}")
            made.append((path.with_name(f"{target.name}.{secrets.token_hex(4)}.part"), target))
            _write(made[-1][0], same)
        drafts = (part for draft, _ in made for part in read_sealed(draft))
        if any(one != other or one.position != other.position for one, other in zip_longest(filter(_has_rows, records()), drafts)):
            raise StoreError(f"{path} was sealed, and what is read back is not what it holds; it stays as it is.")
        for draft, target in made:
            draft.replace(target)
        sync_folder(path.parent)
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileNotFoundError:  # someone else has sealed it
        raise
    except OSError as error:
        raise StoreError(f"{path} could not be sealed: {error.strerror or error}; it stays as it is.") from error
    finally:
        for draft, _ in made:
            draft.unlink(missing_ok=True)


def read_sealed(file: Path, after: int = -1, to: int | None = None, rows: bool = True) -> Iterator[Pushed]:
    """The records of a sealed file behind the one that ends at `after`, up to the one that ends at `to`.  rows: whether with their rows."""
    whole: list[pa.Table] = []
    end = -1
    for table in _row_groups(file, after, to, rows):
        ends = table[END].to_numpy()
        for low, high in pairwise([0, *(np.flatnonzero(np.diff(ends)) + 1).tolist(), len(ends)]):
            if whole and ends[low] != end:
                yield _record(whole)
                whole = []
            whole.append(table.slice(low, high - low))
            end = ends[low]
    if whole:
        yield _record(whole)


def remove_drafts(folder: Path, before: float) -> None:
    """Remove what kills left of files that were being sealed, untouched since `before`, in seconds."""
    for draft in folder.glob(f"*{SUFFIX}.*.part"):
        with suppress(FileNotFoundError):
            if draft.stat().st_mtime < before:
                draft.unlink()


def last_end(file: Path) -> int:
    """Where the last record of a sealed file ends."""
    with _opened(file) as parquet:
        column = parquet.read_row_group(parquet.num_row_groups - 1, columns=[END])[END]
        return int(column[len(column) - 1].as_py())


def row_count(files: Sequence[Path]) -> int:
    """How many rows are in sealed files, by their footers."""
    count = 0
    for file in files:
        with _opened(file) as parquet:
            count += parquet.metadata.num_rows
    return count


def marked(record: Pushed) -> pa.Table:
    """The rows of a record, each with what is told of it."""
    segment, end, number, of = record.position.segment, record.position.end, *record.part
    values: list[Any] = [segment, end, record.at, record.first, record.last, record.id, record.digest, number, of]
    table = record.rows
    for field, value in zip(MARKS, values):
        table = table.append_column(field, pa.repeat(pa.scalar(value, field.type), table.num_rows))
    return table


def _has_rows(record: Pushed) -> bool:
    """A record without any says nothing."""
    return record.rows.num_rows > 0


def _write(draft: Path, records: Iterable[Pushed]) -> None:
    import pyarrow.parquet as pq

    writer: pq.ParquetWriter | None = None
    waiting: list[pa.Table] = []
    try:
        for table in map(marked, records):
            if writer is None:
                writer = pq.ParquetWriter(draft, table.schema, compression="zstd", write_page_checksum=True)
            waiting.append(table)
            if sum(one.num_rows for one in waiting) >= _GROUP_ROWS:
                writer.write_table(pa.concat_tables(waiting), row_group_size=_GROUP_ROWS)
                waiting = []
        if waiting and writer is not None:
            writer.write_table(pa.concat_tables(waiting), row_group_size=_GROUP_ROWS)
    finally:
        if writer is not None:
            writer.close()
    with draft.open("rb") as written:
        os.fsync(written.fileno())


def _row_groups(file: Path, after: int, to: int | None, rows: bool) -> Iterator[pa.Table]:
    """Tables of at most a row group, of the records that are asked for."""
    with _opened(file) as parquet:
        place = parquet.schema_arrow.get_field_index(END)
        for number in range(parquet.num_row_groups):
            known = parquet.metadata.row_group(number).column(place).statistics
            if known is not None and known.has_min_max and (known.max <= after or (to is not None and known.min > to)):
                continue
            try:
                table = parquet.read_row_group(number, columns=None if rows else MARKS.names)
            except (pa.ArrowException, OSError) as error:
                raise _damaged(file, error) from error
            ends = table[END].to_numpy()
            wanted = np.flatnonzero((ends > after) & (ends <= (ends[-1] if to is None else to)))
            if len(wanted):
                yield table.slice(wanted[0], wanted[-1] - wanted[0] + 1)


def _record(parts: Sequence[pa.Table]) -> Pushed:
    table = pa.concat_tables(parts)
    first = table.slice(0, 1).select(MARKS.names).to_pylist()[0]
    own = [name for name in table.column_names if name not in MARKS.names]
    return Pushed(
        table.select(own).combine_chunks(), first[AT], first[FIRST], first[LAST], first[ID], first[DIGEST],
        (first[PART], first[OF]), Position(first[SEGMENT], first[END]),
    )  # fmt: skip


def _opened(file: Path) -> "pq.ParquetFile":
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, page_checksum_verification=True)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{file} is damaged: pushed rows that were accepted cannot be read ({error}).\n"
        f"  Put the file back from a backup; what follows it in the log is not read past it in silence."
    )
