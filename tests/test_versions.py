"""Nothing that a model was trained on moves, and a new meaning is served only when all of it is there."""

import json
import random
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featreg.cli import main
from featreg.errors import RefusedError, UsageError
from featreg.registry.log import Record
from featreg.registry.state import fold
from featreg.session.keys import SERVED_KEY, STAMP_KEY
from featreg.session.serving import read_serving
from featreg.session.store import open_store
from tests.shop import REALTIME_SHOP, Shop, at, difference, order, spine_of

ANN = [{"customer": "ann"}]
DOUBLED = REALTIME_SHOP.replace('agg.sum("amount")', 'agg.sum("amount * 2")')
NOW = at(60)


def shop_with(tmp_path: Path, spec: str = REALTIME_SHOP) -> Shop:
    """Ann spent 1 + 2 + 4 within the hour."""
    shop = Shop(tmp_path, spec).commit().applied()
    shop.put("one", [order(10, amount=1.0), order(20, amount=2.0, shop="b"), order(30, amount=4.0)])
    return shop


def rewrite(shop: Shop, spec: str) -> Shop:
    (shop.root / "features" / "shop.py").write_text(spec)
    return shop.commit().applied()


def spent(registry: Any, **options: Any) -> tuple[Any, str]:
    vector = registry.online("model", ANN[0], at=NOW, **options)
    return vector.values["spent_1h"], vector.status["spent_1h"]


def values_of(shop: Shop) -> dict[bytes, bytes]:
    """The store without the pointer to what is served."""
    return {key: value for key, value in shop.stored().items() if key not in (STAMP_KEY, SERVED_KEY)}


def trained(registry: Any, **options: Any) -> float:
    return registry.training_set("model", spine_of(ANN, NOW), time="as_of", **options).to_arrow()["spent_1h"][0].as_py()


def test_a_new_meaning_is_served_when_it_is_filled_and_the_old_one_until_then(tmp_path: Path) -> None:
    shop = shop_with(tmp_path)
    with shop.open() as registry, shop.open() as long_open:
        registry.materialize(to=NOW)
        assert spent(registry) == spent(long_open) == (7.0, "ok")
        rewrite(shop, DOUBLED)
        with shop.open() as fresh:
            assert spent(fresh) == (7.0, "ok")
            with pytest.raises(UsageError, match="not filled yet"):
                fresh.parity("model")
            fresh.materialize(to=NOW)
            assert _soon(lambda: spent(fresh)) == (14.0, "ok")
            assert fresh.parity("model").is_known
        assert _soon(lambda: spent(long_open)) == (14.0, "ok")


def _soon(read: Any) -> Any:
    """What is read when the reader has looked again at what is applied."""
    threading.Event().wait(0.1)
    return read()


def test_a_feature_that_is_gone_from_the_set_is_served_until_the_rest_is_filled(tmp_path: Path) -> None:
    shop = shop_with(tmp_path)
    with shop.open() as registry:
        registry.materialize(to=NOW)
        rewrite(shop, DOUBLED.replace('        "last_shop": agg.last("shop"),\n', ""))
        assert registry.online("model", ANN[0], at=NOW).values["last_shop"] == "a"
        registry.materialize(to=NOW)
        assert "last_shop" not in _soon(lambda: registry.online("model", ANN[0], at=NOW)).values


def test_readers_during_a_switch_see_one_version_or_the_other(tmp_path: Path) -> None:
    """Never a mixture: every answer of a reader that goes on all the time is the old vector or the new one, whole."""
    shop = shop_with(tmp_path)
    with shop.open() as registry:
        registry.materialize(to=NOW)
        old = registry.online("model", ANN[0], at=NOW).values
        seen: list[dict[str, Any]] = []
        done = threading.Event()

        def read() -> None:
            with shop.open() as reader:
                while not done.is_set():
                    vector = reader.online("model", ANN[0], at=NOW).values
                    if not seen or seen[-1] != vector:
                        seen.append(vector)

        thread = threading.Thread(target=read)
        thread.start()
        rewrite(shop, DOUBLED)
        with shop.open() as second:
            second.materialize(to=NOW)
            new = _soon(lambda: second.online("model", ANN[0], at=NOW).values)
        _soon(done.set)
        thread.join()
    assert old["spent_1h"] == 7.0 and new["spent_1h"] == 14.0
    assert seen == [old, new]


def test_a_rollback_serves_what_was_there_before_and_computes_nothing(tmp_path: Path) -> None:
    shop = shop_with(tmp_path)
    with shop.open() as registry:
        registry.materialize(to=NOW)
        with pytest.raises(UsageError, match="nothing to go back to"):
            registry.rollback()
        rewrite(shop, DOUBLED)
        registry.materialize(to=NOW)
        stored = values_of(shop)
        record = registry.rollback()
        assert record.body["again"] == 1 and values_of(shop) == stored
        assert _soon(lambda: spent(registry)) == (7.0, "ok")
        assert trained(registry) == 7.0
        registry.rollback(2)
        assert _soon(lambda: spent(registry)) == (14.0, "ok")
        with pytest.raises(UsageError, match="nothing was applied at generation 9"):
            registry.rollback(9)


def test_a_pin_means_the_same_for_ever(tmp_path: Path) -> None:
    """Offline and online, after other meanings were applied and filled, in a process that opens the repository anew."""
    shop = shop_with(tmp_path)
    with shop.open() as registry:
        registry.materialize(to=NOW)
        pin = registry.pin("delay:1", "model")
        assert registry.pin("delay:1", "model") == pin
    rewrite(shop, DOUBLED)
    with shop.open() as registry:
        registry.materialize(to=NOW)
        registry.pin("delay:2", "model")
        assert (trained(registry), trained(registry, pin="delay:1"), trained(registry, pin="delay:2")) == (14.0, 7.0, 14.0)
        assert spent(registry, pin="delay:1") == (7.0, "ok") and spent(registry, pin="delay:2") == (14.0, "ok")
        assert registry.training_set("model", spine_of(ANN, NOW), time="as_of", pin="delay:1").manifest["features"] == dict(pin.features)


def test_a_run_fills_what_is_pinned_too(tmp_path: Path) -> None:
    """A pinned model goes on learning of new rows after its features mean something else for everybody else."""
    shop = shop_with(tmp_path)
    with shop.open() as registry:
        registry.materialize(to=at(25))
        registry.pin("delay:1", "model")
        rewrite(shop, DOUBLED)
        receipts = registry.materialize(to=NOW)
        # What the pin reads is what the new meaning is built upon, so the first run has filled it too.
        assert [(one.view, one.rows) for one in receipts] == [("recent", 3), ("recent@delay:1", 0)]
        assert spent(registry, pin="delay:1") == (7.0, "ok")
        shop.put("two", [order(70, amount=8.0)])
        (only,) = registry.materialize(to=at(80), views=["recent@delay:1"])
        assert (only.view, only.rows) == ("recent@delay:1", 1)
        registry.rollback()
        assert [one.view for one in registry.materialize(to=at(90))] == ["recent"]


def test_cleaning_up_deletes_only_what_nothing_reaches(tmp_path: Path) -> None:
    """Of six meanings the applied one, the one before it and the pinned one stay, to the byte, and what all of them are built upon."""
    shop = shop_with(tmp_path)
    with shop.open() as registry:
        registry.materialize(to=NOW)
    for factor in range(2, 7):
        rewrite(shop, REALTIME_SHOP.replace('agg.sum("amount")', f'agg.sum("amount * {factor}")'))
        with shop.open() as registry:
            registry.materialize(to=NOW)
            if factor == 3:
                registry.pin("delay:3", "model")
    with shop.open() as registry:
        before = values_of(shop)
        found = registry.gc()
        assert len(found) == 2 and all(one.entries > 0 and one.bytes > 0 for one in found) and values_of(shop) == before
        assert registry.gc(delete=True) == found and registry.gc() == []
        after = values_of(shop)
        assert after.items() <= before.items()
        assert len(before) - len(after) == sum(one.entries for one in found) + 2  # and of each its record
        assert spent(registry) == (42.0, "ok") and spent(registry, pin="delay:3") == (21.0, "ok")
        registry.rollback()
        assert _soon(lambda: spent(registry)) == (35.0, "ok")


def test_pins_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    shop = shop_with(tmp_path)
    with shop.open() as registry:
        registry.pin("delay:1", "model")
        rewrite(shop, DOUBLED)
        with pytest.raises(RefusedError, match="A pin never moves"):
            registry.pin("delay:1", "model")
        for name, text in (("delay", "MODEL:VERSION"), ("de lay:1", "MODEL:VERSION")):
            with pytest.raises(UsageError, match=text):
                registry.pin(name, "model")
        with pytest.raises(UsageError, match="there is no feature set 'modle'"):
            registry.pin("delay:2", "modle")
        with pytest.raises(UsageError, match="Did you mean 'delay:1'"):
            trained(registry, pin="delay:11")
        with pytest.raises(UsageError, match="give one"):
            trained(registry, pin="delay:1", draft=True)


def test_numbers_follow_meanings_and_an_earlier_one_has_its_number_again() -> None:
    def applied(generation: int, identity: str) -> Record:
        return Record(generation, "apply", 0, "me", {"ids": {"v.f": identity}})

    records = [applied(1, "a"), applied(2, "b"), applied(3, "a")]
    assert fold(records[:2]).current_versions == {"v.f": 2}
    assert fold(records).current_versions == {"v.f": 1}
    assert fold(records).version("v.f", "b") == 2 and fold(records).version("v.f", "c") is None
    assert fold(records).versions == {"v.f": {"a": 1, "b": 2}}
    assert fold(()).current_versions == {}


def test_pin_and_rollback_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shop = shop_with(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == code
        printed = capsys.readouterr()
        return printed.out + printed.err

    assert "nothing is pinned yet" in run("pin", "ls")
    assert "pinned" in run("pin", "create", "delay:1", "--set", "model")
    assert "nothing to go back to" in run("rollback", code=2)
    rewrite(shop, DOUBLED)
    assert [(pin["name"], pin["set"], pin["generation"]) for pin in json.loads(run("pin", "ls", "--json"))] == [("delay:1", "model", 1)]
    run("materialize", "--to", NOW.isoformat())
    get = ("get", "model", "customer=ann", "--at", NOW.isoformat(), "--json")
    assert json.loads(run(*get))["values"]["spent_1h"] == 14.0
    assert json.loads(run(*get, "--pin", "delay:1"))["values"]["spent_1h"] == 7.0
    assert "which is generation 1 again" in run("rollback")


# Column groups


WIDE = """
from featreg import REALTIME, Entity, EventSource, FeatureSet, FeatureView, agg, derive
customer = Entity(name="customer", key={{"customer": "VARCHAR"}})
orders = EventSource(
    name="orders",
    columns={{"customer": "VARCHAR", "amount": "DOUBLE", "cents": "BIGINT", "shop": "VARCHAR",
              "bought_at": "TIMESTAMP", "loaded_at": "TIMESTAMP"}},
    event_time="bought_at", available="loaded_at",
)
wide = FeatureView(name="{view}", entity=customer, source=orders, freshness=REALTIME, features={{{features}}})
model = FeatureSet(name="model", features=[wide.all()])
"""
TEN = [f'"spent_{hours}": agg.sum("amount").over("{hours}h")' for hours in range(1, 11)]


def wide(*features: str, view: str = "wide") -> str:
    return WIDE.format(features=", ".join(features), view=view)


def many_orders(seed: int) -> list[dict[str, Any]]:
    dice = random.Random(seed)
    return [order(dice.randrange(600), f"customer{dice.randrange(9)}", dice.random(), dice.choice("abc")) for _ in range(900)]


CUSTOMERS = [{"customer": f"customer{number}"} for number in range(9)] + [{"customer": "nobody"}]


def test_a_view_that_gains_a_feature_computes_that_one_and_is_read_whole(tmp_path: Path) -> None:
    """What was filled stays to the byte; the new feature and the older ones answer as the training set does, derived ones of both too."""
    shop = Shop(tmp_path, wide(*TEN)).applied()
    shop.put("one", many_orders(1))
    with shop.open() as registry:
        (first,) = registry.materialize(to=at(600))
        before = values_of(shop)
        rewrite(shop, wide(*TEN, '"last": agg.last("shop")', '"each": derive("spent_1_1h / spent_10_10h")'))
        assert "last" not in registry.online("model", CUSTOMERS[0], at=at(600)).values
        (second,) = registry.materialize(to=at(600))
        after = values_of(shop)
        assert before.items() <= after.items() and second.rows == first.rows and second.bytes < first.bytes / 2
        assert list(registry.online("model", CUSTOMERS[0], at=at(600)).values)[-2:] == ["last", "each"]
        assert difference(registry, CUSTOMERS, [at(600), at(595)], at(600)) is None
        shop.put("two", [order(610, "customer1"), order(20, "customer2", loaded=620)])
        registry.materialize(to=at(630))
        assert difference(registry, CUSTOMERS, [at(630), at(625)], at(630)) is None
        assert registry.parity("model", sample=20).differing == 0


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=5, unique=True), min_size=1, max_size=4), st.randoms())
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_features_come_and_go_the_store_answers_as_the_training_set(states: list[list[int]], dice: random.Random) -> None:
    """Views gain, lose and change features, are renamed, and are filled in steps: never more than two groups, and never another value."""
    pool = [
        '"n": agg.count().over("1h", "1d")', '"spent": agg.sum("amount").over("2h")', '"top": agg.top_n("cents", n=2).over("3h")',
        '"last_shop": agg.last("shop")', '"shops": agg.count_distinct("shop").over("1d")', '"mean": agg.avg("amount", where="cents > 20")',
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        shop, now = Shop(Path(folder), wide(*(pool[one] for one in states[0]))), 100
        for number, chosen in enumerate(states):
            rewrite(shop, wide(*(pool[one] for one in chosen), view=f"wide{number % 2}"))
            shop.put(f"part{number}", [
                order(now + dice.randrange(100), f"customer{dice.randrange(9)}", dice.random(), dice.choice("abc")) for _ in range(60)
            ])  # fmt: skip
            now += 100
            with shop.open() as registry:
                registry.materialize(to=at(now))
                assert difference(registry, CUSTOMERS, [at(now), at(now - 9)], at(now)) is None
                with open_store(registry.profile) as store:
                    assert all(len(groups) <= 2 for groups in read_serving(store)[1].views.values())
                registry.gc(delete=True)
                assert difference(registry, CUSTOMERS, [at(now)], at(now)) is None


def test_a_rebuild_makes_one_group_of_a_view(tmp_path: Path) -> None:
    shop = Shop(tmp_path, wide(*TEN)).applied()
    shop.put("one", many_orders(2))
    with shop.open() as registry:
        registry.materialize(to=at(600))
        rewrite(shop, wide(*TEN, '"last": agg.last("shop")'))
        registry.materialize(to=at(600))
        view = registry.applied().compiled.views["wide"]
        with open_store(registry.profile) as store:
            assert len(read_serving(store)[1].groups(view)) == 2
            registry.materialize(to=at(600), rebuild=True)
            assert len(read_serving(store)[1].groups(view)) == 1
        assert difference(registry, CUSTOMERS, [at(600)], at(600)) is None


def test_a_feature_that_is_renamed_or_moved_is_not_computed_again(tmp_path: Path) -> None:
    shop = Shop(tmp_path, wide(*TEN)).applied()
    shop.put("one", many_orders(3))
    with shop.open() as registry:
        registry.materialize(to=at(600))
        before = values_of(shop)
        rewrite(shop, wide(*(text.replace("spent", "paid") for text in reversed(TEN)), view="narrow"))
        (again,) = registry.materialize(to=at(600))
        assert (again.rows, again.bytes) == (0, 0) and values_of(shop) == before
        assert next(iter(registry.online("model", CUSTOMERS[0], at=at(600)).values)) == "paid_10_10h"
        assert difference(registry, CUSTOMERS, [at(600)], at(600)) is None


def test_a_group_is_not_built_upon_when_the_source_reads_a_column_otherwise(tmp_path: Path) -> None:
    """A column gets another type: what was computed of the old one stays as it was, so that going back answers as it did."""
    counts = [f'"n_{hours}": agg.count().over("{hours}h")' for hours in range(1, 9)]
    after = wide(*counts, '"spent": agg.sum("cents").over("1d")')
    before = after.replace('"cents": "BIGINT"', '"cents": "DOUBLE"')
    shop = Shop(tmp_path, before).applied()
    shop.put("one", [order(10, "customer1", 1.0), order(20, "customer1", 2.0)])
    with shop.open() as registry:
        registry.materialize(to=at(60))
    rewrite(shop, after)
    shop.put("two", [order(70, "customer1", 4.0)])
    with shop.open() as registry:
        registry.materialize(to=at(120))
        registry.rollback()
        registry.materialize(to=at(120))
        assert registry.online("model", CUSTOMERS[1], at=at(120)).values["spent_1d"] == 700.0
        assert difference(registry, CUSTOMERS, [at(120)], at(120)) is None
