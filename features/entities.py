"""What features describe."""

from featreg import Entity

aircraft = Entity(name="aircraft", key={"tailnum": "VARCHAR"}, owner="flight-ops", description="One airframe, by its tail number.")
carrier = Entity(name="carrier", key={"carrier": "VARCHAR"}, owner="flight-ops", description="An airline, by its two-letter code.")
airport = Entity(name="airport", key={"airport": "VARCHAR"}, owner="flight-ops", description="An airport, by its FAA code.")
route = Entity(
    name="route",
    key={"origin": "VARCHAR", "dest": "VARCHAR"},
    owner="flight-ops",
    description="A pair of airports, in the direction flown.",
)
