"""In random worlds: rows pushed in any portions and any order, with or without runs between, are what the definition says as a loop."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import featreg
from featreg.errors import RefusedError
from featreg.instants import NEVER
from featreg.session import busy_keys
from tests.test_worlds import SET, check_table, compare_online, in_python, repository, shown
from tests.worlds import Step, World, from_micros, worlds_in_steps

REPLAY = 600_000_000  # microseconds: the default of [online] replay


def streamed(files: dict[str, str]) -> dict[str, str]:
    return {name: text.replace("event_time=", 'stream="log", event_time=', 1) for name, text in files.items()}


def check(parent: Path, drawn: tuple[World, list[Step]]) -> None:
    """After each step online = oracle, and at the end training = oracle too."""
    world, steps = drawn
    story = [f"push {step.rows}, to {from_micros(step.to)}, read at {[str(from_micros(at)) for at in step.reads]}" for step in steps]
    is_realtime = all(each.view.oracle.period == 0 for each in world.chosen)
    with shown(world, "steps", *story), repository(parent, streamed(in_python(world))) as root:
        arrived: list[int] = []
        newest = NEVER
        with featreg.open(root) as registry:
            registry.apply()
            for number, step in enumerate(steps):
                rows = list(step.rows)
                for portion in filter(None, (rows[1::3], rows[::3], rows[2::3])):
                    receipt = registry.push("events", world.events.take(pa.array(portion, pa.int64())), id=f"{number} {portion[0]}")
                    newest = max(newest, receipt.watermark or newest)
                arrived += rows
                if not is_realtime or number % 2:
                    registry.materialize(to=from_micros(step.to))
                if arrived:
                    for at in step.reads:
                        if is_realtime or at <= step.to:
                            rows_now = [world.event_rows[n] for n in arrived]
                            check_online(registry, world, rows_now, at, None if is_realtime else step.to, newest)
            if arrived and is_realtime and not world.overflows:
                check_table(world, registry.training_set(SET, world.spine, time="as_of").to_arrow(), world.expected(), world.spine)


def check_online(registry: Any, world: World, rows: Sequence[Mapping[str, object]], at: int, known_at: int | None, newest: int) -> None:
    """newest: the watermark of pushes, behind which an instant may be gone by more than `replay`."""
    asked = [dict(row) | {"as_of": from_micros(at)} for row in world.spine_rows]
    keys = [{name: value for name, value in row.items() if name not in ("row_label", "as_of")} for row in asked]
    if not keys:
        return
    try:
        vectors = registry.online(SET, keys, at=from_micros(at))
    except RefusedError:
        if at >= newest - REPLAY:
            raise
        return
    if all(status == "missing" for vector in vectors for status in vector.status.values()):
        return  # all that was pushed was rejected
    compare_online(f"at {from_micros(at)}", world, world.expected(known_at=known_at, rows=rows, spine=asked), vectors)


@pytest.mark.parametrize(("close_rows", "share"), [(busy_keys.CLOSE_ROWS, 0.1), (1, 0.1)], ids=["as in use", "every key is busy"])
def test_what_is_pushed_in_any_portions_is_what_the_definition_says(
    tmp_path: Path, try_worlds: Callable[..., None], monkeypatch: pytest.MonkeyPatch, close_rows: int, share: float
) -> None:
    monkeypatch.setattr(busy_keys, "CLOSE_ROWS", close_rows)
    try_worlds(lambda drawn: check(tmp_path, drawn), worlds_in_steps(), share=share)
