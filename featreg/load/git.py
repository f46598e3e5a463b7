"""Read definitions from git objects: resolve once, walk trees, read blobs.  Nothing is checked out or run."""

from pathlib import Path
from typing import Any

from featreg.errors import UsageError

SPECS = "features"
MOST_FILES = 20_000


def tree_state(root: Path) -> dict[str, Any]:
    """{"commit": full SHA or None, "clean": whether the spec folder is as committed}; no repository: None and False."""
    repository = _repository(root)
    if repository is None or not repository.head.is_valid():
        return {"commit": None, "clean": False}
    folder = _folder(repository, root)
    clean = not repository.git.status("--porcelain", "--", folder or ".")
    return {"commit": repository.head.commit.hexsha, "clean": clean}


def read_revision(root: Path, revision: str) -> tuple[dict[str, bytes], str]:
    """The spec files at a revision and its full SHA.

    Raises: UsageError when it cannot be resolved, or holds a link or submodule among the specs.
    """
    import git

    repository = _repository(root)
    if repository is None:
        raise UsageError(f"{root} is no git repository, so there is no revision '{revision}'.")
    try:
        commit = repository.commit(revision)
    except (git.BadName, git.GitCommandError, ValueError, IndexError) as error:
        raise UsageError(f"there is no revision '{revision}': {error}.") from None
    try:
        tree = commit.tree / _folder(repository, root) if _folder(repository, root) else commit.tree
    except KeyError:
        raise UsageError(f"at {revision} there is no folder '{_folder(repository, root)}'.") from None
    files: dict[str, bytes] = {}
    prefix = len(tree.path) + 1 if tree.path else 0
    for item in tree.traverse():
        if item.type == "submodule" or (item.type == "blob" and item.mode == 0o120000):
            raise UsageError(
                f"at {revision}, {item.path} is a {'submodule' if item.type == 'submodule' else 'symbolic link'}; specs are plain files."
            )
        hidden = any(part.startswith(".") or part == "__pycache__" for part in item.path.split("/"))
        if item.type == "blob" and not hidden and item.path.endswith((".py", ".sql")):
            files[f"{SPECS}/{item.path[prefix:]}"] = item.data_stream.read()
            if len(files) > MOST_FILES:
                raise UsageError(f"at {revision} there are more than {MOST_FILES:,} spec files.")
    return files, commit.hexsha


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
