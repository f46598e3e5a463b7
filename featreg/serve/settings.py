"""What `featreg serve` is told: by the profile's `[serve]`, or on the command line."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from featreg.errors import UsageError, did_you_mean

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ServeSettings:
    """Where the service listens and what it allows.

    workers: processes.  threads: of each, for what may have to wait (a store that is a server, pushes, large reads).
    deadline: seconds for a request, its body included.  drain: seconds for which requests are finished after SIGTERM.
    max_body: bytes.  max_keys, max_rows: of one read, of one push.  connections: of a worker, at once.
    tokens: a file.  open: without tokens.  log: "all" requests or only "errors".
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    threads: int = 4
    deadline: float = 5.0
    drain: float = 10.0
    max_body: int = 8_000_000
    max_keys: int = 1_000
    max_rows: int = 50_000
    connections: int = 4_096
    tokens: str | None = None
    open: bool = False
    log: str = "all"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            wanted = (int, float) if field.type is float else field.type
            if not isinstance(value, wanted) or (isinstance(value, bool) and field.type is not bool):  # type: ignore[arg-type]
                raise UsageError(f"[serve] {field.name} is a {_named(field.type)}, and {value!r} is none.")
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value <= 0 and field.name != "port":
                raise UsageError(f"[serve] {field.name} is more than 0.")
        if self.log not in ("all", "errors"):
            raise UsageError(f'[serve] log is "all" or "errors", and not {self.log!r}.')
        if self.open and self.host not in LOOPBACK:
            raise UsageError(f"without tokens the service is for this machine alone, not for {self.host}.\n  Give it --tokens FILE.")


def _named(kind: Any) -> str:
    return {int: "whole number", float: "number", bool: "truth"}.get(kind, "text")


def serve_settings(profile: Mapping[str, Any], given: Mapping[str, Any]) -> ServeSettings:
    """The profile's `[serve]`, and what the command line says instead.  Raises: UsageError for a setting that is none."""
    known = [field.name for field in fields(ServeSettings)]
    for name in profile:
        if name not in known:
            raise UsageError(f"[serve]: unknown setting '{name}'.\n  {did_you_mean(name, known, 'Settings are')}")
    return replace(ServeSettings(**profile), **{name: value for name, value in given.items() if value is not None})


def as_document(settings: ServeSettings) -> dict[str, Any]:
    return asdict(settings)
