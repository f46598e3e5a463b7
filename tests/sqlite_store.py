"""A store from outside this repository: SQLite, as somebody would write it who has only read `featreg.stores.contract`.

It passes the suite of all stores, and serves by the entry point group `featreg.stores` (see `install`).
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from featreg.errors import StoreError
from featreg.stores.contract import Beside, Keys, StoreConflict, StoreStat, Take, starts_of

PAGE = 500  # names in one question


def install(site: Path) -> None:
    """Lay this store into a folder of packages, as pip does."""
    info = site / "featreg_sqlite-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: featreg-sqlite\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[featreg.stores]\nsqlite = featreg_sqlite:from_profile\n")
    (site / "featreg_sqlite.py").write_text(Path(__file__).read_text())


def from_profile(profile: Any) -> "SqliteStore":
    """What the entry point names."""
    return SqliteStore(profile.root / profile.online_url.removeprefix("sqlite:"))


class SqliteStore:
    def __init__(self, path: Path):
        self.path, self._mine, self._closed = path, threading.local(), False
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._transaction() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")

    def _connection(self) -> sqlite3.Connection:
        """This thread's, and this side's of a fork."""
        if self._closed:
            raise StoreError(f"{self.path}: the store is closed.")
        if getattr(self._mine, "pid", None) != os.getpid():
            self._mine.pid = os.getpid()
            self._mine.connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._mine.connection.execute("PRAGMA journal_mode = WAL")
        connection: sqlite3.Connection = self._mine.connection
        return connection

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        connection.execute(f"BEGIN {kind}")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def get(self, keys: Sequence[bytes], beside: Beside | None = None) -> list[bytes | None]:
        with self._transaction("DEFERRED") as connection:
            if beside is not None:
                beside.values = _values(connection, beside.keys)
            return _values(connection, keys)

    def gather(self, parts: Sequence[Keys], take: Take) -> None:
        found = iter(self.get([key for part in parts for key in part.listed()]))
        for number, part in enumerate(parts):
            values = [next(found) or b"" for _ in range(part.size)]
            take(number, bytearray().join(values), starts_of(values))

    def write(
        self,
        puts: Iterable[tuple[bytes, bytes]],
        deletes: Iterable[bytes] = (),
        expect: Mapping[bytes, bytes | None] | None = None,
        seen: int | None = None,
    ) -> float:
        rows, gone, expected = list(puts), list(deletes), dict(expect or {})
        _check([*gone, *expected, *(key for key, _ in rows)])
        with self._transaction() as connection:
            began = time.perf_counter()
            for (key, wanted), found in zip(expected.items(), _values(connection, list(expected))):
                if found != wanted:
                    raise StoreConflict(key, wanted, found)
            connection.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in gone])
            connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", rows)
        return time.perf_counter() - began

    def instant(self) -> int | None:
        return None

    def scan(self, prefix: bytes, start: bytes | None = None, limit: int = 10_000) -> list[tuple[bytes, bytes]]:
        first = max(prefix, start or b"")
        found = self._connection().execute("SELECT key, value FROM entries WHERE key >= ? ORDER BY key LIMIT ?", (first, max(0, limit)))
        return [(key, value) for key, value in found.fetchall() if key.startswith(prefix)]

    def delete_prefix(self, prefix: bytes) -> int:
        count = 0
        while page := [key for key, _ in self.scan(prefix)]:
            self.write((), page)
            count += len(page)
        return count

    def stat(self) -> StoreStat:
        size, entries = self._connection().execute("SELECT sum(length(key) + length(value)), count(*) FROM entries").fetchone()
        return StoreStat(size or 0, entries)

    @contextmanager
    def bulk(self) -> Iterator[None]:
        yield

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _values(connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[bytes | None]:
    _check(keys)
    found: dict[bytes, bytes] = {}
    for begin in range(0, len(keys), PAGE):
        some = keys[begin : begin + PAGE]
        found |= dict(connection.execute(f"SELECT key, value FROM entries WHERE key IN ({','.join('?' * len(some))})", some))
    return [found.get(key) for key in keys]


def _check(keys: Iterable[bytes]) -> None:
    if not all(keys):
        raise StoreError("a key has 1 byte or more.")
