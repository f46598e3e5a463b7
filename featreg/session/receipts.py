"""Tell the event plane what was done and what it cost, so that a plan can say what the like of it will cost.

An event of kind `receipt` has the verb that was called and, for each view, rows, keys, bytes and seconds as far as they are known.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featreg.canonical import bytes_id
from featreg.compile import CompiledView
from featreg.errors import StoreError
from featreg.registry.events import EventPlane
from featreg.registry.log import Record
from featreg.session.output import manifest_text

if TYPE_CHECKING:
    from featreg.session.materialize import Receipt

RECEIPT = "receipt"


def tell_applied(events: EventPlane, record: Record, seconds: float) -> None:
    body = {"verb": "apply", "generation": record.generation, "features": len(record.body["ids"]), "seconds": round(seconds, 4)}
    _tell(events, body)


def tell_materialized(events: EventPlane, receipt: "Receipt", view: CompiledView, generation: int) -> "Receipt":
    """rows: new ones; keys, bytes: written to the store for them."""
    done = {
        "view": receipt.view, "id": view.id, "source": view.scan.source.name,
        "features": sum(feature.aggregation != "" for feature in view.features), "rows": receipt.rows,
        "keys": receipt.keys, "bytes": receipt.bytes, "seconds": round(receipt.seconds, 4), "late_rows": receipt.late_rows,
        "rejected": receipt.rejected, "watermark": receipt.watermark,
    }  # fmt: skip
    _tell(events, {"verb": "materialize", "generation": generation, "views": [done]})
    return receipt


def tell_written(events: EventPlane, manifest: Mapping[str, Any], path: Path | str, seconds: float) -> None:
    """seconds: of the writing; each view has its own for the backfill."""
    views = [
        {"view": one["view"], "rows": one["events"], "rejected": one["rejected"], "seconds": one["seconds"]} for one in manifest["views"]
    ]
    body = {
        "verb": "training-set", "set": manifest["set"], "pin": manifest["asked"]["pin"], "rows": manifest["rows"],
        "bytes": _bytes_of(path), "seconds": round(seconds, 4), "path": str(path), "views": views,
        "manifest": bytes_id(manifest_text(manifest).encode()), "features": json.loads(json.dumps(manifest["features"])),
    }  # fmt: skip
    _tell(events, body)


def _bytes_of(path: Path | str) -> int:
    """Of a file, or of all files in a folder; 0 at a URI."""
    if isinstance(path, str):
        return 0
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _tell(events: EventPlane, body: Mapping[str, Any]) -> None:
    tell(events, RECEIPT, body)


def tell(events: EventPlane, kind: str, body: Mapping[str, Any]) -> None:
    """The work is done and stands: that it could not be noted is a warning."""
    try:
        events.record(kind, body)
    except StoreError as error:
        warnings.warn(f"what was done stands, but its receipt was not written: {error}", stacklevel=3)
