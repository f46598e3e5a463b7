"""`source infer`: print the EventSource that declares a file.  `source rejected`: the rows that a source did not take in."""

import json
import re
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featreg.cli.arguments import Settings
from featreg.cli.completion import complete_names
from featreg.cli.terminal import add_rows, escape, show, table
from featreg.errors import DataError, UsageError
from featreg.instants import format_instant

if TYPE_CHECKING:
    from rich.console import Console

    from featreg.engines.duckdb import DuckDB

app = typer.Typer(help="Declare a source from a file; list the rows that one did not take in.", no_args_is_help=True)

_TYPES = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"), "BIGINT"),
    **dict.fromkeys(("UBIGINT", "HUGEINT", "UHUGEINT"), "DECIMAL(38,0)"),
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE"), "TIMESTAMP"),
    **{name: name for name in ("DOUBLE", "FLOAT", "BOOLEAN", "VARCHAR", "DATE")},
}
_AVAILABLE = re.compile(r"load|ingest|arriv(ed|al)_?(at|time)?$|receiv|insert|availab|known|process|landed|written|synced", re.IGNORECASE)
_EVENT = (
    re.compile(r"^(event_?time|event_?timestamp|occurred_?at|happened_?at)$", re.IGNORECASE),
    re.compile(r"_at$|^at$", re.IGNORECASE),
    re.compile(r"^(ts|timestamp|time|datetime|date)$", re.IGNORECASE),
    re.compile(r"time|date|_ts$|_on$", re.IGNORECASE),
)


@dataclass(frozen=True)
class Inferred:
    """A source as a file suggests it.  columns: (name, type, or None for what cannot be declared; DuckDB's type); block: to paste."""

    name: str
    columns: tuple[tuple[str, str | None, str], ...]
    event_time: str
    available: str | None
    notes: tuple[str, ...]
    block: str
    location: str


@app.callback()
def _sources() -> None:
    """Declare a source from a file; list the rows that one did not take in."""


@app.command("infer")
def infer(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Parquet, CSV or JSON: a path or a glob.")],
    name: Annotated[str | None, typer.Option("--name", metavar="N", help="The source's name; default: the file's.")] = None,
) -> None:
    """Print the EventSource block to paste, with a guess at the event time."""
    settings: Settings = context.obj
    found = infer_source(file, name)

    def render(console: "Console") -> None:
        console.print(found.block, markup=False, soft_wrap=True)
        console.print(f"\n# conf/{settings.profile}.toml\n{found.location}", markup=False, soft_wrap=True)

    show(settings, found, render)


@app.command("rejected")
def rejected(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", autocompletion=complete_names("sources"))],
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="The newest N.")] = 20,
) -> None:
    """List the newest rows pushed to a source that were not taken in, each with its reason."""
    import featreg

    settings: Settings = context.obj
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        found = deque(registry.rejected(source), limit)

    def render(console: "Console") -> None:
        if not found:
            console.print(f"[green]no row pushed to {escape(source)} was rejected[/green]")
            return
        shown = ((format_instant(one.at)[:19], one.id or "", one.row, one.reason, json.dumps(one.values)) for one in found)
        console.print(add_rows(table("when", "push", "row", "reason", "values", right=("row",)), shown))

    show(settings, {"rejected": [asdict(one) | {"at": format_instant(one.at)} for one in found]}, render)


def infer_source(file: str, name: str | None = None) -> Inferred:
    """Read a file's columns and a little of its data.

    Raises: DataError when it cannot be read, or no column of it is a time.
    """
    import tempfile

    from featreg.engines.duckdb import DuckDB, source_files

    files = source_files(str(Path(file).expanduser()), Path.cwd())
    if not files:
        raise DataError(f"there is no file {file}.")
    engine = DuckDB({}, Path(tempfile.gettempdir()))
    try:
        return _infer(engine, file, files, name or _name_of(files[0]))
    finally:
        engine.close()


def _infer(engine: "DuckDB", file: str, files: list[str], name: str) -> Inferred:
    from featreg.engines.duckdb import reader_of

    reader = reader_of(files[0])
    if reader is None:
        raise UsageError(f"{file} is no Parquet, CSV or JSON file by its ending.")
    listed = ", ".join("'" + one.replace("'", "''") + "'" for one in files)
    relation = engine.describe(f"{reader}([{listed}])", file)
    columns = tuple((column, _type_of(found) if column.isidentifier() else None, found) for column, found in relation.columns)
    times = [(column, kind) for column, kind, _ in columns if kind in ("TIMESTAMP", "DATE")]
    if not times:
        raise DataError(
            f"{file}: no column is a TIMESTAMP or a DATE, so nothing says when a row happened.\n  Its columns are: {_listed(columns)}."
        )
    event_time, kind = _event_time(times)
    late = [column for column, _ in times if column != event_time and _AVAILABLE.search(column)]
    available = _confirmed(engine, relation.text, event_time, late)
    notes = _notes(times, event_time, kind, available, columns)
    return Inferred(
        name,
        columns,
        event_time,
        available,
        notes,
        _block(name, columns, event_time, kind, available, notes),
        f'[sources]\n{name} = "{file}"',
    )


def _event_time(times: list[tuple[str, str]]) -> tuple[str, str]:
    """The column most likely to say when a row happened: by its name, TIMESTAMP before DATE, not one that says when it was loaded."""
    own = [one for one in times if not _AVAILABLE.search(one[0])] or times
    for kind in ("TIMESTAMP", "DATE"):
        for pattern in _EVENT:
            for one in own:
                if one[1] == kind and pattern.search(one[0]):
                    return one
    return own[0]


def _confirmed(engine: "DuckDB", text: str, event_time: str, candidates: list[str]) -> str | None:
    """The first candidate that is never before the event."""
    from featreg.plan.relation import quote

    for column in candidates:
        if engine.rows(f"SELECT count(*) FROM {text} WHERE {quote(column)} < {quote(event_time)}")[0][0] == 0:
            return column
    return None


def _notes(times: list[tuple[str, str]], event_time: str, kind: str, available: str | None, columns: tuple) -> tuple[str, ...]:
    notes = []
    others = [column for column, _ in times if column not in (event_time, available)]
    if others:
        notes.append(f"event_time is a guess; other times are: {', '.join(others)}")
    if available is None and kind == "TIMESTAMP":
        notes.append('a row is taken to be readable the moment it happened; if it is not, declare available="column" or Delay("15m")')
    for column, mine, found in columns:
        if mine is None:
            why = (
                f"is a {found}, which no feature can read"
                if column.isidentifier()
                else "has a name that is none; rename it where it is written"
            )
            notes.append(f"column '{column}' {why}")
    return tuple(notes)


def _block(name: str, columns: tuple, event_time: str, kind: str, available: str | None, notes: tuple[str, ...]) -> str:
    needs_delay = kind == "DATE" and available is None
    lines = [f"from featreg import {'Delay, ' if needs_delay else ''}EventSource", ""]
    lines += [f"# {note}" for note in notes]
    lines += [f"{_identifier(name)} = EventSource(", f"    name={_text(name)},", "    columns={"]
    lines += [f"        {_text(column)}: {_text(mine)}," for column, mine, _ in columns if mine is not None]
    lines += ["    },", f"    event_time={_text(event_time)},"]
    if available is not None:
        lines.append(f"    available={_text(available)},")
    elif needs_delay:
        lines.append('    available=Delay("1d"),  # a DATE is its first instant, and its day is over a day later')
    return "\n".join([*lines, ")"])


def _type_of(found: str) -> str | None:
    if found.startswith("ENUM"):
        return "VARCHAR"
    return found if found.startswith("DECIMAL") and not found.endswith("]") else _TYPES.get(found)


def _name_of(file: str) -> str:
    """A file's name without its endings, or the folder's when the name is a part's number."""
    path = Path(file)
    stem = path.name.split(".")[0]
    return _identifier(path.parent.name if re.fullmatch(r"(part|data|file)?[-_]?[\d-]*", stem) else stem)


def _identifier(text: str) -> str:
    bare = re.sub(r"\W+", "_", text).strip("_").lower() or "events"
    return f"_{bare}" if bare[0].isdigit() else bare


def _text(value: str) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)


def _listed(columns: tuple) -> str:
    return ", ".join(f"{column} {found}" for column, _, found in columns)
