"""Define a feature once: train on the value that serving would have returned, to the last bit.

`import featreg` costs nothing: a public name loads its module when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featreg.define import REALTIME, Delay, Entity, EventSource, Every, FeatureSet, FeatureView, agg, derive, view
    from featreg.errors import (
        CoverageError,
        DataError,
        DefinitionError,
        FeatregError,
        LeaseHeldError,
        OverflowDataError,
        RefusedError,
        RejectedRowsError,
        StoreError,
        StoreUnavailable,
        UsageError,
    )
    from featreg.serve.client import Client
    from featreg.session import open

__all__ = [
    "REALTIME",
    "Client",
    "CoverageError",
    "DataError",
    "DefinitionError",
    "Delay",
    "Entity",
    "EventSource",
    "Every",
    "FeatregError",
    "FeatureSet",
    "FeatureView",
    "LeaseHeldError",
    "OverflowDataError",
    "RefusedError",
    "RejectedRowsError",
    "StoreError",
    "StoreUnavailable",
    "UsageError",
    "agg",
    "derive",
    "open",
    "view",
]

_HOMES = {name: "featreg.errors" if name.endswith("Error") else "featreg.define" for name in __all__} | {
    "open": "featreg.session",
    "Client": "featreg.serve.client",
    "StoreUnavailable": "featreg.errors",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'featreg' has no attribute '{name}'")
    value = getattr(import_module(home), name)
    globals()[name] = value  # so this runs once per name
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
