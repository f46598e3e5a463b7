"""Write values as JSON that gives them back to the bit and with their type, for what is logged and compared later."""

import struct
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from featreg.instants import format_instant, parse_instant


def to_json(value: Any) -> Any:
    """A value of a feature or a key as JSON; what JSON has no form for is an object of one member that says what it is."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return {"double": struct.pack(">d", value).hex()}
        case datetime():
            return {"instant": parse_instant(value)}
        case date():
            return {"date": value.isoformat()}
        case Decimal():
            return {"decimal": str(value)}
        case list():
            return [to_json(one) for one in value]
        case tuple():
            return {"pair": [to_json(one) for one in value]}
    raise TypeError(f"no feature has a {type(value).__name__}")


def from_json(value: Any) -> Any:
    match value:
        case {"double": text}:
            return struct.unpack(">d", bytes.fromhex(text))[0]
        case {"instant": micros}:
            return datetime.fromtimestamp(0, UTC).fromisoformat(format_instant(micros).replace("Z", "+00:00"))
        case {"date": text}:
            return date.fromisoformat(text)
        case {"decimal": text}:
            return Decimal(text)
        case {"pair": parts}:
            return tuple(map(from_json, parts))
        case list():
            return list(map(from_json, value))
    return value


def row_to_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: to_json(value) for name, value in row.items()}


def row_from_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: from_json(value) for name, value in row.items()}
