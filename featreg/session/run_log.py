"""Say what a materialize takes from a source's push log, and which rows of files count beside it."""

from dataclasses import dataclass, replace

from featreg.compile import CompiledView
from featreg.define.source import UNTIL_BATCH
from featreg.instants import NEVER
from featreg.plan.relation import Relation
from featreg.registry.push_log import START, Position, PushLog
from featreg.session.feed import FedState
from featreg.session.profile import Profile
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


def plan_log(
    finder: SourceFinder, profile: Profile, view: CompiledView, read: Position, watermark: int | None, to: int, begun: list | None
) -> LogPart:
    """What a run to `to` reads of the log.  read: what the view has of it.  begun: the span of a run that was cut off."""
    source = view.scan.source
    log = PushLog(profile.push_path(source.name))
    gives_way = source.stream_mode == UNTIL_BATCH
    covered = (NEVER if watermark is None else watermark, to) if gives_way and view.cadence.is_realtime else None
    if begun is not None:
        read, end = Position(*begun[:2]), Position(*begun[2:])
    else:
        end = log.end(read)
    before = None if gives_way else log.boundary()
    if gives_way and not view.cadence.is_realtime:  # no run of `Every` sees beyond what a batch has covered
        return LogPart(read, end)
    part = LogPart(read, end, files_before=before, covered=covered)
    rows = finder.of_log(source, log, read, end, "new") if end > read else None
    if not view.cadence.is_realtime:
        known = finder.of_log(source, log, START, read, "known") if read != START else None
        return replace(part, known=known and known[0], new=rows and rows[0])
    if rows is None:
        return part
    newest = max(min(one.last, one.at) for one in log.read(read, end))
    return replace(part, pushed=replace(rows[0], since=to if gives_way else None), newest=newest)


def covered_rows(finder: SourceFinder, profile: Profile, view: CompiledView, covered: tuple[int, int]) -> Relation | None:
    """The pushed rows that give way to files in a run, once it has begun: from then on no push brings more of them."""
    found = finder.of_log(view.scan.source, PushLog(profile.push_path(view.scan.source.name)), START, None, "covered")
    return None if found is None else replace(found[0], since=covered[0], before=covered[1])


def at_begin(state: FedState | None, part: LogPart) -> FedState:
    """What stands beside a REALTIME view from the beginning of a run on: pushes go on behind what the run reads."""
    known = state or FedState()
    return replace(known.at(part.to), newest=max(known.newest, part.newest))
