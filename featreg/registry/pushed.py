"""What a push log holds: records of rows, each at its position."""

from dataclasses import dataclass, field

import pyarrow as pa


@dataclass(frozen=True, order=True)
class Position:
    """A place in a log: the rows before it are those of earlier segments, and of this one up to byte `end`."""

    segment: str = ""
    end: int = 0


START = Position()


@dataclass(frozen=True)
class Pushed:
    """A record.  at: when it was accepted · first, last: the visible instants its rows lie between (UTC microseconds).

    id, digest: what the push was called, and SHA-256 of its rows; empty without an id.
    part: a push of many rows is several records; (number of this one, of how many).
    """

    rows: pa.Table
    at: int
    first: int
    last: int
    id: str = ""
    digest: str = ""
    part: tuple[int, int] = (0, 1)
    position: Position = field(default=START, compare=False)
