"""What an author writes: frozen models with no engine, no git and no clock."""

from featreg.define import agg
from featreg.define.aggregate import Aggregate, Derived, Window, derive
from featreg.define.entity import Entity, EntityOn
from featreg.define.feature_set import FeatureSet
from featreg.define.feature_view import FeatureView, Output
from featreg.define.freshness import REALTIME, Every, Realtime
from featreg.define.layers import LAYOUT, MEANING, META, Layer
from featreg.define.model import Fault, Model, SpecError
from featreg.define.selection import Selection, ViewReference, view
from featreg.define.source import ARRIVAL, Delay, EventSource

__all__ = [
    "ARRIVAL",
    "LAYOUT",
    "MEANING",
    "META",
    "REALTIME",
    "Aggregate",
    "Delay",
    "Derived",
    "Entity",
    "EntityOn",
    "EventSource",
    "Every",
    "Fault",
    "FeatureSet",
    "FeatureView",
    "Layer",
    "Model",
    "Output",
    "Realtime",
    "Selection",
    "SpecError",
    "ViewReference",
    "Window",
    "agg",
    "derive",
    "view",
]
