"""A snapshot is what the source was: nothing that happens to the source changes it, and what it is called says what is in it."""

import hashlib
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featreg
from featreg.cli import main
from featreg.errors import DataError, UsageError
from featreg.session.snapshots import damaged_files, read_snapshot
from tests import content_reference as reference
from tests.shop import ENTITY, ORDERS, RECENT, Forks, Shop, at, kernel_folder, order, order_table

SPEC = ENTITY + ORDERS.replace('tie_break="shop",', 'tie_break="shop", partition="day=%Y-%m-%d",') + RECENT
PLAIN = ENTITY + ORDERS + RECENT
PROFILE = '[sources]\norders = "data/**/*.parquet"\n'
FAMILIES = {
    "customer": "string", "amount": "double", "cents": "integer", "shop": "string", "bought_at": "timestamp", "loaded_at": "timestamp",
}  # fmt: skip


def shop_of(tmp_path: Path, spec: str = SPEC, profile: str = PROFILE) -> Shop:
    return Shop(tmp_path, spec, profile)


def put(shop: Shop, day: int, rows: Any, name: str = "a", **options: Any) -> Path:
    """A file of a day of March 2024."""
    path = shop.root / "data" / f"day=2024-03-{day:02}" / f"{name}.parquet"
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    pq.write_table(rows if isinstance(rows, pa.Table) else order_table(rows), part, **options)
    part.replace(path)
    return path


def days(shop: Shop, count: int = 3, rows: int = 4) -> Shop:
    for day in range(1, count + 1):
        put(shop, day, [order(1440 * (day - 1) + minute, amount=float(minute)) for minute in range(rows)])
    return shop


def by_hand(paths: list[Path]) -> list[int]:
    """The nine numbers of files of orders, by the loop over rows.  The day of the path is a column too, of text."""
    whole = [0] * 9
    for path in paths:
        table = pq.ParquetFile(path).read()
        columns = [
            (name, family, (table[name].cast(pa.int64()) if family == "timestamp" else table[name]).to_pylist())
            for name, family in FAMILIES.items()
        ]
        if path.parent.name.startswith("day="):
            columns.append(("day", "string", [path.parent.name.removeprefix("day=")] * table.num_rows))
        whole = [a + b for a, b in zip(whole, reference.numbers(columns, table.num_rows))]
    return whole


def test_a_snapshot_has_the_numbers_of_the_loop_and_of_its_partitions(tmp_path):
    shop = days(shop_of(tmp_path))
    with shop.open() as registry:
        taken = registry.snapshot("orders").snapshot
    files = sorted((tmp_path / "data").rglob("*.parquet"))
    assert taken.numbers.listed() == by_hand(files)
    shape = ",".join(f"{name}:{family}" for name, family in sorted({**FAMILIES, "day": "string"}.items()))
    text = f"featreg-fp/1|{shape}|{','.join(map(str, by_hand(files)))}"
    assert taken.content_id == hashlib.sha256(text.encode()).hexdigest()
    with shop.open() as registry:
        from featreg.session.snapshots import scheme_of, source_of

        partitions = taken.partitions(scheme_of(source_of(registry, "orders")))
    assert [one.name for one in partitions] == ["day=2024-03-01", "day=2024-03-02", "day=2024-03-03"]
    assert [one.numbers.listed() for one in partitions] == [by_hand([file]) for file in files]
    micros = [int(at(1440 * day).timestamp() * 1e6) for day in range(3)]
    assert [(one.first, one.last) for one in partitions] == [(first, first + 3 * 60_000_000) for first in micros]


def test_each_file_is_kept_once_under_its_sha256(tmp_path):
    shop = shop_of(tmp_path)
    one = put(shop, 1, [order(1)])
    put(shop, 2, pq.ParquetFile(one).read())
    with shop.open() as registry:
        taken = registry.snapshot("orders")
        again = registry.snapshot("orders")
    sha = hashlib.sha256(one.read_bytes()).hexdigest()
    kept = tmp_path / ".featreg" / "objects" / sha
    assert kept.read_bytes() == one.read_bytes() and not kept.stat().st_mode & 0o222
    assert {file.sha256 for file in taken.snapshot.files} == {sha} and len(taken.snapshot.files) == 2
    assert len([path for path in kept.parent.iterdir() if len(path.name) == 64]) == 2  # the file, and the list of files
    assert (again.id, again.is_new) == (taken.id, False)


def test_the_source_overwritten_in_place_leaves_the_copy_as_it_was(tmp_path):
    """What pyarrow and Polars do: open the same file and write."""
    shop = shop_of(tmp_path)
    path = put(shop, 1, [order(1)])
    before = path.read_bytes()
    with shop.open() as registry:
        taken = registry.snapshot("orders")
        with open(path, "r+b") as file:
            file.write(b"overwritten")
        assert registry.verify_snapshot(taken.id).is_sound
    assert (tmp_path / ".featreg" / "objects" / taken.snapshot.files[0].sha256).read_bytes() == before


@pytest.mark.parametrize(("immutable", "linked"), [(False, False), (True, True)])
def test_a_hard_link_is_made_only_for_what_is_declared_immutable(tmp_path, immutable, linked):
    profile = f'[sources]\norders = {{ path = "data/**/*.parquet", immutable = {str(immutable).lower()} }}\n'
    shop = shop_of(tmp_path, profile=profile)
    path = put(shop, 1, [order(1)])
    with shop.open() as registry:
        taken = registry.snapshot("orders")
    kept = tmp_path / ".featreg" / "objects" / taken.snapshot.files[0].sha256
    assert kept.samefile(path) is linked


def test_untouched_files_are_not_read_again(tmp_path, monkeypatch):
    """The third is new: one file is read, and the sums are those of all."""
    shop = days(shop_of(tmp_path), 2)
    _settle(tmp_path)
    with shop.open() as registry:
        assert registry.snapshot("orders").files_read == 2
        put(shop, 3, [order(1440 * 2 + 1)])
        read: list[str] = []
        forms = registry.engine.forms
        monkeypatch.setattr(registry.engine, "forms", lambda s, r, files, c: read.extend(files) or forms(s, r, files, c))
        taken = registry.snapshot("orders")
    assert taken.files_read == 1 and [Path(file).parent.name for file in read] == ["day=2024-03-03"]
    assert taken.snapshot.numbers.listed() == by_hand(sorted((tmp_path / "data").rglob("*.parquet")))


def _settle(root: Path) -> None:
    """Wait until the files are old enough for their times to say that nobody touched them."""
    newest = max(path.stat().st_ctime for path in (root / "data").rglob("*") if path.is_file())
    while time.time() - newest < 2.1:
        time.sleep(0.05)


def test_a_file_swapped_for_one_of_equal_size_and_mtime_is_seen(tmp_path):
    shop = shop_of(tmp_path)
    path = put(shop, 1, [order(1), order(2)], compression="none", use_dictionary=False)
    _settle(tmp_path)
    with shop.open() as registry:
        before = registry.snapshot("orders")
        stat, data = path.stat(), path.read_bytes()
        swapped = pq.ParquetFile(path).read().to_pylist()
        swapped[0]["cents"] += 1
        put(shop, 1, swapped, compression="none", use_dictionary=False)
        assert path.stat().st_size == len(data)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        after = registry.snapshot("orders")
    assert after.snapshot.content_id != before.snapshot.content_id and after.files_read == 1


def test_a_widened_column_moves_the_schema_id_alone(tmp_path):
    shop = days(shop_of(tmp_path), 1)
    with shop.open() as registry:
        before = registry.snapshot("orders").snapshot
        path = next((tmp_path / "data").rglob("*.parquet"))
        table = pq.ParquetFile(path).read()
        narrow = table.set_column(table.column_names.index("cents"), "cents", table["cents"].cast(pa.int32()))
        put(shop, 1, narrow)
        after = registry.snapshot("orders").snapshot
        found = registry.diff_snapshots(before.id, after.id)
    assert before.content_id == after.content_id and before.schema_id != after.schema_id
    assert found.schema == ("column 'cents': BIGINT → INTEGER",) and not found.partitions


def test_a_diff_counts_rows_by_partition(tmp_path):
    """By hand: one value changed on the first day, a row more on the second, the third gone."""
    shop = days(shop_of(tmp_path))
    with shop.open() as registry:
        before = registry.snapshot("orders").id
        first = [order(minute, amount=float(minute) if minute else 99.0) for minute in range(4)]
        put(shop, 1, first)
        put(shop, 2, [order(1440 + minute, amount=float(minute)) for minute in (0, 1, 2, 3, 3)])
        next((tmp_path / "data" / "day=2024-03-03").iterdir()).unlink()
        now = registry.diff_snapshots(before)
        after = registry.snapshot("orders").id
        found = registry.diff_snapshots(before, after)
    assert [tuple(vars(one).values()) for one in found.partitions] == [
        ("day=2024-03-01", 4, 4, 0, 0, 1),
        ("day=2024-03-02", 4, 5, 1, 0, 0),
        ("day=2024-03-03", 4, 0, 0, 4, 0),
    ]
    assert now.partitions == found.partitions and now.after is None
    assert not found.rewritten and not found.schema


def test_a_removed_snapshot_leaves_a_tombstone_and_the_files_of_others(tmp_path):
    shop = days(shop_of(tmp_path), 2)
    with shop.open() as registry:
        first = registry.snapshot("orders").snapshot
        put(shop, 2, [order(1440 + 7)])
        second = registry.snapshot("orders").snapshot
        _, freed = registry.remove_snapshot(first.id)
        shared, own = first.files[0], first.files[1]
        objects = tmp_path / ".featreg" / "objects"
        assert (objects / shared.sha256).is_file() and not (objects / own.sha256).exists() and freed > own.bytes
        assert registry.verify_snapshot(second.id).is_sound
        assert [(one.id, one.removed_at is None) for one in registry.snapshots()] == [(first.id, False), (second.id, True)]
        with pytest.raises(DataError, match=rf"SNAPSHOT_GONE: snapshot {first.id[:12]} of 'orders' was removed at .* it had 8 rows"):
            registry.verify_snapshot(first.id)
        put(shop, 2, [order(1440 + minute, amount=float(minute)) for minute in range(4)])
        assert registry.snapshot("orders").id == first.id  # the same data is the same snapshot, back again
        assert registry.verify_snapshot(first.id).is_sound


def test_verify_tells_a_damaged_copy_from_a_changed_source(tmp_path):
    shop = days(shop_of(tmp_path), 2)
    with shop.open() as registry:
        taken = registry.snapshot("orders").snapshot
        assert not registry.verify_snapshot(taken.id).drift.verdicts
        put(shop, 1, [order(minute, amount=float(minute)) for minute in reversed(range(4))], compression="zstd")
        put(shop, 2, [order(1440)])
        found = registry.verify_snapshot(taken.id)
        assert found.is_sound and found.differs
        assert [(str(one.kind), one.partition) for one in found.drift.verdicts] == [
            ("REWRITTEN_SAME", "day=2024-03-01"),
            ("CONTENT_DRIFT", "day=2024-03-02"),
        ]
        assert "rows +1 −4" in found.drift.verdicts[1].found  # minute 0 had amount 0.0 and has 1.0
        kept = tmp_path / ".featreg" / "objects" / taken.files[0].sha256
        os.chmod(kept, 0o644)
        kept.write_bytes(kept.read_bytes()[:-1] + b"x")
        assert registry.verify_snapshot(taken.id).damaged == (taken.files[0].path,)


def test_a_kill_while_taking_leaves_no_half_of_a_snapshot(tmp_path):
    """Killed after the first file: nothing is recorded, and the next one clears what was begun and takes all."""
    shop = days(shop_of(tmp_path), 3)
    with shop.open() as registry:
        from featreg.snapshots.objects import ObjectStore

        whole, calls = ObjectStore.put_file, []

        def killed(self: ObjectStore, source: Path, link: bool = False) -> Any:
            calls.append(source)
            if len(calls) == 2:
                (self.folder / ".part-killed").write_bytes(b"half")
                raise KeyboardInterrupt
            return whole(self, source, link)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ObjectStore, "put_file", killed)
            with pytest.raises(KeyboardInterrupt):
                registry.snapshot("orders")
        assert not registry.snapshots()
        taken = registry.snapshot("orders").snapshot
        assert not list((tmp_path / ".featreg" / "objects").glob(".part-*"))
        assert taken.numbers.listed() == by_hand(sorted((tmp_path / "data").rglob("*.parquet")))


def test_a_source_without_a_scheme_has_a_partition_a_file(tmp_path):
    shop = Shop(tmp_path, PLAIN)
    shop.put("one", [order(1)])
    shop.put("two", [order(2), order(3)])
    with shop.open() as registry:
        taken = registry.snapshot("orders").snapshot
    assert [(one.name, one.numbers.count) for one in taken.partitions(None)] == [("data/one.parquet", 1), ("data/two.parquet", 2)]


def test_a_column_that_only_later_files_have_is_null_in_the_earlier(tmp_path):
    """And the sums of the earlier files are made anew, since every row has another text."""
    shop = Shop(tmp_path, PLAIN)
    first = shop.put("one", [order(1)])
    with shop.open() as registry:
        registry.snapshot("orders")
        table = order_table([order(2)]).append_column("note", pa.array(["x"]))
        second = shop.put("two", table)
        taken = registry.snapshot("orders").snapshot
    whole = [0] * 9
    for path, note in ((first, None), (second, "x")):
        rows = pq.ParquetFile(path).read()
        columns = [(n, f, (rows[n].cast(pa.int64()) if f == "timestamp" else rows[n]).to_pylist()) for n, f in FAMILIES.items()]
        whole = [a + b for a, b in zip(whole, reference.numbers([*columns, ("note", "string", [note])], 1))]
    assert taken.numbers.listed() == whole


def test_csv_is_text_as_it_stands_and_gzip_is_read_by_its_ending(tmp_path):
    import gzip

    text = "customer,amount,cents,shop,bought_at,loaded_at\nann,1.50,150,a,2024-03-01 10:00:00,2024-03-01 10:00:00\n"
    shop = Shop(tmp_path, PLAIN, '[sources]\norders = "data/*.csv*"\n')
    (tmp_path / "data" / "one.csv").write_text(text)
    with gzip.open(tmp_path / "data" / "two.csv.gz", "wt") as file:
        file.write(text)
    with shop.open() as registry:
        taken = registry.snapshot("orders").snapshot
    names, values = (line.split(",") for line in text.splitlines())
    one = reference.numbers([(name, "string", [value]) for name, value in zip(names, values)], 1)
    assert taken.numbers.listed() == [2 * number for number in one]
    assert taken.first == taken.last == 1_709_287_200_000_000


def test_files_that_disagree_on_a_family_are_named(tmp_path):
    shop = Shop(tmp_path, PLAIN)
    shop.put("one", [order(1)])
    table = order_table([order(2)])
    shop.put("two", table.set_column(table.column_names.index("cents"), "cents", table["cents"].cast(pa.string())))
    with shop.open() as registry, pytest.raises(DataError, match=r"column 'cents' is .* in one file and .* in another"):
        registry.snapshot("orders")


def test_errors_say_what_there_is(tmp_path):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        with pytest.raises(UsageError, match=r"there is no source 'order'\.\n  Did you mean 'orders'"):
            registry.snapshot("order")
        with pytest.raises(DataError, match="no file at"):
            registry.snapshot("orders")
        with pytest.raises(UsageError, match="no snapshot is called 'abcdef'"):
            registry.verify_snapshot("abcdef")


def test_the_command_line_takes_verifies_compares_lists_and_removes(tmp_path, capsys):
    shop = days(shop_of(tmp_path))
    said = _json(capsys, shop, "snapshot", "take", "orders")
    assert {"id", "manifest_id", "schema_id", "content_id", "numbers", "partitions"} <= said.keys()
    assert said["numbers"] == by_hand(sorted((tmp_path / "data").rglob("*.parquet"))) and len(said["partitions"]) == 3
    assert _json(capsys, shop, "snapshot", "verify", said["id"][:8])["differs"] is False
    put(shop, 3, [order(1440 * 2)])
    assert main(["snapshot", "verify", said["id"], "--exit-code", "-C", str(tmp_path)]) == 5
    assert main(["snapshot", "diff", said["id"], "--exit-code", "-C", str(tmp_path)]) == 5
    told = capsys.readouterr().out
    assert "CONTENT_DRIFT" in told and "day=2024-03-03" in told
    assert [one["id"] for one in _json(capsys, shop, "snapshot", "ls")] == [said["id"]]
    assert _json(capsys, shop, "snapshot", "rm", said["id"])["bytes_freed"] > 0
    assert _json(capsys, shop, "snapshot", "ls")[0]["removed_at"] is not None
    assert main(["snapshot", "verify", said["id"], "-C", str(tmp_path)]) == 3


def _json(capsys, shop: Shop, *words: str) -> Any:
    capsys.readouterr()
    assert main([*words, "--json", "-C", str(shop.root)]) == 0
    return json.loads(capsys.readouterr().out)


def test_many_who_take_at_once_take_one(tmp_path):
    """Threads of one process, each with its own registry: one record, one id."""
    from concurrent.futures import ThreadPoolExecutor

    shop = days(shop_of(tmp_path))

    def take(_: int) -> str:
        with featreg.open(shop.root) as registry:
            return registry.snapshot("orders").id

    with ThreadPoolExecutor(4) as pool:
        ids = set(pool.map(take, range(4)))
    with shop.open() as registry:
        assert ids == {one.id for one in registry.snapshots()} and len(registry.log.records()) == 1
        assert registry.verify_snapshot(ids.pop()).is_sound


def test_doctor_names_what_is_missing_damaged_or_named_by_nothing(tmp_path):
    shop = days(shop_of(tmp_path), 3)
    with shop.open() as registry:
        taken = registry.snapshot("orders").snapshot
        assert not [one for one in registry.doctor() if one.where == "objects"]
        objects = tmp_path / ".featreg" / "objects"
        gone, changed, cut = (objects / file.sha256 for file in taken.files)
        data = changed.read_bytes()
        for path in (changed, cut):
            os.chmod(path, 0o644)
        gone.unlink()
        changed.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        cut.write_bytes(cut.read_bytes()[:-1])
        (objects / ("0" * 64)).write_bytes(b"nothing names it")
        found = {(one.what, one.is_problem) for one in registry.doctor() if one.where == "objects"}
        what = f"snapshot {taken.id[:12]} of 'orders'"
        assert found == {
            (f"{what}: missing or cut off: {taken.files[0].path}, {taken.files[2].path}.", True),
            (f"{what}: damaged: {taken.files[1].path}.", True),
            ("1 that nothing names (16 bytes), as a take that was interrupted leaves them.", False),
        }
        (objects / next(iter(registry.snapshots())).document).unlink()
        assert any("its list of files cannot be read" in one.what for one in registry.doctor())
        for path in (changed, cut):
            path.unlink()
        again = registry.snapshot("orders")  # the source still has it all
        assert again.id == taken.id and registry.verify_snapshot(taken.id).is_sound
        registry.apply_retention()
        assert not [one for one in registry.doctor() if one.where == "objects"]


def take_one(root: str) -> None:
    with featreg.open(root) as registry:
        registry.snapshot("orders")


def test_a_kill_at_any_microsecond_leaves_the_snapshot_or_nothing(tmp_path, request):
    """Each file is replaced by another before each take; whatever a kill left, what is listed is whole, and the next take goes on to
    the numbers of the loop.  `--kills 200` for eighty."""
    rounds, chance = request.config.getoption("--kills") * 2 // 5, random.Random(request.config.getoption("--world-seed"))
    shop, forks = shop_of(tmp_path), Forks(kernel_folder(tmp_path / "kernels"))
    ended, half, known, longest = set(), 0, 0, 1.0

    def replaced(number: int) -> None:
        for day in range(1, 9):
            put(shop, day, [order(1440 * (day - 1) + minute, amount=float(number)) for minute in range(3)])

    try:
        for number in range(rounds + 2):
            replaced(number)
            if number > 1:  # the first two say how long it takes
                ended.add(forks.kill_after(chance.uniform(0, longest), "tests.test_snapshots:take_one", str(tmp_path)))
                with shop.open() as registry:
                    taken = registry.snapshots()
                    for one in taken[known:]:
                        assert not damaged_files(registry.profile, read_snapshot(registry, one.id)[1])
                    assert registry.log.problems() == []
                    known, half = len(taken), half + bool(registry.retention().loose)
            if number < 2 or number % 4 == 3:
                began = time.perf_counter()
                assert forks.run("tests.test_snapshots:take_one", str(tmp_path)) == 0
                longest = time.perf_counter() - began
                assert not list((tmp_path / ".featreg" / "objects").glob(".part-*"))
                with shop.open() as registry:
                    assert list(registry.snapshots()[-1].numbers) == by_hand(sorted((tmp_path / "data").rglob("*.parquet")))
                    registry.apply_retention()
                    assert not [one for one in registry.doctor() if one.where == "objects"]
    finally:
        forks.close()
    assert -signal.SIGKILL in ended and half, "no kill struck while a take was at work"
