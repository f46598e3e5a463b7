"""Compile all definitions of a repository, with every problem of every file at once."""

from collections.abc import Mapping

from featreg.canonical import content_id
from featreg.compile.compiled import Compiled, CompiledView
from featreg.compile.sets import compile_set
from featreg.compile.views import compile_view
from featreg.errors import DefinitionError, Problem
from featreg.load import Definitions

__all__ = ["compile_definitions", "repository_id"]


def compile_definitions(definitions: Definitions, known: Mapping[str, CompiledView] | None = None) -> Compiled:
    """Compile views, then sets.

    known: views that were compiled before, as of another state; one whose definition is the same is taken as it is.
    Raises: DefinitionError with all problems, in file and line order.
    """
    problems: list[Problem] = []
    views: dict[str, CompiledView] = {}
    for name, view in definitions.views.items():
        before = (known or {}).get(name)
        is_known = before is not None and before.definition == view
        compiled = before if is_known else compile_view(view, definitions.place, problems.append)
        if compiled is not None:
            views[name] = compiled
    broken = set(definitions.views) - set(views)
    sets = {}
    for name, feature_set in definitions.sets.items():
        compiled_set = compile_set(feature_set, views, broken, definitions.place, problems.append)
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
