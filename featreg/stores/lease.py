"""Let one writer at a time into a store on this machine, and say who it is.

The lease is a lock of the kernel on a byte of a file, so it ends with its
holder, however that ends; the file's text is only the name of the holder for
those who wait, written anew (its heartbeat) by every transaction.
"""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from featreg.stores.contract import Holder, WriteLeaseHeld

NOTICE = 1.0  # seconds after which who waits is told who holds
RECORD_BYTES = 512  # one size, so that a full disk can still be told who holds the lease
SHORTEST_PAUSE, LONGEST_PAUSE = 0.0002, 0.005  # seconds between two tries

_QUEUE_BYTE, _TURN_BYTE = 1 << 20, (1 << 20) + 1  # beyond the record; a lock needs no byte to exist


class _Lock(Protocol):
    def acquire(self, blocking: bool = ...) -> bool: ...

    def release(self) -> None: ...


class _FileLock:
    """One byte of a file, locked for this process.

    POSIX locks: a forked child does not inherit them (flock and OFD locks it
    would, and so outlive the holder), a dead process leaves none.  But whoever
    in this process opens the file and closes it again lets go of them too:
    nobody else may open it.
    """

    def __init__(self, lease: "Lease", byte: int):
        self._lease, self._byte = lease, byte

    def acquire(self, blocking: bool = False) -> bool:
        try:
            fcntl.lockf(self._lease.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._byte)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self) -> None:
        fcntl.lockf(self._lease.descriptor, fcntl.LOCK_UN, 1, self._byte)


class Lease:
    """The right to write to the store whose lease file is `path`.

    what: how this process is named to others.  timeout: seconds a writer waits.
    on_wait: told the holder, once a wait, after a second of it.
    """

    def __init__(self, path: Path, what: str, timeout: float, on_wait: Callable[[Holder | None], None]):
        self._path, self._what, self._timeout, self._on_wait = path, what, timeout, on_wait
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.forget_threads()

    def forget_threads(self) -> None:
        """Begin anew in a forked child, where the threads that held the locks are gone."""
        self._threads = threading.Lock(), threading.Lock()
        self._files = _FileLock(self, _QUEUE_BYTE), _FileLock(self, _TURN_BYTE)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lease.

        Two locks each, for threads and for processes: who waits for the turn holds
        the queue, so a writer in a loop cannot take the turn again before the one
        who waits has had it.
        Raises: WriteLeaseHeld after `timeout` seconds.
        """
        waits = self._wait_patiently()
        with ExitStack() as turn:
            with ExitStack() as queue:
                for queue_lock, turn_lock in (self._threads, self._files):
                    _take(queue, queue_lock, waits)
                    _take(turn, turn_lock, waits)
            self._sign()
            yield

    def holder(self) -> Holder | None:
        """Who signed last: the holder, while the lease is held."""
        try:
            return Holder(**json.loads(os.pread(self.descriptor, RECORD_BYTES, 0)))
        except (ValueError, TypeError):
            return None

    def close(self) -> None:
        """Let go of the file; -1 then, so that no file opened later under its number is taken for it."""
        closing, self.descriptor = self.descriptor, -1
        os.close(closing)

    def _wait_patiently(self) -> Iterator[None]:
        """Sleep at every step: ever longer, telling who holds after a second, giving up at the timeout."""
        started, pause, told = time.monotonic(), SHORTEST_PAUSE, False
        while (waited := time.monotonic() - started) < self._timeout:
            if waited >= NOTICE and not told:
                told = True
                self._on_wait(self.holder())
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            yield
        raise WriteLeaseHeld(str(self._path.parent), self.holder(), waited)

    def _sign(self) -> None:
        since = time.time_ns() // 1000
        record = json.dumps({"pid": os.getpid(), "host": socket.gethostname()[:100], "since": since, "what": self._what[:100]})
        try:
            os.pwrite(self.descriptor, record.encode().ljust(RECORD_BYTES), 0)
        except OSError:  # a full disk must not keep a writer from deleting; the lock holds without the name
            pass


def _take(stack: ExitStack, lock: _Lock, waits: Iterator[None]) -> None:
    while not lock.acquire(blocking=False):
        next(waits)
    stack.callback(lock.release)
