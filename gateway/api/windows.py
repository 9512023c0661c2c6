"""Times and durations as `/v1` takes them, and the cursor of a list of samples."""

import re
from datetime import datetime, timedelta
from typing import Any, Final

from marshmallow import ValidationError, fields

MIN_US: Final = -(2**63)
MAX_US: Final = 2**63 - 1
_WHOLE = re.compile(r"^-?[0-9]{1,19}$", re.ASCII)
_LOST_PLUS = re.compile(r"(T\d\d:\d\d(?::\d\d(?:\.\d+)?)?) (\d\d:?\d\d)$", re.ASCII)
_ISO = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)$", re.ASCII)
_DURATION = re.compile(r"^([0-9]{1,12}(?:\.[0-9]{1,6})?)(us|ms|s|m|h|d)$", re.ASCII)
_DURATION_PATTERN: Final = r"^[0-9]{1,12}(\.[0-9]{1,6})?(us|ms|s|m|h|d)$"
_INSTANT_PATTERN: Final = (
    r"^(-?[0-9]{1,19}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2}))$"
)
CURSOR_PATTERN: Final = r"^-?[0-9]{1,19}_[0-9]{1,19}$"
_UNIT_US: Final = {
    "us": 1,
    "ms": 1000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MICROSECOND = timedelta(microseconds=1)


def instant(text: str) -> int:
    """Return microseconds since 1970 of an integer or of ISO 8601 with offset. ValueError with a sentence."""
    if _WHOLE.match(text):
        value = int(text)
        if MIN_US <= value <= MAX_US:
            return value
        raise ValueError("does not fit into 64 bits")
    text = _LOST_PLUS.sub(r"\1+\2", text)  # a plus sign that a URL turned into a space
    if not _ISO.match(text):
        raise ValueError(
            "is neither microseconds since 1970 nor ISO 8601 with an offset, such as 2026-01-31T12:00:00Z"
        )
    try:
        return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        raise ValueError("is not a date that exists") from None


def duration_us(text: str) -> int:
    """Return microseconds of "10s", "5m"... ValueError with a sentence."""
    found = _DURATION.match(text)
    if found is None:
        raise ValueError("is not a duration such as 500ms, 10s, 5m, 1h or 1d")
    width = round(float(found[1]) * _UNIT_US[found[2]])
    if width < 1000:
        raise ValueError("is less than a millisecond")
    return width


def cursor_text(ts: int, series: int) -> str:
    return f"{ts}_{series}"


def cursor_of(text: str) -> tuple[int, int]:
    """Return (ts, series). ValueError with a sentence."""
    ts, _, series = text.partition("_")
    if not _WHOLE.match(ts) or not _WHOLE.match(series) or not MIN_US <= int(ts) <= MAX_US:
        raise ValueError("is not a `next` of an answer of this gateway")
    return int(ts), min(int(series), MAX_US)


class Instant(fields.Field[int]):
    """A point in time in a query."""

    def __init__(self, *, help: str, **more: Any) -> None:  # noqa: A002
        description = f"{help} Microseconds since 1970 UTC, or ISO 8601 with an offset."
        super().__init__(
            metadata={"description": description, "type": "string", "pattern": _INSTANT_PATTERN}, **more
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        try:
            return instant(str(value))
        except ValueError as error:
            raise ValidationError(str(error)) from None


class Duration(fields.Field[int]):
    """A duration in a query; microseconds inside."""

    def __init__(self, *, help: str, **more: Any) -> None:  # noqa: A002
        super().__init__(
            metadata={"description": help, "type": "string", "pattern": _DURATION_PATTERN}, **more
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        try:
            return duration_us(str(value))
        except ValueError as error:
            raise ValidationError(str(error)) from None
