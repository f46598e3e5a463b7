"""Print results: tables and colours for people, one JSON document for programs, progress for those who wait."""

import json
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from featreg.cli.arguments import Settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPED_WIDTH = 200


def show(settings: Settings, document: Any, render: "Callable[[Console], None]") -> None:
    """Print `document` as JSON when that was asked for, else what `render` prints."""
    if settings.json:
        print(json.dumps(_jsonable(document), indent=2, ensure_ascii=False))
    else:
        render(console())


def console(to_stderr: bool = False) -> "Console":
    """A console without guessing: no markup or highlighting of what happens to look like it; wide where nobody looks."""
    from rich.console import Console

    stream = sys.stderr if to_stderr else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(stderr=to_stderr, width=width, highlight=False, markup=True, emoji=False)


def table(*columns: str, right: Sequence[str] = (), title: str | None = None) -> "Table":
    """An airy table: a rule under its head and nothing else.  right: the columns of numbers."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", header_style="dim", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def add_rows(to: "Table", rows: Iterable[Sequence[object]]) -> "Table":
    for row in rows:
        to.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    return to


def escape(text: str) -> str:
    """Text that came from elsewhere, so that its brackets are brackets."""
    from rich.markup import escape

    return escape(text)


@contextmanager
def progress(settings: Settings, what: str) -> Iterator[Callable[[str, int], None]]:
    """Show rows as they are read, a line for each view, on stderr when someone watches; gives what to call with them."""
    if settings.json or not sys.stderr.isatty():
        yield lambda _view, _rows: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    rows = TextColumn("{task.completed:>13,.0f} rows")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20), rows, TimeElapsedColumn())
    with Progress(*columns, console=console(to_stderr=True), transient=True) as bar:
        tasks = {"": bar.add_task(what, total=None)}

        def advance(view: str, rows: int) -> None:
            if view not in tasks:
                for task in tasks.values():
                    bar.update(task, total=bar.tasks[task].completed)
                tasks[view] = bar.add_task(f"{what}  {view}", total=None)
                bar.update(tasks[""], visible=False)
            bar.advance(tasks[view], rows)

        yield advance


def note(settings: Settings, text: str) -> None:
    """Say something beside the result, on stderr."""
    if not settings.json:
        console(to_stderr=True).print(f"[dim]{escape(text)}[/dim]")


def warn(text: str) -> None:
    """Say on stderr, in one form for all verbs, what did not stop the verb and is not as it should be."""
    console(to_stderr=True).print(f"[yellow]warning:[/yellow] {escape(text)}", soft_wrap=True)


@contextmanager
def warnings_told() -> Iterator[None]:
    """Tell what the library warns of as `warn` does, and not with Python's file and line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        finally:
            for one in caught:
                warn(str(one.message))


def say_if_compiling(settings: Settings, state: Any) -> None:
    """Tell whoever waits that the first run compiles the kernels."""
    from featreg.kernels import is_compiled

    if not is_compiled(state):
        note(settings, "first run here: compiling the kernels that are needed, once; some 10 s on two cores")


def value_text(value: Any) -> str:
    """A feature's value for a table cell."""
    match value:
        case None:
            return "NULL"
        case float():
            return f"{value:.6g}"
        case bool():
            return str(value).lower()
        case datetime() | date():
            return value.isoformat()
    return str(value)


def counted(number: int, noun: str, many: str = "") -> str:
    """A number of things.  many: the plural, where it is not the noun and an s."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def seconds_text(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def bytes_text(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def _jsonable(value: Any) -> Any:
    """What JSON has a form for; NaN and infinities, decimals and instants become text."""
    match value:
        case dict():
            return {str(key): _jsonable(item) for key, item in value.items()}
        case list() | tuple():
            return [_jsonable(item) for item in value]
        case float():
            return value if math.isfinite(value) else str(value)
        case None | bool() | int() | str():
            return value
        case datetime() | date():
            return value.isoformat()
        case _ if is_dataclass(value) and not isinstance(value, type):
            return _jsonable(asdict(value))
    return str(value)
