"""Take the entity key of a row as a caller gives it, and say what it is called in the store."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from featreg.errors import DataError, did_you_mean
from featreg.instants import parse_instant
from featreg.stores.codec import key_encoder, part_encoder
from featreg.vocabulary import DataType

_NO_KEY = b"\2"
_PLAIN = {"BIGINT": int, "INTEGER": int, "VARCHAR": str}
KeyShape = tuple[tuple[str, ...], tuple[str, ...]]  # columns of a row that are a key, and their types


class KeyParts:
    """An entity's key as columns of a row.  columns: the row's column for each part, in the key's order."""

    def __init__(self, view: str, columns: tuple[str, ...], key: Sequence[tuple[str, DataType]]):
        self.view, self.columns = view, columns
        self.shape: KeyShape = (columns, tuple(kind.name for _, kind in key))
        self.encode = key_encoder([kind for _, kind in key])
        self.convert = tuple(_key_converter(column, kind) for column, (_, kind) in zip(columns, key))
        self.plain = _PLAIN.get(key[0][1].name) if len(key) == 1 else None
        self.encode_part = part_encoder(key[0][1]) if len(key) == 1 else None

    def encoded(self, row: Mapping[str, Any]) -> bytes:
        """The key's bytes; for one with a NULL, which is in no window, a name that no key has."""
        parts = []
        for column, convert in zip(self.columns, self.convert):
            if column not in row:
                raise DataError(f"key '{column}' of view '{self.view}' is missing.\n  {did_you_mean(column, list(row), 'Given are')}")
            try:
                parts.append(convert(row[column]))
            except _NullKey:
                return _NO_KEY
        return self.encode(parts)

    def different(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[bytes], np.ndarray | None]:
        """The keys of rows, as `encoded`, each once, and which of these keys each row has; None: each its own."""
        parts = self._plain_parts(rows)
        keys = [self.encoded(row) for row in rows] if parts is None else parts
        number: dict[Any, int] = {}
        index = [number.setdefault(key, len(number)) for key in keys]
        different = number if parts is None or self.encode_part is None else map(self.encode_part, number)
        return list(different), None if len(number) == len(keys) else np.array(index)

    def _plain_parts(self, rows: Sequence[Mapping[str, Any]]) -> list[Any] | None:
        """The keys' one part where it is taken as it is: a fifth of the time of looking at each; None where some needs a look."""
        if self.plain is None:
            return None
        column = self.columns[0]
        try:
            parts = [row[column] for row in rows]
        except KeyError:
            return None
        return parts if set(map(type, parts)) == {self.plain} else None


def _key_converter(column: str, kind: DataType) -> Callable[[Any], Any]:
    """Check a key part's type, and give it as the codec takes it."""

    def wrong(value: Any) -> DataError:
        return DataError(
            f"key '{column}' is {kind}, and {value!r} is a {type(value).__name__}. A key is compared as its type: 1 is not \"1\"."
        )

    def text(value: Any) -> str:
        if value.__class__ is not str:
            if value is None:
                raise _NullKey
            raise wrong(value)
        return value

    def whole(value: Any) -> int:
        if value.__class__ is not int:
            if value is None:
                raise _NullKey
            if isinstance(value, np.integer):
                return int(value)
            raise wrong(value)
        return value

    def truth(value: Any) -> bool:
        if value is None:
            raise _NullKey
        if not isinstance(value, (bool, np.bool_)):
            raise wrong(value)
        return bool(value)

    def day(value: Any) -> int:
        if value is None:
            raise _NullKey
        if isinstance(value, datetime) or not isinstance(value, date):
            raise wrong(value)
        return value.toordinal() - date(1970, 1, 1).toordinal()

    def instant(value: Any) -> int:
        if value is None:
            raise _NullKey
        if not isinstance(value, datetime):
            raise wrong(value)
        return parse_instant(value.astimezone(UTC) if value.tzinfo else value)

    return {"VARCHAR": text, "BOOLEAN": truth, "DATE": day, "TIMESTAMP": instant}.get(kind.name, whole)


class _NullKey(Exception):
    """A key with a NULL part: an empty window."""
