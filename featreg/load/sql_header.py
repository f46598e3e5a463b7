"""Read the comment that makes a SELECT a feature view: `/* featreg ... */` with one `key: value` a line."""

import re
from dataclasses import dataclass, field

from featreg.define import REALTIME, Every, Realtime
from featreg.errors import Problem, UsageError, did_you_mean

KEYS = ("feature_view", "entity", "freshness", "hop", "owner", "description", "tags")
REQUIRED = ("feature_view", "entity")

_HEADER = re.compile(r"\A\s*/\*\s*featreg\b(.*?)\*/", re.DOTALL)
_EVERY = re.compile(r"every\s+(\S+)(?:\s+offset\s+(\S+))?(?:\s+delay\s+(\S+))?", re.IGNORECASE)


@dataclass
class Header:
    """The header's values as text, and the line of each.  body_line: where the comment ends."""

    file: str
    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def fail(self, key: str | None, message: str, hint: str | None = None) -> None:
        line = self.lines.get(key, 1) if key else 1
        self.problems.append(Problem(message, self.file, line, self.values.get("feature_view"), hint))

    @property
    def freshness(self) -> Realtime | Every:
        """`realtime`, or `every 1d offset 0h delay 2h`."""
        text = self.values.get("freshness", "realtime")
        if text.lower() == "realtime":
            return REALTIME
        found = _EVERY.fullmatch(text)
        if found is None:
            self.fail("freshness", f"freshness {text!r} cannot be read.", "Write `realtime`, or `every 1d offset 0h delay 2h`.")
            return REALTIME
        try:
            return Every(found[1], offset=found[2] or "0h", delay=found[3] or "0h")
        except UsageError as error:
            self.fail("freshness", str(error))
            return REALTIME

    @property
    def hops(self) -> tuple[str | None, dict[str, str]]:
        """The hop for all windows, and those of windows by name: `w7d: exact, w1d: 5m`."""
        for_all: str | None = None
        by_name: dict[str, str] = {}
        for entry in filter(None, map(str.strip, self.values.get("hop", "").split(","))):
            name, colon, hop = (part.strip() for part in entry.rpartition(":"))
            if (name.lower() in by_name) if colon else (for_all is not None):
                self.fail("hop", f"hop {entry!r} is given twice.")
            elif colon:
                by_name[name.lower()] = hop
            else:
                for_all = hop
        return for_all, by_name

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(filter(None, (tag.strip() for tag in self.values.get("tags", "").strip("[]").split(","))))


def read_header(file: str, text: str) -> Header:
    """The header of a SQL spec; what is wrong with it is in its `problems`.

    A line that is indented and has no key of its own goes on with the line before it.
    """
    header = Header(file)
    found = _HEADER.match(text)
    if found is None:
        hint = "Begin the file with /* featreg, then the lines `feature_view: name` and `entity: name`, then */."
        header.fail(None, "there is no featreg header.", hint)
        return header
    first_line = text[: found.start(1)].count("\n") + 1
    last: str | None = None
    for number, line in enumerate(found[1].split("\n"), start=first_line):
        last = _read_line(header, line, number, last)
    for key in REQUIRED:
        if not header.values.get(key):
            header.fail(None, f"the header has no `{key}`.", f"Add a line `{key}: name`.")
    return header


def _read_line(header: Header, line: str, number: int, last: str | None) -> str | None:
    """Take one line in; returns the key that a line behind it would go on with."""
    key, colon, value = (part.strip() for part in line.partition(":"))
    if not line.strip():
        return last
    if line[0].isspace() and key not in KEYS and last is not None:
        joint = ", " if last == "hop" else " "
        header.values[last] = (header.values[last] + joint + line.strip()).strip(joint)
    elif not colon:
        header.lines[key] = number
        header.fail(key, f"the header line {line.strip()!r} has no `key: value`.")
    elif key not in KEYS:
        header.lines[key] = number
        header.fail(key, f"the header has a key `{key}`.", did_you_mean(key, KEYS, "Keys are"))
    elif key in header.values:
        header.fail(key, f"the header has `{key}` twice; again on line {number}.")
    else:
        header.values[key], header.lines[key] = value, number
        return key
    return last
