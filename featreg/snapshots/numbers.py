"""Add up the rows of a table in any order: nine exact integers that say what is in it.

The count of rows, then the sums of the eight 32-bit limbs of every row's SHA-256, the most significant limb first.
Numbers of partitions add up to those of the whole, so what did not change is never read again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from featreg.canonical import bytes_id

LIMBS = 8


@dataclass(frozen=True)
class Numbers:
    """count: rows · limbs: eight sums."""

    count: int = 0
    limbs: tuple[int, ...] = (0,) * LIMBS

    def __add__(self, other: "Numbers") -> "Numbers":
        return Numbers(self.count + other.count, tuple(a + b for a, b in zip(self.limbs, other.limbs)))

    def listed(self) -> list[int]:
        return [self.count, *self.limbs]


def read_numbers(listed: Sequence[int | None]) -> Numbers:
    """The nine as an engine or a manifest gives them; a sum over no rows is NULL there."""
    count, *limbs = (int(number or 0) for number in listed)
    assert len(limbs) == LIMBS
    return Numbers(count, tuple(limbs))


def summed(numbers: Iterable[Numbers]) -> Numbers:
    return sum(numbers, Numbers())


def content_id_of(shape: str, numbers: Numbers) -> str:
    """SHA-256 over the columns' names and families and the nine numbers.  shape: see `shape_text`."""
    return bytes_id(f"featreg-fp/1|{shape}|{','.join(map(str, numbers.listed()))}".encode())
