"""Take Redis's answer to an MGET where it was received, its values one behind another: no object a value, one copy of its bytes.

A client library copies each answer into its reader, then each value into an object; of a hundred keys of some KB
that is as long as the server takes to send them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from featreg.stores.contract import Take

FIRST_BYTES, MOST_KEPT = 1 << 19, 1 << 23  # of a buffer at first, and of one that is used again
WHOLE, MORE, OTHER = 1, 0, -1  # all is there; some is not yet; this is no list of values
AT, VALUE = 0, 1  # of a cursor: the next byte, the next value (-1: the list's own head)
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "boundscheck": False}
_CR, _LIST, _TEXT, _MINUS, _ZERO = 13, 42, 36, 45, 48


class Reply:
    """Room for one answer after the other; one thread's."""

    def __init__(self) -> None:
        self._room(FIRST_BYTES)
        self.cursor = np.zeros(2, np.int64)
        self.spans = np.empty((2, 0), np.int64)
        self.values = np.empty(FIRST_BYTES, np.uint8)  # of one part: what stands in it again and again costs no fresh pages

    def _room(self, size: int) -> None:
        self.buffer = bytearray(size)
        self.view, self.bytes = memoryview(self.buffer), np.frombuffer(self.buffer, np.uint8)

    def receive(self, socket: Any, counts: Sequence[int], take: Take) -> bytes | None:
        """Hand over the values of each part, so many of them, one behind another.

        A part is handed over when all of it has come, while the next is on its way.  Returns None when all have; what came, when it is
        no list of so many values: an error; nothing (b"") when the other side has closed.
        Raises: OSError of the socket.
        """
        count = sum(counts)
        if self.spans.shape[1] != count:
            self.spans = np.empty((2, count), np.int64)
        self.cursor[:] = 0, -1
        end = part = first = 0
        while True:
            if end == len(self.buffer):
                before = self.buffer
                self._room(2 * end)
                self.view[:end] = before
            received = socket.recv_into(self.view[end:])
            if received == 0:
                return b""
            end += received
            found = find_values(self.bytes, end, self.cursor, self.spans)
            if found == OTHER:
                return bytes(self.view[:end])
            while part < len(counts) and first + counts[part] <= self.cursor[VALUE]:
                spans = self.spans[:, first : first + counts[part]]
                starts = np.zeros(counts[part] + 1, np.int64)
                np.cumsum(spans[1], out=starts[1:])
                size = int(starts[-1])
                if size > len(self.values):
                    self.values = np.empty(2 * size, np.uint8)
                bring_together(self.bytes, spans, self.values)
                take(part, self.values.data[:size], starts)
                part, first = part + 1, first + counts[part]
            if found == WHOLE:
                break
        if len(self.buffer) > MOST_KEPT:
            self._room(FIRST_BYTES)
            self.values = np.empty(FIRST_BYTES, np.uint8)
        return None


@njit("int64(uint8[::1], int64, int64[::1], int64[:, ::1])", **_OPTIONS)
def find_values(data, end, cursor, spans):  # type: ignore[no-untyped-def]
    """Find the values of `*n\\r\\n` and n times `$length\\r\\nvalue\\r\\n` or `$-1\\r\\n`; goes on where the last call wanted more bytes.

    data[:end]: what has come · spans [2, n]: where each value begins, and its length.  A step a value, whatever its length.
    """
    while cursor[VALUE] < spans.shape[1]:
        at = cursor[AT]
        if at >= end:
            return MORE
        if data[at] != (_LIST if cursor[VALUE] < 0 else _TEXT):
            return OTHER
        at += 1
        number, is_none = 0, False
        while at < end and data[at] != _CR:
            if data[at] == _MINUS:
                is_none = True
            else:
                number = number * 10 + np.int64(data[at]) - _ZERO
            at += 1
        if at + 2 > end:
            return MORE
        at += 2
        if cursor[VALUE] < 0:
            if number != spans.shape[1] or is_none:
                return OTHER
        else:
            if is_none:
                number = 0
            elif at + number + 2 > end:
                return MORE
            spans[0, cursor[VALUE]], spans[1, cursor[VALUE]] = at, number
            if not is_none:
                at += number + 2
        cursor[AT] = at
        cursor[VALUE] += 1
    return WHOLE


@intrinsic
def _copy(typingctx, to, to_at, data, at, length):  # type: ignore[no-untyped-def]
    """memcpy between two arrays of bytes; a loop over bytes takes six times as long."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        target, source = (context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 2))
        to_at, at, length = arguments[1], arguments[3], arguments[4]
        cgutils.raw_memcpy(builder, builder.gep(target, [to_at]), builder.gep(source, [at]), length, 1)
        return context.get_dummy_value()

    return types.void(to, types.int64, data, types.int64, types.int64), generate


@njit("void(uint8[::1], int64[:, :], uint8[::1])", **_OPTIONS)
def bring_together(data, spans, values):  # type: ignore[no-untyped-def]
    """Copy the values that `find_values` found one behind another."""
    to = 0
    for i in range(spans.shape[1]):
        _copy(values, to, data, spans[0, i], spans[1, i])
        to += spans[1, i]
