"""Open the online store that a profile names: LMDB and Redis are here, others come by the entry point group `featreg.stores`.

An entry point's name is the store's; it is called with the profile and returns a `featreg.stores.contract.Store`.
"""

from importlib.metadata import entry_points
from typing import cast

from featreg.errors import UsageError, did_you_mean
from featreg.session.profile import Profile
from featreg.stores.contract import Store

GROUP = "featreg.stores"
HERE = ("lmdb", "redis")


def open_store(profile: Profile) -> Store:
    """The profile's store; each call wants one `close()`.

    Raises: StoreError; UsageError for a store that is not installed, or lacks its url.
    """
    match profile.store:
        case "lmdb":
            from featreg.stores.lmdb import open_store as open_lmdb

            return open_lmdb(profile.online_path)
        case "redis":
            return _open_redis(profile)
    outside = {point.name: point for point in entry_points(group=GROUP)}
    if profile.store not in outside:
        known = did_you_mean(profile.store, [*HERE, *outside], "Stores are")
        raise UsageError(f"conf/{profile.name}.toml: store {profile.store!r} is not here.\n  {known}")
    return cast(Store, outside[profile.store].load()(profile))


def has_store(profile: Profile) -> bool:
    """Whether a store may be there; a folder is made by the first run, a server is asked."""
    return profile.store != "lmdb" or profile.online_path.exists()


def _open_redis(profile: Profile) -> Store:
    if profile.online_url is None:
        raise UsageError(f'conf/{profile.name}.toml: store = "redis" needs its place.\n  Write url = "redis://HOST:6379/0" in [online].')
    try:
        from featreg.stores.redis import open_redis
    except ModuleNotFoundError:
        raise UsageError("store = \"redis\" needs the client.\n  pip install 'featreg[redis]'") from None
    return open_redis(profile.online_url) if profile.patience is None else open_redis(profile.online_url, patience=profile.patience)
