"""Makes a restored copy of a store one of its own, before anybody opens it."""

import sqlite3
from contextlib import closing
from pathlib import Path

from gateway.model import Gap
from gateway.store import segment
from gateway.store.outbox import insert_gap
from gateway.store.schema import (
    StoreProblem,
    connect,
    connect_reader,
    is_corrupt,
    migrate,
    put_meta,
    read_epoch,
)
from gateway.store.series import renew_records


def begin_anew(folder: Path, epoch: str, made_us: int, now_us: int, made: str) -> None:
    """Give the store in a folder a new epoch, and record the hole since the backup (`made`, in words).

    The original may have gone on under the old epoch, and a delivery key must never stand for two different
    units. What was folded and not deleted stays known as such; seqs go on after all that was ever seen; units
    are cut again; the newest samples are looked up again at the start. StoreProblem, sqlite3.Error.
    """
    with closing(connect_reader(folder / "hot.db")) as conn:
        old = read_epoch(conn)
    floors = [_rename_epoch(each.path, old, epoch) for each in segment.found(folder / "history")]
    with closing(connect(folder / "hot.db")) as conn:
        migrate(conn, folder / "hot.db")
        conn.execute("BEGIN IMMEDIATE")
        for what in (
            "max(seq) FROM block",
            "max(to_seq) FROM acked",
            "value FROM meta WHERE key = 'seq_floor'",
        ):
            row = conn.execute(f"SELECT {what}").fetchone()
            floors.append(int(row[0] or 0) if row else 0)
        put_meta(conn, "epoch", epoch)
        put_meta(conn, "seq_floor", max(floors))
        renew_records(conn)
        conn.execute("DELETE FROM snapshot")
        conn.execute("DELETE FROM unit")
        reason = f"the store was restored from a backup made at {made}: what came after it is missing"
        insert_gap(conn, Gap(min(made_us, now_us), now_us, reason), max(floors) + 1)
        conn.execute("COMMIT")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _rename_epoch(path: Path, old: str, new: str) -> int:
    """Rename the folds of an epoch; return the last seq that they took."""
    try:
        with closing(segment.connect_writer(path)) as conn:
            last = segment.newest_seq(conn)
            segment.rename_epoch(conn, old, new)
            return last
    except sqlite3.Error as error:
        if is_corrupt(error):
            return 0  # the daemon sets it aside
        raise StoreProblem(f"{path} cannot be restored: {error}") from error
