"""Rows come from Kafka, each once, whatever is killed on the way; the cluster is librdkafka's own, with real brokers on loopback."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from featreg.errors import RefusedError, StoreUnavailable, UsageError
from featreg.registry.events import EventPlane
from featreg.serve.payloads import Message, message_reader, portions
from featreg.serve.stream import Place, follow, stream_settings
from tests.redis_process import free_port
from tests.service_process import PROGRAM
from tests.shop import ENTITY, ORDERS, REALTIME_SET, RECENT, Shop, at, difference, order, order_table, spine_of

SPEC = ENTITY + ORDERS.replace('tie_break="shop",', 'tie_break="shop", stream="log",') + RECENT + REALTIME_SET
CUSTOMERS = [{"customer": name} for name in ("ann", "bob", "eve", "nobody")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Producer]:
    producer = Producer({"test.mock.num.brokers": 1, "linger.ms": 0})
    yield producer
    producer.flush(10)


def servers_of(cluster: Producer) -> str:
    return ",".join(f"{one.host}:{one.port}" for one in cluster.list_topics(timeout=10).brokers.values())


class Topic:
    """A topic of its own with a shop that follows it."""

    def __init__(self, root: Path, cluster: Producer, form: str = "json", more: str = ""):
        self.cluster, self.name = cluster, f"orders-{random.randrange(1 << 60)}"
        servers = servers_of(cluster)
        profile = f'[streams.orders]\nservers = "{servers}"\ntopic = "{self.name}"\nformat = "{form}"\n{more}'
        self.shop = Shop(root, SPEC, profile).applied()

    def put(self, *values: bytes | None, partition: int = 0) -> None:
        for value in values:
            self.cluster.produce(self.name, value, partition=partition)
        assert self.cluster.flush(20) == 0

    def orders(self, rows: list[dict[str, Any]], partition: int = 0) -> None:
        self.put(*(message(row) for row in rows), partition=partition)

    def follow(self, **more: Any) -> Any:
        with self.shop.open() as registry:
            return follow(registry, "orders", stream_settings(registry.profile.streams, "orders"), once=True, **more)

    def trained(self, minutes: float) -> list[dict[str, Any]]:
        with self.shop.open() as registry:
            return registry.training_set("model", spine_of(CUSTOMERS, at(minutes)), time="as_of").to_arrow().to_pylist()


def message(row: dict[str, Any]) -> bytes:
    return json.dumps(row | {name: row[name].isoformat() for name in ("bought_at", "loaded_at")}).encode()


def arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


@pytest.fixture
def topic(tmp_path: Path, cluster: Producer) -> Topic:
    return Topic(tmp_path, cluster)


def test_rows_of_a_topic_are_in_training_sets_and_online_and_a_second_run_takes_only_what_is_new(topic: Topic) -> None:
    rows = [order(n % 50, ("ann", "bob")[n % 2], n / 8) for n in range(100)]
    topic.orders(rows[:60], 0)
    topic.orders(rows[60:80], 2)
    first = topic.follow()
    assert (first.messages, first.accepted, first.rejected, first.repeated) == (80, 80, 0, 0)
    assert {one: place for one, place in first.positions.items()} == {0: 60, 2: 20}
    topic.orders(rows[80:], 0)
    assert topic.follow().accepted == 20 and topic.follow().messages == 0
    with topic.shop.open() as registry:
        registry.materialize(to=at(60))
        assert difference(registry, CUSTOMERS, [at(60), at(55)], at(60)) is None
        assert sum(registry.online("model", one, at=at(60)).values["n_1d"] for one in CUSTOMERS) == 100
    told = Consumer({"bootstrap.servers": servers_of(topic.cluster), "group.id": "featreg"})
    assert [one.offset for one in told.committed([TopicPartition(topic.name, n) for n in (0, 2)], timeout=10)] == [80, 20]
    told.close()


def test_arrow_and_json_of_the_same_rows_are_the_same_training_set(tmp_path: Path, cluster: Producer) -> None:
    """Several tables a message, of another order of columns and of narrower types, and a NaN."""
    rows = [order(n, "ann" if n % 3 else "bob", float(n), loaded=n + n % 4) for n in range(40)]
    json_topic, arrow_topic = Topic(tmp_path / "json", cluster), Topic(tmp_path / "arrow", cluster, "arrow")
    json_topic.orders(rows)
    json_topic.put(message(rows[0] | {"amount": "NaN"}))
    table = order_table(rows)
    narrow = table.slice(30).select(["shop", "cents", "amount", "loaded_at", "bought_at", "customer"])
    narrow = narrow.set_column(1, "cents", narrow["cents"].cast(pa.int32()))
    arrow_topic.put(
        arrow(table.slice(0, 10)), arrow(table.slice(10, 20)), None, arrow(narrow), arrow(order_table([rows[0] | {"amount": float("nan")}]))
    )
    assert (json_topic.follow().accepted, arrow_topic.follow().accepted) == (41, 41)
    for minutes in (10, 33, 50):
        assert repr(json_topic.trained(minutes)) == repr(arrow_topic.trained(minutes))
    assert json_topic.trained(50)[0]["n_1d"] > 20


def test_messages_that_are_no_rows_are_dead_letters_and_hold_nothing_up(tmp_path: Path, cluster: Producer) -> None:
    good = [order(1), order(2, "bob")]
    for number, form in enumerate(("json", "arrow")):
        topic = Topic(tmp_path / form, cluster, form)
        row = message if form == "json" else lambda one: arrow(order_table([one]))
        topic.put(row(good[0]), b"{", b"\xff\xfe", b"[1]", None, b"", row(good[1]), b'{"amount": NaN}')
        if form == "arrow":
            topic.put(arrow(order_table(good).drop_columns(["amount"])))
        done = topic.follow()
        assert (done.messages, done.accepted, done.rejected) == (8 + number, 2, 5 + 2 * number)
        with topic.shop.open() as registry:
            letters = list(EventPlane(registry.profile.push_path("orders") / "rejected").read("rejected"))
        assert len(letters) == 5 + 2 * number
        assert topic.follow().messages == 0


@pytest.mark.parametrize("cut", ["before", "within", "behind"])
def test_a_process_cut_off_anywhere_in_a_run_takes_each_row_once(topic: Topic, monkeypatch: pytest.MonkeyPatch, cut: str) -> None:
    """Before the push, after its first of two portions, and behind it before that is noted; more messages have come by the next start."""
    topic.orders([order(n) for n in range(10)])
    topic.put(b'{"unreadable')
    with topic.shop.open() as registry:
        plain, calls = registry.push, []

        def push(*arguments: Any, **named: Any) -> Any:
            calls.append(named)
            if cut == "before":
                raise KeyboardInterrupt
            receipt = plain(*arguments, **named)
            if cut == "within":
                raise KeyboardInterrupt
            return receipt

        monkeypatch.setattr(registry, "push", push)
        if cut == "behind":
            monkeypatch.setattr(Place, "end", lambda self, partition: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            follow(registry, "orders", stream_settings(registry.profile.streams, "orders"), once=True)
        assert len(calls) == 1
    monkeypatch.undo()
    topic.orders([order(20), order(21)])
    done = topic.follow()
    assert done.accepted == (12 if cut == "before" else 2) and done.repeated == (cut != "before")
    assert topic.trained(60)[0]["n_1d"] == 12


def test_killed_again_and_again_every_row_counts_once(topic: Topic) -> None:
    """`featreg stream` in a process of its own, SIGKILL at random instants while messages come; then SIGTERM, which leaves with 0."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    count = 0
    command = [sys.executable, "-c", PROGRAM, "-C", str(topic.shop.root), "--json", "stream", "orders"]
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        place = topic.shop.root / ".featreg" / "registry" / "push" / "orders" / f"kafka-{topic.name}.json"
        known, until = place.stat().st_mtime_ns if place.exists() else 0, time.monotonic() + 60
        while not place.exists() or place.stat().st_mtime_ns == known:
            assert time.monotonic() < until and process.poll() is None, process.stderr
            topic.orders([order(count % 50, ("ann", "bob")[count % 2])], dice.randrange(3))
            count += 1
            time.sleep(0.05)
        time.sleep(dice.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while sum(row["n_1d"] for row in topic.trained(60)) < count:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    out, problems = process.communicate(timeout=60)
    assert process.returncode == 0, problems
    assert sum(json.loads(out)["positions"].values()) == count
    assert sum(row["n_1d"] for row in topic.trained(60)) == count


def test_a_store_that_does_not_answer_is_waited_for_and_nothing_is_committed(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    topic.orders([order(1), order(2)])
    with topic.shop.open() as registry:
        plain, tries = registry.push, []

        def push(*arguments: Any, **named: Any) -> Any:
            tries.append(1)
            if len(tries) < 3:
                raise StoreUnavailable("nobody there")
            return plain(*arguments, **named)

        monkeypatch.setattr(registry, "push", push)
        done = follow(registry, "orders", stream_settings(registry.profile.streams, "orders"), once=True)
    assert (done.accepted, len(tries)) == (2, 3)


def test_offsets_that_are_gone_are_an_error_and_never_a_gap_in_silence(topic: Topic) -> None:
    topic.orders([order(1)])
    topic.follow()
    with topic.shop.open() as registry:
        place = Place(registry.profile.push_path("orders") / f"kafka-{topic.name}.json")
    place.begin(0, 900, 1000)
    place.end(0)
    with pytest.raises(RefusedError, match="gone from Kafka"):
        topic.follow()


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({}, r"Write \[streams.orders\]"),
        ({"orders": {"topic": "x"}}, "names servers"),
        ({"orders": {"servers": "a", "topic": "x", "fmt": 1}}, "'format'"),
        ({"orders": {"servers": "a", "topic": "x", "format": "xml"}}, "json, arrow, avro"),
        ({"orders": {"servers": "a", "topic": "x", "schema": "a.avsc"}}, 'for format = "avro"'),
        ({"orders": {"servers": "a", "topic": "x", "format": "avro", "schema": "a", "schema_registry": "b"}}, "not both"),
        ({"orders": {"servers": "a", "topic": "x", "start": "now"}}, "earliest"),
    ],
)
def test_a_stream_that_cannot_be_meant_is_told(table: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        stream_settings(table, "orders")


def test_passwords_of_kafka_are_in_no_error_and_nobody_there_is_told(
    tmp_path: Path, cluster: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featreg.serve.stream.ANSWER", 1.0)
    for more, told in (
        ('options = { "sasl.password" = "tiger", "no.such.option" = 1 }', "does not take"),
        ('options = { "sasl.password" = "tiger" }', None),
    ):
        topic = Topic(tmp_path / str(told is None), cluster, more=more)
        with topic.shop.open() as registry:
            settings = stream_settings(registry.profile.streams, "orders")
            assert "tiger" not in repr(settings) and "tiger" not in repr(registry.profile)
            if told is not None:
                with pytest.raises(UsageError, match=told) as raised:
                    follow(registry, "orders", settings, once=True)
                assert "tiger" not in str(raised.value)
    nobody = stream_settings({"orders": {"servers": f"127.0.0.1:{free_port()}", "topic": "x"}}, "orders")
    with topic.shop.open() as registry, pytest.raises(StoreUnavailable, match="Kafka does not answer"):
        follow(registry, "orders", nobody, once=True)


def test_what_a_run_becomes_depends_on_its_messages_alone() -> None:
    """JSON together, tables of one schema together, the unreadable apart; offsets say which."""
    from featreg.define import EventSource

    source = EventSource("s", columns={"a": "BIGINT", "at": "TIMESTAMP"}, event_time="at")
    one, other = pa.table({"a": [1]}), pa.table({"a": [1.5]})
    run = [Message(n, value) for n, value in enumerate((arrow(one), None, arrow(one), b"x", arrow(other), arrow(one), None))]
    assert [(part.first, part.last) for part in portions(run, message_reader(source, "arrow"))] == [(0, 2), (3, 3), (4, 4), (5, 5)]
    run = [Message(n + 7, value) for n, value in enumerate((None, b'{"a": 1}', b"x", None, b'{"a": 2, "at": "2020-01-01T00:00:00Z"}'))]
    (part,) = portions(run, message_reader(source, "json"))
    assert (part.first, part.last, len(part.rows)) == (8, 11, 3)
    assert list(portions([Message(1, None)], message_reader(source, "json"))) == []
