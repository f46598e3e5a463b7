"""Pieces of Parquet files, read by workers, are the rows that DuckDB reads of all files at once."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featreg
from featreg.engines import pieces as pieces_module
from featreg.engines.duckdb import DuckDB
from featreg.engines.pieces import Piece, cut, in_paths
from featreg.engines.worker import ROWS, InFiles, query_pieces
from featreg.plan.relation import Relation, quote

_DAY = 86_400_000_000


@pytest.fixture
def engine(tmp_path: Path) -> DuckDB:
    return DuckDB({}, tmp_path / "spilled")


@pytest.fixture(params=["pieces of a row group", "pieces of many"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pieces of a row group":
        monkeypatch.setattr(pieces_module, "_LEAST", 1)


def rows_of(relation: Relation, pieces: Sequence[Piece], names: Sequence[str]) -> list[tuple]:
    assert pieces, relation
    sql = f"SELECT {', '.join(f'{quote(name)}::VARCHAR' for name in names)} FROM {ROWS}"
    return [tuple(row.values()) for batch in query_pieces(sql, pieces) for row in batch.to_pylist()]


def whole(engine: DuckDB, relation: Relation, names: Sequence[str]) -> list[tuple]:
    return engine.rows(f"SELECT {', '.join(f'{quote(name)}::VARCHAR' for name in names)} FROM {relation.text}")


def same(engine: DuckDB, folder: Path, names: Sequence[str], pattern: str = "**/*.parquet", **options: object) -> tuple[Piece, ...]:
    """Pieces that have the rows of all files together, cell by cell as text."""
    relation = engine.location("events", {"path": pattern, "options": options}, folder)
    pieces = cut(engine, relation, [name.upper() for name in names], 3)
    assert Counter(rows_of(relation, pieces, names)) == Counter(whole(engine, relation, names))
    return pieces


def write(path: Path, table: pa.Table, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)


def numbers(rows: int, seed: int, integer: pa.DataType, real: pa.DataType) -> dict[str, pa.Array]:
    rng = np.random.default_rng(seed)
    values = pa.array(np.float32(rng.normal(size=rows)), mask=rng.random(rows) < 0.2)
    return {"n": pa.array(rng.integers(-100, 100, rows)).cast(integer), "x": values.cast(real)}


def test_row_groups_of_one_file_are_each_read_once(engine: DuckDB, tmp_path: Path, small: None) -> None:
    write(
        tmp_path / "a'b.parquet",
        pa.table(numbers(1000, 1, pa.int64(), pa.float64()) | {'q"': pa.array(map(str, range(1000)))}),
        row_group_size=90,
    )
    pieces = same(engine, tmp_path, ["n", "x", 'q"'])
    assert len(pieces) == (12 if pieces_module._LEAST == 1 else 1)
    relation = engine.location("events", "*.parquet", tmp_path)
    assert [row[0] for row in rows_of(relation, pieces, ['q"'])] == list(map(str, range(1000))), "in the order of the file"


def test_files_of_several_widths_and_orders_are_read_as_the_widest(engine: DuckDB, tmp_path: Path, small: None) -> None:
    """-0.1 as FLOAT is another text than as DOUBLE: a piece of narrow files must not show it."""
    for number, (integer, real) in enumerate([(pa.int16(), pa.float32()), (pa.int64(), pa.float32()), (pa.int8(), pa.float64())]):
        columns = numbers(40, number, integer, real) | ({"only_here": pa.array(["x"] * 40)} if number == 1 else {})
        if number == 2:
            columns = dict(reversed(columns.items())) | {"N2": pa.array(range(40))}
        write(tmp_path / f"{number}.parquet", pa.table(columns), row_group_size=15)
        write(tmp_path / f"again/{number}.parquet", pa.table(columns))
    same(engine, tmp_path, ["n", "x"])


def test_columns_in_paths_have_the_type_of_all_paths(engine: DuckDB, tmp_path: Path, small: None) -> None:
    """Of month=2 alone DuckDB makes a number."""
    for month in ("2", "x", "10"):
        write(
            tmp_path / f"month={month}/day=2024-01-0{len(month)}/p.parquet",
            pa.table(numbers(30, 1, pa.int32(), pa.float32())),
            row_group_size=9,
        )
    same(engine, tmp_path, ["n", "month", "day"])
    relation = engine.location("events", {"path": "**/*.parquet", "options": {"hive_partitioning": False}}, tmp_path)
    assert in_paths(engine, relation) == {}
    same(engine, tmp_path, ["n"], hive_partitioning=False)
    same(engine, tmp_path, ["n", "month"], hive_types={"month": "VARCHAR"}, hive_partitioning=True)
    same(engine, tmp_path, ["n", "f"], filename="f")
    write(
        tmp_path / "month=3/day=2024-01-01/q.parquet",
        pa.table({"n": pa.array([1], pa.int32()), "x": pa.array([1.0], pa.float32()), "month": [7]}),
    )
    assert in_paths(engine, engine.location("events", "**/*.parquet", tmp_path)) is None, "either place may have it"


def test_a_column_that_is_called_like_duckdbs_number_of_a_row(engine: DuckDB, tmp_path: Path, small: None) -> None:
    write(tmp_path / "one.parquet", pa.table({"File_Row_Number": [5] * 50, "n": range(50)}), row_group_size=7)
    same(engine, tmp_path, ["n", "file_row_number"])


@pytest.mark.parametrize(
    "kind", [pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("ms"), pa.timestamp("ns"), pa.date32(), "int96"]
)
def test_row_groups_before_an_instant_are_passed_over_and_no_row_that_may_count(
    engine: DuckDB, tmp_path: Path, kind: pa.DataType | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NULL, infinite instants and those before year 1 stay, for they may be rejected rows; so does the bound itself."""
    monkeypatch.setattr(pieces_module, "_LEAST", 1)
    days = np.arange(40)
    at = pa.array(days * _DAY).cast(pa.timestamp("us"))
    at = at.cast(kind) if not isinstance(kind, str) else at
    columns = {"n": days, "at": pa.array([None if n == 3 else value for n, value in enumerate(at.to_pylist())], at.type)}
    write(tmp_path / "one.parquet", pa.table(columns), row_group_size=4, use_deprecated_int96_timestamps=kind == "int96")
    relation = engine.location("events", "one.parquet", tmp_path)
    for bound in (20, 25):
        kept = {int(row[0]) for row in rows_of(relation, cut(engine, relation, ["n", "at"], 2, ("AT", bound * _DAY)), ["n"])}
        first = 0 if kind == "int96" else bound // 4 * 4  # INT96 has no statistics
        assert kept == {0, 1, 2, 3, *range(first, 40)}, "the group of the NULL, and from the bound's group on"


def test_instants_that_are_rejected_are_not_passed_over(engine: DuckDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "_LEAST", 1)
    path = tmp_path / "one.parquet"
    instants = "['-infinity', '0001-01-01 (BC) 00:00:00', '2000-01-01', 'infinity'][i]::TIMESTAMP"
    engine.rows(f"COPY (SELECT i AS n, {instants} AS \"at\" FROM range(1, 5) t(i)) TO '{path}'")
    table = pq.read_table(path)
    pq.write_table(table, path, row_group_size=1)
    relation = engine.location("events", "one.parquet", tmp_path)
    kept = rows_of(relation, cut(engine, relation, ["n", "at"], 2, ("at", 1_700_000_000_000_000)), ["n"])
    assert kept == [("1",), ("2",), ("4",)]


def test_pieces_are_of_about_the_same_size_and_enough_for_every_core(
    engine: DuckDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces_module, "_LEAST", 1)
    rng = np.random.default_rng(1)
    for number, rows in enumerate([5000, 100, 100, 100, 20_000, 3]):
        write(
            tmp_path / f"{number}.parquet", pa.table({"n": rng.integers(0, 1 << 60, rows), "unread": rng.random(rows)}), row_group_size=400
        )
    relation = engine.location("events", "*.parquet", tmp_path)
    pieces = cut(engine, relation, ["n"], 4)
    sizes = [sum(batch.num_rows for batch in query_pieces(f"SELECT n FROM {ROWS}", [piece])) for piece in pieces]
    assert sum(sizes) == 25_303 and 16 <= len(pieces) <= 24 and max(sizes) <= 1600
    assert all("unread" not in text for piece in pieces for text in piece.texts)


def test_many_files_are_little_to_carry_and_each_task_opens_its_own_piece(engine: DuckDB, tmp_path: Path) -> None:
    """Every task gets all pieces; what they carry for a file is less than its path."""
    for number in range(300):
        write(tmp_path / f"month={number % 12:02}/part-{number:05}-0123456789abcdef-c000.snappy.parquet", pa.table({"n": [number]}))
    relation = engine.location("events", "**/*.parquet", tmp_path)
    pieces = cut(engine, relation, ["n", "month"], 2, None, in_paths(engine, relation))
    asked = InFiles.of(pieces * 3)
    path = relation.files.paths[0] if relation.files is not None else ""
    assert sum(map(len, asked.pieces)) < 3 * 300 * len(path)
    batches = [pa.record_batch([pa.array([number])], names=["id"]) for number in range(len(pieces), 2 * len(pieces))]
    found = [row for batch in asked.query(f"SELECT n, month FROM {ROWS}", batches) for row in zip(*batch.to_pydict().values())]
    assert sorted(found) == engine.rows(f"SELECT n, month FROM {relation.text} ORDER BY n")


def test_a_file_that_is_gone_or_another_one_by_then_is_an_error(engine: DuckDB, tmp_path: Path) -> None:
    path = tmp_path / "one.parquet"
    write(path, pa.table({"n": list(range(100))}), row_group_size=10)
    relation = engine.location("events", "one.parquet", tmp_path)
    pieces = cut(engine, relation, ["n"], 2)

    def read() -> None:
        list(query_pieces(f"SELECT n FROM {ROWS}", pieces))

    read()
    written = path.read_bytes()
    write(path, pa.table({"n": list(range(10))}))
    with pytest.raises(featreg.DataError, match=r"one.parquet was changed while it was read"):
        read()
    shorter = path.read_bytes()
    path.write_bytes(bytes(len(written) - len(shorter)) + shorter)  # as long as before, and fewer rows
    with pytest.raises(featreg.DataError, match=r"one.parquet"):
        read()
    path.write_bytes(written[:-20] + bytes(20))
    with pytest.raises(featreg.DataError, match=r"a scan failed: .*one.parquet"):
        read()
    os.unlink(path)
    with pytest.raises(featreg.DataError, match=r"(?s)one.parquet cannot be read on .*: No such file.*each of them must see"):
        read()


def test_a_file_of_no_rows_gives_none(engine: DuckDB, tmp_path: Path) -> None:
    write(tmp_path / "one.parquet", pa.table({"n": pa.array([], pa.int64())}))
    relation = engine.location("events", "one.parquet", tmp_path)
    assert rows_of(relation, cut(engine, relation, ["n"], 2), ["n"]) == []
