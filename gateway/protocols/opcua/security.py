"""Which endpoint of a server is used: the strongest that works, and never less than was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.crypto import security_policies as policies

from gateway.model import DeviceProblem
from gateway.protocols.opcua import Settings

_CLASSES: dict[str, type[policies.SecurityPolicy]] = {
    "Aes256_Sha256_RsaPss": policies.SecurityPolicyAes256Sha256RsaPss,
    "Basic256Sha256": policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": policies.SecurityPolicyAes128Sha256RsaOaep,
    "Basic256": policies.SecurityPolicyBasic256,
    "Basic128Rsa15": policies.SecurityPolicyBasic128Rsa15,
}
_AUTO = ("Aes256_Sha256_RsaPss", "Basic256Sha256", "Aes128_Sha256_RsaOaep")
_MODES = {"SignAndEncrypt": ua.MessageSecurityMode.SignAndEncrypt, "Sign": ua.MessageSecurityMode.Sign}
_NONE_URI = policies.SecurityPolicyNone.URI


@dataclass(frozen=True, slots=True)
class Choice:
    """One way into the server."""

    policy: str
    mode: str
    certificate: bytes
    """The server's, DER, perhaps with its chain; empty for none."""
    application_uri: str = ""
    """What the server calls itself."""

    @property
    def secured(self) -> bool:
        return self.policy != "none"

    @property
    def policy_class(self) -> type[policies.SecurityPolicy]:
        return _CLASSES[self.policy]

    @property
    def mode_value(self) -> ua.MessageSecurityMode:
        return _MODES[self.mode]

    def __str__(self) -> str:
        return f"{self.policy}/{self.mode}" if self.secured else "none"


NONE = Choice("none", "", b"")


class Offer(NamedTuple):
    """What a server offered before there was a session: nobody signed it (Part 4, 5.4.4)."""

    ways: Sequence[Choice]
    """The ways in to try, the best first."""
    endpoints: Sequence[ua.EndpointDescription]
    """All of them; empty where nobody asked, as for a session that is taken up again."""
    clock_offset_us: int | None


def choices(
    device: str, settings: Settings, endpoints: Sequence[ua.EndpointDescription], *, once_secured: str
) -> list[Choice]:
    """Return the ways in to try, the best first. DeviceProblem: there is none, and why.

    `once_secured` names the file that remembers an earlier secured session, or is "".
    """
    offered = [e for e in endpoints if _over_tcp(e)] or endpoints
    names = ", ".join(sorted({_name(e) for e in offered})) or "nothing"
    if settings.security == "none":
        return [_open(device, settings, offered, names)]
    found = _secured(settings, offered)
    if found:
        return found
    if settings.security != "auto":
        raise DeviceProblem(
            f"device {device}: the server does not offer security {settings.security}"
            f"{_for_user(settings)}; it offers {names}"
        )
    if any(e.SecurityMode != ua.MessageSecurityMode.None_ for e in offered):
        raise DeviceProblem(
            f"device {device}: no secured endpoint of the server will do{_for_user(settings)}; "
            f"it offers {names}: write one of them as `security`, or `none` on a network that you trust"
        )
    if once_secured:
        raise DeviceProblem(
            f"device {device}: the server was reached securely before and now offers no encryption, "
            f"which is what an attacker would do; if it was really changed, remove {once_secured} "
            "or write `security: none`"
        )
    return [_open(device, settings, offered, names)]


def downgraded(
    settings: Settings, offer: Offer, taken: Choice, signed: Sequence[ua.EndpointDescription]
) -> str:
    """Return which stronger way in somebody took from us, and how; "" for none.

    `signed` are the endpoints in the answer to CreateSession, which nobody between can change over a secured
    channel (Part 4, 5.5.1 and 5.6.2). They may have other host names, no certificates, or be none at all. A
    port of the server that was not dialled may well take more than the one that was.
    """
    if not offer.endpoints:
        return ""
    ports = {_port(e) for e in signed if _same(e, taken)}
    here = [e for e in signed if _over_tcp(e) and _port(e) in ports]
    for way in _ranked(settings):
        if _same_way(way, taken):
            break
        theirs = [e for e in here if _same(e, way) and _takes(e, settings)]
        if not theirs:
            continue
        if any(_same_way(way, tried) for tried in offer.ways):
            # Any policy that `auto` tries will do, but who only signs can be read by everybody.
            if way.mode != taken.mode:
                return f"{way}, which the server offers, was refused by an answer that nobody signed"
        elif any(e.UserIdentityTokens for e in theirs) or not any(_same(e, way) for e in offer.endpoints):
            return f"{way}, which the server offers, was missing in its list of endpoints, which nobody signs"
    return ""


def insecure(choice: Choice, settings: Settings) -> str:
    """Return what is insecure about a session over this endpoint, or ""."""
    if choice.secured:
        outdated = choice.policy not in _AUTO
        return f"insecure: {choice.policy} is outdated and can be broken" if outdated else ""
    forced = settings.security == "none"
    why = "`security: none` is configured" if forced else "the server offers nothing else"
    return f"insecure: neither signed nor encrypted, {why}"


def _secured(settings: Settings, offered: Sequence[ua.EndpointDescription]) -> list[Choice]:
    found = []
    for way in _ranked(settings):
        for endpoint in offered:
            if _same(endpoint, way) and endpoint.ServerCertificate and _takes(endpoint, settings):
                uri = endpoint.Server.ApplicationUri or ""
                found.append(replace(way, certificate=endpoint.ServerCertificate, application_uri=uri))
                break
    return found


def _ranked(settings: Settings) -> list[Choice]:
    """Return what the setting allows, the strongest first, without a certificate."""
    wanted, _, mode_wanted = settings.security.partition("/")
    if wanted == "none":
        return []
    policies_wanted = _AUTO if wanted == "auto" else (wanted,)
    modes = [mode_wanted] if mode_wanted else list(_MODES)
    return [Choice(policy, mode, b"") for mode in modes for policy in policies_wanted]


def _open(device: str, settings: Settings, offered: Sequence[ua.EndpointDescription], names: str) -> Choice:
    if settings.user or settings.user_certificate is not None:
        raise DeviceProblem(
            f"device {device}: a user and password are never sent over an unencrypted session, nor is a "
            f"certificate; the server offers {names}: choose a secured one (`security: auto`), or leave "
            "`user` and `user_certificate` away"
        )
    plain = [e for e in offered if e.SecurityMode == ua.MessageSecurityMode.None_]
    if not plain:
        raise DeviceProblem(f"device {device}: the server does not offer `security: none`; it offers {names}")
    if not any(_takes(e, settings) for e in plain):
        raise DeviceProblem(
            f"device {device}: the server takes no anonymous session without encryption; "
            f"it offers {names}: set `user` and `password`, and `security: auto`"
        )
    return NONE


def _same(endpoint: ua.EndpointDescription, way: Choice) -> bool:
    if not way.secured:
        return bool(endpoint.SecurityMode == ua.MessageSecurityMode.None_)
    return bool(
        endpoint.SecurityPolicyUri == way.policy_class.URI and endpoint.SecurityMode == way.mode_value
    )


def _same_way(one: Choice, other: Choice) -> bool:
    return (one.policy, one.mode) == (other.policy, other.mode)


def _over_tcp(endpoint: ua.EndpointDescription) -> bool:
    return bool(endpoint.EndpointUrl and endpoint.EndpointUrl.startswith("opc.tcp"))


def _port(endpoint: ua.EndpointDescription) -> int | None:
    try:
        return urlsplit(endpoint.EndpointUrl or "").port
    except ValueError:
        return None


def _takes(endpoint: ua.EndpointDescription, settings: Settings) -> bool:
    """Say whether a session of our kind may be opened there, its password encrypted if it has one."""
    kind = _login(settings)
    tokens = [t for t in endpoint.UserIdentityTokens or [] if t.TokenType == kind]
    if not tokens:
        # Some servers list no tokens at all: anonymous is then worth a try.
        return not endpoint.UserIdentityTokens and kind == ua.UserTokenType.Anonymous
    if kind != ua.UserTokenType.UserName or endpoint.SecurityMode == ua.MessageSecurityMode.SignAndEncrypt:
        return True
    # asyncua uses the first token of its kind; a token policy of None would send the password in the clear.
    return bool(tokens[0].SecurityPolicyUri != _NONE_URI)


def _login(settings: Settings) -> ua.UserTokenType:
    if settings.user_certificate is not None:
        return ua.UserTokenType.Certificate
    return ua.UserTokenType.UserName if settings.user else ua.UserTokenType.Anonymous


def _name(endpoint: ua.EndpointDescription) -> str:
    policy = (endpoint.SecurityPolicyUri or "").rpartition("#")[2] or "?"
    mode = endpoint.SecurityMode.name.rstrip("_")
    return "none" if policy == "None" else f"{policy}/{mode}"


def _for_user(settings: Settings) -> str:
    if settings.user_certificate is not None:
        return " with a login by certificate"
    if settings.user:
        return " with an encrypted password"
    return " without a login (set `user` and `password`, if that is why)"
