"""Spark gives DuckDB's bits: in random worlds, whatever form rows come in, in zones that are not UTC.

One session for the whole run, local[2].  The session's zone is Kolkata and the JVM's is New York.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featreg
from tests.test_worlds import SET, check_table, draft, in_python, repository, shown
from tests.worlds import World, seeded_world

SPARK = """
engine = "spark"
[spark]
master = "local[2,4]"
partitions = 3
"spark.driver.memory" = "1g"
"spark.driver.extraJavaOptions" = "-Duser.timezone=America/New_York"
"spark.sql.session.timeZone" = "Asia/Kolkata"
"spark.sql.ansi.enabled" = false
"""
PROFILE = SPARK + '[sources]\nevents = "data/*.parquet"\n'


def as_tables(registry: Any, world: World, root: Path) -> pa.Table:
    """Rows that the driver holds."""
    return registry.training_set(SET, world.spine, time="as_of", draft=True, sources={"events": world.events}).to_arrow()


def as_files(registry: Any, world: World, root: Path) -> pa.Table:
    """Several files of events, a folder of spine files, a folder of results: what executors read and write."""
    half, third = world.events.num_rows // 2, world.spine.num_rows // 3
    for number, rows in enumerate((world.events.slice(0, half), world.events.slice(half))):
        _write(rows, root / f"data/part_{number}.parquet")
    for number, rows in enumerate((world.spine.slice(0, third), world.spine.slice(third))):
        _write(rows, root / f"spine/part_{number}.parquet")
    made = registry.training_set(SET, root / "spine", time="as_of", draft=True)
    assert len(made) == world.spine.num_rows
    made.write(root / "out")
    return pa.concat_tables([pq.read_table(file) for file in sorted((root / "out").glob("part-*.parquet"))])


def as_frames(registry: Any, world: World, root: Path) -> pa.Table:
    """DataFrames of a session."""
    for name, rows in (("events", world.events), ("spine", world.spine)):
        _write(rows, root / f"{name}.parquet")
    read = registry.spark.session.read
    events, spine = read.parquet(str(root / "events.parquet")), read.parquet(str(root / "spine.parquet"))
    return registry.training_set(SET, spine, time="as_of", draft=True, sources={"events": events}).to_arrow()


def _write(rows: pa.Table, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(rows, path)


def as_spark_labels(table: pa.Table) -> pa.Table:
    """The same instants; Spark keeps no zone, so its label is UTC."""
    fields = [
        pa.field(one.name, pa.timestamp("us", "UTC")) if pa.types.is_timestamp(one.type) and one.type.tz is not None else one
        for one in table.schema
    ]
    return table.cast(pa.schema(fields))


def check_world(parent: Path, world: World, form: Callable[[Any, World, Path], pa.Table]) -> None:
    with shown(world), repository(parent, in_python(world) | {"conf/local.toml": PROFILE}) as root:
        with featreg.open(root) as registry:
            if world.overflows:
                with pytest.raises(featreg.OverflowDataError):
                    form(registry, world, root)
                return
            found = form(registry, world, root)
        check_table(world, found, world.expected(), world.spine if form is as_tables else as_spark_labels(world.spine))
        (root / "conf/local.toml").unlink()
        columns = list(world.types)
        assert _same_bits(draft(root, world).select(columns), found.select(columns)), "DuckDB and Spark differ"


def _same_bits(left: pa.Table, right: pa.Table) -> bool:
    from tests.test_worlds import first_difference

    return first_difference(left.column_names, left.to_pylist(), right.to_pylist()) is None


def test_spark_gives_what_duckdb_and_the_definition_give_in_random_worlds(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Every cell, to the bit; `--worlds 7500` makes 300 of them."""
    first = 1000 * pytestconfig.getoption("--world-seed")
    forms = (as_tables, as_files, as_frames)
    for seed in range(first, first + max(3, pytestconfig.getoption("--worlds") // 25)):
        form = forms[seed % len(forms)]
        try:
            check_world(tmp_path, seeded_world(seed, most_events=24, most_spine=8, most_features=5), form)
        except AssertionError as error:
            raise AssertionError(f"seeded_world({seed}, 24, 8, 5), {form.__name__}\n{error}") from error
