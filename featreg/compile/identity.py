"""Name a feature by what it means: SHA-256 over canonical JSON of its meaning.

Names of features, views and entities, order, comments, formatting and owners are
not in it; whatever can change a value is.  A mended bug in an aggregation or in the
expression language raises its number here, and so is a new meaning.
"""

from collections.abc import Mapping

from featreg.canonical import content_id
from featreg.compile.compiled import CompiledFeature, Scan
from featreg.define import FeatureView
from featreg.expressions import LANGUAGE_SEMANTICS, Typed, meaning

AGGREGATION_SEMANTICS = dict.fromkeys(
    "count sum avg min max var stddev any all count_distinct first last first_n last_n top_n arg_min arg_max histogram".split(), 1
)
SWEEP_SEMANTICS = 1  # membership, cutoffs and ties


def aggregate_id(view: FeatureView, scan: Scan, feature: CompiledFeature) -> str:
    """The definition id of an aggregate."""
    expressions = (feature.column, feature.by, feature.where, scan.where)
    return content_id(
        {
            "semantics": [SWEEP_SEMANTICS, LANGUAGE_SEMANTICS, AGGREGATION_SEMANTICS[feature.aggregation]],
            "source": source_meaning(scan, frozenset().union(*(e.columns for e in expressions if e is not None))),
            "key": [[name, column, str(data_type)] for (name, column), (_, data_type) in zip(view.key_columns, scan.keys)],
            "freshness": [scan.cadence.period, scan.cadence.offset % (scan.cadence.period or 1), scan.cadence.delay],
            "filter": _meaning(scan.where),
            "aggregation": feature.aggregation,
            "column": _meaning(feature.column),
            "by": _meaning(feature.by),
            "where": _meaning(feature.where),
            "limit": feature.limit,
            "ignore_nulls": feature.ignore_nulls,
            "window": feature.window,
            "hop": feature.hop,
            "type": str(feature.type),
        }
    )


def derived_id(expression: Typed, inputs: Mapping[str, str]) -> str:
    """The definition id of a derived feature: its expression over the ids of its inputs."""
    return content_id({"semantics": [LANGUAGE_SEMANTICS], "derived": meaning(expression, dict(inputs)), "type": str(expression.type)})


def source_meaning(scan: Scan, used: frozenset[str]) -> dict[str, object]:
    source = scan.source
    needed = used | {source.event_time, *source.tie_break, *(column for column, _ in scan.keys)}
    if source.available_column:
        needed |= {source.available_column}
    return {
        "name": source.name,
        "columns": [[name, str(data_type)] for name, data_type in sorted(source.columns) if name in needed],
        "event_time": source.event_time,
        "available": source.available_column if not source.arrives else "arrival on push",
        "delay": source.delay_micros,
        "tie_break": list(source.tie_break),
    }


def _meaning(expression: Typed | None) -> object:
    return None if expression is None else meaning(expression)
