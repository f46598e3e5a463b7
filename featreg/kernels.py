"""Keep compiled kernels in the repository's state folder.

numba notices a change in a kernel's own file only, so the folder's name has a hash of
all kernel sources: another featreg never runs these, and nothing stale runs here.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from featreg.canonical import bytes_id

_FOLDERS = ("algebra", "sweep", "expressions")
_chosen: list[Path] = []
_started: "list[subprocess.Popen[str]]" = []


def use_cache(state: Path) -> Path:
    """Say where compiled kernels are kept; the first call of a process decides.  Returns the folder."""
    if not _chosen:
        folder = _folder(state)
        if "NUMBA_CACHE_DIR" not in os.environ:
            os.environ["NUMBA_CACHE_DIR"] = str(folder)
            if "numba" in sys.modules:
                import numba

                numba.config.reload_config()
        _chosen.append(folder)
    return _chosen[0]


def is_compiled(state: Path) -> bool:
    """Whether kernels of this featreg were compiled before, here or where this process keeps them."""
    return Path(os.environ.get("NUMBA_CACHE_DIR") or _folder(state)).is_dir()


def _folder(state: Path) -> Path:
    return state / "kernels" / kernel_id()[:16]


def start_compiler() -> None:
    """Start the process that compiles beside this one, for which `compiler` asks later: it takes a second to import what it needs."""
    if (os.cpu_count() or 1) > 1:
        _started.append(_compiler())


def compiler() -> "subprocess.Popen[str]":
    """A process that compiles the kernels whose names are written to it: the one that was started, or another."""
    return _started.pop() if _started else _compiler()


def _compiler() -> "subprocess.Popen[str]":
    command, pipe = [sys.executable, "-m", "featreg.sweep.warm"], subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, bufsize=1)


@cache
def kernel_id() -> str:
    """SHA-256 of every kernel source."""
    here = Path(__file__).parent
    files = sorted(file for folder in _FOLDERS for file in (here / folder).glob("*.py"))
    return bytes_id(b"".join(file.read_bytes() for file in files))
