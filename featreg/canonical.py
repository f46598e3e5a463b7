"""Give the same bytes, and so the same SHA-256, to equal values: the only hashing in featreg."""

import hashlib
import json
from pathlib import Path

_PLAIN = (str, int, bool, type(None))


def canonical_json(value: object) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces.

    Floats are not allowed: a literal goes in as text, so that no printer moves an id.
    """
    _refuse_floats(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def content_id(value: object) -> str:
    """SHA-256 of `value`'s canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def bytes_id(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def file_id(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise TypeError("a float in canonical JSON; give its text")
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value), "canonical JSON keys are text"
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for item in value:
        if type(item) not in _PLAIN:  # most are: a call for each would be half of the time
            _refuse_floats(item)
