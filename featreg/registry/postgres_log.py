"""Keep the control log in PostgreSQL, for a team: `[registry] url = "postgresql://..."`.

Writers are one after the other by an advisory lock that ends with their transaction; the clock is the server's.  The url holds
a password as a rule: no error and no repr has any part of it but user, host and database.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from featreg.errors import StoreError, UsageError
from featreg.registry.log import CLOCK_TOLERANCE, FORMAT, ControlLog, Run

if TYPE_CHECKING:
    import psycopg

_LOCK = 0x66656174726567  # "featreg"
_WAITS = "30s"  # for another writer, whose transaction takes milliseconds
_CONNECT_SECONDS = 10
_KEPT = 4  # idle connections
_BATCH = 10_000
_TABLES = """
CREATE TABLE IF NOT EXISTS featreg_records (generation BIGINT PRIMARY KEY, kind TEXT, at BIGINT, by TEXT, body TEXT, chain TEXT);
CREATE TABLE IF NOT EXISTS featreg_head (one INTEGER PRIMARY KEY CHECK (one = 1), generation BIGINT, chain TEXT);
CREATE TABLE IF NOT EXISTS featreg_claim
  (one INTEGER PRIMARY KEY CHECK (one = 1), token TEXT, verb TEXT, at BIGINT, by TEXT, host TEXT, pid BIGINT);
CREATE TABLE IF NOT EXISTS featreg_form (one INTEGER PRIMARY KEY CHECK (one = 1), form INTEGER);
CREATE INDEX IF NOT EXISTS featreg_by_kind ON featreg_records (kind, generation);
INSERT INTO featreg_form VALUES (1, {form}) ON CONFLICT DO NOTHING;
"""


class PostgresLog(ControlLog):
    """The log in the database of a url, in the first schema of its search path."""

    prefix = "featreg_"

    def __init__(self, url: str, clock_tolerance: int = CLOCK_TOLERANCE):
        super().__init__(clock_tolerance)
        try:
            import psycopg
        except ImportError:
            raise UsageError("[registry] url needs psycopg.\n  Install it: pip install 'featreg[postgres]'") from None
        try:
            parts = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error:
            hint = "Write it as postgresql://user:${PASSWORD}@host:5432/database"
            raise UsageError(f"[registry] url is no url of PostgreSQL.\n  {hint}") from None
        self._url = url
        self._secrets = tuple(str(parts[name]) for name in ("password", "sslpassword") if parts.get(name))
        host, user = parts.get("host") or "localhost", f"{parts['user']}@" if parts.get("user") else ""
        port = f":{parts['port']}" if parts.get("port") else ""
        self._name = f"postgresql://{user}{host}{port}/{parts.get('dbname') or ''}"
        self._pid, self._is_made = -1, False
        self._idle: list[psycopg.Connection[Any]] = []
        self._begin_anew()

    @property
    def name(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"PostgresLog({self._name})"

    def exists(self) -> bool:
        """Once true it stays so."""
        if not self._is_made:
            with self._connection() as connection:
                found = connection.execute("SELECT to_regclass('featreg_form') IS NOT NULL").fetchone()
                self._is_made = found is not None and bool(found[0])
        return self._is_made

    def now(self, run: Run) -> int:
        return run("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")[0][0]

    @contextmanager
    def reading(self) -> Iterator[Run]:
        with self._connection() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            self._refuse_newer(connection)
            yield _runner(connection)

    @contextmanager
    def writing(self) -> Iterator[Run]:
        with self._connection() as connection, connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{_WAITS}'; SET LOCAL synchronous_commit = on")
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            if not self._is_made:
                connection.execute(_TABLES.format(form=FORMAT))  # type: ignore[arg-type]
            self._refuse_newer(connection)
            yield _runner(connection)
        self._is_made = True

    def rows(self, columns: str, after: int, kind: str | None = None) -> Iterator[tuple[Any, ...]]:
        with self._connection() as connection, connection.transaction():
            self._refuse_newer(connection)
            with connection.cursor("featreg_rows") as cursor:
                cursor.itersize = _BATCH
                wanted, arguments = ("", (after,)) if kind is None else (" AND kind = %s", (after, kind))
                found = f"SELECT {columns} FROM featreg_records WHERE generation > %s{wanted} ORDER BY generation"
                cursor.execute(found, arguments)  # type: ignore[arg-type]
                yield from cursor

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _begin_anew(self) -> None:
        """A parent's connections are its own: a child keeps them out of the way, for closing them would end them there."""
        self._forgotten, self._idle = self._idle, []
        self._pid, self._lock = os.getpid(), threading.Lock()

    @contextmanager
    def _connection(self) -> "Iterator[psycopg.Connection[Any]]":
        """A connection of one's own for a while; it is kept for the next who asks unless something failed."""
        import psycopg

        try:
            connection = self._kept() or psycopg.connect(self._url, autocommit=True, connect_timeout=_CONNECT_SECONDS)
            try:
                yield connection
            finally:
                self._put_back(connection)
        except psycopg.Error as error:
            raise StoreError(f"{self._name}: {self._told(error)}.") from None

    def _kept(self) -> "psycopg.Connection[Any] | None":
        """An idle connection that still answers."""
        import psycopg

        if self._pid != os.getpid():
            self._begin_anew()
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            try:
                connection.execute("SELECT 1")
                return connection
            except psycopg.Error:
                connection.close()

    def _put_back(self, connection: "psycopg.Connection[Any]") -> None:
        """Keep a connection in which nothing is under way."""
        import psycopg

        with self._lock:
            is_kept = len(self._idle) < _KEPT and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            if is_kept:
                self._idle.append(connection)
        if not is_kept:
            connection.close()

    def _refuse_newer(self, connection: "psycopg.Connection[Any]") -> None:
        found = connection.execute("SELECT form FROM featreg_form").fetchone()
        form = found[0] if found else FORMAT
        if form > FORMAT:
            raise StoreError(
                f"{self._name} was written by a newer featreg (form {form}; this one reads up to {FORMAT}). Install that one."
            )

    def _told(self, error: Exception) -> str:
        """What the server or the driver says, in one line and without secrets."""
        text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        for secret in (self._url, *self._secrets):
            text = text.replace(secret, "***")
        return text


def _runner(connection: "psycopg.Connection[Any]") -> Run:
    def run(statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        cursor = connection.execute(statement.replace("?", "%s"), arguments)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []

    return run
