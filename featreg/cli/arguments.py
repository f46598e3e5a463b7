"""Read the options that every verb has, wherever in the command they stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FLAGS = ("--json", "--debug")
WITH_VALUE = ("--root", "-C", "--profile")
_MARKS = ("features", ".featreg", "conf")


@dataclass(frozen=True)
class Settings:
    """What the global options say.  root: as given, None is the nearest repository around the working directory."""

    root: Path | None
    profile: str
    json: bool
    debug: bool

    @property
    def repository(self) -> Path:
        return (self.root or find_root(Path.cwd())).expanduser().resolve()


def hoist_globals(arguments: Sequence[str]) -> list[str]:
    """Global options first, the rest in its order, so that `featreg ls --json` is `featreg --json ls`.

    Behind `--` nothing is an option.

    >>> hoist_globals(["ls", "features", "--json", "-C", "there"])
    ['--json', '-C', 'there', 'ls', 'features']
    """
    front: list[str] = []
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            rest += [word, *waiting]
            break
        if word in FLAGS or word.startswith(tuple(f"{name}=" for name in WITH_VALUE)):
            front.append(word)
        elif word in WITH_VALUE:
            front += [word, *waiting[:1]]
            waiting = waiting[1:]
        else:
            rest.append(word)
    return front + rest


def find_root(start: Path) -> Path:
    """The nearest folder at or above `start` that holds a repository; `start` when there is none."""
    for folder in (start, *start.parents):
        if any((folder / mark).is_dir() for mark in _MARKS):
            return folder
    return start
