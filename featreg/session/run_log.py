"""Say what a materialize takes from a source's push log, and which rows of files count beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from featreg.compile import CompiledView
from featreg.define.source import UNTIL_BATCH
from featreg.instants import NEVER, format_instant
from featreg.plan.online import ViewState
from featreg.plan.relation import Relation
from featreg.registry.push_log import PushLog
from featreg.registry.pushed import START, Position
from featreg.session.feed import FedState
from featreg.session.profile import Profile
from featreg.session.run_files import RunFinder
from featreg.session.sources import SourceFinder

NO_LOG = ["", 0, "", 0]  # the span of a run that read nothing of it


@dataclass(frozen=True)
class LogPart:
    """The part of a push log that a run reads.

    read, to: what the view has of the log, and what it has after the run.  known, new: rows of the one and of the other that
    count as those of files do · pushed: rows that count whenever they become visible.  files_before: where files end.
    newest: of the new rows, the newest visible instant.  covered: pushed rows visible in it give way to files.
    """

    read: Position = START
    to: Position = START
    known: Relation | None = None
    new: Relation | None = None
    pushed: Relation | None = None
    files_before: int | None = None
    newest: int = NEVER
    covered: tuple[int, int] | None = None

    @property
    def is_new(self) -> bool:
        """Whether there is anything in the log that the view does not have."""
        return self.to > self.read

    @property
    def span(self) -> list:
        return [self.read.segment, self.read.end, self.to.segment, self.to.end]

    def beside(self, files: Relation | None, rows: Relation | None) -> Relation | None:
        """Rows of files as far as they count, and rows of the log with them."""
        if files is None:
            return rows
        return replace(files, before=self.files_before, beside=rows)


def gives_way(view: CompiledView) -> bool:
    """Whether pushed rows are in a view until files cover them."""
    return view.scan.source.stream_mode == UNTIL_BATCH and view.cadence.is_realtime


def files_cover(finder: RunFinder, view: CompiledView, files: Sequence[str], before: int | None, to: int, now: int) -> int | None:
    """Up to where files take the place of pushed rows in a run to `to`: behind their newest row, so that where files lag nothing
    that was pushed is lost.  None for a view in which nothing gives way.

    before: up to where they had.  A row that becomes visible after both `to` and `now` does not say that files reach so far.
    """
    if not gives_way(view):
        return None
    before = NEVER if before is None else before
    if before >= to:
        return before
    newest = finder.newest(view.scan.source, files, None if before == NEVER else before, max(to, now))
    return before if newest is None else max(before, min(to, newest + 1))


def left_beside(covered: int | None, to: int, pushed: int) -> str:
    """What to say of pushed rows that a run to `to` leaves in place, since no file reaches so far.  pushed: the newest one's instant."""
    if covered is None or covered >= to or pushed < covered:
        return ""
    reach = "no file has a row yet" if covered == NEVER else f"files reach to {format_instant(covered - 1)}"
    return f"{reach}; pushed rows that are visible from then on stay until files have it"


def plan_log(
    finder: SourceFinder, profile: Profile, view: CompiledView, read: Position, state: ViewState, covered: int | None
) -> LogPart:
    """What a run reads of the log.  read: what the view has of it.  state: before the run.  covered: see `files_cover`."""
    source = view.scan.source
    log = PushLog(profile.push_path(source.name))
    log.seal()
    until_batch = source.stream_mode == UNTIL_BATCH
    span = None if covered is None else (NEVER if state.batched is None else state.batched, covered)
    begun = None if state.begun is None else state.begun.get("log") or NO_LOG
    if begun is not None:
        read, end = Position(*begun[:2]), Position(*begun[2:])
    else:
        end = log.end(read)
    before = None if until_batch else log.boundary()
    if until_batch and not view.cadence.is_realtime:  # no run of `Every` sees beyond what a batch has covered
        return LogPart(read, end)
    part = LogPart(read, end, files_before=before, covered=span)
    rows = finder.of_log(source, log, read, end, "new") if end > read else None
    if not view.cadence.is_realtime:
        known = finder.of_log(source, log, START, read, "known") if read != START else None
        return replace(part, known=known and known[0], new=rows and rows[0])
    if rows is None:
        return part
    newest = max(min(one.last, one.at) for one in log.heads(read, end))
    return replace(part, pushed=replace(rows[0], since=covered), newest=newest)


def covered_rows(finder: SourceFinder, profile: Profile, view: CompiledView, covered: tuple[int, int]) -> Relation | None:
    """The pushed rows that give way to files in a run, once it has begun: from then on no push brings more of them."""
    found = finder.of_log(view.scan.source, PushLog(profile.push_path(view.scan.source.name)), START, None, "covered")
    return None if found is None else replace(found[0], since=covered[0], before=covered[1])


def at_begin(state: FedState | None, part: LogPart) -> FedState:
    """What stands beside a REALTIME view from the beginning of a run on: pushes go on behind what the run reads."""
    known = state or FedState()
    return replace(known.at(part.to), newest=max(known.newest, part.newest))
