"""Read `conf/<profile>.toml`: where data lives and what runs, never what a feature means."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featreg.errors import UsageError, did_you_mean
from featreg.instants import parse_duration

STATE_FOLDER = ".featreg"
_KNOWN = {"engine", "sources", "online", "registry", "duckdb", "spark", "require_clean", "serve", "streams"}
_ENGINES = ("duckdb", "spark")
_ONLINE = {"store", "path", "url", "replay", "stale_after", "push_ids", "log"}
_REGISTRY = {"path", "url", "clock_tolerance"}
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Profile:
    """Settings of one profile; relative paths are relative to the repository's root.

    replay, stale_after, push_ids, clock_tolerance: microseconds, see `[online]` and `[registry]`.
    log: the share of keys whose served vectors are logged.  online_url, registry_url: of servers; they may hold a password.
    patience: seconds for which such a server is waited for; None is the store's own.  serve, streams: as they stand.
    """

    name: str
    root: Path
    engine: str = "duckdb"
    sources: Mapping[str, object] = field(default_factory=dict)
    store: str = "lmdb"
    online_path: Path = Path(STATE_FOLDER, "online")
    online_url: str | None = field(default=None, repr=False)
    registry_path: Path = Path(STATE_FOLDER, "registry")
    registry_url: str | None = field(default=None, repr=False)
    clock_tolerance: int = parse_duration("1m")
    duckdb: Mapping[str, object] = field(default_factory=dict)
    spark: Mapping[str, object] = field(default_factory=dict)
    replay: int = parse_duration("10m")
    stale_after: int = parse_duration("10m")
    push_ids: int = parse_duration("7d")
    log: float = 0.0
    require_clean: bool = False
    serve: Mapping[str, object] = field(default_factory=dict)
    streams: Mapping[str, object] = field(default_factory=dict, repr=False)
    patience: float | None = None

    @property
    def state(self) -> Path:
        return self.root / STATE_FOLDER

    @property
    def control_cache(self) -> Path:
        """The kept fold of this profile's log."""
        return self.state / "cache" / f"control-{self.name}.json"

    @property
    def events_path(self) -> Path:
        """Where this machine's events are, whoever else shares the registry."""
        return self.state / "events"

    def push_path(self, source: str) -> Path:
        """Where the rows are that were pushed to a source; beside the control log, for they are nowhere else."""
        return self.registry_path / "push" / source


def read_profile(root: Path, name: str) -> Profile:
    """The profile's file, or the defaults when it is `local` and there is none.

    Raises: UsageError naming the file for what it cannot mean.
    """
    path = root / "conf" / f"{name}.toml"
    if not path.is_file():
        if name != "local":
            known = sorted(file.stem for file in path.parent.glob("*.toml"))
            raise UsageError(f"there is no profile '{name}'.\n  {did_you_mean(name, known, 'Profiles in conf/ are')}")
        return Profile(name, root, online_path=root / STATE_FOLDER / "online", registry_path=root / STATE_FOLDER / "registry")
    settings = _substituted(_settings_in(path), path.name)
    _refuse_unknown(settings, _KNOWN, path.name)
    online, registry = _table(settings, "online", path.name), _table(settings, "registry", path.name)
    _refuse_unknown(online, _ONLINE, f"{path.name} [online]")
    engine, store, url = settings.get("engine", "duckdb"), str(online.get("store", "lmdb")), online.get("url")
    _refuse_unknown(registry, _REGISTRY, f"{path.name} [registry]")
    log_url = registry.get("url")
    if log_url is not None and not str(log_url).startswith(("postgresql://", "postgres://")):
        raise UsageError(f"conf/{path.name}: [registry] url is a url of PostgreSQL, as postgresql://user:${{PASSWORD}}@host/database.")
    if engine not in _ENGINES:
        raise UsageError(f"conf/{path.name}: engine {engine!r} is not here. Engines are: {', '.join(_ENGINES)}.")
    return Profile(
        name=name,
        root=root,
        engine=str(engine),
        sources=_table(settings, "sources", path.name),
        store=store,
        online_path=root / str(online.get("path", f"{STATE_FOLDER}/online")),
        online_url=None if url is None else str(url),
        registry_path=root / str(registry.get("path", f"{STATE_FOLDER}/registry")),
        registry_url=None if log_url is None else str(log_url),
        clock_tolerance=parse_duration(str(registry.get("clock_tolerance", "1m"))),
        duckdb=_table(settings, "duckdb", path.name),
        spark=_table(settings, "spark", path.name),
        replay=parse_duration(str(online.get("replay", "10m"))),
        stale_after=parse_duration(str(online.get("stale_after", "10m"))),
        push_ids=parse_duration(str(online.get("push_ids", "7d"))),
        log=_share(online.get("log", 0.0), path.name),
        require_clean=bool(settings.get("require_clean", False)),
        serve=_table(settings, "serve", path.name),
        streams=_table(settings, "streams", path.name),
    )


def source_names(root: Path, name: str) -> list[str]:
    """The sources that a profile gives places to, whatever else it lacks here.  Raises: UsageError when there is no such profile."""
    path = root / "conf" / f"{name}.toml"
    return list(_settings_in(path).get("sources", {}) if path.is_file() else read_profile(root, name).sources)


def _settings_in(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"conf/{path.name}: {error}") from None


def _share(value: object, file: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise UsageError(f"conf/{file}: [online] log = {value!r} is no share of keys. Give a number from 0 to 1, such as 0.01.")
    return float(value)


def _table(settings: Mapping[str, object], name: str, file: str) -> dict[str, object]:
    value = settings.get(name, {})
    if not isinstance(value, dict):
        raise UsageError(f"conf/{file}: [{name}] is a table.")
    return value


def _refuse_unknown(settings: Mapping[str, object], known: set[str], where: str) -> None:
    for key in settings:
        if key not in known:
            raise UsageError(f"conf/{where}: unknown setting '{key}'.\n  {did_you_mean(key, sorted(known), 'Settings are')}")


def _substituted(value: Any, file: str) -> Any:
    """`${NAME}` becomes the environment's value."""
    match value:
        case str():

            def variable(found: re.Match[str]) -> str:
                if found[1] not in os.environ:
                    raise UsageError(f"conf/{file}: the environment has no {found[1]}. Set it, or write the value.")
                return os.environ[found[1]]

            return _VARIABLE.sub(variable, value)
        case dict():
            return {key: _substituted(item, file) for key, item in value.items()}
        case list():
            return [_substituted(item, file) for item in value]
    return value
