"""Give the same bytes, and so the same SHA-256, to equal values: the only hashing in featreg."""

import hashlib
import json
from pathlib import Path


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
    match value:
        case float():
            raise TypeError("a float in canonical JSON; give its text")
        case dict():
            for key, item in value.items():
                assert isinstance(key, str), "canonical JSON keys are text"
                _refuse_floats(item)
        case list() | tuple():
            for item in value:
                _refuse_floats(item)
