"""Take rows in as they happen: checked, durable in the source's push log, then in every REALTIME view of the source.

One push at a time is at a source, under a lease that ends with its holder.  What a kill, or another process, left in
the log and not in a view, the next push brings first.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from featreg.compile.program import build_program
from featreg.define import EventSource
from featreg.define.source import LOG
from featreg.engines.duckdb import Warm
from featreg.errors import RefusedError, StoreError, UsageError
from featreg.instants import NEVER, format_instant
from featreg.plan.relation import ARRIVED
from featreg.registry.push_log import PushLog
from featreg.registry.pushed import START, Pushed
from featreg.session.contract import Checked, Checker, Rejected, given_rows, rows_id
from featreg.session.dead_letters import DeadLetters
from featreg.session.feed import Feed, targets_of
from featreg.session.keys import STAMP_KEY
from featreg.session.push_ids import Known, PushIds
from featreg.session.pushed_rows import record_groups
from featreg.session.registry import find_source
from featreg.session.serving import groups_to_fill, read_serving, serve_newest, set_filled
from featreg.session.store import open_store
from featreg.stores.lease import Lease
from featreg.sweep.warm import WRITE, compile_for

if TYPE_CHECKING:
    from featreg.session.registry import Registry

RECORD_ROWS = 10_000  # of a push, in one record of the log: what one transaction brings to the views
_LEASE_TIMEOUT = 30.0
_LOOK_AGAIN = 0.05  # seconds between looks at what is applied


@dataclass(frozen=True)
class PushReceipt:
    """What became of a push.  rejected: rows that were not taken in, each with its reason; they are kept as dead letters.

    duplicate: it had been taken in before, under the same id with the same rows, and nothing was done.
    watermark: the newest visible instant that was pushed to the source, not beyond now; UTC microseconds.
    """

    source: str
    id: str | None
    accepted: int
    rejected: tuple[Rejected, ...]
    duplicate: bool
    watermark: int | None


class Pusher:
    """Pushes to one source of an open registry.  Any thread may call it; pushes of one source go one after another."""

    def __init__(self, registry: "Registry", name: str, clock: Callable[[], int] = lambda: time.time_ns() // 1000):
        self.registry, self.name, self.clock = registry, name, clock
        self._source()  # a wrong name is an error before anything is made
        profile = registry.profile
        self.folder: Path = profile.push_path(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = PushLog(self.folder, clock)
        self.dead_letters = DeadLetters(self.folder)
        self.lease = _lease_of(self.folder / "lease", f"push to {name}")
        self.warm, self.store = Warm(), open_store(profile)
        self.ids = PushIds(self.store, name, profile.push_ids)
        self.known = self.ids.known()
        self.generation, self.looked_at = -1, 0.0
        self.stamp: bytes | None = None
        self._turn = threading.Lock()

    def close(self) -> None:
        self.log.close()
        self.dead_letters.close()
        self.warm.close()
        self.store.close()

    def push(self, rows: Any, name: str | None = None, loose: bool = False) -> PushReceipt:
        """Take rows in; see `Registry.push`.  loose: texts stand for other types, as in CSV and JSON."""
        if name is not None and (not isinstance(name, str) or not name):
            raise UsageError(f"id={name!r} is no id. Give a text, the same one when the same rows are sent again.")
        with self._turn:
            self._follow()
            checked = self.checker.check(given_rows(rows, self.source, loose))
            digest = "" if name is None else rows_id(checked)
            with self.lease.held():
                self._catch_up()
                begin = 0
                if name is not None and (seen := self.ids.look(name, digest, self.clock())) is not None:
                    if seen.parts == seen.of:
                        return self._receipt(name, checked, duplicate=True)
                    begin = seen.parts
                self.dead_letters.keep(self.name, name, checked.rejected)
                records = self._records(checked, name or "", digest)[begin:]
                if records:
                    self._refuse_to_begin_late(records)
                    placed = [replace(one, position=end) for one, end in zip(records, self.log.append(records))]
                    self._bring_all(placed)
            return self._receipt(name, checked, duplicate=False)

    def unfilled(self) -> list[str]:
        """Views of the source that answer nothing yet: a materialize has to fill them first."""
        _, serving = read_serving(self.store)
        views = self.registry.views_to_fill().items()
        return [name for name, view in views if view.scan.source.name == self.name and not serving.groups(view)]

    def _source(self) -> EventSource:
        source = find_source(self.registry.applied().compiled, self.name)
        if source.stream_mode is None and self.name in self.registry.profile.sources:
            raise UsageError(
                f"source '{self.name}' has files, and does not say how pushed rows and files meet.\n"
                f'  Declare stream="log" (files count up to the first pushed row) or stream="until_batch" (a pushed row counts until a '
                f"materialize covers it)."
            )
        return source

    def _follow(self) -> None:
        """Know the source as it is applied now; looked up again at most every 50 ms."""
        moment = time.monotonic()
        if moment - self.looked_at < _LOOK_AGAIN and self.generation >= 0:
            return
        self.looked_at = moment
        applied = self.registry.applied()
        if applied.generation == self.generation:
            return
        self.source = self._source()
        readers = {view.name: (view, build_program(view)) for view in applied.compiled.views.values() if view.scan.source.name == self.name}
        self.checker = Checker(self.warm, self.source, readers)
        self.generation, self.stamp = applied.generation, b"not read yet"

    def _follow_serving(self) -> None:
        """Know which column groups answer views of the source, or are being filled to."""
        stamp = self.store.get([STAMP_KEY])[0]
        if stamp == self.stamp:
            return
        self.stamp, serving = read_serving(self.store)
        registry, has_files = self.registry, self.name in self.registry.profile.sources
        self.feed = Feed(registry.profile, self.store, self.warm, self.source, targets_of(registry, serving, self.name), has_files)
        mine = [view for view in registry.views_to_fill().values() if view.scan.source.name == self.name and view.cadence.is_realtime]
        self.waiting = [(view, groups_to_fill(serving, view, registry.aggregates)) for view in mine if not serving.groups(view)]
        compile_for(WRITE, (build_program(target.view) for target in self.feed.targets))

    def _records(self, checked: Checked, name: str, digest: str) -> list[Pushed]:
        """The good rows as records of the log, stamped where the source goes by arrival."""
        rows, at = checked.table.num_rows, max(self.clock(), self.known.at)
        table, visible = checked.table, checked.visible
        if self.source.arrives:
            visible = np.maximum(visible, at)
            table = table.append_column(ARRIVED, pa.array(np.full(rows, at), pa.timestamp("us")))
        cuts = range(0, rows, RECORD_ROWS)
        return [
            Pushed(
                table.slice(cut, RECORD_ROWS), at, int(visible[cut : cut + RECORD_ROWS].min()), int(visible[cut : cut + RECORD_ROWS].max()),
                name, digest, (number, len(cuts)),
            )
            for number, cut in enumerate(cuts)
        ]  # fmt: skip

    def _bring_all(self, records: Sequence[Pushed]) -> None:
        try:
            for group in record_groups(iter(records), RECORD_ROWS):
                self._bring(group)
            self._serve()
        except StoreError as error:
            raise StoreError(
                f"what was pushed to '{self.name}' is taken in and durable, and not in every view yet: {error}\n"
                f"  Do not send it again without an id: the next push, or a materialize, brings it."
            ) from error

    def _refuse_to_begin_late(self, records: Sequence[Pushed]) -> None:
        """A log ends the files where it begins: rows of files from there on that a view has already cannot be taken out of it."""
        if self.known.position != START or self.source.stream_mode != LOG or self.name not in self.registry.profile.sources:
            return
        first = min(record.first for record in records)
        until = self.feed.filled_until()
        if until is None or until <= first:
            return
        found = self.registry.run_finder()(self.registry.engine, self.registry.profile)
        if count := found.rows_between(self.source, first, until):
            raise RefusedError(
                f"the log of '{self.name}' would begin at {format_instant(first)}, and views have {count:,} rows of files from then on.\n"
                f"  Push rows from {format_instant(until)} on; or take those rows out of the files and fill the views anew: "
                f"featreg materialize --rebuild"
            )

    def _catch_up(self) -> None:
        """Bring what stands in the log and not in a view: another process pushed it, or was killed before it was done."""
        self._follow_serving()
        self.known = self.ids.known()
        behind = min(self.known.position, self.feed.waiting() or self.known.position)
        for records in record_groups(self.log.read(behind), RECORD_ROWS):
            self._bring(records)
        self._serve()

    def _serve(self) -> None:
        """Let views answer whose groups have all of the log, and need no run."""
        filled = [(view, groups) for view, groups in self.waiting if self.feed.has_filled(groups)]
        for view, groups in filled:
            set_filled(self.store, view, groups)
        if filled:
            serve_newest(self.registry, self.store)
            self._follow_serving()

    def _bring(self, records: Sequence[Pushed]) -> None:
        """Bring records of the log to the views, in order, and remember their ids."""
        new = [record for record in records if record.position > self.known.position]
        known = reduce(Known.after, new, self.known)
        self.feed.bring(records, self.ids.entries(new, known) if new else [])
        self.known = known

    def _receipt(self, name: str | None, checked: Checked, duplicate: bool) -> PushReceipt:
        accepted = 0 if duplicate else checked.table.num_rows
        watermark = None if self.known.newest == NEVER else self.known.newest
        return PushReceipt(self.name, name, accepted, checked.rejected, duplicate, watermark)


_leases: dict[Path, Lease] = {}
_making = threading.Lock()


def _lease_of(path: Path, what: str) -> Lease:
    """The lease at a path, one for this process, never closed: to close one of two would let go of both."""
    with _making:
        path = path.resolve()
        if path not in _leases:
            _leases[path] = Lease(path, what, _LEASE_TIMEOUT, lambda holder: None)
        return _leases[path]


def _after_fork() -> None:
    for lease in _leases.values():
        lease.forget_threads()


os.register_at_fork(after_in_child=_after_fork)
