"""An OPC UA DataValue as asyncua decodes it -> what a sample holds. Pure."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from asyncua import ua
from asyncua.ua.ua_binary import extensionobject_to_binary, struct_to_binary

from gateway.model import Flag, Value

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_TIME = datetime(1601, 1, 1, tzinfo=UTC)
"""FILETIME 0: the server says that it knows no time (Part 6, 5.2.2.5)."""


class Reading(NamedTuple):
    """A DataValue in our terms. `ts` is None where neither source nor server gave a time."""

    value: Value
    ts: int | None
    status: int
    flags: int


def reading(data: ua.DataValue) -> Reading:
    """Convert; picoseconds are dropped, 100 ns are cut to microseconds."""
    status = 0 if data.StatusCode is None else data.StatusCode.value
    value = plain(data.Value.Value) if data.Value is not None else None
    ts = microseconds(data.SourceTimestamp)
    if ts is not None:
        return Reading(value, ts, status, 0)
    return Reading(value, microseconds(data.ServerTimestamp), status, Flag.SERVER_TIME)


def microseconds(moment: datetime | None) -> int | None:
    """Return microseconds since 1970, or None where no time was given."""
    if moment is None or moment == _NO_TIME:
        return None
    return (moment - _EPOCH) // _MICROSECOND


def overflowed(status: int) -> bool:
    """Say whether the status tells that the server's queue lost values before this one (Part 4, 7.39)."""
    return status & 0x0C80 == 0x0480


def plain(raw: Any) -> Value:
    """Return a value as asyncua decodes it in our terms."""
    kind = type(raw)
    if kind in _UNCHANGED:
        return raw  # type: ignore[no-any-return]
    convert = _CONVERT.get(kind)
    if convert is not None:
        return convert(raw)
    # Enumerations and asyncua's own subclasses of the plain types.
    if isinstance(raw, datetime):
        return _time(raw)
    for base in (int, float, str):
        if isinstance(raw, base):
            return plain(base(raw))
    if isinstance(raw, ua.NodeId):
        return _text(raw.to_string())
    return bytes(extensionobject_to_binary(raw))


def text_of(raw: bytes) -> Value:
    """Return UTF-8 as text, and what is none as the bytes that it is."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _text(raw: str) -> Value:
    # asyncua decodes bytes that are no UTF-8 to lone surrogates; those are kept as the bytes they were.
    try:
        raw.encode()
    except UnicodeEncodeError:
        return raw.encode("utf-8", "surrogateescape")
    return raw


def _time(raw: datetime) -> str:
    moment = raw if raw.tzinfo is not None else raw.replace(tzinfo=UTC)
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _qualified(raw: ua.QualifiedName) -> Value:
    return _text(f"{raw.NamespaceIndex}:{raw.Name}" if raw.NamespaceIndex else raw.Name or "")


def _localized(raw: ua.LocalizedText) -> Value:
    return None if raw.Text is None else _text(raw.Text)


_UNCHANGED = frozenset({bool, int, float, bytes, type(None)})
_CONVERT: dict[type, Callable[[Any], Value]] = {
    str: _text,
    list: lambda raw: [plain(item) for item in raw],
    tuple: lambda raw: [plain(item) for item in raw],
    datetime: _time,
    UUID: str,
    ua.NodeId: lambda raw: _text(raw.to_string()),
    ua.QualifiedName: _qualified,
    ua.LocalizedText: _localized,
    ua.XmlElement: lambda raw: None if raw.Value is None else _text(raw.Value),
    ua.StatusCode: lambda raw: int(raw.value),
    ua.Variant: lambda raw: plain(raw.Value),
    ua.DataValue: lambda raw: reading(raw).value,
    ua.DiagnosticInfo: lambda raw: bytes(struct_to_binary(raw)),
}
