"""Name what a feature describes, and the columns that tell one from another."""

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import InstanceOf, model_validator

from featreg.define.layers import MEANING, META
from featreg.define.model import MOST_FAULTS, Fault, Model, SpecError, coerced, nearest, read_columns, read_name, read_texts, twice
from featreg.vocabulary import KEY_NAMES, DataType


class Entity(Model):
    """What a feature describes.  `key={}` is the one global entity."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("name", "key")

    name: Annotated[str, coerced(read_name), META]
    key: Annotated[tuple[tuple[str, InstanceOf[DataType]], ...], coerced(read_columns), MEANING]
    owner: Annotated[str, META] = ""
    description: Annotated[str, META] = ""
    tags: Annotated[tuple[str, ...], coerced(read_texts), META] = ()

    if TYPE_CHECKING:

        def __init__(
            self, name: str, key: Mapping[str, str], *, owner: str = "", description: str = "", tags: tuple[str, ...] | list[str] = ()
        ) -> None: ...

    @model_validator(mode="after")
    def _check_key_types(self) -> "Entity":
        faults = [
            Fault(f"{declared} cannot be a key type. Key types are: {', '.join(KEY_NAMES)}.", part=column)
            for column, declared in self.key
            if declared.name not in KEY_NAMES
        ]
        if faults:
            raise SpecError(faults)
        return self

    @property
    def key_names(self) -> tuple[str, ...]:
        return tuple(column for column, _ in self.key)

    def on(self, **mapping: str) -> "EntityOn":
        """This entity, found in a source under other column names: `airport.on(airport="origin")`.

        mapping: entity key -> source column; a key that is not named keeps its own name.
        """
        return EntityOn(entity=self, mapping=tuple((key, mapping.pop(key, key)) for key in self.key_names) + tuple(mapping.items()))


class EntityOn(Model):
    """An entity and the source column of each of its keys, in the key's order."""

    entity: Annotated[InstanceOf[Entity], MEANING]
    mapping: Annotated[tuple[tuple[str, str], ...], MEANING]

    @model_validator(mode="after")
    def _check_keys(self) -> "EntityOn":
        keys = self.entity.key_names
        known = set(keys)
        faults = [
            Fault(f"entity '{self.entity.name}' has no key '{key}'.", part=key, hint=nearest(key, keys, "Its keys are"))
            for key in islice((key for key, _ in self.mapping if key not in known), MOST_FAULTS)
        ]
        faults += [Fault(f"column '{column}' cannot be two keys at once.") for column in twice(column for _, column in self.mapping)]
        if faults:
            raise SpecError(faults, f"{self.entity.name}.on")
        return self
