"""At a terminal apply asks before a feature means something else or goes, and before nothing else."""

import contextlib
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featreg.cli import main
from tests.shop import REALTIME_SHOP, Shop

PROGRAM = "import sys; from featreg.cli import main; sys.exit(main(sys.argv[1:]))"
DOUBLED = REALTIME_SHOP.replace('agg.sum("amount")', 'agg.sum("amount * 2")')
WITHOUT = REALTIME_SHOP.replace('        "last_shop": agg.last("shop"),\n', "")
WITH = REALTIME_SHOP.replace('"last_shop"', '"first_shop": agg.first("shop"), "last_shop"')


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    return Shop(tmp_path).commit().applied()


def rewrite(shop: Shop, spec: str) -> None:
    (shop.root / "features" / "shop.py").write_text(spec)


def generation(shop: Shop) -> int:
    with shop.open() as registry:
        return registry.log.generation()


def at_terminal(*arguments: str, answer: str | None, meanwhile: object = None) -> tuple[int, str]:
    """A command as at a terminal: its exit code and its screen.  answer: typed when it asks; meanwhile: called before that."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "dumb", "COLUMNS": "120"}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as running:
        os.close(theirs)
        screen, is_asked = b"", False
        with contextlib.suppress(OSError):  # the end of the command is the end of the terminal
            while more := os.read(ours, 1 << 16):
                screen += more
                if not is_asked and b"[y/N]" in screen:
                    is_asked = True
                    assert answer is not None, screen.decode()
                    if callable(meanwhile):
                        meanwhile()
                    os.write(ours, answer.encode())
        running.wait(60)
    os.close(ours)
    assert answer is None or is_asked, screen.decode()
    return running.returncode, screen.decode()


def test_it_asks_before_another_meaning_and_a_removal(shop: Shop) -> None:
    for spec, told, answer in ((WITHOUT, "removed", "n\n"), (DOUBLED, "semantic", "\n")):
        rewrite(shop, spec)
        code, screen = at_terminal("apply", answer=answer)
        assert code == 4 and told in screen and "nothing was applied" in screen and "will mean something else or be gone" in screen
        assert generation(shop) == 1
    code, screen = at_terminal("apply", answer="y\n")
    assert code == 0 and "generation 2" in screen and generation(shop) == 2


def test_it_does_not_ask_about_what_only_adds_nor_when_told_not_to_nor_where_nobody_is(shop: Shop) -> None:
    rewrite(shop, WITH)
    code, screen = at_terminal("apply", answer=None)
    assert code == 0 and "recent.first_shop@1" in screen
    rewrite(shop, DOUBLED)
    assert at_terminal("apply", "--yes", answer=None)[0] == 0 and generation(shop) == 3
    rewrite(shop, REALTIME_SHOP)
    piped = subprocess.run([sys.executable, "-c", PROGRAM, "apply"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert piped.returncode == 0 and generation(shop) == 4


def test_what_somebody_applied_while_it_asked_is_not_applied_over(shop: Shop) -> None:
    rewrite(shop, DOUBLED)

    def meanwhile() -> None:
        time.sleep(0.01)
        with shop.open() as registry:
            registry.apply()

    code, screen = at_terminal("apply", answer="y\n", meanwhile=meanwhile)
    assert code == 4 and "was first: 'apply' is generation 2" in " ".join(screen.split()) and generation(shop) == 2


def test_numbers_are_told_and_an_earlier_meaning_has_its_earlier_one(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    def applied(spec: str) -> dict[str, int]:
        rewrite(shop, spec)
        capsys.readouterr()
        assert main(["apply", "--json"]) == 0
        return json.loads(capsys.readouterr().out)["versions"]

    names = ("recent.spent", "recent.spent_1d", "recent.spent_1h")
    assert applied(DOUBLED) == dict.fromkeys(names, 2) and applied(DOUBLED) == {}
    assert applied(REALTIME_SHOP.replace('agg.sum("amount")', 'agg.sum("amount * 3")')) == dict.fromkeys(names, 3)
    rewrite(shop, DOUBLED)
    capsys.readouterr()
    assert main(["apply"]) == 0
    assert "changed  recent.spent_1d@2  was @3" in capsys.readouterr().out
