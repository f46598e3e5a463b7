"""What was served is computed again, and every cell that is another now has its one cause."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featreg.cli import main
from featreg.session.serve_log import SERVED, is_sampled
from featreg.stores.lmdb import open_store
from tests.shop import ENTITY, PROFILE, REALTIME_SET, RECENT, Shop, at, order, order_table
from tests.test_push import KEYS, LOG, shop_of

ALL = "[online]\nlog = 1\n"
AT_ONCE = LOG.replace('available="loaded_at",', "")


def causes(registry: Any) -> dict[str, int]:
    found = registry.parity_from_log("model")
    assert found.is_known and found.cells == found.vectors * 10
    return {cause: count for cause, count in found.causes.items() if count}


def feed(registry: Any, rows: list[dict], portion: int = 5) -> None:
    for begin in range(0, len(rows), portion):
        registry.push("orders", rows[begin : begin + portion])
        moment = rows[begin : begin + portion][-1]["bought_at"] + (at(0.5) - at(0))
        registry.online("model", KEYS, at=moment)
        registry.online("model", KEYS[0], at=moment)


def test_nothing_logged_is_unknown_and_no_pass(tmp_path: Path) -> None:
    with shop_of(tmp_path).open() as registry:
        feed(registry, [order(n) for n in range(10)])
        found = registry.parity_from_log("model")
        assert not found.is_known and "UNKNOWN" in str(found)
    assert main(["--root", str(tmp_path), "parity", "model", "--from-log", "--exit-code"]) == 3


def test_what_a_comparison_reads_is_served_to_nobody_and_a_log_is_compared_whole(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shop = shop_of(tmp_path, AT_ONCE, ALL)
    with shop.open() as registry:
        feed(registry, [order(n) for n in range(10)])
        logged = registry.parity_from_log("model").vectors
        assert registry.parity("model").is_known and registry.parity_from_log("model").vectors == logged > 0
    command = ["--root", str(tmp_path), "parity", "model", "--from-log"]
    assert main([*command, "--sample", "5"]) == 2 and "Leave out --at and --sample" in capsys.readouterr().err
    assert main([*command, "--plot", str(tmp_path / "p.txt")]) == 2 and not (tmp_path / "p.txt").exists()
    page = tmp_path / "p.html"
    assert main([*command, "--plot", str(page)]) == 0 and page.read_text().startswith("<!doctype")
    assert f"wrote {page}" in capsys.readouterr().out


def test_the_same_keys_are_logged_everywhere() -> None:
    keys = [{"customer": f"c{n}"} for n in range(2_000)]
    chosen = [is_sampled(key, 0.1) for key in keys]
    assert chosen == [is_sampled(dict(key), 0.1) for key in keys] and 140 < sum(chosen) < 260
    assert all(is_sampled(key, 0.3) for key, was in zip(keys, chosen) if was), "a larger share has all of a smaller one"


def test_only_sampled_keys_are_logged(tmp_path: Path) -> None:
    with shop_of(tmp_path, profile="[online]\nlog = 0.4\n").open() as registry:
        rows = [{"customer": f"c{n}"} for n in range(50)]
        registry.push("orders", [order(0)])
        registry.online("model", rows, at=at(1))
        logged = [event.body["row"] for event in registry.events.read(SERVED)]
    assert logged == [row for row in rows if is_sampled(row, 0.4)] and 0 < len(logged) < 50


def test_rows_that_came_after_it_was_served_are_late_and_nothing_is_logic(tmp_path: Path) -> None:
    rows = [order(n, ("ann", "bob")[n % 2], float(n % 7)) for n in range(60)]
    late = rows[7::10]
    with shop_of(tmp_path, AT_ONCE, ALL).open() as registry:
        feed(registry, [row for row in rows if row not in late])
        assert causes(registry) == {}
        registry.push("orders", late)
        served = [event.body for event in registry.events.read(SERVED)]
        spine = pa.table({
            "customer": [body["row"]["customer"] for body in served],
            "as_of": pa.array([body["as_of"] for body in served], pa.timestamp("us", "UTC")),
        })  # fmt: skip
        whole, without = (
            registry.training_set("model", spine, time="as_of", sources={"orders": order_table(given)}).to_arrow()
            for given in (rows, [row for row in rows if row not in late])
        )
        moved = {
            name: sum(a != b for a, b in zip(whole[name].to_pylist(), without[name].to_pylist()))
            for name in whole.column_names
            if name not in spine.column_names
        }
        assert registry.parity_from_log("model").by_feature == {name: {"LATE": count} for name, count in moved.items() if count}
        assert sum(moved.values()) > 20


def test_rows_with_the_time_of_their_delivery_are_never_late(tmp_path: Path) -> None:
    rows = sorted((order(n, "ann", float(n), loaded=n + 7 * (n % 5 == 0)) for n in range(60)), key=lambda row: row["loaded_at"])
    with shop_of(tmp_path, LOG, ALL).open() as registry:
        for begin in range(0, 60, 5):
            registry.push("orders", rows[begin : begin + 5])
            registry.online("model", KEYS, at=rows[begin : begin + 5][-1]["loaded_at"])
        assert causes(registry) == {}


def test_a_cell_of_files_that_no_run_had_taken_in_is_stale(tmp_path: Path) -> None:
    shop = Shop(tmp_path, ENTITY + LOG + RECENT + REALTIME_SET, PROFILE + ALL).applied()
    shop.put("one", [order(n) for n in range(10)])
    with shop.open() as registry:
        registry.materialize(to=at(5))
        registry.online("model", KEYS, at=at(9))
        found = registry.parity_from_log("model")
        assert {cause for cause, count in found.causes.items() if count} == {"STALE"}
        registry.materialize(to=at(10))
        registry.online("model", KEYS, at=at(10))
        assert registry.parity_from_log("model").causes == found.causes


@pytest.mark.parametrize("source", [LOG, AT_ONCE])
def test_files_that_do_not_say_when_their_rows_came_are_named(tmp_path: Path, source: str) -> None:
    """With the column a row that came late is late in training too, so what a run had not read is STALE and nothing else."""
    shop = Shop(tmp_path, ENTITY + source + RECENT + REALTIME_SET, PROFILE + ALL).applied()
    shop.put("one", [order(0)])
    with shop.open() as registry:
        registry.materialize(to=at(5))
        registry.online("model", KEYS[0], at=at(8))
        shop.put("two", [order(6, loaded=9), order(6, loaded=7)])
        found = registry.parity_from_log("model")
        assert found.causes["STALE"] > 0 == found.causes["LATE"] == found.causes["LOGIC"]
        exact = "STALE may be LATE: files of orders have no available= column" not in str(found)
        assert exact == (source == LOG) == (found.undated == ())


def test_a_view_that_was_not_filled_is_missing(tmp_path: Path) -> None:
    shop = Shop(tmp_path, ENTITY + LOG + RECENT + REALTIME_SET, PROFILE + ALL).applied()
    shop.put("one", [order(n) for n in range(10)])
    with shop.open() as registry:
        registry.online("model", KEYS[0], at=at(9))
        registry.materialize(to=at(10))
        assert set(causes(registry)) == {"MISSING"}


def test_a_feature_that_means_something_else_now_is_of_another_version(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, LOG, ALL)
    with shop.open() as registry:
        feed(registry, [order(n, amount=1.0) for n in range(10)])
    spec = RECENT.replace('agg.sum("amount")', 'agg.sum("amount * 2")')
    shop = Shop(tmp_path, ENTITY + LOG + spec + REALTIME_SET, ALL).applied()
    with shop.open() as registry:
        assert set(causes(registry)) == {"VERSION"}
        assert set(registry.parity_from_log("model").by_feature) == {"spent_1h", "spent_1d", "spent"}


def test_a_value_that_nothing_explains_is_logic_with_an_example_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A byte of the store is changed, as a bug would: the answer is wrong and no row makes it so."""
    shop = shop_of(tmp_path, LOG, ALL)
    with shop.open() as registry:
        registry.push("orders", [order(n, amount=2.0) for n in range(10)])
        with open_store(registry.profile.online_path) as store:
            (name, head), *_ = [(key, value) for key, value in shop.stored().items() if key[0] == 1 and key[9] == 1]  # heads
            assert head.count(b"\0\0\0\0\0\0\0\x40") == 10
            store.write([(name, head.replace(b"\0\0\0\0\0\0\0\x40", b"\0\0\0\0\0\0\x08\x40", 1))])
        registry.online("model", KEYS[0], at=at(9.5))
        assert causes(registry) == {"LOGIC": 4}
    plot = tmp_path / "parity.html"
    assert main(["--root", str(tmp_path), "parity", "model", "--from-log", "--exit-code", "--plot", str(plot)]) == 5
    assert "LOGIC" in capsys.readouterr().out
    page = plot.read_text()
    assert page.count("<rect") == 4 and "spent_1d" in page and "LOGIC: 1 of 1" in page
