"""How an aircraft has been running, as of this minute: a late one tends to stay late until the night."""

from featreg import REALTIME, FeatureView, agg, derive
from features.entities import aircraft
from features.sources import arrivals, departures

aircraft_delay = FeatureView(
    name="aircraft_delay",
    entity=aircraft,
    source=departures,
    freshness=REALTIME,
    features={
        "flights": agg.count().over("1d", "7d"),
        "avg_delay": agg.avg("dep_delay").over("1d", "7d"),
        "late": agg.count(where="dep_delay > 15").over("7d"),
        "dests": agg.count_distinct("dest").over("7d"),
        "last_delay": agg.last("dep_delay"),
        "late_share_7d": derive("late_7d / flights_7d", description="NULL for an aircraft that has not flown from here."),
    },
    owner="flight-ops",
    description="How late this aircraft has been leaving New York.",
)

aircraft_arrivals = FeatureView(
    name="aircraft_arrivals",
    entity=aircraft,
    source=arrivals,
    freshness=REALTIME,
    features={
        # Landings are far from New York and the way back is in no table: older than a day, they say little of this flight.
        "landings": agg.count().over("1d"),
        "last_arrival_delay": agg.last("arr_delay").over("1d"),
        "made_up": agg.avg("dep_delay - arr_delay", description="Minutes won back in the air.").over("7d"),
    },
    owner="flight-ops",
    description="How late this aircraft has been landing.",
)
