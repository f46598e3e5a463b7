"""The oracle itself, sentence by sentence, with values worked out by hand."""

import ast
import math
import struct
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tests import oracle
from tests.oracle import Derived, Feature, OracleOverflow, Rejected, View, training_rows

DAY = 86_400_000_000
HOUR = DAY // 24
SECOND = 1_000_000
NAN = float("nan")
INF = math.inf


def column(name):
    return lambda row: row[name]


def one(aggregation, rows, as_of=1000, value="x", view=None, known_at=None, **arguments):
    """The one value of one feature over rows {"at", "x", ...} of the one key."""
    lifted = None if value is None else column(value)
    feature = Feature("it", aggregation, column=lifted, **arguments)
    described = View(key=(), event_time="at", features=(feature,), **(view or {}))
    (answer,) = training_rows(described, rows, [((), as_of)], known_at)
    return answer["it"]


def over(*values):
    return [{"at": at, "x": value} for at, value in enumerate(values)]


def bits(value):
    return struct.pack("<d", value)


def test_the_oracle_imports_the_standard_library_and_nothing_of_the_product():
    """A witness that shared code with the accused would prove nothing."""
    text = Path(oracle.__file__).read_text()
    assert "featreg" not in text
    for node in ast.walk(ast.parse(text)):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        assert all(name.split(".")[0] in sys.stdlib_module_names for name in names)


# Instants


def test_zoned_input_is_converted_and_naive_input_is_utc():
    assert oracle.instant(datetime(1970, 1, 2)) == oracle.instant(datetime(1970, 1, 2, tzinfo=UTC)) == DAY
    assert oracle.instant(datetime.fromisoformat("1970-01-02T05:30:00+05:30")) == DAY
    assert oracle.instant(datetime.fromisoformat("1969-12-31T23:59:59.999999+00:00")) == -1


def test_a_date_is_its_first_instant():
    assert oracle.instant(date(1970, 1, 2)) == DAY
    assert oracle.instant(date(1969, 12, 31)) == -DAY


def test_an_event_at_the_very_instant_of_the_prediction_is_the_future():
    rows = [{"at": 999}, {"at": 1000}, {"at": 1001}]
    assert one("count", rows, value=None) == 1


def test_visible_is_the_later_of_event_and_available_time():
    rows = [{"at": 10, "seen": 1000}, {"at": 20, "seen": 999}, {"at": 999, "seen": 5}, {"at": 1000, "seen": 5}]
    assert one("count", rows, value=None, view={"available": "seen"}) == 2


def test_a_null_available_time_falls_back_to_the_event_time():
    assert one("count", [{"at": 999, "seen": None}, {"at": 1000, "seen": None}], value=None, view={"available": "seen"}) == 1


def test_a_delay_moves_what_is_visible_and_not_the_window():
    rows = [{"at": 989}, {"at": 990}]
    assert one("count", rows, value=None, view={"arrives_after": 10}) == 1  # 989 + 10 < 1000, 990 + 10 is not
    assert one("count", rows, value=None, view={"arrives_after": 10}, window=11, hop="exact") == 1
    assert one("count", rows, value=None, view={"arrives_after": 10}, window=10, hop="exact") == 0


def test_a_daily_run_that_lands_at_two_serves_yesterday_until_then():
    view = View(key=(), event_time="at", features=(), period=DAY, served_after=2 * HOUR)
    assert oracle.cutoff_at(view, 5 * DAY + 2 * HOUR - 1) == 4 * DAY
    assert oracle.cutoff_at(view, 5 * DAY + 2 * HOUR) == 5 * DAY
    assert oracle.cutoff_at(view, 6 * DAY + 2 * HOUR - 1) == 5 * DAY
    assert oracle.cutoff_at(view, -1) == -DAY


def test_an_offset_moves_the_runs():
    view = View(key=(), event_time="at", features=(), period=DAY, offset=5 * HOUR)
    assert oracle.cutoff_at(view, 5 * HOUR - 1) == 5 * HOUR - DAY
    assert oracle.cutoff_at(view, 5 * HOUR) == 5 * HOUR


def test_a_delay_longer_than_the_period_serves_an_older_run():
    view = View(key=(), event_time="at", features=(), period=10, served_after=25)
    assert oracle.cutoff_at(view, 100) == 70
    assert oracle.cutoff_at(view, 105) == 80


def test_known_at_sees_what_had_arrived_and_the_runs_that_had_finished():
    rows = [{"at": 1}, {"at": 12}, {"at": 19}]
    assert one("count", rows, value=None, known_at=19) == 2
    every = {"period": 10}
    assert one("count", rows, as_of=35, value=None, view=every) == 3
    assert one("count", rows, as_of=35, value=None, view=every, known_at=19) == 1  # the run at 10
    assert one("count", rows, as_of=35, value=None, view=every, known_at=20) == 3  # the run at 20


# Windows


def test_the_lower_edge_is_in_the_window_and_floors_to_the_hop_grid():
    rows = [{"at": at} for at in (59, 60, 69, 70)]
    # 1005 - 936 = 69: exact sees 69 and 70; a hop of 10 floors to 60
    assert one("count", rows, as_of=1005, value=None, window=936, hop="exact") == 2
    assert one("count", rows, as_of=1005, value=None, window=936, hop=10) == 3


def test_the_grid_is_anchored_at_the_epoch_and_floors_before_it():
    assert oracle.floor_to(-1, 10) == -10
    assert oracle.floor_to(-10, 10) == -10
    rows = [{"at": -11}, {"at": -10}, {"at": -5}]
    assert one("count", rows, as_of=0, value=None, window=5, hop=10) == 2  # from floor(-5) = -10


@pytest.mark.parametrize(
    "window, hop",
    [
        (SECOND, SECOND),
        (48 * SECOND, SECOND),
        (480 * SECOND - 1, SECOND),
        (480 * SECOND, 10 * SECOND),
        (HOUR, 60 * SECOND),  # 3600 / 48 = 75 s
        (DAY, 30 * 60 * SECOND),
        (7 * DAY, 3 * HOUR),  # 3.5 h
        (30 * DAY, 12 * HOUR),  # 15 h
        (365 * DAY, DAY),
    ],
)
def test_the_default_hop_is_the_largest_step_that_is_at_most_a_48th(window, hop):
    assert oracle.hop_of(Feature("it", "count", window=window)) == hop


def test_no_window_has_no_lower_bound():
    assert one("count", [{"at": -(2**62)}, {"at": 0}], value=None) == 2


# Keys, filters, empties


def keyed(rows, spine, *features, **view):
    described = View(
        key=("a", "b"), event_time="at", features=features or (Feature("n", "count"), Feature("s", "sum", column("x"))), **view
    )
    return training_rows(described, rows, spine)


def test_composite_keys_compare_as_typed_tuples():
    rows = [{"a": "ab", "b": "c", "at": 0, "x": 1}, {"a": "a", "b": "bc", "at": 0, "x": 2}]
    assert keyed(rows, [(("ab", "c"), 9), (("a", "bc"), 9), (("abc", ""), 9)]) == [{"n": 1, "s": 1}, {"n": 1, "s": 2}, {"n": 0, "s": None}]
    assert keyed([{"a": 1, "b": 1, "at": 0, "x": 1}], [(("1", 1), 9), ((True, 1), 9), ((1, 1), 9)])[2] == {"n": 1, "s": 1}
    assert keyed([{"a": 1, "b": 1, "at": 0, "x": 1}], [(("1", 1), 9), ((True, 1), 9)]) == [{"n": 0, "s": None}] * 2


def test_a_null_in_a_key_is_in_no_window_and_gets_empty_windows():
    rows = [{"a": None, "b": "c", "at": 0, "x": 1}, {"a": "a", "b": "c", "at": 0, "x": 2}]
    assert keyed(rows, [((None, "c"), 9), (("a", "c"), 9)]) == [{"n": 0, "s": None}, {"n": 1, "s": 2}]


def test_spine_rows_keep_their_order_and_duplicates():
    rows = [{"a": 1, "b": 1, "at": at, "x": at} for at in (1, 2, 3)]
    assert [row["n"] for row in keyed(rows, [((1, 1), 3), ((1, 1), 1), ((1, 1), 3), ((1, 1), 9)])] == [2, 0, 2, 3]


def test_duplicate_rows_count_twice():
    row = {"a": 1, "b": 1, "at": 1, "x": 5}
    assert keyed([row, row], [((1, 1), 3)]) == [{"n": 2, "s": 10}]


def test_a_filter_counts_only_when_true_and_null_is_not_true():
    rows = over(1, None, 3)
    more = {"where": lambda row: None if row["x"] is None else row["x"] > 1}
    assert one("count", rows, value=None, **more) == 1
    assert one("count", rows, value=None, view=more) == 1


def test_a_rejected_row_counts_nowhere():
    def overflow(row):
        if row["x"] == 7:
            raise Rejected
        return row["x"]

    features = (Feature("n", "count"), Feature("s", "sum", overflow))
    view = View(key=(), event_time="at", features=features)
    rows = [{"at": 1, "x": 7}, {"at": 2, "x": 1}, {"at": None, "x": 1}]
    assert training_rows(view, rows, [((), 9)]) == [{"n": 1, "s": 1}]
    unseen = View(key=(), event_time="at", features=features, where=lambda row: row["x"] != 7)
    assert training_rows(unseen, rows, [((), 9)]) == [{"n": 1, "s": 1}]


def test_an_input_is_computed_only_where_its_where_holds():
    def never(row):
        raise Rejected

    features = (Feature("n", "count"), Feature("s", "sum", never, where=lambda row: False))
    assert training_rows(View(key=(), event_time="at", features=features), over(1), [((), 9)]) == [{"n": 1, "s": None}]


@pytest.mark.parametrize("aggregation, empty", [("count", 0), ("count_distinct", 0), ("histogram", None), ("var", None)])
def test_an_empty_window_gives_zero_for_counts_and_null_for_the_rest(aggregation, empty):
    assert one(aggregation, []) == empty


@pytest.mark.parametrize(
    "aggregation", ["sum", "avg", "min", "max", "stddev", "any", "all", "first", "last", "first_n", "last_n", "top_n", "arg_min", "arg_max"]
)
def test_every_other_aggregation_is_null_when_empty(aggregation):
    assert one(aggregation, [], n=2, by=column("x")) is None
    assert one(aggregation, over(None, None), n=2, by=column("x")) is None


# Order


def test_last_orders_by_event_time_then_visible_instant_then_tie_break_then_value():
    view = {"available": "seen", "tie_break": ("t",)}

    def row(at, seen, t, x):
        return {"at": at, "seen": seen, "t": t, "x": x}

    assert one("last", [row(2, 2, 0, "b"), row(1, 9, 9, "z")], view=view) == "b"
    assert one("last", [row(2, 3, 0, "b"), row(2, 2, 9, "z")], view=view) == "b"
    assert one("last", [row(2, 3, 1, "b"), row(2, 3, None, "z")], view=view) == "b"
    assert one("last", [row(2, 3, 1, "b"), row(2, 3, 1, "z"), row(2, 3, 1, None)], view=view) == "z"
    assert one("first", [row(2, 3, 1, "b"), row(2, 3, 1, "z"), row(2, 3, 1, None)], view=view) is None
    assert one("last", [row(2, 1, 1, "b"), row(2, 2, 0, "a")], view=view) == "b"  # both visible at 2, so the tie-break decides


def test_in_a_tie_null_is_lowest_and_nan_highest():
    rows = [{"at": 1, "x": value} for value in (INF, NAN, None, -INF)]
    assert math.isnan(one("last", rows)) and one("first", rows) is None
    assert one("first", rows, ignore_nulls=True) == -INF


def test_a_nan_or_null_tie_break_ranks_like_a_value():
    rows = [{"at": 1, "x": name, "t": tie} for name, tie in (("nan", NAN), ("null", None), ("inf", INF))]
    assert one("last", rows, view={"tie_break": ("t",)}) == "nan"
    assert one("first", rows, view={"tie_break": ("t",)}) == "null"


def test_first_and_last_respect_nulls_unless_told():
    assert one("last", over(1, None)) is None and one("last", over(1, None), ignore_nulls=True) == 1
    assert one("first", over(None, 2, 3)) is None and one("first", over(None, 2, 3), ignore_nulls=True) == 2


def test_the_physical_order_of_rows_never_matters():
    rows = [{"at": 5, "x": 2}, {"at": 5, "x": 9}, {"at": 1, "x": 4}]
    for shuffled in (rows, rows[::-1], rows[1:] + rows[:1]):
        assert one("last", shuffled) == 9 and one("first", shuffled) == 4


def test_first_n_is_oldest_first_last_n_newest_first_and_both_skip_nulls():
    rows = over(3, None, 1, 2, None)
    assert one("first_n", rows, n=2) == [3, 1]
    assert one("last_n", rows, n=2) == [2, 1]
    assert one("last_n", rows, n=9) == [2, 1, 3]


def test_top_n_is_descending_and_keeps_duplicates():
    assert one("top_n", over(1, 5, 5, None, 4), n=3) == [5, 5, 4]
    assert math.isnan(one("top_n", over(1.0, INF, NAN), n=2)[0])


def test_a_histogram_is_the_most_frequent_first_ties_by_value_ascending():
    rows = over("b", "a", "c", "a", "b", "é", None)
    assert one("histogram", rows) == [("a", 2), ("b", 2), ("c", 1), ("é", 1)]
    assert one("histogram", rows, k=1) == [("a", 2)]


def test_arg_max_is_the_last_row_in_by_then_tie_order_and_arg_min_the_first():
    def rows(*triples):
        return [{"at": at, "x": x, "y": y} for at, x, y in triples]

    by = {"by": column("y")}
    assert one("arg_max", rows((1, "a", 7), (2, "b", 7), (3, "c", 6)), **by) == "b"
    assert one("arg_min", rows((2, "b", 6), (1, "a", 6), (3, "c", 7)), **by) == "a"
    assert one("arg_max", rows((1, "a", 7), (1, "b", 7)), **by) == "b"
    assert one("arg_max", rows((1, "a", 1), (2, None, 9), (3, "c", None)), **by) == "a"
    assert one("arg_max", rows((1, "a", INF), (2, "n", NAN)), **by) == "n"
    assert one("arg_min", rows((1, "n", NAN), (2, "a", INF)), **by) == "a"


def test_text_compares_by_utf8_bytes():
    # U+FB00 is ef ac 80 and U+10000 is f0 90 80 80; UTF-16 would order them the other way round
    assert one("max", over("\ufb00", "\U00010000", "z", "Z")) == "\U00010000"
    assert one("min", over("a", "B", "")) == ""


# Numbers


def test_one_zero_and_one_nan():
    odd = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000123))[0]
    assert one("count_distinct", over(0.0, -0.0, NAN, odd, 1.0, None)) == 3
    assert bits(one("min", over(-0.0))) == bits(0.0)
    assert bits(one("max", over(odd, 1.0))) == struct.pack("<Q", 0x7FF8000000000000)
    assert bits(one("sum", over(-0.0, -0.0))) == bits(0.0)


def test_nan_is_above_every_number():
    assert one("min", over(NAN, INF)) == INF
    assert math.isnan(one("max", over(NAN, INF)))
    assert math.isnan(one("min", over(NAN, NAN)))


@pytest.mark.parametrize("values", [(1e16, 1.0, -1e16), (0.1,) * 10, (1e308, 1e308, -1e308), (5e-324, 5e-324), (1.0, 2.0**-53, 2.0**-106)])
def test_a_double_sum_is_the_exact_sum_rounded_once(values):
    """As `math.fsum`, where that does not stumble over an intermediate overflow."""
    expected = 1e308 if values[0] == 1e308 else math.fsum(values)
    assert bits(one("sum", over(*values))) == bits(one("sum", over(*values[::-1]))) == bits(expected)


def test_the_last_bit_above_a_half_rounds_up():
    assert one("sum", over(1.0, 2.0**-53)) == 1.0
    assert one("sum", over(1.0, 2.0**-53, 2.0**-106)) == 1.0 + 2.0**-52


def test_a_sum_beyond_range_is_infinite_and_infinities_cancel_to_nan():
    assert one("sum", over(1.7e308, 1.7e308)) == INF and one("sum", over(-1.7e308, -1.7e308)) == -INF
    assert one("sum", over(INF, 1.0)) == INF and one("avg", over(-INF, 1.0)) == -INF
    assert math.isnan(one("sum", over(INF, -INF))) and math.isnan(one("sum", over(NAN, INF))) and math.isnan(one("avg", over(NAN)))


def test_avg_is_the_rounded_sum_by_the_count():
    assert one("avg", over(1, 2, None)) == 1.5
    assert one("avg", over(0.1, 0.2, 0.4)) == math.fsum([0.1, 0.2, 0.4]) / 3
    assert one("avg", over(Decimal("0.10"), Decimal("0.20")), scale=2) == 0.3 / 2
    assert one("avg", over(2**63 - 1, 2**63 - 1)) == 2.0**63
    assert one("avg", over(1e308, 1e308)) == INF  # the sum, once rounded, is
    assert bits(one("avg", over(-5e-324, 0.0))) == bits(0.0)  # IEEE has -0.0 here; there is one zero


def test_var_is_the_sample_variance_of_exact_sums():
    assert one("var", over(1, 2, 3, 4)) == 5 / 3
    assert one("stddev", over(2.0, 4.0)) == math.sqrt(2.0)
    assert one("var", over(0.1, 0.1, 0.1)) == 0.0
    assert one("var", over(1e16, 1e16 + 2)) == 2.0
    assert one("var", over(1e200, -1e200)) == INF
    assert one("var", over(Decimal("1.10"), Decimal("1.30")), scale=2) == 0.02
    assert one("var", over(5)) is None and one("var", over(5.0, None)) is None and one("stddev", over(NAN)) is None
    assert math.isnan(one("var", over(NAN, 1.0))) and math.isnan(one("var", over(INF, 1.0))) and math.isnan(one("stddev", over(INF, INF)))


def test_only_the_result_of_an_integer_sum_is_checked():
    top = 2**63 - 1
    assert one("sum", over(top, 1, -1)) == top
    assert one(
        "sum",
        over(
            -(2**63),
        ),
    ) == -(2**63)
    with pytest.raises(OracleOverflow):
        one("sum", over(top, 1))


def test_a_decimal_sum_has_38_digits_and_keeps_its_scale():
    nines = Decimal("9" * 36 + ".99")
    assert str(one("sum", over(nines, Decimal("-0.99"), Decimal("0.00")), scale=2)) == "9" * 36 + ".00"
    with pytest.raises(OracleOverflow):
        one("sum", over(nines, Decimal("0.01")), scale=2)


def test_any_and_all_skip_nulls():
    assert one("any", over(False, None, True)) is True and one("any", over(False, None)) is False
    assert one("all", over(True, None)) is True and one("all", over(True, False)) is False


def test_count_of_a_column_skips_nulls_and_count_does_not():
    assert one("count", over(1, None)) == 1 and one("count", over(1, None), value=None) == 2


@pytest.mark.parametrize("values", [(date(2020, 2, 29), date(1969, 12, 31)), (Decimal("1.5"), Decimal("-1.5")), (True, False), ("b", "a")])
def test_min_max_and_arg_take_every_type(values):
    low, high = sorted(values)
    assert (one("min", over(*values)), one("max", over(*values))) == (low, high)
    assert one("arg_max", over(*values), by=column("x")) == high


def test_naive_timestamps_come_out_as_utc():
    assert one("max", over(datetime(2020, 1, 1))) == datetime(2020, 1, 1, tzinfo=UTC)


def test_derived_values_see_earlier_ones_and_an_overflow_spreads():
    features = (Feature("s", "sum", column("x")), Feature("n", "count"))
    derived = (Derived("twice", ("n",), lambda n: n * 2), Derived("more", ("twice", "s"), lambda twice, s: twice + s))
    view = View(key=(), event_time="at", features=features, derived=derived)
    assert training_rows(view, over(1, 2), [((), 9)]) == [{"s": 3, "n": 2, "twice": 4, "more": 7}]
    facts = oracle.lift_all(view, over(2**63 - 1, 1))
    spread = oracle.answer(view, facts, (), 9)
    assert spread["twice"] == 4 and isinstance(spread["s"], OracleOverflow) and isinstance(spread["more"], OracleOverflow)
