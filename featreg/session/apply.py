"""Change what is applied: the claim comes first, then the work, then one record; a kill anywhere leaves what was applied before."""

import time
from typing import TYPE_CHECKING

from featreg.compile import compile_definitions, repository_id
from featreg.errors import RefusedError, UsageError
from featreg.load import load_files
from featreg.load.files import read_spec_files
from featreg.load.git import tree_state
from featreg.registry.log import Record
from featreg.session.receipts import tell_applied

if TYPE_CHECKING:
    from featreg.session.registry import Registry

_NAMED = 10  # generations in an error


def apply_working_tree(registry: "Registry", expected: int | None) -> Record:
    """The working tree's definitions as the newest record; the last one when they are what it has.

    expected: the generation that was looked at; now when None.
    """
    if registry.revision is not None:
        raise UsageError("a registry opened at a revision is for reading. Open it without one to apply.")
    began = time.perf_counter()
    with registry.log.claimed("apply", registry.log.generation() if expected is None else expected) as claim:
        files = read_spec_files(registry.root)
        compiled = compile_definitions(load_files(files))
        state = tree_state(registry.root)
        if registry.profile.require_clean and not state["clean"]:
            raise RefusedError(
                f"profile '{registry.profile.name}' applies clean trees only, and features/ has uncommitted changes. Commit them first."
            )
        texts = {path: content.decode() for path, content in files.items()}
        last = registry.log.last("apply")
        if last is not None and last.body["files"] == texts and last.body["revision"] == state:
            return last
        body = {"id": repository_id(compiled), "ids": compiled.feature_ids(), "files": texts, "revision": state}
        record = registry.log.append("apply", body, claim=claim)
    tell_applied(registry.events, record, time.perf_counter() - began)
    return record


def apply_again(registry: "Registry", generation: int | None) -> Record:
    """What was applied at a generation, or before the newest, as the newest record."""
    with registry.log.claimed("rollback", registry.log.generation()) as claim:
        last = registry.log.last("apply")
        before = None if last is None else registry.log.last("apply", before=last.generation)
        if before is None:
            raise UsageError("nothing was applied before what is applied now, so there is nothing to go back to.")
        chosen = before if generation is None else registry.log.record(generation)
        if chosen is None or chosen.kind != "apply":
            raise UsageError(f"nothing was applied at generation {generation}. Applied were: {_newest(registry, last)}.")
        return registry.log.append("apply", {**chosen.body, "again": chosen.generation}, claim=claim)


def _newest(registry: "Registry", last: Record | None) -> str:
    """The newest generations that applied something, as text."""
    found: list[str] = []
    while last is not None and len(found) < _NAMED:
        found.append(str(last.generation))
        last = registry.log.last("apply", before=last.generation)
    return ", ".join(reversed(found)) + (" and earlier ones" if last is not None else "")
