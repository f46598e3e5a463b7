"""Say how rows become a value: an aggregation over windows, or an expression over other features."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, InstanceOf, model_validator

from featreg.define.layers import MEANING, META
from featreg.define.model import (
    Fault,
    Model,
    SpecError,
    coerced,
    faults_of,
    nearest,
    read_expression,
    read_optional_expression,
    read_texts,
    twice,
)
from featreg.errors import UsageError
from featreg.instants import EXACT, MOST_TILES, default_hop, format_duration, parse_duration

EXACT_TEXT = "exact"

NUMBERED = ("first_n", "last_n", "top_n")
COMPARED = ("arg_min", "arg_max")
NULLABLE = ("first", "last")  # the two that respect NULLs unless told otherwise
AGGREGATIONS = (
    *("count", "sum", "avg", "min", "max", "var", "stddev", "any", "all", "count_distinct"),
    *NULLABLE,
    *NUMBERED,
    *COMPARED,
    "histogram",
)


class Window(Model):
    """A length of history up to the cutoff; `text` None is all of it.

    text: as written, which is the suffix of the feature's name.
    micros: its length.  hop: a duration, "exact", or None for the default.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("text", "hop")

    text: Annotated[str | None, META] = None
    micros: Annotated[int | None, MEANING] = None
    hop: Annotated[str | None, MEANING] = None

    if TYPE_CHECKING:

        def __init__(self, text: str | None = None, hop: str | None = None) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _measure(cls, given: dict[str, Any]) -> dict[str, Any]:
        text = given.get("text")
        if text is None:
            return {"text": None, "micros": None, "hop": None}
        try:
            micros = parse_duration(text)
        except UsageError as error:
            raise SpecError(faults_of(error)) from None
        return given | {"text": text.strip(), "micros": micros}

    @model_validator(mode="after")
    def _check(self) -> "Window":
        if self.micros is None:
            return self
        if self.micros == 0:
            raise SpecError([Fault(f"window '{self.text}' holds no time. Write None for all of history.")])
        try:
            hop = self.hop_micros
        except UsageError as error:
            raise SpecError([Fault(f"hop: {error}")]) from None
        assert hop is not None
        if hop == 0:
            raise SpecError([Fault(f"hop '{self.hop}' is no step at all. Write \"exact\" for an edge that moves with the instant.")])
        if hop > self.micros:
            raise SpecError([Fault(f"hop '{self.hop}' is longer than the window '{self.text}'. Choose a hop that it holds many of.")])
        if hop != EXACT and self.micros > hop * MOST_TILES:
            tiles = -(-self.micros // hop)
            least = format_duration(default_hop(self.micros))
            said = f"window '{self.text}' has {tiles:,} tiles of {format_duration(hop)}; {MOST_TILES:,} is the most."
            raise SpecError([Fault(said, hint=f"The default hop is {least}.")])
        return self

    @property
    def hop_micros(self) -> int | None:
        """The step of the trailing edge: None unwindowed, `instants.EXACT` for "exact"."""
        if self.micros is None:
            return None
        if self.hop is None:
            return default_hop(self.micros)
        return EXACT if self.hop == EXACT_TEXT else parse_duration(self.hop)

    def with_hop(self, hop: str | None) -> "Window":
        """This window with `hop`, unless it has one of its own or no end at all."""
        return self if hop is None or self.hop is not None or self.micros is None else Window(self.text, hop)


class Aggregate(Model):
    """An aggregation of a row expression, over one window or several.

    No windows: one feature over all of history.  suffixed: whether a window's
    text is appended to the feature's name.
    """

    aggregation: Annotated[str, MEANING]
    column: Annotated[str | None, coerced(read_optional_expression), MEANING] = None
    by: Annotated[str | None, coerced(read_optional_expression), MEANING] = None
    n: Annotated[int | None, Field(ge=1, strict=True), MEANING] = None
    k: Annotated[int | None, Field(ge=1, strict=True), MEANING] = None
    ignore_nulls: Annotated[bool, Field(strict=True), MEANING] = False
    where: Annotated[str | None, coerced(read_optional_expression), MEANING] = None
    windows: Annotated[tuple[InstanceOf[Window], ...], MEANING] = ()
    suffixed: Annotated[bool, META] = True
    description: Annotated[str, META] = ""
    tags: Annotated[tuple[str, ...], coerced(read_texts), META] = ()

    @classmethod
    def _called(cls, given: Mapping[str, Any]) -> str:
        return f"agg.{given.get('aggregation')}"

    @model_validator(mode="after")
    def _check_arguments(self) -> "Aggregate":
        name = self.aggregation
        if name not in AGGREGATIONS:
            raise SpecError([Fault(f"there is no aggregation '{name}'.", hint=nearest(name, AGGREGATIONS, "Aggregations are"))])
        faults = [
            *_needs(name, "column", self.column is not None, name != "count", True),
            *_needs(name, "by", self.by is not None, name in COMPARED, name in COMPARED),
            *_needs(name, "n", self.n is not None, name in NUMBERED, name in NUMBERED),
            *_needs(name, "k", self.k is not None, False, name == "histogram"),
            *_needs(name, "ignore_nulls", self.ignore_nulls, False, name in NULLABLE),
        ]
        if faults:
            raise SpecError(faults)
        return self

    def over(self, *windows: str | None, hop: str | None = None) -> "Aggregate":
        """A copy with these windows behind those it has; None is all of history and adds no suffix.

        hop: the step of their trailing edges, "exact" for none; by default a 48th of the window or less.
        Raises: UsageError when there are no windows, one twice, or a window that its hop does not fit.
        """
        what = f"agg.{self.aggregation}.over"
        if not windows:
            raise SpecError([Fault('give at least one window, such as "7d"; None is all of history.')], what)
        try:
            added = tuple(Window(text, hop) for text in windows)
        except SpecError as error:
            raise SpecError(error.faults, what) from None
        repeated = twice(str(window.text) for window in (*self.windows, *added))
        if repeated:
            raise SpecError([Fault(f"window {', '.join(repeated)} is given twice.")], what)
        return self.replaced(windows=(*self.windows, *added))


class Derived(Model):
    """An expression over other features."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("expression",)

    expression: Annotated[str, coerced(read_expression), MEANING]
    description: Annotated[str, META] = ""
    tags: Annotated[tuple[str, ...], coerced(read_texts), META] = ()

    if TYPE_CHECKING:

        def __init__(self, expression: str, *, description: str = "", tags: tuple[str, ...] | list[str] = ()) -> None: ...


def derive(expression: str, description: str = "", tags: tuple[str, ...] | list[str] = ()) -> Derived:
    """A feature computed from other features of its view, by their full names: `derive("late_7d / flights_7d")`."""
    return Derived(expression, description=description, tags=tags)


def _needs(aggregation: str, argument: str, given: bool, needed: bool, taken: bool) -> list[Fault]:
    if needed and not given:
        return [Fault(f"argument '{argument}' is missing.")]
    if given and not taken:
        return [Fault(f"{aggregation} takes no argument '{argument}'.")]
    return []
