"""Resolve a feature set: which view answers what, under which name, and what is derived from it."""

from collections.abc import Callable, Collection, Mapping

from featreg.canonical import content_id
from featreg.compile.compiled import CompiledSet, CompiledView, Lookup
from featreg.compile.identity import derived_id
from featreg.define import Derived, FeatureSet, Selection
from featreg.errors import Problem, UsageError, did_you_mean
from featreg.expressions import Typed, analyze, compile_finish
from featreg.vocabulary import DataType

Place = Callable[..., tuple[str, int] | None]


def compile_set(
    feature_set: FeatureSet,
    views: Mapping[str, CompiledView],
    broken: Collection[str],
    place: Place,
    report: Callable[[Problem], None],
) -> CompiledSet | None:
    """Compile one set; problems go to `report`, and then there is no set.

    broken: views with problems of their own.  A set of one of them is checked as far as it goes without, and there is none.
    """
    problems: list[Problem] = []

    def fail(message: str, hint: str | None = None, part: str | None = None) -> None:
        file, line = place("set", feature_set.name, part) or (None, None)
        problems.append(Problem(message, file, line, f"{feature_set.name}.{part}" if part else feature_set.name, hint))

    chosen: list[tuple[str, tuple[str, ...], str, str]] = []  # view, spine columns, feature, name in the set
    for selection in feature_set.features:
        if selection.view in broken:
            continue
        if selection.view not in views:
            fail(f"there is no view '{selection.view}'.", did_you_mean(selection.view, [*views, *broken], "Views are"))
            continue
        chosen += _chosen(selection, views[selection.view], fail)
    types = {name: views[view].by_name[feature].type for view, _, feature, name in chosen}
    ids = {name: views[view].by_name[feature].id for view, _, feature, name in chosen}
    _refuse_collisions(feature_set, chosen, fail)
    request = feature_set.request
    is_whole = not any(selection.view in broken for selection in feature_set.features)
    derived = _derive(feature_set, types | dict(request), ids, fail) if is_whole else ()
    for problem in problems:
        report(problem)
    if problems or not is_whole:
        return None
    grouped: dict[tuple[str, tuple[str, ...]], list[tuple[str, str]]] = {}
    for view, columns, feature, name in chosen:
        grouped.setdefault((view, columns), []).append((feature, name))
    lookups = tuple(Lookup(view, columns, tuple(features)) for (view, columns), features in grouped.items())
    typed_columns = (*types.items(), *((name, typed.type) for name, typed, _ in derived))
    return CompiledSet(feature_set.name, feature_set, lookups, request, derived, typed_columns, tuple(ids.items()))


def _chosen(selection: Selection, view: CompiledView, fail: Callable[..., None]) -> list[tuple[str, tuple[str, ...], str, str]]:
    features, keys, mapping = view.by_name, [key for key, _ in view.key], dict(selection.mapping)
    for key in mapping:
        if key not in keys:
            fail(f"view '{view.name}' has no entity key '{key}'.", did_you_mean(key, keys, "It has"))
    for old, _ in selection.renames:
        if old not in features:
            fail(f"view '{view.name}' has no feature '{old}'.", did_you_mean(old, features, "It has"))
    names = selection.names if selection.names is not None else tuple(features)
    spine = tuple(mapping.get(key, key) for key in keys)
    chosen = []
    for name in names:
        if name in features:
            chosen.append((view.name, spine, name, selection.name_of(name)))
        else:
            fail(f"view '{view.name}' has no feature '{name}'.", did_you_mean(name, features, "It has"))
    return chosen


def _refuse_collisions(feature_set: FeatureSet, chosen: list[tuple[str, tuple[str, ...], str, str]], fail: Callable[..., None]) -> None:
    taken: dict[str, str] = {name.lower(): "a request column" for name, _ in feature_set.request}
    taken |= {column.lower(): "a key column" for _, columns, _, _ in chosen for column in columns}
    for view, _, feature, name in chosen:
        other = taken.get(name.lower())
        if other is not None:
            fail(f"'{name}' from view '{view}' is called like {other}.", f"Tell them apart, as in {view}[…].prefix(\"{view}_\").", name)
        taken[name.lower()] = f"'{feature}' from view '{view}'"
    for name, _ in feature_set.derived:
        other = taken.get(name.lower())
        if other is not None:
            fail(f"the derived feature '{name}' is called like {other}.", "Choose another name, or use .prefix(...) on the view.", name)
        taken[name.lower()] = f"the derived feature '{name}'"


def _derive(
    feature_set: FeatureSet, types: dict[str, DataType], ids: dict[str, str], fail: Callable[..., None]
) -> tuple[tuple[str, Typed, Derived], ...]:
    known = {name: kind.widened for name, kind in types.items()}
    waiting = dict(feature_set.derived)
    derived: dict[str, tuple[Typed, Derived]] = {}
    request = {name for name, _ in feature_set.request}
    progress = True
    errors: dict[str, UsageError] = {}
    while waiting and progress:
        progress = False
        for name, spec in list(waiting.items()):
            try:
                expression = analyze(spec.expression, known)
                compile_finish([(name, expression)], {column: 2 * i for i, column in enumerate(sorted(expression.columns | {name}))})
            except UsageError as error:
                errors[name] = error
                continue
            named = {column: ids[column] for column in expression.columns if column in ids}
            named |= {column: content_id({"request": column}) for column in expression.columns & request}
            ids[name] = derived_id(expression, named)
            derived[name], known[name] = (expression, spec), expression.type
            del waiting[name]
            progress = True
    for name in waiting:
        message, _, hint = str(errors[name]).partition("\n")
        fail(message, hint.strip() or None, name)
    return tuple((name, *derived[name]) for name, _ in feature_set.derived if name in derived)
