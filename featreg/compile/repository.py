"""Compile all definitions of a repository, with every problem of every file at once."""

from featreg.canonical import content_id
from featreg.compile.compiled import Compiled, CompiledView
from featreg.compile.sets import compile_set
from featreg.compile.views import compile_view
from featreg.errors import DefinitionError, Problem
from featreg.load import Definitions

__all__ = ["compile_definitions", "repository_id"]


def compile_definitions(definitions: Definitions) -> Compiled:
    """Compile views, then sets.

    Raises: DefinitionError with all problems, in file and line order.
    """
    problems: list[Problem] = []
    views: dict[str, CompiledView] = {}
    for name, view in definitions.views.items():
        compiled = compile_view(view, definitions.place, problems.append)
        if compiled is not None:
            views[name] = compiled
    broken = set(definitions.views) - set(views)
    sets = {}
    for name, feature_set in definitions.sets.items():
        if any(selection.view in broken for selection in feature_set.features):
            continue
        compiled_set = compile_set(feature_set, views, definitions.place, problems.append)
        if compiled_set is not None:
            sets[name] = compiled_set
    if problems:
        raise DefinitionError(problems)
    return Compiled(views, sets, dict(definitions.sources))


def repository_id(compiled: Compiled) -> str:
    """One id for everything that is defined: what a registry compares."""
    return content_id(
        {
            "views": {name: view.id for name, view in compiled.views.items()},
            "sets": {name: [list(pair) for pair in one.ids] for name, one in compiled.sets.items()},
        }
    )
