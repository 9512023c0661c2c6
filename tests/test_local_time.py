"""Local times, where local is not UTC."""

import time
from collections.abc import Iterator

import pytest

from gateway.local_time import instant, local_iso, shown

SUMMER_US, WINTER_US = 1_782_900_000_123_456, 1_795_282_260_000_000


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


def test_there_and_back() -> None:
    assert local_iso(SUMMER_US) == "2026-07-01T12:00:00.123456"
    assert local_iso(WINTER_US) == "2026-11-21T18:31:00"
    assert shown(SUMMER_US) == "2026-07-01 12:00:00"
    assert shown(SUMMER_US, fraction=True) == "2026-07-01 12:00:00.123456"
    for us in (SUMMER_US, WINTER_US, 0, -1, 1):
        assert instant(local_iso(us)) == us


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("2026-07-01T10:00:00.123456Z", SUMMER_US),
        ("2026-07-01T12:00:00.123456+02:00", SUMMER_US),
        (" 2026-11-21 18:31 ", WINTER_US),
        ("20261121T183100", WINTER_US),
        ("2026-11-21", WINTER_US - (18 * 60 + 31) * 60_000_000),
    ],
)
def test_what_is_a_time(text: str, us: int) -> None:
    assert instant(text) == us


@pytest.mark.parametrize(
    "text", ["", "x", "21.11.2026", "2026-13-01", "1795282260", "9999-12-31T23:59:59-23:59"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        instant(text)
    assert shown(2**62) == f"{2**62} us"
