"""Samples of plain values from columns to bytes, without an object for each: large windows are mostly these.

orjson writes the numbers of one flat list; what stands between them are fragments. In CSV the commas of the
list are those of the answer. In JSON they are taken out, and what fragments have in the place of commas, a
byte that no JSON text holds, becomes one in the same go.
"""

import csv
import io
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson

from gateway.api.values import dumps, flag_names
from gateway.model import Batch

_PLAIN: Final = frozenset({float, int, bool})
_COMMA: Final = b"\x01"
_TO_COMMAS: Final = bytes.maketrans(_COMMA, b",")
_VALUE: Final = orjson.Fragment(_COMMA + b'"value":')
Part = Callable[[Batch, Mapping[int, str]], bytes | None]
"""Writes samples, given the tags of their series; None where they have to be written one by one."""


def json_part(batch: Batch, tags: Mapping[int, str]) -> bytes | None:
    """Write samples as JSON objects with commas between them."""
    return _objects(batch, tags, b",", b"")


def ndjson_part(batch: Batch, tags: Mapping[int, str]) -> bytes | None:
    """Write samples as JSON objects, a line each."""
    return _objects(batch, tags, b"\n", b"\n")


def csv_part(batch: Batch, tags: Mapping[int, str]) -> bytes | None:
    """Write samples as lines of tag, ts, value, status, type, flags."""
    if not _is_plain(batch.values, _PLAIN):
        return None
    heads = {series: csv_line([tags[series]]).removesuffix(b"\r\n") for series in set(batch.series)}
    tails = {
        (status, flags): b"%d,,%s" % (status, " ".join(flag_names(flags)).encode())
        for status, flags in _pairs(batch)
    }
    return _joined(batch, heads, [batch.ts, batch.values], tails, (b"\r\n", b"\r\n"))


def csv_line(cells: Sequence[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _objects(batch: Batch, tags: Mapping[int, str], between: bytes, end: bytes) -> bytes | None:
    if not _is_plain(batch.values, _PLAIN | {type(None)}):
        return None
    heads = {series: _head(tags[series]) for series in set(batch.series)}
    tails = {
        (status, flags): (b',"status":%d%s}' % (status, _flags(flags))).replace(b",", _COMMA)
        for status, flags in _pairs(batch)
    }
    columns: list[Sequence[Any]] = [batch.ts, [_VALUE] * len(batch), batch.values]
    text = _joined(batch, heads, columns, tails, (between.replace(b",", _COMMA), end))
    return text.translate(_TO_COMMAS, b",")


@lru_cache(maxsize=4096)
def _head(tag: str) -> bytes:
    return (b'{"tag":%s,"ts":' % dumps(tag)).replace(b",", _COMMA)


def _flags(flags: int) -> bytes:
    return b',"flags":' + dumps(flag_names(flags)) if flags else b""


def _pairs(batch: Batch) -> Collection[tuple[int, int]]:
    """Return which statuses and flags there are together."""
    first, n = (batch.statuses[0], batch.flags[0]), len(batch)
    if batch.statuses.count(first[0]) == n and batch.flags.count(first[1]) == n:
        return (first,)
    return set(zip(batch.statuses, batch.flags, strict=True))


def _is_plain(values: Sequence[Any], allowed: frozenset[type]) -> bool:
    """Say whether JSON carries all values as they are: of such types, and finite."""
    kinds = set(map(type, values))
    if not kinds <= allowed:
        return False
    if float not in kinds:
        return True
    numbers = list(filter(None, values)) if type(None) in kinds else values
    # One that is not finite leaves no finite sum. A sum that is only too large says nothing.
    return math.isfinite(sum(numbers)) or all(map(math.isfinite, numbers))


def _joined(
    batch: Batch,
    heads: Mapping[int, bytes],
    columns: Sequence[Sequence[Any]],
    tails: Mapping[tuple[int, int], bytes],
    ends: tuple[bytes, bytes],
) -> bytes:
    """Return for each sample its head, an item of each column, and its tail.

    `ends`: what stands after each but the last, and after the last.
    The tail of one and the head of the next are one fragment. Before the first head stands a tail too many.
    """
    width, n, (between, end) = len(columns) + 1, len(batch), ends
    flat: list[Any] = [None] * (n * width)
    if len(tails) == 1:
        (first,) = (last,) = tails.values()
        joints = {series: orjson.Fragment(first + between + head) for series, head in heads.items()}
        flat[0::width] = list(map(joints.__getitem__, batch.series))
    else:
        pairs = list(zip(batch.statuses, batch.flags, strict=True))
        first, last = tails[pairs[0]], tails[pairs[-1]]
        seams = list(zip([pairs[0], *pairs[:-1]], batch.series, strict=True))
        both = {
            (pair, series): orjson.Fragment(tails[pair] + between + heads[series])
            for pair, series in set(seams)
        }
        flat[0::width] = list(map(both.__getitem__, seams))
    for place, column in enumerate(columns, 1):
        flat[place::width] = column
    flat.append(orjson.Fragment(last + end))
    return orjson.dumps(flat)[1 + len(first) + len(between) : -1]
