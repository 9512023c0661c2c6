"""How far a server's clock is from ours, and when that is why it refuses us."""

from datetime import UTC, datetime
from typing import Any, Final

from asyncua import Client, ua
from cryptography import x509

from gateway.clock import Clock
from gateway.protocols.opcua.bounded import decoded
from gateway.protocols.opcua.faults import REFUSED_US
from gateway.protocols.opcua.values import microseconds

_NOTABLE_US: Final = 60_000_000
"""Below this a clock that differs is no reason for anything."""
_LATE: Final = frozenset(
    {
        ua.StatusCodes.BadCertificateTimeInvalid,
        ua.StatusCodes.BadCertificateIssuerTimeInvalid,
        ua.StatusCodes.BadInvalidTimestamp,
        ua.StatusCodes.BadRequestTimeout,
    }
)
"""What a server says where its clock and ours differ."""


async def asked_for_endpoints(
    client: Client, clock: Clock
) -> tuple[list[ua.EndpointDescription], int | None]:
    """Ask over a socket that said hello; return the endpoints, and what the server's clock is ahead."""
    await client.open_secure_channel()
    request = ua.GetEndpointsRequest()
    request.Parameters.EndpointUrl = client.server_url.geturl()
    asked_us = clock.wall_us()
    data = await client.uaclient._send_request(request)
    offset_us = None
    response: Any = await decoded(ua.GetEndpointsResponse, data)
    response.ResponseHeader.ServiceResult.check()
    if (stamp := response.ResponseHeader.Timestamp) is not None:
        offset_us = ahead_us(stamp, asked_us, clock.wall_us())
    await client.close_secure_channel()
    return list(response.Endpoints or ()), offset_us


def ahead_us(theirs: datetime, asked_us: int, answered_us: int) -> int | None:
    """Return what their clock is ahead of ours, from a time in an answer; None where it tells none."""
    theirs_us = microseconds(theirs)
    return None if theirs_us is None else theirs_us - (asked_us + answered_us) // 2


def is_wrong(offset_us: int | None) -> bool:
    """Say whether clocks so far apart are worth a word."""
    return offset_us is not None and abs(offset_us) >= _NOTABLE_US


def clock_note(code: int, offset_us: int | None, ours: x509.Certificate, clock: Clock) -> str:
    """Say what a clock has to do with a refusal by this StatusCode, or return "".

    Many servers tell nothing but BadSecurityChecksFailed (Part 4, 5.5.2.2): whether our certificate is valid
    by their clock is then for us to see.
    """
    if offset_us is None or not is_wrong(offset_us):
        return ""
    theirs = datetime.fromtimestamp((clock.wall_us() + offset_us) / 1e6, UTC)
    valid = ours.not_valid_before_utc <= theirs <= ours.not_valid_after_utc
    if code not in _LATE and (valid or code not in REFUSED_US):
        return ""
    return f"{clock_words(offset_us)}; set the clock that is wrong"


def clock_words(offset_us: int) -> str:
    """Return an offset as words."""
    seconds = round(abs(offset_us) / 1e6)
    days, rest = divmod(seconds, 86_400)
    span = (
        f"{days} d {rest // 3600} h" if days else f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
    )
    return f"the server's clock is {span} {'ahead of' if offset_us > 0 else 'behind'} the gateway's"
