"""What a change costs and what it does to values, before it is done: compared with what it then costs and does."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featreg.cli import main
from featreg.errors import UsageError
from featreg.session.values import QUANTILES
from tests.shop import REALTIME_SHOP, WHOLE_SHOP, Shop, at, order, spine_of

CUSTOMERS = [f"c{number}" for number in range(40)]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """Forty customers, each buying five times, ten minutes apart; every fourth amount of the first is not known."""
    shop = Shop(tmp_path).commit().applied()
    shop.put(
        "one",
        [
            order(10 * time + number / 60, customer, amount=None if time == 0 and number % 4 == 0 else 1.0 + number, shop="ab"[time % 2])
            for number, customer in enumerate(CUSTOMERS)
            for time in range(5)
        ],
    )
    yield shop


def rewrite(shop: Shop, *edits: tuple[str, str]) -> None:
    spec = REALTIME_SHOP
    for old, new in edits:
        assert old in spec
        spec = spec.replace(old, new)
    (shop.root / "features" / "shop.py").write_text(spec)


def by_name(plan: Any) -> dict[str, Any]:
    return {one.name: one for one in plan.values}


def test_values_of_both_versions_on_the_same_rows(shop: Shop) -> None:
    more = ('agg.sum("amount")', 'agg.sum("coalesce(amount, 0.0) + 1")')
    rewrite(shop, more, ('"n": agg.count()', '"n": agg.count(where="shop = \'b\'")'))
    with shop.open() as registry:
        found = by_name(registry.plan(values=200))
    assert set(found) == {"recent.spent_1h", "recent.spent_1d", "recent.spent", "recent.n_10m", "recent.n_1d", "recent.share"}
    spent = found["recent.spent_1d"]
    # As of a microsecond after each row: the k-th row of a customer sees k rows, so the sum grows by k; ten first ones were NULL.
    assert (spent.rows, spent.changed, spent.nulls_before, spent.nulls_after) == (200, 200, 10, 0)
    assert spent.quantiles == (1.0, 1.0, 3.0, 5.0, 5.0)  # 1 to 5, each 40 times but 30 ones, where there were two numbers
    n = found["recent.n_1d"]
    # Of k = 1 to 5 rows those at times 1 and 3 are of shop b: 0 1 1 2 2, where there were 1 2 3 4 5.
    assert (n.rows, n.changed, n.nulls_before, n.nulls_after) == (200, 200, 0, 0) and n.quantiles == (-3.0, -3.0, -2.0, -1.0, -1.0)
    share = found["recent.share"]
    assert share.nulls_before == 0 and share.nulls_after == 40  # 0 / 0 in the first row of each
    example = spent.examples[0]
    assert (example.key, example.as_of, example.before, example.after) == ({"customer": "c0"}, "2024-03-01T00:00:00.000001Z", None, 1.0)


def test_the_sample_is_of_the_size_asked_for_and_the_same_every_time(shop: Shop) -> None:
    rewrite(shop, ('agg.last("shop")', 'agg.first("shop")'))
    with shop.open() as registry:
        first, second = registry.plan(values=50).values, registry.plan(values=50).values
        assert first == second and first[0].rows == 50 and first[0].quantiles == () and 0 < first[0].changed < 50
        assert {example.before for example in first[0].examples} | {example.after for example in first[0].examples} == {"a", "b"}
        with pytest.raises(UsageError, match="1 or more"):
            registry.plan(values=0)
        assert registry.plan().values == ()


def test_they_are_the_values_that_training_gives_before_and_after(shop: Shop) -> None:
    """Every cell that a sample of all rows says differs is one that differs between two training sets."""
    edit = ('agg.top_n("amount", 3).over("1h", hop="exact")', 'agg.top_n("amount", 2).over("1h")')
    moments = {customer: [at(10 * time + number / 60) for time in range(5)] for number, customer in enumerate(CUSTOMERS)}
    spine = pa.concat_tables([spine_of([{"customer": customer}], moment) for customer, all_of in moments.items() for moment in all_of])
    column = pa.compute.add(spine["as_of"].cast(pa.int64()), 1).cast(pa.timestamp("us", "UTC"))
    spine = spine.set_column(1, "as_of", column)
    with shop.open() as registry:
        before = registry.training_set("model", spine, time="as_of").to_arrow()["top_1h"].to_pylist()
        rewrite(shop, edit)
        after = registry.training_set("model", spine, time="as_of", draft=True).to_arrow()["top_1h"].to_pylist()
        (found,) = registry.plan(values=1000).values
    assert found.changed == sum(was != now for was, now in zip(before, after)) > 0
    assert (found.nulls_before, found.nulls_after) == (before.count(None), after.count(None))


def test_a_new_feature_has_values_and_another_key_has_no_comparison(shop: Shop) -> None:
    rewrite(shop, ('"last_shop"', '"largest": agg.max("amount").over("1d"), "last_shop"'))
    with shop.open() as registry:
        (found,) = registry.plan(values=200).values
        assert (found.name, found.changed, found.nulls_before, found.nulls_after) == ("recent.largest_1d", None, None, 10)
        # 190 values, sorted: 1 four times, 2, 3 and 4 five times, 5 four times ...: 19 for each four.
        # The 10th is 3, the 95th 20, the 181st 39.
        assert found.quantiles == (1.0, 3.0, 20.0, 39.0, 40.0)
    rewrite(shop, ('key={"customer": "VARCHAR"}', 'key={"shop": "VARCHAR"}'))
    with shop.open() as registry:
        notes = {one.note for one in registry.plan(values=20).values}
        assert notes == {"the key is another one, so the versions answer different questions"}


def test_diff_and_plan_show_them(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(shop.root)
    rewrite(shop, ('agg.sum("cents")', 'agg.sum("cents + 1")'))

    def run(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == code
        printed = capsys.readouterr()
        return printed.out + printed.err

    told = "recent.cents_1d: 190 of 200 rows differ (95 %), NULL 10 → 10; after - before: min 1, 5 % 1, median 3, 95 % 5, max 5"
    assert told in run("plan", "--values", "200") and told in run("diff", "HEAD", "--values", "200")
    assert "customer=c" in run("plan", "--values", "200")
    assert f"- values: {told}" in run("plan", "--values", "200", "--format", "markdown")
    (value,) = json.loads(run("diff", "HEAD", "--values", "200", "--json"))["values"]
    assert value["quantiles"] == dict(zip(map(str, QUANTILES), (1.0, 1.0, 3.0, 5.0, 5.0))) and len(value["examples"]) == 3
    assert value["examples"][0]["key"].keys() == {"customer"}


# What it costs


def test_what_must_be_computed_is_told_from_the_last_receipts(shop: Shop) -> None:
    rewrite(shop, ('"last_shop"', '"largest": agg.max("amount").over("1d"), "last_shop"'))
    with shop.open() as registry:
        (unknown,) = registry.plan().work
        assert (unknown.rows, unknown.keys, unknown.bytes, unknown.seconds, unknown.rebuilds) == (200, None, None, None, False)
        (receipt,) = registry.materialize(to=at(100))
        (work,) = registry.plan().work
        features = sum(feature.aggregation != "" for feature in registry.applied().compiled.views["recent"].features)
        assert (work.view, work.features, work.source, work.rows, work.keys) == ("recent", ("largest_1d",), "orders", 200, 40)
        assert work.bytes == round(receipt.bytes / features) and work.seconds == pytest.approx(receipt.seconds, abs=0.002)
        assert not work.rebuilds
        registry.apply()
        (filled,) = registry.materialize(to=at(100))
        assert filled.rows == 200  # as the plan said: what was there is not computed again


def test_a_view_of_which_most_means_something_else_is_filled_anew(shop: Shop) -> None:
    with shop.open() as registry:
        registry.materialize(to=at(100))
        rewrite(shop, ("source=orders,\n    freshness", 'source=orders,\n    where="amount > 2",\n    freshness'))
        (work,) = registry.plan().work
        assert work.rebuilds and len(work.features) == 9


def test_a_new_view_costs_what_another_of_its_source_did(shop: Shop) -> None:
    with shop.open() as registry:
        registry.materialize(to=at(100))
        (shop.root / "features" / "shop.py").write_text(WHOLE_SHOP)
        (work,) = registry.plan().work
        assert (work.view, work.keys, work.rebuilds) == ("daily", 40, False) and work.bytes and work.seconds
