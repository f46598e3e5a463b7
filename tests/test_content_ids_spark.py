"""Spark gives a row the text that DuckDB and the loop give it, in a session of another zone and without ANSI."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featreg
from featreg.snapshots.families import shape_text, spark_columns
from featreg.snapshots.numbers import content_id_of, read_numbers
from featreg.snapshots.row_sql import spark_numbers
from tests.content_tables import Drawn, tables
from tests.test_spark import SPARK


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("spark")
    (root / "conf").mkdir()
    (root / "conf" / "local.toml").write_text(SPARK)
    with featreg.open(root) as registry:
        yield registry.spark.session


def test_spark_gives_the_numbers_of_the_loop(session: Any, try_worlds: Any, tmp_path: Path) -> None:
    """Every type that Spark has: unsigned 64-bit integers it reads as decimals, so tables with those are left out."""
    seen = [0]

    def check(drawn: Drawn) -> None:
        if any(_has_uint64(field.type) for field in drawn.table.schema):
            return
        seen[0] += 1
        path = tmp_path / f"{seen[0]}.parquet"
        pq.write_table(drawn.table, path, version="2.6")
        session.read.options(datetimeRebaseMode="CORRECTED").parquet(f"file://{path}").createOrReplaceTempView("drawn")
        frame = session.table("drawn")
        columns = spark_columns(frame.dtypes, "the table")
        numbers = read_numbers(session.sql(spark_numbers(columns, "drawn")).collect()[0])
        assert numbers.listed() == drawn.numbers
        assert content_id_of(shape_text(columns), numbers) == drawn.content_id

    try_worlds(check, tables(most_rows=12, most_columns=9), 0.05)  # of each table a job is made: some large ones, not many small ones
    assert seen[0] > 0


def _has_uint64(kind: pa.DataType) -> bool:
    if pa.types.is_map(kind):
        return _has_uint64(kind.key_type) or _has_uint64(kind.item_type)
    return _has_uint64(kind.value_type) if pa.types.is_list(kind) else kind == pa.uint64()
