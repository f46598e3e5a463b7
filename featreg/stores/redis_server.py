"""Reach the Redis server that holds a store: which of the named hosts it is, what it said, and when to ask again.

A store lives in one hash slot, so one server holds it.  It is found anew whenever a connection is lost:
the hosts of the URL are asked in turn, a replica is passed over, and a cluster's MOVED is followed.
"""

import logging
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
from redis.retry import Retry

from featreg.errors import StoreError, StoreUnavailable, UsageError
from featreg.stores.contract import Take

if TYPE_CHECKING:
    from featreg.stores.redis_reply import Reply

SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "unix")
CONNECT_TIMEOUT, ANSWER_TIMEOUT = 2.0, 10.0  # seconds
READ_BYTES = 1 << 19  # at once from a socket: a hundred keys of some KB
PATIENCE = 20.0  # seconds for which a call looks for a server that answers: an election and a restart take some
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.5  # seconds between two tries

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_PASSING = (
    redis.ConnectionError, redis.TimeoutError, BusyLoadingError, ReadOnlyError, ClusterDownError, MasterDownError, TryAgainError, AskError,
)  # fmt: skip

_CODE = re.compile(r"(?:^|: -|^-)([A-Z]+) ")  # what an error begins with; a script's stands behind the place in the script
_PASSING_CODES = ("READONLY", "LOADING", "BUSY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN")


class RedisUrl:
    """Where a store is: `redis://[user:password@]host:port[,host:port …]/[db]?namespace=name`, or rediss://, or unix://.

    `redis+sentinel://…/name/[db]` names Sentinels, who are asked where the master of that name is.
    Its text has no user, password or option, so that it can be shown.
    Raises: UsageError for what is no such URL; it does not repeat the URL, which may hold a password.
    """

    def __init__(self, url: str):
        try:
            parts = urlsplit(url)
            options = {name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
        except ValueError:
            raise UsageError("[online] url: this is no URL of Redis.\n  Write redis://HOST:PORT/0.") from None
        if parts.scheme not in SCHEMES:
            raise UsageError(f"[online] url: begins with one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}.")
        scheme, _, is_watched = parts.scheme.partition("+")
        path = parts.path
        self.master: str | None = None
        if is_watched:
            self.master, _, database = parts.path.removeprefix("/").partition("/")
            path = f"/{database}"
            if not self.master:
                raise UsageError(
                    "[online] url: behind the Sentinels stands the name of the master.\n  Write redis+sentinel://HOST:26379/NAME/0."
                )
        self.sentinel_access = {
            name: options.pop(f"sentinel_{name}") for name in ("username", "password") if is_watched and f"sentinel_{name}" in options
        }
        if scheme != "unix" and not re.fullmatch(r"(/\d*)?", path):
            raise UsageError("[online] url: behind the host stands a number: that of the database.\n  Write redis://HOST:PORT/0.")
        self.namespace = options.pop("namespace", "featreg")
        if not self.namespace or set("{}") & set(self.namespace):
            raise UsageError("[online] url: a namespace is a name without braces.")
        access, _, hosts = parts.netloc.rpartition("@")
        self.endpoints: list[dict[str, Any]] = []
        for host in hosts.split(","):
            one = f"{scheme}://{access}{'@' if access else ''}{host}{path}{'?' + urlencode(options) if options else ''}"
            try:
                pool = ConnectionPool.from_url(
                    one, protocol=2, driver_info=None, retry=Retry(NoBackoff(), 0), socket_read_size=READ_BYTES,
                    **{"socket_timeout": ANSWER_TIMEOUT, "socket_connect_timeout": CONNECT_TIMEOUT} | _seconds(options),
                )  # fmt: skip
                self.connection_class = pool.connection_class
                kept = {name: value for name, value in pool.connection_kwargs.items() if "maint" not in name and "orig_" not in name}
                self.connection_class(**kept)
            except (ValueError, TypeError, AttributeError, redis.RedisError):
                raise UsageError("[online] url: a host, port, database or option is not one.\n  Write redis://HOST:PORT/0.") from None
            self.endpoints.append(kept)
        self._shown = f"{parts.scheme}://{hosts}{parts.path} ({self.namespace})"

    def __str__(self) -> str:
        return self._shown

    __repr__ = __str__


class RedisServer:
    """The server that holds the store; any thread may call it, each has a connection of its own.

    patience: seconds for which a call tries again.
    """

    def __init__(self, url: RedisUrl, patience: float = PATIENCE):
        self.url, self.patience = url, patience
        self._longest = {"socket_timeout": patience / 2, "socket_connect_timeout": patience / 2}  # so that another server may still answer
        self.life: str | None = None  # the run id of the server last seen: another one may have lost what the last one confirmed
        self._mine = threading.local()
        self._all: weakref.WeakSet[Any] = weakref.WeakSet()
        self._moved: dict[str, Any] | None = None
        self._at = 0
        self._closed = False

    def call(self, work: Callable[[Any], _Result]) -> _Result:
        """Run `work(connection)`; again on another connection when the server is lost on the way.

        Raises: StoreUnavailable when no server answers for `patience` seconds; StoreError for what it refuses.
        """
        tries, began = None, time.monotonic()
        while True:
            try:
                return work(self._connection())
            except redis.RedisError as error:
                self._drop(error)
            except BaseException:  # half an answer may be left in it
                self._let_go()
                raise
            tries = tries or self._pauses(began)
            next(tries)

    def close(self) -> None:
        self._closed = True
        for connection in list(self._all):
            if connection.pid == os.getpid():
                connection.disconnect()

    # Waiting

    def _pauses(self, began: float) -> Iterator[None]:
        """Pause before each try but the first, ever longer; give up when patience, which is counted from `began` on, ends."""
        pause, told = SHORTEST_PAUSE, False
        while True:
            self._check_open()
            yield
            waited = time.monotonic() - began
            if waited >= self.patience:
                raise StoreUnavailable(
                    f"{self.url}: no Redis server that can be used answers ({self._shown_problem()}); tried for {waited:.1f} s.\n"
                    f"  See whether it runs. A read changed nothing; a write that is made again is done once."
                ) from None
            if not told and waited > 1:
                told = True
                _log.warning("waiting for %s (%s)", self.url, self._shown_problem())
            time.sleep(min(pause * random.uniform(0.5, 1), self.patience - waited))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _shown_problem(self) -> str:
        """The kind of the last problem; its text may name what it should not."""
        problem = getattr(self._mine, "problem", None)
        return {
            BusyLoadingError: "it is loading its data", ReadOnlyError: "it is a replica", redis.TimeoutError: "no answer in time",
            ClusterDownError: "the cluster is down", redis.ConnectionError: "no connection",
        }.get(type(problem), type(problem).__name__)  # type: ignore[arg-type]  # fmt: skip

    def _drop(self, problem: redis.RedisError) -> None:
        """Let go of this thread's connection, or raise what trying again cannot mend."""
        self._mine.problem = problem
        told = _CODE.search(str(problem))
        code = told[1] if told else None
        match problem:
            case MovedError():
                self._moved = {"host": problem.host, "port": int(problem.port)}
            case AuthenticationError() | AuthorizationError() | NoPermissionError():
                self._let_go()
                raise StoreError(
                    f"{self.url}: the server does not let us in, or not as far as a store needs.\n"
                    f"  See to the user and password of [online] url, and its rights: all keys of the namespace, @read, @write, @scripting."
                ) from None
            case redis.ConnectionError() if "CERTIFICATE_VERIFY_FAILED" in str(problem):
                self._let_go()
                raise StoreError(
                    f"{self.url}: the server's certificate is of no authority that is known here, or of another host.\n"
                    f"  Add ssl_ca_certs=FILE to [online] url: the certificate of its authority."
                ) from None
            case _ if isinstance(problem, _PASSING) or code in _PASSING_CODES:
                self._moved = None
                self._at += 1
            case _ if code == "OOM" or isinstance(problem, OutOfMemoryError):
                raise StoreError(
                    f"{self.url}: the server's memory is full; nothing of this write was stored, what was before is whole.\n"
                    f"  Give it more (maxmemory), or delete: featreg gc --delete. Then run the same command again."
                ) from None
            case _ if code == "MISCONF":
                raise StoreError(
                    f"{self.url}: the server refuses writes, for it cannot save them to its disk; nothing of this write was stored.\n"
                    f"  See to its disk, then run the same command again."
                ) from None
            case _:
                self._let_go()
                raise StoreError(f"{self.url}: the server answered: {problem}") from None
        self._let_go()

    def _let_go(self) -> None:
        connection, self._mine.connection = getattr(self._mine, "connection", None), None
        if connection is not None:
            connection.disconnect()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self.url}: the store is closed.\n  Open it with open_store.")

    # Connecting

    def _connection(self) -> Any:
        """This thread's connection to a server that can be used; a forked child makes its own."""
        self._check_open()
        connection = getattr(self._mine, "connection", None)
        if connection is not None and connection.pid == os.getpid():
            return connection
        return self._connect()

    def _connect(self) -> Any:
        kept = self.url.endpoints[self._at % len(self.url.endpoints)] | (self._moved or {})
        kept |= {name: min(most, kept.get(name) or most) for name, most in self._longest.items() if name in kept}
        if self.url.master is not None:
            kept |= self._master(kept)
        connection = self.url.connection_class(**kept)
        connection.connect()
        connection.send_command("INFO")
        told = dict(line.split(":", 1) for line in connection.read_response().decode().splitlines() if ":" in line)
        if told.get("loading") == "1":
            raise BusyLoadingError("loading")
        if told.get("role") != "master":
            raise ReadOnlyError("a replica")
        if told.get("maxmemory_policy", "").startswith("allkeys"):
            raise StoreError(
                f"{self.url}: the server's maxmemory-policy is {told['maxmemory_policy']}: it drops keys when memory is short, and a"
                f" dropped key would read as an empty window.\n  Set it to noeviction (or volatile-lru: featreg's data never expires)."
            )
        self.life = told.get("run_id")
        self._mine.connection = connection
        self._all.add(connection)
        return connection

    def _master(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Host and port of the master, by the Sentinel at an endpoint, which has a password of its own."""
        asked = {name: value for name, value in kept.items() if name not in ("username", "password", "db")} | self.url.sentinel_access
        sentinel = self.url.connection_class(**asked)
        try:
            sentinel.connect()
            sentinel.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.url.master)
            found = sentinel.read_response()
        finally:
            sentinel.disconnect()
        if found is None:
            raise StoreError(f"{self.url}: the Sentinel knows no master '{self.url.master}'.\n  See to the name in [online] url.")
        return {"host": found[0].decode(), "port": int(found[1])}


# The library's own way from a question to its answer asks on each what holds for all: 5 to 10 µs of a read of 60.


def exchange(connection: Any, question: bytes) -> Any:
    """Send a question as bytes and read its answer.  Raises: redis.RedisError."""
    parser = connection._parser
    try:
        _socket_of(connection).sendall(question)
        answer = parser.read_response(disable_decoding=True)
    except OSError as error:
        raise _lost(error) from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def exchange_many(connection: Any, question: bytes, reply: "Reply", counts: Sequence[int], take: Take) -> None:
    """As `exchange`, for an answer of many values, which `reply` hands over in parts.  What `take` raises is no OSError."""
    try:
        socket = _socket_of(connection)
        socket.sendall(question)
        told = reply.receive(socket, counts, take)
        if told is None:
            return
        if not told:
            raise redis.ConnectionError("closed by the server")
        connection._parser._reader.feed(told)  # an error, which the library reads
        raise connection._parser.read_response(disable_decoding=True)
    except OSError as error:
        raise _lost(error) from None


def _socket_of(connection: Any) -> Any:
    if connection._sock is None:
        raise redis.ConnectionError("closed here")
    return connection._sock


def _lost(error: OSError) -> redis.RedisError:
    return redis.TimeoutError("no answer") if isinstance(error, TimeoutError) else redis.ConnectionError("lost")


def _seconds(options: dict[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in options.items() if name in ("socket_timeout", "socket_connect_timeout")}
