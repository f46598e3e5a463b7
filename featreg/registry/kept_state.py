"""Load the state of a log of any length in milliseconds: a fold that is kept beside it, and the records since.

What is kept is disposable and on this machine only.  It names the record it was folded to by number and chain, and counts only
while the log has that very record there; `doctor` folds the whole log anew and compares.
"""

import json
import os
from pathlib import Path

from featreg.errors import StoreError
from featreg.registry.log import ControlLog, Head
from featreg.registry.state import ControlState, as_document, fold, of_document

FORM = 1
KEEP_EVERY = 500  # records that a load may have to fold


def load_state(log: ControlLog, path: Path, keep_every: int = KEEP_EVERY) -> ControlState:
    """The state at the log's end.  path: of the kept fold, which is written anew when that many records came since."""
    head, kept = read_kept(path)
    if kept is None or (head.generation and log.chain_at(head.generation) != head.chain):
        kept = ControlState()
    state = fold(log.iterate(kept.generation), kept)
    if state.generation - kept.generation >= keep_every:
        chain = log.chain_at(state.generation)
        if chain:
            _keep(path, Head(state.generation, chain), state)
    return state


def read_kept(path: Path) -> tuple[Head, ControlState | None]:
    """What is kept, whether it still counts or not; None for a file that is not there, damaged or of another form."""
    try:
        document = json.loads(path.read_bytes())
        if document["form"] == FORM:
            return Head(document["generation"], document["chain"]), of_document(document["state"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Head(), None


def kept_problems(log: ControlLog, path: Path) -> list[str]:
    """Whether a kept fold that counts is what the log's records come to."""
    head, kept = read_kept(path)
    try:
        if kept is None or log.chain_at(head.generation) != head.chain:
            return []
        found = fold(record for record in log.iterate() if record.generation <= head.generation)
    except (StoreError, KeyError):  # a log that is damaged is told by its chain
        return []
    return [] if found == kept else [f"the state kept in {path} is not what the log's records come to"]


def _keep(path: Path, head: Head, state: ControlState) -> None:
    """Best effort: a folder that cannot be written to only costs time."""
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({"form": FORM, "generation": head.generation, "chain": head.chain, "state": as_document(state)}))
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
