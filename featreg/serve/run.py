"""Run the service: one worker here, or several processes on one socket, until SIGTERM; then what was begun is finished."""

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from featreg.serve.app import Service
from featreg.serve.desk import Desk
from featreg.serve.listen import bound
from featreg.serve.request_log import log_as_json
from featreg.serve.settings import ServeSettings, as_document
from featreg.serve.tokens import Tokens
from featreg.session.profile import Profile, read_profile

VARIABLE = "FEATREG_SERVE"  # how a worker process is told what to serve; tokens are never in it
MOST_HEAD = 32_768  # bytes of a request's line and headers
IDLE = 30  # seconds for which a connection without a request is kept
_CLOSING = b"content-type: text/plain\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with an end to a head that never ends, and to a client that does not read its answer."""

    head_seconds = 5.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_bytes, self._in_head, self._refused = 0, True, False
        self._head_timer = self.loop.call_later(IDLE, self._give_up, b"")

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD:
                self._refused = True
                self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\n" + _CLOSING)
                self._head_timer.cancel()
                self._head_timer = self.loop.call_later(1, self._give_up, b"")  # who still sends would not read why it is refused

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes, self._in_head = 0, True
        self._head_timer.cancel()
        self._head_timer = self.loop.call_later(self.head_seconds, self._give_up, b"HTTP/1.1 408 Request Timeout\r\n")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_timer.cancel()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer.cancel()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        if not self.transport.is_closing() and self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def _give_up(self, line: bytes) -> None:
        if not self.transport.is_closing():
            if line:
                self.transport.write(line + _CLOSING)
            self.transport.close()


def run(root: Path, profile_name: str, settings: ServeSettings, announce: Callable[[int], None], warn: Callable[[str], None]) -> None:
    """Serve until told to stop.

    announce: called with the port when it is taken and all was found to be as it should, before anything listens.
    warn: called with what may be meant otherwise.
    Raises: FeatregError before anything listens when tokens, definitions, the port or the store are not as they should be.
    """
    profile = _profile(root, profile_name, settings)
    tokens = None if settings.open else Tokens(Path(settings.tokens) if settings.tokens else None)
    with bound(settings.host, settings.port) as sockets:
        desk = Desk(root, profile, settings)
        desk.check()
        if tokens is not None:
            applied = desk.compiled()
            for problem in tokens.unknown_names(applied.sets, applied.sources):
                warn(problem)
        if settings.workers > 1:
            desk.warm()  # kernels are compiled once, and found by the workers
        desk.close()
        metrics = tempfile.mkdtemp(prefix="featreg-metrics-")
        told = {"root": str(root), "profile": profile_name, "settings": as_document(settings), "metrics": metrics}
        os.environ[VARIABLE] = json.dumps(told)
        announce(sockets[0].getsockname()[1])
        try:
            _serve(settings, sockets)
        finally:
            shutil.rmtree(metrics, ignore_errors=True)


def _serve(settings: ServeSettings, sockets: list[socket.socket]) -> None:
    config = uvicorn.Config(
        "featreg.serve.run:from_environment", factory=True, workers=settings.workers,
        http=Protocol, ws="none", loop="uvloop", lifespan="on", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, limit_concurrency=settings.connections, backlog=4096, timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=int(settings.drain), timeout_worker_healthcheck=120,
    )  # fmt: skip
    # With one worker uvicorn raises SIGTERM again when all is finished: that is no death by a signal.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with suppress(KeyboardInterrupt):
        if settings.workers > 1:
            Multiprocess(config, sockets).run()
        else:
            uvicorn.Server(config).run(sockets)


def from_environment() -> Service:
    """The application of a worker process."""
    told = json.loads(os.environ[VARIABLE])
    log_as_json()
    settings = ServeSettings(**told["settings"])
    root = Path(told["root"])
    Protocol.head_seconds = settings.deadline
    return Service(root, _profile(root, told["profile"], settings), settings, Path(told["metrics"]))


def _profile(root: Path, name: str, settings: ServeSettings) -> Profile:
    """The profile; a store that is a server is waited for a little less than a request is, whose answer then says so."""
    return replace(read_profile(root, name), patience=0.8 * settings.deadline)
