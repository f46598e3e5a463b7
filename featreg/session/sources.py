"""Find the rows of a source: in a table that was handed in, or at the location that the profile names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from featreg.compile import CompiledView
from featreg.define import EventSource
from featreg.define.source import UNTIL_BATCH
from featreg.engines.duckdb import DuckDB, source_files
from featreg.errors import DataError, UsageError, did_you_mean
from featreg.plan.relation import Relation
from featreg.plan.scan_sql import visible_sql
from featreg.registry.push_log import PushLog, has_rows
from featreg.registry.pushed import START, Position
from featreg.registry.sealed_log import last_end, row_count, segment_of
from featreg.session.profile import Profile
from featreg.session.pushed_rows import all_rows, rows_of, sealed_rows, with_positions
from featreg.session.serving import batched_of
from featreg.session.source_files import list_files, location_of, settings_of
from featreg.session.store import has_store, open_store
from featreg.session.tables import read_table
from featreg.sweep.words import arrow_type


@dataclass(frozen=True)
class PlacedFiles:
    """Files to read in place of a source's location.  reading: format and options · alone: whether pushed rows are left out."""

    reading: Mapping[str, Any]
    files: Sequence[str]
    alone: bool = True


class SourceFinder:
    """The rows of each source, looked up once; `files` says which files were read, `pushed` up to where its push log was.

    placed: sources that are read from files elsewhere · until: up to where push logs are read, the end of each by default.
    """

    def __init__(
        self, engine: DuckDB, profile: Profile, given: Mapping[str, Any],
        placed: "Mapping[str, PlacedFiles] | None" = None, until: Mapping[str, Position] | None = None,
    ):  # fmt: skip
        self.engine, self.profile = engine, profile
        self.given, self.placed, self.until = dict(given), dict(placed or {}), dict(until or {})
        self.files: dict[str, list[str]] = {}
        self.pushed: dict[str, Position] = {}
        self._found: dict[str, tuple[Relation, int]] = {}
        self._logs: dict[str, tuple[Relation, int] | None] = {}

    def files_of(self, source: EventSource) -> list[str]:
        """The files of a source; none for one that has no place and takes pushed rows."""
        name = source.name
        if name not in self.files:
            if name in self.profile.sources or not (source.stream_mode or has_rows(self.profile.push_path(name))):
                self._found[name] = self._located(name)
            else:
                self.files[name] = []
        return self.files[name]

    def find(self, source: EventSource, batched: int | None = None) -> tuple[Relation, int]:
        """The relation of a source, pushed rows included, and about how many rows it has.

        batched: up to where a materialize has covered the source's instants, for `stream="until_batch"`.
        """
        name = source.name
        if name in self.given or (name in self.placed and self.placed[name].alone and self.placed[name].files):
            if name not in self._found:
                self._found[name] = self._given(name) if name in self.given else self._located(name)
            return self._found[name]
        log = self.log_of(source)
        if log is None and source.stream_mode is not None and not self._has_files(name):
            log = self.nothing(source), 0
        if name not in self._found and (log is None or self._has_files(name)):
            self._found[name] = self._located(name)
        located = self._found.get(name)
        if log is None:
            assert located is not None
            return located
        pushed, rows = self.pushed_rows(source, log[0], batched), log[1]
        if located is None:
            self.files[name] = []
            return pushed, rows
        return replace(self.before_the_stream(source, located[0], pushed), beside=pushed), located[1] + rows

    def _has_files(self, name: str) -> bool:
        return bool(self.placed[name].files) if name in self.placed else name in self.profile.sources

    def files_alone(self, source: EventSource) -> Relation:
        """The rows of a source's files, all of them, without what was pushed."""
        if source.name not in self._found:
            self._found[source.name] = self._located(source.name)
        return self._found[source.name][0]

    def batched_until(self, view: CompiledView) -> int | None:
        """Up to where a materialize has covered a view whose source is streamed until it does."""
        if view.scan.source.stream_mode != UNTIL_BATCH or not has_store(self.profile):
            return None
        with open_store(self.profile) as store:
            return batched_of(store, view)

    def pushed_rows(self, source: EventSource, log: Relation, batched: int | None) -> Relation:
        """The rows of a push log that count: where files take over, those that no batch has covered."""
        return replace(log, since=batched) if source.stream_mode == UNTIL_BATCH else log

    def before_the_stream(self, source: EventSource, files: Relation, pushed: Relation) -> Relation:
        """The rows of files that count beside pushed ones: those before the stream's first row, and those that a batch covered."""
        if source.stream_mode != UNTIL_BATCH:
            return replace(files, before=PushLog(self.profile.push_path(source.name)).boundary())
        after = "" if pushed.since is None else f" WHERE v >= {pushed.since}"
        first = self.engine.rows(f"SELECT min(v) FROM ({visible_sql(source, pushed)}){after}")[0][0]
        return replace(files, before=first)

    def nothing(self, source: EventSource) -> Relation:
        """A source without any row."""
        table = pa.table({name: pa.array([], arrow_type(kind)) for name, kind in source.columns})
        return self.engine.register(f"featreg_nothing_{source.name}", table)

    def log_of(self, source: EventSource) -> tuple[Relation, int] | None:
        """All rows that were pushed to a source, and how many; None when none were."""
        name = source.name
        if name not in self._logs:
            log = PushLog(self.profile.push_path(name))
            self._logs[name] = self.of_log(source, log, START, self.until.get(name))
        return self._logs[name]

    def of_log(
        self, source: EventSource, log: PushLog, after: Position, to: Position | None, part: str = "all", with_marks: bool = False
    ) -> tuple[Relation, int] | None:
        """The rows of a push log between two positions, and how many; None of none.  What is sealed stays on disk.

        part: tells tables of one log apart.  with_marks: whether each row says where its record stands.
        """
        sealed, live = log.parts(after, to)
        records = list(live)
        groups = self.engine.parquet_groups([str(file) for file in sealed], "the push log") if sealed else []
        found = [sealed_rows(source, self.engine.location(source.name, {"path": group}, Path()), after, to) for group in groups]
        if records:
            table = rows_of(records, source)
            if with_marks:
                table = with_positions(table, records)
            found.append(self.engine.register(f"featreg_pushed_{part}_{source.name}", table))
        if not found:
            return None
        self.pushed[source.name] = records[-1].position if records else Position(segment_of(sealed[-1]), last_end(sealed[-1]))
        count = row_count(sealed) + sum(record.rows.num_rows for record in records)
        if not sealed:
            return found[0], count
        return self.engine.describe(all_rows(source, found, with_marks), "the push log"), count

    def of_files(self, name: str, files: Sequence[str]) -> Relation | None:
        """The rows of some of a source's files, at its location in the profile; None of no file.  files: below the root, or absolute."""
        if not files:
            return None
        found = location_of(self.profile, name)
        settings: dict[str, Any] = settings_of(self.profile, name)
        if found.table is not None:
            settings = dict(list_files(found, self.profile.root).reading)
        return self.engine.location(name, settings | {"path": [str(self.profile.root / file) for file in files]}, self.profile.root)

    def refuse_unknown(self, known: Mapping[str, EventSource]) -> None:
        for name in self.given:
            if name not in known:
                raise UsageError(f"sources={{'{name}': …}}: there is no source '{name}'.\n  {did_you_mean(name, known, 'Sources are')}")

    def _given(self, name: str) -> tuple[Relation, int]:
        table = read_table(self.given[name], self.engine, self.profile.root, f"source '{name}'")
        return self.engine.register(f"featreg_source_{name}", table), table.num_rows

    def _located(self, name: str) -> tuple[Relation, int]:
        if name in self.placed:
            files = self.files[name] = list(self.placed[name].files)
            return self.engine.location(name, {**self.placed[name].reading, "path": files}, self.profile.root), self.about(files)
        location = self.profile.sources.get(name)
        if location is None:
            known = ", ".join(self.profile.sources) or "none"
            raise UsageError(
                f"profile '{self.profile.name}' does not say where source '{name}' is (it knows: {known}).\n"
                f'  Add to conf/{self.profile.name}.toml under [sources]:  {name} = "data/{name}/*.parquet"'
            )
        if (at := location_of(self.profile, name)).table is not None:
            listed = list_files(at, self.profile.root)
            files = self.files[name] = list(map(str, listed.files.values()))
            if not files:
                raise DataError(f"source '{name}': the table at {at.path} has no rows.\n  Write rows to it.")
            return self.engine.location(name, {**listed.reading, "path": files}, self.profile.root), self.about(files)
        relation = self.engine.location(name, location, self.profile.root)
        path = location if isinstance(location, str) else str(location["path"])  # type: ignore[index]
        self.files[name] = source_files(path, self.profile.root)
        return relation, self.about(self.files[name])

    def about(self, files: Sequence[str]) -> int:
        """Rows by Parquet footers; of other files, by their size."""
        if all(Path(file).suffix in (".parquet", ".pq") for file in files):
            quoted = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
            return int(self.engine.rows(f"SELECT coalesce(sum(num_rows), 0) FROM parquet_file_metadata([{quoted}])")[0][0])
        return sum(Path(file).stat().st_size for file in files) // 60
