"""Make what is written be there whole, and survive a machine that stops."""

import os
import threading
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Give a file this text at once: whoever reads or writes it meanwhile, in this process too, finds what was there or all of it.

    A machine that stops may lose it: for what can be made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as durable as the files they name: after one was made, renamed or deleted."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
