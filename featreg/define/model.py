"""Hold what an author writes as frozen data, and say every fault of a constructor call at once."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from reprlib import Repr
from typing import Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from featreg.errors import UsageError, did_you_mean
from featreg.vocabulary import DataType, parse_type

MOST_ENTRIES = 10_000  # of one dict or list of a definition
MOST_FAULTS = 50  # told of one list of names; looking for a near name for each takes its time

_short = Repr()
_short.maxlevel = 3
_short.maxstring = _short.maxother = 80


def shown(value: object) -> str:
    """`value` for a message: short and shallow, for a spec may nest a list in itself a billion times over."""
    return _short.repr(value)


def nearest(name: str, known: Iterable[str], what: str = "Known are") -> str:
    """`did_you_mean` among the first few hundred, for every fault of a long list may ask."""
    return did_you_mean(shown_name(name), islice(known, 300), what)


def shown_name(name: str) -> str:
    return name if len(name) <= 80 else name[:77] + "..."


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a constructor call.  part: the feature, column or argument that it is about."""

    message: str
    part: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        part = f"{self.part}: " if self.part else ""
        return f"{part}{self.message}" + (f" {self.hint}" if self.hint else "")


class SpecError(UsageError):
    """A constructor was called with what it cannot mean; `faults` has everything that is wrong.

    what: the model's class, such as 'EventSource'.  subject: the model's name if it was given.
    """

    def __init__(self, faults: Iterable[Fault], what: str | None = None, subject: str | None = None):
        self.faults, self.what, self.subject = tuple(faults), what, subject
        head = f"{what} '{subject}': " if what and subject else f"{what}: " if what else ""
        super().__init__("\n".join(f"{head}{fault}" for fault in self.faults))


def faults_of(error: UsageError, part: str | None = None) -> list[Fault]:
    """The faults of an error, as faults of `part` of what holds it."""
    if isinstance(error, SpecError):
        return [Fault(fault.message, part or fault.part, fault.hint) for fault in error.faults]
    return [Fault(str(error), part)]


class Model(BaseModel):
    """The base of all definitions: frozen, nothing extra, and faults as `SpecError` instead of pydantic's report.

    POSITIONAL: the fields that a call may give without their names, in order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    POSITIONAL: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *positional: Any, **named: Any):
        given = self._by_name(positional, named)
        what = self._called(given)
        subject = given.get("name") if isinstance(given.get("name"), str) else None
        try:
            super().__init__(**given)
        except ValidationError as error:
            faults = [fault for detail in error.errors(include_url=False) for fault in self._told_faults(detail)]
            raise SpecError(faults, what, subject) from None
        except SpecError as error:
            raise error if error.what else SpecError(error.faults, what, subject) from None

    @classmethod
    def _called(cls, given: Mapping[str, Any]) -> str:
        """What the author called to get here."""
        return cls.__name__

    @classmethod
    def _by_name(cls, positional: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        if len(positional) > len(cls.POSITIONAL):
            allowed = ", ".join(cls.POSITIONAL) or "none"
            raise SpecError([Fault(f"only these arguments can be given without a name: {allowed}.")], cls.__name__)
        given = dict(zip(cls.POSITIONAL, positional))
        twice = [name for name in given if name in named]
        if twice:
            raise SpecError([Fault(f"argument '{name}' is given twice.") for name in twice], cls.__name__)
        return given | named

    @classmethod
    def _told_faults(cls, detail: ErrorDetails) -> list[Fault]:
        field = str(detail["loc"][0]) if detail["loc"] else None
        match detail["type"]:
            case "featreg":
                return list(detail["ctx"]["faults"])
            case "missing":
                return [Fault(f"argument '{field}' is missing.")]
            case "extra_forbidden":
                return [Fault(f"there is no argument '{field}'.", hint=nearest(str(field), cls.model_fields, "Arguments are"))]
        return [Fault(f"{field}={shown(detail['input'])}: {_readable(detail['msg'])}")]

    def replaced(self, **changes: Any) -> Self:
        """A copy with these fields changed; the caller vouches for them."""
        return self.model_copy(update=changes)


def coerced(read: Callable[[Any], Any]) -> BeforeValidator:
    """Read a field with `read`, whose faults are reported along with those of the other fields."""

    def attempt(value: Any) -> Any:
        try:
            return read(value)
        except UsageError as error:
            faults = faults_of(error)
        raise PydanticCustomError("featreg", "faults", {"faults": faults})

    return BeforeValidator(attempt)


def read_name(value: Any) -> str:
    """A name: letters, digits and underscores, and no digit first.  `select` and `t` are names too."""
    if not isinstance(value, str) or not value.isidentifier():
        raise SpecError([Fault(f"{shown(value)} is not a name. A name has letters, digits and underscores, and no digit first.")])
    return value


def read_optional_name(value: Any) -> str | None:
    return None if value is None else read_name(value)


def read_expression(value: Any) -> str:
    """SQL text; what it says is checked where the columns are known, by the compiler."""
    if not isinstance(value, str) or not value.strip():
        raise SpecError([Fault(f'{shown(value)} is not an expression. Write SQL text, such as "dep_delay > 15".')])
    return value.strip()


def read_optional_expression(value: Any) -> str | None:
    return None if value is None else read_expression(value)


def read_texts(value: Any) -> tuple[str, ...]:
    """Tags: a list or tuple of texts."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise SpecError([Fault(f"{shown(value)} is not a list of texts.")])
    return tuple(value)


def read_mapping(value: Any) -> tuple[tuple[Any, Any], ...]:
    """The items of a dict, in order; an already read tuple of pairs passes."""
    if isinstance(value, (Mapping, list, tuple)) and len(value) > MOST_ENTRIES:
        raise SpecError([Fault(f"{len(value):,} entries; {MOST_ENTRIES:,} is the most.")])
    if isinstance(value, Mapping):
        return tuple(value.items())
    if isinstance(value, (list, tuple)) and all(isinstance(item, tuple) and len(item) == 2 for item in value):
        return tuple(value)
    raise SpecError([Fault(f"{shown(value)} is not a dict.")])


def read_columns(value: Any) -> tuple[tuple[str, DataType], ...]:
    """Declared columns, in order: `{"tailnum": "VARCHAR"}`.

    Raises: SpecError with every bad name and type, and for names that differ only in case.
    """
    faults: list[Fault] = []
    columns: list[tuple[str, DataType]] = []
    for name, declared in read_mapping(value):
        try:
            columns.append((read_name(name), declared if isinstance(declared, DataType) else parse_type(_text(declared))))
        except UsageError as error:
            faults += faults_of(error, str(name))
    faults += same_but_for_case((name for name, _ in columns), "column")
    if faults:
        raise SpecError(faults)
    return tuple(columns)


def same_but_for_case(names: Iterable[str], what: str) -> list[Fault]:
    """A fault for each name that was taken before, letter case aside: names ignore case everywhere."""
    first: dict[str, str] = {}
    faults = []
    for name in names:
        taken = first.setdefault(name.lower(), name)
        if taken is not name and taken != name:
            faults.append(Fault(f"{what} '{name}' and {what} '{taken}' differ only in case, and names ignore case.", part=name))
    return faults


def twice(names: Iterable[str]) -> list[str]:
    """The names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def spellings(declared: Iterable[str]) -> dict[str, str]:
    """Lower case -> the spelling that was declared."""
    return {name.lower(): name for name in declared}


def _text(declared: Any) -> str:
    if not isinstance(declared, str):
        raise UsageError(f'{shown(declared)} is not a type. Write its name as text, such as "BIGINT".')
    return declared


def _readable(message: str) -> str:
    """pydantic's words for a wrong type, with our full stop."""
    text = message.removeprefix("Input should be ").removeprefix("Value error, ")
    return f"it should be {text}." if text != message else f"{message}."
