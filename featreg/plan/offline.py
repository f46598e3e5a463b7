"""Plan a backfill: the SQL of each bucket of keys, nothing runs.

Of each bucket the events and the spine rows are scanned as they stand; the sweep brings
them together.  Where rows are few, or more than was planned for, the same rows come
sorted by the engine, in one stream: key parts, t (cutoff or visible instant), r (spine row; -1 an
event, -2 a rejected one), e (event time where it is not t), inputs.  At one instant the
spine comes first, so that an event at the cutoff is the future.
"""

from dataclasses import dataclass

from featreg.compile.compiled import CompiledView
from featreg.compile.program import SweepProgram
from featreg.plan.relation import Relation
from featreg.plan.scan_sql import ScanText, scan_text
from featreg.vocabulary import DataType

BUCKET_BYTES = 600_000_000  # of rows held at once; another bucket is another scan
LEAST_ROOM = 100_000  # events, where a plan knows of fewer
SMALL_ROWS = 1_000_000  # below, the engine sorts: as fast, and a first run compiles half as many kernels
TEXT_BYTES = 24  # a text, and its word, for the plan: what texts really take is seen when they come


@dataclass(frozen=True)
class Bucket:
    """SQL for some of the keys: the events, the spine rows, and both in one stream that the engine sorts."""

    events: str
    spine: str
    sorted: str


@dataclass(frozen=True)
class OfflinePlan:
    """bucket_rows: about how many events and spine rows a bucket has; room: for how many events, before the engine sorts instead.

    Without room the engine sorts from the start.
    """

    program: SweepProgram
    key_types: tuple[DataType, ...]
    event_is_visible: bool
    buckets: tuple[Bucket, ...]
    bucket_rows: int
    room: int
    scan: ScanText

    @property
    def queries(self) -> tuple[str, ...]:
        """The SQL that a run begins with, bucket by bucket."""
        return tuple(bucket.events if self.room else bucket.sorted for bucket in self.buckets)


def plan_backfill(
    view: CompiledView, program: SweepProgram, relation: Relation, spine: str, first: int, last: int, rows: int, known_at: int | None
) -> OfflinePlan:
    """Plan to fill a spine whose cutoffs go from `first` to `last`.

    spine: name of a registered table with columns k0.., t, r · rows: about how many events and spine rows there are.
    """
    earliest = None if program.longest is None else first - program.longest
    before = last if known_at is None else min(last, known_at)
    scan = scan_text(view, program, relation, earliest, before)
    key_types = tuple(kind for _, kind in view.scan.keys)
    instants = 1 if scan.event_is_visible else 2
    texts = sum(item.type.name in ("VARCHAR", "DECIMAL") for item in program.inputs)
    most = BUCKET_BYTES // (4 + 8 * instants + 9 * len(program.inputs) + TEXT_BYTES * texts)
    count = -(-rows // most) if scan.keys and rows else 1
    buckets = tuple(_bucket(scan, spine, number, count) for number in range(count))
    each = max(-(-rows // count), 1)
    room = 2 * each + LEAST_ROOM if rows >= SMALL_ROWS else 0
    return OfflinePlan(program, key_types, scan.event_is_visible, buckets, each, room, scan)


def _bucket(scan: ScanText, spine: str, number: int, count: int) -> Bucket:
    keys = "".join(f"{key}, " for key in scan.keys)
    nothing = "" if scan.event_is_visible else ", NULL::BIGINT AS e"
    nulls = "".join(f", NULL AS {name}" for name in scan.inputs)
    mine = f" WHERE hash({', '.join(scan.keys)}) % {count} = {number}" if count > 1 else ""
    order = "".join(f"{key} NULLS FIRST, " for key in scan.keys)
    rows = f"SELECT {keys}t, r{nothing}{nulls} FROM {spine}{mine}"
    events = f"{scan.events(scan.sql)}{mine}"
    return Bucket(events, f"SELECT {keys}t, r FROM {spine}{mine}", f"{events} UNION ALL {rows} ORDER BY {order}t, r DESC")
