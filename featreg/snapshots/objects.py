"""Keep files once under their SHA-256, whole or not at all.  Putting and removing is done under `locked()`.

A file comes by reflink where the file system can, else by copy: a hard link would change with what is written to the
source in place, so it is made only where the source is declared immutable.  What is hashed is the copy itself.
"""

import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from featreg.canonical import bytes_id, file_id
from featreg.durable import sync_folder
from featreg.errors import DataError

_FICLONE = 0x40049409  # Linux: share a file's extents; the first to write to them gets its own
_PIECE = 1 << 20
_PART = ".part-"


@dataclass(frozen=True)
class ObjectStore:
    """The folder of objects."""

    folder: Path

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def holds(self, sha256: str, size: int | None = None) -> bool:
        """Whether the object is there, and as long as it should be; its bytes are not read."""
        with suppress(OSError):
            return size is None or self.path(sha256).stat().st_size == size
        return False

    def is_whole(self, sha256: str) -> bool:
        """Whether the object is there and its bytes are what it is named for.  Reads all of it."""
        return self.path(sha256).is_file() and file_id(self.path(sha256)) == sha256

    def put_file(self, source: Path, link: bool = False) -> tuple[str, int]:
        """Keep a file; gives its SHA-256 and length.  link: a hard link will do.

        Raises: DataError when it cannot be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self._part()
        try:
            if link and _linked(source, part):
                return self._named(part, file_id(part))
            with open(source, "rb") as old, open(part, "wb") as new:
                sha256 = _cloned(old.fileno(), new.fileno(), part) or _copied(old, new)
                os.fsync(new.fileno())
            os.chmod(part, 0o444)
            return self._named(part, sha256)
        except OSError as error:
            raise DataError(f"{source} could not be kept: {error.strerror}.") from error
        finally:
            part.unlink(missing_ok=True)

    def put_bytes(self, data: bytes) -> str:
        """Keep bytes under their SHA-256."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part, sha256 = self._part(), bytes_id(data)
        try:
            with open(part, "wb") as new:
                new.write(data)
                new.flush()
                os.fsync(new.fileno())
            os.chmod(part, 0o444)
            return self._named(part, sha256)[0]
        finally:
            part.unlink(missing_ok=True)

    def read(self, sha256: str) -> bytes:
        """Raises: DataError when the object is gone, or is not what it is named for."""
        try:
            data = self.path(sha256).read_bytes()
        except OSError:
            raise DataError(f"object {sha256} is gone from {self.folder}.\n  Put it back from a copy of that folder.") from None
        if bytes_id(data) != sha256:
            raise DataError(f"object {sha256} was changed since it was written.\n  Put it back from a copy of {self.folder}.")
        return data

    def remove(self, sha256: str) -> int:
        """Delete an object; gives the bytes that it had."""
        path = self.path(sha256)
        size = path.stat().st_size if path.is_file() else 0
        path.unlink(missing_ok=True)
        return size

    def all(self) -> dict[str, int]:
        """Every object and its length."""
        if not self.folder.is_dir():
            return {}
        return {entry.name: entry.stat().st_size for entry in os.scandir(self.folder) if len(entry.name) == 64}

    @contextmanager
    def locked(self, to_remove: bool = False) -> Iterator[None]:
        """Among others who put, or alone to remove; a process that dies lets go.  Who happens to be alone clears what a kill left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "w") as lock:
            if to_remove:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._clear()
            else:
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._clear()
                fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    def _clear(self) -> None:
        for entry in list(os.scandir(self.folder)):
            if entry.name.startswith(_PART):
                os.unlink(entry.path)

    def _part(self) -> Path:
        return self.folder / f"{_PART}{os.getpid()}-{uuid.uuid4().hex}"

    def _named(self, part: Path, sha256: str) -> tuple[str, int]:
        """An object that was damaged is whole again with this."""
        size = part.stat().st_size
        os.replace(part, self.path(sha256))
        sync_folder(self.folder)
        return sha256, size


def _linked(source: Path, part: Path) -> bool:
    try:
        os.link(source.resolve(), part)
    except OSError:  # another file system
        return False
    return True


def _cloned(old: int, new: int, part: Path) -> str | None:
    try:
        fcntl.ioctl(new, _FICLONE, old)
    except OSError:  # the file system shares no extents
        return None
    return file_id(part)


def _copied(old, new) -> str:  # type: ignore[no-untyped-def]
    digest = hashlib.sha256()
    while piece := old.read(_PIECE):
        digest.update(piece)
        new.write(piece)
    new.flush()
    return digest.hexdigest()
