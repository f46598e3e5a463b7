"""How long it takes to plan, to load and to remember: many features, many files, a long log.

    python -m tests.benchmarks.versions --features 2000     # check, and plan with 5 of them changed, by the command line
    python -m tests.benchmarks.versions --files 500         # spec files read from a git revision and from the working tree
    python -m tests.benchmarks.versions --records 1_000_000 # the state of a log of that many records
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ENTITY = """
from featreg import Entity, EventSource

customer = Entity(name="customer", key={"customer": "VARCHAR"})
orders = EventSource(
    name="orders",
    columns={"customer": "VARCHAR", "amount": "DOUBLE", "shop": "VARCHAR", "paid": "BOOLEAN", "at": "TIMESTAMP"},
    event_time="at",
    tie_break="shop",
)
"""
VIEW = """
from featreg import REALTIME, FeatureView, agg, derive
from features.shared import customer, orders

view{n} = FeatureView(
    name="view{n}",
    entity=customer,
    source=orders,
    where="amount > {n} AND paid",
    freshness=REALTIME,
    features={{
{features}
    }},
    owner="team{team}",
)
"""
FEATURES = (
    '        "n": agg.count().over("1h", "1d", "7d"),',
    '        "spent": agg.sum("amount * 2").over("1h", "1d", "7d"),',
    '        "late": agg.count(where="amount > 15 OR shop LIKE \'a%\'").over("1d", "7d"),',
    '        "largest": agg.max("amount").over("1d", "7d"),',
    '        "mean": agg.avg("coalesce(amount, 0.0)").over("1d", "7d", "30d"),',
    '        "shops": agg.count_distinct("shop").over("1d", "7d"),',
    '        "last_shop": agg.last("shop"),',
    '        "top": agg.top_n("amount", 3).over("1d", "7d"),',
    '        "mean_order_1d": derive("spent_1d / n_1d"),',
    '        "late_share_7d": derive("late_7d / n_7d"),',
)
FEATURES_A_VIEW = 20


def repository(root: Path, views: int, features: tuple[str, ...] = FEATURES) -> None:
    """A git repository of that many views, each in a file of its own."""
    (root / "features").mkdir(parents=True)
    (root / "conf").mkdir()
    (root / "conf" / "local.toml").write_text("[sources]\n")
    (root / "features" / "shared.py").write_text(ENTITY)
    for n in range(views):
        (root / "features" / f"view{n}.py").write_text(VIEW.format(n=n, team=n % 7, features="\n".join(features)))
    names = ", ".join(f"view{n}.all().prefix('v{n}_')" for n in range(0, views, 20))
    imports = "\n".join(f"from features.view{n} import view{n}" for n in range(0, views, 20))
    text = f"from featreg import FeatureSet\n{imports}\nmodel = FeatureSet(name='model', features=[{names}])\n"
    (root / "features" / "zmodel.py").write_text(text)
    for arguments in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "one")):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=root, check=True)


class Seconds(float):
    """Seconds of a call by the clock; `cpu`: of the processor, its children's included, which a busy machine lets alone."""

    cpu: float

    def __format__(self, form: str) -> str:
        return f"{float(self):{form}} s ({self.cpu:{form}} s of CPU)"


def best(call: Callable[[], object], times: int = 3) -> Seconds:
    """The quickest of some calls."""
    found = []
    for _ in range(times):
        began, before = time.perf_counter(), os.times()
        call()
        seconds, after = Seconds(time.perf_counter() - began), os.times()
        seconds.cpu = sum(after[:4]) - sum(before[:4])
        found.append(seconds)
    return min(found)


def plan(features: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        repository(root, features // FEATURES_A_VIEW)

        def featreg(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [Path(sys.executable).with_name("featreg"), "--root", name, *arguments], check=True, capture_output=True, text=True
            )

        print(f"{features:,} features: check {best(lambda: featreg('check')):.2f}")
        print(f"  apply {best(lambda: featreg('apply'), 1):.2f}")
        for n in range(5):
            path = root / "features" / f"view{n}.py"
            path.write_text(path.read_text().replace('agg.last("shop")', 'agg.first("shop")'))
        print(f"  plan, 5 changed {best(lambda: featreg('plan')):.2f}")
        document = json.loads(featreg("plan", "--json").stdout)
        assert len(document["changes"]) == 5 and document["unchanged"] == features - 5, document["unchanged"]
        print(f"  diff HEAD, 5 changed {best(lambda: featreg('diff', 'HEAD')):.2f}")


def load(files: int) -> None:
    from featreg.compile import compile_definitions
    from featreg.load import load_directory, load_files
    from featreg.load.git import read_revision

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        repository(root, files, FEATURES[:2] + FEATURES[6:9])
        assert len(load_directory(root).views) == files
        read, _ = read_revision(root, "HEAD")
        print(f"{files:,} files: working tree loaded {best(lambda: load_directory(root)):.3f}")
        print(f"  read from git {best(lambda: read_revision(root, 'HEAD')):.3f}, loaded {best(lambda: load_files(read)):.3f}")
        print(f"  both {best(lambda: load_files(read_revision(root, 'HEAD')[0])):.3f}")
        print(f"  compiled {best(lambda: compile_definitions(load_files(read))):.3f} with loading")


def remember(records: int) -> None:
    """Of a hundred records one applies 50 features, four pin or unpin, one retires or keeps, the rest are of other kinds."""
    from featreg.registry.kept_state import load_state
    from featreg.registry.sqlite_log import SqliteLog
    from featreg.registry.state import fold

    with tempfile.TemporaryDirectory() as name:
        log, kept = SqliteLog(Path(name) / "registry"), Path(name) / "state.json"
        log.append("apply", _body(0)[1], 0)
        began = time.perf_counter()
        _fill(log, records)
        print(f"{records:,} records: {log.path.stat().st_size / 1e6:,.0f} MB, written in {time.perf_counter() - began:.1f} s")
        print(f"  state, nothing kept {best(lambda: load_state(log, kept), 1):.2f}")
        state = load_state(log, kept)
        print(f"  state, kept ({kept.stat().st_size / 1e6:.1f} MB) {best(lambda: load_state(log, kept)):.3f}")
        for _ in range(200):
            log.append("pointer", {}, log.generation())
        print(f"  state, kept and 200 records since {best(lambda: load_state(log, kept)):.3f}")
        print(f"  last apply {best(lambda: log.last('apply')):.4f}, append {best(lambda: log.append('x', {}, log.generation())):.4f}")
        assert load_state(log, kept) == fold(log.iterate()) and state.generation == records
        print(f"  doctor verifies the chain {best(log.problems, 1):.1f}")
        assert log.problems() == []


def _body(n: int) -> tuple[str, dict[str, object]]:
    match n % 100:
        case 0:
            ids = {f"view.feature{i}": f"{(n // 100 if i == n // 100 % 50 else 0):064x}" for i in range(50)}
            revision = {"commit": f"{n:040x}", "clean": True}
            return "apply", {"ids": ids, "files": {"features/view.py": "x" * 2000}, "revision": revision, "id": "x"}
        case 10 | 20:
            features = {f"feature{i}": f"{0:064x}" for i in range(10)}
            return "pin", {"name": f"model:{n}", "set": "model", "generation": 1, "features": features}
        case 30 | 40:
            return "unpin", {"name": f"model:{n - 20}"}
        case 50:
            return "retire", {"feature": f"view.feature{n // 100 % 50}", "on": n}
        case 60:
            return "keep", {"feature": f"view.feature{n // 100 % 50}"}
    return "pointer", {"view": f"view{n % 7}", "space": f"{n:032x}"}


def _fill(log: object, records: int) -> None:
    """Append in one transaction, chained as single appends are."""
    from featreg.registry.log import chained

    head = log.head()  # type: ignore[attr-defined]
    chain, now = head.chain, time.time_ns() // 1000

    def rows() -> Iterator[tuple[object, ...]]:
        nonlocal chain
        for n in range(head.generation, records):
            kind, body = _body(n)
            row = (n + 1, kind, now - records + n, "someone@somewhere (pid 1)", json.dumps(body, sort_keys=True))
            chain = chained(chain, row)
            yield (*row, chain)

    connection = sqlite3.connect(log.path)  # type: ignore[attr-defined]
    with connection:
        connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", rows())
        connection.execute("UPDATE head SET generation = ?, chain = ?", (records, chain))
        connection.execute("UPDATE records SET at = at WHERE generation = 1")
    connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("features", "files", "records"):
        parser.add_argument(f"--{option}", type=lambda text: int(text.replace("_", "")))
    asked = parser.parse_args()
    if asked.features:
        plan(asked.features)
    if asked.files:
        load(asked.files)
    if asked.records:
        remember(asked.records)
