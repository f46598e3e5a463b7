"""Keep compiled kernels in the repository's state folder.

numba notices a change in a kernel's own file only, so the folder's name has a hash of
all kernel sources: another featreg never runs these, and nothing stale runs here.
"""

import os
import sys
from pathlib import Path

from featreg.canonical import bytes_id

_FOLDERS = ("algebra", "sweep", "expressions")
_chosen: list[Path] = []


def use_cache(state: Path) -> Path:
    """Say where compiled kernels are kept; the first call of a process decides.  Returns the folder."""
    if not _chosen:
        folder = state / "kernels" / kernel_id()[:16]
        if "NUMBA_CACHE_DIR" not in os.environ:
            os.environ["NUMBA_CACHE_DIR"] = str(folder)
            if "numba" in sys.modules:
                import numba

                numba.config.reload_config()
        _chosen.append(folder)
    return _chosen[0]


def is_compiled(state: Path) -> bool:
    """Whether kernels of this featreg were compiled here before."""
    return (state / "kernels" / kernel_id()[:16]).is_dir()


def kernel_id() -> str:
    """SHA-256 of every kernel source."""
    here = Path(__file__).parent
    files = sorted(file for folder in _FOLDERS for file in (here / folder).glob("*.py"))
    return bytes_id(b"".join(file.read_bytes() for file in files))
