"""Checksums of rows, and small CRC'd records that are found by scanning raw bytes: what a series
is called, what is measured.

magic 4s | version u8 | kind u8 | reserved u16 | body bytes u32 | body (JSON) | CRC32 of all before it u32
"""

import json
import struct
import zlib
from typing import Any

from gateway.store.columns import CorruptBlock

MAGIC = b"\xeeGWr"
_VERSION = 1
_HEADER = struct.Struct("<4sBBHI")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size
SERIES, FOLD, MEASUREMENT = 1, 2, 3
"""Kinds: [number, device, tag, epoch of the store], a row of `fold` with the seqs that it took, a row of
`measurement`."""


def row_crc(*fields: object) -> int:
    """Return the checksum of a row's other columns: text, integers, doubles, bytes and None."""
    return zlib.crc32(repr(fields).encode("utf-8", "surrogatepass"))


def storable(*fields: Any) -> tuple[Any, ...]:
    """Return a row's fields with every text as one that SQLite takes: what no UTF-8 can hold is escaped.

    Decoders that pass over what they do not understand make such texts: "\\udcb0C" of a Latin-1 "°C".
    """
    return tuple(
        each.encode("utf-8", "backslashreplace").decode() if isinstance(each, str) else each
        for each in fields
    )


def pack(kind: int, *fields: object) -> bytes:
    """Pack fields that JSON can hold."""
    body = json.dumps(fields, separators=(",", ":")).encode()
    head = _HEADER.pack(MAGIC, _VERSION, kind, 0, len(body)) + body
    return head + _CRC.pack(zlib.crc32(head))


def size_of(head: bytes) -> int:
    """Return the bytes of a record by its first HEADER_BYTES."""
    return int(_HEADER.unpack_from(head)[4]) + HEADER_BYTES + _CRC.size


def unpack(data: object) -> tuple[int, list[Any]]:
    """Return kind and fields; raise CorruptBlock where a single bit differs from what was written."""
    if not isinstance(data, bytes) or len(data) < HEADER_BYTES + _CRC.size or data[:4] != MAGIC:
        raise CorruptBlock("no record begins here")
    if len(data) != size_of(data) or zlib.crc32(data[:-4]) != _CRC.unpack(data[-4:])[0]:
        raise CorruptBlock("the checksum of a record does not hold")
    kind = data[5]
    return kind, json.loads(data[HEADER_BYTES:-4])
