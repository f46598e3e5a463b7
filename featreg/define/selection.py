"""Choose features of a view for a feature set: which, for which spine columns, under which names."""

from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Self

from pydantic import PrivateAttr, model_validator

from featreg.define.layers import MEANING, META
from featreg.define.model import MOST_FAULTS, Fault, Model, SpecError, coerced, nearest, read_name, same_but_for_case, shown, twice


class Selection(Model):
    """Features of one view, in a feature set.

    names: the chosen outputs in order, None for all.  mapping: (entity key,
    spine column) where the two differ.  A feature's name in the set is its name
    in the view, renamed by `renames`, then with `prefix_text` in front: the
    prefix is put before a new name too, whichever was said first.
    """

    view: Annotated[str, coerced(read_name), MEANING]
    names: Annotated[tuple[str, ...] | None, MEANING] = None
    mapping: Annotated[tuple[tuple[str, str], ...], MEANING] = ()
    prefix_text: Annotated[str, META] = ""
    renames: Annotated[tuple[tuple[str, str], ...], META] = ()

    # What the view offers, when the selection was made from the view itself and not from its name.
    _outputs: tuple[str, ...] | None = PrivateAttr(default=None)
    _keys: tuple[str, ...] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _check_names(self) -> "Selection":
        faults = [Fault(f"'{name}' is chosen twice.", part=name) for name in twice(self.names or ())]
        if self.names == ():
            faults.append(Fault("no feature is chosen. Name some, or write .all()."))
        if faults:
            raise SpecError(faults, "selection", self.view)
        return self

    def among(self, outputs: Iterable[str], keys: Iterable[str]) -> Self:
        """This selection, checked against the view's outputs and its entity's keys, as are the calls that follow."""
        self._outputs, self._keys = tuple(outputs), tuple(keys)
        self._refuse_unknown(self.names or (), self._outputs, "feature")
        return self

    def on(self, **mapping: str) -> Self:
        """Take entity keys from spine columns of other names: `.on(airport="dest")`."""
        self._refuse_unknown(mapping, self._keys, "entity key")
        return self.replaced(mapping=tuple((dict(self.mapping) | mapping).items()))

    def prefix(self, text: str) -> Self:
        """Put `text` before every name, a renamed one included."""
        if not isinstance(text, str) or not text.isidentifier():
            raise SpecError([Fault(f"prefix {shown(text)} cannot begin a name.")], "selection", self.view)
        return self.replaced(prefix_text=text)

    def rename(self, **renames: str) -> Self:
        """Call a feature something else in this set: `.rename(flights_7d="busy")`."""
        self._refuse_unknown(renames, self.names or self._outputs, "chosen feature")
        together = dict(self.renames) | {old: read_name(new) for old, new in renames.items()}
        faults = same_but_for_case(together.values(), "feature")
        faults += [Fault(f"two features are renamed to '{new}'.") for new in twice(together.values())]
        if faults:
            raise SpecError(faults, "selection", self.view)
        return self.replaced(renames=tuple(together.items()))

    def name_of(self, output: str) -> str:
        """What the view's `output` is called in the set."""
        return self.prefix_text + dict(self.renames).get(output, output)

    def _refuse_unknown(self, names: Iterable[str], known: tuple[str, ...] | None, what: str) -> None:
        if known is None:
            return
        offered = set(known)
        faults = [
            Fault(f"view '{self.view}' has no {what} '{name}'.", part=name, hint=nearest(name, known, "It has"))
            for name in islice((name for name in names if name not in offered), MOST_FAULTS)
        ]
        if faults:
            raise SpecError(faults)


class ViewReference(Model):
    """A view that is reached by its name: one written in SQL, or in a file that is not imported."""

    view: Annotated[str, coerced(read_name), MEANING]

    def all(self) -> Selection:
        """Every feature of the view, as declared."""
        return Selection(view=self.view)

    def __getitem__(self, names: str | tuple[str, ...]) -> Selection:
        return Selection(view=self.view, names=chosen_names(names))


def view(name: str) -> ViewReference:
    """A view by its name: `view("aircraft_delay").all()`, `view("aircraft_delay")["flights_7d"]`."""
    return ViewReference(view=name)


def chosen_names(names: object) -> tuple[str, ...]:
    """What stands in `view[...]`: a name, or several."""
    several = names if isinstance(names, tuple) else (names,)
    wrong = [name for name in several if not isinstance(name, str)]
    if wrong:
        raise SpecError([Fault(f"{shown(name)} is not the name of a feature.") for name in wrong])
    return several
