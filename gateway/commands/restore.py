"""`edge-gateway restore`: a backup becomes the store of this box, under an epoch of its own."""

import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.commands.backup import BackupProblem, Manifest, read_manifest, verify
from gateway.durable import sync
from gateway.state_files import IN_STORE
from gateway.store.anew import begin_anew
from gateway.store.hotfile import HotFile
from gateway.store.verify import Counted, Finding

_STORE = [each.pattern for each in IN_STORE if each.pattern.startswith(("hot.db", "history"))]


class Damaged(BackupProblem):
    """The backup is not whole; `findings` say where."""

    def __init__(self, message: str, findings: list[Finding]) -> None:
        super().__init__(message)
        self.findings = findings


def restore(
    source: Path, state: Path, store: Path, now_us: int, *, force: bool, damaged: bool
) -> tuple[Manifest, list[Path]]:
    """Put a backup in place; return what it is, and what was moved aside for it.

    `force` moves a store (and an identity, configuration or trust that differs) aside; `damaged` restores
    what `verify` finds fault with too. BackupProblem, StoreProblem: nothing was changed.
    """
    manifest = read_manifest(source)
    findings = [] if damaged else [each for each in verify(source, Counted()) if not each.known]
    if findings:
        raise Damaged(
            f"{source} is damaged: nothing was restored; --damaged restores what there is", findings
        )
    for folder in (state, store):
        _make(folder)
    with _locked(store):
        in_the_way = list(_in_the_way(source, manifest, state, store))
        if in_the_way and not force:
            raise BackupProblem(
                f"{in_the_way[0]} is there already: nothing was restored; --force moves it aside first"
            )
        draft = store / "restoring"
        try:
            shutil.rmtree(draft, ignore_errors=True)
            _copy(source, manifest, draft, store)
            begin_anew(draft, secrets.token_hex(8), manifest.made_us, now_us, manifest.made)
            aside = _move_aside(in_the_way, store)
            _put(draft, manifest, state, store)
        except (OSError, sqlite3.Error) as error:
            raise BackupProblem(f"{source} cannot be restored to {store}: {error}") from error
    return manifest, aside


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    lock = HotFile(store)
    lock.lock()
    try:
        _own(store / "store.lock", store)
        yield
    finally:
        lock.unlock()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BackupProblem(f"{folder} cannot be made: {error.strerror}") from error


def _in_the_way(source: Path, manifest: Manifest, state: Path, store: Path) -> Iterator[Path]:
    for path in [path for pattern in _STORE for path in sorted(store.glob(pattern))]:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        else:
            yield path
    for name in _of_state(manifest):
        path = state / name
        if path.exists() and path.read_bytes() != (source / name).read_bytes():
            yield path


def _of_state(manifest: Manifest) -> list[str]:
    return [name for name in manifest.files if name != "hot.db" and not name.startswith("history/")]


def _copy(source: Path, manifest: Manifest, draft: Path, store: Path) -> None:
    for folder in (draft, draft / "history"):
        folder.mkdir(mode=0o700)
        _own(folder, store)
    for name in manifest.files:
        target = draft / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)
        target.chmod(0o600)
        _own(target, store)


def _move_aside(in_the_way: list[Path], store: Path) -> list[Path]:
    if not in_the_way:
        return []
    number = 1
    while (folder := store / f"replaced-{number}").exists():
        number += 1
    folder.mkdir(mode=0o700)
    _own(folder, store)
    moved: list[Path] = []
    for path in in_the_way:
        target = folder / path.name
        if target.exists():  # two folders may hold files of one name
            target = folder / f"{len(moved)}-{path.name}"
        shutil.move(path, target)
        moved.append(target)
    return moved


def _put(draft: Path, manifest: Manifest, state: Path, store: Path) -> None:
    """Move what is ready into place; the hot file last: with it, a store is there."""
    for name in _of_state(manifest):
        target = state / name
        for folder in reversed([each for each in target.parents if each.is_relative_to(state)]):
            if not folder.exists():
                folder.mkdir(mode=0o700)
                _own(folder, state)
        shutil.move(draft / name, target)
        _own(target, state)
        sync(target)
        sync(target.parent)
    for path in [*(draft / "history").iterdir(), draft / "history", draft / "hot.db"]:
        sync(path)
    (draft / "history").rename(store / "history")
    sync(store)
    (draft / "hot.db").rename(store / "hot.db")
    sync(store)
    shutil.rmtree(draft, ignore_errors=True)


def _own(path: Path, like: Path) -> None:
    """Give a file to whom the folder belongs: root restores for the service's user."""
    if os.geteuid() == 0:
        owner = like.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
