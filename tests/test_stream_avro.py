"""Avro from Kafka: by the contract's schema, by a producer's own, by a registry's number; the same rows as JSON, to the bit."""

import io
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Producer
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

from featreg.define import EventSource
from featreg.errors import UsageError
from featreg.registry.events import EventPlane
from featreg.serve.avro import SchemaRegistry, contract_schema
from featreg.serve.payloads import Message, message_reader, portions
from tests.service_process import PROGRAM
from tests.shop import order
from tests.test_stream import Topic, cluster, message  # noqa: F401

ROWS = [order(n % 50, ("ann", "bob")[n % 2], n / 8, loaded=n % 50 + n % 4) for n in range(40)]
OTHER: dict[str, Any] = {  # a producer's own: other order, required fields, milliseconds, an enum, and a field that is nobody's
    "type": "record", "name": "Order", "namespace": "shop",
    "fields": [
        {"name": "shop", "type": ["null", {"type": "enum", "name": "Shop", "symbols": ["north", "a", "b"]}]},
        {"name": "loaded_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "note", "type": "string"},
        {"name": "cents", "type": ["int", "null"]}, {"name": "amount", "type": ["double", "null"]},
        {"name": "bought_at", "type": {"type": "long", "logicalType": "timestamp-micros"}}, {"name": "customer", "type": "string"},
    ],
}  # fmt: skip


def datum(schema: Any, row: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    fastavro.schemaless_writer(sink, parse_schema(schema), row)
    return sink.getvalue()


def container(schema: Any, rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    fastavro.writer(sink, parse_schema(schema), rows, codec="deflate")
    return sink.getvalue()


class Registry:
    """A schema registry on loopback: its one path, its authorization, and an answer that may be late."""

    def __init__(self, schemas: dict[int, Any]):
        self.schemas, self.asked, self.refusals = schemas, list[str](), 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.headers.get("Authorization", ""))
                number = int(self.path.removeprefix("/schemas/ids/"))
                if outer.refusals > 0:
                    outer.refusals -= 1
                    status, body = 503, b"{}"
                elif number in outer.schemas:
                    status, body = 200, json.dumps({"schema": json.dumps(outer.schemas[number])}).encode()
                else:
                    status, body = 404, b'{"error_code": 40403}'
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://ann:tiger@127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def registry() -> Iterator[Registry]:
    one = Registry({7: OTHER, 9: "string"})
    yield one
    one.server.shutdown()
    one.server.server_close()


def schema_of(topic: Topic) -> Any:
    """As the command line prints it for producers."""
    command = [sys.executable, "-c", PROGRAM, "-C", str(topic.shop.root), "stream", "orders", "--schema"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def other(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"note": "nobody's"}


def test_avro_and_json_of_the_same_rows_are_the_same_training_set(tmp_path: Path, cluster: Producer, registry: Registry) -> None:  # noqa: F811
    """The contract's schema, bare and with its fingerprint, and in a file of many rows; a producer's schema; a registry's number."""
    json_topic = Topic(tmp_path / "json", cluster)
    json_topic.orders(ROWS)
    json_topic.put(message(ROWS[0] | {"amount": "NaN"}))
    json_topic.follow()
    special = ROWS[0] | {"amount": float("nan")}

    plain = Topic(tmp_path / "plain", cluster, "avro")
    schema = schema_of(plain)
    mark = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(parse_schema(schema)), "CRC-64-AVRO"))
    plain.put(*(datum(schema, row) for row in ROWS[:10]), None, *(mark + datum(schema, row) for row in ROWS[10:20]))
    plain.put(container(schema, ROWS[20:]), container(schema, []), datum(schema, special))

    own = Topic(tmp_path / "own", cluster, "avro", 'schema = "orders.avsc"\n')
    (own.shop.root / "orders.avsc").write_text(json.dumps(OTHER))
    own.put(*(datum(OTHER, other(row)) for row in [*ROWS, special]))

    numbered = Topic(tmp_path / "numbered", cluster, "avro", f'schema_registry = "{registry.url}"\n')
    numbered.put(*(b"\0\0\0\0\7" + datum(OTHER, other(row)) for row in ROWS), container(OTHER, [other(special)]))
    registry.refusals = 1  # is waited for

    for topic in (plain, own, numbered):
        done = topic.follow()
        assert (done.accepted, done.rejected) == (41, 0)
        for minutes in (10, 33, 60):
            assert repr(topic.trained(minutes)) == repr(json_topic.trained(minutes))
    assert json_topic.trained(60)[0]["n_1d"] == 21
    assert registry.asked == ["Basic YW5uOnRpZ2Vy"] * 2, "a number is asked for once, after the time it was refused"


def test_avro_that_is_no_row_is_a_dead_letter_and_holds_nothing_up(tmp_path: Path, cluster: Producer, registry: Registry) -> None:  # noqa: F811
    topic = Topic(tmp_path / "plain", cluster, "avro")
    schema = schema_of(topic)
    good = datum(schema, ROWS[0])
    dice = random.Random(2)
    cut = [good[:-1], good + b"x", b"", b"Obj\1", b"\xff" * 20, container(schema, ROWS[:3])[:-10]]
    no_time = datum(schema, ROWS[0] | {"bought_at": None})
    topic.put(good, *cut, no_time, good)
    done = topic.follow()
    assert (done.accepted, done.rejected) == (2, len(cut) + 1)
    with topic.shop.open() as opened:
        letters = list(EventPlane(opened.profile.push_path("orders") / "rejected").read("rejected"))
    assert len(letters) == len(cut) + 1
    topic.put(*(dice.randbytes(dice.randrange(60)) for _ in range(300)), good)
    done = topic.follow()
    assert done.accepted >= 1 and done.accepted + done.rejected >= 301

    numbered = Topic(tmp_path / "numbered", cluster, "avro", f'schema_registry = "{registry.url}"\n')
    numbered.put(b"\0\0\0\0\x08" + good, b"\0\0\0\0\x09" + good, b"\0\0", good[1:], b"\0\0\0\0\7" + datum(OTHER, other(ROWS[0])))
    done = numbered.follow()
    assert (done.accepted, done.rejected) == (1, 4)


def test_every_type_of_a_contract_comes_through_its_schema_with_its_bits() -> None:
    kinds = {
        "s": "VARCHAR", "b": "BIGINT", "i": "INTEGER", "x": "DOUBLE", "f": "FLOAT", "d": "DECIMAL(38,4)", "p": "BOOLEAN", "v": "DATE",
        "w": "TIMESTAMP",
    }  # fmt: skip
    source = EventSource("facts", columns=kinds, event_time="w")
    rows: list[dict[str, Any]] = [
        {"s": "é\0\U00010000", "b": -(2**63), "i": -(2**31), "x": 5e-324, "f": 0.5, "d": Decimal("-999999999999999999999999999999999.9999"),
         "p": False, "v": date(1, 1, 1), "w": datetime(1970, 1, 1, tzinfo=UTC)},
        {"s": "", "b": 2**63 - 1, "i": 0, "x": float("-inf"), "f": 3.0, "d": Decimal("0.0001"), "p": True, "v": date(9999, 12, 31),
         "w": datetime(2020, 2, 29, 12, 0, 0, 1, UTC) + timedelta(days=900)},
        dict.fromkeys(kinds),
    ]  # fmt: skip
    run = [Message(n, datum(contract_schema(source), row)) for n, row in enumerate(rows)]
    (part,) = portions(run, message_reader(source, "avro"))
    assert repr(part.rows) == repr(rows)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ('"string"', "is a record"),
        ('{"type": "record", "name": "a", "fields": [{"name": "b", "type": "c"}]}', "no Avro schema"),
    ],
)
def test_a_schema_that_is_none_is_told(tmp_path: Path, text: str | None, told: str) -> None:
    source = EventSource("s", columns={"at": "TIMESTAMP"}, event_time="at")
    if text is not None:
        (tmp_path / "a.avsc").write_text(text)
    with pytest.raises(UsageError, match=told):
        message_reader(source, "avro", tmp_path / "a.avsc")
    with pytest.raises(UsageError, match="url is http") as raised:
        SchemaRegistry("ann:tiger@host")
    assert "tiger" not in str(raised.value)
