"""Follow a Kafka topic: each run of messages is pushed under a name that says which offsets it has, and counts once.

Which run is about to be pushed is written down first, beside the push log, then pushed, then committed to Kafka.  A
process that is killed in between reads exactly that run again, pushes it under the same name, which is a no-op where it
had been taken in, and goes on behind it.  So the place in the topic is this repository's own; the group's offsets in
Kafka are told to it for those who watch, and count only where nothing was written down yet.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from featreg.durable import sync_folder
from featreg.errors import DataError, RefusedError, StoreError, StoreUnavailable, UsageError, did_you_mean
from featreg.serve.payloads import FORMATS, Message, Portion, Read, message_reader, portions

if TYPE_CHECKING:
    from featreg.session.registry import Registry

RUN_MESSAGES = 10_000
ANSWER = 10.0  # seconds for which a broker is waited for
LINGER = 0.5  # seconds for which a run is gathered
LONGEST_PAUSE = 10.0  # seconds between two tries to push while the store does not answer
_Result = TypeVar("_Result")
_SETTINGS = {"servers", "topic", "format", "schema", "schema_registry", "group", "start", "options"}


@dataclass(frozen=True)
class StreamSettings:
    """`[streams.SOURCE]`.  start: where a topic that was never read begins.  options: librdkafka's; they may hold passwords.

    schema, schema_registry: where Avro's schemas are, if not in the contract: a file of the repository; a URL, which may hold a password.
    """

    servers: str
    topic: str
    format: str = "json"
    group: str = "featreg"
    start: str = "earliest"
    schema: str | None = None
    schema_registry: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Streamed:
    """What was done: messages read, rows accepted and rejected, runs that had been taken in before, and the next offset by partition."""

    messages: int
    accepted: int
    rejected: int
    repeated: int
    positions: Mapping[int, int]


def stream_settings(streams: Mapping[str, Any], source: str) -> StreamSettings:
    """Raises: UsageError when the profile does not say where the source's topic is."""
    if source not in streams:
        raise UsageError(f"the profile does not say where rows of '{source}' are.\n  Write [streams.{source}]: servers, topic.")
    told = streams[source]
    if not isinstance(told, dict) or not isinstance(told.get("servers"), str) or not isinstance(told.get("topic"), str):
        raise UsageError(f'[streams.{source}] names servers = "HOST:9092" and topic = "…".')
    for name in told:
        if name not in _SETTINGS:
            raise UsageError(f"[streams.{source}]: unknown setting '{name}'.\n  {did_you_mean(name, sorted(_SETTINGS), 'Settings are')}")
    settings = StreamSettings(**told)
    if settings.format not in FORMATS:
        raise UsageError(f"[streams.{source}] format is one of {', '.join(FORMATS)}, and not {settings.format!r}.")
    if settings.format != "avro" and (settings.schema or settings.schema_registry):
        raise UsageError(f'[streams.{source}]: schema and schema_registry are for format = "avro".')
    if settings.schema and settings.schema_registry:
        raise UsageError(f"[streams.{source}] has a schema or a schema_registry, and not both.")
    if settings.start not in ("earliest", "latest"):
        raise UsageError(f'[streams.{source}] start is "earliest" or "latest".')
    return settings


class Place:
    """Where in a topic a source is, by partition: the run that was written down last, and whether it is known to be done."""

    def __init__(self, path: Path):
        self.path = path
        self.runs: dict[int, tuple[int, int, bool]] = {}
        if path.exists():
            try:
                self.runs = {int(partition): (first, last, done) for partition, (first, last, done) in json.loads(path.read_text()).items()}
            except (ValueError, TypeError, AttributeError):
                raise StoreError(f"{path}: this is not what featreg writes.\n  Put it back from a copy.") from None

    def begin(self, partition: int, first: int, last: int) -> None:
        """Write a run down before it is pushed; on disk when this returns."""
        self.runs[partition] = first, last, False
        self._replace()
        sync_folder(self.path.parent)

    def end(self, partition: int) -> None:
        """Note that the run was taken in.  Where a machine forgets this, the run is pushed again, which is a no-op."""
        first, last, _ = self.runs[partition]
        self.runs[partition] = first, last, True
        self._replace()

    def _replace(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(f".{os.getpid()}.draft")
        with draft.open("w") as file:
            json.dump(self.runs, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)


def follow(
    registry: "Registry",
    source: str,
    settings: StreamSettings,
    *,
    once: bool = False,
    is_over: Callable[[], bool] = lambda: False,
    progress: Callable[[str, int], None] | None = None,
    run_messages: int = RUN_MESSAGES,
) -> Streamed:
    """Push what the topic has and gets, until `is_over`; `once`: until its end as it is when it is reached.

    Raises: UsageError, RefusedError when offsets that were not read are gone from the topic; StoreError.
    """
    registry.pusher(source)  # a source that takes no push is told before anything is read
    definition = registry.applied().compiled.sources[source]
    schema = registry.root / settings.schema if settings.schema else None
    try:
        read = message_reader(definition, settings.format, schema, settings.schema_registry)
    except ModuleNotFoundError as error:
        raise UsageError(f"Avro needs {error.name}.\n  pip install 'featreg[kafka]'") from None
    name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in settings.topic)
    place = Place(registry.profile.push_path(source) / f"kafka-{name}.json")
    options = {"enable.auto.commit": False, "auto.offset.reset": "error", "enable.partition.eof": True, **settings.options}
    problems: list[KafkaError] = []
    try:
        consumer = Consumer({**options, "bootstrap.servers": settings.servers, "group.id": settings.group, "error_cb": problems.append})
    except (KafkaException, ValueError, TypeError) as error:
        raise UsageError(f"[streams.{source}]: librdkafka does not take these options ({_told(error)}).") from None
    try:
        return _Follower(registry, source, read, settings, place, consumer, problems, is_over, progress, run_messages).run(once)
    finally:
        consumer.close()


class _Follower:
    def __init__(
        self, registry: "Registry", source: str, read: Read, settings: StreamSettings, place: Place, consumer: Consumer,
        problems: list[KafkaError], is_over: Callable[[], bool], progress: Callable[[str, int], None] | None, run_messages: int,
    ):  # fmt: skip
        self.registry, self.source, self.read, self.settings = registry, source, read, settings
        self.place, self.consumer, self.problems, self.is_over, self.progress = place, consumer, problems, is_over, progress
        self.run_messages = run_messages
        self.messages = self.accepted = self.rejected = self.repeated = 0
        self.ended: set[int] = set()

    def run(self, once: bool) -> Streamed:
        partitions = self._partitions()
        for partition in partitions:
            if partition in self.place.runs and not self.place.runs[partition][2]:
                self._again(partition)
        self.consumer.assign([TopicPartition(self.settings.topic, one, self._start(one)) for one in partitions])
        while not self.is_over() and not (once and self.ended >= set(partitions)):
            for partition, messages in self._gather().items():
                self._take_in(partition, messages)
        positions = {partition: last + 1 for partition, (_, last, _) in self.place.runs.items()}
        return Streamed(self.messages, self.accepted, self.rejected, self.repeated, positions)

    def _partitions(self) -> list[int]:
        try:
            topic = self.consumer.list_topics(self.settings.topic, timeout=ANSWER).topics[self.settings.topic]
        except KafkaException as error:
            raise StoreUnavailable(f"Kafka does not answer ({_told(error)}).\n  See to servers of [streams.{self.source}].") from None
        if topic.error is not None or not topic.partitions:
            raise UsageError(f"there is no topic '{self.settings.topic}' ({topic.error.name() if topic.error else 'no partition'}).")
        return sorted(topic.partitions)

    def _start(self, partition: int) -> int:
        """Behind what was written down; else what the group has committed; else as the settings say."""
        if partition in self.place.runs:
            return self.place.runs[partition][1] + 1
        try:
            committed = self.consumer.committed([TopicPartition(self.settings.topic, partition)], timeout=ANSWER)[0].offset
        except KafkaException as error:
            raise StoreUnavailable(f"Kafka does not tell what group '{self.settings.group}' has committed ({_told(error)}).") from None
        if committed != OFFSET_INVALID and committed >= 0:
            return int(committed)
        return int(OFFSET_BEGINNING if self.settings.start == "earliest" else OFFSET_END)

    def _again(self, partition: int) -> None:
        """Push the run that was written down last once more: it may not have been taken in."""
        first, last, _ = self.place.runs[partition]
        self.consumer.assign([TopicPartition(self.settings.topic, partition, first)])
        messages: list[Message] = []
        for found in self._messages([partition]):
            if found is None or found.offset() > last:
                break
            messages.append(Message(found.offset(), found.value()))
            if found.offset() == last:
                break
        if self.is_over():
            return
        self.ended.discard(partition)
        self._push(partition, messages)
        self._done(partition)

    def _gather(self) -> dict[int, list[Message]]:
        """Messages of half a second, by partition in the order of their offsets."""
        found: dict[int, list[Message]] = {}
        ends, count = time.monotonic() + LINGER, 0
        while count < self.run_messages and (left := ends - time.monotonic()) > 0:
            one: Any
            for one in self.consumer.consume(min(1000, self.run_messages - count), timeout=left):
                if self._is_message(one):
                    self.ended.discard(one.partition())
                    found.setdefault(one.partition(), []).append(Message(one.offset(), one.value()))
                    count += 1
                elif not found:
                    ends = min(ends, time.monotonic() + 0.05)  # nothing waits: what comes next is not held up
            if self.is_over():
                break
        return found

    def _messages(self, partitions: list[int]) -> Iterator[Any]:
        """Messages one by one, None at the end of a partition, until told to stop."""
        while not self.is_over():
            for one in self.consumer.consume(500, timeout=0.5):
                if self._is_message(one):
                    yield one
                elif one.partition() in partitions:
                    yield None

    def _is_message(self, one: Any) -> bool:
        error = one.error()
        if error is None:
            return True
        if error.code() == KafkaError._PARTITION_EOF:
            self.ended.add(one.partition())
            return False
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise RefusedError(
                f"topic '{self.settings.topic}', partition {one.partition()}: the messages that come next are gone from Kafka.\n"
                f"  Their rows are lost to this source. To go on behind the gap, delete {self.place.path}."
            )
        if error.fatal() or not error.retriable():
            raise StoreUnavailable(f"Kafka: {error.name()}.\n  Run the same command again: it goes on where it was.")
        return False

    def _take_in(self, partition: int, messages: list[Message]) -> None:
        self.place.begin(partition, messages[0].offset, messages[-1].offset)
        self._push(partition, messages)
        self._done(partition)

    def _push(self, partition: int, messages: list[Message]) -> None:
        self.messages += len(messages)
        for portion in self._patiently(lambda: list(portions(messages, self.read))):
            receipt = self._pushed(f"kafka/{self.settings.topic}/{partition}/{portion.first}-{portion.last}", portion)
            self.repeated += receipt.duplicate
            self.accepted += receipt.accepted
            self.rejected += 0 if receipt.duplicate else len(receipt.rejected)
        if self.progress is not None:
            self.progress(self.settings.topic, len(messages))

    def _pushed(self, name: str, portion: Portion) -> Any:
        try:
            return self._patiently(lambda: self.registry.push(self.source, portion.rows, id=name))
        except DataError:
            if isinstance(portion.rows, list):
                raise
            rows = portion.rows.to_pylist()  # a table that does not fit as a whole is judged row by row
        return self._patiently(lambda: self.registry.push(self.source, rows, id=name))

    def _patiently(self, work: Callable[[], _Result]) -> _Result:
        """Go on trying while the store, or who knows the schemas, does not answer: nothing is committed before."""
        pause = 0.1
        while True:
            try:
                return work()
            except StoreUnavailable:
                if self.is_over():
                    raise
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _done(self, partition: int) -> None:
        """Note it here, where it counts, and tell Kafka."""
        self.place.end(partition)
        try:
            behind = TopicPartition(self.settings.topic, partition, self.place.runs[partition][1] + 1)
            self.consumer.commit(offsets=[behind], asynchronous=False)
        except KafkaException:
            pass


def _told(error: Exception) -> str:
    """The name of a Kafka error; its text may repeat an option's value."""
    inner = error.args[0] if error.args else None
    return inner.name() if isinstance(inner, KafkaError) else type(error).__name__
