"""Say who a bearer token is and what it may do: tokens are in a file or in the environment, and only their digests are kept.

[ranking]                              # the name that logs show
token = "…"                            # or sha256 = "…", so that the file holds no secret
read = ["delay_model"]                 # sets; ["*"] is all of them
push = ["departures"]                  # sources
metrics = true
expires = 2027-01-01T00:00:00Z
"""

import hashlib
import hmac
import os
import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from featreg.errors import UsageError, did_you_mean

VARIABLE = "FEATREG_TOKENS"  # the file's text, where there is no file
SHORTEST = 16  # characters of a token
_LOOK_AGAIN = 1.0  # seconds between looks at the file
_FIELDS = {"token", "sha256", "read", "push", "metrics", "expires"}


@dataclass(frozen=True)
class Holder:
    """Who holds a token.  read, push: names, or "*".  expires: seconds since 1970."""

    name: str
    read: frozenset[str]
    push: frozenset[str]
    metrics: bool
    expires: float | None

    def may_read(self, feature_set: str) -> bool:
        return feature_set in self.read or "*" in self.read

    def may_push(self, source: str) -> bool:
        return source in self.push or "*" in self.push

    def is_expired(self, now: float) -> bool:
        return self.expires is not None and now >= self.expires


ANYONE = Holder("anyone", frozenset("*"), frozenset("*"), True, None)


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def read_tokens(text: str, where: str) -> dict[str, Holder]:
    """Holders by the digest of their token.

    Raises: UsageError naming the place and the holder, never the token.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: the tokens are no TOML ({str(error).partition('(at')[2].rstrip(')') or 'at its end'}).") from None
    holders: dict[str, Holder] = {}
    for name, entry in found.items():
        if not isinstance(entry, dict):
            raise UsageError(f"{where}: '{name}' is no table. Write [{name}], and below it token, read and push.")
        digest, holder = _read_holder(name, entry, f"{where}: [{name}]")
        if digest in holders:
            raise UsageError(f"{where}: [{holders[digest].name}] and [{name}] have one token.")
        holders[digest] = holder
    if not holders:
        raise UsageError(f"{where}: there is no token.")
    return holders


def _read_holder(name: str, entry: Mapping[str, Any], where: str) -> tuple[str, Holder]:
    unknown = sorted(set(entry) - _FIELDS)
    if unknown:
        raise UsageError(f"{where} has an unknown field '{unknown[0]}'. Fields are: {', '.join(sorted(_FIELDS))}.")
    token, digest, expires = entry.get("token"), entry.get("sha256"), entry.get("expires")
    if (token is None) == (digest is None):
        raise UsageError(f"{where} has a token, or the sha256 of one.")
    if token is not None:
        if not isinstance(token, str) or len(token) < SHORTEST or not token.isascii() or any(c.isspace() for c in token):
            raise UsageError(
                f"{where}: a token has {SHORTEST} characters or more, without spaces.\n"
                f"  Make one: python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        digest = digest_of(token)
    if not isinstance(digest, str) or len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef"):
        raise UsageError(f"{where}: sha256 is 64 hexadecimal digits.")
    if expires is not None and not isinstance(expires, datetime):
        raise UsageError(f"{where}: expires is an instant, as 2027-01-01T00:00:00Z.")
    until = None if expires is None else (expires if expires.tzinfo else expires.replace(tzinfo=UTC)).timestamp()
    names = {}
    for field in ("read", "push"):
        listed = entry.get(field, [])
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise UsageError(f'{where}: {field} is a list of names, or ["*"].')
        names[field] = frozenset(listed)
    return digest.lower(), Holder(name, names["read"], names["push"], entry.get("metrics") is True, until)


class Tokens:
    """The tokens as they are now: a changed file counts within a second; one that cannot be read leaves those before."""

    def __init__(self, path: Path | None):
        self.path = path
        self._looked_at, self._seen, self.problem = 0.0, self._mark(), ""
        self._holders = self._read()
        self._by_header: dict[bytes, Holder | None] = {}

    def holder(self, header: bytes | None) -> Holder | None:
        """Who sends this Authorization header; None for nobody, and for one whose token has expired."""
        now = time.time()
        if now - self._looked_at > _LOOK_AGAIN:
            self._look(now)
        if header is None:
            return None
        known = self._by_header.get(header)
        if known is None:
            scheme, _, token = header.partition(b" ")
            if scheme.lower() != b"bearer":
                return None
            digest = hashlib.sha256(token.strip()).hexdigest()
            known = next((holder for one, holder in self._holders.items() if hmac.compare_digest(one, digest)), None)
            if known is None:
                return None
            self._by_header[header] = known
        return None if known.is_expired(now) else known

    def unknown_names(self, sets: Iterable[str], sources: Iterable[str]) -> list[str]:
        """What holders may read or push and nobody has applied, each with the near names."""
        known = {"read": ("feature set", sorted(sets)), "push": ("source", sorted(sources))}
        return [
            f"[{holder.name}] {field}: there is no {what} '{name}'. {did_you_mean(name, there, 'Applied are')}"
            for holder in self._holders.values()
            for field, (what, there) in known.items()
            for name in sorted(getattr(holder, field) - {"*", *there})
        ]

    def _look(self, now: float) -> None:
        self._looked_at = now
        mark = self._mark()
        if mark != self._seen:
            self._seen = mark
            try:
                self._holders, self._by_header, self.problem = self._read(), {}, ""
            except UsageError as error:
                self.problem = str(error)

    def _mark(self) -> tuple[int, int] | None:
        try:
            return None if self.path is None else ((found := self.path.stat()).st_mtime_ns, found.st_ino)
        except OSError:
            return None

    def _read(self) -> dict[str, Holder]:
        if self.path is None:
            text = os.environ.get(VARIABLE)
            if not text:
                raise UsageError(
                    f"there are no tokens, so nobody could ask.\n"
                    f"  Give a file (--tokens FILE), or its text in {VARIABLE}; or --open: no tokens, for this machine alone."
                )
            return read_tokens(text, VARIABLE)
        try:
            return read_tokens(self.path.read_text(encoding="utf-8"), str(self.path))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.path}: the tokens cannot be read ({error.__class__.__name__}).") from None
