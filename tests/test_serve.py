"""The service: the library's bits over HTTP, and a clear word for everything that is not as it should be."""

import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featreg
from featreg.errors import DataError, RefusedError, StoreError, StoreUnavailable, UsageError
from featreg.instants import format_instant, parse_instant
from featreg.serve.desk import Desk, NotFound
from featreg.serve.settings import ServeSettings, serve_settings
from featreg.serve.tokens import Tokens, digest_of, read_tokens
from featreg.session.group_reader import TooEarly
from featreg.session.parity import same_bits
from featreg.session.profile import read_profile
from tests.redis_process import RedisProcess
from tests.service_process import EVERYTHING, EXPIRED, PROGRAM, PUSHER, READER, TOKENS, ServiceProcess
from tests.shop import PROFILE, REALTIME_SHOP, START, WHOLE_SHOP, Shop, at, order, order_table
from tests.test_materialize import CUSTOMERS, a_few

NOW = format_instant(parse_instant(at(1600)))
ANN = {"keys": {"customer": "customer3"}, "at": NOW}
MODEL = "/v1/features/model"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("serve"), WHOLE_SHOP, PROFILE + "[serve]\ndeadline = 3.0\nmax_body = 2_000_000\n").applied()
    shop.put("one", a_few(0, 1600, 600, 5))
    with shop.open() as registry:
        registry.materialize(to=at(1600))
    return shop


@pytest.fixture(scope="module")
def service(shop: Shop) -> Iterator[ServiceProcess]:
    with ServiceProcess(shop.root) as one:
        yield one


def differences(ours: Any, theirs: Any) -> list[str]:
    """Names whose value, status, cutoff or watermark is another, in two vectors."""
    assert list(ours.values) == list(theirs.values)
    found = [name for name, value in ours.values.items() if not same_bits(value, theirs.values[name])]
    return found + [what for what in ("status", "cutoff", "watermark") if getattr(ours, what) != getattr(theirs, what)]


# The same bits


def test_the_client_answers_what_the_library_answers(shop: Shop, service: ServiceProcess) -> None:
    """NaN and doubles of all sizes, lists, empty windows, a NULL key, an unknown one: one by one, and all at once."""
    with shop.open() as registry, featreg.Client(service.url, READER) as client:
        for moment in (at(1600), at(1595), at(1600) + timedelta(days=1)):
            many = client.online("model", CUSTOMERS, at=moment)
            for key, ours in zip(CUSTOMERS, many, strict=True):
                theirs = registry.online("model", key, at=moment)
                assert differences(ours, theirs) == [] and differences(client.online("model", key, at=moment), theirs) == []
        assert any(value != value for vector in many for value in vector.values.values())
        assert client.online("model", []) == []
        assert client.online("model", ANN["keys"]).cutoff["recent"] == pytest.approx(time.time() * 1e6, abs=60e6)


EVERY_TYPE = """
from featreg import REALTIME, Entity, EventSource, FeatureSet, FeatureView, agg

thing = Entity(name="thing", key={"name": "VARCHAR", "number": "INTEGER", "day": "DATE", "moment": "TIMESTAMP", "flag": "BOOLEAN"})
facts = EventSource(
    name="facts",
    columns={
        "name": "VARCHAR", "number": "INTEGER", "day": "DATE", "moment": "TIMESTAMP", "flag": "BOOLEAN", "at": "TIMESTAMP",
        "b": "BIGINT", "x": "DOUBLE", "f": "FLOAT", "d": "DECIMAL(9,2)", "e": "DECIMAL(30,4)", "p": "BOOLEAN", "s": "VARCHAR", "v": "DATE",
        "w": "TIMESTAMP",
    },
    event_time="at",
)
view = FeatureView(name="every", entity=thing, source=facts, freshness=REALTIME, features={
    **agg.latest("b", "x", "f", "d", "e", "p", "s", "v", "w"),
    **{f"top_{c}": agg.top_n(c, 3) for c in ("b", "x", "f", "d", "e", "s", "v", "w")},
    **{f"kinds_{c}": agg.histogram(c) for c in ("b", "d", "p", "s", "v", "w")},
    "sum_b": agg.sum("b"), "sum_d": agg.sum("d"), "sum_x": agg.sum("x"), "mean_x": agg.avg("x"),
})
every = FeatureSet(name="every", features=[view.all()], request={"ratio": "DOUBLE", "units": "BIGINT"},
                   derived={"scaled": "ratio * sum_x", "many": "units + sum_b"})
"""


def test_every_type_of_key_request_and_feature_comes_back_with_its_bits(tmp_path: Path) -> None:
    dice = random.Random(11)
    moments = [datetime(1970, 1, 1, tzinfo=UTC), datetime(2020, 2, 29, 12, 0, 0, 1, UTC), datetime(1, 1, 2, tzinfo=UTC)]
    keys = [
        {"name": name, "number": number, "day": day, "moment": moment, "flag": flag}
        for name in ("a", "é\0\U00010000", "NaN") for number in (-(2**31), 7) for day in (date(1, 1, 1), date(9999, 12, 31))
        for moment in moments[:2] for flag in (True, False)
    ]  # fmt: skip
    pools = {
        "b": [0, 2**62, -(2**53) - 1, None], "x": [0.1, 5e-324, 1e308, float("nan"), float("inf"), -float("inf"), 3.0, None],
        "f": [0.5, float("nan"), None], "d": [Decimal("1.10"), Decimal("-0.01"), None],
        "e": [Decimal("12345678901234567890123456.7891"), None],
        "p": [True, False, None], "s": ["", "NaN", "Infinity", 'a"\\\n\0', "\u2028é", None], "v": [date(2020, 2, 29), date(1, 1, 1), None],
        "w": [*moments, None],
    }  # fmt: skip
    rows = [
        dice.choice(keys[:40]) | {"at": START + timedelta(seconds=number)} | {name: dice.choice(pool) for name, pool in pools.items()}
        for number in range(400)
    ]
    kinds = {
        "name": pa.string(), "number": pa.int32(), "day": pa.date32(), "moment": pa.timestamp("us", "UTC"), "flag": pa.bool_(),
        "at": pa.timestamp("us", "UTC"), "b": pa.int64(), "x": pa.float64(), "f": pa.float32(), "d": pa.decimal128(9, 2),
        "e": pa.decimal128(30, 4), "p": pa.bool_(), "s": pa.string(), "v": pa.date32(), "w": pa.timestamp("us", "UTC"),
    }  # fmt: skip
    for name, text in {"features/every.py": EVERY_TYPE, "conf/local.toml": '[sources]\nfacts = "facts.parquet"\n'}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    pq.write_table(
        pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()}), tmp_path / "facts.parquet"
    )
    asked = [key | {"ratio": dice.choice([0.1, float("nan"), -float("inf"), 2.0, None]), "units": dice.choice([1, None])} for key in keys]
    with featreg.open(tmp_path) as registry:
        registry.apply()
        registry.materialize(to=at(10))
        with ServiceProcess(tmp_path) as service, featreg.Client(service.url, EVERYTHING) as client:
            theirs, ours = registry.online("every", asked, at=at(10)), client.online("every", asked, at=at(10))
            assert [differences(mine, other) for mine, other in zip(ours, theirs, strict=True)] == [[]] * len(asked)
            seen = {type(value) for vector in ours for value in vector.values.values()}
            assert seen >= {int, float, str, bool, date, datetime, Decimal, list}
            one = client.online("every", asked[0], at=format_instant(parse_instant(at(10))))
            assert differences(one, theirs[0]) == []


def test_reads_that_go_to_the_store_together_are_told_what_each_alone_is(shop: Shop) -> None:
    """One and many keys, instants and pins, unknown sets, wrong keys and forms, in any company: the same bytes, counts and errors."""
    when = [format_instant(parse_instant(at(minutes))) for minutes in (1600, 1595, 10)]
    kinds: list[Any] = [
        {"keys": CUSTOMERS[0], "at": when[0]}, {"keys": CUSTOMERS, "at": when[0]}, {"keys": CUSTOMERS[:3], "at": when[1]},
        {"keys": [], "at": when[0]}, {"keys": {"customer": None}, "at": when[0]}, {"keys": CUSTOMERS[1], "at": when[0], "types": "?"},
        {"keys": {"customer": 7}, "at": when[0]}, {"keys": {"client": "ann"}, "at": when[0]}, {"keys": CUSTOMERS[0], "at": when[2]},
        {"keys": CUSTOMERS[0], "at": "soon"}, {"keys": CUSTOMERS[0], "at": when[0], "pin": "no:1"}, {"keys": 3}, None,
    ]  # fmt: skip
    dice = random.Random(7)
    desk = Desk(shop.root, read_profile(shop.root, "local"), ServeSettings(max_keys=30))

    def alone(name: str, one: Any) -> Any:
        try:
            return desk.read(name, one)
        except Exception as error:
            return type(error), str(error)

    seen = set()
    try:
        for number in range(60):
            asked = [(dice.choice(["model"] * 9 + ["none"]), dice.choice(kinds)) for _ in range(dice.randint(1, 9) if number else 0)]
            together = desk.read_together(asked)
            shown = [(type(one), str(one)) if isinstance(one, Exception) else one for one in together]
            assert shown == [alone(name, one) for name, one in asked]
            seen |= {type(one) for one in together}
    finally:
        desk.close()
    assert seen >= {tuple, NotFound, DataError, TooEarly, UsageError}


# Who may do what


@pytest.mark.parametrize("token", [None, "", "nobody-knows-this-token", EXPIRED, READER[:-1], READER + "0"])
def test_without_a_token_that_counts_now_nothing_is_answered(service: ServiceProcess, token: str | None) -> None:
    for method, path in (
        ("POST", MODEL),
        ("POST", "/v1/features/nothing"),
        ("POST", "/v1/push/orders"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
    ):
        status, headers, told = service.ask(method, path, ANN if method == "POST" else None, token)
        assert (status, told["error"]["kind"]) == (401, "token") and headers["www-authenticate"].startswith("Bearer")
    assert service.ask("GET", "/healthz", token=token)[0] == service.ask("GET", "/readyz", token=token)[0] == 200


def test_a_token_does_what_its_scopes_say_and_learns_nothing_else(service: ServiceProcess) -> None:
    """What is not in scope is 403 whether or not it is there."""
    assert service.ask("POST", MODEL, ANN, READER)[0] == 200
    assert service.ask("POST", MODEL, ANN, PUSHER)[0] == service.ask("POST", "/v1/features/nothing", ANN, PUSHER)[0] == 403
    assert service.ask("POST", "/v1/push/orders", {"rows": []}, READER)[0] == service.ask("GET", "/metrics", token=READER)[0] == 403
    assert service.ask("POST", "/v1/features/nothing", ANN)[0] == service.ask("POST", "/v1/push/nothing", {"rows": []})[0] == 404
    described = {name: set(service.ask("GET", "/openapi.json", token=token)[2]["paths"]) for name, token in (("r", READER), ("p", PUSHER))}
    assert described["r"] - described["p"] == {MODEL} and described["p"] - described["r"] == {"/v1/push/orders"}
    assert service.ask("POST", MODEL, ANN, None, Authorization=f"Basic {READER}")[0] == 401
    assert service.ask("POST", MODEL, ANN, None, Authorization=f"bearer  {READER}")[0] == 200  # the scheme's case is no matter


def test_the_client_raises_what_the_library_raises(service: ServiceProcess, shop: Shop) -> None:
    with featreg.Client(service.url, READER) as client, shop.open() as registry:
        for call in (
            lambda one: one.online("model", {"customer": 7}),
            lambda one: one.online("model", {"client": "ann"}),
            lambda one: one.online("model", {"customer": "ann"}, at="2020-01-01T00:00:00Z"),
        ):
            with pytest.raises((DataError, RefusedError, UsageError)) as theirs:
                call(registry)
            with pytest.raises((DataError, RefusedError, UsageError)) as ours:
                call(client)
            assert isinstance(theirs.value, type(ours.value)) and str(ours.value) == str(theirs.value)
        with pytest.raises(UsageError, match="there is no pin"):
            client.online("model", {"customer": "ann"}, pin="no:1")
    with pytest.raises(RefusedError, match="no token"):
        featreg.Client(service.url, "wrong").online("model", {"customer": "ann"})
    assert "0123456789" not in repr(featreg.Client(service.url, READER))


def test_tokens_are_read_anew_when_their_file_changes_and_a_broken_file_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(TOKENS)
    tokens = Tokens(file)
    assert tokens.holder(b"Bearer " + READER.encode()).name == "reader"
    clock = time.time()
    monkeypatch.setattr("featreg.serve.tokens.time.time", lambda: clock)
    other = "another-token-0123456789"
    by_digest = f'[b]\nsha256 = "{digest_of(other)}"\nread = ["*"]\n'
    for text, known, unknown in ((by_digest, other, READER), ("[b", other, READER), (TOKENS, READER, other)):
        clock += 5
        file.write_text(text)
        os.utime(file, (clock, clock))
        assert tokens.holder(b"Bearer " + known.encode()) is not None
        assert tokens.holder(b"Bearer " + unknown.encode()) is None
        assert ("no TOML" in tokens.problem) == (text == "[b")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no token"),
        ("[a]\n", "a token, or the sha256"),
        ('[a]\ntoken = "short"\n', "16 characters"),
        ('[a]\ntoken = "0123456789abcdef"\nrights = 1', "unknown field 'rights'"),
        ('[a]\ntoken = "0123456789abcdef"\nread = "all"', "list of names"),
        ('a = "0123456789abcdef"', "no table"),
        ('[a]\ntoken = "0123456789abcdef', "no TOML"),
        ('[a]\ntoken = "0123456789abcdef"\n[b]\ntoken = "0123456789abcdef"', "one token"),
        ('[a]\ntoken = "0123456789abcdef"\nexpires = 5', "an instant"),
    ],
)
def test_tokens_that_cannot_be_meant_are_told_without_the_token(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        read_tokens(text, "tokens.toml")
    assert "0123456789abcdef" not in str(raised.value)


# Requests that are not as they should be


MALFORMED: list[tuple[int, Any]] = [
    (400, b""), (400, b"{"), (400, b"\xff\xfe"), (400, b'{"keys": {"customer": "\xff"}}'), (400, b'{"keys": {"customer": "\\ud800"}}'),
    (400, b'{"keys": {"customer": NaN}}'), (400, b'{"keys": {"customer": Infinity}}'), (400, b"[" * 100_000), (400, b"null"), (400, b"3"),
    (400, {}), (400, {"keys": 3}), (400, {"keys": [3]}), (400, {"keys": {"customer": "a"}, "key": 1}),
    (400, {"keys": {"customer": "a"}, "at": 3}),
    (400, {"keys": {"customer": "a"}, "at": "yesterday"}), (404, {"keys": {"customer": "a"}, "pin": "x:1"}), (422, {"keys": {}}),
    (422, {"keys": {"customer": 1}}), (422, {"keys": {"customer": ["a"]}}), (422, {"keys": [{"customer": "a"}, {"customer": True}]}),
    (409, {"keys": {"customer": "a"}, "at": "2020-01-01T00:00:00Z"}), (413, {"keys": [{"customer": "a"}] * 1001}),
    (413, b'{"keys": {"customer": "' + b"a" * 10_000_000 + b'"}}'),
]  # fmt: skip


def test_a_malformed_request_is_told_what_is_wrong_and_the_next_one_is_answered(service: ServiceProcess) -> None:
    good = service.ask("POST", MODEL, ANN)
    for wanted, body in MALFORMED:
        status, headers, told = service.ask("POST", MODEL, body)
        assert (status, headers["content-type"]) == (wanted, "application/json"), (str(body)[:80], told)
        assert set(told["error"]) == {"kind", "message", "request"} and told["error"]["request"] == headers["x-request-id"]
        assert len(told["error"]["message"]) < 600
    for method, path, status in (
        ("GET", MODEL, 405),
        ("DELETE", "/healthz", 405),
        ("GET", "/", 404),
        ("POST", "/v1/features/a/b", 404),
        ("POST", "/v1/features/%ff", 404),
    ):
        found, headers, _ = service.ask(method, path)
        assert found == status and (status != 405 or headers["allow"])
    assert service.ask("POST", MODEL, ANN, Content_Type="text/csv")[0] == service.ask("POST", MODEL, ANN, Content_Encoding="gzip")[0] == 415
    assert service.ask("POST", MODEL, ANN)[2] == good[2]


def raw(service: ServiceProcess, *parts: bytes, pause: float = 0.0, read: bool = True) -> bytes:
    """What comes back on one connection until it is closed by the other side."""
    with socket.create_connection(("127.0.0.1", service.port), 20) as one:
        answer = b""
        try:
            for part in parts:
                one.sendall(part)
                time.sleep(pause)
            while read and (more := one.recv(1 << 16)):
                answer += more
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


def whole_answer(one: socket.socket) -> bytes:
    """One answer, by its length."""
    answer = b""
    while True:
        more = one.recv(1 << 16)
        assert more, answer
        answer += more
        head, found, body = answer.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0]):
            return answer


HEAD = f"POST {MODEL} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {EVERYTHING}\r\nContent-Type: application/json\r\n".encode()


def test_a_client_that_is_slow_endless_or_no_http_at_all_is_let_go(service: ServiceProcess) -> None:
    """Slow head, slow body, endless head, endless body without a length, garbage: each ends by itself, within the deadline."""
    cases: dict[str, Any] = {
        "408": [lambda: raw(service, b"POST / HTTP/1.1\r\nHost"), lambda: raw(service, HEAD + b"Content-Length: 50\r\n\r\n{")],
        "431": [lambda: raw(service, HEAD, *[b"X-A: " + b"a" * 8000 + b"\r\n"] * 20)],
        "413": [lambda: raw(service, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"186a0\r\n" + b" " * 100_000 + b"\r\n"] * 40)],
        "400": [
            lambda: raw(service, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
            lambda: raw(service, HEAD + b"Content-Length: x\r\n\r\n"),
        ],
    }
    with ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        found = [(status, pool.submit(one)) for status, calls in cases.items() for one in calls]
        for status, one in found:
            assert one.result().startswith(b"HTTP/1.1 " + status.encode()), status
        assert time.monotonic() - began < 12
    assert service.ask("POST", MODEL, ANN)[0] == 200


def test_a_thousand_connections_at_once_get_the_right_answer_each(service: ServiceProcess) -> None:
    """All connected before the first asks, twice each; then a thousand more that only connect and leave."""
    numbers = [number % 24 for number in range(1000)]
    wanted = {
        number: service.ask("POST", MODEL, {"keys": {"customer": f"customer{number}"}, "at": NOW})[2]["values"] for number in set(numbers)
    }
    sockets = [socket.create_connection(("127.0.0.1", service.port), 30) for _ in numbers]
    try:
        for _ in range(2):
            for one, number in zip(sockets, numbers, strict=True):
                body = json.dumps({"keys": {"customer": f"customer{number}"}, "at": NOW}).encode()
                one.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            for one, number in zip(sockets, numbers, strict=True):
                answer = whole_answer(one)
                assert answer.startswith(b"HTTP/1.1 200") and json.loads(answer.partition(b"\r\n\r\n")[2])["values"] == wanted[number]
    finally:
        for one in sockets:
            one.close()
    for _ in range(1000):
        socket.create_connection(("127.0.0.1", service.port), 30).close()
    assert service.ask("GET", "/readyz")[0] == 200


def test_what_the_description_allows_never_breaks_the_service(shop: Shop, service: ServiceProcess, request: pytest.FixtureRequest) -> None:
    """Schemathesis draws requests from the OpenAPI document, good and bad: documented answers of the documented form, and no 5xx.

    Reads and pushes alike (the shop's source takes no push: what is well formed is refused by that).  Then a right answer.
    """
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

    good = service.ask("POST", MODEL, ANN)
    schema = schemathesis.openapi.from_dict(service.ask("GET", "/openapi.json")[2])
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    asked: list[tuple[str, int]] = []
    strategies = [
        operation.ok().as_strategy(generation_mode=mode)
        for operation in schema.get_all_operations()
        for mode in schemathesis.GenerationMode
        if operation.ok().path in (MODEL, "/v1/push/orders")
    ]
    assert len(strategies) == 4

    @settings(
        max_examples=request.config.getoption("--requests"),
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.one_of(strategies))
    def ask(case: Any) -> None:
        answer = case.call(base_url=service.url, headers={"Authorization": f"Bearer {EVERYTHING}"})
        case.validate_response(answer, checks=checks)
        asked.append((case.path, answer.status_code))

    ask()
    assert len(asked) >= 100 and {(MODEL, 200), (MODEL, 400), ("/v1/push/orders", 400)} <= set(asked)
    assert service.ask("POST", MODEL, ANN)[2] == good[2] and service.process.poll() is None


# What is told about it


def test_the_log_has_every_request_and_no_key_value_or_token(service: ServiceProcess) -> None:
    service.ask("POST", MODEL, {"keys": {"customer": "secret-key-of-ann"}}, X_Request_Id="look-for.this_1")
    service.ask("POST", MODEL, {"keys": {"customer": ["secret-key-of-bob"]}})
    service.ask("POST", MODEL, {"keys": {"customer": "x"}, "at": "secret-at"})
    time.sleep(0.7)
    lines = [json.loads(line) for line in service.log.splitlines()[1:]]
    (mine,) = [line for line in lines if line.get("request") == "look-for.this_1"]
    assert (mine["status"], mine["route"], mine["name"], mine["token"], mine["keys"]) == (200, "features", "model", "everything", 1)
    for secret in ("secret", "customer3", *(token for token in (READER, PUSHER, EVERYTHING, EXPIRED)), "spent"):
        assert secret not in service.log


def test_metrics_count_what_was_answered(service: ServiceProcess) -> None:
    def number(line: str) -> int:
        found = [one for one in service.ask("GET", "/metrics")[2].splitlines() if one.startswith(line)]
        return int(found[0].split()[-1]) if found else 0

    line = 'featreg_requests_total{route="features",name="model",status="200"}'
    bucket, vectors = 'featreg_request_seconds_bucket{route="features",le="+Inf"}', 'featreg_vectors_total{set="model",status="missing"}'
    before = [number(one) for one in (line, bucket, vectors)]
    for _ in range(3):
        service.ask("POST", MODEL, ANN | {"keys": [ANN["keys"]] * 2})
    assert [number(one) for one in (line, bucket)] == [before[0] + 3, before[1] + 3] and number(vectors) == before[2]
    assert number("featreg_workers") == 1 and number("featreg_requests_now") == 1
    text = service.ask("GET", "/metrics")[2]
    assert all(one.startswith("#") or len(one.rsplit(" ", 1)) == 2 for one in text.splitlines())


# Beginning and end


def test_the_service_is_for_this_machine_unless_it_is_told_otherwise_and_never_open_to_others(shop: Shop) -> None:
    assert ServeSettings().host == "127.0.0.1"
    with pytest.raises(UsageError, match="this machine alone"):
        ServeSettings(host="0.0.0.0", open=True)
    with pytest.raises(UsageError, match=r"unknown setting 'prot'.\n  Did you mean 'port'"):
        serve_settings({"prot": 1}, {})
    with pytest.raises(UsageError, match="port is a whole number"):
        serve_settings({"port": "80"}, {})
    assert serve_settings({"port": 1, "deadline": 2}, {"port": 5, "host": None}) == replace(ServeSettings(), port=5, deadline=2)
    command = [sys.executable, "-c", "import sys; from featreg.cli import main; sys.exit(main())", "-C", str(shop.root), "serve"]
    environment = {name: value for name, value in os.environ.items() if name != "FEATREG_TOKENS"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 2 and "there are no tokens" in done.stderr and "--open" in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use_and_a_host_that_is_none_are_told_before_anything_is_announced(shop: Shop, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for more, told in (
            (("--port", port), f"error: port {port} of 127.0.0.1 is in use.\n  Give another with --port"),
            (("--host", "nohost.invalid", "--port", "0"), "error: there is no host 'nohost.invalid'."),
            (("--host", "192.0.2.1", "--port", "0"), "error: 192.0.2.1 is no address of this machine."),
        ):
            command = [sys.executable, "-c", PROGRAM, "-C", str(shop.root), "serve", "--workers", workers, *more]
            environment = os.environ | {"FEATREG_TOKENS": TOKENS}
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
            assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith(told), done.stderr


def test_a_token_for_what_is_not_applied_is_warned_of_with_the_near_name(shop: Shop, service: ServiceProcess) -> None:
    tokens = TOKENS + '[typo]\ntoken = "typed-token-0123456789"\nread = ["modl", "model"]\npush = ["order"]\n'
    with ServiceProcess(shop.root, tokens=tokens) as other:
        warned = [line for line in other.log.splitlines() if line.startswith("warning: ")]
        assert warned[0].startswith("warning: [typo] read: there is no feature set 'modl'. Did you mean 'model'?")
        assert warned[1].startswith("warning: [typo] push: there is no source 'order'. Did you mean 'orders'?")
        assert len(warned) == 2 and "typed-token" not in other.log
    assert "warning: " not in service.log


def test_what_was_begun_is_finished_after_sigterm_and_a_killed_worker_is_replaced(shop: Shop) -> None:
    """Two workers: one is killed, and requests go on; a body half there at SIGTERM is answered; then the service leaves with 0."""
    with ServiceProcess(shop.root, "--workers", "2") as service:
        until = time.monotonic() + 60
        while "featreg_workers 2" not in service.ask("GET", "/metrics")[2]:
            assert time.monotonic() < until
            time.sleep(0.1)
        children = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(service.process.pid)], capture_output=True, text=True
        ).stdout.splitlines()
        workers = [int(line.split()[0]) for line in children if "spawn_main" in line]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        for _ in range(50):
            status, _, found = service.ask("POST", MODEL, ANN)
            assert status in (0, 200)
            time.sleep(0.02)
        body = json.dumps(ANN).encode()
        with socket.create_connection(("127.0.0.1", service.port), 30) as half:
            half.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body[:10]))
            time.sleep(0.3)
            service.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            half.sendall(body[10:])
            answer = whole_answer(half)
            assert answer.startswith(b"HTTP/1.1 200") and json.loads(answer.partition(b"\r\n\r\n")[2]) == found
        assert service.process.wait(30) == 0
        assert service.ask("GET", "/healthz")[0] == 0


def test_one_worker_too_leaves_with_0_after_sigterm(shop: Shop) -> None:
    with ServiceProcess(shop.root) as service:
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0


# A store that is a server


def test_a_redis_that_dies_hangs_and_returns_is_told_in_time_and_recovered_from_without_help(tmp_path: Path) -> None:
    """Through the service: right values, then 503 within the deadline, then right values again; the process lives throughout."""
    with RedisProcess(tmp_path) as redis:
        profile = f'{PROFILE}[online]\nstore = "redis"\nurl = "redis://:tiger@127.0.0.1:{redis.port}/0"\n[serve]\ndeadline = 1.0\n'
        redis.command("CONFIG", "SET", "requirepass", "tiger")
        shop = Shop(tmp_path / "shop", REALTIME_SHOP, profile).applied()
        shop.put("one", a_few(0, 1600, 600, 5))
        with shop.open() as registry:
            registry.materialize(to=at(1600))
        with ServiceProcess(shop.root) as service, featreg.Client(service.url, READER, retries=0) as client:
            good = client.online("model", CUSTOMERS[:5], at=at(1600))
            statuses: list[int] = []

            def troubled() -> None:
                began = time.monotonic()
                with pytest.raises(StoreUnavailable, match="no Redis server that can be used answers"):
                    client.online("model", CUSTOMERS[:5], at=at(1600))
                assert time.monotonic() - began < 3
                assert service.ask("GET", "/healthz")[0] == 200
                statuses.append(service.ask("GET", "/readyz")[0])

            def recovered() -> None:
                until = time.monotonic() + 20
                while service.ask("GET", "/readyz")[0] != 200:
                    assert time.monotonic() < until
                    time.sleep(0.1)
                again = client.online("model", CUSTOMERS[:5], at=at(1600))
                assert [differences(one, other) for one, other in zip(again, good, strict=True)] == [[]] * 5

            os.kill(redis.process.pid, signal.SIGSTOP)
            troubled()
            os.kill(redis.process.pid, signal.SIGCONT)
            recovered()
            redis.kill()
            troubled()
            redis.options = ("--requirepass", "tiger")
            redis.start()
            recovered()
            assert statuses == [503, 503]
            assert "tiger" not in service.log


def test_more_than_it_can_do_is_told_at_once(tmp_path: Path) -> None:
    """A hanging store and 400 clients: each is told 503 or 504 within two deadlines, and the service answers again behind them."""
    with RedisProcess(tmp_path) as redis:
        profile = f'{PROFILE}[online]\nstore = "redis"\nurl = "{redis.url()}"\n[serve]\ndeadline = 1.0\n'
        shop = Shop(tmp_path / "shop", REALTIME_SHOP, profile).applied()
        shop.put("one", [order(1), order(2)])
        with shop.open() as registry:
            registry.materialize(to=at(10))
        with ServiceProcess(shop.root) as service:
            asked = {"keys": {"customer": "ann"}, "at": format_instant(parse_instant(at(10)))}
            os.kill(redis.process.pid, signal.SIGSTOP)
            found: list[int] = []
            threads = [threading.Thread(target=lambda: found.append(service.ask("POST", MODEL, asked)[0])) for _ in range(400)]
            began = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert time.monotonic() - began < 15
            assert set(found) <= {503, 504} and 503 in found
            os.kill(redis.process.pid, signal.SIGCONT)
            until = time.monotonic() + 30
            while (answer := service.ask("POST", MODEL, asked))[0] != 200:
                assert time.monotonic() < until
                time.sleep(0.2)
            assert answer[2]["values"]["n_1d"] == 2


def test_many_connections_at_once_to_redis_each_get_their_own_answer(tmp_path: Path) -> None:
    """Good and wrong requests side by side on twelve connections: each is answered as the library answers it."""
    with RedisProcess(tmp_path) as redis:
        shop = Shop(tmp_path / "shop", WHOLE_SHOP, f'{PROFILE}[online]\nstore = "redis"\nurl = "{redis.url()}"\n').applied()
        shop.put("one", a_few(0, 1600, 600, 5))
        with shop.open() as registry, ServiceProcess(shop.root) as service:
            registry.materialize(to=at(1600))
            wanted = [registry.online("model", key, at=at(1600)) for key in CUSTOMERS]

            def ask(number: int) -> list[str]:
                dice, found = random.Random(number), []
                with featreg.Client(service.url, READER) as client:
                    for _ in range(60):
                        if dice.random() < 0.2:
                            with pytest.raises(DataError, match="is VARCHAR"):
                                client.online("model", {"customer": number}, at=at(1600))
                        some = [dice.randrange(len(CUSTOMERS)) for _ in range(dice.choice([1, 1, 3]))]
                        answer = client.online("model", [CUSTOMERS[place] for place in some], at=at(1600))
                        found += [name for place, one in zip(some, answer, strict=True) for name in differences(one, wanted[place])]
                return found

            with ThreadPoolExecutor(12) as pool:
                assert list(pool.map(ask, range(12))) == [[]] * 12


def test_a_disk_and_a_redis_that_are_full_are_told_and_nothing_is_half_there_or_twice(tmp_path: Path) -> None:
    """No room for the push log, then none in Redis: 503 with the reason, reads go on, and afterwards each row is there once."""
    with RedisProcess(tmp_path) as redis:
        spec = REALTIME_SHOP.replace('tie_break="shop",', 'tie_break="shop", stream="log",')
        shop = Shop(tmp_path / "shop", spec, f'[online]\nstore = "redis"\nurl = "{redis.url()}"\n[serve]\ndeadline = 30.0\n').applied()
        with ServiceProcess(shop.root) as service, featreg.Client(service.url, EVERYTHING, timeout=60, retries=0) as client:

            def count() -> int:
                return int(client.online("model", {"customer": "ann"}, at=at(60)).values["n_1d"])

            assert client.push("orders", [order(1)], id="one").accepted == 1
            many = order_table(order(2 + number / 10_000) for number in range(8_000))
            unlimited = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
            with pytest.raises(StoreError, match="full"):
                client.push("orders", many, id="many")
            assert count() == 1
            resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, unlimited)
            receipt = client.push("orders", many, id="many")
            assert (receipt.accepted, receipt.duplicate, count()) == (8_000, False, 8_001)

            redis.command("CONFIG", "SET", "maxmemory", "1mb")
            with pytest.raises(StoreError, match="memory is full"):
                client.push("orders", [order(10), order(11)], id="two")
            assert count() == 8_001 and service.ask("GET", "/healthz")[0] == 200
            redis.command("CONFIG", "SET", "maxmemory", "0")
            client.push("orders", [order(10), order(11)], id="two")
            assert count() == 8_003
            assert client.push("orders", [order(10), order(11)], id="two").duplicate
        with shop.open() as registry:
            spine = pa.table({"customer": ["ann"], "as_of": pa.array([at(60)], pa.timestamp("us", "UTC"))})
            assert registry.training_set("model", spine, time="as_of").to_arrow()["n_1d"].to_pylist() == [8_003]
