"""From definitions to typed views and sets with ids: a pure function, no data, no engine."""

from featreg.compile.compiled import Compiled, CompiledFeature, CompiledSet, CompiledView, Input, Lookup, Scan
from featreg.compile.repository import compile_definitions, repository_id

__all__ = ["Compiled", "CompiledFeature", "CompiledSet", "CompiledView", "Input", "Lookup", "Scan", "compile_definitions", "repository_id"]
