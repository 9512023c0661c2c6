"""Times as people and timeseries-api write them: local, without an offset."""

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def local_iso(us: int) -> str:
    """Return ISO 8601 of microseconds since 1970 UTC. OverflowError: beyond the year 9999."""
    return _local(us).isoformat()


def shown(us: int, *, fraction: bool = False) -> str:
    """Return a time for people, to the second, or to the microsecond."""
    try:
        at = _local(us)
    except (OverflowError, ValueError):
        return f"{us} us"
    return at.strftime("%Y-%m-%d %H:%M:%S.%f" if fraction else "%Y-%m-%d %H:%M:%S")


def instant(text: str) -> int:
    """Return microseconds since 1970 UTC of ISO 8601, local where it has no offset. ValueError."""
    try:
        return (datetime.fromisoformat(text.strip()).astimezone(UTC) - _EPOCH) // _MICROSECOND
    except (OverflowError, OSError) as error:
        raise ValueError(f"{text} is not a time that can be") from error


def _local(us: int) -> datetime:
    return (_EPOCH + us * _MICROSECOND).astimezone().replace(tzinfo=None)
