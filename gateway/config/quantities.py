"""Numbers, durations and sizes as a technician writes them, in the scalars of YAML 1.2."""

import math
import re
from decimal import Decimal
from typing import Final

from gateway.config.shapes import Number

_DURATIONS: Final = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "min": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_SIZES: Final = {"b": 1} | {
    f"{letter}{suffix}".lower(): base**power
    for power, letter in enumerate("kMGT", 1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)[ ]*([A-Za-z]*)")
_WHOLE: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FRACTION: Final = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_LONGEST: Final = 40
_LARGEST: Final = 2**63


def scalar_type(text: str) -> str:
    """Return what a plain scalar is in the YAML 1.2 core schema: null, bool, int, float or str."""
    if text in ("", "~", "null", "Null", "NULL"):
        return "null"
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return "bool"
    if _WHOLE.fullmatch(text):
        return "int"
    return "float" if _FRACTION.fullmatch(text) else "str"


def number(text: str, shape: Number) -> float:
    """Return a plain scalar as a number (a whole one as int). ValueError: the end of a sentence."""
    kind = scalar_type(text)
    if kind not in ("int", "float") or (shape.whole and kind != "int"):
        raise ValueError(f"wants {'a whole number' if shape.whole else 'a number'}")
    if len(text) > _LONGEST:
        raise ValueError("has too many digits")
    if kind == "float" and text.lower().lstrip("+-") in (".inf", ".nan"):
        raise ValueError("wants a finite number")
    whole = (int(text, 0) if text[:2] in ("0o", "0x") else int(text)) if kind == "int" else 0
    if abs(whole) > _LARGEST or (kind == "float" and not math.isfinite(float(text))):
        raise ValueError("is too large a number")
    if shape.whole:
        return whole
    return float(whole) if kind == "int" else float(text)


def quantity(text: str, shape: Number) -> float:
    """Return a duration or size in the shape's unit. ValueError: the end of a sentence."""
    match = _QUANTITY.fullmatch(text)
    if match is None or len(text) > _LONGEST:
        raise ValueError(f"wants {wanted_quantity(shape)}")
    digits, word = match[1], match[2]
    amount = Decimal(digits)
    if word == "":
        if amount == 0:
            return 0 if shape.whole else 0.0
        example = f"{digits}kB" if shape.unit == "bytes" else f"{digits}{shape.unit}"
        raise ValueError(f'needs a unit, as in "{example}"')
    if shape.unit == "bytes":
        return _in_bytes(amount, word)
    if word not in _DURATIONS:
        raise ValueError("has an unknown unit; the units are ms, s, m, h and d")
    value = amount * _DURATIONS[word] * (1000 if shape.unit == "ms" else 1)
    if value > _LARGEST:
        raise ValueError("is too long a duration")
    if not shape.whole:
        return float(value)
    if value != int(value):
        raise ValueError(f"is not a whole number of {'milliseconds' if shape.unit == 'ms' else 'seconds'}")
    return int(value)


def _in_bytes(amount: Decimal, word: str) -> int:
    factor = _SIZES.get(word.lower())
    if factor is None:
        raise ValueError("has an unknown unit; the units are B, kB, MB, GB, TB, KiB, MiB, GiB and TiB")
    size = amount * factor
    if size > _LARGEST:
        raise ValueError("is too large a size")
    return int(size)


def wanted_quantity(shape: Number) -> str:
    """Return what may be written, as in `wants ...`."""
    if shape.unit == "bytes":
        return 'a size such as "64MB" or "4GiB"'
    return 'a duration such as "500ms", "1s", "2m", "1h" or "1d"'


def written(value: float, unit: str) -> str:
    """Return a number in the way it is written in the YAML: 0.5 of "s" as 500ms."""
    if unit == "":
        return f"{value:.15g}"
    if unit == "bytes":
        return _size(int(value))
    if value == 0:
        return "0s"
    seconds = Decimal(repr(value)) / (1000 if unit == "ms" else 1)
    if seconds % 1:
        return f"{seconds * 1000:f}".rstrip("0").rstrip(".") + "ms"
    for word in ("d", "h", "m"):
        if seconds % _DURATIONS[word] == 0:
            return f"{int(seconds / _DURATIONS[word])}{word}"
    return f"{int(seconds)}s"


def _size(value: int) -> str:
    for word in ("TB", "TiB", "GB", "GiB", "MB", "MiB", "kB", "KiB"):
        factor = _SIZES[word.lower()]
        if value and value % factor == 0:
            return f"{value // factor}{word}"
    return f"{value}B"
