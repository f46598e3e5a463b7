"""The benchmark's rivals answer the question that they are timed on: each agrees with the others and with a loop over rows."""

import math

import pyarrow.parquet as pq
import pytest

from tests.benchmarks import data, rivals
from tests.benchmarks.measure import run_measured


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A few keys, so that windows are full, busy and tied; written to a folder of its own."""
    folder = tmp_path_factory.mktemp("rivals")
    options = {"keys": 20, "days": 40, "seed": 3, "nulls": 0.2}
    events, spine = data.events(4_000, **options), data.spine(400, **options)
    log, asked = pq.read_table(events).to_pylist(), pq.read_table(spine).to_pylist()
    # Asked at the very instant of an event, twice: the event is the future, and each row gets its own answer.
    asked[:3] = [{"user_id": log[row]["user_id"], "as_of": log[row]["event_at"]} for row in (3_000, 3_000, 3_999)]
    # Ties of one key: the largest value is the last.
    log[3_001] = log[3_000] | {"value": 7.5}
    log[3_002] = log[3_000] | {"value": None}
    _write(log, data.EVENT_SCHEMA, folder / "events.parquet")
    _write(asked, data.SPINE_SCHEMA, folder / "spine.parquet")
    return folder, log, asked


def _write(rows, schema, path):
    import pyarrow as pa

    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def _expected(log, asked, window, hops):
    """The definition as a loop over rows; instants as UTC microseconds."""
    width, hop = rivals.WINDOWS[window], rivals.HOPS[window] if hops else 1
    micros = [(row["user_id"], _micros(row["event_at"]), row["value"], row["category"]) for row in log]
    for spine_row in asked:
        cutoff = _micros(spine_row["as_of"])
        start = (cutoff - width) // hop * hop
        seen = [row for row in micros if row[0] == spine_row["user_id"] and start <= row[1] < cutoff]
        values = [row[2] for row in seen if row[2] is not None]
        newest = max(seen, key=lambda row: (row[1], row[2] is not None, row[2] or 0.0), default=None)
        yield {
            "count": len(seen),
            "sum": math.fsum(values) if values else None,
            "avg": math.fsum(values) / len(values) if values else None,
            "min": min(values, default=None),
            "max": max(values, default=None),
            "last": newest[2] if newest else None,
            "count_distinct": len({row[3] for row in seen}),
        }


def _agree(name, got, expected):
    """Sums and what is made of them up to rounding, the rest exactly."""
    if name in ("sum", "avg") and None not in (got, expected):
        return math.isclose(got, expected, rel_tol=1e-9)
    return got == expected


def _micros(instant):
    from featreg.instants import parse_instant

    return parse_instant(instant)


@pytest.mark.parametrize(
    ("rival", "options", "hops"),
    [
        ("duckdb_rows", (True,), True),
        ("duckdb_rows", (True, "plain", 3), True),
        ("duckdb_rows", (False,), False),
        ("duckdb_range", (True,), True),
        ("duckdb_range", (False, "plain"), False),
        ("polars_rolling", (), False),
    ],
)
def test_a_rival_gives_what_the_loop_gives(small, rival, options, hops):
    """Row for row in the spine's order, up to the rounding of sums."""
    folder, log, asked = small
    out = folder / f"{rival}.parquet"
    getattr(rivals, rival)(str(folder / "events.parquet"), str(folder / "spine.parquet"), str(out), *options)
    answer = pq.read_table(out)
    assert answer.num_rows == len(asked)
    for window in rivals.WINDOWS:
        expected = list(_expected(log, asked, window, hops))
        for name in expected[0]:
            if f"{name}_{window}" in answer.column_names:
                got = answer[f"{name}_{window}"].to_pylist()
                differing = [(g, row[name]) for g, row in zip(got, expected, strict=True) if not _agree(name, g, row[name])]
                assert differing == [], f"{name}_{window}"
    absent = set(rivals.FEATURES) - set(answer.column_names)
    assert absent == ({f"count_distinct_{window}" for window in rivals.WINDOWS} if rival == "polars_rolling" else set())


def test_the_asof_join_gives_the_newest_value_before_each_instant(small):
    """The newest row of all history, of ties the largest value; nothing for a key that has no row yet."""
    folder, log, asked = small
    out = folder / "asof.parquet"
    rivals.duckdb_asof(str(folder / "events.parquet"), str(folder / "spine.parquet"), str(out))
    newest = []
    for row in asked:
        seen = [event for event in log if event["user_id"] == row["user_id"] and event["event_at"] < row["as_of"]]
        newest.append(max(seen, key=lambda e: (e["event_at"], e["value"] is not None, e["value"] or 0.0), default={"value": None})["value"])
    assert pq.read_table(out)["last_value"].to_pylist() == newest


def test_events_are_a_log_and_the_same_each_time():
    """Times ascend, keys are skewed, 2 % of the values are NULL, and the same parameters give the same rows."""
    recipe = data.Events(20_000)
    table = data._event_chunk(recipe, 0)
    times = table["event_at"].to_pylist()
    assert times == sorted(times)
    assert table.equals(data._event_chunk(recipe, 0))
    assert 0.015 < table["value"].null_count / 20_000 < 0.025
    busiest = table["user_id"].value_counts().to_pylist()
    assert max(count["counts"] for count in busiest) > 20_000 * 0.1
    assert set(table["category"].to_pylist()) == set(range(20))


def test_a_hot_key_has_the_share_it_was_given():
    """hot=0.2 gives key 0 a fifth of all rows, and varchar=True gives the same categories as text."""
    table = data._event_chunk(data.Events(20_000, hot=0.2, varchar=True), 0)
    assert 0.19 < sum(key == 0 for key in table["user_id"].to_pylist()) / 20_000 < 0.21
    assert set(table["category"].to_pylist()) == {f"category {code:02d}" for code in range(20)}


def test_a_measured_run_reports_its_own_peak_and_its_own_failure(tmp_path):
    """The child's memory is its own, however much the parent holds; and its error is shown."""
    held = bytearray(600_000_000)
    held[::4096] = b"x" * len(held[::4096])
    events, spine = data.events(1_000), data.spine(100)
    measured = run_measured("tests.benchmarks.rivals", "duckdb_asof", events, spine, tmp_path / "out.parquet")
    assert measured.rows == 100 and 0 < measured.seconds < 60
    assert 10_000_000 < measured.peak_bytes < len(held)
    with pytest.raises(RuntimeError, match="duckdb_nothing"):
        run_measured("tests.benchmarks.rivals", "duckdb_nothing")
