"""Open a repository and call its verbs."""

import time as clock
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from featreg.compile import Compiled, CompiledFeature, CompiledView, compile_definitions
from featreg.compile.difference import State
from featreg.errors import StoreError, UsageError, did_you_mean
from featreg.instants import parse_instant
from featreg.load import Definitions, load_directory, load_files
from featreg.load.git import problems_at, read_revision, tree_state
from featreg.registry.events import EventPlane
from featreg.registry.log import Record, open_log
from featreg.registry.state import ControlState, Pin, Retirement
from featreg.session.profile import Profile, read_profile

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from featreg.define import EventSource
    from featreg.engines.duckdb import DuckDB
    from featreg.engines.spark import Spark
    from featreg.registry.kept import KeptSnapshot, KeptTrainingSet
    from featreg.session.answer import Vector, Vectors
    from featreg.session.changes import Life, Plan
    from featreg.session.cleanup import Garbage
    from featreg.session.coverage import Named
    from featreg.session.dead_letters import DeadLetter
    from featreg.session.doctor import Finding
    from featreg.session.filled import DistributedTrainingSet
    from featreg.session.materialize import Find, Receipt
    from featreg.session.online import OnlineReader
    from featreg.session.parity import Parity
    from featreg.session.parity_log import LoggedParity
    from featreg.session.push import Pusher, PushReceipt
    from featreg.session.reproduce import Reproduced
    from featreg.session.retention import RetentionPlan
    from featreg.session.snapshots import Taken
    from featreg.session.training_set import TrainingSet
    from featreg.session.verify import Difference, Verified
    from featreg.stores.contract import Store

Instant = str | int | datetime
Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Applied:
    """What is applied: compiled definitions, the revision they came from, and the log's generation."""

    compiled: Compiled
    revision: Mapping[str, Any]
    generation: int


def open_registry(
    root: str | Path = ".", profile: str = "local", revision: str | None = None, spark: "SparkSession | None" = None
) -> "Registry":
    """Open the repository at `root` with a profile of `conf/`.

    revision: read definitions as they were at that commit, instead of what is applied.
    spark: run on this session, whatever engine the profile names.
    Raises: UsageError when there is no such folder, profile or revision.
    """
    folder = Path(root).expanduser().resolve()
    if not folder.is_dir():
        raise UsageError(f"{root} is no folder.")
    chosen = read_profile(folder, profile)
    return Registry(folder, chosen if spark is None else replace(chosen, engine="spark"), revision, spark)


class Registry:
    """One open repository.  A context manager; its stores and engine are closed at the end."""

    def __init__(self, root: Path, profile: Profile, revision: str | None = None, spark: "SparkSession | None" = None):
        self.root, self.profile, self.revision, self._session = root, profile, revision, spark
        self.log = open_log(profile.registry_path, profile.registry_url, profile.clock_tolerance)
        self.events = EventPlane(profile.events_path)
        self._engine: DuckDB | None = None
        self._spark: Spark | None = None
        self._reader: OnlineReader | None = None
        self._pushers: dict[str, Pusher] = {}
        self._applied: dict[int, Applied] = {}
        if revision is not None:
            _ = self._at_revision  # resolve at once, so that a wrong name is an error here

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._spark is not None:
            self._spark.close()
        if self._engine is not None:
            self._engine.close()
        for pusher in self._pushers.values():
            pusher.close()
        self._pushers = {}
        self.events.close()
        self.log.close()
        self._reader = self._spark = self._engine = None

    # Definitions -----------------------------------------------------------------------------

    @cached_property
    def _at_revision(self) -> Applied:
        files, commit = read_revision(self.root, str(self.revision))
        with problems_at(self.revision):
            return Applied(compile_definitions(load_files(files)), {"commit": commit, "clean": True}, 0)

    def definitions(self) -> Definitions:
        """The definitions of the working tree, or of the revision that was opened."""
        if self.revision is None:
            return load_directory(self.root)
        with problems_at(self.revision):
            return load_files(read_revision(self.root, self.revision)[0])

    def compile(self) -> Compiled:
        """The working tree (or the revision that was opened), compiled.  Raises: DefinitionError with every problem."""
        return self._at_revision.compiled if self.revision else compile_definitions(self.definitions())

    def applied(self) -> Applied:
        """What is applied, or the revision that was opened.  Raises: UsageError when nothing is."""
        if self.revision is not None:
            return self._at_revision
        record = self.log.last("apply")
        if record is None:
            raise UsageError(
                "nothing is applied yet.\n  Run `featreg apply` (or registry.apply()), or try definitions out with draft=True."
            )
        return self._compiled_record(record)

    def applied_at(self, generation: int) -> Applied:
        """What was applied at a generation.  Raises: UsageError when nothing was."""
        newest = self.applied()
        if newest.generation == generation:
            return newest
        record = self.log.record(generation)
        if record is None or record.kind != "apply":
            raise UsageError(f"nothing was applied at generation {generation}.\n  `featreg doctor` says what is wrong with the log.")
        return self._compiled_record(record)

    def applied_before(self, generation: int) -> Iterator[Applied]:
        """What was applied before a generation, the newest first."""
        while (record := self.log.last("apply", before=generation)) is not None:
            yield self._compiled_record(record)
            generation = record.generation

    def control(self) -> ControlState:
        """What the log's records come to: all that was applied, versions and pins."""
        from featreg.registry.kept_state import load_state

        return load_state(self.log, self.profile.control_cache)

    def _compiled_record(self, record: Record) -> Applied:
        known = self._applied.get(record.generation)
        if known is None:
            files = {path: text.encode() for path, text in record.body["files"].items()}
            known = Applied(compile_definitions(load_files(files)), record.body["revision"], record.generation)
            self._applied[record.generation] = known
        return known

    def ids(self, draft: bool = True) -> dict[str, str]:
        """`view.feature` -> definition id, of the working tree or of what is applied."""
        return (self.compile() if draft else self.applied().compiled).feature_ids()

    def apply(self, expected: int | None = None) -> Record:
        """Make the working tree's definitions the applied ones.  Never asks; unchanged definitions make no new record.

        expected: the generation this is meant for; default: the newest.
        Raises: DefinitionError; RefusedError when another apply was first or is at it, before any work, or the profile wants a clean tree.
        """
        from featreg.session.apply import apply_working_tree

        record = apply_working_tree(self, expected)
        self._serve_newest()
        return record

    def rollback(self, generation: int | None = None) -> Record:
        """Apply again what was applied at a generation (default: the one before the newest).

        Nothing is computed: the store still has what those views had, and serves it at once.
        Raises: UsageError when nothing was applied then; RefusedError when another apply was first.
        """
        from featreg.session.apply import apply_again

        record = apply_again(self, generation)
        self._serve_newest()
        return record

    def _serve_newest(self) -> None:
        """Point the store to what is applied as far as it is filled.  What fails here the next run makes good; `doctor` tells."""
        from featreg.session.serving import serve_newest
        from featreg.session.store import has_store, open_store

        if has_store(self.profile):
            try:
                with open_store(self.profile) as store:
                    serve_newest(self, store)
            except StoreError as error:
                warnings.warn(f"applied; the store does not know of it yet: {error}", stacklevel=3)

    # Pins ------------------------------------------------------------------------------------

    def pin(self, name: str, feature_set: str, training_set: str | Path | None = None) -> Pin:
        """Fix a feature set for a model as it is applied now: `training_set(pin=)` and `online(pin=)` mean it for ever.

        name: `model:version`.  training_set: the file the model was trained on; its manifest must be of these very definitions.
        The log holds the definitions themselves, so a rewritten git history loses nothing.
        Raises: UsageError; DataError; RefusedError when the name is taken by another pin, the training set is of other definitions,
        or what is applied is no commit.
        """
        from featreg.session.pins import create_pin

        return create_pin(self, name, feature_set, training_set)

    def unpin(self, name: str) -> Pin:
        """Remove a pin: what only it reaches may be cleaned up.  Its name never means anything else."""
        from featreg.session.pins import remove_pin

        return remove_pin(self, name)

    def retire(self, feature: str, on: Instant | None) -> Retirement | None:
        """Announce that `view.feature` goes at an instant; plans warn of it.  None: it stays after all.

        Raises: UsageError for what is not applied; RefusedError while a pin reads it.
        """
        from featreg.session.pins import retire_feature

        return retire_feature(self, feature, on)

    def pinned(self, pin: str, feature_set: str) -> Applied:
        """What a pin fixes.  Raises: UsageError for an unknown pin, or one of another set."""
        from featreg.session.pins import find_pin

        known = find_pin(self.control(), pin)
        if known.set != feature_set:
            raise UsageError(f"{pin} pins the set '{known.set}', not '{feature_set}'.")
        record = self.log.record(known.generation)
        if record is None:
            raise StoreError(f"{pin} pins generation {known.generation}, which is not in the log.\n  Put the log back from a copy.")
        return self._compiled_record(record)

    # Snapshots -------------------------------------------------------------------------------

    def snapshot(self, source: str) -> "Taken":
        """Keep a source's data as it is now, immutable: each file once under its SHA-256; files that nobody touched are not read again.

        Raises: UsageError, DataError.
        """
        from featreg.session.snapshots import take

        return take(self, source)

    def snapshots(self, source: str | None = None) -> "list[KeptSnapshot]":
        """The snapshots that were taken, oldest first, with those that were removed."""
        return [one for one in self.control().snapshots.values() if source in (None, one.source)]

    def verify_snapshot(self, snapshot: str) -> "Verified":
        """Read every byte of a snapshot's copies, and of the source as it is now.  snapshot: its id or the beginning of it."""
        from featreg.session.verify import verify

        return verify(self, snapshot)

    def diff_snapshots(self, before: str, after: str | None = None) -> "Difference":
        """Rows added, removed and changed per partition, from a snapshot to another or to the source as it is now."""
        from featreg.session.verify import compare_snapshots

        return compare_snapshots(self, before, after)

    def remove_snapshot(self, snapshot: str) -> "tuple[KeptSnapshot, int]":
        """Delete a snapshot's copies; a tombstone stays.  Returns it and the bytes that are free.

        Raises: RefusedError while a pin or a training set holds it.
        """
        from featreg.session.snapshots import remove

        return remove(self, snapshot)

    def retention(self, at: Instant | None = None) -> "RetentionPlan":
        """Until when each training set and pinned model can be made again, and what `apply_retention` would delete.  at: now."""
        from featreg.session.retention import plan_retention

        return plan_retention(self, clock.time_ns() // 1000 if at is None else parse_instant(at))

    def apply_retention(self, at: Instant | None = None) -> "tuple[RetentionPlan, int]":
        """Delete featreg's own copies that are past their source's retention and that nothing holds; gives the bytes that are free."""
        from featreg.session.retention import apply_retention

        return apply_retention(self, clock.time_ns() // 1000 if at is None else parse_instant(at))

    # Changes ---------------------------------------------------------------------------------

    def diff(self, before: str, after: str | None = None, *, values: int | None = None) -> "Plan":
        """What changes from one git revision to another, or to the working tree.

        values: compute changed features by both on so many rows of their source, and show how they differ.

        Raises: UsageError for an unknown revision; DefinitionError for one whose specs do not hold together.
        """
        from featreg.session.changes import plan_changes

        names, first = (before, after or "the working tree"), self._state_at(before)
        return plan_changes(self, names, first, self._state_at(after, first), values)

    def plan(self, *, values: int | None = None) -> "Plan":
        """What `apply` would change: from what is applied to the working tree, or to the revision that was opened.

        values: as of `diff`.
        """
        from featreg.session.changes import plan_changes

        record = self.log.last("apply")
        before, name = State(), "nothing applied"
        if record is not None:
            before = _state({path: text.encode() for path, text in record.body["files"].items()})
            name = f"generation {record.generation}"
        after = self._state_at(self.revision, before)
        return plan_changes(self, (name, self.revision or "the working tree"), before, after, values)

    def history(self, feature: str) -> "list[Life]":
        """What `view.feature` has meant: an entry for each apply that changed it, oldest first.  Raises: UsageError for an unknown one."""
        from featreg.session.changes import life_of

        return life_of(feature, self.control(), self.log)

    def _state_at(self, revision: str | None, other: State | None = None) -> State:
        """The state at a revision, or of the working tree; views that are as in another state are compiled there already."""
        known = other.compiled.views if other is not None else {}
        if revision is None:
            definitions = load_directory(self.root)
            return State(definitions, compile_definitions(definitions, known))
        with problems_at(revision):
            definitions = load_files(read_revision(self.root, revision)[0])
            return State(definitions, compile_definitions(definitions, known))

    def gc(self, delete: bool = False) -> "list[Garbage]":
        """What the store holds and neither the applied definitions, nor those before them, nor a pin reach; with `delete` it goes.

        With `delete` events of days that are over are sealed as well: many small files become one.
        """
        from featreg.session.cleanup import collect

        if delete:
            self.events.seal()
        return collect(self, delete)

    def doctor(self) -> "list[Finding]":
        """What is wrong with the log, what it points to, and the store; nothing is changed."""
        from featreg.session.doctor import examine

        return examine(self)

    # Training --------------------------------------------------------------------------------

    @property
    def engine(self) -> "DuckDB":
        if self._engine is None:
            from featreg.engines.duckdb import DuckDB

            self._engine = DuckDB(self.profile.duckdb, self.profile.state / "tmp")
        return self._engine

    @property
    def spark(self) -> "Spark":
        """The session of `engine = "spark"`, begun on first use."""
        if self._spark is None:
            from featreg.engines.spark import Spark

            self._spark = Spark(self.profile.spark, self.profile.state, self.engine, self._session)
        return self._spark

    def training_set(
        self,
        name: str,
        spine: Any,
        *,
        time: str,
        draft: bool = False,
        sources: Mapping[str, Any] | None = None,
        pin: str | None = None,
        known_at: Instant | None = None,
        snapshot: "Named | None" = None,
        progress: Progress | None = None,
    ) -> "TrainingSet | DistributedTrainingSet":
        """Attach a set's features to the spine, each row as serving would have answered at its instant.

        spine: Arrow, pandas, Polars, a path to Parquet or CSV, or a SQL query; n rows in, n rows out, same order.
            With Spark a DataFrame of it, a folder or a URI too, which executors read.
        time: the spine's column of as-of instants; naive is UTC.
        draft: use the working tree's definitions, applied or not.  pin: those that a model was pinned to.
        sources: rows in place of a source's location.
        known_at: only rows that had arrived by then.
        snapshot: read snapshots in place of locations: an id, several, source -> id, or "latest".  A location that is read is compared
        with the source's newest snapshot, where there is one.
        Raises: UsageError, DataError; CoverageError, before anything is scanned, when the data does not cover what is asked.
        """
        from featreg.kernels import use_cache

        use_cache(self.profile.state)
        from featreg.session.training import Asked, make_training_set

        if pin is not None and (draft or self.revision is not None):
            raise UsageError("pin=, draft= and a revision each say which definitions are meant; give one.")
        if pin is not None:
            used = self.pinned(pin, name)
        else:
            used = Applied(self.compile(), tree_state(self.root), 0) if draft and self.revision is None else self.applied()
        feature_set = find_set(used.compiled, name)
        known = None if known_at is None else parse_instant(known_at)
        return make_training_set(self, used, feature_set, Asked(spine, time, draft, sources or {}, pin, known, snapshot), progress)

    def reproduce(self, training_set: str, *, live: bool = False, out: str | Path | None = None) -> "Reproduced":
        """Make a training set that was written again, from the definitions, spine and snapshots that the log holds, and compare.

        training_set: its id or the beginning of it.  live: from the locations as they are now.  out: where to write it.
        Raises: UsageError; CoverageError, which says what of the data is gone or changed.
        """
        from featreg.kernels import use_cache

        use_cache(self.profile.state)
        from featreg.session.reproduce import reproduce

        return reproduce(self, training_set, live, None if out is None else Path(out))

    def training_sets(self) -> "list[KeptTrainingSet]":
        """Those that were written, oldest first, with those that were removed."""
        return list(self.control().training_sets.values())

    def remove_training_set(self, training_set: str) -> "tuple[KeptTrainingSet, int]":
        """Let go of what a training set holds: its snapshots may be removed then.  A tombstone and the written file stay.

        Raises: UsageError; RefusedError while a pin was trained on it.
        """
        from featreg.session.reproduce import remove_training_set

        return remove_training_set(self, training_set)

    def warm(self) -> None:
        """Compile, on two cores, the kernels that any verb needs for what is applied; those that were compiled here before are there.

        Every verb compiles what it needs by itself, and the first run into the store what any needs: this is for an image that
        is built, or a service that must not wait later.
        """
        from featreg.kernels import is_compiled, start_compiler, use_cache

        use_cache(self.profile.state)
        compiled = self.applied().compiled
        if not is_compiled(self.profile.state):
            start_compiler()
        from featreg.compile.program import build_program, program_in_order
        from featreg.sweep.warm import FINISH, READ, WRITE, compile_for

        programs = [build_program(view) for view in compiled.views.values()]
        derives = any(one.derives(compiled.views) for one in compiled.sets.values())
        entries = (*WRITE, *READ, *(FINISH if derives else ()))
        compile_for(entries, [*programs, *filter(None, map(program_in_order, programs))])

    # Online ----------------------------------------------------------------------------------

    def materialize(
        self, to: Instant | None = None, views: Iterable[str] | None = None, *, rebuild: bool = False, progress: Progress | None = None
    ) -> "list[Receipt]":
        """Bring the online store to `to` (default: now): incremental, idempotent, resumable.

        views: some of them by name; those that only a pin still reads are called `view@model:version`.
        Raises: UsageError, DataError, StoreError, RefusedError when a known file changed (remedy: rebuild).
        """
        from featreg.kernels import is_compiled, use_cache

        applied = self.applied()
        known = self.views_to_fill()
        if to in known:
            told = f"materialize({to!r}): the first argument is an instant, and that is a view."
            raise UsageError(f"{told}\n  Write materialize(views=[{to!r}]).")
        names = list(known) if views is None else [views] if isinstance(views, str) else list(views)
        chosen = [_find(known, name, "feature view") for name in names]
        until = None if to is None else parse_instant(to)
        if not is_compiled(self.profile.state):
            self.warm()
        use_cache(self.profile.state)
        from featreg.session.materialize import materialize
        from featreg.session.receipts import tell_materialized
        from featreg.session.serving import serve_newest

        def filled(store: "Store", receipt: "Receipt") -> None:
            serve_newest(self, store)
            tell_materialized(self.events, receipt, known[receipt.view], applied.generation)

        return materialize(self.engine, self.profile, chosen, self.aggregates, until, rebuild, progress, filled, self.run_finder())

    def run_finder(self) -> "Find":
        """What finds the rows of runs where the profile's engine can look."""
        if self.profile.engine != "spark":
            from featreg.session.run_files import RunFinder

            return RunFinder
        from featreg.session.distributed_files import SparkRunFinder

        return partial(SparkRunFinder, self.spark)

    def aggregates(self, wanted: Iterable[str]) -> dict[str, CompiledFeature]:
        """Aggregates by definition id, of what is applied or ever was; what is in no record is left out."""
        left, found = set(wanted), dict[str, CompiledFeature]()
        for one in self._ever_applied():
            if not left:
                break
            for view in one.compiled.views.values():
                for feature in view.features:
                    if feature.id in left and feature.aggregation:
                        found[feature.id] = feature
            left -= set(found)
        return found

    def _ever_applied(self) -> Iterator[Applied]:
        """What is applied (or the revision that was opened), then what was, the newest first."""
        newest = self.applied()
        yield newest
        yield from self.applied_before(newest.generation or 1 << 62)

    def views_to_fill(self) -> dict[str, CompiledView]:
        """What `materialize` fills: the views that are applied, and those that only a pin still reads."""
        applied = self.applied().compiled
        return {**applied.views, **self._pinned_views(applied)}

    def _pinned_views(self, applied: Compiled) -> dict[str, CompiledView]:
        """Views that pins read and that mean something else than what is applied, each once."""
        from featreg.plan.groups import space_of

        state = self.control()
        spaces, found = {space_of(view) for view in applied.views.values()}, {}
        for pin in state.pins.values():
            compiled = self.pinned(pin.name, pin.set).compiled
            for lookup in compiled.sets[pin.set].lookups:
                view = compiled.views[lookup.view]
                if space_of(view) not in spaces:
                    spaces.add(space_of(view))
                    found[f"{view.name}@{pin.name}"] = replace(view, name=f"{view.name}@{pin.name}")
        return found

    @overload
    def online(self, name: str, keys: Mapping[str, Any], *, at: Instant | None = None, pin: str | None = None) -> "Vector": ...
    @overload
    def online(self, name: str, keys: Sequence[Mapping[str, Any]], *, at: Instant | None = None, pin: str | None = None) -> "Vectors": ...
    def online(
        self, name: str, keys: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, at: Instant | None = None, pin: str | None = None
    ) -> "Vector | Vectors":
        """What serving answers for one key (a vector) or for many: a sequence of vectors in their order, which has them as columns too.

        keys: entity keys and request columns by name.  at: another instant than now.  pin: a model's versions, not the applied ones.
        A set whose new versions are not filled yet is answered by those before, until `materialize` has filled them.
        Raises: UsageError, DataError; RefusedError for an instant that the store can no longer answer.
        """
        return self.reader().read(name, keys, None if at is None else parse_instant(at), pin)

    def reader(self) -> "OnlineReader":
        """The reader behind `online`, opened on first use."""
        if self._reader is None:
            from featreg.kernels import use_cache

            use_cache(self.profile.state)
            from featreg.session.online import OnlineReader

            self._reader = OnlineReader(self)
        return self._reader

    def push(self, source: str, rows: Any, id: str | None = None) -> "PushReceipt":
        """Take rows of a source in as they happen.

        rows: Arrow, pandas, Polars, or dicts.  They are checked against the source's contract, durable in its push log when this
        returns, and seen by every REALTIME view of it, each from its visible instant on.
        id: what this push is called; the same rows sent again under it are taken in once.
        Returns what was accepted, and each rejected row with its reason.
        Raises: UsageError, DataError when a column is missing or of another type; RefusedError for an id of other rows; StoreError.
        """
        return self.pusher(source).push(rows, id)

    def rejected(self, source: str) -> "Iterator[DeadLetter]":
        """The rows pushed to a source that were not taken in, oldest first, each with its reason.  Raises: UsageError."""
        find_source(self.applied().compiled, source)
        from featreg.session.dead_letters import DeadLetters

        return DeadLetters(self.profile.push_path(source)).read()

    def pusher(self, source: str) -> "Pusher":
        """What `push` works with for one source, opened on first use."""
        if source not in self._pushers:
            from featreg.kernels import use_cache

            use_cache(self.profile.state)
            from featreg.session.push import Pusher

            self._pushers[source] = Pusher(self, source)
        return self._pushers[source]

    def parity(self, name: str, *, sample: int = 1000, at: Instant | None = None, progress: Progress | None = None) -> "Parity":
        """Compare online with offline for keys of the store: the store's bytes against a fresh scan.

        A cell that lacks only rows of files newer than the last run is `late`; it is in order with the next run.
        Raises: UsageError when the set's views are not materialized to one instant.
        """
        from featreg.kernels import use_cache

        use_cache(self.profile.state)
        from featreg.session.parity import compare

        feature_set = find_set(self.applied().compiled, name)
        return compare(self, name, feature_set, sample, None if at is None else parse_instant(at), progress)

    def parity_from_log(self, name: str) -> "LoggedParity":
        """Compute every logged vector of a set again and say what made each cell that is another now so (see session/parity_log.py)."""
        from featreg.kernels import use_cache

        use_cache(self.profile.state)
        from featreg.session.parity_log import compare_logged

        find_set(self.applied().compiled, name)
        return compare_logged(self, name)


def _state(files: Mapping[str, bytes]) -> State:
    definitions = load_files(files)
    return State(definitions, compile_definitions(definitions))


def _find(known: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in known:
        raise UsageError(f"there is no {what} '{name}'.\n  {did_you_mean(name, known, 'There are')}")
    return known[name]


def find_source(compiled: Compiled, name: str) -> "EventSource":
    """A source that is applied.  Raises: UsageError."""
    if name not in compiled.sources:
        raise UsageError(f"there is no source '{name}'.\n  {did_you_mean(name, compiled.sources, 'Applied are')}")
    return compiled.sources[name]


def find_set(compiled: Compiled, name: str) -> Any:
    """Raises: UsageError, which says of a view that it is one."""
    if name in compiled.views and name not in compiled.sets:
        example = f'FeatureSet(name="…", features=[{name}.all()])'
        raise UsageError(f"{name} is a view, and training and serving ask for sets.\n  Put it in a set: {example}")
    return _find(compiled.sets, name, "feature set")
