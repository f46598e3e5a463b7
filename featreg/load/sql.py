"""Read a feature view that is written as one SELECT over its source.

The SELECT is parsed and taken apart, never run: key columns, one aggregate per
window, and expressions over those become the `FeatureView` that a Python spec
would have made.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from featreg.define import Aggregate, Derived, Entity, EntityOn, EventSource, Every, FeatureView, Realtime, SpecError, Window
from featreg.errors import Problem, UsageError, did_you_mean
from featreg.expressions import Dialect
from featreg.load.definitions import Placed
from featreg.load.outcome import Outcome
from featreg.load.sql_header import Header, read_header
from featreg.load.sql_parts import (
    Frame,
    Wrong,
    is_aggregate,
    key_of,
    line_of,
    line_of_item,
    mapped,
    read_aggregate,
    read_window,
    text_of,
    unqualify,
)

T = TypeVar("T")

_READ = {"expressions", "from_", "where", "windows"}
_CLAUSES = {
    "with_": "WITH", "joins": "JOIN", "group": "GROUP BY", "having": "HAVING", "qualify": "QUALIFY", "order": "ORDER BY",
    "limit": "LIMIT", "offset": "OFFSET", "distinct": "DISTINCT", "laterals": "LATERAL", "sample": "USING SAMPLE", "pivots": "PIVOT",
}  # fmt: skip


def read_sql_specs(texts: Mapping[str, str], python: Outcome) -> Outcome:
    """The view of each file, over entities and sources that the Python specs define.

    texts: path -> SQL.  A file that does not hold gives problems and no view.
    """
    entities = {placed.model.name: placed.model for placed in python.placed if isinstance(placed.model, Entity)}
    sources = {placed.model.name: placed.model for placed in python.placed if isinstance(placed.model, EventSource)}
    outcome = Outcome()
    for file in sorted(texts):
        header = read_header(file, texts[file])
        reader = _Reader(file, header, python, entities, sources)
        try:
            placed = reader.read(texts[file])
        except RecursionError:
            placed = None
            reader.problems.append(Problem("this SELECT is nested too deeply.", file, 1))
        outcome.tell([*header.problems, *reader.problems])
        if placed is not None and not header.problems and not reader.problems:
            outcome.placed.append(placed)
    return outcome


class _Reader:
    """Reads one file; problems gather in `problems`."""

    def __init__(self, file: str, header: Header, python: Outcome, entities: Mapping[str, Entity], sources: Mapping[str, EventSource]):
        self.file, self.header, self.python = file, header, python
        self.entities, self.sources = entities, sources
        self.name = header.values.get("feature_view")
        self.problems: list[Problem] = []

    def read(self, text: str) -> Placed | None:
        """The view with the lines of its features, or None when something is wrong."""
        select = self._parsed(text)
        if select is None:
            return None
        self._check_clauses(select)
        freshness = self.header.freshness  # read here, so that its problems are told with the others
        source = self._source(select)
        entity = self._named("entity", self.header.values.get("entity"), self.entities, None)
        if source is None or entity is None:
            return None
        unqualify(select, source.name)
        mapping = self._mapping(select, entity)
        frame = Frame(tuple(column.lower() for column in mapping.values()), source.event_time.lower())
        windows = self._windows(select, frame)
        features, lines = self._features(select, entity, windows, frame)
        if self.problems or self.header.problems:
            return None
        view = self._view(select, source, mapped(entity, mapping), freshness, features, lines)
        places = {name: (self.file, line) for name, line in lines.items()}
        return None if view is None else Placed(view, self.file, self.header.lines.get("feature_view", 1), places)

    # -- clauses

    def _parsed(self, text: str) -> exp.Select | None:
        try:
            statements = [statement for statement in sqlglot.parse(text, dialect=Dialect) if statement is not None]
        except ParseError as error:
            first = error.errors[0] if error.errors else {}
            said = str(first.get("description", error)).split(" but got <")[0].rstrip(".")
            self._fail(f"this is not SQL: {said}, near {first.get('highlight', '')!r}.", first.get("line", 1))
            return None
        except TokenError as error:
            self._fail(f"this is not SQL: {error}", text.count("\n") + 1)
            return None
        if len(statements) != 1 or not isinstance(statements[0], exp.Select):
            self._fail("a SQL spec is one SELECT.", 1, "Write one file per view.")
            return None
        return statements[0]

    def _check_clauses(self, select: exp.Select) -> None:
        for name, value in select.args.items():
            if value and name not in _READ:
                clause = _CLAUSES.get(name, name.strip("_").upper())
                hint = "A view is SELECT … FROM source WHERE … WINDOW …; a set brings views together."
                first = value[0] if isinstance(value, list) else value
                line = line_of(first if isinstance(first, exp.Expression) else None, line_of(select))
                self._fail(f"{clause} has no place in a feature view.", line, hint)

    def _source(self, select: exp.Select) -> EventSource | None:
        origin = select.args.get("from_")
        table = origin.this if origin is not None else None
        if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
            self._fail("a view selects FROM one source.", line_of(origin or select), f"Sources are: {', '.join(self.sources) or 'none'}.")
            return None
        if any(table.args.get(part) for part in ("db", "catalog", "alias", "joins", "pivots", "sample")):
            self._fail(f"FROM {table.sql(dialect=Dialect)}: write the source's name alone.", line_of(table))
        return self._named("source", table.name, self.sources, table)

    def _named(self, kind: str, name: str | None, known: Mapping[str, T], at: exp.Expression | None) -> T | None:
        """The entity or source of that name; silent when its definition is there and did not hold."""
        if name is None or name in known:
            return None if name is None else known[name]
        if (kind, name) not in self.python.spoiled and not self.python.blind:
            line = line_of(at) if at is not None else self.header.lines.get(kind, 1)
            self._fail(f"there is no {kind} '{name}'.", line, did_you_mean(name, known, "Defined are"))
        return None

    def _mapping(self, select: exp.Select, entity: Entity) -> dict[str, str]:
        """Entity key -> source column, of the key columns that the SELECT lists."""
        mapping: dict[str, str] = {}
        for item in select.expressions:
            key = key_of(item, entity)
            if key is not None:
                if key in mapping:
                    self._fail(f"the key '{key}' is selected twice.", line_of_item(item))
                mapping[key] = item.unalias().name
        for key in entity.key_names:
            if key not in mapping:
                hint = f"Select `{key}`, or `column AS {key}`."
                self._fail(f"the key '{key}' of entity '{entity.name}' is not selected.", line_of(select), hint)
        return mapping

    # -- windows

    def _windows(self, select: exp.Select, frame: Frame) -> dict[str, Window | None]:
        """The WINDOW clause by name in lower case; None for one that does not hold."""
        for_all, by_name = self.header.hops
        windows: dict[str, Window | None] = {}
        for clause in select.args.get("windows") or []:
            name = clause.name.lower()
            if name in windows:
                self._fail(f"window '{name}' is declared twice.", line_of(clause))
            windows[name] = self._attempt(clause, None, read_window, clause, frame, by_name.get(name, for_all))
        for name in by_name:
            if name not in windows:
                hint = did_you_mean(name, windows, "Windows are")
                self.header.fail("hop", f"hop names the window '{name}', which is not declared.", hint)
        return windows

    def _window_of(self, over: exp.Window, windows: Mapping[str, Window | None], frame: Frame) -> Window | None:
        name = over.args.get("alias")
        if name is None:
            return read_window(over, frame, self.header.hops[0])
        if over.args.get("partition_by") or over.args.get("order") or over.args.get("spec"):
            raise Wrong(over, f"OVER ({name.name} …) adds to a named window.", "Declare a window of its own.")
        if name.name.lower() not in windows:
            raise Wrong(name, f"there is no window '{name.name}'.", did_you_mean(name.name, windows, "The WINDOW clause has"))
        return windows[name.name.lower()]

    # -- features

    def _features(
        self, select: exp.Select, entity: Entity, windows: Mapping[str, Window | None], frame: Frame
    ) -> tuple[dict[str, Aggregate | Derived], dict[str, int]]:
        """What is selected beside the keys, by name, and the line of each."""
        features: dict[str, Aggregate | Derived] = {}
        lines: dict[str, int] = {}
        for item in select.expressions:
            if key_of(item, entity) is not None:
                continue
            spec = self._attempt(item, item.alias or None, self._feature, item, windows, frame)
            if spec is not None and item.alias in features:
                self._fail(f"two features are called '{item.alias}'.", line_of_item(item), None, item.alias)
            elif spec is not None:
                features[item.alias], lines[item.alias] = spec, line_of_item(item)
        return features, lines

    def _feature(self, item: exp.Expression, windows: Mapping[str, Window | None], frame: Frame) -> Aggregate | Derived | None:
        if not isinstance(item, exp.Alias):
            hint = "Write `AS name`; a column of the source becomes a feature by an aggregate, such as last_value(column) OVER (…)."
            raise Wrong(item, f"`{text_of(item)}` has no name.", hint)
        value = item.this
        if isinstance(value, exp.Window):
            window = self._window_of(value, windows, frame)
            return None if window is None else read_aggregate(value.this, window)
        inner = value.find(exp.Window)
        if inner is not None:
            raise Wrong(item, "an aggregate stands inside an expression.", "Select the aggregate under a name, then use that name.")
        bare = next((call for call in value.find_all(exp.Anonymous, exp.Filter) if is_aggregate(call)), None)
        if bare is not None:
            hint = f"Write OVER and a window's name, or OVER {frame.spelled} for all of history."
            raise Wrong(item, f"`{text_of(bare)}` has no window.", hint)
        return Derived(text_of(value))

    def _view(
        self,
        select: exp.Select,
        source: EventSource,
        entity: Entity | EntityOn,
        freshness: Realtime | Every,
        features: Mapping[str, Aggregate | Derived],
        lines: Mapping[str, int],
    ) -> FeatureView | None:
        where = select.args.get("where")
        try:
            return FeatureView(
                name=self.header.values["feature_view"],
                entity=entity,
                source=source,
                features=features,
                where=None if where is None else text_of(where.this),
                freshness=freshness,
                owner=self.header.values.get("owner", ""),
                description=self.header.values.get("description", ""),
                tags=self.header.tags,
            )
        except SpecError as error:
            first = self.header.lines.get("feature_view", 1)
            for fault in error.faults:
                self._fail(fault.message, lines.get(fault.part or "", first), fault.hint, fault.part)
            return None

    # -- problems

    def _attempt(self, at: exp.Expression, part: str | None, read: Callable[..., T], *given: object) -> T | None:
        """What `read` gives for `given`, or None and a problem, on `at`'s line when the reader names no other."""
        try:
            return read(*given)
        except Wrong as wrong:
            self._fail(wrong.message, line_of_item(wrong.at or at), wrong.hint, part)
        except SpecError as error:
            for fault in error.faults:
                self._fail(fault.message, line_of_item(at), fault.hint, part)
        except (UsageError, ValueError) as error:
            self._fail(str(error), line_of_item(at), None, part)
        return None

    def _fail(self, message: str, line: int, hint: str | None = None, part: str | None = None) -> None:
        subject = f"{self.name}.{part}" if self.name and part else self.name
        self.problems.append(Problem(message, self.file, line, subject, hint))
