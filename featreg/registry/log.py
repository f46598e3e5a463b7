"""Keep the control plane: an append-only log of records in SQLite, changed by compare-and-swap on its generation.

Each record carries the SHA-256 of itself and of the chain before it, and `head` the newest one's, so that a record
that was edited, taken out or cut off is found.  Logs of form 1 have no chain; they get one with their next record.
"""

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from featreg.canonical import content_id
from featreg.errors import RefusedError, StoreError

FORMAT = 2
_TABLES = """
CREATE TABLE IF NOT EXISTS records (generation INTEGER PRIMARY KEY, kind TEXT, at INTEGER, by TEXT, body TEXT, chain TEXT);
CREATE TABLE IF NOT EXISTS head (only INTEGER PRIMARY KEY CHECK (only = 1), generation INTEGER, chain TEXT);
"""
_Row = tuple[int, str, int, str, str]  # a record as it is stored, without its chain


@dataclass(frozen=True)
class Record:
    """One event of the log.  generation: 1, 2, 3, ...; at: UTC microseconds."""

    generation: int
    kind: str
    at: int
    by: str
    body: dict


class ControlLog:
    """The log at a path; every call opens its own connection, so that threads and forks need no care."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / "control.sqlite"

    def records(self) -> list[Record]:
        if not self.path.exists():
            return []
        with self._connect() as connection:
            rows = connection.execute("SELECT generation, kind, at, by, body FROM records ORDER BY generation").fetchall()
        return [Record(generation, kind, at, by, json.loads(body)) for generation, kind, at, by, body in rows]

    def last(self, kind: str) -> Record | None:
        """The newest record of a kind."""
        if not self.path.exists():
            return None
        with self._connect() as connection:
            row = connection.execute(
                "SELECT generation, kind, at, by, body FROM records WHERE kind = ? ORDER BY generation DESC LIMIT 1", (kind,)
            ).fetchone()
        if row is None:
            return None
        generation, kind, at, by, body = row
        return Record(generation, kind, at, by, json.loads(body))

    def generation(self) -> int:
        if not self.path.exists():
            return 0
        with self._connect() as connection:
            return connection.execute("SELECT coalesce(max(generation), 0) FROM records").fetchone()[0]

    def append(self, kind: str, body: dict, expected: int) -> Record:
        """Add a record if the log is still at generation `expected`.

        Raises: RefusedError that says who was first.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        at, by = time.time_ns() // 1000, f"{os.environ.get('USER', 'someone')} (pid {os.getpid()})"
        with self._connect(create=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            last = connection.execute("SELECT generation, kind, by, chain FROM records ORDER BY generation DESC LIMIT 1").fetchone()
            if (last[0] if last else 0) != expected:
                connection.execute("ROLLBACK")
                raise RefusedError(
                    f"{last[2]} was first: '{last[1]}' is generation {last[0]}, and this was begun at {expected}.\n"
                    f"  Look again, then repeat it."
                )
            row = (expected + 1, kind, at, by, json.dumps(body, sort_keys=True))
            chain = _chained(last[3] if last else "", row)
            connection.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", (*row, chain))
            connection.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?)", (expected + 1, chain))
            connection.execute("COMMIT")
        return Record(expected + 1, kind, at, by, body)

    def problems(self) -> list[str]:
        """What is wrong with the chain, record by record; nothing for a log that is as it was written."""
        if not self.path.exists():
            return []
        with self._connect() as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] < FORMAT:
                return []
            rows = connection.execute("SELECT generation, kind, at, by, body, chain FROM records ORDER BY generation").fetchall()
            head = connection.execute("SELECT generation, chain FROM head").fetchone()
        found, before, expected, newest = [], "", 1, 0
        for *record, chain in rows:
            generation, kind, at = record[0], record[1], record[2]
            if generation != expected:
                missing = f"record {expected} is" if generation == expected + 1 else f"records {expected} to {generation - 1} are"
                found.append(f"{missing} missing from the log")
            elif _chained(before, tuple(record)) != chain:
                found.append(f"record {generation} ('{kind}') was edited after it was written, or the one before it was")
            if at < newest:
                found.append(f"record {generation} ('{kind}') is older than the one before it: a clock was moved back")
            before, expected, newest = chain, generation + 1, max(newest, at)
        if head is not None and head[0] >= expected:
            found.append(f"the log ends at record {expected - 1} and had {head[0]}: it was cut off")
        return found

    @contextmanager
    def _connect(self, create: bool = False) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous=FULL")
            form = connection.execute("PRAGMA user_version").fetchone()[0]
            if form > FORMAT:
                raise StoreError(
                    f"{self.path} was written by a newer featreg (form {form}; this one reads up to {FORMAT}). Install that one."
                )
            if create and form < FORMAT:
                connection.execute("PRAGMA journal_mode=WAL")
                _bring_up(connection)
            yield connection
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.path}: {error}.") from error
        finally:
            connection.close()


def _chained(before: str, row: _Row) -> str:
    """SHA-256 over the chain so far and a record."""
    return content_id([before, *row])


def _bring_up(connection: sqlite3.Connection) -> None:
    """Make the tables, or give those of form 1 their chain."""
    connection.execute("BEGIN IMMEDIATE")
    form = connection.execute("PRAGMA user_version").fetchone()[0]
    if form == 1:
        connection.execute("ALTER TABLE records ADD COLUMN chain TEXT")
    for statement in filter(str.strip, _TABLES.split(";")):
        connection.execute(statement)
    chain = ""
    rows = connection.execute("SELECT generation, kind, at, by, body FROM records ORDER BY generation").fetchall() if form == 1 else []
    for row in rows:
        chain = _chained(chain, row)
        connection.execute("UPDATE records SET chain = ? WHERE generation = ?", (chain, row[0]))
    if rows:
        connection.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?)", (rows[-1][0], chain))
    connection.execute(f"PRAGMA user_version={FORMAT}")
    connection.execute("COMMIT")
