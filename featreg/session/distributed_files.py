"""Find the rows of runs at places where Spark alone can look: a URI, a table of its catalogs, a format of its own.

Where Spark knows of each row the file that it is in, a run goes by files as any run does.  Of another table it reads
what is visible from the newest row on that it has read, and the store keeps how many rows there were before: one that
comes behind it, or goes, is an error and never passed over.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from featreg.compile import CompiledView
from featreg.define import EventSource
from featreg.engines.duckdb import DuckDB
from featreg.engines.frame_files import FileRows, files_in, rows_in
from featreg.engines.spark import Rows, Spark
from featreg.errors import DataError, RefusedError
from featreg.instants import NEVER, format_instant
from featreg.plan.online import ViewState, check_files
from featreg.plan.relation import Relation
from featreg.plan.scan_sql import times_of, visible_sql
from featreg.session.distributed import rows_of_part
from featreg.session.distributed_runs import sorted_by_spark
from featreg.session.file_ids import FileIds
from featreg.session.profile import Profile
from featreg.session.run_files import RunFiles, RunFinder, run_files_of
from featreg.session.run_rows import Run, SortedRows
from featreg.session.source_files import settings_of
from featreg.session.tasks import Lift, whole_numbers

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_PRIME = 4294967291  # instants are summed modulo it, so that one that moved is told from one that stayed


class SparkRunFinder(RunFinder):
    """Where the rows of runs are for Spark, and Spark brings them.

    _beyond: the rows of sources that Spark alone can read · _files: of those among them whose rows tell their file ·
    _stretch: of the others, which visible instants a run reads · _frames: rows by the text of the relation that stands for them.
    """

    def __init__(self, spark: Spark, engine: DuckDB, profile: Profile):
        super().__init__(engine, profile)
        self.spark = spark
        self._beyond: dict[str, Rows] = {}
        self._files: dict[str, dict[str, FileRows]] = {}
        self._stretch: dict[str, tuple[int | None, int]] = {}
        self._frames: dict[str, Rows] = {}

    def taken(self, view: CompiledView, ids: FileIds, state: ViewState, to: int) -> RunFiles:
        source = view.scan.source
        location = self.profile.sources.get(source.name)
        if location is None or not self.spark.reads_itself(location):
            return super().taken(view, ids, state, to)
        files = self._look(source)
        if files is None:
            return self._rows_taken(view, state, to)
        self._files[source.name] = files
        return run_files_of(view, state, {path: one.record for path, one in files.items()})

    def _look(self, source: EventSource) -> dict[str, FileRows] | None:
        """Find a source's rows as they are now, and the files that they are in."""
        rows = self._beyond[source.name] = self.spark.located(source.name, self.profile.sources[source.name])
        assert rows.frame is not None
        with self.spark.told(f"source '{source.name}'"):
            return files_in(rows.frame)

    def _rows_taken(self, view: CompiledView, state: ViewState, to: int) -> RunFiles:
        """What a run takes of a table whose rows tell no file: as if they were one file that grows at its end."""
        source = view.scan.source
        name = _called(self.profile, source)
        begun = None if state.begun is None else state.begun["files"]
        for files in (state.files or {}, begun or {}):
            check_files(view, {path: record for path, record in files.items() if path != name}, {})
        had = (state.files or {}).get(name)
        goes_on = None if begun is None else begun.get(name)
        if begun is not None and goes_on is None:
            return RunFiles((), (), begun)
        kept = [record for record in (had, goes_on) if record is not None]
        *now, record = self._records(source, [*(one[3] for one in kept), to])
        for before, found in zip(kept, now):
            if found[:3] != before[:3]:
                raise RefusedError(
                    f"{view.name}: rows of {name} that are visible before {_shown(before[3])} came or went since they were read "
                    f"({before[0]:,} then, {found[0]:,} now), so they cannot be told apart.\n"
                    f"  Declare when its rows can be read (available=), or fill the view anew: featreg materialize {view.name} --rebuild"
                )
        record = goes_on or record
        self._stretch[source.name] = (None if had is None else had[3], record[3])
        return RunFiles((), (name,), {name: record}, counts_anew=True)

    def _records(self, source: EventSource, instants: Sequence[int]) -> list[list]:
        """What the store keeps of rows visible before each instant: [how many, 0, an identity, the first instant behind them]."""
        asked = []
        for n, instant in enumerate(instants):
            seen = f"FILTER (v < {instant})"
            asked += [f"count(*) {seen} AS n{3 * n}", f"sum(v % {_PRIME}) {seen} AS n{3 * n + 1}", f"max(v) {seen} AS n{3 * n + 2}"]
        found = self._asked(source, self._beyond[source.name], asked)
        records = []
        for n in range(len(instants)):
            rows, total = (sum(one[3 * n + place] or 0 for one in found) for place in (0, 1))
            newest = max((one[3 * n + 2] for one in found if one[3 * n + 2] is not None), default=None)
            records.append([rows, 0, f"{rows} rows, {total % _PRIME}", NEVER if newest is None else newest + 1])
        return records

    def _asked(self, source: EventSource, rows: Rows, asked: Sequence[str], since: int | None = None) -> list[tuple]:
        """Aggregates of a source's visible instants `v`, called n0, n1, ..: of each batch that a worker gets."""
        sql = f"SELECT {', '.join(asked)} FROM ({visible_sql(source, rows.relation, since)})"
        frame, held = self.spark.chosen(rows, times_of(source))
        names = [f"n{n}" for n in range(len(asked))]
        counted = self.spark.run(frame, Lift(sql, held, whole_numbers(names)), ", ".join(f"{name} long" for name in names))
        return [tuple(one) for one in self.spark.collected(counted)]

    def of_files(self, name: str, files: Sequence[str]) -> Relation | None:
        """Of a source that Spark alone can read, a relation that `rows_of` knows, and no DuckDB reads."""
        if name not in self._beyond or not files:
            return super().of_files(name, files)
        rows, text = self._beyond[name], f"featreg_frame_{len(self._frames)}"
        assert rows.frame is not None
        self._frames[text] = Rows(rows.relation, rows_in(rows.frame, files)) if name in self._files else rows
        since, before = self._stretch.get(name, (None, None))
        return Relation(text, rows.relation.columns, since=since, before=before)

    def rows_of(self, part: Relation) -> Rows:
        """The rows of a part of a relation, for workers."""
        rows = self._frames.get(part.text)
        if rows is None:
            return rows_of_part(self.spark, part)
        return Rows(Relation(rows.relation.text, part.columns, since=part.since, before=part.before), rows.frame)

    def newest(self, source: EventSource, files: Sequence[str], since: int | None, before: int) -> int | None:
        relation = self.of_files(source.name, files)
        if relation is None or relation.text not in self._frames:
            return super().newest(source, files, since, before)
        found = self._asked(source, self._frames[relation.text], [f"max(v) FILTER (v < {before}) AS n0"], since)
        return max((newest for (newest,) in found if newest is not None), default=None)

    def rows_between(self, source: EventSource, since: int, before: int) -> int:
        location = self.profile.sources[source.name]
        if not self.spark.reads_itself(location):
            return super().rows_between(source, since, before)
        asked = [f"count(*) FILTER (v >= {since} AND v < {before}) AS n0"]
        return sum(rows for (rows,) in self._asked(source, self.spark.located(source.name, location), asked, since))

    def sorted(self, run: Run) -> SortedRows:
        return sorted_by_spark(self.spark, run, self.rows_of, self._about(run))

    def _about(self, run: Run) -> int:
        """How many rows the files of a run have, about."""
        name, files = run.view.scan.source.name, (*run.known_files, *run.new_files)
        if name in self._files:
            return sum(self._files[name][file].rows for file in files)
        if name in self._stretch:
            return self._records(run.view.scan.source, [self._stretch[name][1]])[0][0]
        return self.about([str(self.profile.root / file) for file in files]) if files else 0

    def check_as_taken(self, source: EventSource, taken: RunFiles) -> None:
        """Look again.  Raises: DataError where rows came or went while they were read."""
        name = source.name
        if name not in self._beyond or not (taken.known or taken.new):
            return
        then, now = self._files.get(name), self._look(source)
        if then is not None:
            changed = [file for file in (*taken.known, *taken.new) if (now or {}).get(file) != then[file]]
            if changed:
                told = f"{changed[0]} was changed while it was read; nothing was written."
                raise DataError(f"{told}\n  Run it again when no one writes to it.")
            return
        (record,) = taken.record.values()
        if self._records(source, [record[3]]) != [record]:
            raise DataError(
                f"source '{name}': rows that are visible before {_shown(record[3])} came or went while they were read; nothing was "
                "written.\n  Materialize to an instant that all who write have passed: --to some minutes ago."
            )


def frames_of(spark: Spark, profile: Profile, read: Sequence[tuple[EventSource, Sequence[str]]]) -> "dict[str, DataFrame] | None":
    """The rows of some files of each source, by its name; of a source that is there twice, those of the fewer files.

    None unless Spark alone reads all of them and knows the files, and no log is beside them.
    """
    frames: dict[str, DataFrame] = {}
    for source, files in sorted(read, key=lambda one: -len(one[1])):
        location = profile.sources.get(source.name)
        if location is None or not spark.reads_itself(location) or source.stream_mode is not None:
            return None
        frame = spark.located(source.name, location).frame
        assert frame is not None
        with spark.told(f"source '{source.name}'"):
            known = files_in(frame)
        if known is None or not known.keys() >= set(files):
            return None
        frames[source.name] = rows_in(frame, files)
    return frames


def _called(profile: Profile, source: EventSource) -> str:
    """Under which name the store keeps what was read of a location that is no files."""
    settings = settings_of(profile, source.name)
    if "table" in settings:
        return f"table {settings['table']}"
    where = settings.get("path") or dict(settings.get("options", {})).get("dbtable", source.name)  # a URL may have a password in it
    return f"{settings.get('format', 'parquet')} {where}"


def _shown(instant: int) -> str:
    return "any time" if instant == NEVER else format_instant(instant)
