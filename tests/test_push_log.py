"""The push log keeps what was accepted, in one order, whoever wrote it and however the writer ended."""

from pathlib import Path

import pyarrow as pa
import pytest

from featreg.errors import StoreError
from featreg.registry.push_log import START, Position, Pushed, PushLog

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
    assert len(list(tmp_path.glob("*.segment"))) > 2


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
