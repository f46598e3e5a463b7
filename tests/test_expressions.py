"""Claims about the expression language: what it gives, what it refuses, and what an expression's identity is."""

import math
import random
import struct
from datetime import date, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featreg.canonical import content_id
from featreg.expressions import ExpressionError, analyze, clean_double, duckdb_overflow, duckdb_text, meaning, references
from featreg.vocabulary import BIGINT, BOOLEAN, DOUBLE, TIMESTAMP, list_of, parse_type
from tests.expression_rules import COLUMNS, Overflow, Row, Writer, random_row

TYPES = {name: parse_type(text) for name, text in COLUMNS.items()}


def column_text(name: str) -> str:
    """As a scan gives it: a DOUBLE has no -0.0."""
    quoted = f'"{name}"'
    return f"({clean_double(quoted)})" if COLUMNS.get(name) == "DOUBLE" else quoted


def connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def arrow_rows(rows: list[Row]) -> pa.Table:
    kinds = {
        "BIGINT": pa.int64(),
        "DOUBLE": pa.float64(),
        "BOOLEAN": pa.bool_(),
        "VARCHAR": pa.string(),
        "TIMESTAMP": pa.timestamp("us"),
        "DATE": pa.date32(),
    }
    arrays = {}
    for name, declared in COLUMNS.items():
        values = [row[name] for row in rows]
        if declared.startswith("DECIMAL"):
            kind = TYPES[name]
            scaled = [None if v is None else Decimal(int(v * 10**kind.scale)).scaleb(-kind.scale) for v in values]  # type: ignore[operator]
            arrays[name] = pa.array(scaled, pa.decimal128(kind.precision, kind.scale))
        elif declared in ("TIMESTAMP", "DATE"):
            arrays[name] = pa.array(values, pa.int64() if declared == "TIMESTAMP" else pa.int32()).cast(kinds[declared])
        else:
            arrays[name] = pa.array(values, kinds[declared])
    return pa.table(arrays)


def comparable(value: object) -> object:
    """Equal for bit-identical values only; DATE and TIMESTAMP as their numbers."""
    match value:
        case float():
            return "nan" if math.isnan(value) else struct.pack("<d", value)
        case Decimal():
            with localcontext() as context:
                context.prec = 60
                return Fraction(value)
        case datetime():
            return (value - datetime(1970, 1, 1)) // timedelta(microseconds=1)
        case date():
            return (value - date(1970, 1, 1)).days
    return value


def expected(expression, row: Row) -> object:  # type: ignore[no-untyped-def]
    try:
        return comparable(expression.value(row))
    except Overflow:
        return "overflow"


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 48))
def test_duckdb_text_gives_what_the_rules_say(seed: int) -> None:
    """On NULL, NaN, infinities, -0.0, extremes and leap days the text has the value and type of the rules, and overflow is told exactly."""
    rnd = random.Random(seed)
    writer = Writer(rnd, finish=False)
    expressions = [writer.any(rnd.randint(1, 4)) for _ in range(6)]
    rows = [random_row(rnd) for _ in range(12)]
    connection = connect()
    connection.register("r", arrow_rows(rows))
    for made in expressions:
        typed = analyze(made.text, TYPES)
        text, overflow = duckdb_text(typed, column_text), duckdb_overflow(typed, column_text)
        found = connection.execute(f"SELECT {text}, {overflow or 'FALSE'}, typeof({text}) FROM r").fetchall()
        assert {kind for _, _, kind in found} == {str(typed.type)}, made.text
        got = ["overflow" if overflows else comparable(value) for value, overflows, _ in found]
        assert got == [expected(made, row) for row in rows], (made.text, text, overflow)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 48))
def test_an_expression_whose_text_is_rewritten_keeps_its_meaning(seed: int) -> None:
    """Spaces, newlines, comments and doubled parentheses are not meaning."""
    rnd = random.Random(seed)
    text = Writer(rnd, finish=False).any(3).text
    spaced = "((\n /* why */ " + text.replace("(", "( ").replace(")", "\n)") + " ))  -- so"
    assert meaning(analyze(spaced, TYPES)) == meaning(analyze(text, TYPES))


def value_of(text: str, columns: str = "SELECT 1 AS one", **types: object) -> object:
    typed = analyze(text, types)  # type: ignore[arg-type]
    return connect().execute(f"SELECT {duckdb_text(typed, lambda name: name)} FROM ({columns})").fetchone()[0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 / 0", None),
        ("1 // 0", None),
        ("1 % 0", None),
        ("0.0 / 0.0", None),
        ("ln(0)", None),
        ("ln(-1)", None),
        ("sqrt(-1)", None),
        ("cast('x' AS BIGINT)", None),
        ("7 / 2", 3.5),
        ("7 // 2", 3),
        ("-7 // 2", -3),
        ("-7 % 2", -1),
        ("-7.5 // 2", -3.0),
        ("-7.5 % 2", -1.5),
        ("-9223372036854775808 % -1", 0),
        ("round(2.5)", 3.0),
        ("round(-2.5)", -3.0),
        ("round(2.675, 2)", 2.68),
        ("cast(2.5 AS BIGINT)", 2),
        ("power(2, 0.5)", math.sqrt(2)),
        ("exp(1000)", math.inf),
        ("cast('nan' AS DOUBLE) > cast('inf' AS DOUBLE)", True),
        ("NULL AND FALSE", False),
        ("NULL OR TRUE", True),
        ("2 NOT IN (1, NULL)", None),
        ("NULL IS NULL", True),
        ("(NULL = 1) IS TRUE", False),
        ("'b' > 'a'", True),
        ("'Z' < 'a'", True),
        ("'é' > 'z'", True),
        ("concat('a', NULL, 'b')", "ab"),
        ("'a' || NULL", None),
        ("substr('hello', 2, 3)", "ell"),
        ("substr('hello', 9223372036854775807)", ""),
        ("substr('hello', -3)", "llo"),
        ("length('héé')", 3),
        ("year(DATE '2012-02-29')", 2012),
        ("dayofyear(DATE '2012-12-31')", 366),
        ("week(DATE '2012-12-31')", 1),
        ("dayofweek(DATE '2013-01-06')", 0),
        ("second(TIMESTAMP '2013-01-01 00:00:59.9')", 59),
        ("epoch(TIMESTAMP '2013-01-01 00:00:00.5') - epoch(DATE '2013-01-01')", 0.5),
        ("epoch_ms(TIMESTAMP '1969-12-31 23:59:59.9999')", -1),
        ("cast('2013-01-01 00:00:00+02' AS TIMESTAMP)", datetime(2012, 12, 31, 22)),
        ("cast(lower('2013-01-01 00:00:00+02') AS TIMESTAMP)", datetime(2012, 12, 31, 22)),
        ("TIMESTAMP '2013-01-01T00:00:00Z'", datetime(2013, 1, 1)),
        ("CASE 2 WHEN 1 THEN 'a' WHEN 2 THEN 'b' END", "b"),
        ("cast(-0.0 AS VARCHAR)", "0.0"),
        ("power(0 * -1.0, -1)", math.inf),
        ("least(cast('nan' AS DOUBLE), 1)", 1.0),
        ("cast(cast('nan' AS DOUBLE) AS VARCHAR)", "nan"),
        ("9007199254740993 / 1", 9007199254740992.0),
        ("cast(99.95 AS DECIMAL(3,1))", None),
        ("-9223372036854775808", -(1 << 63)),
        ("hour(DATE '2013-01-01')", 0),
        ("cast(1 AS INTEGER) + 9223372036854775806", (1 << 63) - 1),
        ("coalesce(- -9223372036854775808, 0)", 0),
        ("coalesce(cast(upper('5000000-01-01') AS DATE) < TIMESTAMP '2013-01-01', TRUE)", True),
    ],
)
def test_the_rules_by_hand(text: str, value: object) -> None:
    """What design section 4 promises, one line each."""
    assert comparable(value_of(text)) == comparable(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("n + 1", "BIGINT"),
        ("n * 1.5", "DOUBLE"),
        ("n / 2", "DOUBLE"),
        ("small + 1", "BIGINT"),
        ("narrow", "DOUBLE"),
        ("price + 1", "DECIMAL(11,2)"),
        ("price * 2", "DECIMAL(11,2)"),
        ("price * price", "DECIMAL(20,4)"),
        ("price * n", "DECIMAL(29,2)"),
        ("price * 1.5", "DOUBLE"),
        ("wide + wide", "DECIMAL(38,2)"),
        ("greatest(price, n)", "DECIMAL(21,2)"),
        ("coalesce(NULL, price)", "DECIMAL(10,2)"),
        ("floor(price)", "DECIMAL(10,0)"),
        ("round(price, 1)", "DECIMAL(10,1)"),
        ("CASE WHEN n > 1 THEN n ELSE x END", "DOUBLE"),
        ("cast(n AS INTEGER)", "BIGINT"),
        ("cast(n AS FLOAT)", "DOUBLE"),
        ("floor(n)", "BIGINT"),
        ("nullif(n, 0)", "BIGINT"),
    ],
)
def test_types(text: str, kind: str) -> None:
    """`1.5` is DOUBLE, `2` is BIGINT, `/` gives DOUBLE, an integer constant beside a DECIMAL counts its own digits."""
    declared = {"n": "BIGINT", "small": "INTEGER", "narrow": "FLOAT", "x": "DOUBLE", "price": "DECIMAL(10,2)", "wide": "DECIMAL(38,2)"}
    assert str(analyze(text, {name: parse_type(text) for name, text in declared.items()}).type) == kind


NAMES = {
    "Dep_Delay": DOUBLE,
    "flights": BIGINT,
    "origin": parse_type("VARCHAR"),
    "at": TIMESTAMP,
    "flag": BOOLEAN,
    "recent": list_of(BIGINT),
    "price": parse_type("DECIMAL(38,20)"),
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dep_dely > 1", "Did you mean 'Dep_Delay'? The columns are: Dep_Delay, flights"),
        ("lenght(origin)", "Did you mean length"),
        ("sum(flights)", "agg.sum"),
        ("now()", "depend on its row only"),
        ("random()", "depend on its row only"),
        ("current_date", "depend on its row only"),
        ("(SELECT 1)", "a subquery"),
        ("flights IN (SELECT 1)", "a subquery"),
        ("sum(flights) OVER ()", "a window"),
        ("at + INTERVAL 1 DAY", "epoch(a) - epoch(b)"),
        ("at - at", "Write epoch(a) - epoch(b)"),
        ("t.flights", "names a table"),
        ("origin ILIKE 'a'", "lower(x) LIKE"),
        ("flights ^ 2", "power(x, y)"),
        ("origin > 1", "mixes BIGINT and VARCHAR"),
        ("at > '2013-01-01'", "Write a constant as TIMESTAMP"),
        ("origin + 'x'", "a || b"),
        ("flag + 1", "cast(x AS BIGINT)"),
        ("flights AND flag", "takes BOOLEAN"),
        ("recent IS NULL", "single values"),
        ("1e999", "out of range of DOUBLE"),
        ("9223372036854775808", "out of range of BIGINT"),
        ("flights +", "cannot read 'flights +'"),
        ("flights; origin", "not one expression"),
        ("flights origin", "cannot read"),
        ("", "empty"),
        ("lower(DISTINCT origin)", "not part of"),
        ("lower()", "takes 1 argument"),
        ("flights::SMALLINT", "cannot cast to SMALLINT"),
        ("round(Dep_Delay, flights)", "integer constant"),
        ("DATE '2013-02-30'", "is no DATE"),
        ("TIMESTAMP 'soon'", "is no TIMESTAMP"),
        ("cast(at AS BIGINT)", "epoch(x)"),
        ("price * price", "40 digits behind the point"),
        ("NULL", "has no type"),
        ("price // 2", "takes BIGINT or DOUBLE"),
        ("origin LIKE 'a' ESCAPE '!'", "ESCAPE"),
        ("CASE WHEN flights THEN 1 END", "WHEN takes BOOLEAN"),
        ("CASE WHEN flag THEN 1 ELSE 'x' END", "CASE mixes"),
        ("(" * 150 + "1" + ")" * 150, "nested"),
        ("1" + " + 1" * 200, "nested"),
        ("'a\0b'", "zero byte"),
        ("[1]", "not part of"),
        ("flights IS DISTINCT FROM 1", "IS DISTINCT FROM"),
        ("extract(epoch_day FROM at)", "unknown date part"),
        ("?", "not part of"),
        ("$1", "not part of"),
        ("*", "Name a column"),
        ("flag FILTER (WHERE flag)", "cannot read"),
    ],
)
def test_what_is_refused_and_what_to_write(text: str, said: str) -> None:
    """Outside the language is an error with the next step, never another meaning."""
    with pytest.raises(ExpressionError) as caught:
        analyze(text, NAMES)
    assert said in str(caught.value)


def test_names_ignore_case_and_have_their_declared_spelling() -> None:
    """`DEP_DELAY` is the column `Dep_Delay`; two that differ only in case are an error."""
    assert analyze('DEP_DELAY > 1 OR "dep_delay" < 0', NAMES).columns == {"Dep_Delay"}
    assert references("Late_7d / flights_7d") == {"Late_7d", "flights_7d"}
    with pytest.raises(ExpressionError, match="'a' or 'A'"):
        analyze("a > 1", {"a": BIGINT, "A": BIGINT})


def test_a_filter_must_be_boolean() -> None:
    """`expect` is checked, and gives a lone NULL its type."""
    assert analyze("flights > 1", NAMES, expect=BOOLEAN).type == BOOLEAN
    assert analyze("NULL", NAMES, expect=BOOLEAN).type == BOOLEAN
    with pytest.raises(ExpressionError, match="'flights' is BIGINT and must be BOOLEAN"):
        analyze("flights", NAMES, expect=BOOLEAN)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("n != 1", "N <> 1"),
        ("NOT n IN (1, 2)", "n NOT IN (1, 2)"),
        ("cast(x AS double)", "x::FLOAT8::DOUBLE"),
        ("SUBSTRING(s, 1)", "substr(s,1)"),
        ("(n)", "n"),
        ("n BETWEEN 1 AND 2", "n >= 1 AND n <= 2"),
        ("b AND (c AND b)", "(b AND c) AND b"),
        ("extract(year FROM t)", "year(t)"),
        ("date_part('dow', t)", "dayofweek(t)"),
        ("x > 15", "x > 15.0"),
        ("n IS NOT NULL", "NOT n IS NULL"),
        ("CASE s WHEN 'a' THEN 1 END", "CASE WHEN s = 'a' THEN 1 ELSE NULL END"),
        ("-5", "- 5"),
        ("ceiling(x)", "CEIL(x)"),
        ("'2013-01-01'::DATE", "DATE '2013-01-01'"),
        ("n + x", "cast(n AS DOUBLE) + x"),
        ("try_cast(s AS BIGINT)", "s::BIGINT"),
        ("s NOT LIKE 'a'", "NOT (s LIKE 'a')"),
        ("x == 1e1", "x = 10"),
    ],
)
def test_spellings_of_one_meaning(one: str, other: str) -> None:
    """Synonyms, case, parentheses and written-out conversions give one identity."""
    assert meaning(analyze(one, TYPES)) == meaning(analyze(other, TYPES))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("n + m", "n - m"),
        ("n > 1", "n > 2"),
        ("x > 1", "x >= 1"),
        ("n / m", "n // m"),
        ("s = '1'", "s = ' 1'"),
        ("n IN (1, 2)", "n NOT IN (1, 2)"),
        ("s LIKE 'a'", "s NOT LIKE 'a'"),
        ("b AND c", "b OR c"),
        ("CASE WHEN b THEN 1 END", "CASE WHEN b THEN 1 ELSE 1 END"),
        ("x > 0.1", "x > 0.10000000000000002"),
        ("round(x)", "round(x, 1)"),
        ("n = 1", "x = 1"),
    ],
)
def test_different_meanings_differ(one: str, other: str) -> None:
    """No two expressions with different values share an identity."""
    assert meaning(analyze(one, TYPES)) != meaning(analyze(other, TYPES))


def test_ids_do_not_move() -> None:
    """Form and id, written down once: a library upgrade or a refactoring that moves one breaks every definition id."""
    share = meaning(analyze("Late_7d / flights_7d > 0.5", {"late_7d": BIGINT, "flights_7d": BIGINT}))
    late, flights = (["cast", ["column", name, "BIGINT"], "DOUBLE"] for name in ("late_7d", "flights_7d"))
    assert share == [">", ["/", late, flights], ["literal", "0x1.0000000000000p-1", "DOUBLE"]]
    assert content_id(share) == "ab90a476f27a12bc60696814002690f583200dbbc5413dd9c6806f2ea898de46"
    case = meaning(analyze("CASE WHEN s IN ('a', 'b') AND t >= TIMESTAMP '2013-01-01' THEN p * 2 END", TYPES))
    where = ["in", ["column", "s", "VARCHAR"], ["literal", "a", "VARCHAR"], ["literal", "b", "VARCHAR"]]
    since = [">=", ["column", "t", "TIMESTAMP"], ["literal", "1356998400000000", "TIMESTAMP"]]
    twice = ["*", ["column", "p", "DECIMAL(10,2)"], ["literal", "2", "DECIMAL(1,0)"]]
    assert case == ["case", [[["and", where, since], twice]], ["literal", None, "DECIMAL(11,2)"]]
    assert content_id(case) == "660916ad7a3f625a64571331efdec7a856beb7b48ccdbeea878c3fae126465ef"


def test_a_derived_feature_names_its_inputs_by_id() -> None:
    """With `names`, renaming an input leaves the meaning where it was."""
    one = meaning(analyze("late / flights", {"late": BIGINT, "flights": BIGINT}), {"late": "id-1", "flights": "id-2"})
    other = meaning(analyze("delayed / n", {"delayed": BIGINT, "n": BIGINT}), {"delayed": "id-1", "n": "id-2"})
    assert one == other == ["/", ["cast", ["column", "id-1", "BIGINT"], "DOUBLE"], ["cast", ["column", "id-2", "BIGINT"], "DOUBLE"]]


def test_only_the_branch_taken_can_overflow() -> None:
    """CASE and coalesce shield what they do not evaluate; AND and OR do not."""
    rows = f"SELECT * FROM (VALUES ({(1 << 63) - 1}::BIGINT), (1)) AS r(n)"

    def overflows(text: str) -> list[bool]:
        condition = duckdb_overflow(analyze(text, {"n": BIGINT}), lambda name: name)
        return [found for (found,) in connect().execute(f"SELECT {condition} FROM ({rows})").fetchall()]

    assert overflows("n + 1") == [True, False]
    assert overflows("CASE WHEN n > 5 THEN 0 ELSE n + 1 END") == [False, False]
    assert overflows("coalesce(n, n + 1)") == [False, False]
    assert overflows("coalesce(nullif(n, n), n * 2)") == [True, False]
    assert overflows("n > 5 OR n + 1 > 5") == [True, False]
    assert duckdb_overflow(analyze("n / 2 > 1", {"n": BIGINT}), lambda name: name) is None


def test_wide_decimals_overflow_at_38_digits() -> None:
    """A DECIMAL result that needs a 39th digit is an overflow, not an exception and not a wrapped number."""
    typed = analyze("w + w", {"w": parse_type("DECIMAL(38,0)")})
    rows = f"SELECT * FROM (VALUES ({'9' * 38}::DECIMAL(38,0)), (1::DECIMAL(38,0)), (NULL)) AS r(w)"
    found = connect().execute(f"SELECT {duckdb_text(typed, str)}, {duckdb_overflow(typed, str)} FROM ({rows})").fetchall()
    assert found == [(None, True), (Decimal(2), False), (None, False)]


def test_infinite_instants_have_no_parts() -> None:
    """An infinite TIMESTAMP has NULL parts and NULL seconds, and compares as it should."""
    for text in ("year(t)", "epoch(t)", "epoch_us(t)", "epoch_ms(t)", "hour(t)"):
        assert value_of(text, "SELECT 'infinity'::TIMESTAMP AS t", t=TIMESTAMP) is None
    assert value_of("t > TIMESTAMP '9999-12-31'", "SELECT 'infinity'::TIMESTAMP AS t", t=TIMESTAMP) is True


def test_text_that_would_explode_is_refused() -> None:
    """Nested domain rules repeat their argument; a megabyte of SQL is an error, in time."""
    text = "x"
    for _ in range(24):
        text = f"ln({text})"
    with pytest.raises(ExpressionError, match="too large"):
        duckdb_text(analyze(text, TYPES), column_text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("x > 5", 1),
        ("NOT x <= 5", 1),
        ("x - 1 > 5", 1),
        ("-x > 5", 1),
        ("abs(x) > 5", 1),
        ("sqrt(x) > 5", 1),
        ("least(x, 100) > 50", 1),
        ("coalesce(x, 0) > 50", 1),
        ("x IS NULL OR x > 5", 1),
        ("x = cast('nan' AS DOUBLE)", 1),
        ("x IN (1, 7, cast('nan' AS DOUBLE))", 2),
        ("x <> 2", 3),
        ("x BETWEEN 3 AND cast('nan' AS DOUBLE)", 1),
        ("power(x, -1) < 0", 0),
    ],
)
def test_a_filter_over_parquet_sees_nan(text: str, count: int, tmp_path: Path) -> None:
    """Statistics that leave NaN out prune nothing: a file filters by the rules, as rows in memory do."""
    pq.write_table(pa.table({"x": [1.0, 2.0, math.nan, -0.0]}), tmp_path / "rows.parquet")
    condition = duckdb_text(analyze(text, {"x": DOUBLE}), clean_double)
    assert connect().execute(f"SELECT count(*) FROM '{tmp_path / 'rows.parquet'}' WHERE {condition}").fetchone() == (count,)
