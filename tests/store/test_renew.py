"""A file that is written anew after an I/O error: nothing of it is lost, wherever it is cut short."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.store import renew
from gateway.store.schema import connect, migrate

ROWS = [(n, f"reason {n}") for n in range(300)]


def filled(path: Path) -> sqlite3.Connection:
    """Make a hot file all of whose rows are in its log."""
    conn = connect(path)
    migrate(conn, path)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    conn.execute("PRAGMA wal_autocheckpoint=0").fetchall()
    conn.executemany("INSERT INTO run(id, error) VALUES (?, ?)", ROWS)
    return conn


def rows(path: Path) -> list[tuple[int, str]]:
    with closing(connect(path)) as conn:
        return conn.execute("SELECT id, error FROM run ORDER BY id").fetchall()


@pytest.mark.parametrize("refused", range(1, 9))
def test_a_disk_that_refuses_at_any_step_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    path, left = tmp_path / "hot.db", refused
    conn = filled(path)

    def failing(call: str) -> None:
        real = getattr(renew, call)

        def once(*paths: Path) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise OSError(5, "simulated")
            real(*paths)

        monkeypatch.setattr(renew, call, once)

    for call in ("sync", "_rename", "_remove"):
        failing(call)
    tries = 0
    while tries < 3:
        tries += 1
        try:
            renew.renew(path, conn, lambda: None)
        except OSError:
            continue
        break
    assert tries == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["hot.db"]
    assert rows(path) == ROWS


def test_a_copy_that_was_left_waiting_takes_its_place_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hot.db"
    conn = filled(path)
    with monkeypatch.context() as patch:
        patch.setattr(renew, "take_place", lambda _: None)
        renew.renew(path, conn, lambda: None)
    path.with_name("hot.db-wal").unlink(missing_ok=True)
    renew.take_place(path)
    assert rows(path) == ROWS
