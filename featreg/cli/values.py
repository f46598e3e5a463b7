"""Word how the values of two versions differ."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featreg.session.values import Example, ValueChange

_NAMES = ("min", "5 %", "median", "95 %", "max")


def value_text(one: "ValueChange") -> str:
    """As `recent.spent_7d: 42 of 100 rows differ (42 %), NULL 3 → 5; after - before: -1 (5 %) 0 (50 %) ...`."""
    if one.note:
        return f"{one.name}: {one.note}; NULL in {one.nulls_after:,} of {one.rows:,} rows"
    spread = ", ".join(f"{name} {_short(value)}" for name, value in zip(_NAMES, one.quantiles))
    if one.changed is None:
        return f"{one.name}: new, NULL in {one.nulls_after:,} of {one.rows:,} rows" + (f"; {spread}" if spread else "")
    share = f" ({100 * one.changed / one.rows:.3g} %)" if one.rows else ""
    told = f"{one.name}: {one.changed:,} of {one.rows:,} rows differ{share}, NULL {one.nulls_before:,} → {one.nulls_after:,}"
    return told + (f"; after - before: {spread}" if spread and one.changed else "")


def _short(number: float) -> str:
    return f"{number:,.6g}"


def example_text(one: "Example") -> str:
    key = ", ".join(f"{name}={value}" for name, value in one.key.items())
    return f"{key} as of {one.as_of}: {one.before} → {one.after}"


def value_document(one: "ValueChange") -> dict[str, Any]:
    from featreg.session.values import QUANTILES

    quantiles = {str(share): value for share, value in zip(QUANTILES, one.quantiles)}
    return vars(one) | {"quantiles": quantiles, "examples": [vars(example) for example in one.examples]}
