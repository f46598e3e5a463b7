"""`featreg serve` in a process of its own, on a free loopback port."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from tests.redis_process import free_port

PROGRAM = "import sys; from featreg.cli import main; sys.exit(main())"
READER, PUSHER = "reader-token-0123456789", "pusher-token-0123456789"
EVERYTHING, EXPIRED = "everything-0123456789", "expired-token-0123456789"
TOKENS = f"""
[reader]
token = "{READER}"
read = ["model"]
[pusher]
token = "{PUSHER}"
push = ["orders"]
[everything]
token = "{EVERYTHING}"
read = ["*"]
push = ["*"]
metrics = true
[old]
token = "{EXPIRED}"
read = ["*"]
expires = 2020-01-01T00:00:00Z
"""


class ServiceProcess:
    """A service of the repository at `root`, once it is ready; its log is `log`."""

    def __init__(self, root: Path, *options: str, tokens: str = TOKENS):
        self.root, self.port, self.log_file = root, free_port(), root / f"serve-{time.time_ns()}.log"
        command = [sys.executable, "-c", PROGRAM, "-C", str(root), "serve", "--port", str(self.port), *options]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"FEATREG_TOKENS": tokens})
        until = time.monotonic() + 120
        while self.ask("GET", "/readyz")[0] != 200:
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(f"the service did not come up:\n{self.log}")
            time.sleep(0.05)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: bytes | Any = None, token: str | None = EVERYTHING, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body of an answer; 0 when there is nobody."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            text = answer.read()
        except ConnectionRefusedError:
            return 0, {}, None
        finally:
            connection.close()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, json.loads(text) if found.get("content-type") == "application/json" else text.decode()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.process.poll() is None:
            self.stop()
