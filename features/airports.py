"""How busy and how late an airport is right now, and its weather."""

from featreg import REALTIME, FeatureView, agg, derive
from features.entities import airport
from features.sources import movements, weather

# Of departures and arrivals alike, so that it says something of both ends of a flight: New York sees only departures here,
# every other airport only arrivals.
airport_traffic = FeatureView(
    name="airport_traffic",
    entity=airport,
    source=movements,
    freshness=REALTIME,
    features={
        "movements": agg.count().over("1h", "3h", "1d"),
        "avg_lateness": agg.avg("delay").over("1h", "3h", "1d"),
        "max_lateness": agg.max("delay").over("3h"),
        "held": agg.count(where="delay > 30").over("3h", "1d"),
        "carriers": agg.count_distinct("carrier").over("1d"),
        "held_share_3h": derive("held_3h / movements_3h"),
    },
    owner="flight-ops",
    description="Flights to or from New York that this airport has handled, and how late they were.",
)

airport_weather = FeatureView(
    name="airport_weather",
    entity=airport,
    source=weather,
    where="coalesce(wind_speed, 0) < 200",  # one reading says 1,048 mph
    freshness=REALTIME,
    features={
        # The newest hour that is over; from the third hour without a report on, no weather rather than old weather.
        **agg.latest("temp", "wind_speed", "visib", "precip", "pressure", within="3h"),
        "rain": agg.sum("precip").over("6h"),
        "low_visibility": derive("visib < 3"),
    },
    owner="meteorology",
    description="The last known hourly weather.",
)
