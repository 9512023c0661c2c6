"""How rows are written: JSON, NDJSON or CSV, chosen by `format` or by the Accept header."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.api.columns import Part, csv_line, csv_part, json_part, ndjson_part
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
    part: Part
    """Writes many samples at once, with what stands between them."""


def format_of(content_type: str, name: str, columns: Sequence[str]) -> Format:
    """Return how to write rows; `name` is the list's in JSON, `columns` are CSV's."""
    if content_type == TYPES["json"]:
        return Format(
            b'{"%s":[' % name.encode(),
            dumps,
            b",",
            lambda following: b'],"next":%s}' % dumps(following),
            json_part,
        )
    if content_type == TYPES["ndjson"]:
        return Format(b"", lambda item: dumps(item) + b"\n", b"", _next_line, ndjson_part)
    head = ",".join(columns).encode() + b"\r\n"
    return Format(head, _csv_row(columns), b"", lambda _following: b"", csv_part)


def _next_line(following: str | None) -> bytes:
    return b"" if following is None else dumps({"next": following}) + b"\n"


def _csv_row(columns: Sequence[str]) -> Callable[[Row], bytes]:
    return lambda item: csv_line([_cell(item, column) for column in columns])


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
