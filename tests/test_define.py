"""What an author writes becomes frozen data, and what cannot be meant is refused with every fault at once."""

import subprocess
import sys
from pathlib import Path

import pytest

import featreg
from featreg import REALTIME, Delay, Entity, EventSource, Every, FeatureSet, FeatureView, UsageError, agg, derive, instants, view
from featreg.define import Aggregate, Layer, Model, Window
from featreg.expressions import analyze
from featreg.instants import DAY, HOUR, MINUTE, SECOND, Cadence
from featreg.vocabulary import parse_type

aircraft = Entity(name="aircraft", key={"tailnum": "VARCHAR"})
airport = Entity("airport", {"airport": "VARCHAR"})
departures = EventSource(
    name="departures",
    columns={"tailnum": "VARCHAR", "origin": "VARCHAR", "dep_delay": "DOUBLE", "departed_at": "TIMESTAMP", "loaded_at": "TIMESTAMP"},
    event_time="departed_at",
    available="loaded_at",
)


def delay_view(**changes):
    given = {"entity": aircraft, "source": departures, "features": {"flights": agg.count().over("1d", "7d")}}
    return FeatureView("aircraft_delay", **(given | changes))


def refusal(make) -> str:
    with pytest.raises(UsageError) as caught:
        make()
    return str(caught.value)


@pytest.mark.parametrize("digits", [21, 5_000])
def test_a_number_of_more_digits_than_python_reads_is_refused_like_any_other(digits):
    """A duration, a type, a literal: UsageError, and leading zeros are only zeros."""
    number = "9" * digits
    refusal(lambda: instants.parse_duration(f"{number}d"))
    refusal(lambda: parse_type(f"DECIMAL({number},2)"))
    refusal(lambda: analyze(f"x + {number}", {"x": parse_type("BIGINT")}))
    assert instants.parse_duration("0" * digits + "7d") == 7 * DAY
    assert analyze("0" * digits + "7", {}) == analyze("7", {})


def all_models(base=Model):
    for model in base.__subclasses__():
        yield model
        yield from all_models(model)


def test_every_field_of_every_model_has_exactly_one_layer():
    models = set(all_models())
    assert {m.__name__ for m in models} >= {"Entity", "EventSource", "FeatureView", "FeatureSet", "Aggregate", "Window", "Every", "Delay"}
    for model in models:
        for name, field in model.model_fields.items():
            layers = [item for item in field.metadata if isinstance(item, Layer)]
            assert len(layers) == 1, f"{model.__name__}.{name} has {layers}"


def test_owner_description_and_tags_are_meta_wherever_they_are():
    for model in all_models():
        for name in {"owner", "description", "tags"} & set(model.model_fields):
            assert Layer.META in model.model_fields[name].metadata


def test_a_definition_cannot_be_changed_and_equals_its_twin():
    with pytest.raises(ValueError):
        aircraft.name = "other"
    assert delay_view() == delay_view() and hash(delay_view()) == hash(delay_view())


def test_importing_featreg_loads_none_of_the_heavy_libraries():
    code = "import sys, featreg; print(sorted({'pydantic', 'duckdb', 'numba', 'sqlglot', 'pyarrow'} & set(sys.modules)))"
    root = Path(featreg.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True).stdout.strip() == "[]"


def test_public_names_are_listed_and_others_are_no_attributes():
    assert {"Entity", "agg", "view", "open", "UsageError"} <= set(dir(featreg))
    with pytest.raises(AttributeError, match="nothing"):
        featreg.nothing  # noqa: B018


# -- windows


def test_outputs_are_the_features_as_declared_each_over_its_windows_in_order():
    features = {
        "flights": agg.count().over("7d", None, "1d"),
        **agg.latest("origin", "dep_delay", within="3h"),
        "last_origin": agg.last("origin"),
        "share": derive("flights_1d / flights_7d"),
    }
    outputs = delay_view(features=features).outputs
    assert [o.name for o in outputs] == ["flights_7d", "flights", "flights_1d", "origin", "dep_delay", "last_origin", "share"]
    assert [o.window and o.window.micros for o in outputs] == [7 * DAY, None, DAY, 3 * HOUR, 3 * HOUR, None, None]
    assert [o.base for o in outputs] == ["flights", "flights", "flights", "origin", "dep_delay", "last_origin", "share"]
    assert [o.window is None for o in outputs] == [False] * 6 + [True]


@pytest.mark.parametrize(
    ("text", "hop", "micros"),
    [
        ("48s", None, SECOND),
        ("47s", None, SECOND),
        ("1h", None, MINUTE),
        ("1d", None, 30 * MINUTE),
        ("7d", None, 3 * HOUR),
        ("52w", None, DAY),
        ("7d", "exact", instants.EXACT),
        ("7d", "7m", 7 * MINUTE),
        ("3000d", "exact", instants.EXACT),
        (None, "1h", None),
    ],
)
def test_a_hop_is_what_was_said_or_at_most_a_48th_of_the_window(text, hop, micros):
    """By hand from design section 3; all of history has no trailing edge and so no hop."""
    assert Window(text, hop).hop_micros == micros


def test_the_hop_of_a_window_comes_before_that_of_the_view():
    features = {"n": agg.count().over("1d", "7d"), "m": agg.count().over("7d", hop="1h"), "all": agg.count()}
    assert [o.window.hop for o in delay_view(features=features, hop="exact").outputs] == ["exact", "exact", "1h", None]
    assert [o.window.hop for o in delay_view(features=features, hop={"168h": "2h"}).outputs] == [None, "2h", "1h", None]


def test_over_twice_gives_the_windows_of_both():
    both = agg.count().over("1h", hop="1m").over("7d")
    assert [(w.text, w.hop) for w in both.windows] == [("1h", "1m"), ("7d", None)]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: agg.count().over("1d", hop="2d"), "hop '2d' is longer than the window '1d'"),
        (lambda: agg.count().over("0d"), "holds no time"),
        (lambda: agg.count().over("1d", hop="0s"), "no step"),
        (lambda: agg.count().over("300d", hop="1s"), "25,920,000 tiles"),
        (lambda: agg.count().over("100001s", hop="1s"), "100,001 tiles"),
        (lambda: agg.count().over("1d", "7d", "1d"), "window 1d is given twice"),
        (lambda: agg.count().over(None, None), "given twice"),
        (lambda: agg.count().over(), "at least one window"),
        (lambda: agg.count().over("7 days"), "is not a duration"),
        (lambda: agg.count().over(7), "is not a duration"),
        (lambda: agg.count().over("1d", hop="fine"), "is not a duration"),
        (lambda: delay_view(hop="2d"), "flights: hop '2d' is longer"),
        (lambda: delay_view(hop={"3d": "1h"}), "no feature has it"),
        (lambda: delay_view(hop={"7d": "soon"}), "7d: "),
    ],
)
def test_a_window_that_cannot_be_is_refused(make, words):
    assert words in refusal(make)


def test_the_most_tiles_that_a_window_may_have_are_allowed():
    assert Window("100000s", "1s").hop_micros == SECOND


# -- aggregations


def test_each_aggregation_takes_its_arguments_and_the_three_common_ones():
    one = {"where": "a > 0", "description": "d", "tags": ["t"]}
    for name in ("sum", "avg", "min", "max", "var", "stddev", "any", "all", "count_distinct", "first", "last", "histogram", "count"):
        made = getattr(agg, name)("x", **one)
        assert (made.aggregation, made.column, made.where, made.description, made.tags) == (name, "x", "a > 0", "d", ("t",))
    for name in ("first_n", "last_n", "top_n"):
        assert getattr(agg, name)("x", 3, **one).n == 3
    for name in ("arg_min", "arg_max"):
        assert getattr(agg, name)("x", by="y", **one).by == "y"
    assert agg.count().column is None and agg.histogram("x", k=5).k == 5 and agg.last("x", ignore_nulls=True).ignore_nulls


def test_latest_is_one_last_per_column_named_as_the_column():
    assert agg.latest("temp", "wind", within="3h", where="ok") == {
        name: Aggregate(aggregation="last", column=name, where="ok", windows=(Window("3h"),), suffixed=False) for name in ("temp", "wind")
    }
    assert agg.latest("temp")["temp"].windows == (Window(),)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: agg.top_n("x", 0), "n=0"),
        (lambda: agg.top_n("x", True), "n=True"),
        (lambda: agg.histogram("x", k=-1), "k=-1"),
        (lambda: agg.sum(" "), "is not an expression"),
        (lambda: agg.sum(3), "3 is not an expression"),
        (lambda: agg.sum("x", wher="y"), "Did you mean 'where'"),
        (lambda: agg.latest("a + b"), "cannot name a feature"),
        (lambda: agg.latest(), "at least one column"),
        (lambda: Aggregate(aggregation="median", column="x"), "no aggregation 'median'"),
        (lambda: Aggregate(aggregation="sum", column="x", n=2), "takes no argument 'n'"),
    ],
)
def test_an_aggregation_that_cannot_be_meant_is_refused(make, words):
    assert words in refusal(make)


# -- entities and sources


def test_types_are_read_once_and_keys_keep_their_order():
    route = Entity("route", {"origin": "varchar", "dest": "VARCHAR"})
    assert [(name, str(declared)) for name, declared in route.key] == [("origin", "VARCHAR"), ("dest", "VARCHAR")]
    assert Entity("everything", key={}).key == ()
    assert route.on(dest="to_airport").mapping == (("origin", "origin"), ("dest", "to_airport"))


def test_columns_are_found_whatever_their_case_and_get_the_declared_spelling():
    source = EventSource(
        "s", columns={"At": "TIMESTAMP", "Seen": "TIMESTAMP", "K": "BIGINT"}, event_time="at", available="SEEN", tie_break="k"
    )
    assert (source.event_time, source.available, source.tie_break) == ("At", "Seen", ("K",))
    made = FeatureView("v", entity=Entity("e", {"k": "INTEGER"}), source=source, features={"n": agg.count()})
    assert made.key_columns == (("k", "K"),)


def test_availability_is_a_column_a_delay_or_the_arrival():
    columns = {"at": "DATE", "arrival": "TIMESTAMP"}
    assert EventSource("s", columns=columns, event_time="at", available="arrival").available_column == "arrival"
    arriving = EventSource("s", columns={"at": "DATE"}, event_time="at", available="arrival")
    assert arriving.arrives and arriving.available_column is None
    delayed = EventSource("s", columns={"at": "DATE"}, event_time="at", available=Delay("15m"))
    assert (delayed.delay_micros, delayed.available_column) == (15 * MINUTE, None)
    assert departures.delay_micros == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Entity("two words", {}), ["'two words' is not a name"]),
        (lambda: Entity("2nd", {}), ["'2nd' is not a name"]),
        (lambda: Entity("e", {"x": "DOUBLE"}), ["x: DOUBLE cannot be a key type"]),
        (lambda: Entity("e"), ["argument 'key' is missing"]),
        (lambda: Entity("e", {}, "me"), ["only these arguments"]),
        (lambda: Entity("e", {}, name="e"), ["given twice"]),
        (lambda: Entity("e", {}, ownr="me"), ["no argument 'ownr'", "Did you mean 'owner'"]),
        (lambda: Entity("e", {}, tags="one"), ["'one' is not a list of texts"]),
        (
            lambda: Entity("e", {"x": "DOUBEL", "y": 3, "a b": "DATE"}),
            ["x: unknown type", "y: 3 is not a type", "a b: 'a b' is not a name"],
        ),
        (lambda: airport.on(air="origin"), ["no key 'air'", "Did you mean 'airport'"]),
        (lambda: EventSource("s", columns={"a": "DATE", "A": "BIGINT"}, event_time="a"), ["differ only in case"]),
        (lambda: EventSource("s", columns={"a": "BIGINT"}, event_time="a"), ["event_time='a' is a BIGINT"]),
        (
            lambda: EventSource("s", columns={"a": "DATE"}, event_time="b", available="c", tie_break=["d"]),
            ["event_time='b' is not a declared column", "available='c'", "tie_break='d'", "Declared are: a."],
        ),
        (lambda: EventSource("s", columns={"a": "DATE"}, event_time="a", max_rejected=-1), ["max_rejected=-1"]),
        (lambda: EventSource("s", columns={"a": "DATE"}, event_time="a", starts="soon"), ["'soon' is not an instant"]),
        (lambda: Delay("15x"), ["is not a duration"]),
        (lambda: Every("0d"), ["no time at all"]),
    ],
)
def test_an_entity_or_source_that_cannot_be_meant_is_refused_with_every_fault(make, words):
    said = refusal(make)
    assert all(word in said for word in words), said


def test_an_offset_of_whole_periods_is_no_offset():
    assert Every("1d", offset="29h", delay="2h").cadence == Cadence(DAY, 5 * HOUR, 2 * HOUR)
    assert REALTIME.cadence == Cadence()


# -- views


@pytest.mark.parametrize("name", ["t", "key", "select", "über", "_x"])
def test_a_feature_may_have_any_name(name):
    assert delay_view(features={name: agg.count()})[name].names == (name,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"entity": airport}, ["key column 'airport' is not in source 'departures'", "airport.on(airport="]),
        ({"entity": airport.on(airport="dep_delay")}, ["key 'airport' is a VARCHAR, and column 'dep_delay'"]),
        ({"entity": "aircraft"}, ["instance of Entity"]),
        ({"features": {}}, ["at least one feature"]),
        ({"features": {"a b": agg.count(), "c": 3}}, ["'a b' is not a name", "c: 3 is no feature"]),
        ({"features": {"f": agg.count().over("1d"), "f_1d": agg.count()}}, ["two features are called 'f_1d'"]),
        ({"features": {"f": agg.count(), "F": agg.count()}}, ["differ only in case"]),
        ({"where": ""}, ["is not an expression"]),
        ({"freshness": "1d"}, ["instance of Realtime"]),
    ],
)
def test_a_view_that_cannot_be_meant_is_refused(changes, words):
    said = refusal(lambda: delay_view(**changes))
    assert all(word in said for word in words), said


# -- selections and sets


def test_a_selection_says_which_features_for_which_columns_under_which_names():
    made = view("origin_delay")["flights_1h", "late_1h"].prefix("dest_").rename(flights_1h="busy").on(airport="dest")
    assert (made.view, made.names, made.mapping) == ("origin_delay", ("flights_1h", "late_1h"), (("airport", "dest"),))


def test_the_order_of_on_prefix_and_rename_does_not_matter_and_the_prefix_goes_before_a_new_name():
    base = delay_view().all()
    made = {
        base.on(tailnum="tail").prefix("d_").rename(flights_7d="busy"),
        base.rename(flights_7d="busy").prefix("d_").on(tailnum="tail"),
        base.prefix("d_").on(tailnum="tail").rename(flights_7d="busy"),
    }
    (only,) = made
    assert [only.name_of(name) for name in ("flights_1d", "flights_7d")] == ["d_flights_1d", "d_busy"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: delay_view()["flights_2d"], "Did you mean"),
        (lambda: delay_view()["flights_1d", "flights_1d"], "chosen twice"),
        (lambda: delay_view()[3], "3 is not the name of a feature"),
        (lambda: delay_view()[()], "no feature is chosen"),
        (lambda: delay_view().all().on(tail="x"), "Did you mean 'tailnum'"),
        (lambda: delay_view()["flights_1d"].rename(flights_7d="x"), "no chosen feature 'flights_7d'"),
        (lambda: delay_view().all().rename(flights_1d="x", flights_7d="x"), "renamed to 'x'"),
        (lambda: delay_view().all().rename(flights_1d="a b"), "is not a name"),
        (lambda: delay_view().all().prefix("1_"), "cannot begin a name"),
        (lambda: view("a b"), "is not a name"),
        (lambda: FeatureSet("s", features=[3]), "3 is no part of a set"),
        (lambda: FeatureSet("s", features=aircraft), "is not a list"),
        (lambda: FeatureSet("s", features=[]), "at least one feature"),
        (lambda: FeatureSet("s", features=[delay_view()], request={"x": "BIGINT"}, derived={"X": "a"}), "like a request column"),
        (lambda: FeatureSet("s", features=[delay_view()], request={"x": "TEXT"}), "unknown type 'TEXT'"),
        (lambda: FeatureSet("s", features=[delay_view()], derived={"x": 3}), "x: 3 is not an expression"),
    ],
)
def test_a_selection_or_set_that_cannot_be_meant_is_refused(make, words):
    assert words in refusal(make)


def test_a_bare_view_in_a_set_means_all_of_it():
    made = FeatureSet(
        "s", features=[delay_view(), view("other")], request={"d": "DOUBLE"}, derived={"x": "a + b", "y": derive("x * 2", "twice")}
    )
    assert made.features == (delay_view().all(), view("other").all())
    assert [(name, spec.expression, spec.description) for name, spec in made.derived] == [("x", "a + b", ""), ("y", "x * 2", "twice")]


def test_a_message_stays_short_for_a_list_that_holds_itself_a_billion_times():
    deep = []
    for _ in range(60):
        deep = [deep, deep]
    assert len(refusal(lambda: FeatureSet("s", features=deep, tags=deep, owner=deep))) < 2_000
