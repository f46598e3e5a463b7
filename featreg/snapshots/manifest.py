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


class _Together:
    """What files come to together."""

    files: tuple[File, ...]

    @cached_property
    def numbers(self) -> Numbers:
        return summed(file.numbers for file in self.files)

    @property
    def first(self) -> int | None:
        return min((file.first for file in self.files if file.first is not None), default=None)

    @property
    def last(self) -> int | None:
        return max((file.last for file in self.files if file.last is not None), default=None)


@dataclass(frozen=True)
class Partition(_Together):
    """Files that the location puts together: by the source's scheme, else each file by itself.  slot: its stretch of time, of a scheme."""

    name: str
    files: tuple[File, ...]
    slot: Slot | None = None


@dataclass(frozen=True)
class Snapshot(_Together):
    """A source's data at one moment.

    files: sorted by path · forms: the different schemas of the files, (column, type) each · shape: `name:family` of all columns ·
    reading: format and options of the location · pin: the version of a table that keeps its own history, in place of copies unless
    it says that they were made too.
    """

    source: str
    files: tuple[File, ...]
    forms: tuple[Schema, ...]
    shape: str
    reading: Mapping[str, Any] = field(default_factory=dict)
    pin: Mapping[str, Any] | None = None

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
        return content_id({"form": FORM, **named, "pin": None if self.pin is None else dict(self.pin)})

    @property
    def is_copied(self) -> bool:
        """Whether featreg has copies of its own."""
        return self.pin is None or bool(self.pin.get("copied"))

    def partitions(self, scheme: Scheme | None) -> tuple[Partition, ...]:
        return partitions_of(self.files, scheme)


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
    return Snapshot(document["source"], files, forms, document["shape"], document["reading"], document["pin"])
