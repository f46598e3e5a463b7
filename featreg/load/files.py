"""Read every spec of a tree of files, from a folder or from anywhere else."""

from collections.abc import Mapping
from pathlib import Path

from featreg.errors import DefinitionError, Problem, UsageError
from featreg.load.definitions import Definitions, gather
from featreg.load.python import read_python_specs
from featreg.load.sql import read_sql_specs

SPEC_FOLDER = "features"
MOST_BYTES = 1 << 20  # of one file


def load_directory(root: Path) -> Definitions:
    """The definitions in `root/features/**/*.py` and `*.sql`.  Nothing is run.

    Raises: DefinitionError with every problem of every file; UsageError when there is no such folder.
    """
    return load_files(read_spec_files(root))


def is_spec(path: Path, root: Path) -> bool:
    """Whether a file is read: `.py` or `.sql`, and no part of its path begins with a dot or is a cache."""
    return path.suffix in (".py", ".sql") and not _is_hidden(path, root) and path.is_file()


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(root).parts)


def load_files(files: Mapping[str, bytes]) -> Definitions:
    """The definitions in these files: path relative to the repository's root -> content.

    A git revision and a folder load alike.  Files that are neither `.py` nor `.sql` are passed over.
    Raises: DefinitionError with every problem of every file, in file and line order.
    """
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    for file in sorted(files):
        if file.endswith((".py", ".sql")):
            text = _decoded(file, files[file])
            if isinstance(text, Problem):
                problems.append(text)
            else:
                texts[file] = text
    unreadable = {problem.file for problem in problems if problem.file}
    python = read_python_specs({file: text for file, text in texts.items() if file.endswith(".py")}, unreadable)
    sql = read_sql_specs({file: text for file, text in texts.items() if file.endswith(".sql")}, python)
    definitions, duplicates = gather((*python.placed, *sql.placed))
    problems += [*python.problems, *sql.problems, *duplicates]
    if problems:
        raise DefinitionError(dict.fromkeys(problems))
    return definitions


def _read(path: Path) -> bytes:
    """A file's bytes, no more than it takes to see that there are too many."""
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def _decoded(file: str, content: bytes) -> str | Problem:
    if len(content) > MOST_BYTES:
        return Problem(f"the file is larger than {MOST_BYTES:,} bytes.", file, 1, hint="Split it, or write features in a comprehension.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return Problem(f"byte {content[error.start]:#04x} is not UTF-8.", file, line, hint="Save the file as UTF-8.")


def read_spec_files(root: Path) -> dict[str, bytes]:
    """The spec files of a working tree: path relative to `root` -> content.  Raises: UsageError when there is no such folder."""
    folder = root / SPEC_FOLDER
    if not folder.is_dir():
        raise UsageError(f"there is no folder '{SPEC_FOLDER}' in {root}. Definitions live there; `featreg init` makes one.")
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not _is_hidden(path, root):  # as at a git revision, where it leads nowhere
            raise UsageError(f"{path.relative_to(root).as_posix()} is a symbolic link; specs are plain files.")
        if is_spec(path, root):
            files[path.relative_to(root).as_posix()] = _read(path)
    return files
