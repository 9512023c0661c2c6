"""A store opened only to be read, beside a running daemon or without one: for `export` and `verify`."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from gateway.model import SeriesInfo
from gateway.store import deletions, segment
from gateway.store.hotfile import HotFile
from gateway.store.past import Damage, Past
from gateway.store.reader import Readers
from gateway.store.reads import Reads
from gateway.store.schema import MIGRATIONS, StoreProblem, connect_reader, is_disk, read_epoch
from gateway.store.segment import Segment
from gateway.store.series import load_series
from gateway.store.tombstones import Tombstones


class Shelf:
    """The history of a folder as it is at each moment: a daemon may fold, delete and unlink meanwhile."""

    def __init__(self, folder: Path, conn: sqlite3.Connection) -> None:
        """`conn`: to the hot file, for this object alone."""
        self._folder, self._conn = folder / "history", conn
        self._lock = threading.Lock()
        self._as_of: tuple[int, int] | None = None
        self._deleted = Tombstones()
        self.epoch = read_epoch(conn)

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(segment.found(self._folder))

    @property
    def deleted(self) -> Tombstones:
        with self._lock:
            as_of = self._conn.execute("SELECT count(*), coalesce(max(id), 0) FROM tombstone").fetchone()
            if as_of != self._as_of:
                self._deleted, self._as_of = deletions.load(self._conn), as_of
            return self._deleted

    def reading(self) -> Past:
        return Past(lambda: self.segments, lambda: self.epoch, lambda: self.deleted)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold nothing: blocks are read before chunks, so that what is folded meanwhile is not missed."""
        yield


class ReadOnlyStore(Reads):
    """What `Store` answers, without a writer. What cannot be read is left out and noted in `problems`."""

    def __init__(self, folder: Path) -> None:
        """Open a store, or the store of a backup. StoreProblem: there is none, or it cannot be read."""
        path = hot_file(folder)
        roll_back_if_idle(folder)
        self._conn = connect_reader(path)
        try:
            self._history = Shelf(folder, self._conn)
            self.series = dict(load_series(self._conn))
            for each in self._history.segments:
                with suppress(sqlite3.DatabaseError, FileNotFoundError):  # noted where it is read
                    self.series |= {n: info for n, info in segment.names(each.path) if n not in self.series}
        except (sqlite3.Error, TypeError, ValueError) as error:
            self._conn.close()
            raise StoreProblem(
                f"{path} cannot be read: {error}; `edge-gateway verify` names every fault"
            ) from error
        self._readers = Readers(path, lambda: 0, self._history)
        self.problems: dict[str, None] = {}
        """Sentences, each once."""

    def close(self) -> None:
        self._readers.close()
        self._conn.close()

    def _damaged(self, seqs: list[int], damage: list[Damage]) -> None:
        self.problems |= {f"block {seq} is damaged: its samples are left out": None for seq in seqs}
        self.problems |= {f"{each.gap.reason}: its samples are left out": None for each in damage}

    def chosen(self, device: str | None, tags: list[str]) -> dict[int, SeriesInfo]:
        """Return the series of a device and of tags; none given: of all. StoreProblem: there is no such."""
        found = {n: i for n, i in self.series.items() if device is None or i.device == device}
        if device is not None and not found:
            known = ", ".join(sorted({info.device for info in self.series.values()})) or "none"
            raise StoreProblem(f'the store has no device "{device}"; it has: {known}')
        for tag in tags:
            if not any(info.tag == tag for info in found.values()):
                where = f'device "{device}"' if device is not None else "the store"
                raise StoreProblem(f'{where} has no tag "{tag}"')
        return {n: info for n, info in found.items() if not tags or info.tag in tags}


def hot_file(folder: Path) -> Path:
    """Return the hot file of a store of a version that is known here. StoreProblem: there is none."""
    path = folder / "hot.db"
    if not path.is_file():
        raise StoreProblem(
            f"there is no store in {folder}: name its folder with --store (`store.path` in the YAML)"
        )
    try:
        with closing(connect_reader(path)) as conn:
            version = conn.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        hint = "may its folder be written?" if is_disk(error) else "`edge-gateway verify` names every fault"
        raise StoreProblem(f"{path} cannot be read: {error}; {hint}") from error
    if version != len(MIGRATIONS):
        raise StoreProblem(
            f"{path} is a store of version {version}, this edge-gateway reads version {len(MIGRATIONS)}: use "
            "the edge-gateway that wrote it, or start this one on it first"
        )
    return path


def roll_back_if_idle(folder: Path) -> None:
    """Roll back what a crash cut short in the newest segment; a daemon that runs has done so itself."""
    newest = segment.found(folder / "history")[-1:]
    if not newest or not newest[0].path.with_name(f"{newest[0].path.name}-journal").exists():
        return
    hot = HotFile(folder)
    with suppress(StoreProblem, sqlite3.Error):  # in use, or it may not be written: then reading says so
        hot.lock()
        try:
            segment.connect_writer(newest[0].path).close()
        finally:
            hot.unlock()
