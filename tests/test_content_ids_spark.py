"""Spark gives a row the text that DuckDB and the loop give it, in a session of another zone and without ANSI."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

import featreg
from featreg.engines.duckdb import DuckDB
from featreg.snapshots.families import duckdb_columns, shape_text, spark_columns
from featreg.snapshots.numbers import content_id_of, read_numbers
from featreg.snapshots.row_sql import duckdb_numbers, spark_nine, spark_numbers, spark_row_hash
from tests.content_tables import SPARK_HAS, Drawn, tables
from tests.test_spark import SPARK

TOGETHER = 20  # tables of one Spark job, side by side in one file

PLAIN = {"spark.sql.adaptive.enabled": "false", "spark.sql.maxPlanStringLength": "1000", "spark.sql.shuffle.partitions": "1"}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("spark")
    (root / "conf").mkdir()
    (root / "conf" / "local.toml").write_text(SPARK)
    with featreg.open(root) as registry:
        session = registry.spark.session
        for name, value in PLAIN.items():
            session.conf.set(name, value)
        yield session


@pytest.fixture(scope="module")
def drawn(request: pytest.FixtureRequest) -> list[Drawn]:
    """`--tables` tables of every type that Spark has, NULL at every depth, any name."""
    found: list[Drawn] = []

    @seed(request.config.getoption("--world-seed"))
    @settings(
        max_examples=request.config.getoption("--tables"), database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(tables(most_rows=9, most_columns=6, scalars=SPARK_HAS))
    def draw(table: Drawn) -> None:
        found.append(table)

    draw()
    return found


def test_both_engines_give_the_numbers_of_the_loop(session: Any, drawn: list[Drawn], tmp_path: Path, request: Any) -> None:
    """Nine equal integers and one shape of each table, by DuckDB, by Spark and by the loop.  `--tables 5000` for 5,000."""
    engine = DuckDB({"threads": 2}, tmp_path / "spill")
    for begin in range(0, len(drawn), TOGETHER):
        some = [numbered(table, place) for place, table in enumerate(drawn[begin : begin + TOGETHER])]
        for table, (shape, numbers) in zip(some, by_spark(session, some, tmp_path / f"{begin}.parquet")):
            relation = engine.register("drawn", table.table)
            columns = duckdb_columns(relation.columns, "the table")
            in_duckdb = read_numbers(engine.rows(duckdb_numbers(columns, relation.text))[0])
            assert numbers == in_duckdb.listed() == table.numbers, table
            assert content_id_of(shape, in_duckdb) == table.content_id and shape == shape_text(columns), table
    engine.close()
    assert len(drawn) == request.config.getoption("--tables")


def test_the_query_of_one_table_is_the_same(session: Any, drawn: list[Drawn], tmp_path: Path) -> None:
    """`spark_numbers` itself, under the names as drawn."""
    for number, one in enumerate(sorted(drawn, key=lambda one: -one.table.num_columns)[:2]):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(one.table, path, version="2.6")
        session.read.options(datetimeRebaseMode="CORRECTED").parquet(f"file://{path}").createOrReplaceTempView("one")
        columns = spark_columns(session.table("one").dtypes, "the table")
        assert read_numbers(session.sql(spark_numbers(columns, "one")).collect()[0]).listed() == one.numbers
        assert shape_text(columns) == shape_text(duckdb_columns(_types(one), "the table"))


def _types(one: Drawn) -> list[tuple[str, str]]:
    import duckdb

    with duckdb.connect() as connection:
        connection.register("drawn", one.table)
        return [(name, kind) for name, kind, *_ in connection.execute("DESCRIBE SELECT * FROM drawn").fetchall()]


def numbered(one: Drawn, place: int) -> Drawn:
    """The same table with its place before each name, so that no two tables have a name in common; the order of names stays."""
    table = one.table.rename_columns([f"{place} {name}" for name in one.table.column_names])
    return Drawn(table, tuple((f"{place} {name}", family, values) for name, family, values in one.columns))


def by_spark(session: Any, some: Sequence[Drawn], path: Path) -> list[tuple[str, list[int]]]:
    """The shape and the nine numbers of each table: they stand side by side in a file, each as long as the longest; one query
    makes the rows' hashes of all, and adds up each table's own."""
    rows = max(one.table.num_rows for one in some)
    wide = {"row": pa.array(range(rows), pa.int32())}
    for one in some:
        for field in one.table.schema:
            there = one.table[field.name].combine_chunks()
            parts = there.chunks if isinstance(there, pa.ChunkedArray) else [there]
            wide[field.name] = pa.concat_arrays([*parts, pa.nulls(rows - one.table.num_rows, field.type)])
    pq.write_table(pa.table(wide), path, version="2.6")
    frame = session.read.options(datetimeRebaseMode="CORRECTED").parquet(f"file://{path}")
    frame.createOrReplaceTempView("wide")
    types = dict(frame.dtypes)
    columns = [spark_columns([(name, types[name]) for name in one.table.column_names], "the table") for one in some]
    hashes = ", ".join(
        f"IF(row < {one.table.num_rows}, named_struct('place', {place}, 'h', {spark_row_hash(own)}), NULL)"
        for place, (one, own) in enumerate(zip(some, columns))
    )
    query = f"SELECT it.place, {spark_nine('it.h')} FROM (SELECT explode(array({hashes})) AS it FROM wide) WHERE it IS NOT NULL GROUP BY 1"
    found = {place: nine for place, *nine in session.sql(query).collect()}
    return [(shape_text(own), read_numbers(found.get(place, (0,) * 9)).listed()) for place, own in enumerate(columns)]
