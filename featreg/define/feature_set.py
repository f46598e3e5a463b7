"""List what one model reads: features of several views, columns of the request, and what follows from both."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import InstanceOf, model_validator

from featreg.define.aggregate import Derived
from featreg.define.feature_view import FeatureView
from featreg.define.layers import MEANING, META
from featreg.define.model import (
    Fault,
    Model,
    SpecError,
    coerced,
    faults_of,
    read_columns,
    read_mapping,
    read_name,
    read_texts,
    same_but_for_case,
    shown,
)
from featreg.define.selection import Selection, ViewReference
from featreg.errors import UsageError
from featreg.vocabulary import DataType


def _read_parts(value: Any) -> tuple[Selection, ...]:
    """Selections in order; a bare view means all of it."""
    if not isinstance(value, (list, tuple)):
        raise SpecError([Fault(f'features={shown(value)} is not a list. Write [view.all(), other["f1"]].')])
    parts = [part.all() if isinstance(part, (FeatureView, ViewReference)) else part for part in value]
    message = 'is no part of a set. Write view.all(), or view["f1", "f2"].'
    wrong = [Fault(f"{shown(part)} {message}") for part in parts if not isinstance(part, Selection)]
    if wrong:
        raise SpecError(wrong)
    return tuple(parts)


def _read_derived(value: Any) -> tuple[tuple[str, Derived], ...]:
    faults: list[Fault] = []
    derived: list[tuple[str, Derived]] = []
    for name, expression in read_mapping(value):
        try:
            derived.append((read_name(name), expression if isinstance(expression, Derived) else Derived(expression)))
        except UsageError as error:
            faults += faults_of(error, str(name))
    if faults:
        raise SpecError(faults)
    return tuple(derived)


class FeatureSet(Model):
    """What one model reads, in order: the parts as listed, then `derived`.

    request: columns that the caller gives with each row.
    derived: name -> expression over the set's features, its request columns and earlier derived ones.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("name",)

    name: Annotated[str, coerced(read_name), META]
    features: Annotated[tuple[InstanceOf[Selection], ...], coerced(_read_parts), MEANING]
    request: Annotated[tuple[tuple[str, InstanceOf[DataType]], ...], coerced(read_columns), MEANING] = ()
    derived: Annotated[tuple[tuple[str, InstanceOf[Derived]], ...], coerced(_read_derived), MEANING] = ()
    owner: Annotated[str, META] = ""
    description: Annotated[str, META] = ""
    tags: Annotated[tuple[str, ...], coerced(read_texts), META] = ()

    if TYPE_CHECKING:

        def __init__(
            self,
            name: str,
            *,
            features: Sequence[Selection | FeatureView | ViewReference],
            request: Mapping[str, str] = {},
            derived: Mapping[str, str | Derived] = {},
            owner: str = "",
            description: str = "",
            tags: tuple[str, ...] | list[str] = (),
        ) -> None: ...

    @model_validator(mode="after")
    def _check(self) -> "FeatureSet":
        requested = {name.lower() for name, _ in self.request}
        faults = [
            Fault("a derived feature cannot be called like a request column. Choose another name.", part=name)
            for name, _ in self.derived
            if name.lower() in requested
        ]
        faults += same_but_for_case((name for name, _ in self.derived), "derived feature")
        if not self.features and not self.derived:
            faults.append(Fault("a set needs at least one feature."))
        if faults:
            raise SpecError(faults)
        return self
