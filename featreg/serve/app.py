"""Speak HTTP: an ASGI application of six routes, without a framework between a request and its set's own types.

A short read is answered where it arrives, on the loop.  What may wait (a push, a large read, a store that is a server
and does not answer within 50 ms) goes to threads, of which each has a registry; when all have more than they can do, a
request is told to come again, and at its deadline it is answered 504, whatever the store does.
"""

import asyncio
import gc
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs

import orjson

from featreg.errors import DataError, FeatregError, LeaseHeldError, RefusedError, StoreError, StoreUnavailable, UsageError
from featreg.serve.desk import Desk, NotFound, Told, TooMany, push_request
from featreg.serve.metrics import Metrics
from featreg.serve.openapi import describe
from featreg.serve.request_log import RequestLog
from featreg.serve.settings import ServeSettings
from featreg.serve.tokens import ANYONE, Holder, Tokens
from featreg.session.profile import Profile

JSON, ARROW, PLAIN = b"application/json", b"application/vnd.apache.arrow.stream", b"text/plain; version=0.0.4; charset=utf-8"
SHORT_READ = 16  # keys that are read on the loop: under a millisecond
TOGETHER = 16  # requests that go to a store that is a server at once
QUICK, SLOW = 0.05, 1.0  # seconds for which the loop waits for a store that is a server, and does not ask it again when it was slower
DISCARDED = 64_000_000  # bytes of a body that is too large that are read before it is refused
WAITING = 64  # tasks for each thread, from which on requests are told to come again
_PATHS = "there is no such path.\n  There are /v1/features/SET, /v1/push/SOURCE, /openapi.json, /healthz, /readyz, /metrics."
_NO_JSON = 'NaN and infinity are the texts "NaN", "Infinity" and "-Infinity".'
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_Result = TypeVar("_Result")


class HttpError(Exception):
    """An answer that is an error: status, what is told, and headers."""

    def __init__(self, status: int, kind: str, message: str, *headers: tuple[bytes, bytes]):
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, headers


@dataclass(slots=True)
class Request:
    """One request on its way.  facts: what the log and the metrics are told; names, numbers and no values."""

    scope: dict[str, Any]
    receive: Callable[[], Any]
    headers: dict[bytes, bytes]
    ends: float
    facts: dict[str, Any] = field(default_factory=dict)
    disconnected: bool = False


@dataclass(slots=True)
class Answer:
    status: int
    body: bytes
    kind: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Threads:
    """A few threads with a desk each."""

    def __init__(self, make: Callable[[], Desk], count: int, name: str):
        self._make, self._mine, self._desks = make, threading.local(), list[Desk]()
        self._pool = ThreadPoolExecutor(count, name)
        self._most, self.waiting = WAITING * count, 0

    async def run(self, work: Callable[[Desk], _Result]) -> _Result:
        """Raises: HttpError 503 when there is too much to do."""
        if self.waiting >= self._most:
            raise HttpError(503, "busy", "the service has more to do than it can; ask again.", (b"retry-after", b"1"))
        self.waiting += 1
        loop = asyncio.get_running_loop()
        task = loop.run_in_executor(self._pool, self._on_thread, work)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: "asyncio.Future[Any]") -> None:
        self.waiting -= 1
        if not task.cancelled():
            task.exception()  # seen, also when its request has been answered already

    def _on_thread(self, work: Callable[[Desk], _Result]) -> _Result:
        desk = getattr(self._mine, "desk", None)
        if desk is None:
            desk = self._mine.desk = self._make()
            self._desks.append(desk)
        return work(desk)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for desk in self._desks:
            desk.close()


class Service:
    """The ASGI application of one worker."""

    def __init__(self, root: Path, profile: Profile, settings: ServeSettings, metrics_folder: Path):
        self.root, self.profile, self.settings = root, profile, settings
        self.tokens = None if settings.open else Tokens(Path(settings.tokens) if settings.tokens else None)
        self.metrics = Metrics(metrics_folder)
        self.log = RequestLog(settings.log == "all")
        self.is_local = profile.store == "lmdb"
        self.desk: Desk | None = None
        self._slow_until = 0.0
        self._arrived: list[tuple[str, Any, asyncio.Future[Told | None]]] = []
        self._described: tuple[int, dict[Holder, bytes]] = (-1, {})
        self._prefix, self._number = os.urandom(5).hex(), 0

    # The life of a worker

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        await receive()
        try:
            self.start()
        except Exception as error:
            self.log.mistake(error, {"what": "start"})
            self.log.flush(force=True)
            await send(
                {"type": "lifespan.startup.failed", "message": str(error) if isinstance(error, FeatregError) else type(error).__name__}
            )
            return
        ticking = asyncio.create_task(self._tick())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        ticking.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self.stop)
        await send({"type": "lifespan.shutdown.complete"})

    def start(self) -> None:
        warm = self._open()
        warm.warm()
        if self.is_local:
            self.desk = warm
        else:
            warm.close()
            self.desk = Desk(self.root, replace(self.profile, patience=QUICK), self.settings)
        self.reads = Threads(self._open, self.settings.threads, "read")
        self.pushes = Threads(self._open, 1, "push")
        gc.collect()
        gc.freeze()  # what is here stays: to look through it for garbage holds up every request for 80 ms, now and then

    def _open(self) -> Desk:
        return Desk(self.root, self.profile, self.settings)

    def stop(self) -> None:
        self.reads.close()
        self.pushes.close()
        self.metrics.flush(force=True)
        self.log.flush(force=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            self.log.flush()
            self.metrics.flush()

    # The life of a request

    async def _serve(self, scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        began = time.perf_counter()
        headers = dict(scope["headers"])
        request = Request(scope, receive, headers, asyncio.get_running_loop().time() + self.settings.deadline)
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            name = given
        else:
            self._number += 1
            name = f"{self._prefix}-{self._number}".encode()
        request.facts["request"] = name.decode()
        self.metrics.now += 1
        try:
            answer = await self._answer(request)
        finally:
            self.metrics.now -= 1
        if not request.disconnected:
            sent = [(b"content-type", answer.kind), (b"content-length", b"%d" % len(answer.body)), (b"x-request-id", name), *answer.headers]
            if answer.status in (408, 413):  # what is left of the body is not read
                sent.append((b"connection", b"close"))
            await send({"type": "http.response.start", "status": answer.status, "headers": sent})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})
        seconds = time.perf_counter() - began
        route = request.facts.get("route", "none")
        self.metrics.observe((("route", route),), seconds)
        labels = (("route", route), ("name", request.facts.get("name", "")), ("status", str(answer.status)))
        self.metrics.add("featreg_requests_total", labels)
        self.log.request(answer.status, seconds, request.facts)

    async def _answer(self, request: Request) -> Answer:
        try:
            return await self._route(request)
        except HttpError as error:
            return _told(request, error.status, error.kind, error.message, *error.headers)
        except TimeoutError:
            again = "it may still be done: send it again with an id" if request.facts.get("route") == "push" else "ask again"
            return _told(request, 504, "deadline", f"the answer did not come within {self.settings.deadline:g} s; {again}.")
        except FeatregError as error:
            return _told(request, *_status_of(error), str(error), *((b"retry-after", b"1"),) * isinstance(error, StoreError))
        except Exception as error:
            self.log.mistake(error, request.facts)
            return _told(request, 500, "mistake", "a mistake of featreg's; its log has it under this request.")

    async def _route(self, request: Request) -> Answer:
        match request.scope["path"].split("/"):
            case ["", "v1", "features", name] if _NAME.fullmatch(name):
                _only(request, "features", "POST")
                return await self._read(request, name)
            case ["", "v1", "push", name] if _NAME.fullmatch(name):
                _only(request, "push", "POST")
                return await self._push(request, name)
            case ["", "healthz"]:
                _only(request, "healthz", "GET", "HEAD")
                return Answer(200, b'{"status":"ok"}')
            case ["", "readyz"]:
                _only(request, "readyz", "GET", "HEAD")
                return await self._ready(request)
            case ["", "metrics"]:
                _only(request, "metrics", "GET", "HEAD")
                if not self._holder(request).metrics:
                    raise HttpError(403, "scope", "this token may not read metrics.\n  Give it metrics = true.")
                return Answer(200, self.metrics.text().encode(), PLAIN)
            case ["", "openapi.json"]:
                _only(request, "openapi", "GET", "HEAD")
                return self._describe(self._holder(request))
        raise HttpError(404, "route", _PATHS)

    async def _read(self, request: Request, name: str) -> Answer:
        holder = self._holder(request)
        if not holder.may_read(name):
            raise HttpError(403, "scope", f"this token may not read '{name}'.")
        request.facts["name"] = name
        if _kind(request) != JSON:
            raise HttpError(415, "type", f"a read is JSON.\n  Send Content-Type: {JSON.decode()}.")
        asked = _json(await self._body(request))
        keys = asked.get("keys") if isinstance(asked, dict) else None
        request.facts["keys"] = len(keys) if isinstance(keys, list) else 1
        assert self.desk is not None
        found = await self._read_at_once(name, asked) if request.facts["keys"] <= SHORT_READ else None
        if found is None:
            async with asyncio.timeout_at(request.ends):
                found = await self.reads.run(lambda desk: desk.read(name, asked))
        body, statuses = found
        for status, count in statuses.items():
            self.metrics.add("featreg_vectors_total", (("set", name), ("status", status)), count)
        return Answer(200, body)

    async def _read_at_once(self, name: str, asked: Any) -> Told | None:
        """A short read, here; None while a store that is a server is not as quick as it should be: then threads wait for it.

        Reads from such a store that have arrived together go there together: one way there and back for all of them.
        """
        assert self.desk is not None
        if self.is_local:
            return self.desk.read(name, asked)
        if time.monotonic() < self._slow_until:
            return None
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Told | None] = loop.create_future()
        self._arrived.append((name, asked, answered))
        if len(self._arrived) == 1:
            loop.call_soon(self._read_together)  # when all that has arrived has come as far as this
        return await answered

    def _read_together(self) -> None:
        assert self.desk is not None
        arrived, self._arrived = self._arrived[:TOGETHER], self._arrived[TOGETHER:]
        if self._arrived:
            asyncio.get_running_loop().call_soon(self._read_together)
        try:
            found = self.desk.read_together([(name, asked) for name, asked, _ in arrived])
        except Exception as error:
            found = [error] * len(arrived)
        for (_, _, answered), one in zip(arrived, found):
            if isinstance(one, StoreUnavailable):
                self._slow_until = time.monotonic() + SLOW
            if answered.cancelled():
                continue
            if isinstance(one, Exception) and not isinstance(one, StoreUnavailable):
                answered.set_exception(one)
            else:
                answered.set_result(None if isinstance(one, Exception) else one)

    async def _push(self, request: Request, name: str) -> Answer:
        holder = self._holder(request)
        if not holder.may_push(name):
            raise HttpError(403, "scope", f"this token may not push to '{name}'.")
        request.facts["name"] = name
        kind = _kind(request)
        if kind not in (JSON, ARROW):
            raise HttpError(415, "type", f"a push is JSON or an Arrow stream.\n  Send Content-Type: {JSON.decode()} or {ARROW.decode()}.")
        body = await self._body(request)
        if kind == JSON:
            rows, push_id = push_request(_json(body))
        else:
            rows, push_id = _arrow(body), _query_id(request)
        request.facts["rows"] = len(rows)
        async with asyncio.timeout_at(request.ends):
            answer, accepted, rejected, duplicate = await self.pushes.run(lambda desk: desk.push(name, rows, push_id))
        if not duplicate:
            for fate, count in (("accepted", accepted), ("rejected", rejected)):
                self.metrics.add("featreg_rows_pushed_total", (("source", name), ("fate", fate)), count)
        return Answer(200, answer)

    async def _ready(self, request: Request) -> Answer:
        try:
            async with asyncio.timeout_at(request.ends):
                await self.reads.run(Desk.check)
        except (FeatregError, HttpError, TimeoutError) as error:
            reason = type(error).__name__ if not isinstance(error, FeatregError) else str(error).splitlines()[0]
            return Answer(503, orjson.dumps({"status": "not ready", "reason": reason}))
        problem = self.tokens.problem if self.tokens else ""
        return Answer(200, orjson.dumps({"status": "ready"} | ({"warning": problem.splitlines()[0]} if problem else {})))

    def _describe(self, holder: Holder) -> Answer:
        assert self.desk is not None
        applied = self.desk.registry.applied()
        if applied.generation != self._described[0]:
            self._described = (applied.generation, {})
        known = self._described[1]
        if holder not in known:
            known[holder] = orjson.dumps(describe(applied.compiled, holder))
        return Answer(200, known[holder])

    def _holder(self, request: Request) -> Holder:
        """Who asks.  Raises: HttpError 401, the same for no token, an unknown one and an expired one."""
        if self.tokens is None:
            return ANYONE
        holder = self.tokens.holder(request.headers.get(b"authorization"))
        if holder is None:
            raise HttpError(
                401, "token", "no token, or one that is not known or has expired.\n  Send Authorization: Bearer TOKEN.",
                (b"www-authenticate", b'Bearer realm="featreg"'),
            )  # fmt: skip
        request.facts["token"] = holder.name
        return holder

    async def _body(self, request: Request) -> bytes:
        """The whole body.  Raises: HttpError 413 when it is too large, 408 when it does not come in time."""
        most, length = self.settings.max_body, request.headers.get(b"content-length", b"0")
        is_large = length.isdigit() and int(length) > most
        if request.headers.get(b"content-encoding", b"identity") != b"identity":
            raise HttpError(415, "type", "a body is sent as it is, not compressed.")
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout_at(request.ends):
                while True:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        request.disconnected = True
                        raise HttpError(400, "gone", "the client left.")
                    part = message.get("body", b"")
                    size += len(part)
                    if is_large or size > most:  # thrown away: a client that still sends would not read why it is refused
                        is_large, parts = True, []
                    else:
                        parts.append(part)
                    if not message.get("more_body") or size > most + DISCARDED:
                        break
        except TimeoutError:
            if not is_large:
                raise HttpError(408, "slow", f"the body did not come within {self.settings.deadline:g} s.") from None
        if is_large:
            raise HttpError(413, "size", f"a body has at most {most:,} bytes; this one has more.")
        request.facts["bytes"] = size
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _status_of(error: FeatregError) -> tuple[int, str]:
    match error:
        case NotFound():
            return 404, "unknown"
        case TooMany():
            return 413, "size"
        case UsageError():
            return 400, "usage"
        case DataError():
            return 422, "data"
        case RefusedError():
            return 409, "refused"
        case StoreUnavailable() | LeaseHeldError():
            return 503, "unavailable"
        case StoreError():
            return 503, "store"
    return 500, "mistake"


def _told(request: Request, status: int, kind: str, message: str, *headers: tuple[bytes, bytes]) -> Answer:
    request.facts["error"] = kind
    body = {"error": {"kind": kind, "message": message, "request": request.facts["request"]}}
    return Answer(status, orjson.dumps(body), headers=headers)


def _only(request: Request, route: str, *methods: str) -> None:
    request.facts["route"] = route
    if request.scope["method"] not in methods:
        allowed = ", ".join(methods)
        raise HttpError(405, "method", f"this path takes {allowed}.", (b"allow", allowed.encode()))


def _kind(request: Request) -> bytes:
    return request.headers.get(b"content-type", JSON).partition(b";")[0].strip().lower()


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise HttpError(400, "json", f"the body is no JSON: {_place(error)}.\n  {_NO_JSON}") from None


def _place(error: orjson.JSONDecodeError) -> str:
    """What is wrong and where, without what stands there."""
    return f"{error.msg.partition(':')[0]} (line {error.lineno}, column {error.colno})"


def _arrow(body: bytes) -> Any:
    import pyarrow as pa

    try:
        with pa.ipc.open_stream(body) as stream:
            table = stream.read_all()
        table.validate()
        return table
    except (pa.ArrowException, ValueError, OSError):
        raise HttpError(400, "arrow", "the body is no stream of Arrow record batches.") from None


def _query_id(request: Request) -> str | None:
    try:
        return parse_qs(request.scope["query_string"].decode(), max_num_fields=8).get("id", [None])[-1]
    except (UnicodeDecodeError, ValueError):
        raise HttpError(400, "usage", "the query is no UTF-8.") from None
