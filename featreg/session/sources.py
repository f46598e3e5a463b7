"""Find the rows of a source: in a table that was handed in, or at the location that the profile names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featreg.define import EventSource
from featreg.engines.duckdb import DuckDB, source_files
from featreg.errors import UsageError, did_you_mean
from featreg.plan.relation import Relation
from featreg.session.profile import Profile
from featreg.session.tables import read_table


class SourceFinder:
    """The rows of each source, looked up once; `files` says which files were read."""

    def __init__(self, engine: DuckDB, profile: Profile, given: Mapping[str, Any]):
        self.engine, self.profile = engine, profile
        self.given = dict(given)
        self.files: dict[str, list[str]] = {}
        self._found: dict[str, tuple[Relation, int]] = {}

    def find(self, source: EventSource) -> tuple[Relation, int]:
        """The relation of a source and about how many rows it has."""
        name = source.name
        if name not in self._found:
            self._found[name] = self._given(name) if name in self.given else self._located(name)
        return self._found[name]

    def of_files(self, name: str, files: Sequence[str]) -> Relation | None:
        """The rows of some of a source's files, at its location in the profile; None of no file.  files: below the root, or absolute."""
        if not files:
            return None
        location = self.profile.sources[name]
        settings = dict(location) if isinstance(location, Mapping) else {}
        return self.engine.location(name, settings | {"path": [str(self.profile.root / file) for file in files]}, self.profile.root)

    def refuse_unknown(self, known: Mapping[str, EventSource]) -> None:
        for name in self.given:
            if name not in known:
                raise UsageError(f"sources={{'{name}': …}}: there is no source '{name}'.\n  {did_you_mean(name, known, 'Sources are')}")

    def _given(self, name: str) -> tuple[Relation, int]:
        table = read_table(self.given[name], self.engine, self.profile.root, f"source '{name}'")
        return self.engine.register(f"featreg_source_{name}", table), table.num_rows

    def _located(self, name: str) -> tuple[Relation, int]:
        location = self.profile.sources.get(name)
        if location is None:
            known = ", ".join(self.profile.sources) or "none"
            raise UsageError(
                f"profile '{self.profile.name}' does not say where source '{name}' is (it knows: {known}).\n"
                f'  Add to conf/{self.profile.name}.toml under [sources]:  {name} = "data/{name}/*.parquet"'
            )
        relation = self.engine.location(name, location, self.profile.root)
        path = location if isinstance(location, str) else str(location["path"])  # type: ignore[index]
        self.files[name] = source_files(path, self.profile.root)
        return relation, self._about(self.files[name])

    def _about(self, files: list[str]) -> int:
        """Rows by Parquet footers; of other files, by their size."""
        if all(Path(file).suffix in (".parquet", ".pq") for file in files):
            quoted = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
            return int(self.engine.rows(f"SELECT coalesce(sum(num_rows), 0) FROM parquet_file_metadata([{quoted}])")[0][0])
        return sum(Path(file).stat().st_size for file in files) // 60
