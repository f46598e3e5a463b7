"""Count what a service does, for Prometheus: each worker writes its numbers to a file, and any of them adds all files up."""

import json
import os
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds
_HELP = {
    "featreg_requests_total": "Requests by route, set or source, and HTTP status.",
    "featreg_request_seconds": "Seconds from a request's first byte to its answer.",
    "featreg_vectors_total": "Vectors answered, by set and worst status of their features.",
    "featreg_rows_pushed_total": "Rows pushed, by source and what became of them.",
    "featreg_requests_now": "Requests that are being answered.",
    "featreg_workers": "Worker processes that wrote their numbers in the last ten seconds.",
}
_FLUSH = 1.0  # seconds between two writes of the file
_ALIVE = 10.0

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """The numbers of one worker, and the sum over all whose files are in `folder`; a dead worker's file still counts."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.counts: dict[tuple[str, Labels], float] = defaultdict(float)
        self.seconds: dict[Labels, list[float]] = {}
        self.now = 0
        self._written = 0.0
        self._file = folder / f"{os.getpid()}-{time.time_ns()}.json"

    def add(self, name: str, labels: Labels, amount: float = 1) -> None:
        self.counts[name, labels] += amount

    def observe(self, labels: Labels, seconds: float) -> None:
        """buckets…, beyond, sum"""
        found = self.seconds.get(labels)
        if found is None:
            found = self.seconds[labels] = [0.0] * (len(BOUNDS) + 2)
        found[bisect_left(BOUNDS, seconds)] += 1
        found[-1] += seconds

    def flush(self, force: bool = False) -> None:
        """Write the file, at most once a second."""
        moment = time.monotonic()
        if force or moment - self._written > _FLUSH:
            self._written = moment
            draft = self._file.with_suffix(".draft")
            counts = [[name, labels, value] for (name, labels), value in self.counts.items()]
            draft.write_text(json.dumps({"counts": counts, "seconds": list(self.seconds.items()), "now": self.now, "at": time.time()}))
            draft.replace(self._file)

    def text(self) -> str:
        """All workers' numbers in Prometheus' text form."""
        self.flush(force=True)
        counts: dict[tuple[str, Labels], float] = defaultdict(float)
        seconds: dict[Labels, list[float]] = {}
        now, workers = 0, 0
        for path in self.folder.glob("*.json"):
            try:
                found = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            for name, labels, value in found["counts"]:
                counts[name, _labels(labels)] += value
            for labels, values in found["seconds"]:
                known = seconds.setdefault(_labels(labels), [0.0] * len(values))
                for i, value in enumerate(values):
                    known[i] += value
            if time.time() - found["at"] < _ALIVE:
                now, workers = now + found["now"], workers + 1
        return "".join(_lines(counts, seconds, now, workers))


def _labels(found: Iterable[Iterable[str]]) -> Labels:
    return tuple((name, value) for name, value in found)


def _lines(counts: dict[tuple[str, Labels], float], seconds: dict[Labels, list[float]], now: int, workers: int) -> Iterable[str]:
    for name in sorted({name for name, _ in counts}):
        yield f"# HELP {name} {_HELP[name]}\n# TYPE {name} counter\n"
        for (one, labels), value in sorted(counts.items()):
            if one == name:
                yield f"{name}{_shown(labels)} {value:g}\n" if value % 1 else f"{name}{_shown(labels)} {int(value)}\n"
    name = "featreg_request_seconds"
    yield f"# HELP {name} {_HELP[name]}\n# TYPE {name} histogram\n"
    for labels, values in sorted(seconds.items()):
        total = 0
        for bound, value in zip((*map(str, BOUNDS), "+Inf"), values):
            total += int(value)
            yield f"{name}_bucket{_shown((*labels, ('le', bound)))} {total}\n"
        yield f"{name}_sum{_shown(labels)} {values[-1]:.6f}\n{name}_count{_shown(labels)} {total}\n"
    for gauge, amount in (("featreg_requests_now", now), ("featreg_workers", workers)):
        yield f"# HELP {gauge} {_HELP[gauge]}\n# TYPE {gauge} gauge\n{gauge} {amount}\n"


def _shown(labels: Labels) -> str:
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{inside}}}" if inside else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
