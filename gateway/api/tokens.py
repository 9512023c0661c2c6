"""Tokens for the API: 256 random bits each, kept as SHA-256 in `tokens.json` of the state folder.

The command line and the daemon share the file: each change is an atomic replacement under a lock, and
the daemon reads it again when it changed, so that a revoked token is refused within a second.
"""

import asyncio
import enum
import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.clock import Clock
from gateway.durable import give_to_owner_of, write
from gateway.model import GatewayError

_log = logging.getLogger(__name__)
_PREFIX = "egw_"
_RECHECK_NS = 1_000_000_000
ADMIN_FILE = "admin-token"


class Role(enum.IntEnum):
    """What a request may do; each role includes those before it."""

    OPEN = 0
    READ = 1
    OPERATE = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token."""

    id: str
    name: str
    role: str
    sha256: str
    created_us: int

    @property
    def rank(self) -> Role:
        return Role[self.role.upper()]


class Tokens:
    """The tokens of one gateway. The functions that touch the file block: call them in a thread."""

    def __init__(self, state: Path, clock: Clock) -> None:
        self._folder, self._clock = state, clock
        self._file = state / "tokens.json"
        self._tokens: dict[str, Token] = {}
        self._seen: tuple[int, int, int] | None = None
        self._checked_ns = -_RECHECK_NS
        self._refreshing = asyncio.Lock()
        self.problem = ""
        """A sentence where the file cannot be used: then no token is valid, and the file is left alone."""

    def open(self) -> "Tokens":
        """Read the file; at first start make it, with an admin token whose text goes to a 0600 file."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._file.exists():
            text, token = self._new("first admin", Role.ADMIN)
            # Its text first: a power cut in between must not leave a token that nobody knows.
            write(self._folder / ADMIN_FILE, f"{text}\n".encode())
            self._write([token])
            _log.info("first start: an admin token stands in %s", self._folder / ADMIN_FILE)
        self._load()
        return self

    def make(self, name: str, role: Role) -> tuple[str, Token]:
        """Make a token and return its text, which is kept nowhere, and its record."""
        if role is Role.OPEN:
            raise ValueError("a token has a role: read, operate or admin")
        text, token = self._new(name, role)
        with self._locked():
            self._write([*self._read(), token])
        return text, token

    def _new(self, name: str, role: Role) -> tuple[str, Token]:
        text = _PREFIX + secrets.token_urlsafe(32)
        return text, Token(secrets.token_hex(4), name, role.word, _digest(text), self._clock.wall_us())

    def list(self) -> Sequence[Token]:
        return self._read()

    def revoke(self, token_id: str) -> bool:
        """Remove a token by its id; says whether it was there."""
        with self._locked():
            tokens = self._read()
            kept = [token for token in tokens if token.id != token_id]
            if len(kept) < len(tokens):
                self._write(kept)
        return len(kept) < len(tokens)

    async def find(self, text: str) -> Token | None:
        """Return the record of a token's text, in a time that does not depend on how much of it is right."""
        await self._refresh()
        digest = _digest(text)
        found = None
        for token in self._tokens.values():
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found

    async def get(self, token_id: str) -> Token | None:
        """Return a token by its id, where it still stands."""
        await self._refresh()
        return self._tokens.get(token_id)

    async def _refresh(self) -> None:
        # Who asks while the file is being read waits for it, and is judged by what it holds now.
        async with self._refreshing:
            if self._clock.mono_ns() - self._checked_ns >= _RECHECK_NS:
                await asyncio.to_thread(self._load)
                self._checked_ns = self._clock.mono_ns()

    def _load(self) -> None:
        try:
            stat = self._file.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen == self._seen:
                return
            self._tokens = {token.id: token for token in self._read()}
            self._seen, self.problem = seen, ""
        except (OSError, GatewayError) as error:
            sentence = f"No token is valid: {error}"
            if sentence != self.problem:
                _log.error("%s", sentence)
            self._tokens, self._seen, self.problem = {}, None, sentence

    def _read(self) -> Sequence[Token]:
        if not self._file.exists():
            return []
        try:
            tokens = [Token(**entry) for entry in json.loads(self._file.read_bytes())["tokens"]]
            for token in tokens:
                _ = token.rank
        except (ValueError, TypeError, KeyError) as error:
            raise GatewayError(
                f"{self._file} is damaged ({error}); remove it and restart: a new admin token is made."
            ) from error
        return tokens

    def _write(self, tokens: Sequence[Token]) -> None:
        body = {"tokens": [asdict(token) for token in tokens]}
        write(self._file, json.dumps(body, indent=1).encode() + b"\n")
        self._checked_ns = -_RECHECK_NS

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self._folder / "tokens.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            give_to_owner_of(self._folder, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
