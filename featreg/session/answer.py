"""What serving answers for one row, without what computes it: a client needs no kernels."""

from dataclasses import dataclass
from typing import Any

STATUSES = ("missing", "error", "stale", "empty", "ok")  # of several, the first


@dataclass(slots=True)
class Vector:
    """One answer.  values, status: by feature in declared order · cutoff, watermark: by view, UTC microseconds (None: not materialized)."""

    values: dict[str, Any]
    status: dict[str, str]
    cutoff: dict[str, int | None]
    watermark: dict[str, int | None]
