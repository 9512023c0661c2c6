"""The exceptions of asyncua and of the network as sentences for a technician."""

from collections.abc import Iterator

from asyncua import ua

from gateway.model import DeviceProblem, GatewayError

_CODES = ua.StatusCodes

_FOREIGN = {0xDC00 + byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0x100)}
"""What asyncua makes of bytes that are no UTF-8, to the characters that servers of that kind mean."""

REFUSED_US = frozenset(
    {
        _CODES.BadSecurityChecksFailed,
        _CODES.BadCertificateUntrusted,
        _CODES.BadCertificateInvalid,
        _CODES.BadCertificateUriInvalid,
        _CODES.BadCertificateUseNotAllowed,
        _CODES.BadCertificateTimeInvalid,
        _CODES.BadCertificateIssuerUseNotAllowed,
        _CODES.BadCertificateIssuerTimeInvalid,
        _CODES.BadCertificateChainIncomplete,
        _CODES.BadCertificateRevocationUnknown,
        _CODES.BadCertificateRevoked,
        _CODES.BadCertificatePolicyCheckFailed,
        _CODES.BadApplicationSignatureInvalid,
    }
)
"""The server does not accept our certificate."""

REFUSED_POLICY = frozenset({_CODES.BadSecurityPolicyRejected, _CODES.BadSecurityModeRejected})
"""The endpoint does not work though it is offered; another one may."""

REFUSED_PASSWORD = frozenset(
    {
        _CODES.BadIdentityTokenInvalid,
        _CODES.BadIdentityTokenRejected,
        _CODES.BadUserAccessDenied,
        _CODES.BadUserSignatureInvalid,
    }
)

NO_SUCH_TAG = frozenset(
    {
        _CODES.BadNodeIdUnknown,
        _CODES.BadNodeIdInvalid,
        _CODES.BadAttributeIdInvalid,
        _CODES.BadNotReadable,
        _CODES.BadUserAccessDenied,
        _CODES.BadNodeNotInView,
        _CODES.BadIndexRangeInvalid,
    }
)
"""The tag is wrong: neither a subscription nor a read gives a value. Not kept as samples."""

TOO_MUCH = frozenset(
    {
        _CODES.BadTooManyOperations,
        _CODES.BadEncodingLimitsExceeded,
        _CODES.BadRequestTooLarge,
        _CODES.BadResponseTooLarge,
        _CODES.BadTcpMessageTooLarge,
    }
)
"""Asked for less at once it may work."""

NO_ROOM = frozenset({_CODES.BadTooManyMonitoredItems})
"""The subscription is full; another one may have room."""

NO_SUBSCRIPTION = frozenset(
    {
        _CODES.BadServiceUnsupported,
        _CODES.BadNotImplemented,
        _CODES.BadNotSupported,
        _CODES.BadTooManySubscriptions,
        _CODES.BadRequestNotAllowed,
        _CODES.BadSubscriptionIdInvalid,
    }
)
"""The server makes no subscription."""

NO_FILTER = frozenset(
    {
        _CODES.BadFilterNotAllowed,
        _CODES.BadMonitoredItemFilterInvalid,
        _CODES.BadMonitoredItemFilterUnsupported,
        _CODES.BadDeadbandFilterInvalid,
        _CODES.BadEventFilterInvalid,
        _CODES.BadFilterOperatorUnsupported,
    }
)

_MEANING = {
    _CODES.BadTooManyMonitoredItems: "the server subscribes no more tags",
    _CODES.BadTooManySessions: "all sessions of the server are taken; lost ones are freed in time",
    _CODES.BadSessionIdInvalid: "the server does not know our session any more; it was restarted",
    _CODES.BadSessionClosed: "the server closed our session",
    _CODES.BadSecureChannelIdInvalid: "the server does not know our connection any more; it was restarted",
    _CODES.BadSecureChannelClosed: "the server closed the connection",
    _CODES.BadNoSubscription: "the server does not know our subscription any more",
    _CODES.BadShutdown: "the server is shutting down",
    _CODES.BadServerHalted: "the server is halted",
    _CODES.BadNodeIdUnknown: "the server has no such node",
    _CODES.BadAttributeIdInvalid: "the node has no value; it is no variable",
    _CODES.BadNotReadable: "the node cannot be read",
    _CODES.BadUserAccessDenied: "the user may not do that",
    _CODES.BadIdentityTokenRejected: "wrong user or password",
    _CODES.BadIdentityTokenInvalid: "the server does not take this kind of login",
    _CODES.BadSecurityChecksFailed: "its security checks failed, most often because it does not trust us",
    _CODES.BadCertificateUntrusted: "it does not trust our certificate",
    _CODES.BadCertificateTimeInvalid: "a certificate is out of date for the server's clock",
}


def status_text(code: int) -> str:
    """Return a StatusCode as words, its symbol in brackets."""
    symbol: str = ua.StatusCode(code).name
    meaning = _MEANING.get(code & 0xFFFF0000)
    return f"{meaning} ({symbol})" if meaning else f"{symbol}: {ua.StatusCode(code).doc}".rstrip(": ")


def readable(text: str) -> str:
    """Return a server's text, or one that quotes it, as text that can be shown and stored."""
    return text.translate(_FOREIGN)


def sentence(error: BaseException) -> str:
    """Return any failure as one line."""
    if isinstance(error, ua.UaStatusCodeError):
        return status_text(error.code)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = readable(" ".join(str(error).split()))
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (connection refused)"
    return text or type(error).__name__


class ServerSilent(DeviceProblem):
    """Nothing comes from the server any more; the session may live on there, and is tried again first."""

    def __init__(self, device: str, url: str, silent_s: float) -> None:
        super().__init__(
            f"device {device}: the server has not answered for {silent_s:.0f} s "
            f"({url}); it hangs, or the network between is cut"
        )


def cut_off(error: BaseException) -> bool:
    """Say whether the way to the server broke, so that the session may live on at the server."""
    causes = list(_leaves(error))
    return any(isinstance(cause, ServerSilent | OSError | TimeoutError) for cause in causes)


def problem(device: str, url: str, error: BaseException) -> GatewayError:
    """Return the failure of a whole session as our exception."""
    causes = list(_leaves(error))
    error = next((cause for cause in causes if isinstance(cause, GatewayError)), causes[0])
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, ua.UaStatusCodeError):
        return DeviceProblem(f"device {device}: {url}: {sentence(error)}")
    if isinstance(error, TimeoutError):
        return DeviceProblem(f"device {device}: {url} does not answer")
    if isinstance(error, OSError):
        return DeviceProblem(f"device {device}: {url} is not reachable: {sentence(error)}")
    return DeviceProblem(f"device {device}: {url}: {sentence(error)}")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error
