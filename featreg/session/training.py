"""Make a training set: see that the data covers what is asked, fill the spine, and say what made it."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from featreg.compile import CompiledSet, CompiledView
from featreg.define import EventSource
from featreg.errors import CoverageError
from featreg.instants import format_instant
from featreg.load.git import read_revision
from featreg.plan.relation import Relation
from featreg.registry.pushed import Position
from featreg.session.coverage import Placed, coverage_of, needs_of, place_snapshots
from featreg.session.file_ids import FileIds
from featreg.session.keeping import Keeper
from featreg.session.manifest import training_manifest
from featreg.session.pushed_part import PushedPart
from featreg.session.snapshots import read_snapshot
from featreg.session.sources import PlacedFiles, SourceFinder
from featreg.session.tables import read_table
from featreg.session.training_set import TrainingSet, check_spine, fill
from featreg.snapshots.coverage import Coverage, Need
from featreg.snapshots.manifest import Snapshot

if TYPE_CHECKING:
    from featreg.session.coverage import Named
    from featreg.session.filled import DistributedTrainingSet
    from featreg.session.registry import Applied, Registry


@dataclass(frozen=True)
class Asked:
    """What a caller wants of a training set, beside the definitions.

    snapshot: which to read in place of locations · pushed, batched: for a set that is made again, up to where push logs were read
    then and what the store's watermarks were · checked: that the data covers what is asked was found then.
    """

    spine: Any
    time: str
    draft: bool = False
    sources: Mapping[str, Any] = field(default_factory=dict)
    pin: str | None = None
    known_at: int | None = None
    snapshot: "Named | None" = None
    pushed: Mapping[str, Position] = field(default_factory=dict)
    batched: Mapping[str, int | None] | None = None
    checked: bool = False


def make_training_set(
    registry: "Registry", used: "Applied", feature_set: CompiledSet, asked: Asked, progress: Callable[[str, int], None] | None = None
) -> "TrainingSet | DistributedTrainingSet":
    """With the profile's engine.  Raises: UsageError, DataError; CoverageError before anything is scanned."""
    ready = _prepare(registry, used, feature_set, asked)
    if registry.profile.engine == "spark":
        return _with_spark(registry, used, feature_set, asked, ready, progress)
    spine = check_spine(read_table(asked.spine, registry.engine, registry.root, "the spine"), asked.time, feature_set)
    extent = (int(spine.as_of.min()), int(spine.as_of.max())) if len(spine.as_of) else None
    checked = _check(registry, used, feature_set, asked, ready, extent)

    ids = FileIds()

    def relation_of(view: CompiledView) -> tuple[Relation, int]:
        source = view.scan.source
        found = ready.finder.find(source, ready.batched[view.name])
        if source.name not in checked.snapshots:
            ids.begin(ready.finder.files.get(source.name, ()))
        return found

    table, receipts = fill(registry.engine, feature_set, used.compiled.views, relation_of, spine, asked.known_at, progress)
    facts = training_manifest(
        feature_set, dict(used.revision), ready.finder.files, registry.root, spine.table, table, receipts, _told(asked), checked.snapshots,
        ids=ids,
    ) | _provenance(registry, used, feature_set, ready, checked, asked.draft)
    return TrainingSet(table, facts, receipts, _keeper(registry, used, asked))


def _with_spark(
    registry: "Registry", used: "Applied", feature_set: CompiledSet, asked: Asked, ready: "_Ready",
    progress: Callable[[str, int], None] | None,
) -> "DistributedTrainingSet":  # fmt: skip
    from featreg.session.distributed import distributed_training_set
    from featreg.session.staged_spine import stage_spine

    spine = stage_spine(registry.spark, asked.spine, asked.time, feature_set, registry.root)
    checked = _check(registry, used, feature_set, asked, ready, (spine.first, spine.last) if len(spine) else None)
    made = distributed_training_set(
        registry, feature_set, used.compiled.views, ready.finder, spine, ready.batched, asked.known_at, dict(used.revision),
        _told(asked), checked.snapshots, progress,
    )  # fmt: skip
    facts = {**made.facts, **_provenance(registry, used, feature_set, ready, checked, asked.draft)}
    return dataclasses.replace(made, facts=facts, keeper=_keeper(registry, used, asked))


def _keeper(registry: "Registry", used: "Applied", asked: Asked) -> Keeper | None:
    """Who writes and records it; nobody for a draft."""
    if asked.draft:
        return None
    files = {} if used.generation or registry.revision is None else _spec_files(registry)
    return Keeper(registry.profile, registry.log, registry.events, used.generation, files)


@dataclass(frozen=True)
class _Ready:
    """sources: those that the set reads · placed: snapshots to read · batched: by view, see `SourceFinder.batched_until`."""

    sources: Mapping[str, EventSource]
    placed: Mapping[str, Placed]
    finder: SourceFinder
    batched: Mapping[str, int | None]


@dataclass(frozen=True)
class _Checked:
    """needs: by source · snapshots: that are read, or that locations were found equal to."""

    needs: Mapping[str, Need]
    coverage: Coverage
    snapshots: Mapping[str, Snapshot]


def _prepare(registry: "Registry", used: "Applied", feature_set: CompiledSet, asked: Asked) -> _Ready:
    views = {lookup.view: used.compiled.views[lookup.view] for lookup in feature_set.lookups}
    sources = {view.scan.source.name: view.scan.source for view in views.values()}
    placed = place_snapshots(registry, asked.snapshot, set(sources)) if asked.snapshot is not None else {}
    logs = {name: one.snapshot.log for name, one in placed.items() if one.snapshot.log is not None}
    pushed = {name: Position(log.segment, log.end) for name, log in logs.items()} | dict(asked.pushed)
    finder = SourceFinder(registry.engine, registry.profile, asked.sources, _files(placed, pushed), pushed)
    finder.refuse_unknown(used.compiled.sources)
    batched = {name: finder.batched_until(view) for name, view in views.items()}
    batched |= {name: logs[source].batched.get(name) for name, view in views.items() if (source := view.scan.source.name) in logs}
    return _Ready(sources, placed, finder, batched | dict(asked.batched or {}))


def _check(
    registry: "Registry", used: "Applied", feature_set: CompiledSet, asked: Asked, ready: _Ready, extent: tuple[int, int] | None
) -> _Checked:
    """extent: the first and the last as-of instant."""
    needs = needs_of(feature_set, used.compiled.views, extent, asked.known_at)
    unasked = set(needs) if asked.checked else set(asked.sources)
    coverage, equal = coverage_of(registry, needs, ready.sources, ready.placed, unasked)
    if coverage.failing:
        raise CoverageError(coverage)
    snapshots = {name: one.snapshot for name, one in ready.placed.items() if name in ready.sources}
    return _Checked(needs, coverage, snapshots | {name: read_snapshot(registry, identity)[1] for name, identity in equal.items()})


def _spec_files(registry: "Registry") -> dict[str, str]:
    return {path: text.decode() for path, text in read_revision(registry.root, str(registry.revision))[0].items()}


def _files(placed: Mapping[str, Placed], pushed: Mapping[str, Position]) -> dict[str, PlacedFiles]:
    return {
        name: PlacedFiles(one.snapshot.reading, [str(place) for place in one.files.values()], name not in pushed)
        for name, one in placed.items()
    }


def _told(asked: Asked) -> dict[str, Any]:
    known = None if asked.known_at is None else format_instant(asked.known_at)
    snapshot: Any = asked.snapshot
    if snapshot is not None and not isinstance(snapshot, str):
        snapshot = dict(snapshot) if isinstance(snapshot, Mapping) else list(snapshot)
    return {"time": asked.time, "known_at": known, "draft": asked.draft, "pin": asked.pin, "snapshot": snapshot}


def _provenance(
    registry: "Registry", used: "Applied", feature_set: CompiledSet, ready: _Ready, checked: _Checked, draft: bool
) -> dict[str, Any]:
    """What the manifest says beside the data: versions, what was needed of each source, and what was noted about it."""
    state, views = registry.control(), used.compiled.views
    definitions = {}
    for lookup in feature_set.lookups:
        for feature, called in lookup.features:
            name = f"{lookup.view}.{feature}"
            number = state.version(name, views[lookup.view].by_name[feature].id)
            definitions[called] = name if number is None else f"{name}@{number}"
    return {
        "generation": used.generation,
        "definitions": definitions,
        "needs": {name: [need.earliest, need.before] for name, need in checked.needs.items()},
        "given": sorted(ready.finder.given),
        "pushed": {
            name: dataclasses.asdict(at) if draft else PushedPart(registry.engine, registry.profile, ready.sources[name], at).described()
            for name, at in ready.finder.pushed.items()
        },
        "batched": {name: until for name, until in ready.batched.items() if until is not None},
        "coverage": [
            {"kind": str(one.kind), "source": one.source, "partition": one.partition, "expected": one.expected, "found": one.found}
            for one in checked.coverage.verdicts
        ],
    }
