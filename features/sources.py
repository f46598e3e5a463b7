"""What happened, and when it could first be read.  Where the files are is in conf/; how they were made, in featreg/cli/flights.py."""

from featreg import Delay, EventSource

departures = EventSource(
    name="departures",
    columns={
        "departed_at": "TIMESTAMP",
        "tailnum": "VARCHAR",
        "carrier": "VARCHAR",
        "flight": "BIGINT",
        "origin": "VARCHAR",
        "dest": "VARCHAR",
        "dep_delay": "DOUBLE",
    },
    event_time="departed_at",  # a departure, with its delay, is known the moment the aircraft leaves, and no earlier
    tie_break=("carrier", "flight"),
    owner="flight-ops",
    description="One row per flight that left New York; delay in minutes, negative when early.",
)

arrivals = EventSource(
    name="arrivals",
    columns={
        "arrived_at": "TIMESTAMP",
        "tailnum": "VARCHAR",
        "carrier": "VARCHAR",
        "flight": "BIGINT",
        "origin": "VARCHAR",
        "dest": "VARCHAR",
        "dep_delay": "DOUBLE",
        "arr_delay": "DOUBLE",
        "air_time": "DOUBLE",
    },
    event_time="arrived_at",  # not the departure: a flight in the air has no arrival delay yet
    tie_break=("carrier", "flight"),
    owner="flight-ops",
    description="One row per flight that landed where it was going; diverted flights have none.",
)

movements = EventSource(
    name="movements",
    columns={
        "moved_at": "TIMESTAMP",
        "airport": "VARCHAR",
        "kind": "VARCHAR",
        "delay": "DOUBLE",
        "carrier": "VARCHAR",
        "flight": "BIGINT",
    },
    event_time="moved_at",
    tie_break=("kind", "carrier", "flight"),
    owner="flight-ops",
    description="Departures and arrivals as an airport sees them: a flight is one row where it leaves and one where it lands.",
)

cancellations = EventSource(
    name="cancellations",
    columns={"scheduled_at": "TIMESTAMP", "carrier": "VARCHAR", "flight": "BIGINT", "origin": "VARCHAR", "dest": "VARCHAR"},
    event_time="scheduled_at",
    # When a flight was called off is not recorded.  Six hours late it is safe to say: 99.93 % of those that did leave had left.
    available=Delay("6h"),
    owner="flight-ops",
    description="One row per flight that never left.",
)

weather = EventSource(
    name="weather",
    columns={
        "hour_at": "TIMESTAMP",
        "known_at": "TIMESTAMP",
        "airport": "VARCHAR",
        "temp": "DOUBLE",
        "humid": "DOUBLE",
        "wind_speed": "DOUBLE",
        "wind_gust": "DOUBLE",
        "precip": "DOUBLE",
        "pressure": "DOUBLE",
        "visib": "DOUBLE",
    },
    event_time="hour_at",
    available="known_at",  # the end of the hour: the weather of 10:00 to 11:00 is nobody's at 10:30
    owner="meteorology",
    description="Hourly weather at the three airports of New York: Fahrenheit, percent, mph, inches, millibars, miles.",
)
