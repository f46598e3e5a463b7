"""Tables as Spark moves them from step to step: as bytes, or kept in files, and then as where they lie."""

import os
import socket
import uuid
from collections.abc import Callable

import pyarrow as pa

from featreg.errors import UsageError


def to_bytes(rows: pa.Table | pa.RecordBatch) -> bytes:
    """Rows as an Arrow stream: every type as it is, whatever Spark makes of it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write(rows)
    return sink.getvalue().to_pybytes()


class Kept:
    """Tables that a later step takes: in a file of their own below a folder that all machines see, and then Spark moves where they are.

    Without a folder it moves them as bytes.  What an attempt wrote that was given up is never asked for.
    """

    def __init__(self, folder: str | None):
        self.path = None if folder is None else os.path.join(folder, uuid.uuid4().hex)
        self._file: pa.NativeFile | None = None

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def put(self, rows: pa.Table | pa.RecordBatch) -> bytes:
        """What `from_bytes` reads as these rows, when this is closed."""
        if self.path is None:
            return to_bytes(rows)
        if self._file is None:
            self._file = _opened(self.path, lambda path: pa.OSFile(path, "wb"))
        self._file.write(bytes(-self._file.tell() % 8))  # values are read where they lie
        start = self._file.tell()
        with pa.ipc.new_stream(self._file, rows.schema) as writer:
            writer.write(rows)
        return f"@{start} {self._file.tell() - start} {self.path}".encode()


def from_bytes(value: pa.Scalar) -> pa.Table:
    """The table that was made to bytes, or kept."""
    buffer = value.as_buffer()
    if buffer[:1].to_pybytes() == b"@":
        start, length, path = buffer.to_pybytes()[1:].decode().split(" ", 2)
        file = _opened(path, pa.memory_map)
        file.seek(int(start))
        buffer = file.read_buffer(int(length))
    return pa.ipc.open_stream(buffer).read_all()


def _opened(path: str, opened: Callable[[str], pa.NativeFile]) -> pa.NativeFile:
    try:
        return opened(path)
    except FileNotFoundError:
        raise UsageError(
            f"{os.path.dirname(path)} is not seen on {socket.gethostname()} as it is by the driver.\n"
            "  Set [spark] scratch in conf to a folder that all machines mount, or to a URI of a file system that all of them reach."
        ) from None
