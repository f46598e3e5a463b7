"""Declare a table of facts: its columns, when a row happened, and when it could first be read."""

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, InstanceOf, model_validator

from featreg.define.layers import LAYOUT, MEANING, META
from featreg.define.model import (
    MOST_FAULTS,
    Fault,
    Model,
    SpecError,
    coerced,
    nearest,
    read_columns,
    read_name,
    read_texts,
    shown_name,
    spellings,
)
from featreg.instants import parse_duration, parse_instant
from featreg.vocabulary import DataType

ARRIVAL = "arrival"  # `available="arrival"`: a row is available when it reaches featreg
LOG, UNTIL_BATCH = STREAMS = "log", "until_batch"
_INSTANT_NAMES = ("TIMESTAMP", "DATE")


def read_duration_text(value: Any) -> str:
    parse_duration(value)
    return value.strip()


def read_optional_duration_text(value: Any) -> str | None:
    return None if value is None else read_duration_text(value)


def _read_names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else read_texts(value)


def _read_start(value: Any) -> str | None:
    if value is not None:
        parse_instant(value)
    return value


class Delay(Model):
    """Rows can be read this long after they happened: `available=Delay("15m")`."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("text",)

    text: Annotated[str, coerced(read_duration_text), MEANING]

    if TYPE_CHECKING:

        def __init__(self, text: str) -> None: ...

    @property
    def micros(self) -> int:
        return parse_duration(self.text)


class EventSource(Model):
    """A declared table of facts.

    columns: declared, name -> type; the data may have more.
    event_time: the column that says when a row happened.
    available: the column that says when it could first be read, or a `Delay`
    after the event time, or "arrival"; None is at once.
    tie_break: columns that order rows of one instant.
    max_rejected: more rejected rows than this fail a scan.
    stream: how pushed rows and files meet.  "log": what was pushed is the truth, and files count only before its
    first row.  "until_batch": a pushed row counts until a materialize covers its instant; then the files' rows do.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("name",)

    name: Annotated[str, coerced(read_name), MEANING]
    columns: Annotated[tuple[tuple[str, InstanceOf[DataType]], ...], coerced(read_columns), MEANING]
    event_time: Annotated[str, MEANING]
    available: Annotated[str | InstanceOf[Delay] | None, MEANING] = None
    tie_break: Annotated[tuple[str, ...], coerced(_read_names), MEANING] = ()
    max_rejected: Annotated[int, Field(ge=0, strict=True), LAYOUT] = 0
    stream: Annotated[str | None, LAYOUT] = None
    starts: Annotated[str | None, coerced(_read_start), LAYOUT] = None
    partition: Annotated[str | None, LAYOUT] = None
    retention: Annotated[str | None, coerced(read_optional_duration_text), LAYOUT] = None
    owner: Annotated[str, META] = ""
    description: Annotated[str, META] = ""
    tags: Annotated[tuple[str, ...], coerced(read_texts), META] = ()

    if TYPE_CHECKING:

        def __init__(
            self,
            name: str,
            *,
            columns: Mapping[str, str],
            event_time: str,
            available: str | Delay | None = None,
            tie_break: str | tuple[str, ...] | list[str] = (),
            max_rejected: int = 0,
            stream: str | None = None,
            starts: str | None = None,
            partition: str | None = None,
            retention: str | None = None,
            owner: str = "",
            description: str = "",
            tags: tuple[str, ...] | list[str] = (),
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _spell_as_declared(cls, given: Any) -> Any:
        """Names ignore case: every column that is referred to gets its declared spelling."""
        if not isinstance(given, dict) or not isinstance(given.get("columns"), Mapping):
            return given
        declared = spellings(name for name in given["columns"] if isinstance(name, str))

        def spelled(name: Any) -> Any:
            return declared.get(name.lower(), name) if isinstance(name, str) else name

        spelling = {field: spelled(given[field]) for field in ("event_time", "available") if field in given}
        ties = given.get("tie_break")
        if isinstance(ties, (str, list, tuple)):
            spelling["tie_break"] = tuple(map(spelled, (ties,) if isinstance(ties, str) else ties))
        return given | spelling

    @model_validator(mode="after")
    def _check_columns(self) -> "EventSource":
        faults = self._instant_faults("event_time", self.event_time) + self._stream_faults()
        if isinstance(self.available, str) and not self.arrives:
            faults += self._instant_faults("available", self.available)
        declared = self.types
        unknown = (column for column in self.tie_break if column not in declared)
        faults += [self._unknown("tie_break", column) for column in islice(unknown, MOST_FAULTS)]
        if faults:
            raise SpecError(faults)
        return self

    @property
    def types(self) -> dict[str, DataType]:
        """The declared columns, name -> type, in order."""
        return dict(self.columns)

    @property
    def arrives(self) -> bool:
        """Whether a row is available when it reaches featreg: `available="arrival"` and no column of that name."""
        return self.available == ARRIVAL and ARRIVAL not in self.types

    @property
    def stream_mode(self) -> str | None:
        """How pushed rows and files meet; the push log is the only witness of arrivals, so there it is the truth."""
        return LOG if self.arrives else self.stream

    @property
    def available_column(self) -> str | None:
        return self.available if isinstance(self.available, str) and not self.arrives else None

    @property
    def delay_micros(self) -> int:
        """The constant delay after the event time; 0 when none is declared."""
        return self.available.micros if isinstance(self.available, Delay) else 0

    def _stream_faults(self) -> list[Fault]:
        if self.stream is not None and self.stream not in STREAMS:
            hint = nearest(self.stream, STREAMS, "It is one of")
            return [Fault(f"stream='{shown_name(self.stream)}' says nothing of how pushed rows and files meet.", part="stream", hint=hint)]
        if self.stream == UNTIL_BATCH and self.arrives:
            hint = 'Declare stream="log", or name the column that says when a row could first be read.'
            return [Fault('stream="until_batch" gives way to files, and files do not say when their rows arrived.', hint=hint)]
        return []

    def _instant_faults(self, argument: str, column: str) -> list[Fault]:
        declared = self.types.get(column)
        if declared is None:
            return [self._unknown(argument, column)]
        if declared.name in _INSTANT_NAMES:
            return []
        return [Fault(f"{argument}='{column}' is a {declared}; it must be a TIMESTAMP or a DATE.", part=column)]

    def _unknown(self, argument: str, column: str) -> Fault:
        hint = nearest(column, self.types, "Declared are")
        return Fault(f"{argument}='{column}' is not a declared column.", hint=hint)
