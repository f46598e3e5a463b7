"""Complete names at the tab key, from the kept listing and the log; what cannot be read completes to nothing."""

from collections.abc import Callable
from pathlib import Path

import typer

from featreg.cli.arguments import find_root


def complete_names(*kinds: str) -> Callable[[typer.Context, str], list[str]]:
    """A completer over names of these kinds: views, features, sets, sources, entities."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        from featreg.cli.listing import list_working_tree, names_of
        from featreg.errors import FeatregError

        try:
            listing = list_working_tree(_root_of(context))
        except (FeatregError, OSError):
            return []
        return [name for name in names_of(listing, kinds) if name.startswith(incomplete)]

    return complete


def complete_kept(*kinds: str) -> Callable[[typer.Context, str], list[str]]:
    """A completer over what the log holds and is not removed: ids of `snapshots` or `training_sets`, or names of `pins`."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        from featreg.errors import FeatregError
        from featreg.registry.kept_state import load_state
        from featreg.registry.log import open_log
        from featreg.session.profile import read_profile

        try:
            profile = read_profile(_root_of(context), context.find_root().params.get("profile") or "local")
            if profile.registry_url is None and not profile.registry_path.exists():
                return []
            log = open_log(profile.registry_path, profile.registry_url, profile.clock_tolerance)
            try:
                state = load_state(log, profile.control_cache)
            finally:
                log.close()
        except (FeatregError, OSError):
            return []
        found = {
            "pins": list(state.pins),
            "snapshots": [one.id[:12] for one in state.snapshots.values() if one.removed_at is None],
            "training_sets": [one.id[:12] for one in state.kept_training_sets],
        }
        return [name for kind in kinds for name in found[kind] if name.startswith(incomplete)]

    return complete


def complete_profiles(context: typer.Context, incomplete: str) -> list[str]:
    return sorted(path.stem for path in (_root_of(context) / "conf").glob("*.toml") if path.stem.startswith(incomplete))


def _root_of(context: typer.Context) -> Path:
    given = context.find_root().params.get("root")
    return Path(given) if given else find_root(Path.cwd())
