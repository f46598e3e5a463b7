"""A view written in SQL is the view that a Python spec would have made, and its problems have lines."""

import re

import duckdb
import pytest

from featreg import REALTIME, DefinitionError, Every, agg
from featreg.define import Aggregate, Derived, Window
from featreg.expressions.parse import parse
from featreg.load import load_files

PYTHON = """
from featreg import Entity, EventSource, FeatureView, agg, derive

aircraft = Entity(name="aircraft", key={"tailnum": "VARCHAR"})
airport = Entity(name="airport", key={"airport": "VARCHAR"})
route = Entity(name="route", key={"origin": "VARCHAR", "dest": "VARCHAR"})
everything = Entity(name="everything", key={})
departures = EventSource(
    name="departures",
    columns={
        "tailnum": "VARCHAR", "origin": "VARCHAR", "dest": "VARCHAR", "dep_delay": "DOUBLE", "late": "BOOLEAN",
        "departed_at": "TIMESTAMP", "loaded_at": "TIMESTAMP",
    },
    event_time="departed_at",
    available="loaded_at",
)
twin = FeatureView(
    name="twin",
    entity=aircraft,
    source=departures,
    where="dep_delay IS NOT NULL",
    features={
        "flights": agg.count().over("1d", "7d"),
        "avg_delay": agg.avg("dep_delay").over("7d"),
        "late": agg.count(where="dep_delay > 15").over("7d"),
        "last_origin": agg.last("origin"),
        "late_share_7d": derive("late_7d / flights_7d"),
    },
    owner="flight-ops",
)
"""
SQL = """/* featreg
feature_view: aircraft_delay
entity: aircraft
freshness: realtime
owner: flight-ops
*/
SELECT
  tailnum,
  count(*) OVER w1d AS flights_1d,
  count(*) OVER w7d AS flights_7d,
  avg(dep_delay) OVER w7d AS avg_delay_7d,
  count(*) FILTER (WHERE dep_delay > 15) OVER w7d AS late_7d,
  last_value(origin) OVER (PARTITION BY tailnum ORDER BY departed_at) AS last_origin,
  late_7d / flights_7d AS late_share_7d
FROM departures
WHERE dep_delay IS NOT NULL
WINDOW
  w1d AS (PARTITION BY tailnum ORDER BY departed_at RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW),
  w7d AS (PARTITION BY tailnum ORDER BY departed_at RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW)
"""
W7D = "PARTITION BY tailnum ORDER BY departed_at RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW"


def load(sql: str, python: str = PYTHON):
    return load_files({"features/a.py": python.encode(), "features/view.sql": sql.encode()})


def problems(sql: str, python: str = PYTHON):
    with pytest.raises(DefinitionError) as caught:
        load(sql, python)
    return caught.value.problems


def view_of(selected: str, header: str = "", window: str = W7D, entity: str = "aircraft", keys: str = "tailnum"):
    comment = f"/* featreg\nfeature_view: v\nentity: {entity}\n{header}\n*/"
    return load(f"{comment}\nSELECT {keys}{', ' if keys else ''}{selected}\nFROM departures\nWINDOW w AS ({window})").views["v"]


def only(selected: str, **changes) -> Aggregate | Derived:
    (feature,) = view_of(f"{selected} AS f", **changes).features
    return feature[1]


def meant(spec: Aggregate | Derived):
    """A feature with its expressions as trees, for two spellings of one expression are one."""
    tree = lambda text: None if text is None else parse(text)  # noqa: E731
    if isinstance(spec, Derived):
        return tree(spec.expression)
    return spec.aggregation, tree(spec.column), tree(spec.by), spec.n, spec.k, spec.ignore_nulls, tree(spec.where)


def test_the_view_of_the_design_is_the_same_in_sql_and_in_python():
    loaded = load(SQL)
    sql, python = loaded.views["aircraft_delay"], loaded.views["twin"]
    assert [o.name for o in sql.outputs] == [o.name for o in python.outputs]
    assert [meant(o.spec) for o in sql.outputs] == [meant(o.spec) for o in python.outputs]
    assert [o.window for o in sql.outputs] == [o.window for o in python.outputs]
    assert (sql.entity, sql.source, sql.freshness, sql.owner, parse(sql.where)) == (
        python.entity,
        python.source,
        python.freshness,
        python.owner,
        parse(python.where),
    )


def test_the_sql_of_the_design_is_sql_for_others_too():
    """Second witness: DuckDB runs it, and gives the columns that the view has."""
    connection = duckdb.connect()
    connection.sql(
        "CREATE TABLE departures (tailnum VARCHAR, origin VARCHAR, dep_delay DOUBLE, departed_at TIMESTAMP, loaded_at TIMESTAMP)"
    )
    assert connection.sql(SQL).columns == ["tailnum", *(o.name for o in load(SQL).views["aircraft_delay"].outputs)]


def test_places_point_into_the_select():
    loaded = load(SQL)
    assert loaded.place("view", "aircraft_delay") == ("features/view.sql", 2)
    assert loaded.place("view", "aircraft_delay", "late_7d") == ("features/view.sql", 12)
    assert loaded.place("view", "aircraft_delay", "late_share_7d") == ("features/view.sql", 14)


@pytest.mark.parametrize(
    ("sql", "python"),
    [
        ("count(*)", agg.count()),
        ("count()", agg.count()),
        ("COUNT(dep_delay)", agg.count("dep_delay")),
        ("count(DISTINCT origin)", agg.count_distinct("origin")),
        ("count_distinct(origin)", agg.count_distinct("origin")),
        ("sum(dep_delay * 2)", agg.sum("dep_delay * 2")),
        ("avg(dep_delay)", agg.avg("dep_delay")),
        ("min(origin)", agg.min("origin")),
        ("max(origin)", agg.max("origin")),
        ("var_samp(dep_delay)", agg.var("dep_delay")),
        ("var(dep_delay)", agg.var("dep_delay")),
        ("stddev_samp(dep_delay)", agg.stddev("dep_delay")),
        ("stddev(dep_delay)", agg.stddev("dep_delay")),
        ("bool_or(late)", agg.any("late")),
        ("any(late)", agg.any("late")),
        ("bool_and(late)", agg.all("late")),
        ("first_value(origin)", agg.first("origin")),
        ("first(origin)", agg.first("origin")),
        ("last_value(origin)", agg.last("origin")),
        ("last_value(origin) RESPECT NULLS", agg.last("origin")),
        ("last_value(origin) IGNORE NULLS", agg.last("origin", ignore_nulls=True)),
        ("last_value(origin IGNORE NULLS)", agg.last("origin", ignore_nulls=True)),
        ("last(origin IGNORE NULLS) FILTER (WHERE late)", agg.last("origin", ignore_nulls=True, where="late")),
        ("first_n(origin, 3)", agg.first_n("origin", 3)),
        ("last_n(origin, 3)", agg.last_n("origin", 3)),
        ("top_n(dep_delay, 3)", agg.top_n("dep_delay", 3)),
        ("arg_min(origin, dep_delay)", agg.arg_min("origin", "dep_delay")),
        ("arg_max(origin, abs(dep_delay))", agg.arg_max("origin", "abs(dep_delay)")),
        ("histogram(origin)", agg.histogram("origin")),
        ("histogram(origin, 5)", agg.histogram("origin", k=5)),
        ("sum(departures.dep_delay) FILTER (WHERE departures.late)", agg.sum("dep_delay", where="late")),
        ("avg(CASE WHEN late THEN 1.50 END)", agg.avg("CASE WHEN late THEN 1.50 END")),
        ("sum(dep_delay::BIGINT) ", agg.sum("CAST(dep_delay AS BIGINT)")),
        ('max("origin") /* why */', agg.max("origin")),
    ],
)
def test_every_aggregation_has_a_spelling_in_sql(sql, python):
    spec = only(sql + " OVER w")
    assert meant(spec) == meant(python)
    assert (spec.windows, spec.suffixed) == ((Window("7d"),), False)


@pytest.mark.parametrize(
    "expression",
    [
        "flights_7d // 2 % 3",
        "NOT late OR late AND flights > -1.5e3",
        "a IS NOT NULL AND b IS NULL",
        "a NOT IN (1, 2) AND b BETWEEN 1 AND 2",
        "coalesce(nullif(a, 0), 1.50)",
        "CASE WHEN a > 1 THEN 'x''y' WHEN b THEN 'z' ELSE NULL END = 'x'",
        "greatest(least(a, b), round(c, 2)) + power(ln(a), 2) - sqrt(exp(b))",
        "(a + b) * c - (d - (e - f))",
        "a / b / c",
        "TRY_CAST(a AS DECIMAL(10, 2)) <> 1 OR b != 2",
        "epoch(a) - epoch(b)",
        '"select" + "Key"',
        "length(a) + substr(b, 1, 2) || lower(c)",
        "starts_with(a, 'b') AND contains(a, 'c') AND a LIKE 'd%' AND trim(a) NOT LIKE '_'",
        "extract(year FROM a) + year(b) + dayofweek(c)",
    ],
)
def test_an_expression_comes_out_of_the_select_as_it_went_in(expression):
    """Second witness: the expression, parsed by itself."""
    assert parse(only(expression).expression) == parse(expression)
    assert parse(only(f"count(*) FILTER (WHERE {expression}) OVER w").where) == parse(expression)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        ("RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW", "7d"),
        ("RANGE BETWEEN INTERVAL '7' DAY PRECEDING AND CURRENT ROW", "7d"),
        ("RANGE BETWEEN INTERVAL '168 hours' PRECEDING AND CURRENT ROW", "7d"),
        ("RANGE BETWEEN INTERVAL (1) WEEK PRECEDING AND CURRENT ROW", "7d"),
        ("RANGE INTERVAL 90 MINUTES PRECEDING", "90m"),
        ("RANGE BETWEEN INTERVAL 45 SECONDS PRECEDING AND CURRENT ROW", "45s"),
        ("RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW", None),
        ("", None),
    ],
)
def test_a_range_is_a_window_of_that_length_and_no_range_is_all_of_history(frame, text):
    window = f"PARTITION BY tailnum ORDER BY departed_at {frame}"
    assert only("count(*) OVER w", window=window).windows == (Window(text),)
    assert only(f"count(*) OVER ({window})").windows == (Window(text),)


def test_keys_are_plain_columns_by_their_name_or_mapped():
    view = view_of("count(*) OVER w AS n", entity="airport", keys="origin AS airport", window="PARTITION BY origin ORDER BY departed_at")
    assert view.key_columns == (("airport", "origin"),)
    both = view_of("count(*) OVER w AS n", entity="route", keys="DEST, origin", window="PARTITION BY dest, ORIGIN ORDER BY Departed_At")
    assert both.key_columns == (("origin", "origin"), ("dest", "dest"))
    crossed = view_of(
        "count(*) OVER w AS n",
        entity="route",
        keys="origin AS dest, dest AS origin",
        window="PARTITION BY origin, dest ORDER BY departed_at",
    )
    assert crossed.key_columns == (("origin", "dest"), ("dest", "origin"))
    assert view_of("count(*) OVER w AS n", entity="everything", keys="", window="ORDER BY departed_at").key_columns == ()


def test_the_header_says_freshness_hops_and_what_is_for_people():
    header = "freshness: every 1d offset 5h delay 2h\nhop: w: exact\ndescription: How late,\n  and how often.\ntags: a, b"
    view = view_of("count(*) OVER w AS n, count(*) OVER (" + W7D.replace("7 DAYS", "1 DAY") + ") AS m", header)
    assert (view.freshness, view.description, view.tags) == (Every("1d", "5h", "2h"), "How late, and how often.", ("a", "b"))
    assert [o.window.hop for o in view.outputs] == ["exact", None]
    assert [o.window.hop for o in view_of("count(*) OVER w AS n, max(late) OVER (" + W7D + ") AS m", "hop: 5m").outputs] == ["5m", "5m"]
    assert [o.window.hop for o in view_of("count(*) OVER w AS n", "hop: 5m, W: 1h").outputs] == ["1h"]
    assert view_of("count(*) OVER w AS n").freshness == REALTIME
    assert view_of("count(*) OVER w AS n", "freshness: every 12h").freshness == Every("12h")


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("/* featreg", "/* nothing"), 1, "no featreg header"),
        (("feature_view: aircraft_delay\n", ""), 1, "no `feature_view`"),
        (("entity: aircraft", "entity: aircaft"), 3, "Did you mean 'aircraft'"),
        (("owner:", "ownr:"), 5, "Did you mean 'owner'"),
        (("owner: flight-ops", "flight-ops"), 5, "no `key: value`"),
        (("freshness: realtime", "freshness: daily"), 4, "every 1d offset 0h delay 2h"),
        (("freshness: realtime", "freshness: every 0d"), 4, "no time at all"),
        (("freshness: realtime", "hop: w9d: exact"), 4, "Did you mean 'w7d'"),
        (("freshness: realtime", "hop: w7d: 30d"), 19, "longer than the window"),
        (("feature_view: aircraft_delay", "feature_view: aircraft delay"), 2, "is not a name"),
        (("SELECT\n  tailnum,", "SELECT\n"), 9, "the key 'tailnum' of entity 'aircraft' is not selected"),
        (("SELECT\n", "SELECT DISTINCT\n"), 8, "DISTINCT has no place"),
        (("FROM departures", "FROM departures JOIN x USING (tailnum)"), 15, "JOIN has no place"),
        (("WHERE dep_delay IS NOT NULL", "GROUP BY tailnum"), 16, "GROUP BY has no place"),
        (("FROM departures", "FROM departure"), 15, "Did you mean 'departures'"),
        (("FROM departures", "FROM departures AS d"), 15, "write the source's name alone"),
        (("FROM departures", "FROM (SELECT 1)"), 15, "selects FROM one source"),
        (("FROM departures", "FROM FROM"), 16, "this is not SQL"),
        (("OVER w1d AS", "OVER w2d AS"), 9, "there is no window 'w2d'"),
        (("OVER w1d AS", "OVER (w1d ORDER BY origin) AS"), 9, "adds to a named window"),
        (("count(*) OVER w1d AS", "count(*) AS"), 9, "has no window"),
        (("count(*) OVER w1d AS", "1 + count(*) OVER w1d AS"), 9, "stands inside an expression"),
        (("count(*) OVER w1d AS flights_1d", "count(*) OVER w1d"), 9, "has no name"),
        (("count(*) OVER w1d AS flights_1d", "dep_delay"), 9, "has no name"),
        (("flights_1d", "flights_7d"), 10, "two features are called 'flights_7d'"),
        (("flights_1d", "FLIGHTS_7D"), 10, "differ only in case"),
        (("avg(dep_delay)", "median(dep_delay)"), 11, "no aggregation 'median'"),
        (("avg(dep_delay)", "avg()"), 11, "argument 'column' is missing"),
        (("avg(dep_delay)", "avg(dep_delay, origin)"), 11, "2 arguments are given"),
        (("avg(dep_delay)", "sum(DISTINCT dep_delay)"), 11, "takes no `DISTINCT dep_delay`"),
        (("avg(dep_delay)", "sum(dep_delay ORDER BY origin)"), 11, "takes no `dep_delay ORDER BY origin`"),
        (("avg(dep_delay)", "top_n(dep_delay, origin)"), 11, "must be a whole number"),
        (("avg(dep_delay)", "top_n(dep_delay, 0)"), 11, "n=0"),
        (("avg(dep_delay)", "avg(dep_delay) IGNORE NULLS"), 11, "takes no argument 'ignore_nulls'"),
        (("w1d AS (PARTITION BY tailnum", "w1d AS (PARTITION BY origin"), 18, "PARTITION BY origin; it must have the key columns"),
        (("w1d AS (PARTITION BY tailnum", "w1d AS ("), 18, "no PARTITION BY"),
        (("ORDER BY departed_at RANGE BETWEEN INTERVAL 1", "ORDER BY loaded_at RANGE BETWEEN INTERVAL 1"), 18, "order of the event time"),
        (("ORDER BY departed_at RANGE BETWEEN INTERVAL 1", "ORDER BY departed_at DESC RANGE BETWEEN INTERVAL 1"), 18, "event time"),
        (("INTERVAL 1 DAY", "INTERVAL 1 MONTH"), 18, "whole number of seconds"),
        (("INTERVAL 1 DAY", "INTERVAL '1 day 2 hours'"), 18, "whole number of seconds"),
        (("INTERVAL 1 DAY", "INTERVAL 0 DAY"), 18, "holds no time"),
        (("RANGE BETWEEN INTERVAL 1 DAY", "ROWS BETWEEN 7"), 18, "counts ROWS"),
        (("1 DAY PRECEDING AND CURRENT ROW", "1 DAY PRECEDING AND INTERVAL 1 DAY FOLLOWING"), 18, "does not end at the current row"),
        (("1 DAY PRECEDING AND CURRENT ROW", "1 DAY PRECEDING AND CURRENT ROW EXCLUDE TIES"), 18, "EXCLUDE"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(change, line, words):
    assert change[0] in SQL
    (problem, *_) = found = [p for p in problems(SQL.replace(*change, 1)) if words in str(p)] or problems(SQL.replace(*change, 1))
    assert words in str(problem), [str(p) for p in found]
    assert (problem.file, problem.line) == ("features/view.sql", line), str(problem)


def test_all_problems_of_a_file_are_told_at_once():
    broken = (
        SQL.replace("avg(", "median(")
        .replace("FILTER (WHERE dep_delay > 15) OVER w7d", "OVER w8d")
        .replace("freshness: realtime", "hop: x: 1h")
    )
    assert [p.line for p in problems(broken)] == [4, 11, 12]
    assert [p.subject for p in problems(broken)] == ["aircraft_delay", "aircraft_delay.avg_delay_7d", "aircraft_delay.late_7d"]


def test_a_broken_entity_or_source_is_no_second_problem_of_the_view():
    (problem,) = problems(
        SQL, re.sub("twin = .*", "", PYTHON.replace('event_time="departed_at"', 'event_time="departed"'), flags=re.DOTALL)
    )
    assert problem.file == "features/a.py"
    (problem,) = problems(SQL, "def")
    assert problem.file == "features/a.py"


def test_two_statements_or_none_are_no_view():
    assert "one SELECT" in str(problems(SQL + "; SELECT 1")[0])
    assert "one SELECT" in str(problems(SQL[: SQL.index("SELECT")])[0])
    assert load(SQL + ";").views


def test_a_sql_view_with_the_name_of_a_python_view_is_defined_twice():
    (problem,) = problems(SQL.replace("aircraft_delay", "twin"))
    assert problem.file == "features/view.sql" and "first at features/a.py:" in problem.message


@pytest.mark.parametrize("text", ["(" * 5_000, "SELECT " + "1+" * 50_000 + "1 AS x FROM departures", "SELECT 'open", "\x00"])
def test_a_hostile_select_is_a_problem(text):
    assert problems(SQL[: SQL.index("SELECT")] + text)
