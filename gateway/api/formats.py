"""How rows are written: JSON, NDJSON or CSV, chosen by `format` or by the Accept header."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.api.errors import ApiError
from gateway.api.values import Row, dumps

TYPES: Final = {"json": "application/json", "ndjson": "application/x-ndjson", "csv": "text/csv"}


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a list of rows piece by piece."""

    head: bytes
    row: Callable[[Row], bytes]
    between: bytes
    tail: Callable[[str | None], bytes]
    """The end, given `next`."""


def format_of(content_type: str, name: str, columns: Sequence[str]) -> Format:
    """Return how to write rows; `name` is the list's in JSON, `columns` are CSV's."""
    if content_type == TYPES["json"]:
        return Format(
            b'{"%s":[' % name.encode(), dumps, b",", lambda following: b'],"next":%s}' % dumps(following)
        )
    if content_type == TYPES["ndjson"]:
        return Format(b"", lambda item: dumps(item) + b"\n", b"", _next_line)
    return Format(",".join(columns).encode() + b"\r\n", _csv_line(columns), b"", lambda _following: b"")


def _next_line(following: str | None) -> bytes:
    return b"" if following is None else dumps({"next": following}) + b"\n"


def _csv_line(columns: Sequence[str]) -> Callable[[Row], bytes]:
    text = io.StringIO()
    writer = csv.writer(text)

    def line(item: Row) -> bytes:
        text.seek(0)
        text.truncate()
        writer.writerow([_cell(item, column) for column in columns])
        return text.getvalue().encode("utf-8", "backslashreplace")

    return line


def _cell(item: Row, column: str) -> Any:
    value = item.get(column)
    if column == "flags":
        return " ".join(value or ())
    if column == "type" and value is None and isinstance(item["value"], str):
        return "text"
    if value is None or isinstance(value, str):
        return value
    return dumps(value).decode()


def negotiated(accept: str, asked: str | None) -> str:
    """Return the content type of an answer; ApiError 406 where none of ours is accepted."""
    if asked is not None:
        return TYPES[asked]
    for item in sorted(accept.split(","), key=_quality, reverse=True):
        media = item.partition(";")[0].strip().lower()
        if _quality(item) > 0:
            for offered in TYPES.values():
                if media in (offered, "*/*", f"{offered.partition('/')[0]}/*"):
                    return offered
    raise ApiError(406, "Samples come as application/json, application/x-ndjson or text/csv.")


def _quality(item: str) -> float:
    for parameter in item.split(";")[1:]:
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
