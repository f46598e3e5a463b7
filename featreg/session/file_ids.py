"""Work out the SHA-256 of files once each, in a thread, so that who scans the same files meanwhile does not wait for it."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from featreg.canonical import file_id
from featreg.session.source_files import stat_of


class FileIds:
    """SHA-256 of files as they are: one that has changed since, by its size or one of its times, is read again."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, int, int, int], Future[str]] = {}

    def begin(self, files: Iterable[str | Path]) -> None:
        """Read these files in a thread, one after another, but for those that were begun before."""
        new = {as_is: Future[str]() for file in files if (as_is := _as_is(file)) not in self._ids}
        self._ids |= new
        if new:
            Thread(target=_read, args=(new,), name="featreg file ids", daemon=True).start()

    def of(self, file: str | Path) -> str:
        """Waits until it is known.  Raises: OSError."""
        self.begin([file])
        return self._ids[_as_is(file)].result()


def _as_is(file: str | Path) -> tuple[str, int, int, int]:
    return str(file), *stat_of(Path(file))


def _read(wanted: Mapping[tuple[str, int, int, int], "Future[str]"]) -> None:
    for (path, *_), known in wanted.items():
        try:
            known.set_result(file_id(Path(path)))
        except BaseException as error:  # told to who asks
            known.set_exception(error)
