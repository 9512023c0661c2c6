"""`edge-gateway backup`: a consistent copy of the store and of what a box needs to take its place.

A backup is a folder: `hot.db`, `history/`, from the state directory `gateway-id`, the last valid
configurations, whom OPC UA trusts, the series of timeseries-api and the documents of `/v1/config`, and
`backup.json` with the checksum of each file. It is made as `TARGET.partial` and renamed once all of it is on
the disk. No secret is ever in it: no private key, no password, no token and no hash of one.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from gateway.documents.dataspace import is_ours
from gateway.durable import sync
from gateway.identity import version
from gateway.model import GatewayError
from gateway.state_files import BACKED_UP, IN_STATE
from gateway.store.copying import copy_history, copy_hot
from gateway.store.read_only import hot_file, roll_back_if_idle
from gateway.store.schema import connect_reader, read_epoch
from gateway.store.verify import Counted, Finding, verify_store

MANIFEST: Final = "backup.json"
_FORMAT: Final = 1
_WITH_PASSWORD: Final = ("documents/dataspace", "documents/backup/dataspace")
"""What may hold one, unless the gateway itself wrote it."""


class BackupProblem(GatewayError):
    """A backup cannot be made, read or restored, and why."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `backup.json` says."""

    format: int
    made: str
    """ISO 8601, UTC."""
    made_us: int
    gateway: str
    epoch: str
    newest_seq: int
    version: str
    files: dict[str, str]
    """Path in the backup to SHA-256 in hex."""


def iso(now_us: int) -> str:
    return datetime.fromtimestamp(now_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def back_up(state: Path, store: Path, target: Path, now_us: int) -> tuple[Manifest, list[str]]:
    """Make a backup; return what is in it, and sentences on damage found. BackupProblem, StoreProblem."""
    path, draft = hot_file(store), target.with_name(f"{target.name}.partial")
    if target.exists() or target.is_symlink():
        raise BackupProblem(f"{target} is there already: a backup overwrites nothing, name another folder")
    roll_back_if_idle(store)
    try:
        _check_room(store, target.absolute().parent)
        draft.mkdir(mode=0o700)
    except FileExistsError:
        raise BackupProblem(
            f"{draft} was left by a backup that did not end: remove it, then try again"
        ) from None
    except OSError as error:
        raise BackupProblem(f"{target} cannot be made: {error.strerror}") from error
    try:
        newest_seq = copy_hot(path, draft / "hot.db")
        notes = copy_history(store / "history", draft / "history")
        notes += _copy_state(state, draft)
        manifest = _describe(draft, newest_seq, now_us)
        _write(draft / MANIFEST, json.dumps(asdict(manifest), indent=2).encode() + b"\n")
        _sync_all(draft)
        draft.rename(target)
        sync(target.absolute().parent)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, OSError):
            raise BackupProblem(
                f"{target} cannot be written: {error.strerror}; nothing is left of it"
            ) from error
        if isinstance(error, sqlite3.Error | ValueError):
            raise BackupProblem(
                f"the store in {store} cannot be copied: {error}; `edge-gateway verify` names every fault"
            ) from error
        raise
    return manifest, notes


def _check_room(store: Path, target: Path) -> None:
    files = [store / "hot.db", *(store / "history").glob("*.db")]
    needed, free = sum(file.stat().st_size for file in files), shutil.disk_usage(target).free
    if needed > free:
        raise BackupProblem(f"{target} has {free / 1e6:.0f} MB free, a backup may need {needed / 1e6:.0f} MB")


def _copy_state(state: Path, draft: Path) -> list[str]:
    notes = []
    for name in _of_state(state):
        data = (state / name).read_bytes()
        if b"PRIVATE KEY" in data:
            notes.append(f"{name} holds a private key and was left out: no secret goes into a backup")
        elif name.startswith(_WITH_PASSWORD) and not is_ours(data):
            notes.append(f"{name} was not written by the gateway and may hold a password; it was left out")
        else:
            (draft / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(draft / name, data)
    return notes


def _of_state(state: Path) -> Iterator[str]:
    """Yield the files to take; a device that was reached securely once is never asked without again."""
    for kept in IN_STATE:
        path = state / kept.pattern
        if kept.backed_up:
            files = [path, *sorted(path.rglob("*"))]
            names = (str(file.relative_to(state)) for file in files if file.is_file())
            yield from (name for name in names if BACKED_UP.fullmatch(name))


def _describe(draft: Path, newest_seq: int, now_us: int) -> Manifest:
    with closing(connect_reader(draft / "hot.db")) as conn:
        epoch = read_epoch(conn)
    gateway = draft / "gateway-id"
    files = sorted(file for file in draft.rglob("*") if file.is_file())
    return Manifest(
        _FORMAT, iso(now_us), now_us, gateway.read_text().strip() if gateway.is_file() else "", epoch,
        newest_seq, version(), {str(file.relative_to(draft)): sha256(file) for file in files},
    )  # fmt: skip


def read_manifest(folder: Path) -> Manifest:
    """Read `backup.json`. BackupProblem: it is none, or names what a backup never holds."""
    try:
        said: Any = json.loads((folder / MANIFEST).read_bytes())
        manifest = Manifest(**said)
        whole = manifest.format == _FORMAT and all(
            BACKED_UP.fullmatch(name) and ".." not in Path(name).parts and isinstance(digest, str)
            for name, digest in manifest.files.items()
        )
    except FileNotFoundError:
        hint = ": it did not end" if folder.name.endswith(".partial") else ""
        raise BackupProblem(f"{folder} is no whole backup{hint}: it has no {MANIFEST}") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BackupProblem(f"{folder / MANIFEST} cannot be read: {error}") from error
    if not whole or "hot.db" not in manifest.files:
        raise BackupProblem(f"{folder / MANIFEST} is not that of a backup which this edge-gateway can read")
    return manifest


def verify(folder: Path, counted: Counted) -> Iterator[Finding]:
    """Yield what is wrong with a store or a backup. BackupProblem, StoreProblem: it is neither."""
    if (folder / MANIFEST).exists() or folder.name.endswith(".partial"):
        yield from _differing(folder, read_manifest(folder))
    yield from verify_store(folder, counted)


def _differing(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    for name, digest in manifest.files.items():
        try:
            if sha256(folder / name) != digest:
                yield Finding(name, "is not what was backed up: its checksum differs")
        except OSError as error:
            yield Finding(name, f"cannot be read: {error.strerror}")


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _write(file: Path, data: bytes) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(data)


def _sync_all(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        with contextlib.suppress(PermissionError):
            path.chmod(0o700 if path.is_dir() else 0o600)  # copied segments have the modes of their sources
        sync(path)
