"""Samples as JSON and back.

A sample is {"tag", "ts", "value", "status"}, with "flags" where there are any, and with "type" only
where JSON cannot carry the value itself:

    "float"   NaN, Infinity and -Infinity stand as these words (in an array: for its numbers)
    "bytes"   base64 (in an array: for every text in it)
    "mixed"   an array of both, or of either beside texts: such a leaf is {"type", "value"}

A lone surrogate in a text (no UTF-8 carries it) is written as its JSON escape, such as "\\ud800".
"""

import base64
import binascii
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import orjson

from gateway.model import Flag, Sample, Value
from gateway.store.values import MAX_DEPTH

Row: TypeAlias = dict[str, Any]
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_WORDS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FLAGS: Final = {flag: flag.name.lower() for flag in Flag if flag.name}
FLAG_NAMES: Final = frozenset(_FLAGS.values())
_NAMES: dict[int, list[str]] = {}


def flag_names(flags: int) -> list[str]:
    names = _NAMES.get(flags)
    if names is None:
        names = _NAMES[flags] = [name for flag, name in _FLAGS.items() if flags & flag]
    return names


def row(tag: str, ts: int, value: Value, status: int, flags: int) -> Row:
    """Return a sample as what `dumps` writes."""
    kind = type(value)
    if kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            return _typed(tag, ts, _word(value), status, flags, "float")  # type: ignore[arg-type]
    elif kind is bytes or kind is list:
        carried, leaf = carry(value)
        if leaf:
            return _typed(tag, ts, carried, status, flags, leaf)
    if flags:
        return {"tag": tag, "ts": ts, "value": value, "status": status, "flags": flag_names(flags)}
    return {"tag": tag, "ts": ts, "value": value, "status": status}


def sample_row(tag: str, sample: Sample) -> Row:
    return row(tag, sample.ts, sample.value, sample.status, sample.flags)


def _typed(tag: str, ts: int, value: Any, status: int, flags: int, leaf: str) -> Row:
    made: Row = {"tag": tag, "ts": ts, "type": leaf, "value": value, "status": status}
    if flags:
        made["flags"] = flag_names(flags)
    return made


def dumps(value: Any) -> bytes:
    """Return JSON; a text with a lone surrogate is written with its escape."""
    try:
        return orjson.dumps(value)
    except TypeError:
        text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=_plain)
        return text.encode()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def lines(rows: Iterable[Row], end: bytes) -> bytes:
    """Return each row's JSON, joined by `end`."""
    return end.join([dumps(item) for item in rows])


def carry(value: Value) -> tuple[Any, str | None]:
    """Return a value as JSON carries it, and its "type" where one is needed."""
    leaf = _leaf_type(value)
    if leaf is None:
        return value, None
    return _carried(value, mixed=leaf == "mixed"), leaf


def _leaf_type(value: Value) -> str | None:
    seen = set(_kinds(value))
    if not seen & {"bytes", "float"}:
        return None
    if len(seen) > 1:
        return "mixed"
    return seen.pop()


def _kinds(value: Value) -> Iterable[str]:
    if isinstance(value, list):
        for item in value:
            yield from _kinds(item)
    elif isinstance(value, bytes):
        yield "bytes"
    elif isinstance(value, str):
        yield "text"
    elif isinstance(value, float) and not math.isfinite(value):
        yield "float"


def _carried(value: Value, *, mixed: bool) -> Any:
    if isinstance(value, list):
        return [_carried(item, mixed=mixed) for item in value]
    if isinstance(value, bytes):
        text = base64.b64encode(value).decode()
        return {"type": "bytes", "value": text} if mixed else text
    if isinstance(value, float) and not math.isfinite(value):
        return {"type": "float", "value": _word(value)} if mixed else _word(value)
    return value


def _word(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def read(value: Any, kind: str | None) -> Value:
    """Return the value that JSON carried under this "type". ValueError with a sentence."""
    if kind is not None and kind not in ("float", "bytes", "mixed"):
        raise ValueError('type is one of "float", "bytes", "mixed"')
    return _read(value, kind, 0)


def _read(value: Any, kind: str | None, depth: int) -> Value:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not _INT_MIN <= value <= _INT_MAX:
            raise ValueError("is an integer beyond 64 bits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("is a number beyond the range of a double")
        return value
    if isinstance(value, str):
        return _read_text(value, kind)
    if isinstance(value, list):
        if depth >= MAX_DEPTH:
            raise ValueError(f"is an array nested deeper than {MAX_DEPTH}")
        return [_read(item, kind, depth + 1) for item in value]
    if kind == "mixed" and _is_leaf(value):
        return _read_text(value["value"], value["type"])
    raise ValueError("is an object: a value is null, a boolean, a number, a text or an array of those")


def _is_leaf(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"type", "value"}
        and value["type"] in ("float", "bytes")
        and isinstance(value["value"], str)
    )


def _read_text(value: str, kind: str | None) -> Value:
    if kind == "float":
        if value not in _WORDS:
            raise ValueError('is not one of "NaN", "Infinity", "-Infinity"')
        return _WORDS[value]
    if kind == "bytes":
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("is not base64") from None
    return value


def loads(body: bytes) -> Any:
    """Return what JSON says, integers and doubles exact. ValueError with a sentence."""

    def refuse(word: str) -> Any:
        raise ValueError(f'{word} is not JSON: write it as text, with "type": "float"')

    try:
        return json.loads(body.decode("utf-8"), parse_constant=refuse)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start}") from None


def last_row(tag: str, sample: Sample | None) -> Mapping[str, Any] | None:
    return None if sample is None else sample_row(tag, sample)
