"""Say which files of a source a run reads, and what the store keeps of them so that the next run knows them again."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featreg.compile import CompiledView
from featreg.define import EventSource
from featreg.engines.duckdb import DuckDB
from featreg.plan.online import ViewState, check_files
from featreg.plan.scan_sql import visible_sql
from featreg.session.file_ids import FileIds
from featreg.session.profile import Profile
from featreg.session.run_rows import Run, SortedRows, sorted_by_duckdb
from featreg.session.source_files import SETTLED
from featreg.session.sources import SourceFinder


@dataclass(frozen=True)
class RunFiles:
    """The files that a run reads.

    known: those that earlier runs have read · new: the others · record: what the store keeps: name -> [bytes, mtime, identity, ctime] ·
    counts_anew: whether a run meets rejected rows again that an earlier one has counted.
    """

    known: tuple[str, ...]
    new: tuple[str, ...]
    record: Mapping[str, list]
    counts_anew: bool = False

    def rejected_by(self, before: int, met: int) -> int:
        """Of the rejected rows that a run met, those that no run had counted.  before: how many had been."""
        return max(0, met - before) if self.counts_anew else met


def run_files_of(view: CompiledView, state: ViewState, now: Mapping[str, list]) -> RunFiles:
    """Of the files that are there: all, or those of the run that was begun.  Raises: RefusedError for a known one that changed."""
    if state.begun is None:
        known, new = check_files(view, state.files or {}, now)
        return RunFiles(tuple(known), tuple(new), now)
    begun = state.begun["files"]
    known, new = check_files(view, state.files or {}, {path: now[path] for path in now if path in begun})
    check_files(view, begun, now)
    return RunFiles(tuple(known), tuple(new), dict(begun))


class RunFinder(SourceFinder):
    """Where the rows of runs are, and who brings them: files that this process sees, and DuckDB."""

    def __init__(self, engine: DuckDB, profile: Profile):
        super().__init__(engine, profile, {})

    def taken(self, view: CompiledView, ids: FileIds, state: ViewState, to: int) -> RunFiles:
        """The files of a run to `to`.  Raises: RefusedError when one that was read has changed."""
        known = {**(state.files or {}), **(state.begun["files"] if state.begun else {})}
        return run_files_of(view, state, self._files_now(view.scan.source, ids, known))

    def newest(self, source: EventSource, files: Sequence[str], since: int | None, before: int) -> int | None:
        """The newest visible instant in `[since, before)` that a row of these files has; None of no row."""
        relation = self.of_files(source.name, files)
        if relation is None:
            return None
        return self.engine.rows(f"SELECT max(v) FROM ({visible_sql(source, relation, since)}) WHERE v < {before}")[0][0]

    def rows_between(self, source: EventSource, since: int, before: int) -> int:
        """How many rows of a source's location are visible in `[since, before)`."""
        sql = f"SELECT count(*) FROM ({visible_sql(source, self.files_alone(source))}) WHERE v >= {since} AND v < {before}"
        return self.engine.rows(sql)[0][0]

    def sorted(self, run: Run) -> SortedRows:
        """A run's rows, all of a key in a row."""
        return sorted_by_duckdb(self, run)

    def check_as_taken(self, source: EventSource, taken: RunFiles) -> None:
        """Whether what has been read by now is what was taken.  DuckDB tells so itself."""

    def _files_now(self, source: EventSource, ids: FileIds, known: Mapping[str, list]) -> dict[str, list]:
        """Reads every byte of a file, but for one that is known and untouched: same size, mtime and ctime, which no program sets.

        A ctime of the last seconds is recorded as 0, for the file can change without another one (as in git's index).
        """
        found = {}
        for file in self.files_of(source):
            stat, root = os.stat(file), self.profile.root
            shown = Path(file).relative_to(root).as_posix() if Path(file).is_relative_to(root) else file
            size, mtime, sha256, ctime = known.get(shown, (0, 0, "", 0))
            if (size, mtime, ctime) != (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns):
                ctime = stat.st_ctime_ns if time.time_ns() - stat.st_ctime_ns > SETTLED else 0
                sha256 = ids.of(file)
            found[shown] = [stat.st_size, stat.st_mtime_ns, sha256, ctime]
        return found
