"""Declare the features of one entity from one source."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import InstanceOf, model_validator

from featreg.define.aggregate import EXACT_TEXT, Aggregate, Derived, Window
from featreg.define.entity import Entity, EntityOn
from featreg.define.freshness import REALTIME, Every, Realtime
from featreg.define.layers import MEANING, META
from featreg.define.model import (
    Fault,
    Model,
    SpecError,
    coerced,
    faults_of,
    nearest,
    read_mapping,
    read_name,
    read_optional_expression,
    read_texts,
    same_but_for_case,
    shown,
    shown_name,
    spellings,
)
from featreg.define.selection import Selection, chosen_names
from featreg.define.source import EventSource, read_duration_text
from featreg.errors import UsageError
from featreg.instants import parse_duration


@dataclass(frozen=True)
class Output:
    """One feature as it is computed: `flights` over 7 days is `flights_7d`.

    base: the key in `features`.  window: with the view's hop filled in; None for a derived feature.
    """

    name: str
    spec: Aggregate | Derived
    window: Window | None
    base: str


def _read_features(value: Any) -> tuple[tuple[str, Aggregate | Derived], ...]:
    faults = []
    for name, spec in read_mapping(value):
        try:
            read_name(name)
        except SpecError as error:
            faults += faults_of(error, shown_name(str(name)))
        if not isinstance(spec, (Aggregate, Derived)):
            faults.append(Fault(f'{shown(spec)} is no feature. Write agg.…(…), or derive("…").', part=shown_name(str(name))))
    if faults:
        raise SpecError(faults)
    return read_mapping(value)


def _read_hop(value: Any) -> str | tuple[tuple[str, str], ...] | None:
    if value is None or value == EXACT_TEXT:
        return value
    if isinstance(value, str):
        return read_duration_text(value)
    faults = []
    for window, hop in read_mapping(value):
        try:
            Window(read_duration_text(window), hop)
        except UsageError as error:
            faults += faults_of(error, shown_name(str(window)))
    if faults:
        raise SpecError(faults)
    return read_mapping(value)


class FeatureView(Model):
    """Features of one entity from one source.

    entity: its keys are found in the source by name, or as `entity.on(...)` says.
    where: only these rows of the source.
    hop: for windows that name none: one for all, or window -> hop.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("name",)

    name: Annotated[str, coerced(read_name), META]
    entity: Annotated[InstanceOf[Entity] | InstanceOf[EntityOn], MEANING]
    source: Annotated[InstanceOf[EventSource], MEANING]
    features: Annotated[tuple[tuple[str, InstanceOf[Aggregate] | InstanceOf[Derived]], ...], coerced(_read_features), MEANING]
    where: Annotated[str | None, coerced(read_optional_expression), MEANING] = None
    freshness: Annotated[InstanceOf[Realtime] | InstanceOf[Every], MEANING] = REALTIME
    hop: Annotated[str | tuple[tuple[str, str], ...] | None, coerced(_read_hop), MEANING] = None
    owner: Annotated[str, META] = ""
    description: Annotated[str, META] = ""
    tags: Annotated[tuple[str, ...], coerced(read_texts), META] = ()

    if TYPE_CHECKING:

        def __init__(
            self,
            name: str,
            *,
            entity: Entity | EntityOn,
            source: EventSource,
            features: Mapping[str, Aggregate | Derived],
            where: str | None = None,
            freshness: Realtime | Every = REALTIME,
            hop: str | Mapping[str, str] | None = None,
            owner: str = "",
            description: str = "",
            tags: tuple[str, ...] | list[str] = (),
        ) -> None: ...

    @model_validator(mode="after")
    def _check(self) -> "FeatureView":
        faults = [*self._key_faults(), *self._hop_faults()]
        if not self.features:
            faults.append(Fault("a view needs at least one feature."))
        if not faults:
            faults += self._name_faults()
        if faults:
            raise SpecError(faults)
        return self

    @property
    def described(self) -> Entity:
        """The entity, wherever its keys are found."""
        return self.entity.entity if isinstance(self.entity, EntityOn) else self.entity

    @property
    def key_columns(self) -> tuple[tuple[str, str], ...]:
        """(entity key, source column) in the key's order, the column as the source spells it."""
        pairs = self.entity.mapping if isinstance(self.entity, EntityOn) else [(key, key) for key in self.entity.key_names]
        declared = spellings(self.source.types)
        return tuple((key, declared.get(column.lower(), column)) for key, column in pairs)

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """The features as declared, each over its windows in order."""
        return tuple(output for name, spec in self.features for output in self._expanded(name, spec))

    def all(self) -> Selection:
        """Every feature of this view, as declared."""
        return Selection(view=self.name).among(*self._offered())

    def __getitem__(self, names: str | tuple[str, ...]) -> Selection:
        return Selection(view=self.name, names=chosen_names(names)).among(*self._offered())

    def _offered(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(output.name for output in self.outputs), self.described.key_names

    def _expanded(self, name: str, spec: Aggregate | Derived) -> Iterator[Output]:
        if isinstance(spec, Derived):
            yield Output(name, spec, None, name)
            return
        for window in spec.windows or (Window(),):
            suffix = f"_{window.text}" if spec.suffixed and window.text is not None else ""
            yield Output(name + suffix, spec, window.with_hop(self._hop_for(window)), name)

    def _hop_for(self, window: Window) -> str | None:
        if self.hop is None or isinstance(self.hop, str):
            return self.hop
        return next((hop for text, hop in self.hop if parse_duration(text) == window.micros), None)

    def _key_faults(self) -> Iterator[Fault]:
        declared = self.source.types
        types = dict(self.described.key)
        for key, column in self.key_columns:
            if column not in declared:
                hint = nearest(column, declared, f'Map it with {self.described.name}.on({key}="…"). The source has')
                yield Fault(f"key column '{column}' is not in source '{self.source.name}'.", hint=hint)
            elif declared[column].widened != types[key].widened:
                yield Fault(f"key '{key}' is a {types[key]}, and column '{column}' of source '{self.source.name}' a {declared[column]}.")

    def _hop_faults(self) -> Iterator[Fault]:
        if isinstance(self.hop, tuple):
            windows = {window.micros for _, spec in self.features if isinstance(spec, Aggregate) for window in spec.windows}
            for text, _ in self.hop:
                if parse_duration(text) not in windows:
                    yield Fault(f"hop names the window '{text}', and no feature has it.")
        for name, spec in self.features:
            try:
                list(self._expanded(name, spec))
            except UsageError as error:
                yield from faults_of(error, name)

    def _name_faults(self) -> Iterator[Fault]:
        first: dict[str, Output] = {}
        for output in self.outputs:
            taken = first.setdefault(output.name, output)
            if taken is not output:
                both = f"one from '{taken.base}', one from '{output.base}'"
                yield Fault(f"two features are called '{output.name}': {both}.", part=output.base)
        yield from same_but_for_case((output.name for output in self.outputs), "feature")
