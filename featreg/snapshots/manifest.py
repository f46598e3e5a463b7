"""Say what a snapshot is made of, and name it: files with their hashes and numbers, and three ids.

`manifest_id` is of the files' bytes, `schema_id` of the columns' names and types, `content_id` of the rows.
A rewritten file moves the first, a widened column the second, and only other rows the third.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from featreg.canonical import content_id
from featreg.errors import StoreError
from featreg.snapshots.numbers import Numbers, content_id_of, read_numbers, summed
from featreg.snapshots.scheme import Scheme, Slot

FORM = 1
PUSHED = "push log"  # the partition of rows that were pushed
Schema = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class File:
    """A file of a snapshot.

    path: below the repository's root, or absolute · form: its place among the snapshot's schemas · first, last: the earliest and
    the latest event time in it, UTC microseconds, None without one.
    """

    path: str
    bytes: int
    sha256: str
    form: int
    numbers: Numbers
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Log:
    """What had been pushed to a source: its push log up to byte `end` of a segment.  It only grows, so it stays where it is.

    form, first, last: as of a file · lengths: of its segments up to there · batched: for `stream="until_batch"`, up to where runs had
    brought files to each view, UTC microseconds.
    """

    segment: str
    end: int
    records: int
    form: int
    numbers: Numbers
    first: int | None
    last: int | None
    lengths: Mapping[str, int]
    batched: Mapping[str, int | None] = field(default_factory=dict)


class _Together:
    """What files, and what was pushed, come to together."""

    files: tuple[File, ...]
    log: Log | None

    @property
    def _parts(self) -> tuple[File | Log, ...]:
        return self.files if self.log is None else (*self.files, self.log)

    @cached_property
    def numbers(self) -> Numbers:
        return summed(one.numbers for one in self._parts)

    @property
    def first(self) -> int | None:
        return min((one.first for one in self._parts if one.first is not None), default=None)

    @property
    def last(self) -> int | None:
        return max((one.last for one in self._parts if one.last is not None), default=None)


@dataclass(frozen=True)
class Partition(_Together):
    """Files that the location puts together: by the source's scheme, else each file by itself; or what was pushed.

    slot: its stretch of time, of a scheme.
    """

    name: str
    files: tuple[File, ...]
    slot: Slot | None = None
    log: Log | None = None


@dataclass(frozen=True)
class Snapshot(_Together):
    """A source's data at one moment.

    files: sorted by path · forms: the different schemas of the files, (column, type) each · shape: `name:family` of all columns ·
    reading: format and options of the location · pin: the version of a table that keeps its own history, in place of copies unless
    it says that they were made too · log: what had been pushed.
    """

    source: str
    files: tuple[File, ...]
    forms: tuple[Schema, ...]
    shape: str
    reading: Mapping[str, Any] = field(default_factory=dict)
    pin: Mapping[str, Any] | None = None
    log: Log | None = None

    @cached_property
    def manifest_id(self) -> str:
        return manifest_id((file.path, file.bytes, file.sha256) for file in self.files)

    @cached_property
    def schema_id(self) -> str:
        return schema_id(self.forms)

    @cached_property
    def content_id(self) -> str:
        return content_id_of(self.shape, self.numbers)

    @cached_property
    def id(self) -> str:
        """Equal data at equal places has one id, however often it is taken."""
        named = {"source": self.source, "manifest": self.manifest_id, "schema": self.schema_id, "content": self.content_id}
        pushed = {} if self.log is None else {"log": [self.log.segment, self.log.end, dict(self.log.batched)]}
        return content_id({"form": FORM, **named, "pin": None if self.pin is None else dict(self.pin), **pushed})

    @property
    def is_copied(self) -> bool:
        """Whether featreg has copies of its own."""
        return self.pin is None or bool(self.pin.get("copied"))

    def partitions(self, scheme: Scheme | None) -> tuple[Partition, ...]:
        """Of its files."""
        return partitions_of(self.files, scheme)

    def parts(self, scheme: Scheme | None) -> tuple[Partition, ...]:
        """Of its files, then what was pushed."""
        pushed = () if self.log is None else (Partition(PUSHED, (), log=self.log),)
        return (*self.partitions(scheme), *pushed)


def manifest_id(files: Iterable[tuple[str, int, str]]) -> str:
    """files: path, bytes, sha256."""
    return content_id(sorted([path, size, sha256] for path, size, sha256 in files))


def schema_id(forms: Iterable[Sequence[tuple[str, str]]]) -> str:
    """Names and types, whatever their order in a file."""
    return content_id(sorted({(name, kind) for form in forms for name, kind in form}))


def partitions_of(files: Sequence[File], scheme: Scheme | None) -> tuple[Partition, ...]:
    """Sorted by time, then name.  A file whose path the scheme does not know is a partition of its own."""
    if scheme is None:
        return tuple(Partition(file.path, (file,)) for file in files)
    together: dict[str, tuple[Slot | None, list[File]]] = {}
    for file in files:
        slot = scheme.slot_of(file.path)
        together.setdefault(file.path if slot is None else slot.name, (slot, []))[1].append(file)
    made = [Partition(name, tuple(some), slot) for name, (slot, some) in together.items()]
    return tuple(sorted(made, key=lambda one: (one.slot is None, one.slot.start if one.slot else 0, one.name)))


def written(snapshot: Snapshot) -> dict[str, Any]:
    """The document that the object store keeps of a snapshot."""
    return {
        "form": FORM, "id": snapshot.id, "source": snapshot.source, "shape": snapshot.shape, "reading": dict(snapshot.reading),
        "pin": None if snapshot.pin is None else dict(snapshot.pin),
        "forms": [[list(column) for column in form] for form in snapshot.forms],
        "files": [[one.path, one.bytes, one.sha256, one.form, one.numbers.listed(), one.first, one.last] for one in snapshot.files],
        "log": None if snapshot.log is None else {**vars(snapshot.log), "numbers": snapshot.log.numbers.listed()},
    }  # fmt: skip


def read_document(document: Mapping[str, Any]) -> Snapshot:
    """Raises: StoreError for the document of a newer featreg."""
    if document["form"] > FORM:
        raise StoreError(f"snapshot {document['id'][:12]} was written by a newer featreg (form {document['form']}). Install that one.")
    files = tuple(
        File(path, size, sha256, form, read_numbers(numbers), first, last)
        for path, size, sha256, form, numbers, first, last in document["files"]
    )
    forms = tuple(tuple((name, kind) for name, kind in form) for form in document["forms"])
    log = document.get("log")
    pushed = None if log is None else Log(**{**log, "numbers": read_numbers(log["numbers"])})
    return Snapshot(document["source"], files, forms, document["shape"], document["reading"], document["pin"], pushed)
