"""Keep bytes by key in LMDB: one file, read by many processes, written by one at a time.

A store is a folder: `data.mdb` and `lock.mdb` (LMDB's), `format.json` (written
first, so that an older featreg refuses a newer store before it opens it) and
`lease` (who writes).  What stands in the file is said in `lmdb_records`.
"""

from __future__ import annotations  # lmdb.Transaction takes its argument in type stubs only

import errno
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

import lmdb
import numpy as np

from featreg.durable import sync_folder
from featreg.errors import StoreError
from featreg.stores.contract import Beside, Holder, Keys, StoreStat, Take, starts_of
from featreg.stores.lease import Lease
from featreg.stores.lmdb_records import Records, stored_rows

FORMAT = 3  # 1 had no busy keys, 2 no pieces: they are read as they are
INITIAL_MAP = 4 << 30  # bytes of address space, not of disk: the file is as long as its pages
LEASE_TIMEOUT = 30.0  # seconds
READER_SLOTS = 1022
DELETES_A_TRANSACTION = 2_000  # under 100 ms with values of 7 KB

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # EIO is what LMDB makes of a write cut short
_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def open_store(
    path: Path,
    *,
    create: bool = True,
    initial_map: int = INITIAL_MAP,
    lease_timeout: float = LEASE_TIMEOUT,
    on_wait: Callable[[Holder | None], None] | None = None,
) -> LmdbStore:
    """The store at `path`; each call wants one `close()`.

    One per resolved path and process: a second call returns the first one's
    store, with the first one's options.
    create: whether to make a store where none is.  on_wait: told who holds the
    lease when a write has waited for a second; logs a warning by default.
    Raises: StoreError when there is none and `create` is false, when its format
    is newer, when it is no store, or when the disk is full.
    """
    path = path.resolve()
    with _opening:
        known = _open.get(path)
        if known is not None and known.is_in_place():
            known.users += 1
            return known
        if known is not None:
            known.refuse("its folder was removed or replaced")
        _prepare_folder(path, create)
        store = LmdbStore(path, initial_map, lease_timeout, on_wait or _warn)
        _open[path] = store
        return store


class LmdbStore:
    """A `Store`; made by `open_store`.

    Any thread may call it.  No transaction outlives a call, and no environment
    outlives a fork: it is closed before and opened again by the next call on
    either side, for LMDB's reader slots belong to one process.
    """

    def __init__(self, path: Path, initial_map: int, lease_timeout: float, on_wait: Callable[[Holder | None], None]):
        self.path = path
        self.users = 1
        self._initial_map = initial_map
        self._pid = os.getpid()
        self._refusal: str | None = None
        self._bulks = 0
        self._readers: set[int] = set()  # threads in a read; add and discard are atomic, a lock would cost more
        self._begin: Callable[..., lmdb.Transaction[bytes]] | None = None  # None: readers go by `_admit`
        self._environment: lmdb.Environment | None = None
        self._exclusive = threading.RLock()  # held for a write transaction, and to open, close and remap
        with _store_errors(path):
            self._lease = Lease(path / "lease", _process_name(), lease_timeout, on_wait)
            try:
                self._admit()
            except BaseException:
                self._lease.close()
                raise
        self._file_identity = _identity(path)

    def get(self, keys: Sequence[bytes], beside: Beside | None = None) -> list[bytes | None]:
        """As in `Store`.  One key costs a read transaction (a spare one renewed) and a descent: about 1.5 µs."""

        def look(transaction: lmdb.Transaction[bytes]) -> list[bytes | None]:
            if beside is not None and (now := transaction.id()) != beside.at:  # the number of the last transaction that wrote
                beside.values, beside.at = self._records.get(transaction, beside.keys), now
            return self._records.get(transaction, keys)

        return self._read(look)

    def gather(self, parts: Sequence[Keys], take: Take) -> None:
        """As in `Store`.  Each value is copied once, out of LMDB's pages: two thirds of what `get` takes for values of some KB."""

        names = [part.listed() for part in parts]

        def join(transaction: lmdb.Transaction[bytes]) -> list[tuple[bytearray, np.ndarray]]:
            found = [self._records.get(transaction, keys, b"") for keys in names]
            return [(bytearray().join(values), starts_of(values)) for values in found]

        for number, (values, starts) in enumerate(self._read(join, buffers=True)):
            take(number, values, starts)

    def write(
        self,
        puts: Iterable[tuple[bytes, bytes]],
        deletes: Iterable[bytes] = (),
        expect: Mapping[bytes, bytes | None] | None = None,
        seen: int | None = None,
    ) -> float:
        """As in `Store`."""
        rows, gone, expected = stored_rows(puts), list(deletes), dict(expect or {})

        def change(transaction: lmdb.Transaction[bytes]) -> None:
            if seen is None or transaction.id() != seen + 1:  # a writer is the one behind the last that is there
                self._records.compare(transaction, expected)
            self._records.change(transaction, rows, gone, expected)

        self._check_usable()
        with _store_errors(self.path), self._lease.held():
            started = time.perf_counter()
            self._commit(change)
            return time.perf_counter() - started

    def instant(self) -> int:
        """As in `Store`: the number of the last transaction that wrote."""
        return self._read(lambda transaction: transaction.id())

    def scan(self, prefix: bytes, start: bytes | None = None, limit: int = 10_000) -> list[tuple[bytes, bytes]]:
        """As in `Store`.

        Keys that agree in their first 479 bytes are read together and sorted, so
        memory is bounded by `limit` and the number of those.
        """
        return self._read(lambda transaction: list(islice(self._records.walk(transaction, prefix, start or b""), max(limit, 0))))

    def delete_prefix(self, prefix: bytes) -> int:
        """As in `Store`.  A key that another process adds behind the walk's place stays."""
        count, start = 0, prefix
        while page := self.scan(prefix, start, DELETES_A_TRANSACTION):
            self.write((), deletes=[key for key, _ in page])
            count, start = count + len(page), page[-1][0] + b"\0"
        return count

    def stat(self) -> StoreStat:
        found, pieces = self._read(lambda transaction: (transaction.stat(), self._records.pieces(transaction)))
        pages = found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
        return StoreStat(found["psize"] * pages, found["entries"] - pieces)

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """As in `Store`.

        A commit writes pages, waits for the disk, then writes the meta page that
        makes them the store.  Inside the block only the wait after that is put off
        (MDB_NOMETASYNC), so the order on disk holds and a machine that stops finds
        an older whole store.  MDB_NOSYNC would put off both, is faster on slow disks
        and may leave a meta page without its pages: a broken store.
        """
        with self._exclusive:
            self._bulks += 1
        try:
            yield
        finally:
            with self._exclusive:
                self._bulks -= 1
            with _store_errors(self.path):
                self._sync()

    def close(self) -> None:
        """Give the store back; the last one closes it.  Closing once more does nothing."""
        with _opening:
            self.users -= 1
            if self.users != 0:
                return
            if _open.get(self.path) is self:
                del _open[self.path]
            self.refuse("the store is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def is_in_place(self) -> bool:
        """Whether the file that this store opened still is the one at its path: someone may have removed the folder."""
        return self._refusal is None and self._file_identity == _identity(self.path)

    def refuse(self, reason: str) -> None:
        """Answer no more calls."""
        with self._no_readers():
            if self._refusal is None:
                self._refusal = reason
                self._drop_environment()
                self._lease.close()

    # Reading. A reader signs in before it looks for `_begin`; who wants readers out takes `_begin` away before it looks for readers.

    def _read(self, work: Callable[[lmdb.Transaction[bytes]], _Result], buffers: bool = False) -> _Result:
        reader = threading.get_ident()
        while True:
            problem = None
            self._readers.add(reader)
            try:
                if (begin := self._begin) is not None:
                    transaction = begin(buffers=True) if buffers else begin()
                    try:
                        return work(transaction)
                    finally:
                        transaction.abort()
            except lmdb.Error as error:
                problem = error
            finally:
                self._readers.discard(reader)
            with _store_errors(self.path):
                self._recover(problem) if problem else self._admit()

    def _admit(self) -> lmdb.Environment:
        """Wait until nobody has the store to himself, then let readers in."""
        with self._exclusive:
            environment = self._opened()
            self._begin = environment.begin
            return environment

    def _opened(self) -> lmdb.Environment:
        self._check_usable()
        if self._environment is None:
            self._environment = _open_environment(self.path, self._initial_map)
            self._records = Records(self._environment.stat()["psize"])
        return self._environment

    def _check_usable(self) -> None:
        if self._refusal is not None:
            raise StoreError(f"{self.path}: {self._refusal}.\n  Open it with open_store.")

    @contextmanager
    def _no_readers(self) -> Iterator[None]:
        """Have the store to oneself: a map may be moved only when no transaction points into it."""
        with self._exclusive:
            self._begin = None
            self._readers.discard(threading.get_ident())  # left there if Ctrl-C struck between two lines of `_read`
            while self._readers:
                time.sleep(0.00005)
            yield

    def _recover(self, problem: lmdb.Error) -> None:
        """Do what lets the call be tried again, or raise the problem."""
        match problem:
            case lmdb.MapFullError():
                self._remap(grow=True)
            case lmdb.MapResizedError():
                self._remap(grow=False)
            case lmdb.PanicError():  # an earlier call could not write a meta page: the disk has a whole store, this environment has not
                with self._no_readers():
                    self._drop_environment()
            case lmdb.ReadersFullError() if self._admit().reader_check():
                pass
            case _:
                raise problem

    def _remap(self, grow: bool) -> None:
        """Double the map, or take over the size that another process gave it."""
        with self._no_readers():
            environment = self._opened()
            environment.reader_check()  # a reader killed in a transaction keeps old pages from being used again
            environment.set_mapsize(2 * environment.info()["map_size"] if grow else 0)

    # Writing

    def _commit(self, change: Callable[[lmdb.Transaction[bytes]], None]) -> None:
        """Run `change` in one transaction, again from the start when the map has to grow."""
        if os.getpid() != self._pid:
            raise StoreError(f"{self.path}: this process was forked without Python's knowledge.\n  Open the store after the fork.")
        while True:
            try:
                with self._exclusive:
                    self._run(change)
                    if not self._bulks:
                        self._sync()
                return
            except lmdb.Error as problem:
                self._recover(problem)

    def _run(self, change: Callable[[lmdb.Transaction[bytes]], None]) -> None:
        """One try.  Readers are let out before an abort: py-lmdb's waits for an instant without any, which busy threads never leave it."""
        transaction = self._admit().begin(write=True)
        try:
            change(transaction)
            transaction.commit()
        except BaseException:
            with self._no_readers():
                transaction.abort()
            raise

    def _sync(self) -> None:
        with self._exclusive:
            environment = self._admit()
            try:
                environment.sync(True)
            except lmdb.Error as error:
                raise StoreError(
                    f"{self.path}: the disk did not confirm the last writes ({error}); they can be read, and a power cut may undo them.\n"
                    f"  See to the disk, then run the same command again."
                ) from error

    # Forking

    def leave_before_fork(self) -> None:
        self._exclusive.acquire()
        with self._no_readers():
            self._drop_environment()

    def go_on_in_parent(self) -> None:
        self._exclusive.release()

    def go_on_in_child(self) -> None:
        if self._environment is not None:  # a fork that ran no hook before it; closing here would free the parent's reader slots
            self._refusal = "the process was forked while the store was open"
        self._begin = None
        self._pid, self._bulks = os.getpid(), 0
        self._readers, self._exclusive = set(), threading.RLock()
        self._lease.forget_threads()

    def _drop_environment(self) -> None:
        self._begin = None
        if self._environment is not None:
            self._environment.close()
            self._environment = None


# The folder

def _prepare_folder(path: Path, create: bool) -> None:
    with _store_errors(path):
        note = path / "format.json"
        if not note.exists():
            if (path / "data.mdb").exists():
                raise StoreError(f"{path}: there is an LMDB file without format.json, so it is not a featreg store.")
            if not create:
                raise StoreError(f"{path}: there is no online store.\n  Run featreg materialize.")
            path.mkdir(parents=True, exist_ok=True)
            _write_note(note)
        if _format_of(path, note.read_text()) < FORMAT:
            _write_note(note)


def _write_note(note: Path) -> None:
    draft = note.with_name(f"format.{os.getpid()}.draft")
    with draft.open("w") as file:
        json.dump({"store": "lmdb", "format": FORMAT}, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(note)


def _format_of(path: Path, text: str) -> int:
    try:
        found: int = json.loads(text)["format"]
        is_newer = found > FORMAT
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{path}/format.json: this is not what featreg writes; the folder is not a store or is damaged.") from None
    if is_newer:
        raise StoreError(
            f"{path}: the store has format {found}, written by a newer featreg; this one reads format {FORMAT} and older.\n"
            f"  Upgrade featreg, or give [online] another path in conf/."
        )
    return found


def _open_environment(path: Path, initial_map: int) -> lmdb.Environment:
    """Open LMDB, sized for what is there, and free the reader slots of processes that were killed."""
    data = path / "data.mdb"
    size = data.stat().st_size if data.exists() else 0
    environment = lmdb.open(
        str(path),
        map_size=max(initial_map, 2 * size),
        metasync=False,  # `_sync` does it, except in `bulk`
        readahead=False,  # reads are of random keys
        max_readers=READER_SLOTS,
        max_spare_txns=16,  # renewing one costs a third of beginning one
    )
    environment.reader_check()
    if size == 0:
        sync_folder(path)
    return environment


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = (path / "data.mdb").stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _store_errors(path: Path) -> Iterator[None]:
    """Turn what LMDB and the system raise into a StoreError with the next step."""
    try:
        yield
    except (lmdb.Error, OSError) as error:
        code = error.errno if isinstance(error, OSError) else error.code
        if code in _FULL:
            raise StoreError(
                f"{path}: the disk is full or refuses writes ({error}); nothing of this write was stored, what was before is whole.\n"
                f"  Make room, then run the same command again."
            ) from error
        if isinstance(error, lmdb.CorruptedError | lmdb.InvalidError | lmdb.PageNotFoundError | lmdb.VersionMismatchError):
            raise StoreError(f"{path}: the store is damaged ({error}).\n  Remove the folder and materialize anew.") from error
        if isinstance(error, lmdb.BadValsizeError):
            raise StoreError(f"{path}: a key has 1 byte or more ({error}).") from error
        raise StoreError(f"{path}: {error}") from error


def _process_name() -> str:
    """The program and its verb; no more of the command line, where secrets may stand."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]]).strip() or "python"


def _warn(holder: Holder | None) -> None:
    _log.warning("waiting to write to the online store: the lease is held by %s", holder or "an unnamed writer")


# Open stores of this process, by resolved path

_open: dict[Path, LmdbStore] = {}
_opening = threading.RLock()


def _before_fork() -> None:
    _opening.acquire()
    for store in _open.values():
        store.leave_before_fork()


def _after_fork_in_parent() -> None:
    for store in _open.values():
        store.go_on_in_parent()
    _opening.release()


def _after_fork_in_child() -> None:
    global _opening
    _opening = threading.RLock()
    for store in _open.values():
        store.go_on_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
