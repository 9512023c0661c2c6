"""A block of kind `recording`: frames of a measurement as they came, raw counts and all.

The body: head bytes u32 | frames u32 | counts u32 | frames lost u32 | head | columns of frame times,
counters, raw counts. The head (JSON, with the measurement's name) is what is needed to make values of the
counts: one block that is found in a damaged file is worth something without any other.
"""

import json
import struct
from array import array
from dataclasses import replace
from typing import NamedTuple

from gateway.controls.sensor_nodes import StreamFrames
from gateway.store.codec import BlockHeader, Kind, seal, unseal
from gateway.store.columns import CorruptBlock, Source, decode_ints, encode_times

MOST_FRAMES = 65_536
_SIZES = struct.Struct("<IIII")


class Part(NamedTuple):
    """What a block of a recording holds."""

    header: BlockHeader
    head: bytes
    frames: StreamFrames


def encode_part(header: BlockHeader, head: bytes, frames: StreamFrames) -> bytes:
    """Pack at least one frame; n, t0 and t1 of the header are taken from them."""
    counts = frames.counts.tobytes()
    raw = b"".join(
        (
            _SIZES.pack(len(head), len(frames.ts), len(frames.counts), frames.lost),
            head,
            encode_times(array("q", frames.ts).tobytes()),
            frames.counters,
            counts[::2],
            counts[1::2],
        )
    )
    return seal(replace(header, n=len(frames.ts), t0=min(frames.ts), t1=max(frames.ts)), raw)


def again(part: Part, id_: int) -> bytes:
    """Pack a block as it was under another id."""
    return encode_part(replace(part.header, seq=id_), part.head, part.frames)


def name_of(head: bytes) -> str:
    """Return the name of the measurement that a block is of; "" where the head does not say it."""
    try:
        return str(json.loads(head)["name"])
    except (ValueError, KeyError, TypeError):
        return ""


def decode_part(data: bytes, seq: int | None = None) -> Part:
    """Unpack a block; raise CorruptBlock where a single bit differs from what was written."""
    header, raw = unseal(data)
    if header.kind != Kind.RECORDING:
        raise CorruptBlock("it holds no frames")
    if seq is not None and seq != header.seq:
        raise CorruptBlock(f"block {header.seq} in the place of block {seq}")
    source = Source(raw)
    head_bytes, n, count, lost = _SIZES.unpack(source.take(_SIZES.size))
    if n != header.n or not 0 < n <= MOST_FRAMES or count > 3 * n:
        raise CorruptBlock(f"{n} frames and {count} counts in a block of {header.n}")
    head = source.take(head_bytes)
    ts = decode_ints(source, n)
    counters = source.take(n)
    counts = bytearray(2 * count)
    counts[::2], counts[1::2] = source.take(count), source.take(count)
    source.end()
    return Part(header, head, StreamFrames(ts, counters, array("H", bytes(counts)), lost))
