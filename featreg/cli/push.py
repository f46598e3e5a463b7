"""`push`: take the rows of a file, or of stdin, into a source as they happen."""

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featreg.cli.arguments import Settings
from featreg.cli.completion import complete_names
from featreg.cli.online import not_filled
from featreg.cli.terminal import counted, escape, say_if_compiling, show
from featreg.errors import DataError, UsageError
from featreg.instants import format_instant

if TYPE_CHECKING:
    from rich.console import Console

    from featreg.session import Registry
    from featreg.session.push import PushReceipt

LINES_A_PUSH = 10_000
_SHOWN = 10
_JSON = (".json", ".jsonl", ".ndjson")
_ENDINGS = {"parquet": ".parquet", "csv": ".csv", "json": ".jsonl"}


@dataclass(frozen=True)
class Portion:
    """What became of a portion of the input.  lines: the line of each of its rows, where rows are lines."""

    receipt: "PushReceipt"
    rows: int
    lines: Sequence[int] | None = None


def push(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", autocompletion=complete_names("sources"))],
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Parquet, CSV or JSON lines; - is stdin.")],
    id: Annotated[str | None, typer.Option("--id", metavar="ID", help="What this push is called: sent again, it is taken in once.")] = None,
    format: Annotated[str, typer.Option("--format", metavar="F", help="Of stdin: json (lines), csv or parquet.")] = "json",
) -> None:
    """Take rows in: checked, durable, and in every realtime answer at once.  Rejected rows are told, and kept as dead letters."""
    import featreg

    settings: Settings = context.obj
    if format not in _ENDINGS:
        raise UsageError(f"--format {format} is not read here. It is one of: {', '.join(_ENDINGS)}.")
    if file != "-" and not Path(file).exists():
        raise DataError(f"there is no file {file}.")
    with featreg.open(settings.repository, profile=settings.profile) as registry:
        say_if_compiling(settings, registry.profile.state)
        portions = list(_pushed(registry, source, file, id, format))
        unfilled = registry.pusher(source).unfilled() if portions else []
    _tell(settings, source, portions, unfilled)
    if any(one.receipt.rejected for one in portions):
        raise typer.Exit(DataError.exit_code)


def _pushed(registry: "Registry", source: str, file: str, id: str | None, format: str) -> Iterator[Portion]:
    if file != "-" and Path(file).suffix.lower() in _JSON and Path(file).is_file():
        with Path(file).open("rb") as lines:
            if lines.read(1) == b"[":
                rows = _list(file, b"[" + lines.read())
                yield Portion(registry.push(source, rows, id), len(rows))
            else:
                lines.seek(0)
                yield from _push_lines(registry, source, lines, id)
    elif file != "-":
        yield _push_file(registry, source, Path(file), id)
    elif format == "json":
        yield from _push_lines(registry, source, sys.stdin.buffer, id)
    else:
        with tempfile.NamedTemporaryFile(suffix=_ENDINGS[format]) as spooled:
            spooled.write(sys.stdin.buffer.read())
            spooled.flush()
            yield _push_file(registry, source, Path(spooled.name), id, "what came on stdin")


def _push_file(registry: "Registry", source: str, file: Path, id: str | None, called: str = "") -> Portion:
    """Push a whole file.  called: what errors call it, for whoever gave it did not think of a source's location."""
    from featreg.engines.duckdb import reader_of

    called = called or str(file)
    if reader_of(file.name) is None or not file.is_file():
        raise UsageError(f"{called} is no Parquet, CSV or JSON file by its ending.\n  Name it so; or give it on stdin (-), with --format.")
    pusher = registry.pusher(source)  # a wrong name is told before the file is read
    try:
        relation = registry.engine.location(source, {"path": [str(file.resolve())]}, registry.root)
        table = registry.engine.table(f"SELECT * FROM {relation.text}")
    except DataError as error:
        why = re.sub(rf"^(source '{re.escape(source)}'(:| cannot be read:)|a \w+ failed:) ", "", str(error))
        raise DataError(f"{called} cannot be read: {why}\n  Nothing of it was taken in.") from None
    return Portion(pusher.push(table, id, relation.loose), table.num_rows)


def _list(file: str, text: bytes) -> list[Any]:
    try:
        rows: list[Any] = json.loads(text)
    except ValueError as error:
        raise DataError(f"{file} is no JSON: {error}.\n  Write a list of objects, or one object a line.") from None
    wrong = next((number for number, row in enumerate(rows) if not isinstance(row, dict)), None)
    if wrong is not None:
        raise DataError(f"{file}: item {wrong} is no row: write an object, column -> value.")
    return rows


def _push_lines(registry: "Registry", source: str, lines: Any, id: str | None) -> Iterator[Portion]:
    """Push what comes in portions as it comes; with an id all of it is one push."""
    numbered, taken = enumerate(lines, 1), 0
    while portion := list(islice(numbered, None if id is not None else LINES_A_PUSH)):
        rows = {number: _row(number, line, taken) for number, line in portion if line.strip()}
        yield Portion(registry.push(source, list(rows.values()), id), len(rows), list(rows))
        taken = portion[-1][0]


def _row(number: int, line: bytes, taken: int) -> dict[str, Any]:
    """The row of a line.  taken: up to which line they are taken in.  Raises: DataError that says so."""
    try:
        row = json.loads(line)
    except ValueError as error:  # JSON's and UTF-8's errors both are
        row, told = None, f"no JSON: {error}"
    else:
        told = "a list" if isinstance(row, list) else "no object"
    if isinstance(row, dict):
        return row
    if taken:
        remedy = f"Lines 1 to {taken:,} are taken in: mend it, then push from line {taken + 1:,} on.  With --id all lines are one push."
    else:
        remedy = "Nothing was taken in: mend it, then push again."
    raise DataError(f"line {number:,} is {told}; write one object a line, column -> value.\n  {remedy}")


def _tell(settings: Settings, source: str, portions: Sequence[Portion], unfilled: Sequence[str]) -> None:
    receipts = [one.receipt for one in portions]
    accepted = sum(one.accepted for one in receipts)
    rejected = list(_rejected(portions))
    duplicate = bool(receipts) and all(one.duplicate for one in receipts)
    watermark = receipts[-1].watermark if receipts else None

    def render(console: "Console") -> None:
        if duplicate:
            console.print("[dim]taken in before, under the same id: nothing was done[/dim]", soft_wrap=True)
        told = f", [red]{len(rejected):,} rejected[/red]" if rejected else ""
        console.print(f"[green]{counted(accepted, 'row')}[/green] taken in{told}")
        for one in rejected[:_SHOWN]:
            place = f"line {one['line']}" if "line" in one else f"row {one['row']}"
            console.print(f"  {place}: {escape(one['reason'])}", soft_wrap=True)
        if len(rejected) > _SHOWN:
            console.print(f"  … and {len(rejected) - _SHOWN:,} more: featreg source rejected {escape(source)}", soft_wrap=True)
        for view in unfilled:
            console.print(f"[yellow]{escape(not_filled(view, f'featreg materialize {view}'))}[/yellow]", soft_wrap=True)

    document = {
        "accepted": accepted,
        "rejected": rejected,
        "duplicate": duplicate,
        "watermark": None if watermark is None else format_instant(watermark),
    }
    show(settings, document, render)


def _rejected(portions: Sequence[Portion]) -> Iterator[dict[str, Any]]:
    """Each rejected row with its place in all of the input: its number, from 0, and where rows are lines its line, from 1."""
    before = 0
    for portion in portions:
        for one in portion.receipt.rejected:
            line = {} if portion.lines is None else {"line": portion.lines[one.row]}
            yield {"row": before + one.row, **line, "reason": one.reason}
        before += portion.rows
