"""Pushes over HTTP: what the library takes in, and a replay into Redis that answers the training set, cell by cell."""

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars
import pyarrow as pa
import pytest

import featreg
from featreg.errors import RefusedError, UsageError
from tests.redis_process import RedisProcess
from tests.service_process import EVERYTHING, PUSHER, READER, ServiceProcess
from tests.shop import ENTITY, ORDERS, REALTIME_SET, RECENT, Shop, at, order, order_table
from tests.test_materialize import a_few
from tests.test_worlds import first_difference

LOG = ENTITY + ORDERS.replace('tie_break="shop",', 'tie_break="shop", stream="log",') + RECENT + REALTIME_SET
PUSH = "/v1/push/orders"


def test_a_push_over_http_is_a_push(tmp_path: Path) -> None:
    """JSON, Arrow, Polars and dicts; rejected rows with their reasons; a repeat, an id of other rows, a scope, a form, a limit."""
    shop = Shop(tmp_path, LOG, "[serve]\nmax_rows = 100\ndeadline = 60.0\n").applied()
    with ServiceProcess(shop.root) as service, featreg.Client(service.url, PUSHER) as client:
        rows = [order(number, "ann", float(number)) for number in range(6)]
        first = client.push("orders", rows[:2], id="one")
        assert (first.accepted, first.rejected, first.duplicate, first.id) == (2, (), False, "one")
        again = client.push("orders", rows[:2], id="one")
        assert (again.accepted, again.duplicate) == (0, True)
        with pytest.raises(RefusedError, match="other rows"):
            client.push("orders", rows[2:4], id="one")
        assert client.push("orders", order_table(rows[2:4])).accepted == 2
        assert client.push("orders", polars.from_arrow(order_table(rows[4:5]))).accepted == 1
        odd = [rows[5] | {"amount": float("nan")}, rows[5] | {"amount": "much"}, {"customer": "ann"}, rows[5] | {"bought_at": None}]
        mixed = client.push("orders", odd)
        assert mixed.accepted == 1 and [one.row for one in mixed.rejected] == [1, 2, 3]
        assert mixed.rejected[0].reason.startswith("amount") and mixed.rejected[0].values == odd[1]
        in_seconds = {name: str(value) for name, value in rows[0].items()} | {"bought_at": 1795682640}
        seconds = service.ask("POST", PUSH, {"rows": [in_seconds]})[2]
        assert (seconds["accepted"], seconds["rejected"][0]["row"]) == (0, 0)
        assert "write it as 2013-06-30T21:00:00Z" in seconds["rejected"][0]["reason"]
        with shop.open() as registry:
            spine = pa.table({"customer": ["ann"], "as_of": pa.array([at(60)], pa.timestamp("us", "UTC"))})
            trained = registry.training_set("model", spine, time="as_of").to_arrow()
            assert trained["n_1d"].to_pylist() == [6]
        sent: dict[str, Any] = {name: str(value) for name, value in rows[0].items()}
        arrow = "application/vnd.apache.arrow.stream"
        for wanted, body, kind in [
            *((400, body, "application/json") for body in ({}, {"rows": 3}, {"rows": [3]}, {"rows": [], "id": 3})),
            *((400, body, "application/json") for body in (b"\xff", b'{"rows": [NaN]}')),
            (413, {"rows": [sent] * 101}, "application/json"), (415, b"a,b", "text/csv"), (400, b"arrow?", arrow),
            (400, {"rows": [], "id": ""}, "application/json"), (200, {"rows": []}, "application/json"),
        ]:  # fmt: skip
            assert service.ask("POST", PUSH, body, Content_Type=kind)[0] == wanted, body
        assert service.ask("POST", PUSH, {"rows": [sent]}, READER)[0] == 403
        assert service.ask("POST", "/v1/push/nothing", {"rows": []})[0] == 404
        with pytest.raises(UsageError, match="a set has no place"):
            client.push("orders", [rows[0] | {"amount": {1}}])
        text = service.ask("GET", "/metrics")[2]
        assert 'featreg_rows_pushed_total{source="orders",fate="accepted"} 6' in text
        assert 'featreg_rows_pushed_total{source="orders",fate="rejected"} 4' in text
        assert "much" not in service.log and "ann" not in service.log


def test_a_replay_through_http_into_redis_answers_the_training_set(tmp_path: Path) -> None:
    """Rows in order of arrival, many late, some sent twice; vectors at instants in between: 0 cells differ from the training set."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    rows = sorted(a_few(0, 600, 500, dice.randrange(1 << 30)), key=lambda row: row["loaded_at"])
    keys = [{"customer": f"customer{number}"} for number in range(24)]
    with RedisProcess(tmp_path) as redis:
        profile = f'[online]\nstore = "redis"\nurl = "{redis.url()}"\n[serve]\ndeadline = 60.0\n'
        shop = Shop(tmp_path / "shop", LOG, profile).applied()
        asked: list[tuple[dict[str, Any], Any]] = []
        answered: list[dict[str, Any]] = []
        with ServiceProcess(shop.root) as service, featreg.Client(service.url, EVERYTHING, timeout=60) as client:
            begin = 0
            while begin < len(rows):
                some = rows[begin : begin + dice.randrange(1, 30)]
                begin += len(some)
                given = order_table(some) if dice.random() < 0.3 else some
                assert client.push("orders", given, id=f"push {begin}").accepted == len(some)
                if dice.random() < 0.2:
                    assert client.push("orders", given, id=f"push {begin}").duplicate
                now = some[-1]["loaded_at"] + timedelta(microseconds=1)
                if begin < len(rows) and rows[begin]["loaded_at"] < now:
                    continue  # rows of this instant are still to come
                chosen = dice.sample(keys, 4)
                vectors = client.online("model", chosen, at=now)
                asked += [(key, now) for key in chosen]
                answered += [vector.values for vector in vectors]
        with shop.open() as registry:
            moments = pa.array([moment for _, moment in asked], pa.timestamp("us", "UTC"))
            spine = pa.table({"customer": [key["customer"] for key, _ in asked], "as_of": moments})
            trained = registry.training_set("model", spine, time="as_of").to_arrow().drop_columns(["customer", "as_of"])
    assert len(answered) > 60 and sum(bool(row["n_1d"]) for row in answered) > 40
    assert first_difference(trained.column_names, trained.to_pylist(), answered) is None
