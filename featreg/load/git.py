"""Read definitions from git objects: resolve once, walk trees, read blobs.  Nothing is checked out or run."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from featreg.errors import DefinitionError, UsageError, did_you_mean

SPECS = "features"
MOST_FILES, MOST_BYTES = 20_000, 4_000_000
_SHA = re.compile(r"\b[0-9a-f]{40}\b")


def tree_state(root: Path) -> dict[str, Any]:
    """{"commit": full SHA or None, "clean": whether the spec folder is as committed}; no repository: None and False."""
    repository = _repository(root)
    if repository is None or not repository.head.is_valid():
        return {"commit": None, "clean": False}
    folder = _folder(repository, root)
    clean = not repository.git.status("--porcelain", "--", folder or ".")
    return {"commit": repository.head.commit.hexsha, "clean": clean}


def read_revision(root: Path, revision: str) -> tuple[dict[str, bytes], str]:
    """The spec files at a revision and its full SHA.  Works in a bare clone too, and looks at no file of the working tree.

    Raises: UsageError when it cannot be resolved, or holds links, submodules, or more than specs are.
    """
    repository = _repository(root)
    if repository is None:
        begin = "Revisions begin with a commit: git init, git add, git commit."
        raise UsageError(f"{root} is no git repository, so there is no revision '{revision}'.\n  {begin}")
    sha = _resolved(repository, revision)
    try:
        return _read_tree(repository, root, revision, sha), sha
    except (ValueError, OSError) as error:  # what GitPython says of an object that is not there, or is not what its name says
        missing = _SHA.search(str(error))
        what = f"object {missing[0]}" if missing else "an object"
        hint = "A partial or damaged clone lacks some: `git fsck` lists them, `git fetch --refetch` gets them again."
        raise UsageError(f"at {revision}, {what} is not in this clone, or is damaged.\n  {hint}") from None


@contextmanager
def problems_at(revision: str | None) -> Iterator[None]:
    """Let problems of specs say at which revision they stand."""
    try:
        yield
    except DefinitionError as error:
        if revision is None:
            raise
        at = [replace(problem, file=f"{problem.file} at {revision}" if problem.file else revision) for problem in error.problems]
        raise DefinitionError(at) from None


def _read_tree(repository, root: Path, revision: str, sha: str) -> dict[str, bytes]:
    commit = repository.commit(sha)
    folder = _folder(repository, root)
    try:
        tree = commit.tree / folder if folder else commit.tree
    except KeyError:
        raise UsageError(f"at {revision} there is no folder '{folder}'.") from None
    files: dict[str, bytes] = {}
    prefix = len(tree.path) + 1 if tree.path else 0
    for item in tree.traverse():
        if item.type == "submodule" or (item.type == "blob" and item.mode == 0o120000):
            kind = "submodule" if item.type == "submodule" else "symbolic link"
            raise UsageError(f"at {revision}, {item.path} is a {kind}; specs are plain files.")
        hidden = any(part.startswith(".") or part == "__pycache__" for part in item.path.split("/"))
        if item.type == "blob" and not hidden and item.path.endswith((".py", ".sql")):
            if item.size > MOST_BYTES:
                raise UsageError(f"at {revision}, {item.path} has {item.size:,} bytes; a spec has at most {MOST_BYTES:,}.")
            files[f"{SPECS}/{item.path[prefix:]}"] = item.data_stream.read()
            if len(files) > MOST_FILES:
                raise UsageError(f"at {revision} there are more than {MOST_FILES:,} spec files.")
    return files


def _resolved(repository, revision: str) -> str:
    """The full SHA of the commit that a revision names.  Raises: UsageError that says why it names none, or not one."""
    ask = repository.git.rev_parse
    status, sha, complaint = ask("--verify", "--end-of-options", f"{revision}^{{commit}}", with_extended_output=True, with_exceptions=False)
    if "ambiguous" in complaint:
        hint = f"Write refs/heads/{revision} or refs/tags/{revision}, or more of the SHA."
        raise UsageError(f"revision '{revision}' can mean more than one thing here.\n  {hint}")
    if status == 0:
        return sha
    if not repository.refs and not repository.head.is_valid():
        raise UsageError(f"there is no revision '{revision}': nothing is committed yet.\n  Commit features/ first.")
    status, kind, _ = repository.git.cat_file("-t", revision, with_extended_output=True, with_exceptions=False)
    if status == 0:
        raise UsageError(f"revision '{revision}' is a {kind}, not a commit.")
    if ask("--is-shallow-repository") == "true":
        raise UsageError(f"there is no revision '{revision}' in this shallow clone.\n  Get the whole history: git fetch --unshallow --tags")
    names = [ref.name for ref in repository.refs]
    raise UsageError(f"there is no revision '{revision}'.\n  {did_you_mean(revision, names, 'There are')}")


def _repository(root: Path):
    import git

    try:
        return git.Repo(root, search_parent_directories=True)
    except (git.InvalidGitRepositoryError, git.NoSuchPathError):
        return None


def _folder(repository, root: Path) -> str:
    """The spec folder's path inside the repository."""
    base = Path(repository.working_tree_dir or repository.git_dir).resolve()
    return (root.resolve() / SPECS).relative_to(base).as_posix() if root.resolve().is_relative_to(base) else SPECS
