"""Keep the control plane: an append-only log of records in SQLite, changed by compare-and-swap on its generation."""

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from featreg.errors import RefusedError, StoreError

FORMAT = 1


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
            last = connection.execute("SELECT generation, kind, by FROM records ORDER BY generation DESC LIMIT 1").fetchone()
            if (last[0] if last else 0) != expected:
                connection.execute("ROLLBACK")
                raise RefusedError(
                    f"{last[2]} was first: '{last[1]}' is generation {last[0]}, and this was begun at {expected}.\n"
                    f"  Look again, then repeat it."
                )
            connection.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?)", (expected + 1, kind, at, by, json.dumps(body, sort_keys=True)))
            connection.execute("COMMIT")
        return Record(expected + 1, kind, at, by, body)

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
            if create and form == 0:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS records (generation INTEGER PRIMARY KEY, kind TEXT, at INTEGER, by TEXT, body TEXT)"
                )
                connection.execute(f"PRAGMA user_version={FORMAT}")
            yield connection
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.path}: {error}.") from error
        finally:
            connection.close()
