"""Tell in which files the rows of a Spark frame are, and read those of some files alone.

Spark knows that of each row of a frame that reads files and does no more (a URI, a table of a catalog that is files,
Delta), and of no row of a view or of a table that is elsewhere.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


@dataclass(frozen=True)
class FileRows:
    """A file and what it was when it was listed.  modified_at: UTC microseconds · rows: those of the frame that are in it."""

    bytes: int
    modified_at: int
    rows: int

    @property
    def record(self) -> list[Any]:
        """As the store keeps it; a file is another one when its size, its time or its rows are.

        Deletion vectors change the rows of a file and nothing else.
        """
        return [self.bytes, self.modified_at * 1000, f"{self.bytes} bytes of {self.modified_at}, {self.rows} rows", 0]


def files_in(frame: "DataFrame") -> dict[str, FileRows] | None:
    """By path, sorted; files without a row are left out.  None for a frame whose rows do not tell.  Reads footers, and no column."""
    from pyspark.errors import AnalysisException
    from pyspark.sql import functions as F

    with _quiet():
        try:
            told = [_told(frame, name) for name in ("file_path", "file_size")]
            time = F.unix_micros(_told(frame, "file_modification_time"))
            found = frame.groupBy(told[0].alias("path"), told[1].alias("bytes"), time.alias("at")).count()
            assert found.columns  # Spark Connect asks the server only now
        except AnalysisException:
            return None
    listed = {one["path"]: FileRows(one["bytes"], one["at"], one["count"]) for one in found.collect()}
    return dict(sorted(listed.items()))


def rows_in(frame: "DataFrame", files: Collection[str]) -> "DataFrame":
    """The rows that are in these files; Spark opens no other."""
    return frame.where(_told(frame, "file_path").isin(list(files)))


def _told(frame: "DataFrame", name: str) -> "Column":
    """What Spark knows of a row's file, whatever columns are called."""
    return frame.metadataColumn("_metadata").getField(name)


@contextmanager
def _quiet() -> Iterator[None]:
    """PySpark writes each question that fails as a page of JSON."""
    from pyspark.logger import PySparkLogger

    logger = PySparkLogger.getLogger("DataFrameQueryContextLogger")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
