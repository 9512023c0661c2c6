"""What is found in a damaged hot file by scanning its pages: names of series, blocks in their order, what was
measured.
"""

import sqlite3
import struct
from array import array
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from gateway.model import Batch, Gap
from gateway.store import chunk, codec, records, tombstones
from gateway.store.codec import BlockHeader, CorruptBlock, Kind
from gateway.store.pages import Found, PagedFile
from gateway.store.recording import Part, decode_part
from gateway.store.recordings import MeasurementRow
from gateway.store.records import row_crc
from gateway.store.schema import connect_reader
from gateway.store.tombstones import Tombstone

_SIZE = struct.Struct("<I")
_SEQ = struct.Struct("<Q")
_MOST_BYTES = 256 * 1024 * 1024


class Letter(NamedTuple):
    """A row of the quarantine."""

    upload: str
    at_us: int
    reason: str
    block: bytes


class Remains:
    """A damaged hot file; `look` first, then the rest. Nobody writes the file."""

    def __init__(self, path: Path) -> None:
        """Raise OSError where it cannot be read."""
        self.path = path
        self._file = PagedFile(path)
        self._seqs = array("Q")
        self._places = array("Q")
        self._frames = array("Q")
        self.names: dict[int, tuple[str, str]] = {}
        """Series to (device, tag)."""
        self.measurements: dict[str, MeasurementRow] = {}
        """By name, each as it was last."""
        self.deleted: list[Tombstone] = []
        self.epoch = ""

    def close(self) -> None:
        self._file.close()

    def look(self) -> Iterator[None]:
        """Find out what there is, in slices of some ms."""
        small: list[Found] = []
        for found in self._file.scan():
            if found is None:
                yield
            elif found.head.startswith(records.MAGIC):
                small.append(found)
            elif found.head.startswith(tombstones.MAGIC):
                for data in self._file.record(found.at, tombstones.RECORD_BYTES):
                    with suppress(CorruptBlock):
                        self.deleted.append(tombstones.decode(data))
                        break
            elif found.head.startswith(codec.MAGIC) and len(found.head) >= 24:
                seq = _SEQ.unpack_from(found.head, 16)[0]
                if found.head[5] == Kind.RECORDING:
                    self._frames.append(found.at)
                elif 0 < seq < 2**63:  # dead letters have none
                    self._seqs.append(seq)
                    self._places.append(found.at)
        for number, found in enumerate(small):
            self._take(found)
            if number % 64 == 63:
                yield

    def _take(self, found: Found) -> None:
        kind, fields = _record(self._file, found) or (0, [])
        if kind == records.SERIES:
            number, device, tag, self.epoch = fields
            self.names[number] = device, tag
        elif kind == records.MEASUREMENT:
            row = MeasurementRow(*fields)
            if row.name not in self.measurements or self.measurements[row.name].revision < row.revision:
                self.measurements[row.name] = row

    def frames(self) -> Iterator[Part]:
        """Yield the sound blocks of recordings as they stand in the file; one may come more than once."""
        for at in self._frames:
            for data in self._block_at(at):
                with suppress(CorruptBlock):
                    yield decode_part(data)
                    break

    def blocks(self) -> Iterator[tuple[BlockHeader, Batch]]:
        """Yield the sound blocks in the order of their seqs, each once."""
        done = 0
        order = array("Q", sorted(range(len(self._seqs)), key=self._seqs.__getitem__))
        for place in order:
            seq = self._seqs[place]
            if seq != done and (block := self._block(seq, self._places[place])) is not None:
                done = seq
                yield block

    def _block_at(self, at: int) -> Iterator[bytes]:
        """Yield what may be the block at a place."""
        head = next(self._file.record(at, 12), b"")
        if len(head) < 12:
            return
        size = _SIZE.unpack_from(head, 8)[0] + codec.HEADER_BYTES
        if size <= min(_MOST_BYTES, 4 * self._file.size):
            yield from self._file.record(at, size)

    def _block(self, seq: int, at: int) -> tuple[BlockHeader, Batch] | None:
        for data in self._block_at(at):
            with suppress(CorruptBlock):
                header, batch = codec.decode(data, seq)
                return None if header.kind == Kind.SNAPSHOT else (header, batch)
        return None


class Rows(NamedTuple):
    """What SQLite still reads of the other tables; each row's own checksum holds."""

    meta: dict[str, object]
    units: dict[int, str]
    gaps: list[Gap]
    letters: list[Letter]


def rows(path: Path) -> Rows:
    """Read what can be read of the tables that are not samples."""
    found = Rows({}, {}, [], [])
    with suppress(sqlite3.Error, UnicodeDecodeError), closing(connect_reader(path)) as conn:
        conn.execute("PRAGMA query_only=ON")
        for key, value in _sound(conn, "meta", "key, value"):
            found.meta[key] = value
        for series, _, unit in sorted(_sound(conn, "tag_unit", "series, since_seq, unit")):
            found.units[series] = unit
        for _, device, upload, start, end, count, reason in _sound(
            conn, "gap", "seq, device, upload, from_us, to_us, count, reason"
        ):
            found.gaps.append(Gap(start, end, reason, device, upload, count))
        for upload, at_us, reason, _, block in _sound(
            conn, "quarantine", "upload, at_us, reason, bytes", ", block"
        ):
            found.letters.append(Letter(upload, at_us, reason, block))
    return found


def _sound(conn: sqlite3.Connection, table: str, columns: str, more: str = "") -> Iterator[tuple[Any, ...]]:
    with suppress(sqlite3.Error, UnicodeDecodeError):
        guarded = columns.count(",") + 1
        for crc, *row in conn.execute(f"SELECT crc, {columns}{more} FROM {table} NOT INDEXED"):
            if row_crc(*row[:guarded]) == crc:
                yield tuple(row)


class SegmentRemains:
    """A damaged history segment; `look` first, then the rest. Nobody writes the file."""

    def __init__(self, path: Path) -> None:
        """Raise OSError where it cannot be read."""
        self._file = PagedFile(path)
        self._places = array("Q")
        self.names: dict[int, tuple[str, str]] = {}
        """Series to (device, tag)."""
        self.folds: dict[int, list[Any]] = {}
        """Rows of `fold`, by their ids."""

    def close(self) -> None:
        self._file.close()

    def look(self) -> Iterator[None]:
        """Find out what there is, in slices of some ms."""
        for found in self._file.scan():
            if found is None:
                yield
            elif found.head.startswith(chunk.MAGIC):
                self._places.append(found.at)
            elif found.head.startswith(records.MAGIC) and (record := _record(self._file, found)):
                kind, fields = record
                if kind == records.SERIES:
                    self.names[fields[0]] = fields[1], fields[2]
                elif kind == records.FOLD:
                    self.folds[fields[0]] = fields

    def chunks(self) -> Iterator[tuple[chunk.ChunkHeader, bytes]]:
        """Yield the sound chunks as they stand in the file."""
        for at in self._places:
            head = next(self._file.record(at, 12), b"")
            size = _SIZE.unpack_from(head, 8)[0] + chunk.HEADER_BYTES if len(head) == 12 else 0
            if not 0 < size <= min(_MOST_BYTES, 4 * self._file.size):
                continue
            for data in self._file.record(at, size):
                with suppress(CorruptBlock):
                    yield chunk.check(data), data
                    break


def _record(file: PagedFile, found: Found) -> tuple[int, list[Any]] | None:
    """Read a small record where one stands whose checksum holds."""
    if len(found.head) < records.HEADER_BYTES or (size := records.size_of(found.head)) > _MOST_BYTES:
        return None
    for data in file.record(found.at, size):
        with suppress(CorruptBlock, ValueError):
            return records.unpack(data)
    return None
