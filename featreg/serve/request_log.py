"""Log requests as lines of JSON on stderr: who, what, how long and how it ended; never a key, a value or a token."""

import logging
import sys
import time
import traceback
from typing import Any

import orjson

from featreg.serve.wire import instant_text

_FLUSH = 0.2  # seconds for which lines are gathered
_MOST = 1 << 16  # bytes that are gathered


class RequestLog:
    """Lines of one worker.  everything: also requests that went well and fast."""

    def __init__(self, everything: bool, slow: float = 0.25):
        self.everything, self.slow = everything, slow
        self._lines: list[bytes] = []
        self._bytes, self._flushed = 0, time.monotonic()

    def request(self, status: int, seconds: float, facts: dict[str, Any]) -> None:
        if self.everything or status >= 400 or seconds > self.slow:
            self._add({"at": instant_text(time.time_ns() // 1000), "status": status, "ms": round(seconds * 1000, 3)} | facts)

    def mistake(self, error: BaseException, facts: dict[str, Any]) -> None:
        """An error of ours: its type and place.  Its text is left out, for a key may stand in it."""
        places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)[-8:]]
        self._add({"at": instant_text(time.time_ns() // 1000), "level": "error", "error": type(error).__name__, "places": places} | facts)

    def _add(self, document: dict[str, Any]) -> None:
        line = orjson.dumps(document) + b"\n"
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes > _MOST:
            self.flush(force=True)

    def flush(self, force: bool = False) -> None:
        moment = time.monotonic()
        if self._lines and (force or moment - self._flushed > _FLUSH):
            lines, self._lines, self._bytes, self._flushed = self._lines, [], 0, moment
            try:
                sys.stderr.buffer.write(b"".join(lines))
                sys.stderr.buffer.flush()
            except OSError:  # nobody reads: serving goes on
                pass


class JsonLines(logging.Formatter):
    """What libraries and featreg itself log, in the same form."""

    def format(self, record: logging.LogRecord) -> str:
        said = {"at": instant_text(int(record.created * 1e6)), "level": record.levelname.lower(), "logger": record.name}
        return orjson.dumps(said | {"message": record.getMessage()}).decode()


def log_as_json() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)
