"""Evaluate the declarative subset of Python in which specs are written, by walking its syntax tree.

Nothing is imported, compiled or run: a node that has no case here is a problem
with its line and what to write instead.  Every node visited costs a step, and
every value built costs bytes, so a hostile file ends as a problem too.
"""

import ast
import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from inspect import Signature, signature
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any, NoReturn

from featreg import define
from featreg.define import agg
from featreg.define.aggregate import AGGREGATIONS
from featreg.define.model import nearest, shown
from featreg.errors import Problem, UsageError
from featreg.load.definitions import Definable, Place, Placed, kind_of
from featreg.load.outcome import Outcome
from featreg.load.subset import COMPARISONS, DEFINABLES, INSTEAD, METHODS, OPERATORS, PUBLIC, RUN_NEVER, SCALARS, VALUES

MOST_STEPS = 200_000  # nodes visited in one file
FAILURE_STEPS = 100  # looking for a near name takes its time
MOST_BUILT = 16 << 20  # bytes of the values built in one file
MOST_BITS = 128  # of an integer


def read_python_specs(texts: Mapping[str, str], unreadable: Iterable[str] = ()) -> Outcome:
    """Every definition of these files, where it is constructed, in file and line order.

    texts: path -> source.  unreadable: files that exist and have no text; importing one is no second problem.
    """
    tree = _Tree(texts, unreadable)
    for file in sorted(texts):
        tree.module(_dotted(file))
    tree.outcome.placed.sort(key=lambda placed: (placed.file, placed.line))
    return tree.outcome


class _Wrong(Exception):
    """An expression that has no value.  No problems: what it refers to has been reported."""

    def __init__(self, problems: Iterable[Problem] = ()):
        self.problems = list(problems)


class _Spent(Exception):
    """A file used up its budget; nothing more of it is read."""


class _Spoiled:
    """What a name stands for whose expression had no value."""


class _Featreg:
    """What `import featreg` binds."""


SPOILED, FEATREG = _Spoiled(), _Featreg()


class _Dict(dict[Any, Any]):
    """A dict of a spec; `places` says where each key stands."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[Any, Place] = {}


@dataclass
class _Module:
    """A spec module.  file: None for a folder without `__init__.py`.  whole: every name of it is known."""

    dotted: str
    file: str | None
    names: dict[str, Any] = field(default_factory=dict)
    reading: bool = False
    whole: bool = True


class _Tree:
    """All spec modules, each read once, when it is first asked for."""

    def __init__(self, texts: Mapping[str, str], unreadable: Iterable[str]):
        self.texts = texts
        self.files = {_dotted(file): file for file in texts}
        self.outcome = Outcome()
        self.modules = {_dotted(file): _Module(_dotted(file), file, whole=False) for file in unreadable if file.endswith(".py")}
        self.outcome.blind = bool(self.modules)
        modules = (*self.files, *self.modules)
        self.folders = {dotted.rsplit(".", depth)[0] for dotted in modules for depth in range(1, dotted.count(".") + 1)}

    def module(self, dotted: str) -> _Module | None:
        """The module of that name, read; None when there is none."""
        if dotted in self.modules:
            return self.modules[dotted]
        if dotted not in self.files:
            return _Module(dotted, None) if dotted in self.folders else None
        module = self.modules[dotted] = _Module(dotted, self.files[dotted], reading=True)
        try:
            _Reader(self, module, self.texts[self.files[dotted]]).read()
        finally:
            module.reading = False
        return module


class _Reader:
    """Reads one file: statements in order, each expression to its value."""

    def __init__(self, tree: _Tree, module: _Module, text: str):
        assert module.file is not None
        self.tree, self.module, self.file, self.text = tree, module, module.file, text
        self.scopes: list[dict[str, Any]] = [module.names]
        self.steps = self.built = 0

    # -- statements

    def read(self) -> None:
        try:
            body = ast.parse(self.text, self.file).body
        except SyntaxError as error:
            self._give_up(f"this is not Python: {error.msg}.", error.lineno or 1)
        except (ValueError, RecursionError, MemoryError) as error:
            self._give_up(f"this cannot be parsed: {error or 'it is nested too deeply'}.", 1)
        else:
            try:
                for statement in body:
                    self._statement(statement)
            except _Spent as spent:
                self._give_up(*spent.args)

    def _give_up(self, message: str, line: int) -> None:
        self.tree.outcome.tell([Problem(message, self.file, line)])
        self.tree.outcome.blind = True
        self.module.whole = False

    def _statement(self, node: ast.stmt) -> None:
        """Carry one statement out; when it goes wrong, say so and bind its names, so that the next are read as well."""
        try:
            self._step(node)
            self._carry_out(node)
        except RecursionError:
            self._spoil(node)
            self.tree.outcome.tell([Problem("this expression is nested too deeply.", self.file, node.lineno)])
        except _Wrong as wrong:
            self._spoil(node)
            self.tree.outcome.tell(wrong.problems)

    def _carry_out(self, node: ast.stmt) -> None:
        match node:
            case ast.Import():
                for alias in node.names:
                    self._import(node, alias)
            case ast.ImportFrom():
                self._import_from(node)
            case ast.Assign():
                value = self._value(node.value)
                for target in node.targets:
                    self._bind(target, value)
            case ast.AnnAssign():
                if node.value is not None:
                    self._bind(node.target, self._value(node.value))
            case ast.Expr():
                self._value(node.value)
            case ast.For(orelse=[]):
                for item in self._items(self._value(node.iter), node.iter):
                    self._bind(node.target, item)
                    for statement in node.body:
                        self._statement(statement)
            case ast.Pass():
                pass
            case _:
                self._refuse(node)

    def _spoil(self, node: ast.stmt) -> None:
        """Bind every name that the statement would have bound."""
        match node:
            case ast.Import() | ast.ImportFrom():
                bound = [(alias.asname or alias.name).split(".")[0] for alias in node.names]
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                bound = [node.name]
            case _:
                bound = [name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)]
        for name in bound:
            if name == "*":
                self.module.whole = False
            elif not isinstance(node, ast.Import | ast.ImportFrom) or name not in self.scopes[-1]:
                self.scopes[-1][name] = SPOILED

    # -- imports

    def _import(self, node: ast.stmt, alias: ast.alias) -> None:
        if alias.name == "featreg":
            self._name(alias.asname or "featreg", FEATREG)
            return
        module = self._sibling(alias.name, node)
        first = alias.name.split(".")[0]
        self._name(alias.asname or first, module if alias.asname else self._sibling(first, node))

    def _import_from(self, node: ast.ImportFrom) -> None:
        dotted = self._absolute(node)
        if dotted == "__future__":
            return
        if any(alias.name == "*" for alias in node.names):
            self._fail(node, "`import *` hides where a name comes from.", "Name what you import.")
        wrong: list[_Wrong] = []
        for alias in node.names:
            try:
                self._name(alias.asname or alias.name, self._imported(node, dotted, alias.name))
            except _Wrong as error:
                wrong.append(error)
        _raise_all(wrong)

    def _imported(self, node: ast.ImportFrom, dotted: str, name: str) -> Any:
        if dotted == "featreg":
            return self._public(node, name)
        return self._member(self._sibling(dotted, node), name, node)

    def _absolute(self, node: ast.ImportFrom) -> str:
        """The dotted name that a `from` means, dots at its front resolved."""
        if node.level == 0:
            return node.module or ""
        here = self.module.dotted.split(".")
        package = here if self.file.endswith("/__init__.py") else here[:-1]
        base = package[: len(package) - node.level + 1]
        return ".".join([*base, *([node.module] if node.module else [])])

    def _sibling(self, dotted: str, node: ast.stmt) -> _Module:
        module = self.tree.module(dotted)
        if module is None:
            top = self.module.dotted.split(".")[0]
            known = sorted(name for name in (*self.tree.files, "featreg") if name.startswith((top, "featreg")))
            hint = f"Specs import from featreg and from one another. {nearest(dotted, known, 'There are')}"
            self._fail(node, f"there is no spec module '{dotted}'.", hint)
        if module.reading:
            circle = " -> ".join([name for name, other in self.tree.modules.items() if other.reading] + [dotted])
            self._fail(node, f"these specs import one another in a circle: {circle}.", "Move what both need into a third file.")
        return module

    def _member(self, module: _Module, name: str, node: ast.AST) -> Any:
        if name in module.names:
            value = module.names[name]
            if value is SPOILED:
                raise _Wrong
            return value
        inner = f"{module.dotted}.{name}"
        if inner in self.tree.files or inner in self.tree.folders or inner in self.tree.modules:
            return self._sibling(inner, node)  # type: ignore[arg-type]
        if not module.whole:
            raise _Wrong
        self._fail(node, f"'{module.dotted}' has no '{name}'.", nearest(name, module.names, "It has"))

    def _public(self, node: ast.AST, name: str) -> Any:
        if name not in PUBLIC:
            self._fail(node, f"featreg has no '{name}' for specs.", nearest(name, PUBLIC, "It has"))
        return PUBLIC[name]

    # -- names

    def _bind(self, target: ast.expr, value: Any) -> None:
        match target:
            case ast.Name():
                self._name(target.id, value)
            case ast.Tuple() | ast.List():
                if any(isinstance(part, ast.Starred) for part in target.elts):
                    self._fail(target, "a starred name takes what is left over.", "Name each part.")
                items = self._items(value, target)
                if len(items) != len(target.elts):
                    self._fail(target, f"{len(target.elts)} names for {len(items)} values.")
                for part, item in zip(target.elts, items):
                    self._bind(part, item)
            case _:
                self._fail(target, "a value is changed in place.", 'Build it in one go: {**base, "name": value}, or base + [value].')

    def _name(self, name: str, value: Any) -> None:
        self.scopes[-1][name] = value

    def _look_up(self, node: ast.Name) -> Any:
        for scope in reversed(self.scopes):
            if node.id in scope:
                if scope[node.id] is SPOILED:
                    raise _Wrong
                return scope[node.id]
        if not self.module.whole:
            raise _Wrong
        if hasattr(builtins, node.id):
            self._fail(node, f"a spec may not use '{node.id}'.", RUN_NEVER + VALUES)
        if node.id in PUBLIC:
            self._fail(node, f"'{node.id}' is not imported.", f"Write `from featreg import {node.id}`.")
        known = [name for scope in reversed(self.scopes) for name in scope]
        self._fail(node, f"'{node.id}' is not defined.", nearest(node.id, known))

    # -- expressions

    def _value(self, node: ast.expr) -> Any:
        self._step(node)
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name():
                return self._look_up(node)
            case ast.List():
                return self._kept(self._elements(node.elts), node)
            case ast.Tuple():
                return self._kept(tuple(self._elements(node.elts)), node)
            case ast.Dict():
                return self._dict(node)
            case ast.ListComp():
                return self._kept(self._each(lambda: self._value(node.elt), node.generators), node)
            case ast.DictComp():
                return self._dict_comprehension(node)
            case ast.JoinedStr():
                return self._kept("".join(map(self._piece, node.values)), node)
            case ast.BinOp():
                return self._operation(node)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                return self._signed(node)
            case ast.Subscript():
                return self._subscript(node)
            case ast.Attribute():
                return self._attribute(node)
            case ast.Call():
                return self._call(node)
        self._refuse(node)

    def _constant(self, node: ast.Constant) -> Any:
        if not isinstance(node.value, SCALARS):
            self._fail(node, f"{shown(node.value)} is no text, number, True, False or None.")
        return self._kept(node.value, node)

    def _elements(self, nodes: Sequence[ast.expr]) -> list[Any]:
        """The values of several expressions, `*` spread; every problem of them at once."""
        values: list[Any] = []
        with_star = ((node.value, True) if isinstance(node, ast.Starred) else (node, False) for node in nodes)
        wrong: list[_Wrong] = []
        for node, starred in with_star:
            try:
                value = self._value(node)
                values += self._items(value, node) if starred else [value]
            except _Wrong as error:
                wrong.append(error)
        _raise_all(wrong)
        return values

    def _dict(self, node: ast.Dict) -> _Dict:
        built = _Dict()
        wrong: list[_Wrong] = []
        for key, item in zip(node.keys, node.values):
            try:
                if key is None:
                    self._spread(built, self._value(item), item)
                else:
                    self._entry(built, self._value(key), key, item)
            except _Wrong as error:
                wrong.append(error)
        _raise_all(wrong)
        return self._kept(built, node)

    def _dict_comprehension(self, node: ast.DictComp) -> _Dict:
        built = _Dict()
        self._each(lambda: self._entry(built, self._value(node.key), node.key, node.value), node.generators)
        return self._kept(built, node)

    def _entry(self, built: _Dict, name: Any, key: ast.expr, item: ast.expr) -> None:
        if not isinstance(name, SCALARS):
            self._fail(key, f"{shown(name)} cannot be a key.", "Keys are names, written as text.")
        try:
            value = self._value(item)
        except _Wrong as error:
            raise _Wrong(replace(problem, subject=problem.subject or str(name)) for problem in error.problems) from None
        if name in built:
            self._fail(key, f"the key {shown(name)} is given twice; first on line {built.places[name][1]}.")
        built[name] = value
        built.places[name] = (self.file, key.lineno)

    def _spread(self, built: _Dict, value: Any, node: ast.expr) -> None:
        if not isinstance(value, dict):
            self._fail(node, f"`**` spreads a dict, and {shown(value)} is none.")
        self._charge(len(value), node)
        places = value.places if isinstance(value, _Dict) else {}
        built.update(value)
        built.places.update({name: places.get(name, (self.file, node.lineno)) for name in value})

    def _each(self, make: Callable[[], Any], generators: Sequence[ast.comprehension]) -> list[Any]:
        """What `make` gives for each turn of a comprehension; its names are its own."""
        made: list[Any] = []
        wrong: list[_Wrong] = []
        self.scopes.append({})
        try:
            for _ in self._turns(generators):
                try:
                    made.append(make())
                except _Wrong as error:
                    wrong.append(error)
        finally:
            self.scopes.pop()
        _raise_all(wrong)
        return made

    def _turns(self, generators: Sequence[ast.comprehension]) -> Iterator[None]:
        if not generators:
            yield
            return
        first, *rest = generators
        if first.is_async:
            self._fail(first.iter, "an `async for` waits for something.", RUN_NEVER + "a `for` over literals.")
        for item in self._items(self._value(first.iter), first.iter):
            self._bind(first.target, item)
            if all(self._holds(condition) for condition in first.ifs):
                yield from self._turns(rest)

    def _holds(self, node: ast.expr) -> bool:
        """The `if` of a comprehension: comparisons of plain values, and, or, not."""
        self._step(node)
        match node:
            case ast.BoolOp(op=ast.And()):
                return all(self._holds(part) for part in node.values)
            case ast.BoolOp():
                return any(self._holds(part) for part in node.values)
            case ast.UnaryOp(op=ast.Not()):
                return not self._holds(node.operand)
            case ast.Compare(ops=[op], comparators=[other]) if type(op) in COMPARISONS:
                return self._compared(node, op, self._value(node.left), self._value(other))
            case ast.Constant(value=bool() as known):
                return known
        self._fail(node, "this is no comparison.", 'Compare plain values: `if name != "x"`.')

    def _compared(self, node: ast.expr, op: ast.cmpop, left: Any, right: Any) -> bool:
        holder = isinstance(op, ast.In | ast.NotIn)
        size = len(right) if isinstance(right, (str, list, tuple)) else 0
        if not isinstance(left, SCALARS) or not isinstance(right, (str, list, tuple, dict) if holder else SCALARS):
            self._fail(node, f"{shown(left)} and {shown(right)} are not compared here.", "Compare texts, numbers, True, False and None.")
        if holder:
            self._charge(size, node)
        try:
            return bool(COMPARISONS[type(op)](left, right))
        except TypeError:
            self._fail(node, f"{shown(left)} and {shown(right)} have no order.")

    def _piece(self, node: ast.expr) -> str:
        """A piece of an f-string: text, or a plain value without a format."""
        if isinstance(node, ast.Constant):
            return str(node.value)
        assert isinstance(node, ast.FormattedValue)
        self._step(node)
        if node.format_spec is not None or node.conversion != -1:
            self._fail(node, "an f-string has a format.", "Write the value as it should read.")
        value = self._value(node.value)
        if not isinstance(value, SCALARS):
            self._fail(node, f"an f-string holds {shown(value)}.", "Put texts and numbers in it.")
        return str(value)

    def _operation(self, node: ast.BinOp) -> Any:
        operate = OPERATORS.get(type(node.op))
        if operate is None:
            self._fail(node, "of the operators, specs have + - *.", "Write the result.")
        left, right = self._elements([node.left, node.right])
        plain = (*SCALARS, list, tuple)
        if not isinstance(left, plain) or not isinstance(right, plain):
            self._fail(node, f"+ - * are for literals, not for {shown(left if not isinstance(left, plain) else right)}.")
        if isinstance(node.op, ast.Mult):
            self._charge(_repeated(left, right) or _repeated(right, left), node)
        try:
            return self._kept(operate(left, right), node)
        except (TypeError, OverflowError):
            self._fail(node, f"{shown(left)} and {shown(right)} cannot be combined.")

    def _signed(self, node: ast.UnaryOp) -> Any:
        value = self._value(node.operand)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self._fail(node, f"a sign before {shown(value)}.", "Signs are for numbers.")
        return -value if isinstance(node.op, ast.USub) else value

    def _subscript(self, node: ast.Subscript) -> Any:
        value = self._value(node.value)
        if isinstance(value, (define.FeatureView, define.ViewReference)):
            chosen = self._value(node.slice)
            return self._attempt(node, lambda: value[chosen])
        if not isinstance(value, (list, tuple, dict, str)):
            self._fail(node, f"{shown(value)} has no parts.", "Subscripts are for views, lists, tuples, dicts and texts.")
        parts: Any = value
        index = self._slice(node.slice) if isinstance(node.slice, ast.Slice) else self._value(node.slice)
        if not isinstance(index, (*SCALARS, slice)):
            self._fail(node, f"{shown(index)} cannot be looked up.")
        try:
            return self._kept(parts[index], node)
        except (TypeError, KeyError, IndexError, ValueError):
            hint = nearest(str(index), map(str, value)) if isinstance(value, dict) else None
            self._fail(node, f"there is no {shown(index)} in it.", hint)

    def _slice(self, node: ast.Slice) -> slice:
        return slice(*(None if part is None else self._value(part) for part in (node.lower, node.upper, node.step)))

    def _attribute(self, node: ast.Attribute) -> Any:
        owner, name = self._value(node.value), node.attr
        if owner is FEATREG:
            return self._public(node, name)
        if isinstance(owner, _Module):
            return self._member(owner, name, node)
        if owner is agg:
            if name not in (*AGGREGATIONS, "latest"):
                self._fail(node, f"there is no aggregation '{name}'.", nearest(name, (*AGGREGATIONS, "latest"), "Aggregations are"))
            return getattr(agg, name)
        methods = next((names for kind, names in METHODS.items() if isinstance(owner, kind)), ())
        if name not in methods:
            what = type(owner).__name__.strip("_").lower() if isinstance(owner, _Dict) else type(owner).__name__
            offered = f"It has: {', '.join(f'.{method}()' for method in methods)}." if methods else "Write the value itself."
            self._fail(node, f"a spec may not use '.{name}' of a {what}.", offered)
        return getattr(owner, name)

    # -- calls

    def _call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Name) and node.func.id == "range" and not any("range" in scope for scope in self.scopes):
            return self._range(node)
        function = self._value(node.func)
        label = ast.unparse(node.func) if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "this")
        if not callable(function) or isinstance(function, ModuleType | define.Model | _Module):
            self._fail(node, f"'{label}' cannot be called.", RUN_NEVER + "calls to featreg's constructors and their methods.")
        named, places = self._named(node, kind := DEFINABLES.get(function) if isinstance(function, type) else None)
        try:
            positional = self._elements(node.args)
        except _Wrong:
            self._spoil_definition(kind, named)
            raise
        made = self._made(node, function, label, kind, positional, named)
        if kind is not None:
            self._place(node, made, places)
        return made

    def _named(self, node: ast.Call, kind: str | None) -> tuple[dict[str, Any], dict[str, Place]]:
        """The named arguments of a call, and where the features in them stand."""
        named = _Dict()
        wrong: list[_Wrong] = []
        for keyword in node.keywords:
            try:
                value = self._value(keyword.value)
                if keyword.arg is None:
                    self._spread_argument(named, value, keyword)
                elif keyword.arg in named:
                    self._fail(keyword.value, f"argument '{keyword.arg}' is given twice.")
                else:
                    named[keyword.arg] = value
            except _Wrong as error:
                wrong.append(error)
        if wrong:
            name = named.get("name")
            self._spoil_definition(kind, named)
            if kind is None or not isinstance(name, str):
                _raise_all(wrong)
            raise _Wrong(
                replace(problem, subject=f"{name}.{problem.subject}" if problem.subject else name)
                for error in wrong
                for problem in error.problems
            )
        parts = named.get("derived" if kind == "set" else "features")
        return named, {str(key): place for key, place in parts.places.items()} if isinstance(parts, _Dict) else {}

    def _spread_argument(self, named: _Dict, value: Any, keyword: ast.keyword) -> None:
        if isinstance(value, dict) and not all(isinstance(name, str) for name in value):
            self._fail(keyword.value, "arguments have names, written as text.")
        taken = [name for name in value if name in named] if isinstance(value, dict) else []
        if taken:
            self._fail(keyword.value, f"argument '{taken[0]}' is given twice.")
        self._spread(named, value, keyword.value)

    def _made(self, node: ast.Call, function: Any, label: str, kind: str | None, positional: list[Any], named: dict[str, Any]) -> Any:
        if isinstance(function, FunctionType | MethodType):
            try:
                _bind(function, positional, named)
            except TypeError as error:
                self._fail(node, f"{label}: {error}.")
        elif isinstance(function, BuiltinMethodType) and (positional or named):
            self._fail(node, f"{label} takes no arguments.")
        try:
            return self._attempt(node, lambda: function(*positional, **named), kind, named)
        except _Wrong:
            self._spoil_definition(kind, named if "name" in named or not positional else {"name": positional[0]})
            raise

    def _attempt(self, node: ast.expr, make: Callable[[], Any], kind: str | None = None, named: Mapping[str, Any] | None = None) -> Any:
        """What a constructor or method gives; each of its faults as a problem where the part that it is about stands."""
        try:
            return make()
        except define.SpecError as error:
            self._step(node, FAILURE_STEPS * len(error.faults))
            parts = (named or {}).get("derived" if kind == "set" else "features")
            raise _Wrong(self._problem(node, error, fault, parts) for fault in error.faults) from None
        except (UsageError, ValueError, OverflowError) as error:
            raise _Wrong([Problem(str(error), self.file, node.lineno)]) from None

    def _problem(self, node: ast.expr, error: define.SpecError, fault: define.Fault, parts: Any) -> Problem:
        place = parts.places.get(fault.part) if isinstance(parts, _Dict) else None
        file, line = place or (self.file, node.lineno)
        if error.subject:
            return Problem(fault.message, file, line, f"{error.subject}.{fault.part}" if fault.part else error.subject, fault.hint)
        message = f"{error.what}: {fault.message}" if error.what else fault.message
        return Problem(message, file, line, None, fault.hint)

    def _spoil_definition(self, kind: str | None, named: Mapping[str, Any]) -> None:
        name = named.get("name")
        if kind is not None and isinstance(name, str):
            self.tree.outcome.spoiled.add((kind, name))

    def _place(self, node: ast.Call, made: Definable, places: Mapping[str, Place]) -> None:
        assert kind_of(made)
        self.tree.outcome.placed.append(Placed(made, self.file, node.lineno, places))

    def _range(self, node: ast.Call) -> range:
        bounds = self._elements(node.args)
        if node.keywords or not 1 <= len(bounds) <= 3 or not all(isinstance(bound, int) for bound in bounds) or bounds[2:] == [0]:
            self._fail(node, "range takes one to three whole numbers, and no step of 0.")
        return range(*bounds)

    # -- budget and problems

    def _items(self, value: Any, node: ast.expr) -> list[Any]:
        """The items of something that may be walked over, which costs a step for each."""
        if not isinstance(value, (list, tuple, dict, range, type({}.items()), type({}.keys()), type({}.values()))):
            self._fail(node, f"{shown(value)} is not walked over.", "Use a list, a tuple, a dict, its .items(), or range(…) of literals.")
        self._step(node, _length(value))
        return list(value)

    def _step(self, node: ast.AST, count: int = 1) -> None:
        self.steps += count
        if self.steps > MOST_STEPS:
            raise _Spent(f"reading this file takes more than {MOST_STEPS:,} steps.", getattr(node, "lineno", 1))

    def _charge(self, size: int, node: ast.AST) -> None:
        self.built += size
        if self.built > MOST_BUILT:
            raise _Spent(f"the values of this file take more than {MOST_BUILT:,} bytes.", getattr(node, "lineno", 1))

    def _kept(self, value: Any, node: ast.AST) -> Any:
        """`value`, paid for."""
        match value:
            case bool():
                pass
            case int():
                if value.bit_length() > MOST_BITS:
                    self._fail(node, f"an integer of more than {MOST_BITS} bits.")
            case str():
                self._charge(len(value), node)
            case list() | tuple() | dict():
                self._charge(8 * len(value), node)
        return value

    def _refuse(self, node: ast.stmt | ast.expr) -> NoReturn:
        what, instead = INSTEAD.get(type(node), (f"`{type(node).__name__}`", VALUES))
        self._fail(node, f"{what} is not read.", RUN_NEVER + instead)

    def _fail(self, node: ast.AST, message: str, hint: str | None = None) -> NoReturn:
        self._step(node, FAILURE_STEPS)
        raise _Wrong([Problem(message, self.file, getattr(node, "lineno", 1), hint=hint)])


def _dotted(file: str) -> str:
    """`features/sources.py` is `features.sources`; a folder's `__init__.py` is the folder."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _raise_all(wrong: Sequence[_Wrong]) -> None:
    if wrong:
        raise _Wrong(problem for error in wrong for problem in error.problems)


def _repeated(value: Any, times: Any) -> int:
    """Bytes of a text or list that is repeated; 0 when it is neither."""
    return 8 * len(value) * max(times, 0) if isinstance(value, (str, list, tuple)) and isinstance(times, int) else 0


def _length(value: Any) -> int:
    """`len`, for a range too that is longer than `len` can say."""
    return max(0, (value.stop - value.start) // value.step) if isinstance(value, range) else len(value)


def _bind(function: FunctionType | MethodType, positional: Sequence[Any], named: Mapping[str, Any]) -> None:
    """Raises: TypeError when a function cannot be called with these arguments."""
    if isinstance(function, MethodType):
        _signature_of(function.__func__).bind(function.__self__, *positional, **named)
    else:
        _signature_of(function).bind(*positional, **named)


@cache
def _signature_of(function: Any) -> Signature:
    """Of the few functions that specs may call; finding one out takes longer than the call."""
    return signature(function)
