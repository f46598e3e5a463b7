"""A version of a Delta or Iceberg table is a snapshot without copies: what its library reads at that version, until it is vacuumed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog import load_catalog
from pyiceberg.transforms import IdentityTransform

import featreg
from featreg.cli import main
from featreg.errors import CoverageError, DataError, RefusedError, UsageError
from tests import content_reference as reference
from tests.shop import REALTIME_SHOP, Shop, at, order, order_table, spine_of
from tests.test_spark import SPARK
from tests.test_spark_runs import facts, keys_of

FAMILIES = {
    "customer": "string", "amount": "double", "cents": "integer", "shop": "string", "bought_at": "timestamp", "loaded_at": "timestamp",
}  # fmt: skip
ANN = [{"customer": "ann"}]


class Delta:
    """Orders as a Delta table by shop: the shop stands in paths alone."""

    settings = 'format = "delta", path = "lake/orders"'

    def __init__(self, root: Path):
        self.path = root / "lake" / "orders"

    @property
    def versions(self) -> list[str]:
        return [str(number) for number in range(DeltaTable(self.path).version() + 1)]

    def append(self, table: pa.Table) -> None:
        write_deltalake(self.path, table, mode="append", partition_by=["shop"])

    def overwrite(self, table: pa.Table) -> None:
        write_deltalake(self.path, table, mode="overwrite", partition_by=["shop"])

    def rows(self, version: Any = None) -> pa.Table:
        return DeltaTable(self.path, version=None if version is None else int(version)).to_pyarrow_table()

    def compact(self) -> None:
        assert DeltaTable(self.path).optimize.compact()["numFilesRemoved"] > 1

    def vacuum(self) -> None:
        assert DeltaTable(self.path).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)


class Iceberg:
    """Orders as an Iceberg table by shop, in a catalog on SQLite: the shop stands in paths and in files."""

    def __init__(self, root: Path):
        (root / "lake").mkdir()
        place = {"name": "tests", "type": "sql", "uri": f"sqlite:///{root}/lake/catalog.db", "warehouse": f"file://{root}/lake"}
        listed = ", ".join(f'{key} = "{value}"' for key, value in place.items())
        self.settings = f'format = "iceberg", table = "shop.orders", catalog = {{ {listed} }}'
        self.catalog = load_catalog(**place)
        self.catalog.create_namespace("shop")
        self.catalog.create_table("shop.orders", schema=order_table([]).schema)
        with self.table.update_spec() as spec:
            spec.add_field("shop", IdentityTransform(), "shop_part")

    @property
    def table(self) -> Any:
        return self.catalog.load_table("shop.orders")

    @property
    def versions(self) -> list[str]:
        return [str(one.snapshot_id) for one in self.table.history()]

    def append(self, table: pa.Table) -> None:
        self.table.append(table)

    def overwrite(self, table: pa.Table) -> None:
        self.table.overwrite(table)

    def rows(self, version: Any = None) -> pa.Table:
        return self.table.scan(snapshot_id=None if version is None else int(version)).to_arrow()

    def compact(self) -> None:
        """Rewritten as one commit: PyIceberg has no rewrite of its own."""
        self.table.overwrite(self.rows().combine_chunks())

    def vacuum(self) -> None:
        """Remove the files that the newest snapshot does not name, as an engine's expire_snapshots does."""
        live = {task.file.file_path.removeprefix("file://") for task in self.table.scan().plan_files()}
        gone = [path for path in self.folder.rglob("*.parquet") if str(path) not in live]
        assert gone
        for path in gone:
            path.unlink()

    @property
    def folder(self) -> Path:
        return Path(self.table.location().removeprefix("file://"))


@pytest.fixture(params=[Delta, Iceberg], ids=["delta", "iceberg"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return request.param(tmp_path)


def shop_on(lake: Any, root: Path, more: str = "") -> Shop:
    """Two versions: orders of two shops on the first day, one more on the second."""
    shop = Shop(root, REALTIME_SHOP, f"[sources]\norders = {{ {lake.settings}{more} }}\n").applied()
    lake.append(order_table([order(minute, amount=0.1 * minute, shop="ab"[minute % 2]) for minute in range(6)]))
    lake.append(order_table([order(1440, amount=7.0, shop=None)]))
    return shop


def by_loop(table: pa.Table) -> list[int]:
    """The nine numbers of what the table's own library reads."""
    micros = {name: table[name].cast(pa.timestamp("us")).cast(pa.int64()) for name in ("bought_at", "loaded_at")}
    columns = [(name, family, micros.get(name, table[name]).to_pylist()) for name, family in FAMILIES.items()]
    return reference.numbers(columns, table.num_rows)


def trained(registry: Any, **options: Any) -> Any:
    return registry.training_set("model", spine_of(ANN, at(1440 * 2)), time="as_of", **options)


def objects(root: Path) -> Sequence[Path]:
    return [path for path in (root / ".featreg" / "objects").iterdir() if len(path.name) == 64]


def test_a_snapshot_pins_a_version_and_copies_nothing(lake, tmp_path):
    shop = shop_on(lake, tmp_path)
    with shop.open() as registry:
        taken = registry.snapshot("orders")
        assert taken.snapshot.numbers.listed() == by_loop(lake.rows())
        assert taken.snapshot.pin["version"] == lake.versions[1]
        assert len(objects(tmp_path)) == 1  # the list of files alone
        assert registry.verify_snapshot(taken.id).is_sound and registry.snapshot("orders").id == taken.id


def test_a_training_set_is_made_of_the_version_whatever_came_since(lake, tmp_path):
    """The witness is the same set from rows that the table's library read before, handed in as a table."""
    shop = shop_on(lake, tmp_path)
    with shop.open() as registry:
        first = registry.snapshot("orders")
        before = lake.rows()
        written = trained(registry)
        written.write(tmp_path / "train.parquet")
        assert written.manifest["snapshots"] == {"orders": first.id}
        lake.overwrite(order_table([order(1440, amount=99.0)]))
        second = registry.snapshot("orders")
        handed = trained(registry, sources={"orders": before}).to_arrow()
        assert trained(registry, snapshot=first.id).to_arrow().equals(handed)
        assert trained(registry).to_arrow().equals(trained(registry, sources={"orders": lake.rows()}).to_arrow())
        assert registry.reproduce(written.manifest["id"]).same_bytes
        assert second.snapshot.pin["version"] == lake.versions[-1] and second.files_read == 1
        with pytest.raises(RefusedError, match="held by training set"):
            registry.remove_snapshot(first.id)


def test_an_append_reads_the_new_files_alone(lake, tmp_path):
    shop = shop_on(lake, tmp_path)
    with shop.open() as registry:
        registry.snapshot("orders")
        lake.append(order_table([order(1441, amount=8.0)]))
        taken = registry.snapshot("orders")
        assert taken.snapshot.numbers.listed() == by_loop(lake.rows())
        assert len(taken.snapshot.files) == 4


def test_compaction_is_the_same_rows_and_a_vacuum_is_told(lake, tmp_path):
    shop = shop_on(lake, tmp_path)
    with shop.open() as registry:
        lake.append(order_table([order(7, amount=3.0)]))
        taken = registry.snapshot("orders")
        written = trained(registry)
        written.write(tmp_path / "train.parquet")
        lake.compact()
        drift = registry.verify_snapshot(taken.id).drift
        assert drift.verdicts and {str(one.kind) for one in drift.verdicts} == {"REWRITTEN_SAME"}
        assert registry.reproduce(written.manifest["id"], live=True).identical
        assert registry.reproduce(written.manifest["id"]).identical
        lake.vacuum()
        with pytest.raises(CoverageError, match=r"SNAPSHOT_GONE orders snapshot \w+: expected .* rows .* was vacuumed") as raised:
            registry.reproduce(written.manifest["id"])
        assert "copy = true" in str(raised.value)
        assert registry.verify_snapshot(taken.id).damaged
        assert registry.reproduce(written.manifest["id"], live=True).identical  # compacted, the rows are still there


def test_copies_outlive_a_vacuum(lake, tmp_path):
    shop = shop_on(lake, tmp_path, ", copy = true")
    with shop.open() as registry:
        taken = registry.snapshot("orders")
        assert taken.snapshot.pin["copied"] and len(objects(tmp_path)) == 1 + len(taken.snapshot.files)
        written = trained(registry)
        written.write(tmp_path / "train.parquet")
        lake.overwrite(order_table([order(1440, amount=99.0)]))
        lake.vacuum()
        assert registry.reproduce(written.manifest["id"]).same_bytes and registry.verify_snapshot(taken.id).is_sound


def test_a_profile_may_name_an_earlier_version(lake, tmp_path):
    shop = shop_on(lake, tmp_path)
    version = lake.versions[0]
    (tmp_path / "conf" / "then.toml").write_text(f"[sources]\norders = {{ {lake.settings}, version = {version} }}\n")
    with featreg.open(shop.root, profile="then") as registry:
        taken = registry.snapshot("orders").snapshot
        assert (taken.pin["version"], taken.numbers.listed()) == (version, by_loop(lake.rows(version)))
    (tmp_path / "conf" / "never.toml").write_text(f"[sources]\norders = {{ {lake.settings}, version = 77 }}\n")
    with featreg.open(shop.root, profile="never") as registry, pytest.raises(DataError, match=r"source 'orders': its .* table"):
        registry.snapshot("orders")


def test_it_is_materialized_version_by_version(lake, tmp_path):
    """An append brings its rows; online equals offline; a rewrite of known files is refused, as of any other file."""
    shop = shop_on(lake, tmp_path)
    with shop.open() as registry:
        registry.materialize(to=at(1440 * 2))
        lake.append(order_table([order(1440 * 2 + 5, amount=8.0)]))
        receipts = registry.materialize(to=at(1440 * 2 + 60))
        assert sum(one.rows for one in receipts) == 1
        found = registry.parity("model")
        assert found.cells and not found.differing
        lake.compact()
        with pytest.raises(RefusedError):
            registry.materialize(to=at(1440 * 3))
        registry.materialize(to=at(1440 * 3), rebuild=True)
        assert not registry.parity("model").differing


def test_spark_reads_a_version_as_duckdb_does(lake, tmp_path):
    """The same values, receipts and bytes in the store, rows that came late in a newer version and what a snapshot pins included."""
    shop = shop_on(lake, tmp_path)
    settings = lake.settings.replace("lake/orders", f"{tmp_path}/lake/orders")
    other = Shop(tmp_path / "spark", REALTIME_SHOP, f"{SPARK}[sources]\norders = {{ {settings} }}\n").applied()
    with shop.open() as registry, other.open() as by_spark:
        for to, rows in ((2880, []), (2940, [order(2, "bob", amount=5.0, shop="b"), order(2885, shop="a b:c/ü")])):
            lake.append(order_table(rows))
            ran = facts(by_spark.materialize(to=at(to)))
            assert ran == facts(registry.materialize(to=at(to)))
            assert trained(by_spark).to_arrow().equals(trained(registry).to_arrow())
            assert by_spark.parity("model").cells and not by_spark.parity("model").differing
        assert ran[0][1:4] == (2, 2, 1) and keys_of(other) == keys_of(shop)
        taken = by_spark.snapshot("orders")
        assert taken.snapshot.numbers.listed() == by_loop(lake.rows())
        written = trained(by_spark)
        written.write(tmp_path / "train")
        values = written.to_arrow()
        lake.compact()
        lake.append(order_table([order(1440)]))
        assert trained(by_spark, snapshot=taken.id).to_arrow().equals(values)
        assert written.manifest["snapshots"] == {"orders": taken.id} and by_spark.reproduce(written.manifest["id"]).identical
        with pytest.raises(RefusedError):
            by_spark.materialize(to=at(3000))


def test_a_table_at_a_uri_is_for_a_reader_of_sparks(tmp_path):
    """The suite's session has none."""
    lake = Delta(tmp_path)
    shop = Shop(tmp_path, REALTIME_SHOP, f'{SPARK}[sources]\norders = {{ format = "delta", path = "file://{lake.path}" }}\n').applied()
    lake.append(order_table([order(1)]))
    with shop.open() as registry, pytest.raises(UsageError, match=r"'orders': this Spark has no reader for 'delta'(?s:.*)featreg\[delta\]"):
        registry.materialize(to=at(60))


def test_columns_that_came_later_are_null_before(lake, tmp_path):
    shop = shop_on(lake, tmp_path)
    more = order_table([order(1441)]).append_column("note", pa.array(["x"]))
    if isinstance(lake, Delta):
        write_deltalake(lake.path, more, mode="append", schema_mode="merge", partition_by=["shop"])
    else:
        with lake.table.update_schema() as schema:
            schema.union_by_name(more.schema)
        lake.append(more)
    with shop.open() as registry:
        taken = registry.snapshot("orders").snapshot
        table = lake.rows()
        micros = {name: table[name].cast(pa.timestamp("us")).cast(pa.int64()) for name in ("bought_at", "loaded_at")}
        columns = [(name, family, micros.get(name, table[name]).to_pylist()) for name, family in {**FAMILIES, "note": "string"}.items()]
        assert taken.numbers.listed() == reference.numbers(columns, table.num_rows)
        assert trained(registry).to_arrow().equals(trained(registry, sources={"orders": table.drop_columns("note")}).to_arrow())


def test_partition_values_of_any_letters_and_types_come_back_from_paths(tmp_path):
    lake = Delta(tmp_path)
    shop = Shop(tmp_path, REALTIME_SHOP, f"[sources]\norders = {{ {lake.settings} }}\n").applied()
    lake.append(order_table([order(n, shop=name) for n, name in enumerate(["a b:c", "ü=/%", "01", None, "x'y"])]))
    with shop.open() as registry:
        assert registry.snapshot("orders").snapshot.numbers.listed() == by_loop(lake.rows())
        assert trained(registry).to_arrow().equals(trained(registry, sources={"orders": lake.rows()}).to_arrow())


def test_rows_deleted_beside_their_file_are_an_error_and_never_counted(tmp_path):
    """A commit by hand, as Spark writes it: rows of a file are deleted by a vector that stands in the log."""
    lake = Delta(tmp_path)
    shop = Shop(tmp_path, REALTIME_SHOP, f"[sources]\norders = {{ {lake.settings} }}\n").applied()
    lake.append(order_table([order(minute) for minute in range(40)]))
    log = lake.path / "_delta_log"
    add = next(one["add"] for one in map(json.loads, (log / f"{0:020}.json").read_text().splitlines()) if "add" in one)
    held = "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L"  # rows 3, 4, 7, 11, 18 and 29: the protocol's own example
    vector = {"storageType": "i", "pathOrInlineDv": held, "sizeInBytes": 44, "cardinality": 6}
    remove = {key: add[key] for key in ("path", "partitionValues", "size")} | {"dataChange": True, "deletionTimestamp": 1}
    features = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    actions = [{"protocol": features}, {"remove": remove}, {"add": {**add, "deletionVector": vector}}]
    (log / f"{1:020}.json").write_text("\n".join(map(json.dumps, actions)))
    with shop.open() as registry:
        for verb in (lambda: registry.snapshot("orders"), lambda: trained(registry)):
            with pytest.raises(DataError, match=r"source 'orders': rows of its files are deleted by deletion vectors"):
                verb()


def test_iceberg_rows_that_files_call_otherwise_are_an_error(tmp_path):
    lake = Iceberg(tmp_path)
    shop = shop_on(lake, tmp_path)
    with lake.table.update_schema() as schema:
        schema.delete_column("cents")
    with shop.open() as registry, pytest.raises(DataError, match=r"column 'cents' was dropped and is still in"):
        registry.snapshot("orders")
    with lake.table.update_schema() as schema:
        schema.rename_column("amount", "paid")
    with shop.open() as registry, pytest.raises(DataError, match=r"column 'amount' was renamed 'paid', so its files"):
        registry.snapshot("orders")


def test_an_iceberg_metadata_file_is_a_table_too(tmp_path):
    lake = Iceberg(tmp_path)
    shop = shop_on(lake, tmp_path)
    path = lake.table.metadata_location.removeprefix("file://")
    (tmp_path / "conf" / "file.toml").write_text(f'[sources]\norders = {{ format = "iceberg", path = "{path}" }}\n')
    with featreg.open(shop.root, profile="file") as registry:
        taken = registry.snapshot("orders").snapshot
        assert (taken.pin["version"], taken.numbers.listed()) == (lake.versions[1], by_loop(lake.rows()))


def test_the_command_line_says_which_version_is_pinned(lake, tmp_path, capsys):
    shop = shop_on(lake, tmp_path)
    assert main(["snapshot", "take", "orders", "-C", str(shop.root)]) == 0
    told = capsys.readouterr().out
    assert "7 rows" in told and f"{type(lake).__name__} " in told and lake.versions[1] in told
    assert main(["snapshot", "ls", "--json", "-C", str(shop.root)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["pin"]["version"] == lake.versions[1]
