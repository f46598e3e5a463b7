"""Both ways: each field that decides values moves the ids of the features whose values it decides, alone; no other field moves any."""

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featreg.algebra.table import AGGREGATIONS
from featreg.compile import compile_definitions
from featreg.define import Layer, Model
from featreg.load import load_files

SPEC = """
from featreg import REALTIME, Delay, Entity, EventSource, Every, FeatureSet, FeatureView, agg, derive

customer = Entity(name="customer", key={"customer": "VARCHAR"})
orders = EventSource(
    name="orders",
    columns={"customer": "VARCHAR", "buyer": "VARCHAR", "amount": "DOUBLE", "shop": "VARCHAR", "at": "TIMESTAMP", "seen": "TIMESTAMP"},
    event_time="at",
    available=Delay("15m"),
    tie_break="shop",
)
recent = FeatureView(
    name="recent",
    entity=customer.on(customer="buyer"),
    source=orders,
    where="amount > 0",
    freshness=REALTIME,
    hop={"2d": "1h"},
    features={
        "n": agg.count().over("1d", "2d"),
        "spent": agg.sum("amount", where="shop <> 'x'").over("1d"),
        "best": agg.arg_max("shop", by="amount"),
        "top": agg.top_n("amount", 3).over("1d"),
        "shops": agg.histogram("shop", k=2).over("1d"),
        "last": agg.last("shop"),
        "exact": agg.avg("amount").over("1d", hop="exact"),
        "share": derive("spent_1d / n_1d"),
    },
)
daily = FeatureView(
    name="daily", entity=customer.on(customer="buyer"), source=orders, freshness=Every("1d", offset="3h", delay="2h"),
    features={"m": agg.min("amount").over("7d")},
)
model = FeatureSet(name="model", features=[recent["n_1d", "share"]], request={"x": "DOUBLE"}, derived={"y": derive("x / n_1d")})
"""
RECENT = "n_1d n_2d spent_1d best top_1d shops_1d last exact_1d share".split()
EVERYTHING = {f"recent.{name}" for name in RECENT} | {"daily.m_7d"}
AMOUNT = {"recent.spent_1d", "recent.share", "recent.best", "recent.top_1d", "recent.exact_1d"}

MAPPED = 'entity=customer.on(customer="buyer"), source'  # of daily

# Model and field -> (an edit of the spec that changes it alone, the features that mean something else then).
MEANING: dict[str, list[tuple[str, str, set[str]]]] = {
    "Window.micros": [('.over("7d")', '.over("8d")', {"daily.m_7d"})],
    "Window.hop": [('.over("1d", hop="exact")', '.over("1d", hop="1h")', {"recent.exact_1d"})],
    "Aggregate.aggregation": [('agg.last("shop")', 'agg.first("shop")', {"recent.last"})],
    "Aggregate.column": [('agg.last("shop")', 'agg.last("buyer")', {"recent.last"})],
    "Aggregate.by": [('by="amount"', 'by="-amount"', {"recent.best"})],
    "Aggregate.n": [('agg.top_n("amount", 3)', 'agg.top_n("amount", 4)', {"recent.top_1d"})],
    "Aggregate.k": [("k=2", "k=3", {"recent.shops_1d"})],
    "Aggregate.ignore_nulls": [('agg.last("shop")', 'agg.last("shop", ignore_nulls=True)', {"recent.last"})],
    "Aggregate.where": [("shop <> 'x'", "shop <> 'y'", {"recent.spent_1d", "recent.share"})],
    "Aggregate.windows": [('.over("7d")', '.over("8d")', {"daily.m_7d"})],
    "Derived.expression": [('derive("spent_1d / n_1d")', 'derive("n_1d / spent_1d")', {"recent.share"})],
    "Entity.key": [('key={"customer": "VARCHAR"}', 'key={"customer": "VARCHAR", "shop": "VARCHAR"}', EVERYTHING)],
    "EntityOn.entity": [('key={"customer": "VARCHAR"}', 'key={"customer": "VARCHAR", "shop": "VARCHAR"}', EVERYTHING)],
    "EntityOn.mapping": [(MAPPED, "entity=customer, source", {"daily.m_7d"})],
    "Delay.text": [('Delay("15m")', 'Delay("16m")', EVERYTHING)],
    "EventSource.name": [('name="orders"', 'name="sales"', EVERYTHING)],
    "EventSource.columns": [
        ('"amount": "DOUBLE"', '"amount": "BIGINT"', EVERYTHING),  # the view's filter reads it
        ('"shop": "VARCHAR"', '"shop": "BIGINT"', set()),  # does not compile: 'x' is text
    ],
    "EventSource.event_time": [('event_time="at"', 'event_time="seen"', EVERYTHING)],
    "EventSource.available": [
        ('available=Delay("15m")', 'available="seen"', EVERYTHING),
        ('    available=Delay("15m"),\n', "", EVERYTHING),
    ],
    "EventSource.tie_break": [('tie_break="shop"', 'tie_break=["shop", "buyer"]', EVERYTHING)],
    "Every.period": [('Every("1d"', 'Every("2d"', {"daily.m_7d"})],
    "Every.offset": [('offset="3h"', 'offset="4h"', {"daily.m_7d"})],
    "Every.delay": [('delay="2h"', 'delay="1h"', {"daily.m_7d"})],
    "FeatureView.entity": [(MAPPED, "entity=customer, source", {"daily.m_7d"})],
    "FeatureView.source": [('name="orders"', 'name="sales"', EVERYTHING)],
    "FeatureView.features": [('agg.last("shop")', 'agg.first("shop")', {"recent.last"})],
    "FeatureView.where": [('where="amount > 0"', 'where="amount >= 0"', EVERYTHING - {"daily.m_7d"})],
    "FeatureView.freshness": [("freshness=REALTIME", 'freshness=Every("1h")', EVERYTHING - {"daily.m_7d"})],
    "FeatureView.hop": [('hop={"2d": "1h"}', 'hop={"2d": "2h"}', {"recent.n_2d"})],
}  # fmt: skip
# What a set means is which features and derived values it has; these have ids of their own.
OF_SETS = {"Selection.view", "Selection.names", "Selection.mapping", "ViewReference.view", "FeatureSet.features", "FeatureSet.request"}
OF_SETS |= {"FeatureSet.derived"}

# Model and field -> an edit that changes it alone, and no id.
NO_MEANING: dict[str, tuple[str, str]] = {
    "Window.text": ('.over("7d")', '.over("168h")'),
    "Aggregate.suffixed": ('agg.last("shop")', 'agg.last("shop").over(None)'),
    "Aggregate.description": ('agg.last("shop")', 'agg.last("shop", description="The newest.")'),
    "Aggregate.tags": ('agg.last("shop")', 'agg.last("shop", tags=["new"])'),
    "Derived.description": ('derive("spent_1d / n_1d")', 'derive("spent_1d / n_1d", description="A share.")'),
    "Derived.tags": ('derive("spent_1d / n_1d")', 'derive("spent_1d / n_1d", tags=["new"])'),
    "Entity.name": ('name="customer"', 'name="client"'),
    "Entity.owner": ('name="customer"', 'name="customer", owner="crm"'),
    "Entity.description": ('name="customer"', 'name="customer", description="Who buys."'),
    "Entity.tags": ('name="customer"', 'name="customer", tags=["new"]'),
    "EventSource.max_rejected": ('event_time="at"', 'event_time="at", max_rejected=9'),
    "EventSource.stream": ('event_time="at"', 'event_time="at", stream="until_batch"'),
    "EventSource.starts": ('event_time="at"', 'event_time="at", starts="2020-01-01"'),
    "EventSource.partition": ('event_time="at"', 'event_time="at", partition="day"'),
    "EventSource.retention": ('event_time="at"', 'event_time="at", retention="90d"'),
    "EventSource.owner": ('event_time="at"', 'event_time="at", owner="crm"'),
    "EventSource.description": ('event_time="at"', 'event_time="at", description="What was bought."'),
    "EventSource.tags": ('event_time="at"', 'event_time="at", tags=["new"]'),
    "Selection.prefix_text": ('recent["n_1d", "share"]', 'recent["n_1d"], recent["share"].prefix("r_")'),
    "Selection.renames": ('recent["n_1d", "share"]', 'recent["n_1d", "share"].rename(share="part")'),
    "FeatureView.name": ('name="daily"', 'name="nightly"'),
    "FeatureView.owner": ('name="daily"', 'name="daily", owner="crm"'),
    "FeatureView.description": ('name="daily"', 'name="daily", description="By night."'),
    "FeatureView.tags": ('name="daily"', 'name="daily", tags=["new"]'),
    "FeatureSet.name": ('name="model"', 'name="churn"'),
    "FeatureSet.owner": ('name="model"', 'name="model", owner="crm"'),
    "FeatureSet.description": ('name="model"', 'name="model", description="Who leaves."'),
    "FeatureSet.tags": ('name="model"', 'name="model", tags=["new"]'),
}


def ids(spec: str) -> dict[str, str]:
    return dict(compile_definitions(load_files({"features/shop.py": spec.encode()})).feature_ids())


def edited(old: str, new: str) -> str:
    assert SPEC.count(old) >= 1, old
    return SPEC.replace(old, new)


def fields(*layers: Layer) -> set[str]:
    def all_models(base: type[Model]) -> "list[type[Model]]":
        return [model for one in base.__subclasses__() for model in (one, *all_models(one))]

    models = [model for model in all_models(Model) if model.__module__.startswith("featreg.")]
    found = [(f"{model.__name__}.{name}", field) for model in models for name, field in model.model_fields.items()]
    return {name for name, field in found if set(layers) & set(field.metadata)}


def test_every_field_is_tried() -> None:
    """A new field without a line above fails here: say what it moves, or that it moves nothing."""
    assert fields(Layer.MEANING) == MEANING.keys() | OF_SETS
    assert fields(Layer.LAYOUT, Layer.META) == NO_MEANING.keys()


@pytest.mark.parametrize("field", MEANING)
def test_a_field_that_decides_values_moves_exactly_the_features_it_decides(field: str) -> None:
    before = ids(SPEC)
    assert set(before) == EVERYTHING
    for old, new, moved in MEANING[field]:
        if not moved:
            with pytest.raises(Exception, match="VARCHAR"):
                ids(edited(old, new))
            continue
        after = ids(edited(old, new))
        assert {name for name in before if after.get(name) != before[name]} == moved, (old, new)
        assert not set(after.values()) & {before[name] for name in moved}


@pytest.mark.parametrize("field", NO_MEANING)
def test_a_field_for_storage_or_for_people_moves_nothing(field: str) -> None:
    old, new = NO_MEANING[field]
    after = ids(edited(old, new))
    assert list(after.values()) == list(ids(SPEC).values())
    assert edited(old, new) != SPEC


def test_a_column_that_nothing_reads_and_a_view_beside_it_move_nothing() -> None:
    assert ids(edited('"at": "TIMESTAMP"', '"other": "BIGINT", "at": "TIMESTAMP"')) == ids(SPEC)
    more = 'FeatureView(name="more", entity=customer, source=orders, freshness=REALTIME, features={"q": agg.count()})'
    assert ids(f"{SPEC}more = {more}\n").items() >= ids(SPEC).items()


@given(seed=st.integers(0, 1 << 32))
def test_order_names_comments_and_formatting_move_nothing(seed: int) -> None:
    """The spec's lines of features in any order and under any names, with comments and blanks anywhere between tokens of the file."""
    chance = random.Random(seed)
    begin, end = SPEC.index('        "n": agg'), SPEC.index('        "share": derive')
    lines = SPEC[begin:end].splitlines(keepends=True)
    chance.shuffle(lines)
    spec = SPEC[:begin] + "".join(lines) + SPEC[end:]
    names = {name: name for name in ("n", "spent", "best", "top", "shops", "last", "exact", "share")}
    for name in ("best", "last", "top", "exact", "share"):  # those that nothing else names
        if chance.random() < 0.5 and name != "share":
            names[name] = f"f{chance.randrange(1000)}_{name}"
            spec = spec.replace(f'        "{name}": ', f'        "{names[name]}": ')
    spec = "".join(f"{line}  # {chance.random()}\n" if chance.random() < 0.3 else f"{line}\n" for line in spec.split("\n"))
    spec = re.sub(r", ", lambda found: chance.choice((", ", ",  ", ",")), spec)
    spellings = ("amount>0", "amount  >  0", "(amount > 0)", "AMOUNT > 0", "amount /* so */ > 0", "amount > 0.0")
    spec = spec.replace("amount > 0", chance.choice(spellings))
    after = ids(spec)
    renamed = {f"recent.{name}{suffix}": f"recent.{new}{suffix}" for name, new in names.items() for suffix in ("", "_1d", "_2d")}
    assert after == {renamed.get(name, name): identity for name, identity in ids(SPEC).items()}


EDITS = [(field, i) for field, tried in MEANING.items() for i, one in enumerate(tried) if one[2]]


@given(edits=st.lists(st.sampled_from(EDITS), unique=True, max_size=4))
def test_edits_together_move_what_they_move_apart(edits: list[tuple[str, int]]) -> None:
    """Several edits at once: what none of them moves has its id, and what one moves has another than before."""
    spec, moved, before = SPEC, set(), ids(SPEC)
    for field, i in edits:
        old, new, features = MEANING[field][i]
        if old in spec:
            spec, moved = spec.replace(old, new), moved | features
    after = ids(spec)
    assert {name for name in before if after.get(name) != before[name]} == moved


def test_the_table_of_ids_has_every_aggregation() -> None:
    """So no change of one's code moves its ids in silence.  (tests/test_revisions.py compares the table.)"""
    from tests.test_revisions import EVERY_AGGREGATION

    views = load_files({"features/all.py": EVERY_AGGREGATION.encode()}).views.values()
    used = {getattr(output.spec, "aggregation", "derive") for view in views for output in view.outputs}
    assert used == {*AGGREGATIONS, "derive"}
    golden = json.loads((Path(__file__).parent / "golden_ids.json").read_text())["every aggregation"]
    assert set(golden) == {f"{view.name}.{output.name}" for view in views for output in view.outputs}
