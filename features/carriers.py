"""How an airline has been doing lately: slow numbers, so a nightly table is fresh enough."""

from featreg import Every, FeatureView, agg, derive
from features.entities import carrier
from features.sources import arrivals, cancellations

# Midnight in New York, in winter; the job lands at two.  Training sees the same yesterday that serving has.
nightly = Every("1d", offset="5h", delay="2h")

carrier_arrivals = FeatureView(
    name="carrier_arrivals",
    entity=carrier,
    source=arrivals,
    freshness=nightly,
    features={
        "carrier_landings": agg.count().over("7d", "28d"),
        "carrier_arr_delay": agg.avg("arr_delay").over("7d", "28d"),
        "carrier_arr_spread": agg.stddev("arr_delay").over("28d"),
        "carrier_trend": derive("carrier_arr_delay_7d - carrier_arr_delay_28d", description="Above 0: getting later."),
    },
    owner="network-planning",
    description="How late this airline's flights have been landing.",
)

carrier_cancellations = FeatureView(
    name="carrier_cancellations",
    entity=carrier,
    source=cancellations,
    freshness=nightly,
    features={"carrier_cancelled": agg.count().over("1d", "7d")},
    owner="network-planning",
    description="How many of this airline's flights never left.",
)
