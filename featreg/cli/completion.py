"""Complete names at the tab key, from the kept listing; what cannot be read completes to nothing."""

from collections.abc import Callable
from pathlib import Path

import typer

from featreg.cli.arguments import find_root


def complete_names(*kinds: str) -> Callable[[typer.Context, str], list[str]]:
    """A completer over names of these kinds: views, features, sets, sources, entities."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        from featreg.cli.listing import list_working_tree, names_of
        from featreg.errors import FeatregError

        given = context.find_root().params.get("root")
        try:
            listing = list_working_tree(Path(given) if given else find_root(Path.cwd()))
        except (FeatregError, OSError):
            return []
        return [name for name in names_of(listing, kinds) if name.startswith(incomplete)]

    return complete
