"""List what the declarative subset of Python has, and what to write in place of what it has not."""

import ast
from collections.abc import Callable
from typing import Any

from featreg import define
from featreg.define import agg

DEFINABLES: dict[type, str] = {
    define.Entity: "entity",
    define.EventSource: "source",
    define.FeatureView: "view",
    define.FeatureSet: "set",
}
PUBLIC: dict[str, Any] = {
    "Delay": define.Delay,
    "Entity": define.Entity,
    "EventSource": define.EventSource,
    "Every": define.Every,
    "FeatureSet": define.FeatureSet,
    "FeatureView": define.FeatureView,
    "REALTIME": define.REALTIME,
    "agg": agg,
    "derive": define.derive,
    "view": define.view,
}
METHODS: dict[type, tuple[str, ...]] = {
    define.Entity: ("on",),
    define.Aggregate: ("over",),
    define.FeatureView: ("all",),
    define.ViewReference: ("all",),
    define.Selection: ("on", "prefix", "rename"),
    dict: ("items", "keys", "values"),
}

RUN_NEVER = "Specs are read, never run: write "
VALUES = "literals, comprehensions and calls to featreg's constructors."
INSTEAD: dict[type[ast.AST], tuple[str, str]] = {
    ast.FunctionDef: ("a function definition", "the definitions themselves, or a `for` over literals."),
    ast.AsyncFunctionDef: ("a function definition", "the definitions themselves, or a `for` over literals."),
    ast.Lambda: ("a lambda", "the value itself."),
    ast.ClassDef: ("a class", "a call to one of featreg's constructors."),
    ast.If: ("an `if`", "both definitions, or a comprehension with an `if`."),
    ast.IfExp: ("an `if`", "the value itself."),
    ast.While: ("a `while`", "a `for` over a literal."),
    ast.Try: ("a `try`", "the definitions themselves."),
    ast.With: ("a `with`", "the definitions themselves."),
    ast.AugAssign: ("an assignment in place", "`name = name + value`."),
    ast.NamedExpr: ("an assignment in an expression", "an assignment on a line of its own."),
    ast.Delete: ("a `del`", "only what is needed."),
    ast.Assert: ("an `assert`", "a test beside the specs."),
    ast.Await: ("an `await`", VALUES),
    ast.Yield: ("a `yield`", VALUES),
    ast.Set: ("a set", "a list or a tuple, which keeps its order."),
    ast.SetComp: ("a set", "a list, which keeps its order."),
    ast.GeneratorExp: ("a generator", "a list comprehension, with brackets."),
    ast.Compare: ("a comparison", "the value itself; comparisons are for the `if` of a comprehension."),
    ast.BoolOp: ("`and`/`or`", "the value itself; logic is for the `if` of a comprehension."),
}
OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
}
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: lambda left, right: left == right,
    ast.NotEq: lambda left, right: left != right,
    ast.Lt: lambda left, right: left < right,
    ast.LtE: lambda left, right: left <= right,
    ast.Gt: lambda left, right: left > right,
    ast.GtE: lambda left, right: left >= right,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
SCALARS = (str, int, float, bool, type(None))
