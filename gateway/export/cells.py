"""Times, types and values as an export writes them."""

import base64
from datetime import UTC, datetime
from typing import Final

from gateway.api.values import carry, dumps
from gateway.model import Value

_FORMULA: Final = tuple("=+-@\t\r\n'＝＋－＠")  # noqa: RUF001  # Excel takes the wide ones too
_400_YEARS_S: Final = 146_097 * 86_400
_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799
"""0001-01-01 and the end of 9999, which datetime knows."""
_WORDS: Final = {
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "text",
    bytes: "bytes",
    type(None): "null",
}


class Times:
    """ISO 8601 in UTC with microseconds; before year 1 and after 9999 with six digits and a sign."""

    def __init__(self) -> None:
        self._second, self._text = 0, "1970-01-01T00:00:00"

    def text(self, ts_us: int) -> str:
        second, us = divmod(ts_us, 1_000_000)
        if second != self._second:
            self._second, self._text = second, _second(second)
        return f"{self._text}.{us:06}Z"


def _second(second: int) -> str:
    if _FIRST_S <= second <= _LAST_S:
        return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    eras, within = divmod(second, _400_YEARS_S)  # the calendar repeats: 1970 plus as many times 400 years
    near = datetime.fromtimestamp(within, UTC)
    return f"{near.year + eras * 400:+07}-{near:%m-%dT%H:%M:%S}"


def harmless(text: str) -> str:
    """Return text that no spreadsheet takes for a formula; taking one leading ' away gives it back."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def kind_of(value: Value) -> str:
    """Return the word of the column `type`; an array's may go on as `type` of /v1 does."""
    if isinstance(value, list):
        leaf = carry(value)[1]
        return f"array of {leaf}" if leaf else "array"
    return _WORDS[type(value)]


def cell(value: Value) -> tuple[str, str]:
    """Return a value as CSV has it, and its type."""
    kind = kind_of(value)
    if value is None:
        return "", kind
    if isinstance(value, str):
        return harmless(value), kind
    if isinstance(value, bytes):
        return harmless(base64.b64encode(value).decode()), kind
    carried = carry(value)[0]
    return (carried if isinstance(carried, str) else dumps(carried).decode()), kind
