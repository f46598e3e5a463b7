"""An explanation says what runs: its SQL is executed, its spans and sizes are held against brute force."""

import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import featreg
from featreg.cli.explain import measure_view
from featreg.compile import compile_definitions
from featreg.compile.compiled import CompiledView
from featreg.compile.program import build_program
from featreg.engines.duckdb import DuckDB
from featreg.instants import DAY, HOUR, MINUTE, SECOND
from featreg.load import load_files
from featreg.plan.explain import (
    duration_words,
    explain_set,
    explain_view,
    features_read,
    freshness_text,
    program_id,
    readable_sql,
)

SPEC = """
from featreg import Delay, Entity, EventSource, Every, FeatureSet, FeatureView, agg, derive

shop = Entity(name="shop", key={"shop": "VARCHAR"})
sales = EventSource(
    name="sales",
    columns={"shop": "VARCHAR", "sold_at": "TIMESTAMP", "loaded_at": "TIMESTAMP", "amount": "DOUBLE", "what": "VARCHAR"},
    event_time="sold_at",
    available="loaded_at",
)
takings = FeatureView(
    name="takings",
    entity=shop,
    source=sales,
    where="what <> 'gift  (FROM, ''us'')'",
    features={
        "sales": agg.count().over("1h", "1d"),
        "taken": agg.sum("amount").over("1h", "1d"),
        "large": agg.count(where="amount > 50").over("1d"),
        "last_what": agg.last("what"),
        "mean_1d": derive("taken_1d / sales_1d"),
    },
)
exactly = FeatureView(
    name="exactly",
    entity=shop,
    source=sales,
    freshness=Every("1d", offset="5h", delay="2h"),
    features={"taken": agg.sum("amount").over("1h", hop="exact"), "seen": agg.count().over("2d", hop="30m")},
)
model = FeatureSet(name="model", features=[takings["mean_1d", "last_what"], exactly.all().prefix("x_")], request={"basket": "DOUBLE"},
    derived={"ratio": "basket / mean_1d"})
"""
START = datetime(2024, 3, 1)


def shop_at(folder: Path, rows: list[dict]) -> Path:
    """A repository with these sales."""
    for name in ("features", "conf", "data"):
        (folder / name).mkdir(parents=True)
    (folder / "features" / "shop.py").write_text(SPEC)
    (folder / "conf" / "local.toml").write_text('[sources]\nsales = "data/sales.parquet"\n')
    instant = pa.timestamp("us")
    fields = {"shop": pa.string(), "sold_at": instant, "loaded_at": instant, "amount": pa.float64(), "what": pa.string()}
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(list(fields.items()))), folder / "data" / "sales.parquet")
    return folder


def sale(minute: int, shop: str | None = "a", amount: float | None = 1.0, what: str = "tea", late: int = 1) -> dict:
    sold = START + timedelta(minutes=minute)
    return {"shop": shop, "sold_at": sold, "loaded_at": sold + timedelta(minutes=late), "amount": amount, "what": what}


ROWS = [
    sale(0),
    sale(7, amount=60.0),
    sale(90, "b", 3.5, late=600),
    sale(200, None),
    sale(300, "b", None),
    sale(400, "a", 2.0, "gift  (FROM, 'us')"),
    sale(2000, "c", -0.0),
]


@pytest.fixture
def registry(tmp_path: Path):
    with featreg.open(shop_at(tmp_path, ROWS)) as opened:
        opened.apply()
        yield opened


def view_of(name: str) -> CompiledView:
    return compile_definitions(load_files({"features/shop.py": SPEC.encode()})).views[name]


def explained(registry, name: str):
    view = registry.compile().views[name]
    relation = registry.engine.location("sales", "data/sales.parquet", registry.root)
    return explain_view(view, relation, registry.profile.replay, measure_view(registry, view, relation))


def test_the_printed_scan_gives_the_rows_that_a_query_by_hand_gives(registry):
    """Executed as printed: key, visible instant, and the amounts that the filter lets through."""
    connection = duckdb.connect()
    printed = connection.execute(readable_sql(explained(registry, "takings").scan_sql)).fetchall()
    by_hand = connection.execute(
        f"""SELECT shop, epoch_us(greatest(sold_at, loaded_at)) FROM '{registry.root}/data/sales.parquet'
        WHERE shop IS NOT NULL AND what <> 'gift  (FROM, ''us'')'"""
    ).fetchall()
    assert sorted(row[:2] for row in printed) == sorted(by_hand)
    assert len(by_hand) == 5


def test_the_offline_sql_is_what_a_training_set_executes(registry, monkeypatch):
    """A spine over everything that was measured runs the text of the offline plan, letter by letter."""
    view = registry.compile().views["exactly"]
    plan = explained(registry, "exactly")
    assert plan.measure is not None
    executed = record_sql(monkeypatch)
    moments = [at + view.cadence.period for at in (plan.measure.first, plan.measure.last)]
    cutoffs = [view.cadence.cutoff(at) for at in moments]
    plan = explain_view(
        view,
        registry.engine.location("sales", "data/sales.parquet", registry.root),
        measure=replace(plan.measure, first=min(cutoffs), last=max(cutoffs) - 1),
    )
    spine = pa.table({"shop": ["a", "b"], "basket": [1.0, 2.0], "at": pa.array(moments, pa.timestamp("us"))})
    registry.training_set("model", spine, time="at")
    assert plan.offline.buckets[0] in executed
    assert len(plan.offline.buckets) == 1


def test_the_online_sql_is_what_a_first_materialize_executes(registry, monkeypatch):
    """Bringing an empty store to just behind the newest row runs the text of the online plan, letter by letter."""
    plan = explained(registry, "takings")
    assert plan.measure is not None
    executed = record_sql(monkeypatch)
    registry.materialize(plan.measure.last + 1, ["takings"])
    assert plan.online.sql in executed


def record_sql(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that the engine streams rows of, as it happens."""
    executed: list[str] = []
    batches = DuckDB.batches

    def recording(self, sql: str, *rest, **named):
        executed.append(sql)
        return batches(self, sql, *rest, **named)

    monkeypatch.setattr(DuckDB, "batches", recording)
    return executed


def test_offline_and_online_fold_into_the_same_partials():
    """What a backfill, a materialization and a read build their partials from has one identity; another window is another."""
    view = view_of("takings")
    explanation = explain_view(view)
    names = [feature.name for feature in view.features if feature.aggregation]
    read = build_program(view, wanted=names, presence=True)
    assert explanation.offline.program == explanation.online.program == program_id(read)
    assert explain_view(view_of("exactly")).online.program != explanation.online.program


def test_every_feature_stands_in_the_program_or_the_finish():
    """No feature is left out, and each aggregate names a partial that names it back."""
    view = view_of("takings")
    explanation = explain_view(view)
    assert {line.name for line in (*explanation.features, *explanation.finish)} == {feature.name for feature in view.features}
    for line in explanation.features:
        assert line.name in explanation.partials[line.partial].features
    assert explanation.finish[0].uses == ("sales_1d", "taken_1d")


@pytest.mark.parametrize("name", ["takings", "exactly"])
def test_the_span_is_what_windows_cover_at_every_second(name):
    """Least and most history over cutoffs of two days, by the membership rule written out, are the span to the second."""
    for line in explain_view(view_of(name)).features:
        if line.span is None:
            continue
        window = {"1h": HOUR, "1d": DAY, "2d": 2 * DAY}[line.window]
        hop = {"exact": 1, "1m": MINUTE, "30m": 30 * MINUTE}[line.hop]
        cutoffs = [base + step for base in range(0, 2 * DAY, 97 * SECOND) for step in (0, hop - 1)] + [hop, window, window + hop - 1]
        spans = [cutoff - (cutoff - window) // hop * hop for cutoff in cutoffs]
        assert line.span == (min(spans), max(spans))


def test_a_key_takes_no_more_bytes_than_the_plan_says(tmp_path):
    """Two days of a sale each half minute: the store holds at most the promised tiles, and at least half of them."""
    rows = [sale(0) | {"sold_at": (at := START + timedelta(seconds=30 * i)), "loaded_at": at} for i in range(2 * 2880)]
    with featreg.open(shop_at(tmp_path, rows)) as registry:
        registry.apply()
        promised = explained(registry, "takings").online.bytes_per_key
        receipt = registry.materialize(START + timedelta(days=2, hours=1), ["takings"])[0]
    assert receipt.keys == 1 and promised is not None
    assert promised / 2 < receipt.bytes < promised + 1000  # the newest text, the head and the view's own record


def test_without_a_location_the_source_is_read_as_declared():
    """The SQL then runs over a table of the source's name with the declared types."""
    explanation = explain_view(view_of("takings"))
    assert not explanation.located and explanation.measure is None
    connection = duckdb.connect()
    connection.execute("CREATE TABLE sales (shop VARCHAR, sold_at TIMESTAMP, loaded_at TIMESTAMP, amount DOUBLE, what VARCHAR)")
    connection.execute("INSERT INTO sales VALUES ('a', '2024-03-01', '2024-03-02', 1.5, 'tea')")
    assert len(connection.execute(readable_sql(explanation.scan_sql)).fetchall()) == 1


def test_an_exact_window_is_warned_of_unless_its_keys_are_known_to_be_small(registry):
    """No measure warns; seven rows do not; a busy key does and is named by its number."""
    assert "exact window" in explain_view(view_of("exactly")).warnings[0]
    calm = explained(registry, "exactly")
    assert calm.warnings == () and calm.online.bytes_per_key is None
    busy = explain_view(view_of("exactly"), None, 0, replace(calm.measure, busiest=10_001))
    assert "10,001" in busy.warnings[0]


def test_a_set_explains_what_it_reads_of_each_view():
    """Only the features that are read, and what they are derived from."""
    compiled = compile_definitions(load_files({"features/shop.py": SPEC.encode()}))
    read = features_read(compiled.sets["model"])
    views = tuple(explain_view(compiled.views[view], names=names) for view, names in read.items())
    explanation = explain_set(compiled.sets["model"], views, {"takings": ("shop",), "exactly": ("shop",)})
    assert [lookup.view for lookup in explanation.lookups] == ["takings", "exactly"]
    assert {line.name for line in explanation.views[0].features} == {"sales_1d", "taken_1d", "last_what"}
    assert explanation.lookups[1].features == (("taken_1h", "x_taken_1h"), ("seen_2d", "x_seen_2d"))
    assert explanation.finish[0].expression == "basket / mean_1d"
    assert explanation.request == (("basket", "DOUBLE"),)


@given(
    st.lists(st.sampled_from(["SELECT", " FROM ", "(", ")", ", ", " WHERE ", "'a  FROM (b, ''c'' '", '"x "" ,  y"', "abc", " UNION ALL "]))
)
def test_layout_changes_white_space_between_tokens_and_nothing_else(parts):
    """Quoted texts stay to the letter; everything else is the same but for white space."""
    sql = "".join(parts)
    quoted = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
    laid_out = readable_sql(sql)
    assert quoted.findall(laid_out) == quoted.findall(sql)
    words = re.compile(r"\w+|[^\w\s]")
    assert words.findall(quoted.sub("?", laid_out)) == words.findall(quoted.sub("?", sql))


def test_words_for_durations_and_freshness():
    """As a person says them."""
    assert duration_words(28 * DAY + 12 * HOUR) == "28d 12h"
    assert duration_words(1) == "1us"
    assert freshness_text(view_of("exactly").cadence) == "every 1d offset 5h delay 2h"
    assert freshness_text(view_of("takings").cadence) == "realtime"
