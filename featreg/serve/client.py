"""Call the service as one calls the library: the same verbs, the same bits, the same errors."""

import http.client
import json
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, overload
from urllib.parse import quote, urlsplit

from featreg.errors import DataError, FeatregError, RefusedError, StoreError, StoreUnavailable, UsageError
from featreg.instants import format_instant, parse_instant
from featreg.serve.wire import Convert, instant_of, plain, read_type, reader
from featreg.session.answer import STATUSES, Vector, Vectors
from featreg.vocabulary import DataType

if TYPE_CHECKING:
    import pyarrow as pa

    from featreg.session.push import PushReceipt

_ERRORS: dict[str, type[FeatregError]] = {
    "usage": UsageError, "json": UsageError, "type": UsageError, "size": UsageError, "unknown": UsageError, "route": UsageError,
    "data": DataError, "arrow": DataError, "refused": RefusedError, "token": RefusedError, "scope": RefusedError,
    "store": StoreError, "unavailable": StoreUnavailable, "busy": StoreUnavailable, "deadline": StoreUnavailable, "slow": StoreUnavailable,
}  # fmt: skip
Moment = str | int | datetime
_ONCE_MORE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, http.client.CannotSendRequest)


class Client:
    """A service at `url`, as in "http://127.0.0.1:8080".  Any thread may call it; each keeps a connection.

    timeout: seconds for one answer.  retries: how often a call that found the service busy or gone is made again.
    """

    def __init__(self, url: str, token: str = "", *, timeout: float = 10.0, retries: int = 2):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise UsageError("a service's url is http://HOST:PORT or https://HOST:PORT.")
        self._make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self.timeout, self.retries = timeout, retries
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._shown = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
        self._mine = threading.local()
        self._types: dict[tuple[str, str | None], tuple[str, tuple[tuple[str, Convert], ...], dict[str, DataType]]] = {}

    def __repr__(self) -> str:
        return f"Client({self._shown})"

    @overload
    def online(self, name: str, keys: Mapping[str, Any], *, at: Moment | None = None, pin: str | None = None) -> Vector: ...
    @overload
    def online(self, name: str, keys: Sequence[Mapping[str, Any]], *, at: Moment | None = None, pin: str | None = None) -> Vectors: ...
    def online(
        self,
        name: str,
        keys: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        at: Moment | None = None,
        pin: str | None = None,
    ) -> Vector | Vectors:
        """As `Registry.online`: one vector for one key, a sequence of them for many."""
        rows: Any = _plain_row(keys) if isinstance(keys, Mapping) else [_plain_row(row) for row in keys]
        asked = {"keys": rows, "types": self._types[name, pin][0] if (name, pin) in self._types else ""}
        if at is not None:
            asked["at"] = format_instant(parse_instant(at))
        if pin is not None:
            asked["pin"] = pin
        found = self._call("POST", f"/v1/features/{quote(name)}", json.dumps(asked).encode(), "application/json")
        if "types" in found:
            types = found["types"]
            kinds = {column: read_type(kind) for column, kind in types["features"].items()}
            reads = ((column, reader(kind)) for column, kind in kinds.items())
            self._types[name, pin] = types["id"], tuple((column, read) for column, read in reads if read is not None), kinds
        _, reads_now, kinds = self._types[name, pin]
        if isinstance(keys, Mapping):
            return _vector(found, reads_now)
        return _Received([_vector(one, reads_now) for one in found["vectors"]], kinds)

    def push(self, source: str, rows: Any, id: str | None = None) -> "PushReceipt":
        """As `Registry.push`.  A push without an id gets one here, so that a call made again takes nothing in twice."""
        from featreg.session.contract import Rejected
        from featreg.session.push import PushReceipt

        name = id if id is not None else f"client-{uuid.uuid4().hex}"
        if isinstance(rows, Mapping):
            rows = [rows]
        if isinstance(rows, (list, tuple)):
            body, kind = json.dumps({"rows": [_plain_row(row) for row in rows], "id": name}).encode(), "application/json"
            path = f"/v1/push/{quote(source)}"
        else:
            body, kind = _arrow_bytes(rows), "application/vnd.apache.arrow.stream"
            path = f"/v1/push/{quote(source)}?id={quote(name, safe='')}"
        found = self._call("POST", path, body, kind)
        rejected = tuple(Rejected(one["row"], one["reason"], _row_at(rows, one["row"])) for one in found["rejected"])
        return PushReceipt(found["source"], id, found["accepted"], rejected, found["duplicate"], instant_of(found["watermark"]))

    def is_ready(self) -> bool:
        try:
            self._call("GET", "/readyz", None, "")
        except StoreUnavailable:
            return False
        return True

    def close(self) -> None:
        """Let go of this thread's connection."""
        connection = getattr(self._mine, "connection", None)
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: str, path: str, body: bytes | None, kind: str) -> Any:
        for attempt in range(self.retries + 1):
            try:
                return self._call_once(method, path, body, kind)
            except StoreUnavailable:
                if attempt == self.retries:
                    raise
                time.sleep(0.1 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _call_once(self, method: str, path: str, body: bytes | None, kind: str) -> Any:
        headers = self._headers | ({"Content-Type": kind} if kind else {})
        for is_kept in (True, False):  # a kept connection may have been closed by the other side
            connection = getattr(self._mine, "connection", None)
            if connection is None or not is_kept:
                connection = self._mine.connection = self._make(self._host, self._port, timeout=self.timeout)
            try:
                connection.request(method, self._path + path, body, headers)
                answer = connection.getresponse()
                text = answer.read()
                break
            except _ONCE_MORE as error:
                connection.close()
                if not is_kept:
                    raise StoreUnavailable(f"{self._shown}: the service closed the connection ({type(error).__name__}).") from None
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                raise StoreUnavailable(f"{self._shown}: the service does not answer ({type(error).__name__}).") from None
            except BaseException:  # half an answer may be left in it
                connection.close()
                raise
        try:
            found = json.loads(text)
        except ValueError:
            found = {}
        if answer.status == 200:
            return found
        told = found.get("error", {}) if isinstance(found, dict) else {}
        kinds = _ERRORS.get(told.get("kind", ""), StoreUnavailable if answer.status in (502, 503, 504) else FeatregError)
        raise kinds(told.get("message") or f"{self._shown}: the service answered {answer.status}.")


class _Received(Vectors):
    """Vectors that came one by one; columns are made of them."""

    def __init__(self, vectors: list[Vector], types: Mapping[str, DataType]):
        self._received, self._types = vectors, types

    def __len__(self) -> int:
        return len(self._received)

    def _make(self) -> list[Vector]:
        return self._received

    def _some(self, rows: slice) -> Vectors:
        return _Received(self._received[rows], self._types)

    def to_arrow(self) -> "pa.Table":
        import pyarrow as pa

        from featreg.sweep.words import arrow_type

        return pa.table({name: pa.array([one.values[name] for one in self], arrow_type(kind)) for name, kind in self._types.items()})

    def status_to_arrow(self) -> "pa.Table":
        import pyarrow as pa

        codes = ([STATUSES.index(one.status[name]) for one in self] for name in self._types)
        columns = [pa.DictionaryArray.from_arrays(pa.array(column, pa.int8()), pa.array(STATUSES)) for column in codes]
        return pa.table(columns, list(self._types))


def _plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in row.items()}


def _vector(found: dict[str, Any], reads: tuple[tuple[str, Convert], ...]) -> Vector:
    values = found["values"]
    for name, read in reads:
        value = values[name]
        if value is not None:
            values[name] = read(value)
    instants = ({view: instant_of(at) for view, at in found[what].items()} for what in ("cutoff", "watermark"))
    return Vector(values, found["status"], *instants)


def _arrow_bytes(rows: Any) -> bytes:
    import pyarrow as pa

    if isinstance(rows, pa.RecordBatch):
        table = pa.Table.from_batches([rows])
    elif isinstance(rows, pa.Table):
        table = rows
    elif type(rows).__module__.split(".")[0] == "pandas":
        table = pa.Table.from_pandas(rows, preserve_index=False)
    elif hasattr(rows, "__arrow_c_stream__"):
        table = pa.table(rows)
    else:
        raise UsageError(f"push takes an Arrow table, a pandas or Polars frame, or dicts, and not a {type(rows).__name__}.")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _row_at(rows: Any, number: int) -> Mapping[str, Any]:
    """A row of what was pushed, for a receipt; a frame's rows are known by their number."""
    return rows[number] if isinstance(rows, (list, tuple)) else {"row": number}
