"""Add a record that follows from what the log comes to: who was overtaken looks again and decides anew."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from featreg.errors import RefusedError
from featreg.registry.kept_state import load_state
from featreg.registry.log import ControlLog, Record
from featreg.registry.state import ControlState

_MOST_LOOKS = 100
OVERTAKEN = "other processes write to the log all the time.\n  Let them finish, then repeat this."


def append_decided(
    log: ControlLog, cache: Path, kind: str, decide: Callable[[ControlState], dict | None], overtaken: str = OVERTAKEN
) -> Record | None:
    """The record of what `decide` says for the state that it follows; None, and no record, where it says that there is nothing to do.

    cache: where the state is kept.  Raises: what `decide` raises; RefusedError (`overtaken`) when others are first each time.
    """
    for _ in range(_MOST_LOOKS):
        generation, state = log.generation(), load_state(log, cache)
        body = decide(state)
        if body is None:
            return None
        with suppress(RefusedError):
            return log.append(kind, body, generation)
    raise RefusedError(overtaken)
