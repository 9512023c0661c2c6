"""Looking a hot file over: what SQLite's own check sees, what it does not, and a WAL that lost its end."""

import os
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from gateway.model import Gap
from gateway.store import recordings, segment
from gateway.store.blocks import CORRUPT
from gateway.store.codec import CorruptBlock, Kind, decode_header
from gateway.store.pages import checksum, frames
from gateway.store.past import Damage, damaged_chunk
from gateway.store.records import row_crc
from gateway.store.schema import (
    APPLICATION_ID,
    MIGRATIONS,
    Damaged,
    check_integrity,
    connect_reader,
    is_corrupt,
    is_disk,
    is_read_only,
    schema_crc,
)
from gateway.store.segment import Segment
from gateway.store.series import load_series

AT_START_BYTES = 64 * 1024 * 1024
"""A file up to this size is looked over before it is used, a larger one while it is."""
_BLOCKS = 64
_SLICE_S = 0.02
_SHARE = 0.1
"""Of a core, and of what the disk gives: looking over gigabytes after a start holds up nobody."""
_GUARDED = {
    "meta": "key, value",
    "tag_unit": "series, since_seq, unit",
    "gap": "seq, device, upload, from_us, to_us, count, reason",
    "upload": "id, since_seq",
    "acked": "upload, from_seq, to_seq",
    "unit": "upload, lane, from_seq, to_seq, encoding, created_us, deletion",
    "quarantine": "upload, at_us, reason, bytes",
    "file": "upload, name, revision, due, since_us, replace, intent, local, md5, size, etag, remote_id, "
    "stored_us, remote",
}
"""Tables whose rows have a checksum, and the columns that it is of."""
_SHM = struct.Struct("<IIIBBHII8s8s")
_SHM_CHECKSUM = struct.Struct("<II")
_SHM_BACKFILLED = 96


def look_over(path: Path, *, thorough: bool = True, same_boot: bool = True) -> list[int]:
    """Raise sqlite3.Error where a file or its WAL is not what was written; return seqs of damaged blocks.

    `thorough`: read all of it. `same_boot`: the machine has run since it was last used. A file that does not
    exist, or of another version, is none of its business.
    """
    if not path.exists():
        return []
    published = _published(path, same_boot=same_boot)
    try:
        with closing(_connect(path)) as conn:
            if not _known(conn, path):
                return []
            _check_wal(path, published)
            return _check(conn) if thorough else []
    except (KeyError, TypeError, ValueError) as error:  # text that is none, a number of another type
        raise Damaged(f"its content is damaged: {error}") from error
    except sqlite3.Error as error:
        if is_disk(error):
            raise
        raise Damaged(f"its content is damaged: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    """Open a file read-only: the last one that can write removes the WAL as it closes, damaged or not."""
    try:
        return connect_reader(path)
    except sqlite3.OperationalError as error:
        if not is_read_only(error):
            raise
    # It was cut short while it was made: before there is a WAL, a journal has to be rolled back.
    return sqlite3.connect(path, isolation_level=None)


def _known(conn: sqlite3.Connection, path: Path) -> bool:
    version, application = (
        conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")
    )
    tables = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not version and not application and not tables:
        if (path.parent / "history").exists():  # made after the first commit
            raise Damaged("it is empty")
        return False
    if application - APPLICATION_ID != version:  # not "|": a version may hold no bit that the id lacks
        raise Damaged(f"its header says version {version} and {application:#x}")
    return bool(version == len(MIGRATIONS))


def changed_rows(conn: sqlite3.Connection) -> Iterator[str]:
    """Yield a sentence for each row whose own checksum fails."""
    for table, columns in _GUARDED.items():
        for *row, crc in conn.execute(f"SELECT {columns}, crc FROM {table} NOT INDEXED"):
            if row_crc(*row) != crc:
                yield f"a row of its table {table} was changed"


def _check(conn: sqlite3.Connection, rest: Callable[[], None] = lambda: None) -> list[int]:
    for changed in changed_rows(conn):
        raise Damaged(changed)
    (expected,) = conn.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() or (None,)
    if expected != schema_crc(conn):
        raise Damaged("its schema was changed")
    load_series(conn)
    recordings.rows(conn)
    check_integrity(conn)
    return _check_blocks(conn, rest)


def _check_blocks(conn: sqlite3.Connection, rest: Callable[[], None]) -> list[int]:
    """Compare each row with the header of its block, which its checksum covers; return the damaged blocks."""
    bad: list[int] = []
    after = 0
    while rows := conn.execute(
        "SELECT seq, kind, n, size_bytes, wall_us, t0, t1, data FROM block WHERE seq > ? "
        "ORDER BY seq LIMIT ?",
        (after, _BLOCKS),
    ).fetchall():
        for seq, kind, n, size, wall_us, t0, t1, data in rows:
            try:
                header = decode_header(data)
                if header.seq != seq:
                    raise CorruptBlock(f"block {header.seq} in the place of block {seq}")
            except CorruptBlock:
                if kind not in (Kind.SAMPLES, CORRUPT):
                    raise Damaged(f"block {seq} is damaged") from None
                if kind == Kind.SAMPLES:
                    bad.append(seq)
                continue
            row = (header.kind, header.n, len(data), header.wall_us, header.t0, header.t1)
            if not header.n:
                row = (*row[:4], t0, t1)
            if (kind, n, size, wall_us, t0, t1) != row:
                raise Damaged(f"the row of block {seq} was changed")
        after = rows[-1][0]
        rest()
    return bad


def _published(path: Path, *, same_boot: bool) -> int:
    """Return the frames of the WAL that the last process had synced and not all written back; 0: not known.

    SQLite's shared memory is a file that outlives a kill, and it names a frame only once it is durable
    (https://sqlite.org/walformat.html, 2.1). Nobody syncs it: after a power cut it may be half a minute old,
    and count only if it is of the round of the WAL that is there.
    """
    raw = _shared_memory(path)
    if len(raw) < _SHM_BACKFILLED + 4:
        return 0
    head = raw[: _SHM.size]
    if checksum(head) != _SHM_CHECKSUM.unpack_from(raw, _SHM.size):
        return 0
    fields = _SHM.unpack(head)
    there, salts = int(fields[6]), fields[9]
    if there <= int.from_bytes(raw[_SHM_BACKFILLED : _SHM_BACKFILLED + 4], "little"):
        return 0
    return there if same_boot or _salts(path) == salts else 0


def _salts(path: Path) -> bytes:
    """Return what tells this round of the WAL from others."""
    try:
        with path.with_name(path.name + "-wal").open("rb") as wal:
            return wal.read(24)[16:]
    except OSError:
        return b""


def _check_wal(path: Path, published: int) -> None:
    """Raise where SQLite has less of the WAL than was committed: it stops at the first bad frame."""
    wal, recovered = path.with_name(path.name + "-wal"), _published_now(path)
    if recovered < published:
        raise Damaged(f"its WAL is damaged: {published} pages were committed to it, {recovered} can be read")
    with suppress(FileNotFoundError):
        fd = os.open(wal, os.O_RDONLY | os.O_CLOEXEC)
        try:
            salts, committed = os.pread(fd, 8, 16), False
            for frame in frames(fd, recovered):
                if frame.salts != salts:
                    break
                if frame.sound and committed:  # each commit was durable before the next one began
                    raise Damaged("its WAL is damaged: there are commits behind what can be read")
                committed = committed or (frame.sound and frame.commit)
        finally:
            os.close(fd)


def _published_now(path: Path) -> int:
    raw = _shared_memory(path)
    return int(_SHM.unpack_from(raw)[6]) if len(raw) >= _SHM.size else 0


def _shared_memory(path: Path) -> bytes:
    try:
        return path.with_name(path.name + "-shm").read_bytes()
    except OSError:
        return b""


class Examination:
    """Looks files over on a thread of its own, while they are in use."""

    thread = threading.Thread

    def __init__(
        self, hot: Path | None, segments: Sequence[Segment], done: Callable[[], None], *, urgent: bool = False
    ) -> None:
        """`done` is called at the end, on that thread. `urgent`: without rests between."""
        self.found: str | None = None
        """What is wrong with the hot file; empty: nothing; None: it is not over."""
        self.bad: list[int] = []
        """Seqs of damaged blocks."""
        self.damage: list[Damage] = []
        """Of segments, and their chunks."""
        self._hot, self._segments, self._done = hot, segments, done
        self._conn: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._urgent, self._rested = urgent, time.monotonic()
        self._thread = self.thread(target=self._run, name="store-examination", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """End it; blocks for a moment."""
        self._cancelled.set()
        while self._thread.is_alive():
            with self._lock:  # SQLite crashes where a connection is interrupted while it is closed
                if self._conn is not None:
                    self._conn.interrupt()
            self._thread.join(0.05)

    def _run(self) -> None:
        found = ""
        if self._hot is not None:
            try:
                with self._reading(connect_reader(self._hot)) as conn:
                    self.bad = _check(conn, self._rest)
            except (KeyError, TypeError, ValueError, sqlite3.Error) as error:
                if not isinstance(error, sqlite3.Error) or is_corrupt(error):
                    found = f"{error}"
        for each in reversed(self._segments):
            if not self._cancelled.is_set():
                self._look_over(each)
        self.found = found
        self._done()

    def _rest(self) -> None:
        """Wait, after some work, so long that others have nearly all of the time."""
        worked_s = time.monotonic() - self._rested
        if self._urgent or worked_s < _SLICE_S:
            return
        self._cancelled.wait(worked_s * (1 / _SHARE - 1))
        self._rested = time.monotonic()

    @contextmanager
    def _reading(self, conn: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._conn = conn
        try:
            yield conn
        finally:
            with self._lock:
                self._conn = None
            conn.close()

    def _look_over(self, each: Segment) -> None:
        """Read a segment; what is wrong with it goes to `damage`."""
        try:
            with self._reading(segment.connect_reader(each.path)) as conn:
                for fold, number, data in segment.look_over(conn):
                    if (gap := damaged_chunk(each, fold, number, data)) is not None:
                        self.damage.append(Damage(each.number, number, gap))
                    self._rest()
        except sqlite3.Error as error:
            if is_corrupt(error) and each.path.exists():
                why = f"history segment {each.path.name} cannot be read: {error}"
                self.damage.append(Damage(each.number, 0, Gap(0, 0, why), made=each.made))
