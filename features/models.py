"""What each model reads, in the order in which it reads it."""

from featreg import FeatureSet, view
from features.aircraft import aircraft_arrivals, aircraft_delay
from features.airports import airport_traffic, airport_weather
from features.carriers import carrier_arrivals, carrier_cancellations

# As of an hour before the schedule (predict_at in data/schedule.parquet).  At the scheduled minute itself 200,089 of the
# 328,521 flights that left had left already, and their own delay would be among their features.
delay_model = FeatureSet(
    name="delay_model",
    features=[
        aircraft_delay.all(),
        aircraft_arrivals.all(),
        airport_traffic.all().on(airport="origin"),
        airport_traffic["movements_1h", "avg_lateness_3h", "held_share_3h"].on(airport="dest").prefix("dest_"),
        airport_weather.all().on(airport="origin"),
        carrier_arrivals.all(),
        carrier_cancellations.all(),
    ],
    request={"distance": "DOUBLE"},
    derived={
        "busy_long_haul": "movements_1h > 20 AND distance > 1000",
        "cancelled_share_7d": "carrier_cancelled_7d / (carrier_cancelled_7d + carrier_landings_7d)",
    },
    owner="delay-prediction",
    description="Will this flight leave late?  Asked an hour before its schedule.",
)

# As of the departure (departed_at), whose delay is known by then and comes with the request.
arrival_model = FeatureSet(
    name="arrival_model",
    features=[
        view("route_history").all(),
        aircraft_arrivals["made_up_7d"],
        airport_traffic["movements_1h", "avg_lateness_3h"].on(airport="dest").prefix("dest_"),
        carrier_arrivals["carrier_arr_delay_7d", "carrier_arr_spread_28d"],
    ],
    request={"dep_delay": "DOUBLE", "scheduled_minutes": "DOUBLE"},
    derived={
        "slack": "scheduled_minutes - route_air_time_28d",
        "expected_arr_delay": "dep_delay - coalesce(made_up_7d, 0)",
    },
    owner="delay-prediction",
    description="How late will this flight land?  Asked when it leaves.",
)
