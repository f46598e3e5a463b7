"""Say what went wrong, where, and the next step.

    FeatregError               exit code 1
    ├── UsageError             2   an argument or setting that cannot be meant
    ├── DefinitionError        1   specs: every problem of a file at once
    ├── DataError              3   a source, spine or key that does not fit its contract
    │   ├── RejectedRowsError      more rows rejected than the source allows
    │   ├── OverflowDataError      a result outside its type: feature, key and as-of
    │   └── CoverageError          data that does not cover what is asked: verdict by verdict
    ├── StoreError             1   the online store: missing, newer format, full
    │   ├── StoreUnavailable       no server answers; the same call may be made again
    │   └── LeaseHeldError     4   another writer holds the lease: who, since when
    └── RefusedError           4   a gate: a changed file, an instant that is gone
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featreg.snapshots.coverage import Coverage

_MOST_VERDICTS = 50  # told of one failure


class FeatregError(Exception):
    """The root of all errors of featreg; `exit_code` is what the CLI leaves with."""

    exit_code = 1


class UsageError(FeatregError):
    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a spec: `file:line: subject: message`, then the next step on a line of its own."""

    message: str
    file: str | None = None
    line: int | None = None
    subject: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file and self.line else f"{self.file}: " if self.file else ""
        subject = f"{self.subject}: " if self.subject else ""
        hint = f"\n  {self.hint}" if self.hint else ""
        return f"{place}{subject}{self.message}{hint}"


class DefinitionError(FeatregError):
    """Specs that do not hold together; `problems` has all of them, in file and line order."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(sorted(problems, key=lambda p: (p.file or "", p.line or 0, p.subject or "", p.message)))
        super().__init__("\n".join(map(str, self.problems)))


class DataError(FeatregError):
    exit_code = 3


class RejectedRowsError(DataError):
    """More rows of a source were rejected than its `max_rejected` allows."""

    def __init__(self, source: str, count: int, allowed: int, examples: tuple[str, ...]):
        self.source, self.count, self.allowed, self.examples = source, count, allowed, examples
        shown = "".join(f"\n  {example}" for example in examples)
        rows = "1 row was" if count == 1 else f"{count} rows were"
        super().__init__(
            f"source '{source}': {rows} rejected and max_rejected is {allowed}; nothing was written.{shown}\n"
            f"  Mend the rows, or declare EventSource(max_rejected={count}) to go on without them."
        )


class OverflowDataError(DataError):
    """A result outside the range of its type."""

    def __init__(self, feature: str, key: object, as_of: str):
        self.feature, self.key, self.as_of = feature, key, as_of
        super().__init__(
            f"{feature}: the result for key {key} as of {as_of} is out of range of its type.\n"
            f"  Cast the input to DOUBLE, or aggregate smaller numbers."
        )


class CoverageError(DataError):
    """The data does not cover what is asked; nothing was scanned.

    coverage: all verdicts, those that only note something too · kinds: of those that fail.
    """

    def __init__(self, coverage: "Coverage"):
        self.coverage, self.verdicts = coverage, coverage.verdicts
        failing = coverage.failing
        self.kinds = tuple(dict.fromkeys(str(one.kind) for one in failing))
        lines = [f"  {one}" for one in failing[:_MOST_VERDICTS]]
        lines += [f"  and {len(failing) - _MOST_VERDICTS} more."] if len(failing) > _MOST_VERDICTS else []
        lines += [f"  Not checked: {text}" for text in coverage.unchecked]
        super().__init__("the data does not cover what is asked, and nothing was scanned:\n" + "\n".join(lines))


class StoreError(FeatregError):
    pass


class StoreUnavailable(StoreError):
    pass


class LeaseHeldError(StoreError):
    exit_code = 4


class RefusedError(FeatregError):
    exit_code = 4


def did_you_mean(name: str, known: Iterable[str], what: str = "Known are") -> str:
    """The hint for an unknown name: the nearest one, then all of them (the first 30)."""
    known = list(known)
    near = get_close_matches(name.lower(), [k.lower() for k in known], n=1)
    nearest = next((k for k in known if near and k.lower() == near[0]), None)
    listed = ", ".join(known[:30]) + (", …" if len(known) > 30 else "")
    return (f"Did you mean '{nearest}'? " if nearest else "") + f"{what}: {listed or 'none'}."
