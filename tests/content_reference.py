"""What a content id is, read as a loop over rows: the second witness of the SQL.  Imports nothing of featreg.

A column is (name, kind, values).  kind: the name of its family, or with parts: ("decimal", scale), ("list", element),
("map", key, value).  Values: int, bool, float, str, days for a date, UTC microseconds for a timestamp, an unscaled int for a
decimal, a list, a list of pairs for a map.
"""

import hashlib
import math
import struct


def cell(value, kind) -> bytes:
    name, *parts = (kind,) if isinstance(kind, str) else kind
    if value is None:
        return b"n;"
    match name:
        case "integer":
            return b"i%d;" % value
        case "bool":
            return b"b1;" if value else b"b0;"
        case "double":
            if math.isnan(value):
                return b"d7ff8000000000000;"
            return b"d" + struct.pack(">d", 0.0 if value == 0 else value).hex().encode() + b";"
        case "string":
            text = value.encode()
            return b"s%d:%s;" % (len(text), text)
        case "date":
            return b"a%d;" % value
        case "timestamp":
            return b"t%d;" % value
        case "decimal":
            return b"c%d:%d;" % (value, parts[0])
        case "list":
            return b"l%d:%s;" % (len(value), b"".join(cell(item, parts[0]) for item in value))
        case "map":
            pairs = sorted(value, key=lambda pair: in_order(pair[0]))
            return b"m%d:%s;" % (len(pairs), b"".join(cell(key, parts[0]) + cell(item, parts[1]) for key, item in pairs))
    raise AssertionError(kind)


def in_order(key):
    """Text by its bytes, NaN above all numbers."""
    if isinstance(key, str):
        return key.encode()
    return (math.isnan(key), 0 if math.isnan(key) else key)


def numbers(columns, rows: int) -> list[int]:
    """The nine: the count, and the sums of the limbs."""
    ordered = sorted(columns, key=lambda column: column[0].encode())
    found = [rows, *[0] * 8]
    for row in range(rows):
        text = b"".join(cell(values[row], kind) for _, kind, values in ordered)
        for i, limb in enumerate(struct.unpack(">8I", hashlib.sha256(text).digest())):
            found[1 + i] += limb
    return found


def content_id(columns, rows: int) -> str:
    ordered = sorted(columns, key=lambda column: column[0].encode())
    shape = ",".join(f"{name}:{kind if isinstance(kind, str) else kind[0]}" for name, kind, _ in ordered)
    nine = ",".join(map(str, numbers(columns, rows)))
    return hashlib.sha256(f"featreg-fp/1|{shape}|{nine}".encode()).hexdigest()
