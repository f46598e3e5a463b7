"""Read Avro messages: by the schema that a message carries, that a registry has under its number, or that both sides agreed on.

Where nothing else is said, that is the contract's own schema (`contract_schema`; `featreg stream SOURCE --schema` prints it).
"""

import base64
import io
import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fastavro
from fastavro.schema import SchemaParseException, fingerprint, parse_schema, to_parsing_canonical_form

from featreg.define import EventSource
from featreg.errors import StoreUnavailable, UsageError
from featreg.vocabulary import DataType

Row = dict[str, Any]
CONTAINER, SINGLE_OBJECT, CONFLUENT = b"Obj\1", b"\xc3\1", b"\0"  # how a file, a message with a fingerprint and one with a number begin
ANSWER = 10.0  # seconds for which a schema registry is waited for
_SIMPLE = {"VARCHAR": "string", "BIGINT": "long", "INTEGER": "int", "DOUBLE": "double", "FLOAT": "float", "BOOLEAN": "boolean"}


class Unreadable(Exception):
    """A message that is no row by its schema; what it says is told in its dead letter."""


def contract_schema(source: EventSource) -> dict[str, Any]:
    """A record of the declared columns in their order, each of which may be null."""
    fields = [{"name": name, "type": ["null", _avro_type(kind)], "default": None} for name, kind in source.columns]
    return {"type": "record", "name": source.name, "fields": fields}


def _avro_type(kind: DataType) -> Any:
    match kind.name:
        case "DATE":
            return {"type": "int", "logicalType": "date"}
        case "TIMESTAMP":
            return {"type": "long", "logicalType": "timestamp-micros"}
        case "DECIMAL":
            return {"type": "bytes", "logicalType": "decimal", "precision": kind.precision, "scale": kind.scale}
    return _SIMPLE[kind.name]


def avro_reader(source: EventSource, file: Path | None, registry: str | None) -> Callable[[bytes], list[Row]]:
    """How the rows of a message are read: one, or those of an Avro file.

    file: the schema of messages without one.  registry: the URL of a schema registry, whose numbers stand before messages.
    Raises (also when called): UsageError for a file that is no schema; StoreUnavailable while the registry does not answer; Unreadable.
    """
    if registry is not None:
        read_one = SchemaRegistry(registry).row
    else:
        schema = _parsed(_read(file) if file is not None else contract_schema(source))
        mark = SINGLE_OBJECT + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))

        def read_one(message: bytes) -> Row:
            return _row(message.removeprefix(mark), schema)

    return lambda message: _container(message) if message.startswith(CONTAINER) else [read_one(message)]


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: the Avro schema cannot be read ({type(error).__name__}).\n  It is a file of JSON.") from None


def _parsed(told: Any) -> Any:
    try:
        schema = parse_schema(told)
    except (SchemaParseException, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"this is no Avro schema that can be used ({type(error).__name__}: {error}).") from None
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise UsageError("the Avro schema of a message is a record: its fields are the source's columns.")
    return schema


def _container(message: bytes) -> list[Row]:
    """The rows of an Avro file."""
    try:
        return [_plain(row) for row in fastavro.reader(io.BytesIO(message))]
    except Exception as error:  # the library raises whatever a damaged byte leads it to
        raise Unreadable(type(error).__name__) from None


def _row(message: bytes, schema: Any) -> Row:
    stream = io.BytesIO(message)
    try:
        row = fastavro.schemaless_reader(stream, schema, None)
    except Exception as error:
        raise Unreadable(type(error).__name__) from None
    if stream.tell() != len(message):
        raise Unreadable("bytes are left behind its last field")
    return _plain(row)


def _plain(row: Any) -> Row:
    if not isinstance(row, dict):
        raise Unreadable("it is no record")
    return {name: str(value) if isinstance(value, uuid.UUID) else value for name, value in row.items()}


class SchemaRegistry:
    """The schemas of a Confluent schema registry by number; each is asked for once, for a number's schema never changes."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("a schema registry's url is http://HOST:8081 or https://HOST:8081.")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._url = f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path.rstrip('/')}/schemas/ids/"
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json"}
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
        self._known: dict[int, Any] = {}

    def row(self, message: bytes) -> Row:
        """A message of a zero byte, the schema's number in four, and the row."""
        if len(message) < 5 or not message.startswith(CONFLUENT):
            raise Unreadable("no number of a schema stands before it")
        return _row(message[5:], self._schema(int.from_bytes(message[1:5], "big")))

    def _schema(self, number: int) -> Any:
        if number not in self._known:
            told = self._ask(number)
            try:
                self._known[number] = _parsed(json.loads(told["schema"]))
            except (UsageError, KeyError, TypeError, ValueError):
                raise Unreadable(f"schema {number} of the registry is no record of Avro") from None
        return self._known[number]

    def _ask(self, number: int) -> Mapping[str, Any]:
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{self._url}{number}", headers=self._headers), timeout=ANSWER) as answer:
                found: Mapping[str, Any] = json.loads(answer.read())
                return found
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise Unreadable(f"the registry has no schema {number}") from None
            problem = str(error.code)
        except (OSError, ValueError) as error:
            problem = type(error).__name__
        raise StoreUnavailable(f"the schema registry does not tell schema {number} ({problem}).\n  See to schema_registry in the profile.")
