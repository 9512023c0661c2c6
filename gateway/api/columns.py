"""Samples of plain values from columns to bytes, without an object for each: large windows are mostly these.

orjson writes the numbers of one flat list; what stands between them are fragments, and the commas of the
list are those of the answer. Where there must be none, after a key, the fragment ends with a byte that no
JSON text holds: it is taken out together with the comma.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, Final

import orjson

from gateway.api.values import dumps, flag_names
from gateway.model import Batch

_PLAIN: Final = frozenset({float, int, bool})
_SEAM: Final = b"\x01"
Part = Callable[[Batch, Mapping[int, str]], bytes | None]
"""Writes samples, given the tags of their series; None where they have to be written one by one."""


def json_part(batch: Batch, tags: Mapping[int, str]) -> bytes | None:
    """Write samples as JSON objects with commas between them."""
    return _objects(batch, tags, b"")


def ndjson_part(batch: Batch, tags: Mapping[int, str]) -> bytes | None:
    """Write samples as JSON objects, a line each."""
    return _objects(batch, tags, b"\n" + _SEAM)


def csv_part(batch: Batch, tags: Mapping[int, str]) -> bytes | None:
    """Write samples as lines of tag, ts, value, status, type, flags."""
    if not _is_plain(batch.values, _PLAIN):
        return None
    heads = {series: csv_line([tags[series]]).removesuffix(b"\r\n") for series in set(batch.series)}
    if any(_SEAM in head for head in heads.values()):
        return None
    tails = {
        (status, flags): b"%d,,%s\r\n%s" % (status, " ".join(flag_names(flags)).encode(), _SEAM)
        for status, flags in set(zip(batch.statuses, batch.flags, strict=True))
    }
    return _joined(heads, batch, [batch.ts, batch.values], tails)


def csv_line(cells: Sequence[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _objects(batch: Batch, tags: Mapping[int, str], end: bytes) -> bytes | None:
    if not _is_plain(batch.values, _PLAIN | {type(None)}):
        return None
    heads = {series: b'{"tag":%s,"ts":%s' % (dumps(tags[series]), _SEAM) for series in set(batch.series)}
    tails = {
        (status, flags): b'"status":%d%s}%s' % (status, _flags(flags), end)
        for status, flags in set(zip(batch.statuses, batch.flags, strict=True))
    }
    key = repeat(orjson.Fragment(b'"value":' + _SEAM), len(batch))
    return _joined(heads, batch, [batch.ts, list(key), batch.values], tails)


def _flags(flags: int) -> bytes:
    return b',"flags":' + dumps(flag_names(flags)) if flags else b""


def _is_plain(values: Sequence[Any], allowed: frozenset[type]) -> bool:
    """Say whether JSON carries all values as they are: of such types, and finite."""
    kinds = set(map(type, values))
    if not kinds <= allowed:
        return False
    return float not in kinds or all(map(math.isfinite, filter(None, values)))


def _joined(
    heads: Mapping[int, bytes],
    batch: Batch,
    columns: Sequence[Sequence[Any]],
    tails: Mapping[tuple[int, int], bytes],
) -> bytes:
    """Return for each sample its head, an item of each column, and its tail."""
    width, n = len(columns) + 2, len(batch)
    flat: list[Any] = [None] * (n * width)
    before = {series: orjson.Fragment(head) for series, head in heads.items()}
    after = {key: orjson.Fragment(tail) for key, tail in tails.items()}
    flat[0::width] = list(map(before.__getitem__, batch.series))
    for place, column in enumerate(columns, 1):
        flat[place::width] = column
    if len(after) == 1:
        flat[width - 1 :: width] = list(after.values()) * n
    else:
        keys = zip(batch.statuses, batch.flags, strict=True)
        flat[width - 1 :: width] = list(map(after.__getitem__, keys))
    return orjson.dumps(flat)[1:-1].replace(_SEAM + b",", b"").removesuffix(_SEAM)
