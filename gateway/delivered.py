"""Whether everything in a stopped gateway's store was delivered: what a purge of the package asks."""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from gateway.state_files import store_folder
from gateway.store import outbox, recordings, segment
from gateway.store.history import CORRUPT
from gateway.store.schema import connect_reader

_BESIDE: Final = ("replaced-", "restoring")
"""Folders of a restore in that of the store."""
_NOT_ITS: Final = ("lost+found", "edge-gateway.kept-")
"""On a disk of its own: what fsck found, what a purge before kept. No purge touches them; both are root's."""


def undelivered(state: Path) -> str:
    """Return a sentence saying what would be lost with the store, or "". Blocks.

    Every store is looked at: also what a restore moved aside, and one that `store.path` named before. Reading
    leaves files of SQLite beside a store: to be asked as the service's user, not as root.
    """
    if file := next((state / "measurements").rglob("*.hdf5"), None):
        return f"{file} is the file of a measurement"
    try:
        return next(filter(None, map(_undelivered_of, _stores(state))), "")
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"


def _stores(state: Path) -> list[Path]:
    """Return every folder that holds a store, or what is left of one."""
    folder = store_folder(state)
    found = {folder, *(path for path in folder.iterdir() if path.name.startswith(_BESIDE) and path.is_dir())}
    for inside, folders, files in os.walk(state, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(_NOT_ITS)]
        if "history" in folders or any(name.startswith("hot.db") for name in files):
            found.add(Path(inside))
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _undelivered_of(folder: Path) -> str:
    hot = folder / "hot.db"
    aside = (*folder.glob(f"*.{CORRUPT}*"), *(folder / "history").glob(f"*.{CORRUPT}*"))
    if aside:
        return f"{min(aside)} is a damaged file that may hold samples"
    segments = segment.found(folder / "history")
    if not hot.exists():
        if any(folder.glob("hot.db*")):
            return f"{folder} holds a store without its hot.db"
        return (
            f"{folder / 'history'} holds samples, and what was delivered of them is unknown"
            if segments
            else ""
        )
    try:
        with closing(connect_reader(hot)) as conn:
            sentence = _undelivered(conn, segments)
    except sqlite3.Error as error:
        return f"{hot} cannot be read: {error}"
    return sentence and f"{folder}: {sentence}"


def _undelivered(conn: sqlite3.Connection, segments: Sequence[segment.Segment]) -> str:
    if recordings.is_unfinished(conn):
        return "there is a measurement whose file is not written yet"
    uploads = outbox.uploads(conn)
    if not uploads:
        held = segments or conn.execute("SELECT 1 FROM block WHERE n > 0 LIMIT 1").fetchone()
        return "there are samples, and no upload ever had them" if held else ""
    for upload in uploads:
        blocks, _size, samples, _oldest = outbox.backlog(conn, upload)
        if blocks:
            return f"upload {upload} has not got {samples} samples in {blocks} blocks"
    if conn.execute("SELECT 1 FROM quarantine LIMIT 1").fetchone():
        return "there are samples that an upload refused (the quarantine)"
    return _never_sent(conn, segments)


def _never_sent(conn: sqlite3.Connection, segments: Sequence[segment.Segment]) -> str:
    """Say whether something is held still from when there was no upload: none gets it later."""
    to_seq = outbox.never_sent_to(conn)
    if not to_seq:
        return ""
    held = conn.execute("SELECT 1 FROM block WHERE n > 0 AND seq <= ? LIMIT 1", (to_seq,)).fetchone()
    for each in segments:
        with closing(segment.connect_verified(each.path)) as history:
            held = held or segment.holds_up_to(history, to_seq)
    return "there are samples of a time without an upload, which no upload ever had" if held else ""
