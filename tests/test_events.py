"""Events of any number of writers are read back, each once and in order, whatever ended a writer or was done to a file."""

import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featreg.errors import StoreError
from featreg.registry.events import EventPlane
from featreg.registry.segments import HEADER, Damage, SegmentWriter, read_segments, segments_of

DAY = 86_400_000_000
NOON = 20_000 * DAY + DAY // 2  # some noon, in microseconds


def payloads(folder: Path) -> list[bytes]:
    return [entry.payload for entry in read_segments(folder)]


def only_segment(folder: Path) -> Path:
    (path,) = segments_of(folder)
    return path


def damages(folder: Path) -> list[Damage]:
    found: list[Damage] = []
    list(read_segments(folder, on_damage=found.append))
    return found


@given(records=st.lists(st.binary(max_size=40), max_size=12), cut=st.integers(0, 10_000))
def test_a_segment_cut_anywhere_gives_the_records_before_the_cut(tmp_path_factory: pytest.TempPathFactory, records, cut) -> None:
    folder = tmp_path_factory.mktemp("cut")
    ends = [HEADER] + [entry.end for entry in SegmentWriter(folder).append_many(records)]
    if not records:
        assert payloads(folder) == [] and segments_of(folder) == []
        return
    assert payloads(folder) == records and damages(folder) == []
    path = only_segment(folder)
    data = path.read_bytes()
    path.write_bytes(data[: cut % (len(data) + 1)])
    left = path.stat().st_size
    assert payloads(folder) == [record for record, end in zip(records, ends[1:]) if end <= left]
    assert damages(folder) == ([] if left in (0, *ends) else [Damage(path.name, *_torn(left, ends), is_torn=True)])


def _torn(left: int, ends: list[int]) -> tuple[int, int]:
    """Where the torn end of a file of `left` bytes begins, and how long it is."""
    begin = max((end for end in ends if end <= left), default=0)
    return begin, left - begin


def test_a_length_that_points_behind_the_next_record_does_not_hide_it(tmp_path: Path) -> None:
    """A record of 2 bytes says 18 by one flipped bit: exactly the next record, 8 bytes in a frame of 8, more."""
    records = [b"ab", b"the next", b"the last"]
    entries = SegmentWriter(tmp_path).append_many(records)
    path = only_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[entries[0].offset] ^= 1 << 4
    path.write_bytes(data)
    assert payloads(tmp_path) == records[1:]


@given(
    records=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8),
    place=st.integers(0, 10_000), bit=st.integers(0, 7),
)  # fmt: skip
def test_a_flipped_bit_costs_the_record_it_is_in(tmp_path_factory: pytest.TempPathFactory, records, place, bit) -> None:
    folder = tmp_path_factory.mktemp("flip")
    entries = SegmentWriter(folder).append_many(records)
    path = only_segment(folder)
    data = bytearray(path.read_bytes())
    at = HEADER + place % (len(data) - HEADER)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    hit = next(i for i, entry in enumerate(entries) if entry.offset <= at < entry.end)
    assert payloads(folder) == records[:hit] + records[hit + 1 :]
    (damage,) = damages(folder)
    assert damage.offset == entries[hit].offset and damage.bytes == entries[hit].end - entries[hit].offset
    assert not damage.is_torn or hit == len(records) - 1


def test_zeros_behind_the_last_record_are_a_torn_end(tmp_path: Path) -> None:
    SegmentWriter(tmp_path).append(b"one")
    with only_segment(tmp_path).open("ab") as file:
        file.write(bytes(4096))
    assert payloads(tmp_path) == [b"one"] and [damage.is_torn for damage in damages(tmp_path)] == [True]


def test_a_reader_goes_on_where_it_was(tmp_path: Path) -> None:
    first, second = SegmentWriter(tmp_path), SegmentWriter(tmp_path)
    first.append(b"a")
    time.sleep(0.001)
    second.append(b"b")
    seen = {entry.segment: entry.end for entry in read_segments(tmp_path)}
    second.append(b"d")
    first.append(b"c")
    assert [entry.payload for entry in read_segments(tmp_path, seen)] == [b"c", b"d"]
    assert payloads(tmp_path) == [b"a", b"c", b"b", b"d"]


def test_a_writer_begins_another_segment_with_the_day_when_one_is_full_and_when_it_was_taken_away(tmp_path: Path) -> None:
    now = [NOON]
    writer = SegmentWriter(tmp_path, most_bytes=100, clock=lambda: now[0])
    for record in (b"a", b"b" * 90, b"c"):
        now[0] += 1
        writer.append(record)
    assert len(segments_of(tmp_path)) == 3
    now[0] += DAY
    writer.append(b"d")
    assert [path.name[:10] for path in segments_of(tmp_path)] == ["2024-10-04"] * 3 + ["2024-10-05"]
    now[0] += 1
    segments_of(tmp_path)[-1].unlink()
    writer.append(b"e")
    assert payloads(tmp_path) == [b"a", b"b" * 90, b"c", b"e"]


def test_a_forked_child_and_a_copy_write_files_of_their_own(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    writer.append(b"parent")
    child = os.fork()
    if child == 0:
        writer.append(b"child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    pickle.loads(pickle.dumps(writer)).append(b"copy")
    writer.append(b"parent again")
    assert len(segments_of(tmp_path)) == 3
    assert sorted(payloads(tmp_path)) == [b"child", b"copy", b"parent", b"parent again"]


def test_threads_that_share_a_writer_lose_nothing(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    told: list[tuple[int, bytes]] = []

    def write(number: int) -> None:
        for i in range(300):
            entry = writer.append(f"{number}/{i}".encode())
            told.append((entry.offset, entry.payload))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(entry.offset, entry.payload) for entry in read_segments(tmp_path)] == sorted(told) and len(told) == 1200


_CROWD = """
import sys
from pathlib import Path
from featreg.registry.events import EventPlane
plane, number = EventPlane(Path(sys.argv[1])), 0
while True:
    plane.record("tick", {"writer": sys.argv[2], "number": number, "fill": "x" * (number % 700)})
    number += 1
    print(number, flush=True)
"""


def test_what_a_killed_writer_was_told_is_written_is_read(tmp_path: Path) -> None:
    """Three writers are killed at once: of each all events are there that it was told of, in order, and at most one more."""
    crew = [
        subprocess.Popen([sys.executable, "-c", _CROWD, str(tmp_path), str(n)], stdout=subprocess.PIPE, text=True) for n in range(3)
    ]
    try:
        for writer in crew:
            assert writer.stdout is not None and writer.stdout.readline()
        time.sleep(0.3)
    finally:
        for writer in crew:
            writer.send_signal(signal.SIGKILL)
    for n, writer in enumerate(crew):
        told = int(writer.communicate()[0].split()[-1])
        numbers = [event.body["number"] for event in EventPlane(tmp_path).read("tick") if event.body["writer"] == str(n)]
        assert numbers == list(range(len(numbers))) and told <= len(numbers) <= told + 1


def test_a_full_disk_costs_the_record_at_hand_and_nothing_else(tmp_path: Path) -> None:
    """RLIMIT_FSIZE cuts a write short as a full disk does: the caller is told, and the next record has a segment of its own."""
    script = """
import resource, signal, sys
from pathlib import Path
from featreg.errors import StoreError
from featreg.registry.segments import SegmentWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
writer = SegmentWriter(Path(sys.argv[1]))
writer.append(b"a" * 50)
for size in (60, 200):
    try:
        writer.append(b"b" * size)
    except StoreError as error:
        assert "could not be written" in str(error)
    else:
        raise SystemExit("it said nothing")
writer.append(b"c")
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert payloads(tmp_path) == [b"a" * 50, b"c"] and all(damage.is_torn for damage in damages(tmp_path))


def test_newer_and_foreign_files_are_errors(tmp_path: Path) -> None:
    SegmentWriter(tmp_path).append(b"x")
    path = only_segment(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:8] + struct.pack("<I", 9) + data[12:])
    with pytest.raises(StoreError, match=r"newer featreg \(form 9; this one reads up to 1\)"):
        payloads(tmp_path)
    path.write_bytes(b"not a segment at all")
    with pytest.raises(StoreError, match="is no segment of featreg"):
        payloads(tmp_path)
    path.unlink()
    SegmentWriter(tmp_path).append(json.dumps({"kind": "receipt", "form": 9, "at": 0, "by": "", "body": {}}).encode())
    with pytest.raises(StoreError, match="the event at byte 12 is of form 9"):
        list(EventPlane(tmp_path).read())


def test_events_come_back_as_they_were_recorded_by_kind(tmp_path: Path) -> None:
    plane = EventPlane(tmp_path / "events")
    assert list(plane.read()) == [] and list(EventPlane(tmp_path / "none").read("x")) == []
    recorded = [plane.record(kind, {"n": n, "text": "é\n"}, at=n) for n, kind in enumerate(("run", "receipt", "run", 'a"b', "runs"))]
    assert list(plane.read()) == recorded
    assert list(plane.read("run")) == [recorded[0], recorded[2]]
    assert list(plane.read('a"b', "receipt")) == [recorded[1], recorded[3]]
    assert recorded[0].by.endswith(f"(pid {os.getpid()})")
    before = time.time_ns() // 1000
    assert before <= plane.record("now", {}).at <= time.time_ns() // 1000


def _old(folder: Path, day: int, names: str, second: int = 0) -> None:
    """A segment of that many days after NOON, last written to then."""
    now, before = NOON + day * DAY + second * 1_000_000, set(segments_of(folder))
    writer = EventPlane(folder)
    writer._writer.clock = lambda: now
    for name in names:
        writer.record(name, {"day": day, "name": name}, at=now)
    (path,) = set(segments_of(folder)) - before
    os.utime(path, (now / 1e6, now / 1e6))


def test_sealed_events_are_the_same_events(tmp_path: Path) -> None:
    for day, names, second in ((0, "ab", 0), (0, "b", 1), (1, "ba", 0), (2, "c", 0)):
        _old(tmp_path, day, names, second)
    plane = EventPlane(tmp_path)
    everything, some = list(plane.read()), list(plane.read("b"))
    assert plane.seal(now=NOON) == [] and plane.seal(now=NOON + DAY // 2) == []  # the day is not over, or only just
    first = plane.seal(now=NOON + 2 * DAY)
    assert [path.name[:10] for path in first] == ["2024-10-04", "2024-10-05"] and len(segments_of(tmp_path)) == 1
    assert list(plane.read()) == everything and list(plane.read("b")) == some and len(everything) == 6
    assert pq.read_table(first[0]).column("kind").to_pylist() == ["a", "b", "b"]  # any tool reads it
    assert plane.seal(now=NOON + 2 * DAY) == []


def test_a_kill_between_sealing_and_deleting_or_two_who_seal_at_once_show_no_event_twice(tmp_path: Path) -> None:
    _old(tmp_path, 0, "ab")
    plane = EventPlane(tmp_path)
    everything, segment = list(plane.read()), only_segment(tmp_path)
    kept = segment.read_bytes()
    (sealed,) = plane.seal(now=NOON + 2 * DAY)
    segment.write_bytes(kept)
    (tmp_path / f"0{sealed.name}").write_bytes(sealed.read_bytes())
    assert list(plane.read()) == everything
    assert plane.seal(now=NOON + 2 * DAY) == [] and not segment.exists() and list(plane.read()) == everything


def test_a_reader_that_began_before_sealing_reads_on(tmp_path: Path) -> None:
    _old(tmp_path, 0, "a")
    _old(tmp_path, 1, "b")
    plane = EventPlane(tmp_path)
    everything = list(plane.read())
    going = plane.read()
    begun = [next(going)]
    plane.seal(now=NOON + 3 * DAY)
    assert begun + list(going) == everything


def test_a_damaged_segment_is_not_sealed(tmp_path: Path) -> None:
    _old(tmp_path, 0, "ab")
    path = only_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[HEADER + 20] ^= 1
    path.write_bytes(data)
    os.utime(path, (NOON / 1e6, NOON / 1e6))
    plane = EventPlane(tmp_path)
    assert plane.seal(now=NOON + 2 * DAY) == [] and path.exists()
    assert [event.kind for event in plane.read()] == ["b"] and "are no record" in str(plane.damage()[0])


def test_a_sealed_file_of_a_newer_form_or_of_somebody_else_is_an_error(tmp_path: Path) -> None:
    _old(tmp_path, 0, "a")
    (sealed,) = EventPlane(tmp_path).seal(now=NOON + 2 * DAY)
    table = pq.read_table(sealed)
    about = json.loads(table.schema.metadata[b"featreg.sealed"]) | {"form": 9}
    pq.write_table(table.replace_schema_metadata({b"featreg.sealed": json.dumps(about)}), sealed)
    with pytest.raises(StoreError, match="newer featreg"):
        list(EventPlane(tmp_path).read())
    sealed.write_bytes(b"nothing")
    with pytest.raises(StoreError, match="no sealed file"):
        list(EventPlane(tmp_path).read())
