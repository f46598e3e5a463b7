"""Type a feature view: every expression checked, every feature with its result type and definition id."""

import re
from collections.abc import Callable
from dataclasses import replace

from featreg.algebra.table import AGGREGATIONS
from featreg.canonical import content_id
from featreg.compile.compiled import CompiledFeature, CompiledView, Scan
from featreg.compile.identity import aggregate_id, derived_id
from featreg.define import Aggregate, FeatureView, Output
from featreg.errors import Problem, UsageError
from featreg.expressions import Typed, analyze, compile_finish
from featreg.vocabulary import BOOLEAN, DataType

Report = Callable[[Problem], None]
Place = Callable[..., tuple[str, int] | None]


def compile_view(view: FeatureView, place: Place, report: Report) -> CompiledView | None:
    """Compile one view; problems go to `report`, all of them, and then there is no view."""
    failed: list[Problem] = []

    def fail(error: str, hint: str | None = None, part: str | None = None) -> None:
        found = place("view", view.name, part) if part else None
        file, line = found or place("view", view.name) or (None, None)
        failed.append(Problem(error, file, line, f"{view.name}.{part}" if part else view.name, hint))

    columns = view.source.types
    known: dict[tuple[str, DataType | None], Typed] = {}  # one input under three windows is read once

    def typed(text: str | None, part: str | None = None, expect: DataType | None = None) -> Typed | None:
        if text is None:
            return None
        try:
            if (text, expect) not in known:
                known[text, expect] = analyze(text, columns, expect=expect)
            return known[text, expect]
        except UsageError as error:
            message, _, hint = str(error).partition("\n")
            fail(_with_source(message, view.source.name), hint.strip() or None, part)
            return None

    where = typed(view.where, expect=BOOLEAN)
    keys = tuple((column, dict(view.described.key)[key]) for key, column in view.key_columns)
    scan = Scan(view.source, keys, where, view.freshness.cadence)
    aggregates: dict[str, CompiledFeature] = {}
    for output in view.outputs:
        if isinstance(output.spec, Aggregate):
            feature = _aggregate(view, scan, output, typed, fail)
            if feature is not None:
                aggregates[output.name] = feature
    derived, order = _derive_all(view, aggregates, fail, bool(failed))
    for problem in failed:
        report(problem)
    if failed:
        return None
    features = tuple((aggregates | derived)[output.name] for output in view.outputs)
    key = view.described.key
    identity = content_id([[feature.name, feature.id] for feature in features])
    return CompiledView(view.name, view, scan, key, features, order, identity)


def _with_source(message: str, source: str) -> str:
    return message.replace("is not a column", f"is not in source '{source}'") if "is not a column" in message else message


def _aggregate(
    view: FeatureView, scan: Scan, output: Output, typed: Callable[..., Typed | None], fail: Callable[..., None]
) -> CompiledFeature | None:
    spec, window = output.spec, output.window
    assert isinstance(spec, Aggregate) and window is not None
    column = typed(spec.column, output.base)
    by = typed(spec.by, output.base)
    where = typed(spec.where, output.base, BOOLEAN)
    if (spec.column and column is None) or (spec.by and by is None) or (spec.where and where is None):
        return None
    aggregation = AGGREGATIONS[spec.aggregation]
    if column is not None and not aggregation.takes(column.type):
        fail(f"{spec.aggregation} takes {aggregation.input_words}, and '{spec.column}' is {column.type}.", aggregation.hint, output.base)
        return None
    feature = CompiledFeature(
        name=output.name,
        base=output.base,
        type=aggregation.output(column.type if column is not None else None),
        id="",
        description=spec.description,
        tags=spec.tags,
        aggregation=spec.aggregation,
        column=column,
        by=by,
        where=where,
        limit=spec.n or spec.k or 0,
        ignore_nulls=spec.ignore_nulls,
        window=window.micros,
        hop=window.hop_micros,
    )
    return _with_id(feature, aggregate_id(view, scan, feature))


def _derive_all(
    view: FeatureView, aggregates: dict[str, CompiledFeature], fail: Callable[..., None], broken: bool
) -> tuple[dict[str, CompiledFeature], tuple[str, ...]]:
    """Type derived features in the order of what they use; a cycle is a problem that names it."""
    waiting = {output.name: output.spec for output in view.outputs if not isinstance(output.spec, Aggregate)}
    known = {name: feature.type for name, feature in aggregates.items()}
    ids = {name: feature.id for name, feature in aggregates.items()}
    derived: dict[str, CompiledFeature] = {}
    order = [output.name for output in view.outputs if output.name in aggregates]
    names = {output.name.lower() for output in view.outputs}
    progress = True
    errors: dict[str, str] = {}
    while waiting and progress:
        progress = False
        for name, spec in list(waiting.items()):
            try:
                expression = analyze(spec.expression, known)
                compile_finish([(name, expression)], {column: 2 * i for i, column in enumerate(sorted(expression.columns | {name}))})
            except UsageError as error:
                errors[name] = str(error)
                continue
            uses = tuple(sorted(expression.columns))
            feature = CompiledFeature(
                name, name, expression.type, derived_id(expression, ids), spec.description, spec.tags, derived=expression, uses=uses
            )
            derived[name], known[name], ids[name] = feature, expression.type, feature.id
            order.append(name)
            del waiting[name]
            progress = True
    cyclic = _cycle({name: spec.expression for name, spec in waiting.items()}) if waiting else ()
    for name in waiting:
        if name in cyclic:
            fail(f"derived features use each other in a circle: {' -> '.join((*cyclic, cyclic[0]))}.", "Break the circle.", name)
        elif not broken or not _mentions(waiting[name].expression, names - set(map(str.lower, known))):
            message, _, hint = errors[name].partition("\n")
            fail(message, hint.strip() or None, name)
    return derived, tuple(order)


def _mentions(expression: str, names: set[str]) -> bool:
    return bool(names & {word.lower() for word in re.findall(r"\w+", expression)})


def _cycle(expressions: dict[str, str]) -> tuple[str, ...]:
    """The first circle among derived features that could not be typed; empty when there is none."""
    uses = {name: [other for other in expressions if _mentions(text, {other.lower()})] for name, text in expressions.items()}
    for start in sorted(uses):
        path, seen = [start], {start}
        while path:
            following = [name for name in uses[path[-1]] if name == start or name not in seen]
            if not following:
                path.pop()
            elif start in following:
                return tuple(path)
            else:
                path.append(following[0])
                seen.add(following[0])
    return ()


def _with_id(feature: CompiledFeature, identity: str) -> CompiledFeature:
    return replace(feature, id=identity)
