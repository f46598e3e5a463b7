"""Log what was served, for a share of keys that is the same everywhere, with what each view held when it answered.

An event of kind `served` is enough to compute the vector again: the set and the generation that answered, the row that was
asked for, the instant, the values to the bit, and per view how far its runs and the push log had come.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from featreg.errors import StoreError
from featreg.instants import earliest
from featreg.session.cells import row_to_json
from featreg.session.feed import fed_state
from featreg.session.vectors import Vector

if TYPE_CHECKING:
    from featreg.registry.events import EventPlane
    from featreg.session.online import SetReader

SERVED = "served"


def is_sampled(key: Mapping[str, Any], share: float) -> bool:
    """Whether vectors of a key are logged: by its hash alone, so that each process and each day logs the same keys.

    >>> [is_sampled({"customer": "ann"}, share) for share in (0, 1)]
    [False, True]
    """
    if share >= 1:
        return True
    text = json.dumps(row_to_json(key), sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") < share * 2**64


class ServeLog:
    """Logs for one reader.  share: of the keys, from 0 to 1."""

    def __init__(self, events: "EventPlane", share: float):
        self.events, self.share = events, share

    def note(
        self, reader: "SetReader", pin: str | None, rows: Sequence[Mapping[str, Any]], vectors: Sequence[Vector], as_of: int,
        generation: int,
    ) -> None:  # fmt: skip
        """Log those of the vectors whose key is sampled.  That one could not be is a warning: it was served."""
        key_columns = list(dict.fromkeys(column for lookup in reader.lookups for column in lookup.key.columns))
        wanted = [*key_columns, *(name for name, _ in reader.set.request)]
        held: dict[str, Any] | None = None
        chosen = [at for at, row in enumerate(rows) if is_sampled({column: row[column] for column in key_columns}, self.share)]
        is_few = 8 * len(chosen) < len(rows)
        for at in chosen:
            row, vector = rows[at], vectors[at : at + 1][0] if is_few else vectors[at]  # few are made alone
            held = held or {lookup.view.name: _held(lookup) for lookup in reader.lookups}
            views = {
                name: {"cutoff": vector.cutoff[name], "watermark": vector.watermark[name], **of_view} for name, of_view in held.items()
            }
            body = {
                "set": reader.set.name, "pin": pin, "generation": generation, "as_of": as_of,
                "row": row_to_json({name: row[name] for name in wanted}), "values": row_to_json(vector.values), "status": vector.status,
                "views": views,
            }  # fmt: skip
            try:
                self.events.record(SERVED, body)
            except StoreError as error:
                warnings.warn(f"a served vector was not logged: {error}", stacklevel=3)


def _held(lookup: Any) -> dict[str, Any]:
    """What the groups of a view had when they were read last: the least of them.  log: the position in the push log; batch: by runs."""
    fed = [fed_state(group.fed) for group in lookup.groups]
    log = min(([one.segment, one.end] for one in fed if one is not None), default=None)
    return {"log": None if None in fed else log, "batched": earliest(group.batched for group in lookup.groups)}
