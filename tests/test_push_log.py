"""The push log keeps what was accepted, in one order, whoever wrote it and however the writer ended."""

import random
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from featreg.errors import StoreError
from featreg.registry import push_log, sealed_log
from featreg.registry.push_log import PushLog
from featreg.registry.pushed import START, Position, Pushed

DAY = 86_400_000_000


def record(number: int, rows: int = 3, name: str = "") -> Pushed:
    table = pa.table({"key": [f"k{number}"] * rows, "value": list(range(number, number + rows))})
    return Pushed(table, at=number, first=number, last=number + rows, id=name, digest=name and "d" * 64, part=(0, 1))


def values(log: PushLog, after: Position = START, to: Position | None = None) -> list[int]:
    return [one.at for one in log.read(after, to)]


def test_records_come_back_as_they_were_in_the_order_of_appending(tmp_path: Path) -> None:
    log = PushLog(tmp_path)
    ends = log.append([record(1, name="a"), record(2)]) + log.append([record(3, rows=0)])
    found = list(log.read())
    assert found == [record(1, name="a"), record(2), record(3, rows=0)]
    assert [one.position for one in found] == ends == sorted(ends)
    assert log.end() == log.end(ends[0]) == ends[-1]
    assert log.boundary() == PushLog(tmp_path).boundary() == 1


def test_a_position_divides_the_log(tmp_path: Path) -> None:
    log = PushLog(tmp_path)
    ends = log.append([record(number) for number in range(6)])
    for cut in range(6):
        assert values(log, to=ends[cut]) == list(range(cut + 1))
        assert values(log, after=ends[cut]) == list(range(cut + 1, 6))


def test_an_empty_log_has_no_boundary(tmp_path: Path) -> None:
    log = PushLog(tmp_path / "none")
    assert (values(log), log.boundary(), log.end()) == ([], None, START)


def test_two_writers_in_turn_make_one_order_in_one_segment(tmp_path: Path) -> None:
    logs = [PushLog(tmp_path), PushLog(tmp_path)]
    for number in range(10):
        logs[number % 3 // 2].append([record(number)])
    assert values(logs[0]) == list(range(10))
    assert len(list(tmp_path.glob("*.segment"))) == 1


def test_segments_are_in_order_however_the_clock_moves(tmp_path: Path) -> None:
    moments = iter([5 * DAY, 5 * DAY, 3 * DAY, 9 * DAY, 4 * DAY, 4 * DAY, 4 * DAY])
    for number in range(5):
        PushLog(tmp_path, lambda: next(moments)).append([record(number)])
    assert values(PushLog(tmp_path)) == list(range(5))
    assert len({path.name.partition(".segment")[0] for path in tmp_path.iterdir()}) > 2, "some are sealed"


def test_a_writer_killed_at_any_byte_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Whatever of the last record reached the file, the next writer cuts it off and goes on behind the ones before."""
    log = PushLog(tmp_path / "whole")
    log.append([record(1)])
    before = log.end().end
    log.append([record(2)])
    data = next((tmp_path / "whole").glob("*.segment")).read_bytes()
    name = log.end().segment
    for length in (*range(before, before + 20), *range(before + 20, len(data), 97), len(data) - 1):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / name).write_bytes(data[:length])
        torn = PushLog(folder)
        assert values(torn) == [1]
        torn.append([record(3)])
        assert values(torn) == values(PushLog(folder)) == [1, 3], length


def test_a_damaged_record_is_told_and_never_passed_over(tmp_path: Path) -> None:
    log = PushLog(tmp_path)
    first, *_ = log.append([record(number) for number in range(3)])
    path = next(tmp_path.glob("*.segment"))
    data = bytearray(path.read_bytes())
    data[first.end + 30] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"damaged: pushed rows that were accepted cannot be read"):
        list(PushLog(tmp_path).read())
    with pytest.raises(StoreError, match="damaged"):
        PushLog(tmp_path).append([record(4)])


# Sealed segments


def long_log(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int = 60) -> tuple[PushLog, list[Pushed]]:
    """Records of any size in many small segments, none of them sealed; in the middle a column is added, and another type comes."""
    monkeypatch.setattr(push_log, "SEGMENT_BYTES", 8_000)
    monkeypatch.setattr(PushLog, "_seal_beside", lambda *_: None)
    dice, log, records = random.Random(count), PushLog(folder), []
    for number in range(count):
        one = record(number, rows=dice.choice((1, 3, 40, 200)), name=dice.choice(("", f"push {number}")))
        if number > count // 2:
            one = Pushed(one.rows.append_column("more", pa.array([None] * one.rows.num_rows, pa.float64())), one.at, one.first, one.last)
        records.append(one)
        log.append([one])
    assert len(list(folder.glob("*.segment"))) > 5
    return log, records


def test_a_sealed_log_reads_as_before_from_any_position_to_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, records = long_log(tmp_path, monkeypatch)
    ends = [one.position for one in log.read()]
    files = len(list(tmp_path.glob("*.segment")))
    assert log.seal() == files - 1 and log.seal() == 0
    assert len(list(tmp_path.glob("*.segment"))) == 1, "the newest one grows on"
    assert list(log.read()) == records and [one.position for one in log.read()] == ends
    assert [(one.at, one.first, one.last, one.id, one.digest, one.part) for one in log.heads()] == [
        (one.at, one.first, one.last, one.id, one.digest, one.part) for one in records
    ]
    for low in range(0, len(ends), 7):
        for high in range(low, len(ends), 11):
            assert list(log.read(ends[low], ends[high])) == records[low + 1 : high + 1]
    other = PushLog(tmp_path)
    assert (other.end(), other.end(ends[3]), other.boundary()) == (ends[-1], ends[-1], 0)
    (last,) = log.append([record(1_000)])
    assert last > ends[-1] and list(log.read(ends[-1])) == [record(1_000)]


class Stopped(BaseException):
    """As a kill: nothing that follows is done."""


@pytest.mark.parametrize("at", range(6))
def test_a_log_whose_sealing_was_stopped_at_any_point_has_each_record_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    log, records = long_log(tmp_path, monkeypatch)
    left = [at]

    def stopping(work):  # type: ignore[no-untyped-def]
        def done(*arguments, **more):  # type: ignore[no-untyped-def]
            left[0] -= 1
            if left[0] < 0:
                raise Stopped
            return work(*arguments, **more)

        return done

    with monkeypatch.context() as patched:
        for place, name in ((sealed_log, "sync_folder"), (Path, "replace"), (sealed_log, "_write")):
            patched.setattr(place, name, stopping(getattr(place, name)))
        patched.setattr(Path, "unlink", lambda *_, **__: None)  # the drafts of a process that was killed stay
        with pytest.raises(Stopped):
            log.seal()
    assert list(log.read()) == list(PushLog(tmp_path).read()) == records
    log.seal()
    assert list(log.read()) == records and len(list(tmp_path.glob("*.segment"))) == 1
    sealed_log.remove_drafts(tmp_path, before=1e18)
    assert not list(tmp_path.glob("*.part"))


def test_a_log_is_read_whole_while_it_is_sealed_by_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, records = long_log(tmp_path, monkeypatch, 120)
    begun, failed = threading.Barrier(4), []

    def done(work) -> None:  # type: ignore[no-untyped-def]
        begun.wait()
        try:
            work()
        except BaseException as error:
            failed.append(error)

    def read() -> None:
        for _ in range(8):
            assert list(PushLog(tmp_path).read()) == records
            assert PushLog(tmp_path).end().segment == records_end.segment

    records_end = log.end()
    threads = [threading.Thread(target=done, args=(work,)) for work in (log.seal, PushLog(tmp_path).seal, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and len(list(tmp_path.glob("*.segment"))) == 1
    assert list(log.read()) == records


def test_a_damaged_segment_stays_and_a_damaged_sealed_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, _ = long_log(tmp_path, monkeypatch)
    path = min(tmp_path.glob("*.segment"))
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    with pytest.raises(StoreError, match="damaged: pushed rows that were accepted cannot be read"):
        log.seal()
    assert path.exists()
    path.write_bytes(whole)
    log.seal()
    sealed = min(tmp_path.glob("*.pushed.parquet"))
    data = bytearray(sealed.read_bytes())
    data[100] ^= 1
    sealed.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged: pushed rows that were accepted cannot be read"):
        list(log.read())


def test_a_writer_seals_what_it_leaves_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_log, "SEGMENT_BYTES", 8_000)
    log = PushLog(tmp_path)
    for number in range(60):
        log.append([record(number, rows=50)])
    log.close()
    assert len(list(tmp_path.glob("*.segment"))) <= 3 and len(list(tmp_path.glob("*.pushed.parquet"))) > 5
    assert values(PushLog(tmp_path)) == list(range(60))
