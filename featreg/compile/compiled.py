"""The typed, checked form of definitions: what plans are made of and programs are built from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from featreg.define import Derived, EventSource, FeatureSet, FeatureView
from featreg.expressions import Typed
from featreg.instants import Cadence
from featreg.vocabulary import DataType


@dataclass(frozen=True)
class Input:
    """A column the scan lifts out of the source: a row expression, computed only where `where` holds.

    No expression: the mere presence of a row for which `where` holds.
    """

    expression: Typed | None
    where: Typed | None

    @property
    def type(self) -> DataType:
        return self.expression.type if self.expression is not None else DataType("BOOLEAN")


@dataclass(frozen=True)
class Scan:
    """What is read from a source for a view: its contract, its rows and the columns that order and key them."""

    source: EventSource
    keys: tuple[tuple[str, DataType], ...]
    where: Typed | None
    cadence: Cadence


@dataclass(frozen=True)
class CompiledFeature:
    """One output of a view.

    An aggregate has `aggregation`, its inputs, `window` and `hop` in microseconds (None: all of history);
    a derived feature has `derived` and depends on the outputs in `uses`.
    """

    name: str
    base: str
    type: DataType
    id: str
    description: str = ""
    tags: tuple[str, ...] = ()
    aggregation: str = ""
    column: Typed | None = None
    by: Typed | None = None
    where: Typed | None = None
    limit: int = 0
    ignore_nulls: bool = False
    window: int | None = None
    hop: int | None = None
    derived: Typed | None = None
    uses: tuple[str, ...] = ()


@dataclass(frozen=True)
class CompiledView:
    """A view whose every expression is typed; features in declared order, derived ones after what they use in `order`."""

    name: str
    definition: FeatureView
    scan: Scan
    key: tuple[tuple[str, DataType], ...]
    features: tuple[CompiledFeature, ...]
    order: tuple[str, ...]
    id: str

    @property
    def cadence(self) -> Cadence:
        return self.scan.cadence

    @property
    def by_name(self) -> dict[str, CompiledFeature]:
        return {feature.name: feature for feature in self.features}

    def closure(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """`names` and the outputs that they are derived from, inputs first."""
        features, wanted = self.by_name, set[str]()

        def want(name: str) -> None:
            if name not in wanted:
                wanted.add(name)
                for used in features[name].uses:
                    want(used)

        for name in names:
            want(name)
        return tuple(name for name in self.order if name in wanted)


@dataclass(frozen=True)
class Lookup:
    """One visit of a set to a view: which features, for which spine columns, under which names.

    spine_columns: the column of the spine for each part of the entity key, in the key's order.
    """

    view: str
    spine_columns: tuple[str, ...]
    features: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CompiledSet:
    """A feature set resolved: lookups, request columns, derived features; `names` are its outputs in order."""

    name: str
    definition: FeatureSet
    lookups: tuple[Lookup, ...]
    request: tuple[tuple[str, DataType], ...]
    derived: tuple[tuple[str, Typed, Derived], ...]
    columns: tuple[tuple[str, DataType], ...]
    ids: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.columns)

    def derives(self, views: Mapping[str, CompiledView]) -> bool:
        """Whether some value is computed from others, by the set or by one of its views."""
        return bool(self.derived) or any(
            views[lookup.view].by_name[name].derived for lookup in self.lookups for name, _ in lookup.features
        )


@dataclass(frozen=True)
class Compiled:
    """All views and sets of one state of a repository."""

    views: Mapping[str, CompiledView]
    sets: Mapping[str, CompiledSet]
    sources: Mapping[str, EventSource] = field(default_factory=dict)

    def feature_ids(self) -> dict[str, str]:
        """`view.feature` -> definition id."""
        return {f"{view.name}.{feature.name}": feature.id for view in self.views.values() for feature in view.features}
