"""Whether everything in a stopped gateway's store was delivered: what a purge of the package asks."""

import sqlite3
from pathlib import Path

from gateway.store import outbox, recordings
from gateway.store.history import CORRUPT
from gateway.store.schema import connect_reader


def remember_store(state: Path, folder: Path) -> None:
    """Point from the state directory to a store elsewhere, so that a purge finds it. Blocks."""
    state, folder = state.absolute(), folder.absolute()
    link = state / "store"
    if link.is_symlink() and (folder == state or link.readlink() != folder):
        link.unlink()
    if folder != state and not link.is_symlink():
        link.symlink_to(folder)


def undelivered(state: Path) -> str:
    """Return a sentence saying what would be lost with the store, or "". Blocks.

    Reading leaves files of SQLite beside the store: to be asked as the service's user, not as root.
    """
    link = state / "store"
    folder = link if link.is_symlink() else state
    hot = folder / "hot.db"
    if set_aside := sorted(folder.rglob(f"*.{CORRUPT}*")):
        return f"{set_aside[0]} is a damaged file that may hold samples"
    if file := next((state / "measurements").glob("*.hdf5"), None):
        return f"{file} is the file of a measurement"
    history = any((folder / "history").glob("*.db"))
    if not hot.exists():
        return (
            f"{folder / 'history'} holds samples, and what was delivered of them is unknown"
            if history
            else ""
        )
    try:
        conn = connect_reader(hot)
        try:
            return _undelivered(conn, history)
        finally:
            conn.close()
    except sqlite3.Error as error:
        return f"{hot} cannot be read: {error}"


def _undelivered(conn: sqlite3.Connection, history: bool) -> str:
    if recordings.is_unfinished(conn):
        return "there is a measurement whose file is not written yet"
    uploads = outbox.uploads(conn)
    if not uploads:
        held = history or conn.execute("SELECT 1 FROM block WHERE n > 0 LIMIT 1").fetchone()
        return "there are samples, and no upload ever had them" if held else ""
    for upload in uploads:
        blocks, _size, samples, _oldest = outbox.backlog(conn, upload)
        if blocks:
            return f"upload {upload} has not got {samples} samples in {blocks} blocks"
    if conn.execute("SELECT 1 FROM quarantine LIMIT 1").fetchone():
        return "there are samples that an upload refused (the quarantine)"
    return ""
