"""Keep bytes by key in Redis or Valkey: one string a key, and one sorted set of all keys, for scans in order.

All of a store is in one hash slot, `{namespace}`: a write may expect the record of a view and change any of its keys,
all or nothing, and Redis does that in one slot only.  So a store is as large as one server; a cluster holds many
stores, one a namespace.  Nothing expires: what no window can see goes with the key's next write.

A sorted set with one score lies in order of its members' bytes.  It costs about 100 bytes and 2 µs for a *new* key,
and nothing for a key that is written again; SCAN would cost a walk through every key of the server for each page, and
sees no one instant.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Self

import numpy as np
from redis.exceptions import NoScriptError

from featreg.errors import StoreError
from featreg.stores.contract import Beside, Keys, StoreConflict, StoreStat, Take, starts_of
from featreg.stores.redis_server import PATIENCE, RedisServer, RedisUrl, exchange, exchange_many

MOST_KEYS = 250_000  # of one write: Redis takes a million arguments
DELETES_A_PAGE = 2_000
STATS_A_PAGE = 10_000
WRITER_SECONDS = 86_400  # a writer's number is kept after its last write

# KEYS: the index, the writer's last write, what is expected, deleted, put.  ARGV: number of this write, length of the tag, numbers of
# the three, then what is expected (0, or 1 and the value), what is put, and for how long the writer is remembered.
# A writer counts its writes: one whose number is there already was done, and its answer lost.
_WRITE = b"""
local index, writer, tag = KEYS[1], KEYS[2], tonumber(ARGV[2]) + 1
local expected, gone, put = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if tonumber(redis.call('GET', writer) or 0) >= tonumber(ARGV[1]) then return {1} end
for i = 1, expected do
  local found, want = redis.call('GET', KEYS[2 + i]), ARGV[5 + i]
  if found then found = '1' .. found else found = '0' end
  if found ~= want then return {0, i, found} end
end
for i = 3 + expected, 2 + expected + gone do
  if redis.call('UNLINK', KEYS[i]) == 1 then redis.call('ZREM', index, string.sub(KEYS[i], tag)) end
end
local value = 5 - 2 - gone
for i = 3 + expected + gone, 2 + expected + gone + put do
  if not redis.call('SET', KEYS[i], ARGV[value + i], 'XX') then
    redis.call('SET', KEYS[i], ARGV[value + i])
    redis.call('ZADD', index, 0, string.sub(KEYS[i], tag))
  end
end
redis.call('SET', writer, ARGV[1], 'EX', ARGV[6 + expected + put])
return {1}
"""

# KEYS: the index.  ARGV: tag, from, to, limit.  Names, then values.
_SCAN = b"""
local names = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
local values = {}
for i, name in ipairs(names) do values[i] = redis.call('GET', ARGV[1] .. name) end
return {names, values}
"""

_DELETE = b"""
local names = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
for _, name in ipairs(names) do
  redis.call('UNLINK', ARGV[1] .. name)
  redis.call('ZREM', KEYS[1], name)
end
return #names
"""

# Bytes of a page of entries, and its last name: a key stands twice, in the index and before its value.
_SIZE = b"""
local names = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], '+', 'LIMIT', 0, ARGV[3])
local bytes = 0
for _, name in ipairs(names) do bytes = bytes + 2 * #name + #ARGV[1] + redis.call('STRLEN', ARGV[1] .. name) end
return {#names, bytes, names[#names] or ''}
"""


def open_redis(url: str, *, patience: float = PATIENCE) -> "RedisStore":
    """The store at `url` (see `RedisUrl`), which is made by its first write.

    patience: seconds for which a call goes on when no server answers.
    Raises: UsageError for what is no URL; StoreError when the server cannot be reached or used.
    """
    store = RedisStore(RedisServer(RedisUrl(url), patience))
    store.get([b"\0"])
    return store


class RedisStore:
    """A `Store`; made by `open_redis`.  Any thread may call it, and either side of a fork."""

    def __init__(self, server: RedisServer):
        self.server = server
        self._tag = b"{%s}" % server.url.namespace.encode()
        self._index = b"keys:" + self._tag
        self._bulks: list[str | None] = []
        self._mine = threading.local()
        self._hashes: dict[bytes, bytes] = {}

    def get(self, keys: Sequence[bytes], beside: Beside | None = None) -> list[bytes | None]:
        """As in `Store`.  One MGET, which Redis answers between two writes; a round trip, whatever their number."""
        known = () if beside is None else beside.keys
        if not keys and not known:
            return []
        packed = self._packed_names([Keys((b"",), [*known, *keys])])
        found: list[bytes | None] = self.server.call(lambda connection: exchange(connection, packed))
        if beside is not None:
            beside.values = found[: len(known)]
        return found[len(known) :]

    def gather(self, parts: Sequence[Keys], take: Take) -> None:
        """As in `Store`.  One MGET; the bytes of the values are copied once and are never objects."""
        from featreg.stores.redis_reply import Reply  # compiled

        counts = [part.size for part in parts]
        problems: list[Exception] = []  # of `take`: all of the answer is read before one is raised, and the connection is of use again

        def take_part(number: int, values: bytearray | memoryview, starts: np.ndarray) -> None:
            if number == 0:
                problems.clear()
            if not problems:
                try:
                    take(number, values, starts)
                except Exception as problem:
                    problems.append(problem)

        if not any(counts):
            for number in range(len(parts)):
                take(number, bytearray(), starts_of(()))
            return
        packed = self._packed_names(parts)
        reply: Reply = getattr(self._mine, "reply", None) or Reply()
        self._mine.reply = reply
        self.server.call(lambda connection: exchange_many(connection, packed, reply, counts, take_part))
        if problems:
            raise problems[0]

    def write(
        self,
        puts: Iterable[tuple[bytes, bytes]],
        deletes: Iterable[bytes] = (),
        expect: Mapping[bytes, bytes | None] | None = None,
        seen: int | None = None,
    ) -> float:
        """As in `Store`.  One script: a round trip, and done once even when its answer is lost and it is sent again.

        Redis serves nobody else while it runs: 1 µs for a key written again, 3 µs for a new one, and the time of its bytes.
        """
        rows, gone, expected = dict(puts), set(deletes), dict(expect or {})
        gone -= rows.keys()
        if len(rows) + len(gone) + len(expected) > MOST_KEYS:
            raise StoreError(f"a write names at most {MOST_KEYS:,} keys; this one names {len(rows) + len(gone) + len(expected):,}.")
        _check_keys([*rows, *gone, *expected])
        tag = self._tag
        writer, number = self._writer()
        names = [self._index, writer, *(tag + key for key in (*expected, *gone, *rows))]
        arguments = [
            number, b"%d" % len(tag), b"%d" % len(expected), b"%d" % len(gone), b"%d" % len(rows),
            *(b"0" if value is None else b"1" + value for value in expected.values()), *rows.values(), b"%d" % WRITER_SECONDS,
        ]  # fmt: skip
        began = time.perf_counter()
        found = self._run(_WRITE, names, arguments, self._same_life)
        if found[0] == 0:
            key = list(expected)[found[1] - 1]
            raise StoreConflict(key, expected[key], None if found[2] == b"0" else found[2][1:])
        return time.perf_counter() - began

    def instant(self) -> int | None:
        """As in `Store`: Redis counts no writes, so what a write expects is always compared."""
        return None

    def scan(self, prefix: bytes, start: bytes | None = None, limit: int = 10_000) -> list[tuple[bytes, bytes]]:
        """As in `Store`.  O(log entries) to its place, then 1 µs an entry, in one script."""
        first = max(prefix, start or b"")
        if limit <= 0 or not first.startswith(prefix):  # behind all that begins so
            return []
        names, values = self._run(_SCAN, [self._index], [self._tag, _from(first), _behind(prefix), b"%d" % limit])
        return list(zip(names, values))

    def delete_prefix(self, prefix: bytes) -> int:
        """As in `Store`."""
        count = 0
        while deleted := self._run(_DELETE, [self._index], [self._tag, _from(prefix), _behind(prefix), b"%d" % DELETES_A_PAGE]):
            count += deleted
        return count

    def stat(self) -> StoreStat:
        """As in `Store`: keys and values, without what Redis adds to each (some 150 bytes).  Walks through all keys, 1 µs each."""
        entries, size, after = 0, 0, b"-"
        while True:
            found, more, last = self._run(_SIZE, [self._index], [self._tag, after, b"%d" % STATS_A_PAGE])
            entries, size, after = entries + found, size + more, b"(" + last
            if found < STATS_A_PAGE:
                return StoreStat(size, entries)

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """As in `Store`: durable is what Redis is configured to keep (appendonly, replicas).

        A server that is started again, or replaced by a replica, may lack the last writes that it had confirmed.  The
        store is then whole as of an earlier instant; but a caller in the middle of many writes must not go on behind the
        gap.  So inside the block a write to another life of the server is refused.
        """
        self.get([b"\0"])
        self._bulks.append(self.server.life)
        try:
            yield
        finally:
            self._bulks.pop()

    def close(self) -> None:
        self.server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _packed_names(self, parts: Sequence[Keys]) -> bytes:
        """MGET as it goes over the wire: half of what hiredis takes, a fifth of the library's time; less where names are of one length."""
        body = b"".join(map(self._packed_part, parts))
        return b"*%d\r\n$4\r\nMGET%b\r\n" % (1 + sum(part.size for part in parts), body)

    def _packed_part(self, part: Keys) -> bytes:
        lengths = set(map(len, part.ends))
        if 0 in lengths:
            _check_keys(part.listed())
        packed = list[bytes]()
        for prefix in part.prefixes:
            before = self._tag + prefix
            heads = {length: b"\r\n$%d\r\n%b" % (len(before) + length, before) for length in lengths}
            if len(heads) == 1:
                (head,) = heads.values()
                packed += head, head.join(part.ends)
            else:
                packed += chain.from_iterable(zip(map(heads.__getitem__, map(len, part.ends)), part.ends))
        return b"".join(packed)

    def _writer(self) -> tuple[bytes, bytes]:
        """Where this thread leaves the number of its last write, and the number of the next."""
        if getattr(self._mine, "pid", None) != os.getpid():
            self._mine.pid, self._mine.number = os.getpid(), 0
            self._mine.name = b"writer:" + self._tag + secrets.token_hex(8).encode()
        self._mine.number += 1
        return self._mine.name, b"%d" % self._mine.number

    def _run(self, script: bytes, names: Sequence[bytes], arguments: Sequence[bytes], check: Callable[[], None] = lambda: None) -> Any:
        def ask(connection: Any) -> Any:
            check()
            try:
                return self._evaluate(connection, script, names, arguments)
            except NoScriptError:
                connection.send_command("SCRIPT LOAD", script)
                self._hashes[script] = connection.read_response()
                return self._evaluate(connection, script, names, arguments)

        return self.server.call(ask)

    def _evaluate(self, connection: Any, script: bytes, names: Sequence[bytes], arguments: Sequence[bytes]) -> Any:
        known = self._hashes.get(script)
        if known is None:
            raise NoScriptError
        connection.send_command("EVALSHA", known, len(names), *names, *arguments)
        return connection.read_response(disable_decoding=True)

    def _same_life(self) -> None:
        if self._bulks and self._bulks[-1] != self.server.life:
            raise StoreError(
                f"{self.server.url}: the server was restarted or replaced in the middle of this work, and may lack its last writes.\n"
                f"  Run the same command again: it finds what is there and does the rest."
            )


def _check_keys(keys: Iterable[bytes]) -> None:
    if not all(keys):
        raise StoreError("a key has 1 byte or more.")


def _from(first: bytes) -> bytes:
    return b"[" + first if first else b"-"


def _behind(prefix: bytes) -> bytes:
    """The bound behind every key that begins with `prefix`."""
    kept = prefix.rstrip(b"\xff")
    return b"(" + kept[:-1] + bytes([kept[-1] + 1]) if kept else b"+"
