"""List the files at a source's location and name their bytes, reading only what changed since it was last read.

A location is a path or glob, or a Delta or Iceberg table, whose files are those of one of its versions.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featreg.canonical import file_id
from featreg.durable import write_whole
from featreg.engines.duckdb import source_files
from featreg.engines.lake import is_here, lake_format, table_version
from featreg.errors import UsageError
from featreg.instants import DAY, floor_to

if TYPE_CHECKING:
    from featreg.session.profile import Profile

SETTLED = 2_000_000_000  # nanoseconds after which a file system gives a change another time
_Stat = tuple[int, int, int]  # bytes, mtime, ctime


@dataclass(frozen=True)
class Location:
    """Where a source's data is: path or glob, and how it is read.

    immutable: nothing there is ever written to again · table: the settings of a Delta or Iceberg table.
    """

    source: str
    path: str
    reading: Mapping[str, Any]
    immutable: bool
    table: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Listed:
    """The files at a location now, by the name that snapshots give them, sorted.

    reading: how they are read · pin: the version of a table that they are of, and whether a snapshot copies them.
    """

    files: Mapping[str, Path]
    reading: Mapping[str, Any]
    pin: Mapping[str, Any] | None = None


def location_of(profile: "Profile", source: str) -> Location:
    """Raises: UsageError when the profile does not know the source."""
    settings = settings_of(profile, source)
    if lake_format(settings):
        return Location(source, str(settings.get("path", settings.get("table"))), {}, False, settings)
    if not isinstance(settings.get("path"), str):
        known = ", ".join(profile.sources) or "none"
        raise UsageError(
            f"profile '{profile.name}' does not say where source '{source}' is (it knows: {known}).\n"
            f'  Add to conf/{profile.name}.toml under [sources]:  {source} = "data/{source}/*.parquet"'
        )
    reading: dict[str, Any] = {key: settings[key] for key in ("format", "options") if key in settings}
    return Location(source, settings["path"], reading, bool(settings.get("immutable", False)))


def settings_of(profile: "Profile", source: str) -> dict[str, Any]:
    """What the profile says of a source's location, as a table."""
    found = profile.sources.get(source)
    return {"path": found} if isinstance(found, str) else dict(found) if isinstance(found, Mapping) else {}


def is_files(profile: "Profile", source: str) -> bool:
    """Whether a location is files that this process can list: not a table, a URI or a format of an engine's own."""
    settings = settings_of(profile, source)
    path = settings.get("path")
    if lake_format(settings):
        return is_here(settings)
    return isinstance(path, str) and "://" not in path and str(settings.get("format", "parquet")).lower() in ("parquet", "csv", "json")


def shown_path(file: str, root: Path) -> str:
    """As snapshots name files: below the repository's root, or absolute."""
    return file.removeprefix(f"{root}/")  # no Path: there may be 10,000 of them


def files_at(location: Location, root: Path) -> dict[str, Path]:
    """The files there now, by the name that snapshots give them, sorted."""
    return dict(list_files(location, root).files)


def list_files(location: Location, root: Path) -> Listed:
    """What is there now.  Raises: DataError, UsageError for a table that cannot be listed."""
    if location.table is None:
        return Listed(_shown(source_files(location.path, root), root), location.reading)
    found = table_version(location.source, location.table, root)
    pin = {**found.pin, "copied": bool(location.table.get("copy", False))}
    return Listed(_shown(map(str, found.files), root), found.reading, pin)


def _shown(files: Iterable[str], root: Path) -> dict[str, Path]:
    return dict(sorted((shown_path(file, root), Path(file)) for file in files))


def first_event(files: Iterable[Path], event_time: str, by: int) -> int | None:
    """The earliest event time that the footers of Parquet files tell, in UTC microseconds; None where one of them does not tell.

    Footers are read until one has a row of the day of `by` or before: of most locations that is the first.
    """
    first: int | None = None
    for file in files:
        told = _firsts(file, event_time)
        if told is None:
            return None
        first = min([*told, *([] if first is None else [first])], default=None)
        if first is not None and floor_to(first, DAY) <= by:
            break
    return first


def _firsts(file: Path, event_time: str) -> list[int] | None:
    """The least event time of each row group that has rows; None where that is not known."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            footer, kind = parquet.metadata, parquet.schema_arrow.field(event_time).type
    except (OSError, pa.ArrowInvalid, KeyError):  # no Parquet, or no such column: told by who reads it
        return None
    paths = [footer.schema.column(place).path for place in range(footer.num_columns)]
    if not pa.types.is_timestamp(kind) or event_time not in paths:
        return None
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    told = [one.column(paths.index(event_time)).statistics for one in groups if one.num_rows]
    if not all(one is not None and one.has_min_max for one in told):
        return None
    return [pa.scalar(one.min, kind).cast(pa.timestamp("us", kind.tz), safe=False).value for one in told]


class KnownFiles:
    """Which bytes a path had when it was last read, for a path that nobody has touched since: a cache, and no more.

    Touched is another size, mtime or ctime; no program sets a ctime.  One of the last seconds counts for nothing, since the
    file can change again without another one.
    """

    def __init__(self, folder: Path, source: str):
        self.path = folder / f"{source}.known.json"
        self._known: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError):
            self._known = json.loads(self.path.read_text(encoding="utf-8"))

    def sha256(self, shown: str, file: Path) -> str | None:
        """None for a file that must be read."""
        *stat, sha256 = self._known.get(shown, (0, 0, 0, ""))
        return sha256 if tuple(stat) == stat_of(file) else None

    def note(self, shown: str, stat: _Stat, sha256: str) -> None:
        """stat: of before the file was read."""
        settled = time.time_ns() - stat[2] > SETTLED
        self._known[shown] = [*stat[:2], stat[2] if settled else 0, sha256]

    def read(self, shown: str, file: Path) -> str:
        """The file's SHA-256, from its bytes where they are not known."""
        sha256 = self.sha256(shown, file)
        if sha256 is None:
            stat = stat_of(file)
            sha256 = file_id(file)
            self.note(shown, stat, sha256)
        return sha256

    def save(self, shown: set[str]) -> None:
        """Keep what is known of these."""
        write_whole(self.path, json.dumps({name: entry for name, entry in self._known.items() if name in shown}))


def stat_of(file: Path) -> _Stat:
    stat = os.stat(file)
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
