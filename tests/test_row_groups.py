"""What several threads write is what pyarrow writes by itself, to the byte."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featreg.session import row_groups


@pytest.fixture(autouse=True)
def small_groups_on_three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = pa.cpu_count()
    monkeypatch.setattr(row_groups, "GROUP_ROWS", 100)
    pa.set_cpu_count(3)
    yield
    pa.set_cpu_count(before)


def table_of(rows: int) -> pa.Table:
    """Every type that a spine or a feature has, with NULLs, and more than 15 columns, whose number takes a byte more in a footer."""
    numbers = [None if i % 7 == 3 else i * 37 % 101 - 50 for i in range(rows)]

    def column(kind: pa.DataType, made) -> pa.Array:
        return pa.array([None if n is None else made(n) for n in numbers], kind)

    columns = {
        "whole": column(pa.int64(), lambda n: n << 40),
        "double": column(pa.float64(), lambda n: float("nan") if n == 0 else n / 3),
        "small": column(pa.int32(), int),
        "flag": column(pa.bool_(), lambda n: n > 0),
        "text": column(pa.string(), lambda n: "ü" * (n + 50)),
        "bytes": column(pa.binary(), lambda n: bytes(n + 50)),
        "money": column(pa.decimal128(38, 2), lambda n: Decimal(n) / 4),
        "day": column(pa.date32(), lambda n: n * 365),
        "at": column(pa.timestamp("us"), lambda n: datetime(2024, 1, 1 + n % 28)),
        "zoned": column(pa.timestamp("ns", "Europe/Rome"), lambda n: n),
        "newest": column(pa.list_(pa.float64()), lambda n: [n / 2] * (n % 4)),
        "counts": column(pa.map_(pa.string(), pa.int64()), lambda n: [(str(k), n) for k in range(n % 3)]),
        "word": column(pa.string(), str).dictionary_encode(),
        "nothing": pa.nulls(rows),
        **{f"more_{i}": column(pa.int64(), lambda n: n % 5) for i in range(6)},
    }
    return pa.table(columns, metadata={"made by": "a test"})


@pytest.mark.parametrize("slack", [row_groups.SLACK, 0], ids=["room enough", "too little room"])
@pytest.mark.parametrize("rows", [0, 1, 100, 101, 200, 1_234])
def test_threads_write_the_bytes_that_one_writer_writes(rows: int, slack: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "SLACK", slack)
    table = table_of(rows)
    row_groups.write_parquet(table, tmp_path / "ours.parquet")
    pq.write_table(table, tmp_path / "theirs.parquet", row_group_size=100)
    assert (tmp_path / "ours.parquet").read_bytes() == (tmp_path / "theirs.parquet").read_bytes()


def test_no_dictionary_is_tried_for_a_column_that_outgrows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "GROUP_ROWS", 1 << 16)
    n = np.arange(140_000)
    columns = {"unlike": n / 7, "few": n % 1000, "sparse.unlike": pa.array(n, mask=n % 9 > 0), "text": pa.array(n).cast(pa.string())}
    table = pa.table(columns | {"lists": pa.array([[1.5]] * len(n))})
    row_groups.write_parquet(table, tmp_path / "ours.parquet")
    with_one = ["few", "text", "lists.list.element"]
    pq.write_table(table, tmp_path / "theirs.parquet", row_group_size=1 << 16, use_dictionary=with_one)
    assert (tmp_path / "ours.parquet").read_bytes() == (tmp_path / "theirs.parquet").read_bytes()
    assert pq.read_table(tmp_path / "ours.parquet").equals(table)


def test_another_reader_finds_the_rows_in_their_order(tmp_path: Path) -> None:
    table = pa.Table.from_pandas(pandas.DataFrame({"n": range(1_050), "text": [str(n) for n in range(1_050)]}))
    row_groups.write_parquet(table, tmp_path / "rows.parquet")
    read = duckdb.sql(f"SELECT n, text FROM '{tmp_path}/rows.parquet'").fetchall()
    assert read == [(n, str(n)) for n in range(1_050)]
    assert pq.read_table(tmp_path / "rows.parquet").schema.pandas_metadata == table.schema.pandas_metadata


def test_what_cannot_be_written_is_the_error_that_pyarrow_has_for_it(tmp_path: Path) -> None:
    rows = pa.table({"far": pa.array([1] * 300, pa.duration("us")), "half": pa.array([(1, 2, 3)] * 300, pa.month_day_nano_interval())})
    with pytest.raises(pa.ArrowNotImplementedError):
        row_groups.write_parquet(rows, tmp_path / "rows.parquet")
