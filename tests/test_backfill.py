"""The ways through a backfill: rows held in shares or sorted by the engine, windows by tiles or by spans, give the same bits."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featreg
from featreg.plan import offline
from featreg.session import training_set
from featreg.sweep import backfill, sweeper

DAY = 86_400_000_000
SPEC = """
from featreg import Delay, Entity, EventSource, FeatureSet, FeatureView, agg
user = Entity(name="user", key={{"user": "VARCHAR", "place": "BIGINT"}})
events = EventSource(
    name="events",
    columns={{
        "user": "VARCHAR", "place": "BIGINT", "at": "TIMESTAMP", "seen": "TIMESTAMP", "x": "DOUBLE", "n": "BIGINT", "word": "VARCHAR",
    }},
    event_time="at",
    {available}
)
view = FeatureView(name="view", entity=user, source=events, features={{
    "rows": agg.count().over("1h", "1d", "30d", None),
    "some": agg.count("x").over("2m", "90d"),
    "sum": agg.sum("x").over("1h", "7d", "45d", None),
    "exact": agg.sum("x").over("3d", hop="exact"),
    "whole": agg.sum("n").over("1h", "20d"),
    "low": agg.min("x").over("1h", "7d", "45d"),
    "high": agg.max("n").over("7d"),
    "spread": agg.var("x").over("1d", "45d"),
    "many": agg.sum("n", where="x > 20").over("1d", "30d"),
    "last": agg.last("word").over("1d", "30d"),
    "kinds": agg.count_distinct("word").over("1d", "30d", None),
    {more}
}})
all_of_it = FeatureSet(name="all", features=[view.all()])
"""
MORE = '"first": agg.first("word").over("7d"), "top": agg.top_n("n", n=3).over("1d"), "words": agg.histogram("word").over("7d"),'


@pytest.fixture(autouse=True)
def few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backfill of few rows goes the way of many: rows held in shares, windows by spans."""
    monkeypatch.setattr(offline, "SMALL_ROWS", 0)


def events_of(rows: int, late: float) -> pa.Table:
    """In order of event time, a few keys with most rows, sums that lose bits; a share of rows that is seen days later."""
    rng = np.random.default_rng(5)
    at = np.sort(rng.integers(0, 120 * DAY // 1_000_000, rows)) * 1_000_000
    x = np.where(rng.random(rows) < 0.01, rng.choice([1e300, -1e300, 1e-300, 3e16], rows), np.round(rng.lognormal(3, 1, rows), 2))
    seen = at + np.where(rng.random(rows) < late, rng.integers(0, 9 * DAY, rows), 60_000_000)
    return pa.table({
        "user": pa.array([f"user {key}" for key in rng.zipf(1.3, rows) % 200]),
        "place": pa.array(rng.integers(0, 3, rows), mask=rng.random(rows) < 0.01),
        "at": pa.array(at, pa.timestamp("us")),
        "seen": pa.array(seen, pa.timestamp("us")),
        "x": pa.array(x, mask=rng.random(rows) < 0.05),
        "n": pa.array(rng.integers(-(1 << 40), 1 << 40, rows)),
        "word": pa.array([f"a word of kind {kind}" for kind in rng.integers(0, 30, rows)], mask=rng.random(rows) < 0.05),
    })  # fmt: skip


def spine_of(rows: int) -> pa.Table:
    rng = np.random.default_rng(6)
    return pa.table({
        "user": pa.array([f"user {key}" for key in rng.zipf(1.3, rows) % 250], mask=rng.random(rows) < 0.02),
        "place": pa.array(rng.integers(0, 4, rows), mask=rng.random(rows) < 0.02),
        "as_of": pa.array(rng.integers(-86_400, 130 * DAY // 1_000_000, rows) * 1_000_000, pa.timestamp("us")),
    })  # fmt: skip


@pytest.mark.parametrize("more", ["", MORE], ids=["spans", "tiles"])
@pytest.mark.parametrize(
    "available, late", [("", 0.0), ('available=Delay("10m"),', 0.0), ('available="seen",', 0.0), ('available="seen",', 0.01)],
    ids=["at once", "delay", "in order", "late"],
)  # fmt: skip
def test_every_way_through_a_backfill_gives_the_same_bits(tmp_path, monkeypatch, available, late, more):
    """Tiles over rows that the engine sorts, which random worlds judge too, against spans, and shares, one or many, in many buckets."""
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "view.py").write_text(SPEC.format(available=available, more=more))
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "local.toml").write_text("[duckdb]\nthreads = 2\n")
    events, spine = events_of(30_000, late), spine_of(3_000)
    plans: list[offline.OfflinePlan] = []

    def filled(change=lambda plan: plan) -> pa.Table:
        def planned(*arguments):
            plans.append(change(offline.plan_backfill(*arguments)))
            return plans[-1]

        with monkeypatch.context() as patch, featreg.open(tmp_path) as registry:
            patch.setattr(training_set, "plan_backfill", planned)
            return registry.training_set("all", spine, time="as_of", draft=True, sources={"events": events}).to_arrow()

    with monkeypatch.context() as patch:
        patch.setattr(backfill, "program_in_order", lambda program: None)
        sorted_by_engine = filled(lambda plan: replace(plan, room=0))
        tiles = filled()
    one_share = filled()
    many_shares = filled(lambda plan: replace(plan, bucket_rows=1_000_000))
    with monkeypatch.context() as patch:
        patch.setattr(sweeper, "MUCH", 0)  # what a share's keys took is given back after each
        room_given_back = filled(lambda plan: replace(plan, bucket_rows=1_000_000))
    monkeypatch.setattr(offline, "BUCKET_BYTES", offline.BUCKET_BYTES // 4_000)
    buckets = filled()
    assert len(plans[-1].buckets) > 5
    for found in (tiles, one_share, many_shares, room_given_back, buckets):
        assert found.equals(sorted_by_engine)
    assert sorted_by_engine["rows_30d"].to_numpy().max() > 500


def test_a_spine_in_a_file_of_many_row_groups_keeps_its_order(tmp_path):
    """Rows come back as they stand in the file, whichever thread reads which of its row groups first."""
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "view.py").write_text(SPEC.format(available="", more=""))
    spine = pa.concat_tables([spine_of(1_000)] * 400).append_column("number", pa.array(range(400_000)))
    pq.write_table(spine, tmp_path / "spine.parquet", row_group_size=1_000)
    with featreg.open(tmp_path) as registry:
        found = registry.training_set("all", "spine.parquet", time="as_of", draft=True, sources={"events": events_of(100, 0.0)}).to_arrow()
    assert found["number"].to_pylist() == list(range(400_000))
