"""A training set can be made again to the bit, or it is said what is gone: on a shop, and as one story on a year of flights."""

import json
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import featreg
from featreg.cli import main
from featreg.cli.flights import prepare_flights
from featreg.errors import CoverageError, DataError, RefusedError, UsageError
from tests.shop import REALTIME_SHOP, Shop, at, order, spine_of
from tests.test_snapshots import PROFILE, put

ANN = [{"customer": "ann"}]
SPEC = REALTIME_SHOP.replace('tie_break="shop",', 'tie_break="shop", partition="day=%Y-%m-%d", starts="2024-03-01",')


def shop_of(tmp_path: Path, spec: str = SPEC) -> Shop:
    shop = Shop(tmp_path, spec, PROFILE).applied()
    for day in (1, 2, 3):
        put(shop, day, [order(1440 * (day - 1) + minute, amount=0.1 * minute + 0.7) for minute in range(5)])
    return shop


def made(registry: Any, out: Path, **options: Any) -> str:
    ts = registry.training_set("model", spine_of(ANN, at(1440 * 2 + 60)), time="as_of", **options)
    ts.write(out)
    return ts.manifest["id"]


def test_a_training_set_is_made_again_from_what_the_log_holds(tmp_path):
    """The file, the source and the specs are all gone; its bytes come back."""
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        registry.snapshot("orders")
        identity = made(registry, tmp_path / "train.parquet")
        written = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "train.parquet").unlink()
    for path in (tmp_path / "data").rglob("*.parquet"):
        path.unlink()
    (tmp_path / "features" / "shop.py").write_text(SPEC.replace('agg.sum("amount")', 'agg.sum("amount * 2")'))
    with shop.applied().open() as registry:
        found = registry.reproduce(identity[:10], out=tmp_path / "again.parquet")
    assert found.identical and found.same_bytes and not found.differences
    assert (tmp_path / "again.parquet").read_bytes() == written
    assert json.loads((tmp_path / "again.parquet.manifest.json").read_text())["id"] == identity


def test_a_spine_comes_back_whatever_lies_under_its_nulls(tmp_path):
    """NULLs with something in their place, slices of them, NULLs in lists and records: what the rows are, and no more, is compared."""
    shop = shop_of(tmp_path)
    hidden = pa.array(np.arange(6), mask=np.array([True, False] * 3))
    lists, record = pa.array([[1, None], None, [], [2], None, [3, 4]]), pa.array([{"a": 1, "b": None}, None] * 3)
    rows = {"customer": ["ann", None] * 3, "hidden": hidden, "lists": lists, "record": record, "as_of": [at(1440 * 2 + 60)] * 6}
    spine = pa.table(rows).slice(1)
    with shop.open() as registry:
        registry.snapshot("orders")
        ts = registry.training_set("model", spine, time="as_of")
        ts.write(tmp_path / "train.parquet")
        assert registry.reproduce(ts.manifest["id"]).identical
        other = spine.set_column(1, "hidden", pa.array([1, None, 2, None, 5]))
        assert registry.training_set("model", other, time="as_of").manifest["spine"] != ts.manifest["spine"]
        same = spine.set_column(1, "hidden", pa.array([1, None, 3, None, 5]))
        assert registry.training_set("model", same, time="as_of").manifest["id"] == ts.manifest["id"]


def test_it_is_named_by_what_it_contains(tmp_path):
    """Made twice it is one; other rows, another spine or another instant of knowledge make another."""
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        taken = registry.snapshot("orders")
        first = made(registry, tmp_path / "a.parquet")
        assert made(registry, tmp_path / "b.parquet", snapshot=taken.id) == first
        known = made(registry, tmp_path / "c.parquet", known_at=at(1440))
        put(shop, 3, [order(1440 * 2, amount=9.0)])
        registry.snapshot("orders")
        other = made(registry, tmp_path / "d.parquet")
        listed = registry.control().training_sets
        assert len({first, known, other}) == 3 and set(listed) == {first, known, other}
        assert len(listed[first].manifests) == 2


def test_as_known_then_is_recorded_and_made_again(tmp_path):
    """A late row that came since is in neither: the manifest says up to when rows counted."""
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        put(shop, 2, [order(1440 + 1), order(1440 + 200, amount=50.0, loaded=1440 * 2 + 30)])
        registry.snapshot("orders")
        identity = made(registry, tmp_path / "then.parquet", known_at=at(1440 * 2 + 10))
        manifest = json.loads((tmp_path / "then.parquet.manifest.json").read_text())
        assert manifest["asked"]["known_at"] == "2024-03-03T00:10:00Z"
        assert pq.read_table(tmp_path / "then.parquet")["spent_1d"].to_pylist() != registry.training_set(
            "model", spine_of(ANN, at(1440 * 2 + 60)), time="as_of"
        ).to_arrow()["spent_1d"].to_pylist()
        assert registry.reproduce(identity).identical


def test_what_was_read_live_without_a_snapshot_is_told_file_by_file(tmp_path):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        identity = made(registry, tmp_path / "train.parquet")
        assert registry.reproduce(identity).identical  # the files are still those
        put(shop, 2, [order(1440)])
        next((tmp_path / "data" / "day=2024-03-03").iterdir()).unlink()
        with pytest.raises(CoverageError) as raised:
            registry.reproduce(identity)
    assert [(str(one.kind), one.partition) for one in raised.value.verdicts] == [
        ("CONTENT_DRIFT", "data/day=2024-03-02/a.parquet"),
        ("PARTITION_MISSING", "data/day=2024-03-03/a.parquet"),
    ]


def test_a_snapshot_taken_since_of_the_very_files_keeps_what_was_read_live(tmp_path):
    """So a training set holds it as if it had been read: the one that is left of the same files."""
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        identity = made(registry, tmp_path / "train.parquet")
        taken = registry.snapshot("orders").id
        put(shop, 2, [order(1440)])
        assert registry.reproduce(identity).identical
        assert [one.held_by for one in registry.retention().replays] == [taken]
        with pytest.raises(RefusedError, match=rf"held by training set {identity[:12]}"):
            registry.remove_snapshot(taken)
        registry.remove_snapshot(registry.snapshot("orders").id)  # of the files as they are now: nothing was made of it


def test_rows_that_were_handed_in_cannot_come_back(tmp_path):
    shop = shop_of(tmp_path)
    table = pa.concat_tables(pq.ParquetFile(path).read() for path in sorted((tmp_path / "data").rglob("*.parquet")))
    with shop.open() as registry:
        identity = made(registry, tmp_path / "train.parquet", sources={"orders": table})
        with pytest.raises(CoverageError, match=r"SNAPSHOT_GONE orders all: expected the rows that were handed in"):
            registry.reproduce(identity)


def test_other_rows_are_explained(tmp_path, monkeypatch):
    """As if a library computed otherwise: the definition, the library and the columns that moved are named."""
    import featreg.session.keeping as keeping

    shop = shop_of(tmp_path)
    with shop.open() as registry:
        registry.snapshot("orders")
        monkeypatch.setattr("featreg.session.manifest.version", lambda name: "0.9" if name == "duckdb" else "1.0")
        ts = registry.training_set("model", spine_of(ANN, at(1440 * 2 + 60)), time="as_of")
        column = ts.table.column_names.index("spent_1d")
        other = ts.table.set_column(column, "spent_1d", pa.array([0.5]))
        assert isinstance(ts.keeper, keeping.Keeper)
        facts = {**ts.facts, "features": {**ts.facts["features"], "n_1d": "0" * 64}}
        whole = ts.keeper.named(other, facts)
        ts.keeper.write(other, whole, tmp_path / "train.parquet")
        monkeypatch.undo()
        found = registry.reproduce(whole["id"])
    assert not found.identical and found.columns == {"spent_1d": 1}
    told = {one.kind: one.what for one in found.differences}
    assert "n_1d means something else" in told["definition"] and told.keys() == {"definition", "library"}
    assert any(one.what.startswith("duckdb 0.9 → 2.") for one in found.differences)


def test_a_snapshot_that_a_training_set_or_a_pin_holds_stays(tmp_path):
    shop = shop_of(tmp_path)
    _commit(tmp_path)
    with shop.applied().open() as registry:
        taken = registry.snapshot("orders").id
        identity = made(registry, tmp_path / "train.parquet")
        registry.pin("churn:1", "model", tmp_path / "train.parquet")
        with pytest.raises(RefusedError, match=rf"held by pin churn:1, training set {identity[:12]}"):
            registry.remove_snapshot(taken)


def test_a_removed_training_set_lets_go_of_its_snapshot_and_leaves_a_tombstone(tmp_path):
    """Refused while a pin was trained on it; made again, it is the same one, back again."""
    shop = shop_of(tmp_path)
    _commit(tmp_path)
    with shop.applied().open() as registry:
        taken = registry.snapshot("orders").id
        identity = made(registry, tmp_path / "train.parquet")
        registry.pin("churn:1", "model", tmp_path / "train.parquet")
        with pytest.raises(RefusedError, match=rf"training set {identity[:12]} of 'model' is what churn:1 was trained on"):
            registry.remove_training_set(identity)
        registry.unpin("churn:1")
        objects = tmp_path / ".featreg" / "objects"
        before = {path.name for path in objects.iterdir()}
        kept, freed = registry.remove_training_set(identity[:8])
        gone = before - {path.name for path in objects.iterdir()}
        assert gone == {*kept.manifests, *kept.objects} and freed > 0
        assert (tmp_path / "train.parquet").is_file()
        with pytest.raises(DataError, match=rf"training set {identity[:12]} of 'model' was removed at .* it had 1 rows"):
            registry.reproduce(identity)
        with pytest.raises(DataError, match="was removed at"):
            registry.remove_training_set(identity)
        assert [one.removed_at is not None for one in registry.training_sets()] == [True]
        assert not registry.retention().replays
        assert made(registry, tmp_path / "again.parquet") == identity and registry.reproduce(identity).same_bytes
        with pytest.raises(RefusedError, match="held by training set"):
            registry.remove_snapshot(taken)
        registry.remove_training_set(identity)
        registry.remove_snapshot(taken)
        assert not [path for path in objects.iterdir() if len(path.name) == 64]
        assert not [one for one in registry.doctor() if one.is_problem]


def test_a_revision_s_training_set_keeps_its_specs(tmp_path):
    """Opened at a commit, nothing applied: the spec files are kept beside the training set."""
    shop = Shop(tmp_path, SPEC, PROFILE)
    for day in (1, 2, 3):
        put(shop, day, [order(1440 * (day - 1) + minute) for minute in range(5)])
    _commit(tmp_path)
    with featreg.open(tmp_path, revision="HEAD") as registry:
        registry.snapshot("orders")
        identity = made(registry, tmp_path / "train.parquet")
    with shop.open() as registry:
        assert registry.reproduce(identity).identical


def test_a_draft_is_written_and_kept_nowhere(tmp_path):
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        ts = registry.training_set("model", spine_of(ANN, at(1440 * 2)), time="as_of", draft=True)
        ts.write(tmp_path / "draft.parquet")
        assert not registry.control().training_sets and "id" not in ts.manifest
        with pytest.raises(UsageError, match="no training set is called 'abcdef'"):
            registry.reproduce("abcdef")


def test_a_spine_column_without_a_form_is_left_out_of_the_id(tmp_path):
    shop = shop_of(tmp_path)
    spine = spine_of(ANN, at(1440 * 2 + 60)).append_column("note", pa.array([{"any": 1}]))
    with shop.open() as registry:
        registry.snapshot("orders")
        ts = registry.training_set("model", spine, time="as_of")
        ts.write(tmp_path / "train.parquet")
        assert ts.manifest["left_out"] == ["customer", "as_of", "note"]
        assert registry.reproduce(ts.manifest["id"]).identical


def test_the_command_line_reproduces_and_lists(tmp_path, capsys):
    shop = shop_of(tmp_path)
    pq.write_table(spine_of(ANN, at(1440 * 2 + 60)), tmp_path / "asked.parquet")

    def said(*words: str) -> Any:
        capsys.readouterr()
        assert main([*words, "--json", "-C", str(tmp_path)]) == 0
        return json.loads(capsys.readouterr().out)

    taken = said("snapshot", "take", "orders")
    words = ("training-set", "model", "--spine", str(tmp_path / "asked.parquet"), "--time", "as_of")
    written = said(*words, "--out", str(tmp_path / "train.parquet"), "--snapshot", taken["id"])
    assert written["manifest"]["snapshots"] == {"orders": taken["id"]}
    assert [one["id"] for one in said("ls", "training-sets")] == [written["id"]]
    put(shop, 3, [order(1440 * 2)])
    again = said("reproduce", written["id"][:12], "--out", str(tmp_path / "again.parquet"))
    assert again["identical"] and again["same_bytes"] and again["content_id"] == written["manifest"]["content_id"]
    assert main(["reproduce", written["id"], "--live", "-C", str(tmp_path)]) == 3
    assert "CONTENT_DRIFT orders day=2024-03-03" in capsys.readouterr().err
    assert said("training-set", "rm", written["id"][:12])["bytes_freed"] > 0
    assert said("ls", "training-sets")[0]["removed_at"] is not None
    assert main(["training-set", "rm", "--time", "at", "--out", "t.csv", "--spine", "s.csv", "-C", str(tmp_path)]) == 2
    assert "there is no feature set 'rm'" in capsys.readouterr().err  # a set may be called that


def _commit(root: Path) -> None:
    (root / ".gitignore").write_text(".featreg/\ndata/\n*.parquet*\n")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "specs"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *words], cwd=root, check=True, capture_output=True)


# The story

FLIGHTS = """
from featreg import REALTIME, Entity, EventSource, FeatureSet, FeatureView, agg, derive

aircraft = Entity(name="aircraft", key={"tailnum": "VARCHAR"})
departures = EventSource(
    name="departures",
    columns={"departed_at": "TIMESTAMP", "tailnum": "VARCHAR", "carrier": "VARCHAR", "flight": "BIGINT", "origin": "VARCHAR",
             "dest": "VARCHAR", "dep_delay": "DOUBLE"},
    event_time="departed_at", tie_break=("carrier", "flight"),
    partition="year=%Y/month=%m", starts="2013-01-01", retention="90d",
)
delays = FeatureView(name="delays", entity=aircraft, source=departures, freshness=REALTIME, features={
    "flights": agg.count().over("7d", "30d"),
    "avg_delay": agg.avg("dep_delay").over("30d"),
    "worst": agg.top_n("dep_delay", 3).over("30d"),
    "last_origin": agg.last("origin").over("30d"),
    "dests": agg.histogram("dest", k=3).over("30d"),
    "late_share_30d": derive("avg_delay_30d / flights_30d"),
})
delay_model = FeatureSet(name="delay_model", features=[delays.all()])
"""


def _month(root: Path, month: int) -> Path:
    return root / "data" / "departures" / "year=2013" / f"month={month:02}"


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    """A repository whose departures lie in a file a day, by month; and the hours before 2,000 flights of the year."""
    root = tmp_path_factory.mktemp("flights")
    tables = prepare_flights(tmp_path_factory.mktemp("tables"))
    departures = pq.read_table(tables["departures"])
    for month in range(1, 13):
        mine = departures.filter(pc.equal(pc.month(departures["departed_at"]), month))
        mine = mine.filter(pc.equal(pc.year(mine["departed_at"]), 2013))
        _month(root, month).mkdir(parents=True)
        for part, low in enumerate((1, 11, 21)):
            day = pc.day(mine["departed_at"])
            some = pc.and_(pc.greater_equal(day, low), pc.less(day, low + (10 if part < 2 else 99)))
            pq.write_table(mine.filter(some), _month(root, month) / f"part-{part}.parquet")
    schedule = pq.read_table(tables["schedule"], columns=["tailnum", "predict_at"]).drop_null()
    asked = schedule.take(pa.array(range(0, schedule.num_rows, schedule.num_rows // 2000)))
    asked = asked.filter(pc.less(asked["predict_at"], pa.scalar(datetime(2013, 12, 30), asked.schema.field("predict_at").type)))
    pq.write_table(asked, root / "asked.parquet")
    (root / "features").mkdir()
    (root / "features" / "delays.py").write_text(FLIGHTS)
    (root / "conf").mkdir()
    (root / "conf" / "local.toml").write_text('[sources]\ndepartures = "data/departures/**/*.parquet"\n')
    _commit(root)
    return root


def test_the_whole_story_on_real_flights(flights):
    """Take, pin, train; the source is cut to 90 days, compacted, and a partition overwritten.  The snapshot gives the same bytes;
    without it the verdicts say which months are gone, which are rewritten with the same rows, and which have other rows."""
    root = flights
    with featreg.open(root) as registry:
        registry.apply()
        taken = registry.snapshot("departures").snapshot
        assert taken.numbers.count == sum(pq.read_metadata(path).num_rows for path in (root / "data").rglob("*.parquet"))
        ts = registry.training_set("delay_model", root / "asked.parquet", time="predict_at", snapshot=taken.id)
        ts.write(root / "train.parquet")
        written, identity = (root / "train.parquet").read_bytes(), ts.manifest["id"]
        registry.pin("delay:1", "delay_model", root / "train.parquet")

        for month in range(1, 10):  # cut: 90 days before the end of the year is the 2nd of October
            for path in _month(root, month).iterdir():
                path.unlink()
        november = [pq.ParquetFile(path).read() for path in sorted(_month(root, 11).iterdir())]
        for path in _month(root, 11).iterdir():
            path.unlink()
        pq.write_table(pa.concat_tables(reversed(november)), _month(root, 11) / "compacted.parquet", compression="zstd", row_group_size=999)
        path = _month(root, 12) / "part-1.parquet"
        december = pq.ParquetFile(path).read()
        changed = pc.if_else(pc.equal(pc.day(december["departed_at"]), 15), pc.add(december["dep_delay"], 1.0), december["dep_delay"])
        fifteenth = pc.sum(pc.equal(pc.day(december["departed_at"]), 15)).as_py()
        pq.write_table(december.set_column(december.column_names.index("dep_delay"), "dep_delay", changed), path)

        found = registry.reproduce(identity, out=root / "again.parquet")
        assert found.identical and found.same_bytes and (root / "again.parquet").read_bytes() == written

        with pytest.raises(CoverageError) as raised:
            registry.reproduce(identity, live=True)
        verdicts = {(str(one.kind), one.partition): one for one in raised.value.verdicts}
        missing = [("PARTITION_MISSING", f"year=2013/month={month:02}") for month in range(1, 10)]
        assert set(verdicts) == {*missing, ("REWRITTEN_SAME", "year=2013/month=11"), ("CONTENT_DRIFT", "year=2013/month=12")}
        assert f"rows +{fifteenth:,} −{fifteenth:,}" in verdicts["CONTENT_DRIFT", "year=2013/month=12"].found
        assert [one.partition for one in raised.value.coverage.failing if str(one.kind) == "REWRITTEN_SAME"] == []

        # What needs neither a month that is gone nor the one that was overwritten is made from the location, compacted or not.
        november_only = pq.read_table(root / "asked.parquet").filter(
            pc.equal(pc.month(pq.read_table(root / "asked.parquet")["predict_at"]), 11)
        )
        live = registry.training_set("delay_model", november_only, time="predict_at")
        kept = registry.training_set("delay_model", november_only, time="predict_at", snapshot=taken.id)
        assert live.manifest["content_id"] == kept.manifest["content_id"] and live.to_arrow().equals(kept.to_arrow())
        with pytest.raises(RefusedError, match="held by pin delay:1"):
            registry.remove_snapshot(taken.id)
