"""Who may write: `users.json` as timeseries-api has it, read again when it was edited."""

import asyncio
import hashlib
import hmac
import json
import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from gateway.durable import write

_log = logging.getLogger(__name__)
KEPT: Final = "timeseries-users.json"
"""In the state directory: the last users that were valid, by the SHA-256 of their tokens."""
_MOST_BYTES: Final = 1_000_000
_FORM: Final = '{"TOKEN": {"name": "NAME", "id": 1}}'


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may write. Several tokens with the same name and id are the same user."""

    name: str
    id: str


class Users:
    """The users of one file. A file that cannot be used leaves the last valid users, also at a restart."""

    def __init__(self, file: Path, state: Path) -> None:
        self._file, self._kept = file, state / KEPT
        self._users: dict[str, User] | None = None
        """SHA-256 of the token, in hex, to user."""
        self._seen: tuple[int, int, int, int] | None = None
        self.problem = ""
        """A sentence while the file cannot be used."""

    async def refresh(self) -> None:
        """Read the file if it changed."""
        await asyncio.to_thread(self._refresh)

    def find(self, token: str) -> User | None:
        """Return whose token it is, in a time that does not depend on how much of it is right."""
        digest, found = _digest(token), None
        for known, user in (self._users or {}).items():
            if hmac.compare_digest(known, digest):
                found = user
        return found

    def name_of(self, user_id: str) -> str | None:
        return next((user.name for user in (self._users or {}).values() if user.id == user_id), None)

    def _refresh(self) -> None:
        try:
            status = self._file.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)
            if seen == self._seen:
                return
            users = _users(self._read())
        except (OSError, ValueError) as error:
            self._broken(error)
            return
        if users != self._users:
            self._keep(users)
            _log.info("%s: %d users of the timeseries contract", self._file, len(set(users.values())))
        self._users, self._seen, self.problem = users, seen, ""

    def _read(self) -> bytes:
        descriptor = os.open(self._file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ValueError("it is not a regular file")
            if mode & stat.S_IROTH:
                raise ValueError(f"every user of this machine can read it; run: chmod 640 {self._file}")
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
        return data

    def _broken(self, error: OSError | ValueError) -> None:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        if self._users is None:
            self._users = self._last_valid()
        rest = "the last valid users stay" if self._users else "nobody may write"
        sentence = f"{self._file} cannot be used, {rest}: {reason}"
        if sentence != self.problem:
            _log.error("%s", sentence)
        self._seen, self.problem = None, sentence

    def _keep(self, users: Mapping[str, User]) -> None:
        kept = {digest: asdict(user) for digest, user in users.items()}
        try:
            write(self._kept, json.dumps(kept, indent=1).encode() + b"\n")
        except OSError as error:
            _log.warning("%s cannot be kept for the next start: %s", self._kept, error.strerror)

    def _last_valid(self) -> dict[str, User]:
        try:
            kept = json.loads(self._kept.read_bytes())
            return {digest: User(**each) for digest, each in kept.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            _log.warning("%s cannot be used: %s", self._kept, error)
            return {}


def _users(data: bytes) -> dict[str, User]:
    """Return the users by digest. ValueError with a sentence, in which no token stands."""
    try:
        document = json.loads(data, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from None
    if not isinstance(document, dict):
        raise ValueError(f"it is not a JSON object such as {_FORM}")
    users = {
        _digest(token): _user(number, token, each) for number, (token, each) in enumerate(document.items(), 1)
    }
    names: dict[str, str] = {}
    for user in users.values():
        if names.setdefault(user.id, user.name) != user.name:
            raise ValueError(f'"{names[user.id]}" and "{user.name}" both have the id {user.id}')
    return users


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a token or a name in it is given twice")
    return found


def _user(number: int, token: str, entry: Any) -> User:
    if not token:
        raise ValueError(f"entry {number} has an empty token")
    name, user_id = (entry.get("name"), entry.get("id")) if isinstance(entry, dict) else (None, None)
    if not isinstance(name, str) or not name:
        raise ValueError(f"entry {number} has no name; it is written {_FORM}")
    if isinstance(user_id, bool) or not isinstance(user_id, int | str) or user_id == "":
        raise ValueError(f'"{name}" (entry {number}) has no id; it is written {_FORM}')
    return User(name, str(user_id))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
