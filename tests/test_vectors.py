"""Many vectors at once: a sequence that holds columns, and makes each vector as the read of that one key does."""

import copy
import pickle
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featreg.errors import DataError, RefusedError
from featreg.session import group_reader
from featreg.session.answer import STATUSES, Vectors
from featreg.session.parity import same_bits
from tests.shop import DAILY, ENTITY, ORDERS, PROFILE, RECENT, Shop, at, order

SPEC = (
    ENTITY
    + ORDERS.replace('tie_break="shop"', 'tie_break="shop", stream="until_batch"')
    + RECENT
    + DAILY
    + """
never = FeatureView(name="never", entity=customer, source=orders, freshness=REALTIME,
                    features={"unfilled": agg.count().over("1h"), "kinds": agg.histogram("shop"), "newest": agg.max("bought_at")})
model = FeatureSet(
    name="model",
    features=[recent.all(), daily.all(), recent["n_1d", "last_shop"].on(customer="friend").prefix("friend_"), never.all()],
    request={"budget": "DOUBLE"},
    derived={"afford": "budget - spent_1h", "both": "friend_n_1d + n_1d", "of_none": "unfilled_1h + n_1d"},
)
plain = FeatureSet(
    name="plain",
    features=[recent["top_1h", "last_shop", "cents_1d", "spent", "n_10m", "shops_1d", "spent_1h"], daily.all(), never.all(),
              recent["n_1d", "spent_1h", "last_shop"].on(customer="friend").prefix("friend_")],
)
"""
)
FILLED = ("recent", "daily")
KEYS = [f"c{number}" for number in range(300)] + ["ann", "é\0", "", None, "nobody"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """300 customers of one to a few hundred orders, some of whose cents are beyond BIGINT; a view that no run has filled."""
    dice = random.Random(5)
    shop = Shop(tmp_path_factory.mktemp("vectors"), SPEC, PROFILE + '[online]\nreplay = "1h"\n').applied()
    rows = []
    for number, customer in enumerate(KEYS[:-2]):
        for _ in range(300 if number % 50 == 7 else dice.randint(1, 8)):
            amount = dice.choice([None, 0.1, -1e308, float("nan"), 1e-320, dice.uniform(-9, 9)])
            row = order(dice.uniform(0, 1600), customer, 0.0, dice.choice([None, "", "a", "é"]))
            rows.append(row | {"amount": amount, "cents": dice.choice([None, 1, 2**62])})
    shop.put("one", rows)
    with shop.open() as registry:
        registry.materialize(to=at(1600), views=list(FILLED))
    return shop


@pytest.fixture(scope="module")
def registry(shop: Shop) -> Iterator[Any]:
    with shop.open() as registry:
        yield registry


def asked(customer: str | None, friend: str | None, budget: float | None) -> dict[str, Any]:
    return {"customer": customer, "friend": friend, "budget": budget}


def same(ours: Any, theirs: Any) -> bool:
    names = list(theirs.values)
    return (
        list(ours.values) == names and all(same_bits(ours.values[name], theirs.values[name]) for name in names)
        and (ours.status, ours.cutoff, ours.watermark) == (theirs.status, theirs.cutoff, theirs.watermark)
    )  # fmt: skip


def same_table(ours: pa.Table, theirs: pa.Table) -> bool:
    """As `equals`, but that NaN is NaN."""
    cells = zip(ours.to_pylist(), theirs.to_pylist(), strict=True)
    return ours.schema.equals(theirs.schema) and all(same_bits(tuple(mine.values()), tuple(other.values())) for mine, other in cells)


ROWS = st.lists(
    st.builds(asked, st.sampled_from(KEYS), st.sampled_from(KEYS[:9] + KEYS[-5:]), st.sampled_from([None, 0.0, 1.5, float("inf")])),
    max_size=12,
)


@given(rows=ROWS, moment=st.sampled_from([at(1600), at(1590), at(1900)]), data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_many_are_as_each_alone_and_behave_as_a_list_does(registry: Any, rows: list[Any], moment: Any, data: st.DataObject) -> None:
    """Length, places, slices, iteration, equality and repr are those of the list of single reads; keys may repeat."""
    many = registry.online("model", rows, at=moment)
    one_by_one = [registry.online("model", row, at=moment) for row in rows]  # also: a later read moves nothing that was answered
    assert isinstance(many, Vectors) and len(many) == len(rows) and bool(many) == bool(rows)
    begin, end, step = data.draw(st.tuples(*[st.none() | st.integers(-14, 14)] * 2, st.sampled_from([None, 1, 2, -1, -3])))
    part, wanted = many[begin:end:step], one_by_one[begin:end:step]
    assert len(part) == len(wanted) and all(map(same, part, wanted))
    assert same_table(part.to_arrow(), many.to_arrow().take(pa.array(range(len(rows))[begin:end:step], pa.int64())))
    assert all(map(same, many, one_by_one)) and all(same(many[i], one_by_one[i]) for i in range(-len(rows), len(rows)))
    with pytest.raises(IndexError):
        many[len(rows)]
    assert repr(many) == repr(one_by_one) and [*reversed(many)] == list(many)[::-1]
    assert many == list(many) and list(many) == many and many == many and not many != list(many)
    assert many != [*many, None] and many != "many" and (not rows or many[1:] != many)
    assert many + many == list(many) + many == many + list(many) == list(many) * 2
    assert many.count(many[0] if rows else None) == list(many).count(many[0] if rows else None)


@given(rows=ROWS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_columns_hold_what_the_vectors_do(registry: Any, rows: list[Any]) -> None:
    """To the bit, in declared order, with the types that a training set's columns have; made before any vector is."""
    many = registry.online("model", rows, at=at(1600))
    table, statuses = many.to_arrow(), many.status_to_arrow()
    spine = pa.table({"customer": pa.array(["nobody"]), "friend": pa.array(["nobody"]), "budget": [1.0], "as_of": pa.array([at(1600)])})
    offline = registry.training_set("model", spine, time="as_of").to_arrow()
    assert table.schema.types == [offline.schema.field(name).type for name in table.column_names]
    assert table.column_names == statuses.column_names == list(registry.online("model", asked("ann", "ann", 1.0), at=at(1600)).values)
    for row, vector, status in zip(table.to_pylist(), many, statuses.to_pylist(), strict=True):
        assert all(map(same_bits, row.values(), vector.values.values())) and status == vector.status
    assert same_table(pa.table(many), table) and len(many.to_pandas()) == many.to_polars().height == len(rows)


def test_five_hundred_rows_at_once_are_as_one_by_one(registry: Any) -> None:
    """More keys, words and pushed rows than a read takes at once; every status is among them."""
    dice = random.Random(3)
    rows = [asked(dice.choice(KEYS), dice.choice(KEYS), dice.uniform(-9, 9)) for _ in range(200)]
    rows += [asked(key, key, None) for key in KEYS]
    many = registry.online("model", rows, at=at(1600))
    assert [row for row, vector in zip(rows, many, strict=True) if not same(vector, registry.online("model", row, at=at(1600)))] == []
    stale = registry.online("model", rows[:40], at=at(1700))
    seen = {status for vector in [*many, *stale] for status in vector.status.values()}
    assert seen == set(STATUSES)


@pytest.mark.parametrize("most", [256, 1])
def test_one_row_of_aggregates_alone_is_as_among_many(registry: Any, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a set has a shorter way, which keeps how rows are answered; every status and type is among them."""
    monkeypatch.setattr(group_reader, "_MOST_SHAPES", most)
    assert registry.reader().set_reader("plain").is_plain
    rows = [asked(key, friend, None) for key, friend in zip(KEYS, KEYS[3:] + KEYS[:3])]
    seen = set()
    for moment in (at(1600), at(1590), at(1700)):
        for row, vector in zip(rows, registry.online("plain", rows, at=moment), strict=True):
            alone = registry.online("plain", row, at=moment)
            assert same(alone, vector), row
            seen |= set(alone.status.values())
    assert seen == set(STATUSES)


def test_what_was_answered_stays_as_it_was(shop: Shop) -> None:
    """A push and a hundred reads later: columns and vectors that are looked at only then are those of the read."""
    with shop.open() as registry:
        rows = [asked(key, "ann", 1.0) for key in KEYS[:60]]
        wanted = [registry.online("model", row, at=at(1605)) for row in rows]
        many, columns = registry.online("model", rows, at=at(1605)), registry.online("model", rows, at=at(1605))
        table = columns.to_arrow()
        registry.push("orders", [order(1601 + i / 100, key, 3.0, "zz") for i, key in enumerate(KEYS[:60])])
        for begin in range(100):
            list(registry.online("model", [asked(key, key, 2.0) for key in KEYS[begin : begin + 60]], at=at(1605)))
        assert all(map(same, many, wanted)) and all(map(same, columns, wanted)) and same_table(table, many.to_arrow())
        again = registry.online("model", rows, at=at(1605))
        assert not any(map(same, again, wanted))


def test_every_error_is_raised_by_the_call(registry: Any) -> None:
    good = asked("ann", "ann", 1.0)
    for rows, kind, told in (
        ([good, good | {"customer": 7}], DataError, "is VARCHAR"),
        ([good, {"customer": "ann", "friend": "ann"}], DataError, "request column 'budget' is missing"),
        ([good, good | {"budget": "much"}], DataError, "budget"),
    ):
        with pytest.raises(kind, match=told):
            registry.online("model", rows, at=at(1600))
    with pytest.raises(RefusedError, match="can no longer answer"):
        registry.online("model", [good, good], at=at(10))
    with pytest.raises(DataError, match="no feature set"):
        registry.online("none", [])


def test_vectors_can_be_changed_copied_and_sent(registry: Any) -> None:
    """As those of a list: what is written into one is found there again, and a copy or a pickle is equal."""
    many = registry.online("model", [asked("c1", "c2", 0.5)] * 3, at=at(1600))
    sent = pickle.loads(pickle.dumps(many))
    assert len(sent) == 3 and all(map(same, sent, many)) and same_table(sent.to_arrow(), many.to_arrow())
    many[1].values["n_1d"], many[1].status["n_1d"] = -1, "mine"
    assert many[1].values["n_1d"] == many[1:][0].values["n_1d"] == -1 and many[0].values["n_1d"] != -1 and many[2].status["n_1d"] == "ok"
    assert same(copy.deepcopy(many)[1], many[1]) and same(list(many)[1], many[1])


def test_rows_of_one_key_cost_one_key(shop: Shop) -> None:
    """A thousand candidates for one customer: her records are read once, and the sweep's room stays that of few keys."""
    with shop.open() as registry:
        rows = [asked("c7", KEYS[number % 300], 1.0) for number in range(1000)]
        registry.online("model", rows, at=at(1600))
        reader = registry.reader().set_reader("model")
        names: list[int] = []
        gather = reader.store.gather
        reader.store.gather = lambda parts, take: names.append(sum(part.size for part in parts)) or gather(parts, take)
        try:
            many = registry.online("model", rows, at=at(1600))
        finally:
            del reader.store.gather
        assert names == [2 * (1 + 1 + 300 + 1) + reader.metas.size]
        assert len({tuple(np.asarray(vector.values["n_1d"]).tolist() for vector in many[::97])}) == 1
        room = sum(a.nbytes for lookup in reader.lookups for group in lookup.groups for a in group.sweeper.kept_state)
        assert room < 30_000_000


def test_no_rows_are_no_vectors_with_columns(registry: Any) -> None:
    none = registry.online("model", [])
    assert none == [] and [] == none and not none and none.to_arrow().num_rows == none.status_to_arrow().num_rows == 0
    assert none.to_arrow().schema.equals(registry.online("model", [asked("ann", "ann", 1.0)], at=at(1600)).to_arrow().schema)
