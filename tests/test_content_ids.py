"""A content id says which rows there are, and not how or where they lie: SQL, and the definition read as a loop, agree."""

import random

import pyarrow as pa
import pytest

from featreg.engines.duckdb import DuckDB
from featreg.errors import DataError
from featreg.snapshots.families import duckdb_columns, shape_text
from featreg.snapshots.numbers import Numbers, content_id_of, read_numbers, summed
from featreg.snapshots.row_sql import duckdb_numbers
from tests import content_reference as reference
from tests.content_tables import Drawn, tables


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    engine = DuckDB({"threads": 2}, tmp_path_factory.mktemp("spill"))
    yield engine
    engine.close()


def read(engine: DuckDB, table: pa.Table) -> tuple[str, Numbers]:
    """The shape and the nine numbers, by DuckDB."""
    relation = engine.register("drawn", table)
    columns = duckdb_columns(relation.columns, "the table")
    return shape_text(columns), read_numbers(engine.rows(duckdb_numbers(columns, relation.text))[0])


def test_sql_gives_the_numbers_of_the_loop(engine, try_worlds):
    """Every type, NULL at every depth, any name: nine equal integers and one id."""

    def check(drawn: Drawn) -> None:
        shape, numbers = read(engine, drawn.table)
        assert numbers.listed() == drawn.numbers
        assert content_id_of(shape, numbers) == drawn.content_id

    try_worlds(check, tables())


def test_partitions_add_up_and_order_does_not_matter(engine, try_worlds):
    """Rows dealt out in any way, in any order, columns too: the same sum."""

    def check(drawn: Drawn) -> None:
        table, dealer = drawn.table, random.Random(drawn.table.num_rows)
        rows = list(range(table.num_rows))
        dealer.shuffle(rows)
        cut = dealer.randint(0, len(rows))
        turned = table.select(list(reversed(table.column_names)))
        parts = [read(engine, turned.take(pa.array(some, pa.int64())))[1] for some in (rows[:cut], rows[cut:])]
        assert summed(parts).listed() == drawn.numbers

    try_worlds(check, tables(), 0.3)


def test_the_reference_is_what_is_written():
    """By hand: the texts of the cells, in the order of the columns' names."""
    row = b"".join(
        reference.cell(value, kind)
        for value, kind in [
            (None, "double"), (-5, "integer"), (True, "bool"), (-0.0, "double"), (1.5, "double"), ("ä", "string"), (15706, "date"),
            (1, "timestamp"), (-125, ("decimal", 2)), ([1, None], ("list", "integer")),
            ([("b", 1), ("a", None)], ("map", "string", "integer")),
        ]
    )  # fmt: skip
    assert row.decode() == (
        "n;i-5;b1;d0000000000000000;d3ff8000000000000;s2:ä;a15706;t1;c-125:2;l2:i1;n;;m2:s1:a;n;s1:b;i1;;"
    )


def test_one_row_by_hand(engine):
    """sha256('i1;s1:a;') in eight pieces, most significant first, behind a count of one."""
    import hashlib

    digest = hashlib.sha256(b"i1;s1:a;").hexdigest()
    shape, numbers = read(engine, pa.table({"text": ["a"], "n": pa.array([1], pa.int32())}))
    assert shape == "n:integer,text:string"
    assert numbers.listed() == [1, *(int(digest[i : i + 8], 16) for i in range(0, 64, 8))]


def test_infinite_instants_are_what_parquet_keeps(engine):
    """Both ends, no NULL: they are the largest numbers, as they lie in the file."""
    relation = engine.describe("(SELECT unnest(['infinity'::TIMESTAMP, '-infinity', NULL]) AS at)", "the table")
    columns = duckdb_columns(relation.columns, "the table")
    found = read_numbers(engine.rows(duckdb_numbers(columns, relation.text))[0])
    most = (1 << 63) - 1
    assert found.listed() == reference.numbers([("at", "timestamp", [most, -most, None])], 3)


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array([b"x"], pa.binary()), "column 'odd' is BLOB"),
        (pa.array([{"x": 1}]), "column 'odd' is STRUCT"),
        (pa.array([[{"x": 1}]]), r"column 'odd' is STRUCT\(x BIGINT\)\[\] \(for its STRUCT"),
        (pa.array([0], pa.time64("us")), "column 'odd' is TIME"),
    ],
)
def test_a_type_without_a_form_is_an_error_that_names_the_column(engine, column, told):
    with pytest.raises(DataError, match=told):
        read(engine, pa.table({"fine": [1], "odd": column}))


def test_digits_below_the_microsecond_are_an_error(engine):
    with pytest.raises(DataError, match="digits below the microsecond"):
        read(engine, pa.table({"at": pa.array([1001], pa.timestamp("ns"))}))
    whole = read(engine, pa.table({"at": pa.array([1000, None], pa.timestamp("ns"))}))
    assert whole == read(engine, pa.table({"at": pa.array([1, None], pa.timestamp("us"))}))
