"""Say what the control log is: records in one order, added by compare-and-swap on their number, each chained to those before.

A record carries the SHA-256 of itself and of the chain before it, and `head` the newest one's, so that a record that was
edited, taken out or cut off is found.  Work that changes what is applied takes the one claim first, so that of two who begin,
one is refused before it has done anything.  Where the records are is a matter of `sqlite_log` and `postgres_log`; both are
held to one suite of tests.
"""

import json
import os
import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featreg.canonical import content_id
from featreg.errors import RefusedError, StoreError
from featreg.instants import HOUR, SECOND, format_duration, format_instant
from featreg.registry.who import writer_name

FORMAT = 3
CLAIM_LASTS = 120 * SECOND  # after which a claimant on another machine is taken for dead
CLOCK_TOLERANCE = 60 * SECOND
_Row = tuple[int, str, int, str, str]  # a record as it is stored, without its chain
Run = Callable[..., list[tuple[Any, ...]]]  # executes a statement with `?` for its arguments and gives its rows


@dataclass(frozen=True)
class Record:
    """One event of the log.  generation: 1, 2, 3, ...; at: UTC microseconds."""

    generation: int
    kind: str
    at: int
    by: str
    body: dict


@dataclass(frozen=True)
class Head:
    """Where the log ends: the newest record's number and chain; 0 and "" for an empty one."""

    generation: int = 0
    chain: str = ""


@dataclass(frozen=True)
class Claim:
    """The right to change what is applied, from the generation at which it was taken until it is given back."""

    token: str
    generation: int


class ControlLog(ABC):
    """Every call may come from any thread or forked child.  What a subclass gives is a connection; what is asked is the same SQL.

    clock_tolerance: microseconds by which a clock may be behind the newest record.
    """

    prefix = ""  # of the tables' names

    def __init__(self, clock_tolerance: int = CLOCK_TOLERANCE):
        self.clock_tolerance = clock_tolerance
        self._held: set[str] = set()  # tokens of claims that no record has ended yet

    # What a subclass gives

    @property
    @abstractmethod
    def name(self) -> str:
        """How the log is called in an error; no secret is in it."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether anything was ever written."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Run]:
        """One consistent look.  Raises: StoreError."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[Run]:
        """One transaction that excludes other writers; it is durable when the block is left without an error.  Raises: StoreError."""

    @abstractmethod
    def rows(self, columns: str, after: int, kind: str | None = None) -> Iterator[tuple[Any, ...]]:
        """Columns of all records behind a generation, or of those of a kind, in order, in bounded memory."""

    @abstractmethod
    def now(self, run: Run) -> int:
        """The instant, by the clock that all writers of the log share as far as there is one."""

    def close(self) -> None:  # noqa: B027 - not every log keeps something
        """Let go of what is kept between calls."""

    # Reading

    def records(self, after: int = 0) -> list[Record]:
        return list(self.iterate(after))

    def iterate(self, after: int = 0, kind: str | None = None) -> Iterator[Record]:
        """The records behind a generation, or those of a kind, oldest first."""
        if self.exists():
            for row in self.rows(_COLUMNS, after, kind):
                yield _record(row)

    def last(self, kind: str, before: int | None = None) -> Record | None:
        """The newest record of a kind, or the newest before a generation."""
        return self._one("kind = ? AND generation < ?", kind, 1 << 60 if before is None else before)

    def record(self, generation: int) -> Record | None:
        return self._one("generation = ?", generation)

    def chain_at(self, generation: int) -> str | None:
        """The chain up to a record; None when there is no such record."""
        if not self.exists():
            return None
        with self.reading() as run:
            found = run(f"SELECT chain FROM {self.prefix}records WHERE generation = ?", generation)
        return found[0][0] if found else None

    def generation(self) -> int:
        return self.head().generation

    def head(self) -> Head:
        if not self.exists():
            return Head()
        with self.reading() as run:
            return self._head(run)

    def problems(self) -> list[str]:
        """What is wrong with the chain, record by record; nothing for a log that is as it was written."""
        if not self.exists():
            return []
        with self.reading() as run:
            told = run(f"SELECT generation, chain FROM {self.prefix}head")
        return list(chain_problems(self.rows(f"{_COLUMNS}, chain", 0), Head(*told[0]) if told else None))

    # Writing

    def append(self, kind: str, body: dict, expected: int | None = None, claim: Claim | None = None) -> Record:
        """Add a record if the log is still at generation `expected`, or, under a claim, if that is still held: it ends with the record.

        Raises: RefusedError that says who was first.
        """
        written: tuple[_Row, str] | None = None
        try:
            with self.writing() as run:
                head = self._head(run)
                if claim is not None:
                    self._refuse_lost(run, claim)
                    run(f"DELETE FROM {self.prefix}claim")
                elif head.generation != expected:
                    raise self._was_first(run, head, expected)
                row = (head.generation + 1, kind, self._instant(run), writer_name(), json.dumps(body, sort_keys=True))
                chain = chained(head.chain, row)
                run(f"INSERT INTO {self.prefix}records (generation, kind, at, by, body, chain) VALUES (?, ?, ?, ?, ?, ?)", *row, chain)
                run(f"DELETE FROM {self.prefix}head")
                run(f"INSERT INTO {self.prefix}head VALUES (1, ?, ?)", row[0], chain)
                written = row, chain
        except StoreError:  # a connection that was lost at the commit does not say whether it was done: the chain does
            if written is None or self.chain_at(written[0][0]) != written[1]:
                raise
        if claim is not None:
            self._held.discard(claim.token)
        return Record(*row[:4], body)

    @contextmanager
    def claimed(self, verb: str, expected: int) -> Iterator[Claim]:
        """Hold the right to change what is applied, if the log is still at `expected` and nobody else is at it.

        A claimant that was killed is followed at once on its machine, and after two minutes on another.
        Raises: RefusedError that says who was first, with what, and when.
        """
        claim = self._claim(verb, expected)
        self._held.add(claim.token)
        try:
            yield claim
        finally:
            if claim.token in self._held:  # no record ended it
                self._held.discard(claim.token)
                with suppress(StoreError), self.writing() as run:
                    run(f"DELETE FROM {self.prefix}claim WHERE token = ?", claim.token)

    def _claim(self, verb: str, expected: int) -> Claim:
        with self.writing() as run:
            head = self._head(run)
            if head.generation != expected:
                raise self._was_first(run, head, expected)
            now = self.now(run)
            for other, by, at, host, pid in run(f"SELECT verb, by, at, host, pid FROM {self.prefix}claim"):
                if _is_alive(host, pid, at, now):
                    ago = format_duration(max(now - at, 0) // SECOND * SECOND or SECOND)
                    raise RefusedError(
                        f"{by} is at it: '{other}' was begun at {format_instant(at)}, {ago} ago, on generation {head.generation}.\n"
                        "  Wait until it is done, look again, then repeat this."
                    )
            claim = Claim(secrets.token_hex(16), expected)
            run(f"DELETE FROM {self.prefix}claim")
            run(
                f"INSERT INTO {self.prefix}claim VALUES (1, ?, ?, ?, ?, ?, ?)",
                claim.token, verb, now, writer_name(), socket.gethostname(), os.getpid(),
            )  # fmt: skip
        return claim

    def _refuse_lost(self, run: Run, claim: Claim) -> None:
        held = run(f"SELECT token, verb, by, at FROM {self.prefix}claim")
        if not held or held[0][0] != claim.token:
            told = "someone took over and is done"
            for _, verb, by, at in held:
                told = f"{by} took over with '{verb}' at {format_instant(at)}"
            raise RefusedError(f"this took so long that {told}; nothing was changed.\n  Look again, then repeat it.")

    def _was_first(self, run: Run, head: Head, expected: int | None) -> RefusedError:
        last = run(f"SELECT kind, by, at FROM {self.prefix}records WHERE generation = ?", head.generation)
        if not last:
            told = f"the log is at generation {head.generation}, and this was begun at {expected}."
            return RefusedError(f"{told}\n  Look again, then repeat it.")
        ((kind, by, at),) = last
        return RefusedError(
            f"{by} was first: '{kind}' is generation {head.generation}, of {format_instant(at)}, and this was begun at {expected}.\n"
            "  Look again, then repeat it."
        )

    def _instant(self, run: Run) -> int:
        """Now, but never before the newest record.  Raises: RefusedError when the clock is further behind than it may be."""
        now = self.now(run)
        last = run(f"SELECT at FROM {self.prefix}records ORDER BY generation DESC LIMIT 1")
        newest = last[0][0] if last else now
        if now < newest - self.clock_tolerance:
            raise RefusedError(
                f"the clock was moved back: it says {format_instant(now)}, and the newest record is of {format_instant(newest)}.\n"
                f"  Set it right. If it is right and the record is wrong, let [registry] clock_tolerance be more than "
                f"{format_duration(-((now - newest) // HOUR) * HOUR)} until then."
            )
        return max(now, newest)

    def _head(self, run: Run) -> Head:
        found = run(f"SELECT generation, chain FROM {self.prefix}records ORDER BY generation DESC LIMIT 1")
        return Head(*found[0]) if found else Head()

    def _one(self, where: str, *arguments: Any) -> Record | None:
        if not self.exists():
            return None
        with self.reading() as run:
            found = run(f"SELECT {_COLUMNS} FROM {self.prefix}records WHERE {where} ORDER BY generation DESC LIMIT 1", *arguments)
        return _record(found[0]) if found else None


_COLUMNS = "generation, kind, at, by, body"


def open_log(folder: Path, url: str | None = None, clock_tolerance: int = CLOCK_TOLERANCE) -> ControlLog:
    """The log at a PostgreSQL url, or else in a folder.  Nothing is made or connected before it is used."""
    if url is not None:
        from featreg.registry.postgres_log import PostgresLog

        return PostgresLog(url, clock_tolerance)
    from featreg.registry.sqlite_log import SqliteLog

    return SqliteLog(folder, clock_tolerance)


def chained(before: str, row: Sequence[Any]) -> str:
    """SHA-256 over the chain so far and a record."""
    return content_id([before, *row])


def chain_problems(rows: Iterator[tuple[Any, ...]], head: Head | None) -> Iterator[str]:
    """rows: (generation, kind, at, by, body, chain) in order.  head: where the log ended when it was last written to."""
    before, expected, newest = "", 1, 0
    for *record, chain in rows:
        generation, kind, at = record[0], record[1], record[2]
        if generation != expected:
            missing = f"record {expected} is" if generation == expected + 1 else f"records {expected} to {generation - 1} are"
            yield f"{missing} missing from the log"
        elif chained(before, record) != chain:
            yield f"record {generation} ('{kind}') was edited after it was written, or the one before it was"
        if at < newest:
            yield f"record {generation} ('{kind}') is older than the one before it: a clock was moved back"
        before, expected, newest = chain, generation + 1, max(newest, at)
    if head is not None and head.generation >= expected:
        yield f"the log ends at record {expected - 1} and had {head.generation}: it was cut off"


def _record(row: tuple[Any, ...]) -> Record:
    generation, kind, at, by, body = row
    return Record(generation, kind, at, by, json.loads(body))


def _is_alive(host: str, pid: int, at: int, now: int) -> bool:
    """Whether a claimant may still be at work.  at: when it began."""
    if not -CLAIM_LASTS < now - at < CLAIM_LASTS:
        return False
    if host != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
