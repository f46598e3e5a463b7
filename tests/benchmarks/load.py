"""Ask a service over many connections and say how long each answer took: a load generator of the standard library and uvloop.

Every connection sends its next request when the answer to the last has come.  A fixed number of connections and
seconds; only to this machine.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence

import uvloop

LONGEST = 600  # seconds


class Asker(asyncio.Protocol):
    """One connection.  taken: seconds of each answer.  failed: answers that were not 200."""

    def __init__(self, requests: Sequence[bytes], first: int, ends: float):
        self.requests, self.next, self.ends = requests, first, ends
        self.taken: list[float] = []
        self.failed = 0
        self.buffer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.ask()

    def ask(self) -> None:
        self.began = time.perf_counter()
        self.transport.write(self.requests[self.next % len(self.requests)])
        self.next += 7

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        at = head.index(b"content-length: ") + 16
        if len(body) < int(head[at : head.find(b"\r", at) if head.find(b"\r", at) > 0 else None]):
            return
        now = time.perf_counter()
        self.taken.append(now - self.began)
        self.failed += head[9:12] != b"200"
        self.buffer = b""
        if now < self.ends:
            self.ask()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def load(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> tuple[list[float], int]:
    loop = asyncio.get_running_loop()
    ends = time.perf_counter() + min(seconds, LONGEST)
    askers = []
    for number in range(connections):
        _, asker = await loop.create_connection(lambda number=number: Asker(requests, number, ends), "127.0.0.1", port)  # type: ignore[misc]
        askers.append(asker)
    await asyncio.wait_for(asyncio.gather(*(asker.done for asker in askers)), LONGEST + 30)
    return [one for asker in askers for one in asker.taken], sum(asker.failed for asker in askers)


if __name__ == "__main__":
    told = json.loads(sys.stdin.read())
    asked = [one.encode("latin-1") for one in told["requests"]]
    seconds, failed = uvloop.run(load(told["port"], asked, told["connections"], told["seconds"]))
    ordered = sorted(seconds)
    quantiles = {f"p{share}": 1000 * ordered[len(ordered) * share // 100] for share in (50, 99)}  # milliseconds
    print(json.dumps({"requests": len(ordered), "failed": failed} | quantiles))
