"""What is pushed is in training sets and online answers as if it had always been there, each row from its visible instant on."""

import io
import json
import os
import shutil
import signal
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featreg
from featreg.cli import main
from featreg.define import EventSource
from featreg.define.model import SpecError
from featreg.errors import DataError, LeaseHeldError, RefusedError, RejectedRowsError, StoreError, UsageError
from featreg.instants import parse_instant
from featreg.registry import push_log, segments
from tests.shop import (
    BOTH_SET,
    COLUMNS,
    DAILY,
    ENTITY,
    ORDERS,
    PROFILE,
    REALTIME_SET,
    RECENT,
    Forks,
    Shop,
    at,
    kernel_folder,
    order,
    order_table,
    spine_of,
)

LOG = ORDERS.replace('tie_break="shop",', 'tie_break="shop", stream="log",')
UNTIL_BATCH = ORDERS.replace('tie_break="shop",', 'tie_break="shop", stream="until_batch",')
ARRIVAL = ORDERS.replace('available="loaded_at"', 'available="arrival"')
KEYS = [{"customer": name} for name in ("ann", "bob", "eve")]
NO_FILES = "[online]\n"


def shop_of(root: Path, source: str = LOG, profile: str = NO_FILES, daily: bool = False) -> Shop:
    views = RECENT + DAILY + BOTH_SET if daily else RECENT + REALTIME_SET
    return Shop(root, ENTITY + source + views, profile).applied()


def trained(registry: Any, moment: datetime, **more: Any) -> list[dict]:
    table = registry.training_set("model", spine_of(KEYS, moment), time="as_of", **more).to_arrow()
    return table.drop_columns(["customer", "as_of"]).to_pylist()


# What the definition says


def test_a_source_says_how_pushed_rows_and_files_meet() -> None:
    columns = {"at": "TIMESTAMP"}
    assert EventSource("s", columns=columns, event_time="at").stream_mode is None
    assert EventSource("s", columns=columns, event_time="at", available="arrival").stream_mode == "log"
    assert EventSource("s", columns=columns, event_time="at", stream="until_batch").stream_mode == "until_batch"
    with pytest.raises(SpecError, match=r"stream='untill_batch' .* Did you mean 'until_batch'\?"):
        EventSource("s", columns=columns, event_time="at", stream="untill_batch")
    with pytest.raises(SpecError, match="files do not say when their rows arrived"):
        EventSource("s", columns=columns, event_time="at", available="arrival", stream="until_batch")


def test_files_and_a_stream_that_does_not_say_how_they_meet_are_no_push(tmp_path: Path) -> None:
    shop = Shop(tmp_path, ENTITY + ORDERS + RECENT + REALTIME_SET).applied()
    shop.put("one", [order(0)])
    with shop.open() as registry, pytest.raises(UsageError, match=r'Declare stream="log" .* or stream="until_batch"'):
        registry.push("orders", [order(1)])


def test_unknown_sources_are_named_with_the_near_ones(tmp_path: Path) -> None:
    with shop_of(tmp_path).open() as registry, pytest.raises(UsageError, match="Did you mean 'orders'"):
        registry.push("order", [order(1)])


# Training sets


def test_pushed_rows_are_in_a_training_set_as_if_they_stood_in_a_file(tmp_path: Path) -> None:
    rows = [order(n % 50, "ann" if n % 3 else "bob", float(n), loaded=n % 50 + n % 4) for n in range(60)]
    with shop_of(tmp_path).open() as registry:
        assert trained(registry, at(60))[0]["n_1d"] == 0, "nothing was pushed, and there is no file"
        for begin in range(0, 60, 7):
            assert registry.push("orders", rows[begin : begin + 7]).accepted == len(rows[begin : begin + 7])
        for minutes in (3, 17.5, 53):
            assert trained(registry, at(minutes)) == trained(registry, at(minutes), sources={"orders": order_table(rows)})
        assert trained(registry, at(60))[0]["n_1d"] == 40


def test_every_form_of_rows_is_the_same_push(tmp_path: Path) -> None:
    table = order_table([order(1, "ann", 2.5), order(2, "bob", 3.5)])
    for number, rows in enumerate((table, table.to_batches()[0], table.to_pandas(), polars.from_arrow(table), table.to_pylist())):
        with shop_of(tmp_path / str(number)).open() as registry:
            assert registry.push("orders", rows).accepted == 2
            assert trained(registry, at(5)) == trained(registry, at(5), sources={"orders": table})
    assert isinstance(table.to_pandas(), pandas.DataFrame)


def test_a_row_without_a_time_of_arrival_counts_from_when_featreg_got_it(tmp_path: Path) -> None:
    """The event is long past: before it arrived nobody could have known of it."""
    with shop_of(tmp_path, ARRIVAL).open() as registry:
        before = datetime.now(UTC)
        registry.push("orders", [order(0)])
        after = datetime.now(UTC)
        total = [row[0]["spent"] for row in (trained(registry, before), trained(registry, after + timedelta(seconds=1)))]
        assert total == [None, 1.0]


def test_files_count_up_to_the_first_row_of_a_log(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, LOG, '[sources]\norders = "data/*.parquet"\n')
    shop.put("one", [order(0), order(1), order(2), order(3)])
    with shop.open() as registry:
        assert trained(registry, at(5))[0]["n_1d"] == 4
        registry.push("orders", [order(2, amount=7.0)])
        registry.push("orders", [order(1.5, amount=9.0)])  # late: a row of the stream counts wherever it is
        assert trained(registry, at(5))[0]["n_1d"] == 4
        assert trained(registry, at(5))[0]["spent_1d"] == 2 + 7 + 9


def test_a_column_declared_later_is_null_in_rows_pushed_before(tmp_path: Path) -> None:
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        registry.push("orders", [order(0), order(1)])
    more = LOG.replace('"shop": "VARCHAR",', '"shop": "VARCHAR", "coupon": "BIGINT",')
    Shop(tmp_path, ENTITY + more + RECENT.replace('"share"', '"coupons": agg.sum("coupon"), "share"') + REALTIME_SET, NO_FILES).applied()
    with shop.open() as registry:
        registry.push("orders", [order(2) | {"coupon": 5}])
        row = trained(registry, at(5))[0]
    assert (row["coupons"], row["n_1d"]) == (5, 3)


# Ids


def test_a_push_sent_again_is_taken_in_once(tmp_path: Path) -> None:
    shop = shop_of(tmp_path)
    rows = [order(0), order(1)]
    with shop.open() as registry:
        assert not registry.push("orders", rows, id="first").duplicate
        again = registry.push("orders", order_table(rows), id="first")
        assert (again.duplicate, again.accepted) == (True, 0)
    with shop.open() as registry:
        assert registry.push("orders", rows, id="first").duplicate
        assert not registry.push("orders", rows, id="second").duplicate
        assert trained(registry, at(5))[0]["n_1d"] == 4


@pytest.mark.parametrize(
    "other", [[order(0), order(1.5)], [order(1), order(0)], [order(0)], [order(0), order(1, shop="b")], [order(0), order(1, amount=None)]]
)
def test_an_id_names_its_rows(tmp_path: Path, other: list[dict]) -> None:
    with shop_of(tmp_path).open() as registry:
        registry.push("orders", [order(0), order(1)], id="first")
        with pytest.raises(RefusedError, match="with other rows; nothing was done"):
            registry.push("orders", other, id="first")
        assert trained(registry, at(5))[0]["n_1d"] == 2


def test_an_id_older_than_they_are_remembered_is_refused(tmp_path: Path) -> None:
    with shop_of(tmp_path, profile='[online]\npush_ids = "1h"\n').open() as registry:
        registry.push("orders", [order(0)], id="first")
        pusher = registry.pusher("orders")
        now = pusher.clock()
        pusher.clock = lambda: now + 3_599_000_000
        assert registry.push("orders", [order(0)], id="first").duplicate
        pusher.clock = lambda: now + 3_601_000_000
        with pytest.raises(RefusedError, match="an id may be sent again for 1h; nothing was done"):
            registry.push("orders", [order(0)], id="first")


# Bad rows


def test_bad_rows_come_back_with_reasons_and_good_ones_are_kept(tmp_path: Path) -> None:
    good = order(1)
    rows = [
        good, {**good, "amount": "much"}, {**good, "bought_at": None}, {k: v for k, v in good.items() if k != "shop"},
        {**good, "shop": b"\xff"}, {**good, "shop": "\ud800"}, {**good, "cents": 1.5}, {**good, "cents": 2**63}, {**good, "customer": 7},
        {**good, "bought_at": "2024-03-01T00:00:00.1234567Z"}, {**good, "customer": None}, {**good, "amount": True}, good,
    ]  # fmt: skip
    with shop_of(tmp_path).open() as registry:
        receipt = registry.push("orders", rows, id="mixed")
        assert receipt.accepted == 3, "two good rows, and one with a NULL key, which is in no window"
        assert [one.row for one in receipt.rejected] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]
        reasons = [one.reason for one in receipt.rejected]
        assert reasons[0].startswith("amount does not fit DOUBLE") and reasons[1] == "bought_at is NULL"
        assert reasons[2] == "column 'shop' is missing; write null for none"
        assert trained(registry, at(5))[0]["n_1d"] == 2
        assert registry.push("orders", rows, id="mixed").duplicate
        dead = list(registry.rejected("orders"))
        with pytest.raises(UsageError, match="no source 'order'"):
            registry.rejected("order")
    assert [(one.id, one.row, one.reason) for one in dead] == [("mixed", one.row, one.reason) for one in receipt.rejected]
    assert dead[0].values["amount"] == "much"


def test_a_bare_number_is_no_time_for_it_may_count_seconds_or_less(tmp_path: Path) -> None:
    """In dicts every number is rejected, alone or among texts; a column of integers in a table is another type than declared."""
    source = LOG.replace('"shop": "VARCHAR",', '"shop": "VARCHAR", "day": "DATE",')
    good = order(1) | {"day": "2024-03-01"}
    numbers: list[Any] = [1795682640, 1795682640000, 1795682640000000, 1795682640.5, 0, True, np.int64(1795682640)]
    with pytest.raises(UsageError, match="is not an instant"):
        parse_instant("1711121112345")
    with shop_of(tmp_path, source).open() as registry:
        for name, kind, form in (("bought_at", "TIMESTAMP", "2013-06-30T21:00:00Z"), ("day", "DATE", "2013-06-30")):
            for rows in ([good | {name: one} for one in numbers], [good, *(good | {name: one} for one in numbers)]):
                receipt = registry.push("orders", rows)
                assert (receipt.accepted, len(receipt.rejected)) == (len(rows) - len(numbers), len(numbers))
                reasons = [one.reason for one in receipt.rejected]
                assert reasons[0] == f"{name} does not fit {kind}: 1795682640 is of type int; write it as {form}"
                assert all(one.endswith(f"write it as {form}") for one in reasons)
        table = order_table([order(1)]).append_column("day", pa.array(["2024-03-01"]).cast(pa.date32()))
        at_column = table.column_names.index("bought_at")
        with pytest.raises(DataError, match=r"column 'bought_at' is declared TIMESTAMP and the data has BIGINT"):
            registry.push("orders", table.set_column(at_column, "bought_at", pa.array([1795682640])))
        assert registry.push("orders", table).accepted == 1
        assert trained(registry, at(5))[0]["n_1d"] == 3


def test_no_row_of_dicts_is_judged_by_those_beside_it(tmp_path: Path) -> None:
    """Alone, among others of its type, among others of none, first or last: the same verdict, and the same instant."""
    paid = LOG.replace('"cents": "BIGINT",', '"cents": "BIGINT", "paid": "DECIMAL(10,2)",')
    good = order(1) | {"paid": Decimal("1.50")}
    fine: list[tuple[str, Any]] = [
        ("amount", "5"), ("amount", 5), ("cents", "3"), ("cents", 3.0), ("paid", "20.50"), ("paid", 20.5), ("paid", 7),
        ("paid", Decimal("1E+1")), ("bought_at", "2024-03-01T05:01:00+05:00"), ("bought_at", "2024-03-01 00:01"),
        ("bought_at", datetime(2024, 3, 1, 0, 1, tzinfo=UTC)),
    ]  # fmt: skip
    bad: list[tuple[str, Any]] = [
        ("cents", 1.5), ("cents", "1.5"), ("cents", True), ("paid", "10.255"), ("paid", 10.255), ("paid", Decimal("10.255")),
        ("paid", "9" * 9), ("amount", "much"), ("shop", 7), ("bought_at", 1795692600), ("bought_at", "soon"),
        ("bought_at", "2024-03-01T00:00:00.1234567Z"),
    ]  # fmt: skip
    with shop_of(tmp_path, paid).open() as registry:
        accepted = 0

        def verdicts(rows: list[dict]) -> list[bool]:
            nonlocal accepted
            receipt = registry.push("orders", rows)
            accepted += receipt.accepted
            rejected = {one.row for one in receipt.rejected}
            return [n not in rejected for n in range(len(rows))]

        rows = [good | {name: value} for name, value in (*fine, *bad)]
        wanted = [True] * len(fine) + [False] * len(bad)
        assert [verdicts([row])[0] for row in rows] == wanted
        assert verdicts(rows) == wanted and verdicts(rows[::-1]) == wanted[::-1]
        for place, row in enumerate(rows):
            for beside in (good, rows[0], rows[-3], good | {"bought_at": "2024-03-01T00:01:00Z"}):
                assert verdicts([row, beside])[0] == verdicts([beside, row])[1] == wanted[place], (row, beside)
        assert trained(registry, at(2))[0]["n_1d"] == answered(registry, at(2))[0]["n_1d"] == accepted, "all happened at one instant"
        reasons = [one.reason for one in registry.push("orders", rows).rejected]
        assert reasons[3] == "paid does not fit DECIMAL(10,2): '10.255'" and reasons[7] == "amount does not fit DOUBLE: 'much'"
        sent = list(registry.rejected("orders"))[-len(bad) :]
        assert [one.values["paid"] for one in sent[3:6]] == ["10.255", 10.255, "10.255"] and sent[0].values["cents"] == 1.5


def test_a_row_of_a_csv_file_is_the_value_that_it_says_or_rejected(tmp_path: Path) -> None:
    """Pushed, and scanned where it lies: an offset counts, and nothing is rounded."""
    lines = ["customer,amount,cents,shop,bought_at,loaded_at", "ann,2,3,b,2024-03-01T05:01:00+05:00,", "ann,2,1.5,b,2024-03-01 00:01:00,"]
    (tmp_path / "rows.csv").write_text("\n".join(lines[:2]) + "\n")
    (tmp_path / "bad.csv").write_text("\n".join((lines[0], lines[2])) + "\n")
    with shop_of(tmp_path / "pushed").open() as registry:
        assert main(["--root", str(tmp_path / "pushed"), "push", "orders", str(tmp_path / "rows.csv")]) == 0
        assert main(["--root", str(tmp_path / "pushed"), "push", "orders", str(tmp_path / "bad.csv")]) == 3
        assert [trained(registry, at(minute))[0]["n_1d"] for minute in (1, 2)] == [0, 1]
    files = shop_of(tmp_path / "files", profile=f'[sources]\norders = "{tmp_path}/rows.csv"\n')
    with files.open() as registry:
        assert [trained(registry, at(minute))[0]["n_1d"] for minute in (1, 2)] == [0, 1]
    broken = shop_of(tmp_path / "broken", profile=f'[sources]\norders = "{tmp_path}/bad.csv"\n')
    with broken.open() as registry, pytest.raises(RejectedRowsError, match=r"1\.5"):
        trained(registry, at(2))


def test_rows_of_a_table_are_judged_one_by_one_and_its_types_as_a_whole(tmp_path: Path) -> None:
    table = order_table([order(0), order(1), order(2)])
    offsets = pa.py_buffer(np.array([0, 1, 2, 3], np.int32))
    shops = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"a\xffb")])
    with shop_of(tmp_path).open() as registry:
        receipt = registry.push("orders", table.set_column(3, "shop", shops))
        assert [(one.row, one.reason) for one in receipt.rejected] == [(1, "shop is not UTF-8")]
        with pytest.raises(DataError, match=r"column 'amount' is declared and not in the data"):
            registry.push("orders", table.drop_columns("amount"))
        with pytest.raises(DataError, match=r"column 'cents' is declared BIGINT and the data has VARCHAR"):
            registry.push("orders", table.set_column(2, "cents", pa.array(["1", "2", "3"])))
        assert registry.push("orders", table.append_column("more", pa.array([1, 2, 3]))).accepted == 3
        assert registry.push("orders", []).accepted == 0


def test_an_overflow_is_rejected_where_a_scan_would_reject_it(tmp_path: Path) -> None:
    spec = RECENT.replace('agg.sum("cents")', 'agg.sum("cents * 2")')
    with Shop(tmp_path, ENTITY + LOG + spec + REALTIME_SET, NO_FILES).applied().open() as registry:
        receipt = registry.push("orders", [order(0) | {"cents": 1 << 62}, order(1)])
        assert [(one.row, one.reason) for one in receipt.rejected] == [(0, "an expression of recent is out of range")]
        assert trained(registry, at(5))[0]["cents_1d"] == 200


def test_nothing_of_a_wrong_push_is_left_behind(tmp_path: Path) -> None:
    with shop_of(tmp_path).open() as registry:
        for rows, error in ((5, UsageError), ([1, 2], UsageError), (pa.table({"a": [1]}), DataError), (pa.table({}), DataError)):
            with pytest.raises(error):
                registry.push("orders", rows)
        with pytest.raises(UsageError, match="is no id"):
            registry.push("orders", [order(0)], id="")
        assert not list((tmp_path / ".featreg" / "registry" / "push" / "orders").glob("*.segment"))
    assert set(COLUMNS) == set(order(0)) and featreg.__all__


# Online


def answered(registry: Any, moment: datetime) -> list[dict]:
    return [vector.values for vector in registry.online("model", KEYS, at=moment)]


def test_a_pushed_row_is_answered_at_once_as_training_sees_it(tmp_path: Path) -> None:
    rows = [order(n % 50, "ann" if n % 3 else "bob", float(n), loaded=n % 50 + n % 4) for n in range(100)]
    with shop_of(tmp_path).open() as registry:
        for begin in range(0, 100, 9):
            registry.push("orders", rows[begin : begin + 9])
            for minutes in (50, 53.5, 60, 3000):
                assert answered(registry, at(minutes)) == trained(registry, at(minutes))
        vector = registry.online("model", KEYS[0], at=at(54))
        assert (vector.status["n_1d"], vector.values["n_1d"]) == ("ok", 66)
        assert vector.watermark["recent"] == parse_instant(max(row["loaded_at"] for row in rows))
        assert registry.online("model", KEYS[0], at=at(80)).status["n_1d"] == "stale"


def test_a_row_dated_in_the_future_counts_from_then_on(tmp_path: Path) -> None:
    """It is taken in at once, and moves no watermark beyond now."""
    with shop_of(tmp_path).open() as registry:
        now = datetime.now(UTC)
        then = now + timedelta(hours=1)
        receipt = registry.push("orders", [order(0) | {"bought_at": then, "loaded_at": then}])
        assert receipt.watermark is not None and parse_instant(now) <= receipt.watermark < parse_instant(then)
        assert [answered(registry, moment)[0]["n_1d"] for moment in (now, then, then + timedelta(seconds=1))] == [0, 0, 1]


def test_a_row_older_than_every_window_is_taken_in_and_counts_nowhere(tmp_path: Path) -> None:
    with shop_of(tmp_path).open() as registry:
        registry.push("orders", [order(10_000, "ann")])
        assert registry.push("orders", [order(0, "ann", loaded=10_001)]).accepted == 1
        assert [answered(registry, at(10_002))[0][name] for name in ("n_1d", "spent_1d", "spent")] == [1, 1.0, 2.0]
        assert answered(registry, at(10_002)) == trained(registry, at(10_002))


def test_an_instant_that_is_gone_is_an_error_and_never_another_value(tmp_path: Path) -> None:
    with shop_of(tmp_path).open() as registry:
        registry.push("orders", [order(n, "ann") for n in range(200)])
        registry.push("orders", [order(200, "ann")])
        with pytest.raises(RefusedError, match=r"can no longer answer as of .* the earliest is 2024-03-01T03:\d\d:00Z"):
            registry.online("model", KEYS[0], at=at(150))
        for minutes in (192, 195, 201):
            assert answered(registry, at(minutes)) == trained(registry, at(minutes))


def test_a_view_with_files_waits_for_them_and_then_has_both(tmp_path: Path) -> None:
    """Rows pushed before the first materialize are in the log, and in the view with it; those after it at once."""
    shop = shop_of(tmp_path, LOG, PROFILE)
    shop.put("one", [order(0), order(1), order(2), order(3)])
    with shop.open() as registry:
        registry.push("orders", [order(2, amount=7.0)])
        assert registry.online("model", KEYS[0], at=at(5)).status["n_1d"] == "missing"
        registry.materialize(to=at(5))
        registry.push("orders", [order(4, "bob")])
        registry.push("orders", [order(1, "ann", 9.0, loaded=4.5)])
        for minutes in (5, 6):
            assert answered(registry, at(minutes)) == trained(registry, at(minutes))
        assert answered(registry, at(5))[0]["spent_1d"] == 2 + 7 + 9
        shop.put("two", [order(0.5), order(4.5)])  # the one before the stream counts, the other does not
        registry.materialize(to=at(8))
        assert answered(registry, at(8)) == trained(registry, at(8))
        assert answered(registry, at(8))[0]["n_1d"] == 5


@pytest.mark.parametrize("begin", [0, 3])
def test_pushed_rows_give_way_to_files_when_a_run_covers_them(tmp_path: Path, begin: int) -> None:
    """The stream says one thing and the files, later, another: up to the watermark the files are right, key by key."""
    shop = shop_of(tmp_path, UNTIL_BATCH, PROFILE)
    shop.put("one", [order(n, "ann") for n in range(3)])
    with shop.open() as registry:
        registry.materialize(to=at(3))
        registry.push("orders", [order(n, "ann", 10.0) for n in range(3, 8)] + [order(4, "bob", 10.0), order(12, "eve", 10.0)])
        assert answered(registry, at(9))[0]["spent_1d"] == 3 + 50
        assert answered(registry, at(9)) == trained(registry, at(9))
        shop.put("two", [order(n, "ann") for n in range(begin, 6)])
        registry.materialize(to=at(6))
        found = answered(registry, at(13))
        assert [one["spent_1d"] for one in found] == [3 + 6 - begin + 20, None, 10], "bob's rows were in no file"
        assert found == trained(registry, at(13))
        registry.push("orders", [order(5, "ann", 99.0), order(8, "ann", 5.0)])  # the first is covered already
        assert answered(registry, at(13))[0]["spent_1d"] == 3 + 6 - begin + 25
        assert answered(registry, at(13)) == trained(registry, at(13))


def test_views_of_every_read_what_was_pushed_with_their_runs(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, LOG, daily=True)
    days = [order(n * 500, ("ann", "bob")[n % 2], float(n)) for n in range(12)]
    with shop.open() as registry:
        for number, row in enumerate(days):
            registry.push("orders", [row, row | {"customer": "eve"}])
            if number % 3 == 2:
                moment = at(number * 500 + 1)
                registry.materialize(to=moment)
                assert answered(registry, moment) == trained(registry, moment)


def test_a_new_version_is_filled_from_the_log(tmp_path: Path) -> None:
    shop = shop_of(tmp_path)
    rows = [order(n, "ann", float(n)) for n in range(40)]
    with shop.open() as registry:
        registry.push("orders", rows)
    Shop(tmp_path, ENTITY + LOG + RECENT.replace('.over("1h", "1d", None)', '.over("2h", "1d", None)') + REALTIME_SET, NO_FILES).applied()
    with shop.open() as registry:
        registry.push("orders", [order(40, "ann", 1.0)])
        assert answered(registry, at(41)) == trained(registry, at(41))
        assert answered(registry, at(41))[0]["spent_2h"] == sum(range(40)) + 1


def test_a_rollback_is_brought_up_by_the_next_push(tmp_path: Path) -> None:
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        registry.push("orders", [order(0)])
        Shop(tmp_path, ENTITY + LOG + RECENT.replace('"1h", "1d", None', '"1d", None') + REALTIME_SET, NO_FILES).applied()
        registry.push("orders", [order(1)])
        registry.push("orders", [order(2)])
        registry.rollback()
        registry.push("orders", [order(3)])
        assert answered(registry, at(5)) == trained(registry, at(5))
        assert answered(registry, at(5))[0]["spent_1h"] == 4.0


def test_many_pushes_to_one_key_leave_what_one_push_leaves(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Bytes, and so what a read touches, depend on live tiles and head: not on how often there was a push.  10,000 with --long."""
    count = 10_000 if request.config.getoption("--long") else 600
    spec = ENTITY + LOG + RECENT.replace('"spent": agg.sum("amount").over("1h", "1d", None),', "") + REALTIME_SET
    sizes = []
    rows = [order(n * 2_500 / count, "ann", n % 7 / 8) for n in range(count)]
    for folder, portion in (("one", 1), ("all", count)):
        shop = Shop(tmp_path / folder, spec, NO_FILES).applied()
        with shop.open() as registry:
            for begin in range(0, count, portion):
                registry.push("orders", rows[begin : begin + portion])
            sizes.append(sum(len(value) for key, value in shop.stored().items() if key[0] == 1))
            assert answered(registry, at(2_500)) == trained(registry, at(2_500))
    assert sizes[0] < 1.2 * sizes[1] < 80_000


def test_a_log_cannot_begin_before_what_views_have_of_files(tmp_path: Path) -> None:
    """Rows of files from its beginning on would not count any more, and nothing can be taken out of a tile."""
    shop = shop_of(tmp_path, LOG, PROFILE)
    shop.put("one", [order(0), order(5)])
    with shop.open() as registry:
        registry.materialize(to=at(10))
        with pytest.raises(RefusedError, match=r"would begin at 2024-03-01T00:04:00Z, and views have 1 rows of files from then on"):
            registry.push("orders", [order(4)])
        assert registry.push("orders", [order(6), order(7)]).accepted == 2, "the run came to 10, but no row of a file is from 6 on"
        assert answered(registry, at(11)) == trained(registry, at(11))
        found = registry.parity("model")
        assert found.cells == 10 and found.differing == found.late == 0


def test_a_push_that_comes_to_the_log_and_not_to_the_views_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a store whose disk is full: the rows are taken in, and the next push brings them."""
    with shop_of(tmp_path).open() as registry:
        registry.push("orders", [order(0)])
        pusher = registry.pusher("orders")
        with monkeypatch.context() as patched:
            patched.setattr(pusher.store, "write", full_disk)
            with pytest.raises(StoreError, match=r"is taken in and durable, and not in every view yet: .*\n  Do not send it again"):
                registry.push("orders", [order(1)], id="one")
        assert answered(registry, at(5))[0]["n_1d"] == 1
        assert registry.push("orders", [order(1)], id="one").duplicate
        assert answered(registry, at(5)) == trained(registry, at(5))
        assert answered(registry, at(5))[0]["n_1d"] == 2


def full_disk(*_: Any, **__: Any) -> float:
    raise StoreError("the disk is full")


def test_a_log_on_a_full_disk_takes_all_of_a_push_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system writes a part of it, as it does when it is full."""
    write = segments.os.write
    with shop_of(tmp_path).open() as registry:
        registry.push("orders", [order(0)])
        with monkeypatch.context() as patched:
            patched.setattr(segments.os, "write", lambda file, data: write(file, data[:1_000]))
            with pytest.raises(StoreError, match="the disk is full"):
                registry.push("orders", [order(n) for n in range(1, 300)])
        assert trained(registry, at(500))[0]["spent"] == 1.0
        assert registry.push("orders", [order(n) for n in range(1, 300)]).accepted == 299
        assert trained(registry, at(500))[0]["spent"] == answered(registry, at(500))[0]["spent"] == 300.0


# Two who push


def push_and_hang(root: str, told: str) -> None:
    """Take the lease, bring the rows to the log and to no view, say so, and hang."""
    with featreg.open(root) as registry:
        pusher = registry.pusher("orders")

        def hang(*_: Any) -> None:
            Path(told).write_text(str(os.getpid()))
            time.sleep(300)

        pusher._bring = hang  # type: ignore[method-assign]
        registry.push("orders", [order(1, amount=5.0)], id="mine")


def test_a_pusher_killed_holding_the_lease_holds_nobody_up_and_loses_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it lives, who waits is told who holds the lease; once it is dead, the lease is free and what was in the log is brought."""
    shop = shop_of(tmp_path / "shop")
    told, forks = tmp_path / "told", Forks(kernel_folder(tmp_path_factory.getbasetemp() / "kernels"))
    try:
        pid = forks.start("tests.test_push:push_and_hang", str(shop.root), str(told))
        deadline = time.monotonic() + 60
        while not told.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        with shop.open() as registry:
            monkeypatch.setattr(registry.pusher("orders").lease, "_timeout", 0.2)
            with pytest.raises(LeaseHeldError, match=rf"the lease is held by pid {pid} on .* \(push to orders\)"):
                registry.push("orders", [order(2)])
            os.kill(pid, signal.SIGKILL)
            assert forks.outcome() == -signal.SIGKILL
            assert registry.push("orders", [order(2)]).accepted == 1
            assert registry.push("orders", [order(1, amount=5.0)], id="mine").duplicate
            assert answered(registry, at(5)) == trained(registry, at(5))
            assert answered(registry, at(5))[0]["spent"] == 6.0
    finally:
        forks.close()


# A log of many segments


def test_a_log_that_is_sealed_is_the_same_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training, a new version, a store that was lost, ids and parity read it; only the newest segment's rows are in memory."""
    monkeypatch.setattr(push_log, "SEGMENT_BYTES", 8_000)
    shop = shop_of(tmp_path, LOG, "[online]\nlog = 1\n")
    rows = [order(n % 50, "ann" if n % 3 else "bob", float(n), loaded=n % 50 + n % 4) for n in range(400)]
    with shop.open() as registry:
        for begin in range(0, 400, 10):
            registry.push("orders", rows[begin : begin + 10], id=f"push {begin}")
        wanted = answered(registry, at(53.5))
        registry.pusher("orders").log.seal()
        assert len(list((tmp_path / ".featreg" / "registry" / "push" / "orders").glob("*.pushed.parquet"))) > 3
        for minutes in (3, 17.5, 53.5):
            assert trained(registry, at(minutes)) == trained(registry, at(minutes), sources={"orders": order_table(rows)})
        assert max(table.num_rows for name, table in registry.engine.tables.items() if name.startswith("featreg_pushed")) < 200
        assert registry.push("orders", rows[:10], id="push 0").duplicate
        found = registry.parity_from_log("model")
        assert found.is_known and found.agreeing == found.cells
    shutil.rmtree(tmp_path / ".featreg" / "online")
    with shop.open() as registry:
        assert registry.push("orders", rows[10:20], id="push 10").duplicate, "the log knows it"
        assert answered(registry, at(53.5)) == wanted
    more = LOG.replace('"shop": "VARCHAR",', '"shop": "VARCHAR", "coupon": "BIGINT",')
    spec = RECENT.replace('"share"', '"coupons": agg.sum("coupon"), "share"').replace('.over("1h", "1d", None)', '.over("2h", "1d", None)')
    Shop(tmp_path, ENTITY + more + spec + REALTIME_SET, NO_FILES).applied()
    with shop.open() as registry:
        registry.push("orders", [order(50, "eve", 2.0) | {"coupon": 5}])
        found = answered(registry, at(53.5))
        assert found == trained(registry, at(53.5))
        assert [(one["spent_1d"], one["spent_2h"]) for one in found] == [*((one["spent_1d"],) * 2 for one in wanted[:2]), (2.0, 2.0)]


# The command line


def test_a_file_of_any_kind_and_stdin_are_pushed(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    shop_of(tmp_path)
    good = '{"customer": "ann", "amount": 1.5, "cents": 150, "shop": "a", "bought_at": "2024-03-01T00:01:00Z", "loaded_at": null}'
    (tmp_path / "rows.jsonl").write_text(good + "\n" + good.replace("1.5", '"much"') + "\n")
    (tmp_path / "rows.csv").write_text("customer,amount,cents,shop,bought_at,loaded_at\nann,2,3,b,2024-03-01 00:01:00,\n")
    pq.write_table(order_table([order(1), order(2)]), tmp_path / "rows.parquet")

    def pushed(*arguments: str) -> tuple[int, dict]:
        code = main(["--root", str(tmp_path), "--json", "push", "orders", *arguments])
        return code, json.loads(capsys.readouterr().out)

    code, told = pushed(str(tmp_path / "rows.jsonl"), "--id", "one")
    assert (code, told["accepted"], [one["row"] for one in told["rejected"]]) == (3, 1, [1])
    assert pushed(str(tmp_path / "rows.jsonl"), "--id", "one")[1]["duplicate"]
    assert [pushed(str(tmp_path / f"rows.{kind}"))[1]["accepted"] for kind in ("csv", "parquet")] == [1, 2]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{good}\n\n{good}\n".encode())))
    assert pushed("-") == (0, {"accepted": 2, "rejected": [], "duplicate": False, "watermark": "2024-03-01T00:02:00Z"})
    with featreg.open(tmp_path) as registry:
        assert trained(registry, at(5))[0]["n_1d"] == answered(registry, at(5))[0]["n_1d"] == 6


def test_rejected_rows_are_told_by_their_place_in_all_of_the_input_and_listed_later(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Portions and empty lines shift no number."""
    shop_of(tmp_path)
    monkeypatch.setattr("featreg.cli.push.LINES_A_PUSH", 3)
    good = '{"customer": "ann", "amount": 1.5, "cents": 150, "shop": "a", "bought_at": "2024-03-01T00:01:00Z", "loaded_at": null}'
    bad = good.replace("1.5", '"much"')
    (tmp_path / "rows.jsonl").write_text("\n".join((good, "", bad, good, bad, "", bad, "")))
    command = ["--root", str(tmp_path), "push", "orders", str(tmp_path / "rows.jsonl")]
    assert main(["--json", *command]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["accepted"], [(one["row"], one["line"]) for one in told["rejected"]]) == (2, [(1, 3), (3, 5), (4, 7)])
    assert main(command) == 3 and "line 7: amount does not fit DOUBLE: 'much'" in capsys.readouterr().out
    (tmp_path / "cut.jsonl").write_text("\n".join((good, good, good, good, "{")))
    cut = ["--root", str(tmp_path), "push", "orders", str(tmp_path / "cut.jsonl")]
    assert main(cut) == 3 and "line 5 is no JSON" in (told := capsys.readouterr().err)
    assert "Lines 1 to 3 are taken in: mend it, then push from line 4 on." in told
    assert main([*cut, "--id", "whole"]) == 3 and "Nothing was taken in" in capsys.readouterr().err
    assert main(["--root", str(tmp_path), "--json", "source", "rejected", "orders", "--limit", "4"]) == 0
    listed = json.loads(capsys.readouterr().out)["rejected"]
    assert [one["row"] for one in listed] == [0, 1, 1, 0] and {one["values"]["amount"] for one in listed} == {"much"}
    assert main(["--root", str(tmp_path), "source", "rejected", "orders"]) == 0 and "does not fit" in capsys.readouterr().out


def test_a_push_says_what_is_wrong_with_its_file_and_which_view_waits_for_a_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shop = shop_of(tmp_path, profile=PROFILE)
    shop.put("one", [order(0)])

    def told(name: str, content: bytes, code: int) -> str:
        (tmp_path / name).write_bytes(content)
        assert main(["--root", str(tmp_path), "push", "orders", str(tmp_path / name)]) == code
        printed = capsys.readouterr()
        assert "[sources]" not in printed.err and "conf" not in printed.err
        return printed.err + printed.out

    assert "one.txt is no Parquet, CSV or JSON file by its ending" in told("one.txt", b"a,b", 2)
    for name, content in (("cut.parquet", b"PAR1 and no more"), ("empty.csv", b"")):
        found = told(name, content, 3)
        assert found.startswith(f"error: {tmp_path / name} cannot be read: ") and "source" not in found
    assert "item 1 is no row" in told("rows.json", b"[{}, 3]", 3) and "no JSON" in told("cut.json", b"[{", 3)
    assert "line 1 is a list; write one object a line" in told("list.jsonl", b" [{}]", 3)
    row = json.dumps(order(1), default=str).encode()
    line = "\nrecent is not materialized: featreg materialize recent\n"
    assert told("row.jsonl", row, 0).endswith(line)
    with shop.open() as registry:
        registry.materialize()
    assert "materialize" not in told("row.jsonl", row, 0)
