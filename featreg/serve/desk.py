"""Answer one request with an open registry: JSON in, JSON out.  A thread has its own desk, for a reader serves one thread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from featreg.canonical import content_id
from featreg.errors import DataError, FeatregError, StoreUnavailable, UsageError, did_you_mean
from featreg.instants import parse_instant
from featreg.serve.settings import ServeSettings
from featreg.serve.wire import Convert, instant_text, row_reader, types_of, writer
from featreg.session.answer import STATUSES, Vector
from featreg.session.profile import Profile
from featreg.session.registry import Registry
from featreg.vocabulary import DataType

if TYPE_CHECKING:
    from featreg.compile import Compiled
    from featreg.session.online import SetReader

_ASKED = {"keys", "at", "pin", "types"}
_PUSHED = {"rows", "id"}
_instant = lru_cache(1024)(instant_text)


Told = tuple[bytes, dict[str, int]]  # an answer, and how many vectors of which worst status are in it


class NotFound(UsageError):
    """A set, source or pin that is not applied."""


class TooMany(UsageError):
    """More keys or rows than a request may have."""


@dataclass(frozen=True)
class Wording:
    """How a set's rows are read and its values written.  types: what a client reads values by, under its own id."""

    made_for: object
    read_row: Any
    writers: tuple[tuple[str, Convert], ...]
    types: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """A request for vectors.  rows: as they came · is_one: a vector is answered, not a list · known: the types that a client has."""

    name: str
    rows: list[dict[str, Any]]
    is_one: bool
    as_of: int | None
    pin: str | None
    known: str | None


class Desk:
    """An open registry of one thread."""

    def __init__(self, root: Path, profile: Profile, settings: ServeSettings):
        self.settings = settings
        self.registry = Registry(root, profile)
        self._wordings: dict[tuple[str, str | None], Wording] = {}

    def close(self) -> None:
        self.registry.close()

    def warm(self) -> None:
        """Read every applied set once, for a key that is NULL, so that no request waits for a compiler."""
        for name in self.registry.applied().compiled.sets:
            row = {column: None for column, _ in asked_columns(self.registry.reader().set_reader(name))}
            self.registry.online(name, row)
            self.registry.online(name, [row, row])

    def check(self) -> None:
        """Raises: FeatregError when nothing is applied, or the store does not answer."""
        self.registry.applied()
        self.registry.reader().store.get([b"\0"])

    def compiled(self) -> "Compiled":
        return self.registry.applied().compiled

    # Reading

    def read(self, name: str, asked: Any) -> Told:
        """The answer to a read.

        Raises: FeatregError; the service says which HTTP status that is.
        """
        return self._read_one(self._reading(name, asked))

    def read_together(self, asked: Sequence[tuple[str, Any]]) -> list[Told | Exception]:
        """As `read` of each; those of one set and instant are one read of the store.  What one would raise stands in its place."""
        answers: dict[int, Told | Exception] = {}
        alike: dict[tuple[str, str | None, int | None], list[tuple[int, Reading]]] = {}
        for number, (name, one) in enumerate(asked):
            try:
                reading = self._reading(name, one)
            except FeatregError as error:
                answers[number] = error
            else:
                alike.setdefault((name, reading.pin, reading.as_of), []).append((number, reading))
        for several in alike.values():
            answers |= zip([number for number, _ in several], self._read_alike([reading for _, reading in several]))
        return [answers[number] for number in range(len(asked))]

    def _reading(self, name: str, asked: Any) -> Reading:
        keys, at, pin, known = _read_request(asked)
        rows = [keys] if isinstance(keys, dict) else keys
        if len(rows) > self.settings.max_keys:
            raise TooMany(f"a request has at most {self.settings.max_keys:,} keys; this one has {len(rows):,}.\n  Ask in several.")
        return Reading(name, rows, isinstance(keys, dict), None if at is None else parse_instant(at), pin, known)

    def _read_one(self, reading: Reading) -> Told:
        name, pin, as_of = reading.name, reading.pin, reading.as_of
        while True:
            wording = self._wording(name, pin)
            rows = [wording.read_row(dict(row)) for row in reading.rows]
            if reading.is_one:
                found: Sequence[Vector] = [self.registry.online(name, rows[0], at=as_of, pin=pin)]
            else:
                found = self.registry.online(name, rows, at=as_of, pin=pin)
            if self._wording(name, pin) is wording:  # else other versions came to be served on the way, and may be of other types
                return _told(wording, reading, found)

    def _read_alike(self, readings: Sequence[Reading]) -> list[Told | Exception]:
        """Those of one set, pin and instant."""
        if len(readings) > 1:
            first = readings[0]
            try:
                wording = self._wording(first.name, first.pin)
                rows = [wording.read_row(dict(row)) for reading in readings for row in reading.rows]
                found = iter(self.registry.online(first.name, rows, at=first.as_of, pin=first.pin))
                if self._wording(first.name, first.pin) is wording:
                    return [_told(wording, reading, list(islice(found, len(reading.rows)))) for reading in readings]
            except StoreUnavailable as error:
                return [error] * len(readings)
            except FeatregError:
                pass  # it is one's alone: each is asked by itself, and told its own
        return [self._read_alone(reading) for reading in readings]

    def _read_alone(self, reading: Reading) -> Told | Exception:
        try:
            return self._read_one(reading)
        except Exception as error:
            return error

    def _wording(self, name: str, pin: str | None) -> Wording:
        try:
            reader = self.registry.reader().set_reader(name, pin)
        except (DataError, UsageError) as error:
            compiled = self.compiled()
            if name not in compiled.sets:
                raise NotFound(f"there is no feature set '{name}'.\n  {did_you_mean(name, compiled.sets, 'Applied are')}") from None
            raise NotFound(str(error)) from None
        known = self._wordings.get((name, pin))
        if known is None or known.made_for is not reader:
            columns = asked_columns(reader)
            types = types_of(reader.set.columns)
            writers = tuple((column, write) for column, kind in reader.set.columns if (write := writer(kind)) is not None)
            named = {"id": content_id(types)[:16], "features": types}
            known = self._wordings[name, pin] = Wording(reader, row_reader(columns, strict=True), writers, named)
        return known

    # Pushing

    def push(self, source: str, rows: Any, push_id: str | None) -> tuple[bytes, int, int, bool]:
        """The receipt as JSON; rows accepted and rejected, and whether the push had been taken in before."""
        sources = self.compiled().sources
        if source not in sources:
            raise NotFound(f"there is no source '{source}'.\n  {did_you_mean(source, sources, 'Applied are')}")
        if len(rows) > self.settings.max_rows:
            raise TooMany(f"a push has at most {self.settings.max_rows:,} rows; this one has {len(rows):,}.\n  Push in several.")
        if isinstance(rows, list):
            read_row = row_reader(sources[source].columns, strict=False)
            rows = [read_row(row) for row in rows]
        receipt = self.registry.push(source, rows, id=push_id)
        answer = {
            "source": receipt.source, "id": receipt.id, "accepted": receipt.accepted, "duplicate": receipt.duplicate,
            "rejected": [{"row": one.row, "reason": one.reason} for one in receipt.rejected], "watermark": _instant(receipt.watermark),
        }  # fmt: skip
        return orjson.dumps(answer), receipt.accepted, len(receipt.rejected), receipt.duplicate


def asked_columns(reader: "SetReader") -> list[tuple[str, DataType]]:
    """The entity keys and request columns that a set asks for."""
    columns = list(reader.set.request)
    for lookup in reader.lookups:
        columns += zip(lookup.lookup.spine_columns, (kind for _, kind in lookup.view.key))
    return columns


def _read_request(asked: Any) -> tuple[Any, str | None, str | None, str | None]:
    """keys, at, pin, types.  Raises: UsageError for a request of another form."""
    if not isinstance(asked, dict):
        raise UsageError('a read is an object: {"keys": {…}} for one vector, {"keys": [{…}, …]} for many.')
    _refuse_unknown(asked, _ASKED)
    keys = asked.get("keys")
    if not isinstance(keys, dict) and not (isinstance(keys, list) and all(isinstance(row, dict) for row in keys)):
        raise UsageError('"keys" is an object, or a list of objects: entity keys and request columns by name.')
    for name in ("at", "pin", "types"):
        if not isinstance(asked.get(name), (str, type(None))):
            raise UsageError(f'"{name}" is a text.')
    return keys, asked.get("at"), asked.get("pin"), asked.get("types")


def push_request(asked: Any) -> tuple[list[dict[str, Any]], str | None]:
    """rows and id.  Raises: UsageError for a request of another form."""
    if not isinstance(asked, dict):
        raise UsageError('a push is an object: {"rows": [{…}, …], "id": "…"}.')
    _refuse_unknown(asked, _PUSHED)
    rows, push_id = asked.get("rows"), asked.get("id")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError('"rows" is a list of objects.')
    if push_id is not None and not isinstance(push_id, str):
        raise UsageError('"id" is a text.')
    return rows, push_id


def _refuse_unknown(asked: Mapping[str, Any], known: set[str]) -> None:
    for name in asked:
        if name not in known:
            raise UsageError(f'there is no "{name}" in a request.\n  {did_you_mean(name, sorted(known), "There are")}')


def _told(wording: Wording, reading: Reading, vectors: Sequence[Vector]) -> Told:
    statuses: dict[str, int] = {}
    documents = [_document(wording, vector, statuses) for vector in vectors]
    answer: dict[str, Any] = documents[0] if reading.is_one else {"vectors": documents}
    if reading.known is not None and reading.known != wording.types["id"]:
        answer["types"] = wording.types
    return orjson.dumps(answer), statuses


def _document(wording: Wording, vector: Vector, statuses: dict[str, int]) -> dict[str, Any]:
    values = vector.values
    for name, write in wording.writers:
        value = values[name]
        if value is not None:
            values[name] = write(value)
    worst = min(set(vector.status.values()), key=STATUSES.index, default="ok")
    statuses[worst] = statuses.get(worst, 0) + 1
    return {
        "values": values,
        "status": vector.status,
        "cutoff": {view: _instant(at) for view, at in vector.cutoff.items()},
        "watermark": {view: _instant(at) for view, at in vector.watermark.items()},
    }
