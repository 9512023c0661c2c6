"""Reads everything that a store holds, by read-only connections, and names every fault.

Beside a running daemon it reads a slice at a time: what is folded, deleted or added meanwhile is no fault.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gateway.model import SeriesInfo
from gateway.store import recordings, segment, tombstones
from gateway.store.blocks import CORRUPT
from gateway.store.chunk import PackedChunk, in_order
from gateway.store.codec import CorruptBlock, Kind, decode
from gateway.store.examine import changed_rows
from gateway.store.history import SET_ASIDE
from gateway.store.outbox import acked, quarantined, uploads
from gateway.store.read_only import hot_file, roll_back_if_idle
from gateway.store.recording import decode_part
from gateway.store.schema import Damaged, StoreProblem, connect_reader, is_busy, read_epoch
from gateway.store.segment import Fold, Segment
from gateway.store.series import load_series

_SLICE = 64
_SAID = 20
"""Lines of `integrity_check` for one file."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault of a file, and what it means. `known`: the gateway found it before and left a gap record."""

    file: str
    sentence: str
    known: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.sentence}"


@dataclass(slots=True)
class Counted:
    """What was read."""

    blocks: int = 0
    chunks: int = 0
    samples: int = 0
    segments: int = 0
    recordings: int = 0
    """Blocks of measurements whose file is not written yet."""


def verify_store(folder: Path, counted: Counted) -> Iterator[Finding]:
    """Yield what is wrong with the store in a folder. StoreProblem: there is none, or of another version."""
    roll_back_if_idle(folder)
    names, bad = dict[int, SeriesInfo](), set[tuple[int, int]]()
    try:
        path = hot_file(folder)
    except StoreProblem as error:
        if not (folder / "hot.db").is_file():
            raise
        yield Finding("hot.db", f"{error}: the gateway would set it aside and begin a new one")
        epoch = ""
    else:
        with closing(connect_reader(path)) as conn:
            conn.text_factory = _text
            epoch = _epoch(conn)
            try:
                names = dict(load_series(conn))
                bad = set(conn.execute("SELECT segment, chunk FROM bad_chunk").fetchall())
                yield from _hot(conn, names, counted)
            except (sqlite3.Error, TypeError, ValueError) as error:
                yield Finding("hot.db", f"cannot be read on: {error}; the gateway would set it aside")
    yield from _history(folder, epoch, names, counted, bad)
    for aside in sorted(
        path
        for word in SET_ASIDE
        for path in (*folder.glob(f"*.{word}-*"), *folder.glob(f"history/*.{word}"))
    ):
        if not aside.name.endswith(("-wal", "-shm")):
            yield Finding(
                str(aside.relative_to(folder)),
                "was set aside as damaged; a gap record says since when",
                known=True,
            )


def _text(raw: bytes) -> str:
    """A damaged page can turn bytes into text: that is a fault of its row, not the end of reading."""
    return raw.decode("utf-8", "replace")


def _epoch(conn: sqlite3.Connection) -> str:
    try:
        return read_epoch(conn)
    except (sqlite3.Error, TypeError):
        return ""


# The hot file.


def _hot(conn: sqlite3.Connection, names: dict[int, SeriesInfo], counted: Counted) -> Iterator[Finding]:
    yield from (Finding("hot.db", sentence) for sentence in _integrity(conn))
    yield from (
        Finding("hot.db", f"{sentence}: the gateway would set it aside") for sentence in changed_rows(conn)
    )
    if not _epoch(conn):
        yield Finding("hot.db", "its epoch is missing: the gateway would set it aside")
    yield from _blocks(conn, names, counted)
    yield from _recordings(conn, counted)
    yield from _snapshot(conn)
    yield from _queues(conn)
    for number, record in conn.execute("SELECT id, record FROM tombstone").fetchall():
        try:
            tombstones.decode(record)
        except (CorruptBlock, TypeError) as error:
            sentence = f"deletion {number} is damaged ({error}): what it deleted is served again"
            yield Finding("hot.db", sentence)


def _integrity(conn: sqlite3.Connection) -> list[str]:
    rows = conn.execute(f"PRAGMA integrity_check({_SAID})").fetchall()
    return [f"SQLite finds it malformed: {row[0]}" for row in rows if row[0] != "ok"]


def _blocks(conn: sqlite3.Connection, names: dict[int, SeriesInfo], counted: Counted) -> Iterator[Finding]:
    last: int | None = None
    while True:
        rows = conn.execute(
            "SELECT seq, t0, t1, n, kind, size_bytes, data FROM block WHERE seq > ? ORDER BY seq LIMIT ?",
            (-(2**62) if last is None else last, _SLICE),
        ).fetchall()
        for seq, *row in rows:
            if last is not None and seq > last + 1 and seq > (floor := _floor(conn)) + 1:
                first = max(last, floor) + 1
                yield Finding("hot.db", f"blocks {first} to {seq - 1} are missing: nothing deleted them")
            last = seq
            counted.blocks += 1
            yield from _block(seq, row, names, counted)
        if not rows:
            return


def _floor(conn: sqlite3.Connection) -> int:
    """Return up to where blocks were deleted: a hole above it was no deletion of ours."""
    return int(conn.execute("SELECT coalesce(max(value), 0) FROM meta WHERE key = 'seq_floor'").fetchone()[0])


def _block(seq: int, row: list[object], names: dict[int, SeriesInfo], counted: Counted) -> Iterator[Finding]:
    t0, t1, n, kind, size, data = row
    if kind == CORRUPT:
        yield Finding("hot.db", f"block {seq} is damaged: its {n} samples are not served", known=True)
        return
    try:
        header, batch = decode(data, seq)  # type: ignore[arg-type]
    except CorruptBlock as error:
        yield Finding("hot.db", f"block {seq} is damaged ({error}): its {n} samples will not be served")
        return
    counted.samples += len(batch)
    found = (min(batch.ts), max(batch.ts)) if len(batch) else (t0, t1)
    if (t0, t1, n, kind, size) != (*found, len(batch), header.kind, len(data)):  # type: ignore[arg-type]
        yield Finding("hot.db", f"block {seq} holds something else than its row says: queries may miss it")
    unknown = set(batch.series) - names.keys()
    if unknown:
        yield Finding("hot.db", f"block {seq} has samples of series {min(unknown)}, which has no name")


def _recordings(conn: sqlite3.Connection, counted: Counted) -> Iterator[Finding]:
    """Look at the blocks of measurements; those of one that is done are about to be deleted."""
    for row in conn.execute("SELECT name, done, record FROM measurement").fetchall():
        try:
            recordings.read_row(row)
        except Damaged as error:
            yield Finding("hot.db", f"{error}: the gateway would set it aside")
    last = -1
    while found := conn.execute(
        "SELECT id, data FROM recording WHERE id > ? ORDER BY id LIMIT ?", (last, _SLICE)
    ).fetchall():
        for id_, data in found:
            counted.recordings += 1
            finding = _part(conn, id_, last, data)
            if finding and not recordings.is_done(conn, id_):
                yield Finding("hot.db", finding)
            last = id_


def _part(conn: sqlite3.Connection, id_: int, before: int, data: bytes) -> str:
    number, part = recordings.number_of(id_), recordings.part_of(id_)
    try:
        decode_part(data, id_)
    except CorruptBlock as error:
        return f"block {part} of measurement {number} is damaged ({error}): its frames will be missing"
    follows = part == 0 or before == id_ - 1
    if not follows and recordings.number_of(before) == number:
        return f"blocks {recordings.part_of(before) + 1} to {part - 1} of measurement {number} are missing"
    if not follows:
        return f"the blocks before {part} of measurement {number} are missing"
    if recordings.is_done(conn, id_) is None:
        return f"measurement {number} has blocks and no row"
    return ""


def _snapshot(conn: sqlite3.Connection) -> Iterator[Finding]:
    row = conn.execute("SELECT seq, newest, far FROM snapshot WHERE id = 1").fetchone()
    try:
        for data in row[1:] if row else ():
            if decode(data)[0].kind != Kind.SNAPSHOT:
                raise CorruptBlock("it is no snapshot")
    except CorruptBlock as error:
        yield Finding(
            "hot.db", f"the snapshot of the newest samples is damaged ({error}): the start takes longer"
        )


def _queues(conn: sqlite3.Connection) -> Iterator[Finding]:
    conn.execute("BEGIN")  # one moment of what belongs together
    known = uploads(conn)
    for upload in known:
        before = -1
        for start, end in acked(conn, upload):
            if start > end or start <= before:
                yield Finding("hot.db", f"upload {upload}: its acknowledged commits overlap at {start}")
            before = end
    newest = conn.execute("SELECT coalesce(max(seq), 0) FROM block").fetchone()[0]
    for upload, lane, start, end in conn.execute("SELECT upload, lane, from_seq, to_seq FROM unit"):
        if upload not in known or start > end or end > newest:
            yield Finding("hot.db", f"upload {upload}: its unit {start}-{end} of lane {lane} cannot be")
    conn.execute("ROLLBACK")
    for (upload,) in conn.execute("SELECT DISTINCT upload FROM quarantine").fetchall():
        before_id: int | None = None
        try:
            while letters := quarantined(conn, upload, before_id):
                before_id = letters[-1].id
        except CorruptBlock as error:
            yield Finding("hot.db", f"upload {upload}: a sample of its quarantine is damaged ({error})")


# The history.


def _history(
    folder: Path, epoch: str, names: dict[int, SeriesInfo], counted: Counted, bad: set[tuple[int, int]]
) -> Iterator[Finding]:
    taken: list[tuple[int, int, str]] = []
    for each in segment.found(folder / "history"):
        file = f"history/{each.path.name}"
        try:
            with closing(segment.connect_reader(each.path)) as conn:
                conn.text_factory = _text
                counted.segments += 1
                yield from (Finding(file, sentence) for sentence in _integrity(conn))
                yield from _segment(conn, each, names, counted, bad)
                taken += [(*pair, file) for pair in segment.folded(conn, epoch)]
        except sqlite3.Error as error:
            if each.path.exists():  # else retention took it meanwhile
                then = "verify again" if is_busy(error) else "the gateway would set it aside"
                yield Finding(file, f"cannot be read: {error}; {then}")
    taken.sort()
    for (_, end, file), (start, _, other) in pairwise(taken):
        if start <= end:
            yield Finding(other, f"block {start} was folded twice: it is in {file} too")


def _segment(
    conn: sqlite3.Connection,
    each: Segment,
    names: dict[int, SeriesInfo],
    counted: Counted,
    bad: set[tuple[int, int]],
) -> Iterator[Finding]:
    file = f"history/{each.path.name}"
    try:
        segment.verify(conn)
    except Damaged as error:
        yield Finding(file, f"{error}: the gateway would set it aside")
    known: set[int] = set()
    for number, device, tag in conn.execute("SELECT id, device, tag FROM series").fetchall():
        known.add(number)
        if number in names and names[number][:2] != (device, tag):
            yield Finding(file, f"series {number} is another one in hot.db: the gateway would set it aside")
    there = segment.folds(conn, -(2**63), 2**63 - 1)
    last = dict(conn.execute("SELECT fold, max(to_seq) FROM folded GROUP BY fold").fetchall())
    noted = {number for where, number in bad if where == each.number}
    for fold in there:
        yield from _fold(conn, file, fold, known, counted, noted, last.get(fold.id))
    ids = {fold.id for fold in there}
    for number in (row[0] for row in conn.execute("SELECT DISTINCT fold FROM folded")):
        if number not in ids and number <= max(ids, default=0):
            yield Finding(file, f"fold {number} is missing: what it says of its blocks cannot be trusted")


def _fold(
    conn: sqlite3.Connection,
    file: str,
    fold: Fold,
    known: set[int],
    counted: Counted,
    bad: set[int],
    last: int | None,
) -> Iterator[Finding]:
    samples, series, broken = 0, set[int](), False
    for number, data in segment.chunks(conn, fold, None):
        counted.chunks += 1
        where = f"a chunk of series {segment.series_of(number)} in fold {fold.id}"
        try:
            packed = PackedChunk(data)
            header, batch = packed.header, packed.batch()
        except (CorruptBlock, TypeError) as error:
            broken = True
            yield Finding(file, f"{where} is damaged ({error}): it is not served", number in bad)
            continue
        samples += header.n
        series.add(header.series)
        if last is not None and header.seq != last:
            yield Finding(file, f"{where} is of blocks up to {header.seq}, its fold took blocks up to {last}")
        if header.series != segment.series_of(number):
            yield Finding(file, f"{where} is of series {header.series}: it will not be served")
        elif header.series not in known:
            yield Finding(file, f"{where} has no name")
        if (batch.ts[0], batch.ts[-1]) != (header.t0, header.t1) or not in_order(batch.ts):
            yield Finding(file, f"{where} is not in the order of time: queries may miss samples")
        elif not fold.t0 <= header.t0 <= header.t1 <= fold.t1:
            yield Finding(file, f"{where} lies outside the times of its fold: queries may miss it")
    counted.samples += samples
    if not broken and (samples, len(series)) != (fold.n, fold.series_n):
        yield Finding(
            file, f"fold {fold.id} has {samples} samples of {len(series)} series where it took {fold.n} of "
            f"{fold.series_n}: some are lost, and their blocks may be gone"
        )  # fmt: skip
