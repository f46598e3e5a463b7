"""Keep the control log in a SQLite file: WAL, FULL, and a connection for every call, so that threads and forks need no care.

Form 1 had no chain, form 2 no claim and no index; a log of theirs is brought up by its next record.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featreg.errors import StoreError
from featreg.registry.log import CLOCK_TOLERANCE, FORMAT, ControlLog, Run, chained

_TABLES = (
    "CREATE TABLE IF NOT EXISTS records (generation INTEGER PRIMARY KEY, kind TEXT, at INTEGER, by TEXT, body TEXT, chain TEXT)",
    "CREATE TABLE IF NOT EXISTS head (only INTEGER PRIMARY KEY CHECK (only = 1), generation INTEGER, chain TEXT)",
    "CREATE TABLE IF NOT EXISTS claim "
    "(only INTEGER PRIMARY KEY CHECK (only = 1), token TEXT, verb TEXT, at INTEGER, by TEXT, host TEXT, pid INTEGER)",
    "CREATE INDEX IF NOT EXISTS by_kind ON records (kind, generation)",
)
_NO_HEAD = "CREATE TEMP VIEW head AS SELECT 0 AS generation, '' AS chain WHERE 0"
_MISSING = {  # what a reader sees in place of the tables that an earlier form, or a file whose first writer was killed, has not
    0: ("CREATE TEMP VIEW records AS SELECT 0 AS generation, '' AS kind, 0 AS at, '' AS by, '' AS body, '' AS chain WHERE 0", _NO_HEAD),
    1: ("CREATE TEMP VIEW records AS SELECT generation, kind, at, by, body, '' AS chain FROM main.records", _NO_HEAD),
}
_WAITS = 30  # seconds for another writer, whose transaction takes milliseconds


class SqliteLog(ControlLog):
    """The log in `folder/control.sqlite`."""

    def __init__(self, folder: Path, clock_tolerance: int = CLOCK_TOLERANCE):
        super().__init__(clock_tolerance)
        self.folder = folder
        self.path = folder / "control.sqlite"

    @property
    def name(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        return self.path.exists()

    def now(self, run: Run) -> int:
        return time.time_ns() // 1000

    @contextmanager
    def reading(self) -> Iterator[Run]:
        with self._connect() as connection:
            for view in _MISSING.get(_form(connection), ()):
                connection.execute(view)
            yield _runner(connection)

    @contextmanager
    def writing(self) -> Iterator[Run]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.folder} could not be made: {error.strerror}.") from error
        with self._connect() as connection:
            if _form(connection) < FORMAT:
                _into_wal(connection)
                _bring_up(connection)
            connection.execute("BEGIN IMMEDIATE")
            yield _runner(connection)
            connection.execute("COMMIT")

    def rows(self, columns: str, after: int, kind: str | None = None) -> Iterator[tuple[Any, ...]]:
        with self._connect() as connection:
            form = _form(connection)
            if form == 0 or (form == 1 and "chain" in columns):
                return
            wanted, arguments = ("", (after,)) if kind is None else (" AND kind = ?", (after, kind))
            yield from connection.execute(f"SELECT {columns} FROM records WHERE generation > ?{wanted} ORDER BY generation", arguments)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """A connection; what is not committed when the block is left is undone."""
        try:
            connection = sqlite3.connect(self.path, timeout=_WAITS, isolation_level=None)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}.") from error
        try:
            connection.execute("PRAGMA synchronous=FULL")
            form = _form(connection)
            if form > FORMAT:
                raise StoreError(
                    f"{self.path} was written by a newer featreg (form {form}; this one reads up to {FORMAT}). Install that one."
                )
            yield connection
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.path}: {error}.") from error
        finally:
            connection.close()


def _runner(connection: sqlite3.Connection) -> Run:
    return lambda statement, *arguments: connection.execute(statement, arguments).fetchall()


def _form(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def _into_wal(connection: sqlite3.Connection) -> None:
    """SQLite waits for other processes in everything but this, so that of many who begin a log at once some would be told it is locked."""
    until = time.monotonic() + _WAITS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.005)


def _bring_up(connection: sqlite3.Connection) -> None:
    """Make the tables, and give records of form 1 their chain."""
    connection.execute("BEGIN IMMEDIATE")
    form = _form(connection)
    if form == 1:
        connection.execute("ALTER TABLE records ADD COLUMN chain TEXT")
    for statement in _TABLES:
        connection.execute(statement)
    chain = ""
    rows = connection.execute("SELECT generation, kind, at, by, body FROM records ORDER BY generation").fetchall() if form == 1 else []
    for row in rows:
        chain = chained(chain, row)
        connection.execute("UPDATE records SET chain = ? WHERE generation = ?", (chain, row[0]))
    if rows:
        connection.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?)", (rows[-1][0], chain))
    connection.execute(f"PRAGMA user_version={FORMAT}")
    connection.execute("COMMIT")
