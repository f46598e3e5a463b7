"""The command line as people and programs meet it: output, exit codes, errors, and what starting costs."""

import contextlib
import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from featreg.cli import main
from featreg.cli.apply import compare_ids
from featreg.cli.arguments import find_root, hoist_globals
from featreg.cli.online import parse_pairs, parse_value
from featreg.cli.repository import NEXT
from featreg.cli.source import infer_source
from featreg.cli.terminal import bytes_text
from featreg.errors import DataError, UsageError
from featreg.load import load_files
from featreg.stores.redis import open_redis
from featreg.vocabulary import parse_type

HEAVY = ("duckdb", "numba", "pyarrow", "numpy", "sqlglot", "git", "pandas", "polars")
PROGRAM = "import sys; from featreg.cli import main; sys.exit(main())"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository that `init` writes, as the working directory."""
    assert main(["init", str(tmp_path / "shop")]) == 0
    monkeypatch.chdir(tmp_path / "shop")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return tmp_path / "shop"


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a command prints on stdout."""
    capsys.readouterr()
    found = main(list(arguments))
    printed = capsys.readouterr()
    assert found == code, printed.out + printed.err
    return printed.out


def document(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0):
    return json.loads(run(capsys, *arguments, "--json", code=code))


def failure(capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> str:
    """What a command that fails prints on stderr; nothing is on stdout."""
    capsys.readouterr()
    assert main(list(arguments)) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    return printed.err


def test_what_init_proposes_next_works_line_by_line(shop, capsys):
    """Every command that `init` prints leaves with 0, and gives the numbers that one counts by hand."""
    for line in NEXT:
        assert main(line.split()[1:]) == 0, line
    table = pq.read_table(shop / "train.parquet").to_pylist()
    # As of 03-07 18:00 customer 1 has had 12.50 + 33.10 + 64.00 + 12.50 in seven days; on 03-05 the kettle was not loaded yet.
    assert [(row["customer_id"], row["orders_7d"], row["spent_7d"]) for row in table] == [
        (1, 2, 45.6),
        (1, 4, 122.1),
        (2, 2, 76.5),
        (3, 2, 92.75),
        (4, 0, None),
    ]
    assert table[3]["last_product"] is None and table[2]["large_share_7d"] == 0.5
    found = document(capsys, "get", "order_model", "customer_id=1", "basket=20", "--at", "2024-03-08")
    assert found["values"]["spent_7d"] == 122.1 and found["values"]["basket_to_week"] == 20 / 122.1
    assert found["cutoff"] == {"customer_orders": "2024-03-08T00:00:00Z"}
    assert (shop / "train.parquet.manifest.json").is_file()


def test_online_equals_offline_and_materialize_is_idempotent(shop, capsys):
    """Parity compares every cell; a second run to the same instant reads nothing and says why."""
    run(capsys, "apply")
    first = document(capsys, "materialize", "--to", "2024-03-08")
    assert [(view["view"], view["rows"], view["keys"]) for view in first["views"]] == [("customer_orders", 8, 3)]
    again = document(capsys, "materialize", "customer_orders", "--to", "2024-03-08")
    assert again["views"][0]["rows"] == 0 and "never rewinds" in again["views"][0]["note"]
    found = document(capsys, "parity", "order_model", "--exit-code")
    assert (found["cells"], found["differing"], found["known"]) == (21, 0, True)


def test_parity_that_differs_leaves_with_5_only_when_asked(shop, capsys, monkeypatch):
    """A cell that differs is told in either case."""
    from featreg.session import Registry
    from featreg.session.parity import Difference, Parity

    example = Difference("orders_7d", {"customer_id": 1}, 4, 5)
    monkeypatch.setattr(Registry, "parity", lambda *_, **__: Parity("order_model", 0, 3, 21, 1, 0, {"orders_7d": 1}, {}, (example,)))
    assert "20 of 21 cells agree" in run(capsys, "parity", "order_model")
    assert "orders_7d" in run(capsys, "parity", "order_model", "--exit-code", code=5)
    monkeypatch.setattr(Registry, "parity", lambda *_, **__: Parity("order_model", 0, 0, 0, 0, 0, {}, {}, ()))
    assert "unknown" in run(capsys, "parity", "order_model", "--exit-code", code=3)


def test_many_keys_come_from_a_file_or_stdin_in_order(shop, capsys, monkeypatch):
    """A list of objects and one object a line are the same; vectors come in the order asked."""
    run(capsys, "apply")
    run(capsys, "materialize", "--to", "2024-03-08")
    rows = [{"customer_id": 3, "basket": 1}, {"customer_id": 9, "basket": 2.5}]
    (shop / "keys.json").write_text(json.dumps(rows))
    found = document(capsys, "get", "order_model", "--keys", "keys.json", "--at", "2024-03-08")
    assert [one["keys"]["customer_id"] for one in found] == [3, 9]
    assert found[0]["values"]["orders_7d"] == 2 and found[0]["status"]["orders_7d"] == "ok"
    assert found[1]["values"]["orders_7d"] == 0 and found[1]["status"]["orders_7d"] == "empty"
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(json.dumps, rows))))
    assert document(capsys, "get", "order_model", "--keys", "-", "--at", "2024-03-08") == found
    (shop / "keys.json").write_text("{")
    assert "is no JSON" in failure(capsys, "get", "order_model", "--keys", "keys.json", code=3)


def test_ls_and_show_say_what_where_and_since_when(shop, capsys):
    """Before apply no version, after it version 1, after a change of meaning none, after apply 2."""
    listed = document(capsys, "ls", "features")
    assert [one["name"] for one in listed][:2] == ["customer_orders.orders_1d", "customer_orders.orders_7d"]
    assert all(one["version"] is None and one["view"] == "customer_orders" and len(one["definition_id"]) == 64 for one in listed)
    assert all(one["file"] == "features/example.py" and one["line"] for one in listed)
    run(capsys, "apply")
    spent = document(capsys, "show", "customer_orders.spent_7d")
    assert (spent["kind"], spent["version"], spent["aggregation"], spent["window"], spent["hop"]) == ("feature", 1, "sum", "7d", "3h")
    line = (shop / "features" / "example.py").read_text().splitlines()[spent["line"] - 1]
    assert '"spent"' in line
    spec = shop / "features" / "example.py"
    spec.write_text(spec.read_text().replace('agg.sum("amount")', 'agg.sum("amount * 2")'))
    assert document(capsys, "show", "customer_orders.spent_7d")["version"] is None
    assert document(capsys, "show", "customer_orders.spent_7d", "--applied")["input"] == "amount"
    assert "1 of 6 changed" in run(capsys, "ls", "views")
    applied = document(capsys, "apply")
    assert (applied["changed"], applied["added"], applied["removed"]) == (["customer_orders.spent_7d"], [], [])
    assert document(capsys, "show", "customer_orders.spent_7d")["version"] == 2
    for kind in ("views", "sets", "sources", "entities", "features"):
        assert run(capsys, "ls", kind)
    for name in ("orders", "order_model", "customer", "customer_orders"):
        assert name in run(capsys, "show", name)


def test_a_kept_listing_is_what_a_fresh_one_would_be(shop, capsys):
    """A listing that was kept, and one made after its file is gone or broken, are the same; a changed spec is seen at once."""
    fresh = document(capsys, "ls")
    kept = shop / ".featreg" / "cache" / "listing.json"
    assert kept.is_file() and document(capsys, "ls") == fresh
    kept.write_text("{")
    assert document(capsys, "ls") == fresh
    spec = shop / "features" / "example.py"
    spec.write_text(spec.read_text().replace("Somebody who buys.", "A buyer."))
    assert document(capsys, "ls", "entities")[0]["description"] == "A buyer."


def test_check_tells_every_problem_at_once_with_its_place(shop, capsys):
    """Two mistakes in one file are two errors with lines; nothing is kept of them."""
    spec = shop / "features" / "example.py"
    spec.write_text(spec.read_text().replace('"amount")', '"amonut")').replace('"product")', '"prodct")'))
    told = failure(capsys, "check", code=1)
    assert told.count("error: features/example.py:") == 2
    assert "Did you mean 'amount'?" in told and "2 problems in 1 file." in told
    problems = document(capsys, "check", code=1)["error"]["problems"]
    assert {problem["subject"] for problem in problems} == {"customer_orders.spent", "customer_orders.last_product"}
    assert all(problem["line"] for problem in problems)


def test_a_set_of_a_broken_view_is_checked_as_far_as_it_goes(shop, capsys):
    """Two features of one name are told beside the mistake of a view; what would be derived of that view is no mistake."""
    spec = shop / "features" / "example.py"
    spec.write_text(
        spec.read_text().replace('"amount")', '"amonut")')
        + 'other = FeatureView(name="other", entity=customer, source=orders, features={"orders": agg.count().over("1d")})\n'
        + 'two = FeatureSet(name="two", features=[customer_orders.all(), other.all(), other.all()])\n'
    )
    problems = document(capsys, "check", code=1)["error"]["problems"]
    assert {problem["subject"] for problem in problems} == {"customer_orders.spent", "two.orders_1d"}


def test_a_place_of_no_source_is_told_by_check_and_a_training_set_without_events_says_so(shop, capsys):
    """A source that takes pushed rows needs no file: its name written wrong in the profile is no error, and all windows are empty."""
    spec, conf = shop / "features" / "example.py", shop / "conf" / "local.toml"
    assert document(capsys, "check")["warnings"] == []
    conf.write_text(conf.read_text().replace("orders =", "ordrs ="))
    told = run(capsys, "check")
    assert "warning: conf/local.toml: ordrs: [sources] names it" in told and "orders" in told.splitlines()[1]
    spec.write_text(spec.read_text().replace('    event_time="ordered_at",', '    event_time="ordered_at",\n    stream="log",'))
    arguments = ("training-set", "order_model", "--draft", "--spine", "data/asked.csv", "--time", "asked_at", "--out", "t.parquet")
    assert "customer_orders: no event was read" in run(capsys, *arguments)
    assert "no profile 'prod'" in failure(capsys, "check", "--profile", "prod", code=2)


def test_check_warns_of_a_date_that_is_read_in_its_own_morning(shop, capsys):
    """Neither a delay of a day nor a column that says when: a warning with the remedy; with one, none."""
    spec = shop / "features" / "example.py"
    dated = spec.read_text().replace('"ordered_at": "TIMESTAMP"', '"ordered_at": "DATE"')
    spec.write_text(dated.replace('    available="loaded_at",  # no feature sees an order before it was loaded\n', ""))
    found = document(capsys, "check")
    assert found["ok"] and len(found["warnings"]) == 1 and 'Delay("1d")' in found["warnings"][0]["text"]
    assert "warning:" in run(capsys, "check")
    spec.write_text(dated)
    assert document(capsys, "check")["warnings"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "custmer_orders"], 2, "Did you mean 'customer_orders'?"),
        (["explain", "order_modl"], 2, "Did you mean 'order_model'?"),
        (["ls", "wievs"], 2, "views"),
        (["source", "infer", "conf/local.toml"], 2, "by its ending"),
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["training-set", "order_model"], 2, "--time"),
        (["training-set", "order_model", "--time", "asked_at", "--out", "t.parquet"], 2, "--spine FILE or as --spine-sql"),
        (["training-set", "order_model", "--time", "asked_at", "--out", "t.txt", "--spine", "data/asked.csv"], 2, ".parquet or .csv"),
        (["training-set", "order_model", "--time", "asked_at", "--out", "t.csv", "--spine", "none.csv", "--draft"], 3, "there is no file"),
        (["training-set", "order_model", "--time", "at", "--out", "t.csv", "--spine", "data/asked.csv", "--draft"], 3, "time column"),
        (["training-set", "customer_orders", "--time", "at", "--out", "t.csv", "--spine", "data/asked.csv", "--draft"], 2, "is a view"),
        (["materialize"], 2, "nothing is applied yet"),
        (["ls", "--applied"], 2, "nothing is applied yet"),
        (["ls", "--applied", "--revision", "HEAD"], 2, "two things"),
        (["ls", "--profile", "prod"], 2, "there is no profile 'prod'"),
        (["init", "."], 4, "overwrites nothing"),
        (["source", "infer", "none.csv"], 3, "there is no file"),
        (["demo", "."], 4, "another repository"),
        (["check", "-C", "nowhere"], 2, "there is no folder 'features'"),
    ],
)
def test_each_mistake_has_its_exit_code_and_one_clear_message(shop, capsys, arguments, code, said):
    """Text on stderr, or with --json one document on stdout with the same code."""
    told = failure(capsys, *arguments, code=code)
    assert said in told and told.startswith("error: ")
    error = document(capsys, *arguments, code=code)["error"]
    assert error["exit_code"] == code and said in error["message"]


def test_get_names_what_is_missing_unknown_or_of_another_type(shop, capsys):
    """Every message says what the set asks for."""
    run(capsys, "apply")
    assert "customer_id, basket are missing" in failure(capsys, "get", "order_model", code=2)
    assert "customer_id BIGINT" in failure(capsys, "get", "order_model", "customer_id", code=2)
    assert "Did you mean 'basket'?" in failure(capsys, "get", "order_model", "baskt=1", code=2)
    assert "customer_id=x: that is no BIGINT" in failure(capsys, "get", "order_model", "customer_id=x", code=2)
    assert "Did you mean 'order_model'?" in failure(capsys, "get", "order_modl", code=2)


def test_get_says_what_makes_a_view_answer_that_is_missing_or_stale(shop, capsys):
    """A line under the table, in what people read alone; and no line where all is well."""
    asked = ("get", "order_model", "customer_id=1", "basket=3")
    run(capsys, "apply")
    assert run(capsys, *asked).endswith("\ncustomer_orders is not materialized: featreg materialize customer_orders\n")
    assert set(document(capsys, *asked)) == {"keys", "values", "status", "cutoff", "watermark"}
    run(capsys, "materialize", "--to", "2024-03-08")
    line = "\ncustomer_orders is stale, it has what came until 2024-03-08T00:00:00Z: featreg materialize customer_orders\n"
    assert run(capsys, *asked).endswith(line)
    assert "featreg materialize" not in run(capsys, *asked, "--at", "2024-03-08")
    assert "customer_orders is a view" in failure(capsys, "get", "customer_orders", "customer_id=1", code=2)


def test_a_store_that_apply_cannot_tell_is_a_warning_and_not_a_place_in_our_code(shop, capsys, monkeypatch):
    """Nobody listens on port 1: what is applied stands, in the log."""
    monkeypatch.setattr("featreg.stores.redis.open_redis", partial(open_redis, patience=0.5))
    local = (shop / "conf" / "local.toml").read_text()
    redis = local.replace('store = "lmdb"', 'store = "redis"').replace('path = ".featreg/online"', 'url = "redis://127.0.0.1:1"')
    (shop / "conf" / "local.toml").write_text(redis)
    assert main(["apply"]) == 0
    printed = capsys.readouterr()
    assert "applied  generation 1" in printed.out
    assert printed.err.startswith("warning: applied; the store does not know of it yet: ") and ".py" not in printed.err


def test_values_are_typed_by_what_is_declared():
    """1 is not "1": the declared type decides; nothing at all is NULL, of a VARCHAR the empty text."""
    wanted = {
        "BIGINT": ("12", 12),
        "DOUBLE": ("1e3", 1000.0),
        "DECIMAL(10,2)": ("1.50", Decimal("1.50")),
        "BOOLEAN": ("true", True),
        "DATE": ("2024-02-29", date(2024, 2, 29)),
        "TIMESTAMP": ("2024-02-29T01:00:00+01:00", datetime(2024, 2, 29, tzinfo=UTC)),
        "VARCHAR": ("12", "12"),
    }
    for kind, (text, value) in wanted.items():
        found = parse_value("x", text, parse_type(kind))
        assert found == value and type(found) is type(value)
        assert parse_value("x", "", parse_type(kind)) == ("" if kind == "VARCHAR" else None)
    for kind, text in (("BIGINT", "1.5"), ("BOOLEAN", "yes"), ("DATE", "2024-02-30"), ("TIMESTAMP", "noon"), ("DECIMAL(4,1)", "a")):
        with pytest.raises(UsageError, match="that is no"):
            parse_value("x", text, parse_type(kind))
    with pytest.raises(UsageError, match="twice"):
        parse_pairs(["a=1", "a=2"], {"a": parse_type("BIGINT")})


def test_global_options_stand_anywhere():
    """Before or behind the verb; behind -- nothing is an option."""
    assert hoist_globals(["ls", "--json", "--profile=x"]) == ["--json", "--profile=x", "ls"]
    assert hoist_globals(["-C", "d", "get", "s", "a=1", "--debug"]) == ["-C", "d", "--debug", "get", "s", "a=1"]
    assert hoist_globals(["get", "--", "--json"]) == ["get", "--", "--json"]
    assert hoist_globals(["ls", "-C"]) == ["-C", "ls"]


def test_a_repository_is_found_from_any_folder_inside(shop, capsys, monkeypatch):
    """The nearest parent that has features/, conf/ or .featreg."""
    inside = shop / "data" / "deep"
    inside.mkdir()
    assert find_root(inside) == shop
    monkeypatch.chdir(inside)
    assert document(capsys, "check")["views"] == 1
    monkeypatch.chdir(shop.parent)
    assert document(capsys, "check", "--root", "shop")["views"] == 1


def test_a_spine_can_be_a_query_and_known_at_hides_what_came_later(shop, capsys):
    """A query with its semicolon and comment; the order that was loaded a day late is not known the evening before."""
    sql = "WITH s AS (SELECT 1 AS customer_id, TIMESTAMP '2024-03-06 18:00' AS asked_at, 1.0 AS basket) SELECT * FROM s; -- done"
    made = "training-set", "order_model", "--draft", "--time", "asked_at", "--spine-sql", sql.replace("; -- done", " -- done\n;")
    run(capsys, *made, "--out", "now.parquet")
    run(capsys, *made, "--out", "then.parquet", "--known-at", "2024-03-06T11:00:00Z")
    assert pq.read_table("now.parquet")["orders_7d"].to_pylist() == [3]
    assert pq.read_table("then.parquet")["orders_7d"].to_pylist() == [2]
    told = document(capsys, *made, "--out", "now.csv")
    assert (told["rows"], told["features"], told["rejected"]) == (1, 7, 0)


def test_explain_prints_one_program_twice_and_the_same_as_json(shop, capsys):
    """Scan, program, finish and both plans; the JSON has the SQL as it runs."""
    printed = run(capsys, "explain", "customer_orders")
    for word in ("Scan", "Sweep program", "Finish", "Offline", "Online", "the same program", "7d .. 7d 3h"):
        assert word in printed
    found = document(capsys, "explain", "customer_orders")
    assert found["offline"]["program"] == found["online"]["program"]
    assert found["measure"]["rows"] == 8 and found["measure"]["keys"] == 3
    assert len(duckdb.sql(found["scan_sql"]).fetchall()) == 8
    assert "Lookups" in run(capsys, "explain", "order_model")
    (shop / "data" / "orders.csv").unlink()
    assert "no data is known" in run(capsys, "explain", "customer_orders")


def test_infer_prints_a_block_that_reads_back_as_the_source(tmp_path, monkeypatch):
    """What is printed loads, with the declared types, the event time and the column that is never before it."""
    monkeypatch.chdir(tmp_path)
    duckdb.sql(
        """COPY (SELECT 1::INTEGER AS id, DATE '2024-01-01' AS born, 'x' AS "a ""b", 1.5::DECIMAL(10,2) AS price, [1] AS listed,
        TIMESTAMP '2024-01-01' AS updated_at, TIMESTAMP '2024-01-01' AS clicked_at, TIMESTAMP '2024-01-02' AS ingested_at)
        TO 'Web Clicks.parquet'"""
    )
    found = infer_source("Web Clicks.parquet")
    source = load_files({"features/x.py": found.block.encode()}).sources["web_clicks"]
    assert {name: str(kind) for name, kind in source.columns} == {
        "id": "BIGINT",
        "born": "DATE",
        "price": "DECIMAL(10,2)",
        "updated_at": "TIMESTAMP",
        "clicked_at": "TIMESTAMP",
        "ingested_at": "TIMESTAMP",
    }
    assert source.event_time in ("updated_at", "clicked_at") and source.available_column == "ingested_at"
    assert any("'listed'" in note for note in found.notes) and any("rename it" in note for note in found.notes)
    (tmp_path / "days.csv").write_text("day,n\n2024-01-01,1\n")
    days = infer_source("days.csv", "daily")
    assert load_files({"features/x.py": days.block.encode()}).sources["daily"].delay_micros == 86_400_000_000
    (tmp_path / "no.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column is a TIMESTAMP"):
        infer_source("no.csv")


def test_init_overwrites_nothing(tmp_path, capsys):
    """A file in the way is named, and then nothing at all is written."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "local.toml").write_text("mine")
    assert "conf/local.toml" in failure(capsys, "init", str(tmp_path), code=4)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["conf", "local.toml"]


@pytest.mark.parametrize("arguments", [["--help"], ["get", "--help"], ["ls"], ["show", "order_model"]])
def test_starting_imports_nothing_heavy(shop, capsys, arguments):
    """Help, and the list of a repository that was listed before, need none of the libraries that take a moment."""
    run(capsys, "apply")
    run(capsys, "ls")
    program = (
        f"import sys; from featreg.cli import main; code = main({arguments!r}); "
        f"print([m for m in {HEAVY!r} if m in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=_environment(), timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_command_does_without_pandas(shop):
    """pyarrow would import it for the first array; in a program that calls `main` with arguments nothing is taken away."""
    arguments = ["training-set", "order_model", "--draft", "--spine", "data/asked.csv", "--time", "asked_at", "--out", "t.parquet"]
    program = "import sys; from featreg.cli import main; code = main(); print('pandas' in sys.modules); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=_environment(), timeout=120)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "False", done.stderr
    program = f"from featreg.cli import main; code = main({arguments!r}); import pandas; raise SystemExit(code)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, env=_environment(), timeout=120).returncode == 0


def _hear_ctrl_c() -> None:
    """A shell starts what it runs in the background deaf to Ctrl-C, and children inherit that; this one is as at a terminal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_a_verb_with_130_and_one_line(shop):
    """A query that would run for hours stops at once: no traceback, nothing written."""
    sql = (
        "SELECT 1 AS customer_id, now()::TIMESTAMP AS asked_at, sum(a.range * b.range % 7) AS basket "
        "FROM range(10000000) a, range(1000000) b"
    )
    command = ["training-set", "order_model", "--draft", "--time", "asked_at", "--out", "t.parquet", "--spine-sql", sql]
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
        preexec_fn=_hear_ctrl_c,
    )
    try:
        time.sleep(4)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=150)  # DuckDB looks for signals between its tasks
    finally:
        running.kill()
    assert running.returncode == 130
    assert "interrupted" in err and "Traceback" not in err and out == ""
    assert not (shop / "t.parquet").exists()


def test_ctrl_c_in_python_code_is_130_too(shop, capsys, monkeypatch):
    """In a verb, wherever it is."""

    def pressed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("featreg.cli.definitions.list_working_tree", pressed)
    assert failure(capsys, "ls", code=130).startswith("interrupted")
    assert document(capsys, "ls", code=130)["error"]["kind"] == "Interrupted"


def test_no_colours_where_nobody_looks(shop, capsys):
    """Piped output and JSON hold no escape codes, nor does NO_COLOR's."""
    for arguments in (["ls"], ["check"], ["explain", "order_model"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, env=_environment(NO_COLOR="1"), timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [[], ["source"]])
def test_a_command_without_a_verb_is_its_help_and_nothing_else(capsys, arguments):
    """Exit code 2, as for any command that cannot be meant."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert "Usage: featreg" in printed.out and printed.err == ""


def test_every_verb_says_in_its_help_what_stands_anywhere(capsys):
    for verb in ("demo", "init", "check", "ls", "show", "explain", "apply", "training-set", "materialize", "get", "parity"):
        assert "--json, --debug" in " ".join(run(capsys, verb, "--help").split())


def at_terminal(*arguments: str, **environment: str) -> tuple[int, str]:
    """A command as at a terminal of 100 columns: its exit code, and what is on the screen, stderr included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    command = [sys.executable, "-c", PROGRAM, *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=_environment(TERM="xterm", **environment)) as running:
        os.close(theirs)
        screen = b""
        with contextlib.suppress(OSError):  # the end of the command is the end of the terminal
            while more := os.read(ours, 1 << 16):
                screen += more
    os.close(ours)
    return running.returncode, screen.decode()


def test_a_terminal_shows_progress_and_a_pipe_does_not(shop, capsys):
    """Rows of each view as they are read, on stderr; nothing of it with --json or where nobody watches."""
    run(capsys, "apply")
    train = ["training-set", "order_model", "--spine", "data/asked.csv", "--time", "asked_at", "--out", "train.parquet"]
    kernels = {"NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", str(shop / ".featreg" / "kernels"))}
    for command, doing in ((train, "reading"), (["materialize", "--to", "2024-03-08"], "materializing")):
        code, screen = at_terminal(*command, **kernels)
        assert code == 0, screen
        assert f"{doing}  customer_orders" in screen and " rows" in screen and "\x1b[2K" in screen
        assert doing not in at_terminal(*command, "--json", **kernels)[1]
        piped = subprocess.run(
            [sys.executable, "-c", PROGRAM, *command], capture_output=True, text=True, env=_environment(**kernels), timeout=120
        )
        assert piped.returncode == 0 and doing not in piped.stdout + piped.stderr and "\x1b" not in piped.stdout + piped.stderr


def test_the_first_run_says_that_it_compiles_and_the_next_does_not(shop, monkeypatch):
    """Before it begins, so that whoever waits knows why; where kernels were compiled, nothing."""
    from featreg.cli.arguments import Settings
    from featreg.cli.terminal import say_if_compiling
    from featreg.kernels import kernel_id

    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    say_if_compiling(Settings(None, "local", False, False), shop / ".featreg")
    assert "first run here" in told.getvalue() and told.getvalue().count("\n") == 1
    (shop / ".featreg" / "kernels" / kernel_id()[:16]).mkdir(parents=True)
    say_if_compiling(Settings(None, "local", False, False), shop / ".featreg")
    assert told.getvalue().count("\n") == 1


def test_the_first_run_into_the_store_compiles_for_every_verb(shop):
    """What the program's features use and nothing else, in two processes; the next verb, in a third, compiles nothing."""
    environment = _environment()
    environment.pop("NUMBA_CACHE_DIR", None)

    def verb(*arguments: str) -> str:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def compiled() -> set[str]:
        return {path.name.split("-")[0].rpartition(".")[2] for path in (shop / ".featreg").rglob("*.nbi")}

    verb("apply")
    assert "first run here" in verb("materialize", "--to", "2024-03-08")
    kernels = compiled()
    assert {"advance", "answer", "dump_keys", "run_sums", "run_counts"} <= kernels and "run_moments" not in kernels
    assert "first run here" not in verb("get", "order_model", "customer_id=1", "basket=20", "--at", "2024-03-08")
    assert compiled() == kernels


def test_a_mistake_of_ours_is_told_as_one(shop, capsys, monkeypatch):
    """An error that is none of featreg's kinds: exit 1, and --debug has the traceback."""

    def broken(*_, **__):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("featreg.cli.definitions.list_working_tree", broken)
    assert "run again with --debug" in failure(capsys, "ls", code=1).lower()
    assert main(["ls", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_names_complete_from_the_listing_and_the_log(shop, capsys):
    """The tab key gives the sets where a set is asked for, views and sets to explain, the snapshots that are kept, and profiles."""
    run(capsys, "apply")
    taken = json.loads(run(capsys, "snapshot", "take", "orders", "--json"))["id"][:12]
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r}); from featreg.cli import main; sys.exit(main())"
    for words, wanted in (
        ("featreg get order", {"order_model"}),
        ("featreg explain ", {"order_model", "customer_orders"}),
        ("featreg snapshot diff ", {taken}),
        ("featreg reproduce ", set()),
        ("featreg --profile l", {"local"}),
    ):
        environment = _environment(
            _FEATREG_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1), _TYPER_COMPLETE_ARGS=words
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60)
        assert set(done.stdout.split()) == wanted, done.stderr


def test_small_words():
    """Sizes, and what an apply changed."""
    assert [bytes_text(size) for size in (0, 999, 12_345, 3_200_000)] == ["0 B", "999 B", "12.3 KB", "3.2 MB"]
    assert compare_ids({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == {"added": ["c"], "changed": ["b"], "removed": ["a"]}


def _environment(**more: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    return inherited | {"PYTHONPATH": str(Path(__file__).parent.parent)} | more
