"""Plan a backfill: the SQL of each bucket of keys, nothing runs.

Spine and events meet in one sorted stream: key parts, t (cutoff or visible instant),
r (spine row; -1 an event, -2 a rejected one), e (event time where it is not t), inputs.
At one instant the spine comes first, so that an event at the cutoff is the future.
"""

from dataclasses import dataclass

from featreg.compile.compiled import CompiledView
from featreg.compile.program import SweepProgram
from featreg.plan.relation import Relation
from featreg.plan.scan_sql import ScanText, scan_text
from featreg.vocabulary import DataType

SMALL_BUCKET, LARGE_BUCKET = 6_000_000, 16_000_000  # rows: a sort of narrow ones takes about 0.3 GB and 0.9 GB
FEW_BUCKETS = 4  # another bucket is another scan: more than these only when they would be large


@dataclass(frozen=True)
class OfflinePlan:
    program: SweepProgram
    key_types: tuple[DataType, ...]
    event_is_visible: bool
    buckets: tuple[str, ...]
    scan: ScanText


def plan_backfill(
    view: CompiledView, program: SweepProgram, relation: Relation, spine: str, first: int, last: int, rows: int, known_at: int | None
) -> OfflinePlan:
    """Plan to fill a spine whose cutoffs go from `first` to `last`.

    spine: name of a registered table with columns k0.., t, r · rows: about how many events and spine rows there are.
    """
    earliest = None if program.longest is None else first - program.longest
    before = last if known_at is None else min(last, known_at)
    scan = scan_text(view, program, relation, earliest, before)
    count = max(1, min(FEW_BUCKETS, -(-rows // SMALL_BUCKET)), -(-rows // LARGE_BUCKET)) if scan.keys else 1
    buckets = tuple(_bucket(scan, spine, number, count) for number in range(count))
    return OfflinePlan(program, tuple(kind for _, kind in view.scan.keys), scan.event_is_visible, buckets, scan)


def _bucket(scan: ScanText, spine: str, number: int, count: int) -> str:
    keys = "".join(f"{key}, " for key in scan.keys)
    nothing = "" if scan.event_is_visible else ", NULL::BIGINT AS e"
    nulls = "".join(f", NULL AS {name}" for name in scan.inputs)
    mine = f" WHERE hash({', '.join(scan.keys)}) % {count} = {number}" if count > 1 else ""
    order = "".join(f"{key} NULLS FIRST, " for key in scan.keys)
    rows = f"SELECT {keys}t, r{nothing}{nulls} FROM {spine}{mine}"
    return f"{scan.events(scan.sql)}{mine} UNION ALL {rows} ORDER BY {order}t, r DESC"
