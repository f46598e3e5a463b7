"""The house rules that no linter knows: what may stand where, and a README that says what happens."""

import ast
import contextlib
import io
import re
import runpy
import subprocess
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOP = {"README.md", "conf", "features", "featreg", "pyproject.toml", "tests"}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Spelled in pieces, so that this file is not the one that it finds.
FOREIGN = tuple(
    "".join(pieces)
    for pieces in (("/ho", "me/"), ("/Us", "ers/"), ("/wo", "rk/"), ("/tm", "p/"), ("/ro", "ot/"), ("index", "-url"), ("pypi", ".org"))
)


def tracked_files() -> list[Path]:
    """What git has or would add: files that are ignored do not count."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def imported(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


def blocks(language: str) -> list[str]:
    return [text for found, text in FENCE.findall(README) if found == language]


def test_the_oracle_imports_nothing_from_featreg():
    """The second witness shares no line with what it judges: only Python's own library."""
    assert not [name for name in imported(ROOT / "tests" / "oracle.py") if name.startswith((".", "featreg", "numpy", "pyarrow", "tests"))]
    assert "import_module" not in (ROOT / "tests" / "oracle.py").read_text(encoding="utf-8")


def test_the_top_level_holds_what_was_agreed():
    names = {path.relative_to(ROOT).parts[0] for path in tracked_files()}
    assert {name for name in names if not name.startswith(".")} == TOP


def test_no_file_knows_a_machine_or_a_registry():
    """Paths of one machine and addresses of package registries are nobody else's."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if any(word in line for word in FOREIGN)
    ]
    assert not found, "\n".join(found)


def test_every_module_begins_with_a_claim_and_none_is_called_by_no_subject():
    """A docstring opens every module; what has no subject (utils, helpers, common) has no module."""
    modules = sorted((ROOT / "featreg").rglob("*.py"))
    assert not [path for path in modules if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not [path for path in modules if path.stem in {"utils", "util", "helpers", "common", "manager", "misc"}]


def test_every_package_of_featreg_is_a_layer():
    """A folder that no contract knows could import anything."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = {name.strip() for line in settings["contracts"][0]["layers"] for name in line.split("|")}
    modules = {path.stem for path in (ROOT / "featreg").glob("*.py")} | {
        path.parent.name for path in (ROOT / "featreg").glob("*/__init__.py")
    }
    assert modules - {"__init__", "__main__"} == layers
    assert all((path / "__init__.py").is_file() for path in (ROOT / "featreg").iterdir() if path.is_dir() and list(path.glob("*.py")))


def test_every_dependency_says_what_it_saves():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    assert not [line for line in project.splitlines() if line.startswith('  "') and "#" not in line and "featreg[" not in line]


def test_ci_runs_the_command_of_the_readme():
    commands = blocks("bash")[0].splitlines()
    assert commands == ["pip install -e '.[demo]' && featreg demo", "pip install -e '.[test]' && pytest -n 2"]
    assert f"{{ {commands[1]}; }}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_readme_knows_every_verb_of_the_command_line():
    from featreg.cli.app import app

    verbs = [command.name for command in app.registered_commands]
    verbs += [f"{group.name} {command.name}" for group in app.registered_groups for command in group.typer_instance.registered_commands]
    table = README[README.index("## The command line") : README.index("## Beside")]
    groups = {group.name for group in app.registered_groups}
    cells = "\n".join(row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `featreg"))
    named = re.findall(r"`featreg ([a-z-]+)(?: ([a-z-]+))?", cells)
    told = [f"{one} {two}" if one in groups or f"{one} {two}" in verbs else one for one, two in named]
    assert sorted(told) == sorted(map(str, verbs))


def test_the_readme_has_a_row_for_every_folder():
    table = README[README.index("## Where a change goes") :]
    for folder in (ROOT / "featreg").iterdir():
        assert not (folder / "__init__.py").is_file() or f"`featreg/{folder.name}/`" in table, folder.name


@pytest.fixture
def readme_folder(tmp_path, monkeypatch):
    """A repository with the files that the README names, as it spells them."""
    for language in ("python", "toml"):
        for text in blocks(language):
            name = re.match(r"# (\S+\.(?:py|toml))\n", text)
            if name is not None:
                path = tmp_path / name[1]
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_the_readme_shows_is_what_happens(readme_folder):
    """The examples run as they stand there and print what stands below them."""
    shown = blocks("text")
    assert len(shown) == 2

    def run(name: str) -> tuple[dict, str]:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            names = runpy.run_path(str(readme_folder / name))
        return names, printed.getvalue()

    names, printed = run("try_it.py")
    assert printed == shown[0]
    (readme_folder / "data").mkdir()
    pq.write_table(names["orders"], readme_folder / "data" / "orders.parquet")
    assert run("serve_it.py")[1] == shown[1]
