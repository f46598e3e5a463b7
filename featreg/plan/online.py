"""Plan a materialization: which files and rows a run reads, and what it must leave in the store.  Nothing runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from featreg.compile.compiled import CompiledView
from featreg.compile.program import SweepProgram
from featreg.errors import RefusedError
from featreg.plan.relation import Relation
from featreg.plan.scan_sql import EVENT_ROW, ScanText, scan_text


@dataclass(frozen=True)
class ViewState:
    """What the store knows of a column group: the last run that ended, and one that was begun.

    watermark: complete up to here.  s: reads before it are refused.  files: path -> [bytes, mtime, sha256, ctime].
    rejected: rows of those files that were.
    begun: {"run", "to", "s", "files", "log", "covered"} of a run that has not ended, None when all have.
    log: [segment, end] up to which runs have read the push log; a REALTIME view has that beside it (session/feed.py).
    covered: up to where files have taken the place of pushed rows, for a source that is streamed until they do.
    """

    run: int = 0
    watermark: int | None = None
    s: int | None = None
    files: Mapping[str, list] | None = None
    rejected: int = 0
    begun: Mapping | None = None
    log: list | None = None
    covered: int | None = None

    @property
    def batched(self) -> int | None:
        """Up to where the rows of files are the view's, whatever was pushed."""
        return self.watermark if self.covered is None else self.covered


def view_state(stored: bytes | None) -> ViewState:
    """What a store's record of a column group says; of none, that nothing is there."""
    return ViewState(**json.loads(stored)) if stored else ViewState()


def stored_state(state: ViewState) -> bytes:
    return json.dumps(vars(state), sort_keys=True).encode()


def check_files(view: CompiledView, before: Mapping[str, list], now: Mapping[str, list]) -> tuple[list[str], list[str]]:
    """(known files, new files).

    Raises: RefusedError when a file that was read has changed or is gone.
    """
    for path, known in before.items():
        found = now.get(path)
        if found is None:
            raise RefusedError(
                f"{view.name}: {path} was read by an earlier run and is gone.\n"
                f"  Put it back, or fill the view anew from what is there: featreg materialize {view.name} --rebuild"
            )
        if found[2] != known[2]:
            raise RefusedError(
                f"{view.name}: {path} has changed since it was read ({known[0]} bytes then, {found[0]} now), "
                f"so its rows cannot be told apart.\n"
                f"  Add rows in new files, or fill the view anew: featreg materialize {view.name} --rebuild"
            )
    return sorted(before), sorted(set(now) - set(before))


def plan_run(
    view: CompiledView,
    program: SweepProgram,
    known: Relation | None,
    new: Relation | None,
    watermark: int | None,
    to: int,
    s: int,
    pushed: Relation | None = None,
) -> tuple[str, ScanText]:
    """The SQL of a run's rows, rejected ones first, sorted by key: of known files those from the watermark on, of new files all.

    pushed: rows that no push has brought to the view yet; all of them, whenever they become visible.
    Rows that no window at or after `s` sees are left out.
    """
    earliest = None if program.longest is None else s - program.longest
    scans = []
    if known is not None:
        scans.append(scan_text(view, program, known, earliest, to, watermark))
    if new is not None:
        scans.append(scan_text(view, program, new, earliest, to))
    if pushed is not None:
        scans.append(scan_text(view, program, pushed, earliest))
    return _sorted_rows(scans), scans[-1]


def plan_push(view: CompiledView, program: SweepProgram, pushed: Relation) -> tuple[str, bool]:
    """The SQL of pushed rows as a view lifts them, sorted by key, and whether its event times are its visible instants."""
    scan = scan_text(view, program, pushed)
    return _sorted_rows([scan]), scan.event_is_visible


def _sorted_rows(scans: list[ScanText]) -> str:
    first = scans[0]
    keys = "".join(f"{key}, " for key in first.keys)
    apart = "" if first.event_is_visible else ", e"
    inputs = "".join(f", {name}" for name in first.inputs)
    rows = " UNION ALL ".join(f"({scan.sql})" for scan in scans)
    order = "".join(f"{key} NULLS FIRST, " for key in first.keys)
    return f"SELECT {keys}coalesce(v, 0) AS t, {EVENT_ROW} AS r{apart}{inputs} FROM ({rows}) ORDER BY r, {order}t"
