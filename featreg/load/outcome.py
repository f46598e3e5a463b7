"""Carry what reading specs gave: definitions, problems, and names that a problem stands in front of."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from featreg.errors import Problem
from featreg.load.definitions import Placed


@dataclass
class Outcome:
    """What a reader found so far.

    spoiled: (kind, name) of definitions that are written down and did not hold; who
    refers to one has no problem of its own.  blind: a file could not be read at all,
    so a name that is not found may well be in it.
    """

    placed: list[Placed] = field(default_factory=list)
    problems: dict[Problem, None] = field(default_factory=dict)  # each once, in the order they were found
    spoiled: set[tuple[str, str]] = field(default_factory=set)
    blind: bool = False

    def tell(self, problems: Iterable[Problem]) -> None:
        self.problems.update(dict.fromkeys(problems))
