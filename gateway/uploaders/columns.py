"""The encoding "columns" version 1: a unit as JSON, one group of columns per series (docs/upload.md).

The same unit gives the same bytes, always: nothing here may change for version 1.
"""

import base64
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from operator import itemgetter, sub
from typing import Any, NamedTuple

import orjson

from gateway.model import Gap, Unit, Value

_PLAIN_TYPES = frozenset({int, bool, type(None)})
_PLAIN_NAN = "7ff8000000000000"
_INT64 = range(-(2**63), 2**63)


class Delivered(NamedTuple):
    """One sample as a receiver reads it."""

    device: str
    tag: str
    ts: int
    value: Value
    status: int
    flags: int


def encode(unit: Unit) -> bytes:
    """Return the body of a unit."""
    return orjson.dumps(
        {
            "encoding": "columns",
            "version": 1,
            "gateway": _text(unit.gateway_id),
            "upload": _text(unit.upload),
            "lane": unit.lane,
            "key": _text(unit.key),
            "from_seq": unit.from_seq,
            "to_seq": unit.to_seq,
            "series": [_columns(unit, places) for places in _groups(unit)],
            "gaps": [_gap(gap) for gap in unit.gaps],
        }
    )


def order(unit: Unit) -> list[int]:
    """Return the places in `unit.samples` in the order in which the body has them."""
    return [place for places in _groups(unit) for place in places]


def decode(body: bytes) -> tuple[Mapping[str, Any], list[Delivered]]:
    """Return the document and its samples in body order. ValueError: not a body of this encoding."""
    document = orjson.loads(body)
    if (document.get("encoding"), document.get("version")) != ("columns", 1):
        raise ValueError("not a body of the encoding columns, version 1")
    return document, [sample for columns in document["series"] for sample in _decoded(columns)]


def _groups(unit: Unit) -> Iterator[Sequence[int]]:
    """Yield places series by series, in order of first appearance; cut where a step does not fit in int64."""
    groups: dict[int, list[int]] = {}
    for place, series in enumerate(unit.samples.series):
        try:
            groups[series].append(place)
        except KeyError:
            groups[series] = [place]
    stamps = unit.samples.ts
    if not stamps or max(stamps) - min(stamps) in _INT64:
        yield from groups.values()
        return
    for places in groups.values():
        first = 0
        for at in range(1, len(places)):
            if stamps[places[at]] - stamps[places[at - 1]] not in _INT64:
                yield places[first:at]
                first = at
        yield places[first:]


def _columns(unit: Unit, places: Sequence[int]) -> dict[str, Any]:
    samples = unit.samples
    info = unit.series[samples.series[places[0]]]
    stamps = _picked(samples.ts, places)
    columns: dict[str, Any] = {"device": _text(info.device), "tag": _text(info.tag)}
    if info.unit:
        columns["unit"] = _text(info.unit)
    columns["t0"] = stamps[0]
    columns["dt"] = list(map(sub, stamps[1:], stamps))
    columns["v"] = _values(_picked(samples.values, places))
    for name, column in (("s", samples.statuses), ("f", samples.flags)):
        picked = _picked(column, places)
        if any(picked):
            columns[name] = picked
    return columns


def _picked(column: Sequence[Any], places: Sequence[int]) -> Sequence[Any]:
    return itemgetter(*places)(column) if len(places) > 1 else (column[places[0]],)


def _values(values: Sequence[Value]) -> Sequence[Any]:
    kinds = set(map(type, values)) - _PLAIN_TYPES
    if not kinds or (kinds == {float} and _all_finite(values)):
        return values
    return [_json(value) for value in values]


def _all_finite(values: Iterable[Any]) -> bool:
    return all(map(math.isfinite, filter(None, values)))


def _json(value: Value) -> Any:
    """Return a value as JSON has it, else marked: an object with one member that names what it is."""
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": _not_finite(value)}
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return {"wtf8": base64.b64encode(value.encode(errors="surrogatepass")).decode()}
        return value
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return value


def _not_finite(value: float) -> str:
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    bits = struct.pack(">d", value).hex()
    return "NaN" if bits == _PLAIN_NAN else f"NaN:{bits}"


def _value(value: Any) -> Value:
    if isinstance(value, list):
        return [_value(item) for item in value]
    if not isinstance(value, dict):
        return value  # type: ignore[no-any-return]
    ((mark, text),) = value.items()
    if mark == "float":
        bits = text.removeprefix("NaN:")
        return float(text) if bits == text else float(struct.unpack(">d", bytes.fromhex(bits))[0])
    raw = base64.b64decode(text, validate=True)
    if mark == "base64":
        return raw
    if mark == "wtf8":
        return raw.decode(errors="surrogatepass")
    raise ValueError(f"unknown mark {mark!r}")


def _decoded(columns: Mapping[str, Any]) -> Iterator[Delivered]:
    none = [0] * len(columns["v"])
    rows = zip(
        accumulate(columns["dt"], initial=columns["t0"]),
        map(_value, columns["v"]),
        columns.get("s", none),
        columns.get("f", none),
        strict=True,
    )
    return (Delivered(columns["device"], columns["tag"], *row) for row in rows)


def _gap(gap: Gap) -> dict[str, Any]:
    return {
        "device": gap.device and _text(gap.device),
        "upload": gap.upload and _text(gap.upload),
        "from": gap.from_us,
        "to": gap.to_us,
        "count": gap.count,
        "reason": _text(gap.reason),
    }


def _text(text: str) -> str:
    """Return a name as valid UTF-8: a lone surrogate becomes a question mark."""
    return text.encode(errors="replace").decode()
