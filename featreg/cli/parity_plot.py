"""Draw what a comparison of logged vectors found, as one HTML page without scripts: a bar for each feature, a colour for each cause."""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from featreg.instants import format_instant

if TYPE_CHECKING:
    from featreg.session.parity_log import LoggedParity

_COLOURS = {"LOGIC": "#c62828", "LATE": "#f9a825", "STALE": "#8e6bbf", "VERSION": "#1e88e5", "MISSING": "#757575"}
_BAR, _ROW = 600, 22  # pixels
_STYLE = "body{font:14px system-ui,sans-serif;margin:2rem}table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:left}"


def parity_page(found: "LoggedParity") -> str:
    """The page.  A bar is as long as the share of a feature's logged cells that are another now."""
    legend = " ".join(
        f'<span style="color:{_COLOURS[cause]}">■</span> {cause} {count:,}' for cause, count in found.causes.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>parity of {escape(found.set)}</title><style>{_STYLE}</style>'
        f"<h1>{escape(found.set)}</h1><p>{escape(str(found))}</p><p>{legend}</p>{_bars(found)}{_examples(found)}</html>"
    )


def _bars(found: "LoggedParity") -> str:
    features = sorted(found.by_feature, key=lambda name: (-sum(found.by_feature[name].values()), name))
    rows = [_bar(number, name, found.by_feature[name], found.vectors) for number, name in enumerate(features)]
    height = _ROW * max(1, len(rows))
    return f'<svg width="{_BAR + 420}" height="{height}" role="img" aria-label="cells that differ, by feature">{"".join(rows)}</svg>'


def _bar(number: int, name: str, causes: Mapping[str, int], vectors: int) -> str:
    top, left, parts = number * _ROW, 260.0, []
    for cause, colour in _COLOURS.items():
        count = causes.get(cause, 0)
        if count:
            width = max(1.0, _BAR * count / vectors)
            title = f"<title>{cause}: {count:,} of {vectors:,}</title>"
            parts.append(f'<rect x="{left:.1f}" y="{top + 3}" width="{width:.1f}" height="{_ROW - 6}" fill="{colour}">{title}</rect>')
            left += width
    told = f"{sum(causes.values()):,} of {vectors:,}"
    return (
        f'<text x="250" y="{top + 15}" text-anchor="end">{escape(name)}</text>{"".join(parts)}'
        f'<text x="{left + 8:.1f}" y="{top + 15}" fill="#555">{told}</text>'
    )


def _examples(found: "LoggedParity") -> str:
    if not found.examples:
        return ""
    rows = "".join(
        f"<tr><td>{one.cause}</td><td>{escape(one.feature)}</td><td>{escape(str(dict(one.row)))}</td><td>{format_instant(one.as_of)}</td>"
        f"<td>{escape(repr(one.served))}</td><td>{escape(repr(one.offline))}</td></tr>"
        for one in found.examples
    )
    return f"<h2>Examples</h2><table><tr><th>cause<th>feature<th>row<th>as of<th>served<th>now</tr>{rows}</table>"
