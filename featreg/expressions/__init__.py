"""Give one meaning to the SQL expressions in definitions: the closed, typed, total language of the design.

`analyze` reads and types an expression; `meaning` is what its id is made of;
`duckdb_text` and `duckdb_overflow` run it over rows; `compile_finish` and
`run_finish` over results.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featreg.expressions.canonical_form import LANGUAGE_SEMANTICS, meaning
    from featreg.expressions.check import analyze
    from featreg.expressions.duckdb_sql import clean_double, duckdb_overflow, duckdb_text, instant_of_text
    from featreg.expressions.finish import FinishProgram, compile_finish
    from featreg.expressions.finish_loop import run_finish
    from featreg.expressions.parse import Dialect, references
    from featreg.expressions.tree import ExpressionError, Typed

# Resolved on first use: sqlglot and numba each take a moment to import, and most verbs need one of them at most.
_HOMES = {
    "Dialect": "parse",
    "ExpressionError": "tree",
    "FinishProgram": "finish",
    "LANGUAGE_SEMANTICS": "canonical_form",
    "Typed": "tree",
    "analyze": "check",
    "clean_double": "duckdb_sql",
    "compile_finish": "finish",
    "duckdb_overflow": "duckdb_sql",
    "duckdb_text": "duckdb_sql",
    "instant_of_text": "duckdb_sql",
    "meaning": "canonical_form",
    "references": "parse",
    "run_finish": "finish_loop",
}

__all__ = [
    "LANGUAGE_SEMANTICS",
    "Dialect",
    "ExpressionError",
    "FinishProgram",
    "Typed",
    "analyze",
    "clean_double",
    "compile_finish",
    "duckdb_overflow",
    "duckdb_text",
    "instant_of_text",
    "meaning",
    "references",
    "run_finish",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
