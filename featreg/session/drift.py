"""Compare what a source has now with a snapshot, partition by partition, and count the rows that differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from featreg.define import EventSource
from featreg.engines.duckdb import DuckDB
from featreg.instants import format_instant
from featreg.session.measure import Group, groups_of, hashed_rows, read_as
from featreg.snapshots.coverage import Coverage, Kind, Need, Verdict
from featreg.snapshots.families import Column, duckdb_columns
from featreg.snapshots.manifest import Partition, Snapshot
from featreg.snapshots.numbers import Numbers, summed
from featreg.snapshots.scheme import Scheme


@dataclass(frozen=True)
class RowChange:
    """Rows of a partition that one side has and the other has not.

    changed: pairs of one added and one removed row of the same event time and tie_break columns; they are in neither of the others.
    first_added: the earliest event time of an added row.
    """

    added: int
    removed: int
    changed: int
    first_added: int | None = None

    @property
    def plus(self) -> int:
        return self.added + self.changed

    @property
    def minus(self) -> int:
        return self.removed + self.changed

    @property
    def is_none(self) -> bool:
        return self.plus == self.minus == 0


def by_partition(files: Mapping[str, tuple[str, Path]], scheme: Scheme | None) -> dict[str, dict[str, tuple[str, Path]]]:
    """Files (path -> SHA-256 and place) put together as the location says."""
    partitions: dict[str, dict[str, tuple[str, Path]]] = {}
    for shown, file in files.items():
        slot = None if scheme is None else scheme.slot_of(shown)
        partitions.setdefault(shown if slot is None else slot.name, {})[shown] = file
    return partitions


def whole_columns(snapshot: Snapshot) -> tuple[Column, ...]:
    """The columns that the snapshot's rows were hashed with, sorted by name; of an absent type in each form of its own."""
    families: dict[str, Column] = {}
    for form in snapshot.forms:
        for column in duckdb_columns(form, f"snapshot {snapshot.id[:12]}"):
            families.setdefault(column.name.lower(), column)
    return tuple(sorted(families.values(), key=lambda column: column.name))


def _optional(snapshot: Snapshot) -> set[str]:
    """Columns, in lower case, that some of the snapshot's own files lack."""
    named = [{name.lower() for name, _ in form} for form in snapshot.forms]
    return set().union(*named) - named[0].intersection(*named) if named else set()


def row_changes(
    engine: DuckDB, source: EventSource, before: Sequence[Group], after: Sequence[Group], need: Need | None = None
) -> RowChange:
    """Count the rows that only one side has, as multisets.  need: only event times in that stretch count."""
    bounds = [] if need is None else [f"e < {need.before}", *([] if need.earliest is None else [f"e >= {need.earliest}"])]
    where = f" WHERE {' AND '.join(bounds)}" if bounds else ""

    def rows(groups: Sequence[Group], sign: int) -> list[str]:
        return [f"SELECT h, k, e, {sign} AS s FROM ({hashed_rows(source, group)}){where}" for group in groups]

    union = " UNION ALL ".join(rows(before, -1) + rows(after, 1))
    if not union:
        return RowChange(0, 0, 0)
    per_row = f"SELECT k, any_value(e) AS e, sum(s) AS d FROM ({union}) GROUP BY h, k HAVING sum(s) <> 0"
    per_key = (
        f"SELECT sum(greatest(d, 0)) AS a, sum(greatest(-d, 0)) AS r, min(e) FILTER (d > 0) AS f FROM ({per_row}) GROUP BY k"
    )
    query = f"SELECT sum(a - least(a, r)), sum(r - least(a, r)), sum(least(a, r)), min(f) FROM ({per_key})"
    added, removed, changed, first = engine.rows(query)[0]
    return RowChange(int(added or 0), int(removed or 0), int(changed or 0), first)


def drift(
    engine: DuckDB,
    source: EventSource,
    snapshot: Snapshot,
    kept: Mapping[str, Path],
    live: Mapping[str, tuple[str, Path]],
    scheme: Scheme | None,
    need: Need | None = None,
) -> Coverage:
    """What differs between a snapshot and the files that are there now.

    kept: where the snapshot's own files can be read, empty when they are gone · need: None asks for everything, and then growth is
    a difference too.  Files of equal bytes are not read; of the others those are read whose partition may be needed.
    """
    before = {one.name: one for one in snapshot.partitions(scheme)}
    after = by_partition(live, scheme)
    differing = [name for name in dict.fromkeys([*before, *after]) if _hashes(before.get(name)) != _now(after.get(name, {}))]
    if not differing:
        return Coverage()
    columns = whole_columns(snapshot)
    fresh = {shown: file for name in differing for shown, file in after.get(name, {}).items()}
    known = {file.path: file for file in snapshot.files}
    unread = {shown: place for shown, (sha256, place) in fresh.items() if shown not in known or known[shown].sha256 != sha256}
    read = read_as(engine, source, snapshot.reading, unread, columns, _optional(snapshot))
    measured, odd = read.measured, {**read.other_columns, **read.unreadable}
    numbers = {shown: measured[shown].numbers if shown in measured else known[shown].numbers for shown in fresh if shown not in odd}
    if not odd and len(differing) > 1 and _sum(before, differing) == summed(numbers.values()):
        return Coverage(tuple(_same(source, name, before.get(name), after.get(name, {})) for name in differing))
    found: list[Verdict] = []
    needed = [name for name in differing if name in after or need is None or need.touches(before[name].first, before[name].last)]
    for name in needed:
        was, now = before.get(name), after.get(name, {})
        if not now:
            assert was is not None
            found.append(_missing(source, was))
        elif broken := {shown: read.unreadable[shown] for shown in now if shown in read.unreadable}:
            told = "; ".join(broken.values())
            found.append(_drifted(source, name, "nothing there" if was is None else f"{was.numbers.count:,} rows", told, now))
        elif other := {shown: read.other_columns[shown] for shown in now if shown in read.other_columns}:
            found.append(_other_schema(source, name, was, other, now))
        elif was is not None and was.numbers == summed(numbers[shown] for shown in now):
            found.append(_same(source, name, was, now))
        else:
            there = [measured[shown] for shown in now if shown in measured]
            extent = _extent([(one.first, one.last) for one in there] + ([(was.first, was.last)] if was else []))
            if need is not None and not need.touches(*extent):
                continue
            rows = summed(numbers[shown] for shown in now)
            found += _changed(engine, source, snapshot, was, name, now, rows, kept, columns, need)
    return Coverage(tuple(found))


def _changed(
    engine: DuckDB, source: EventSource, snapshot: Snapshot, was: Partition | None, name: str, now: Mapping[str, tuple[str, Path]],
    rows: Numbers, kept: Mapping[str, Path], columns: Sequence[Column], need: Need | None,
) -> list[Verdict]:  # fmt: skip
    """Other rows than in the snapshot: growth where all that came is later than anything it has, else drift."""
    expected = "nothing there" if was is None else f"{was.numbers.count:,} rows"
    places = [kept[file.path] for file in was.files if file.path in kept] if was else []
    if was is not None and len(places) < len(was.files):
        difference = rows.count - was.numbers.count
        told = f"{rows.count:,} other rows ({difference:+,} on balance; the snapshot's own copy is gone, so they cannot be compared)"
        return [_drifted(source, name, expected, told, now)]
    old = groups_of(engine, source, snapshot.reading, places, columns)
    new = groups_of(engine, source, snapshot.reading, [place for _, place in now.values()], columns)
    change = row_changes(engine, source, old, new, need)
    if change.is_none:  # what differs is outside of what is needed
        return []
    if need is not None and change.minus == 0 and snapshot.last is not None and (change.first_added or 0) > snapshot.last:
        found = f"{change.plus:,} more, all later than {format_instant(snapshot.last)}"
        remedy = f"To keep what is read now: featreg snapshot take {source.name}"
        return [Verdict(Kind.GROWN, source.name, name, expected, found, remedy, False, _written_at(now))]
    return [_drifted(source, name, expected, f"{rows.count:,} rows; rows +{change.plus:,} −{change.minus:,}", now)]


def _drifted(source: EventSource, name: str, expected: str, found: str, now: Mapping[str, tuple[str, Path]]) -> Verdict:
    remedy = (
        "Read the snapshot instead (snapshot=), or put the partition back; if the change is meant: "
        f"featreg snapshot take {source.name}"
    )  # fmt: skip
    return Verdict(Kind.CONTENT_DRIFT, source.name, name, expected, found, remedy, True, _written_at(now))


def _missing(source: EventSource, was: Partition) -> Verdict:
    files = f"{len(was.files)} file{'' if len(was.files) == 1 else 's'}, {was.numbers.count:,} rows"
    expected = f"{files} of {_extent_text(was.first, was.last)}" if was.first is not None else files
    return Verdict(
        Kind.PARTITION_MISSING, source.name, was.name, expected, "no file there",
        "Read the snapshot instead (snapshot=), or put the partition back.",
    )  # fmt: skip


def _same(source: EventSource, name: str, was: Partition | None, now: Mapping[str, tuple[str, Path]]) -> Verdict:
    expected = "nothing there" if was is None else f"{was.numbers.count:,} rows in {len(was.files)} files"
    found = f"the same rows in {len(now)} other files" if now else "its rows in other files"
    return Verdict(
        Kind.REWRITTEN_SAME, source.name, name, expected, found, "Nothing needs to be done.", False,
        _written_at(now) if now else Verdict.last_event,
    )  # fmt: skip


def _other_schema(
    source: EventSource, name: str, was: Partition | None, odd: Mapping[str, str], now: Mapping[str, tuple[str, Path]]
) -> Verdict:
    expected = "nothing there" if was is None else f"{was.numbers.count:,} rows of the snapshot's columns"
    told = "; ".join(dict.fromkeys(odd.values()))
    remedy = "Read the snapshot instead (snapshot=), or write the columns as they were; if the change is meant: " + (
        f"featreg snapshot take {source.name}"
    )
    return Verdict(Kind.SCHEMA_DRIFT, source.name, name, expected, told, remedy, True, _written_at(now))


def _hashes(partition: Partition | None) -> dict[str, str]:
    return {file.path: file.sha256 for file in partition.files} if partition is not None else {}


def _now(files: Mapping[str, tuple[str, Path]]) -> dict[str, str]:
    return {shown: sha256 for shown, (sha256, _) in files.items()}


def _sum(partitions: Mapping[str, Partition], names: Iterable[str]) -> Numbers:
    return summed(partitions[name].numbers for name in names if name in partitions)


def _extent(extents: Sequence[tuple[int | None, int | None]]) -> tuple[int | None, int | None]:
    return (
        min((first for first, _ in extents if first is not None), default=None),
        max((last for _, last in extents if last is not None), default=None),
    )


def _extent_text(first: int | None, last: int | None) -> str:
    return f"{format_instant(first or 0)} to {format_instant(last or 0)}"


def _written_at(now: Mapping[str, tuple[str, Path]]) -> str:
    """When the newest of the files was written, by its mtime."""
    newest = max((place.stat().st_mtime for _, place in now.values()), default=0.0)
    return f"a file was written there at {datetime.fromtimestamp(int(newest), UTC).isoformat().replace('+00:00', 'Z')}"
