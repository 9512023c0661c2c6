"""Every way in which a server's certificate can be wrong, and the few in which it is right."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.protocols.opcua.validation import Lists, Peer, fault
from tests.opcua.certificates import (
    DAY,
    NOW,
    UNREADABLE_USAGE,
    URI,
    Pair,
    key,
    made,
    revocations,
    unreadable,
)

PEER = Peer("Basic256Sha256", "127.0.0.1", URI)
ROOT = made("plant authority", authority=True, start=NOW - 1000 * DAY)
LINE = made("line authority", ROOT, authority=True, start=NOW - 900 * DAY)
NAMESAKE = made("plant authority", authority=True, own_key=key("namesake"))
OTHER = made("other authority", authority=True)
SELF = made("plc")
FROM_LINE = made("plc", LINE)
FROM_ROOT = made("plc", ROOT)
RENEWED = made("plant authority", authority=True, start=NOW - 10 * DAY)
RENEWED_LINE = made("line authority", ROOT, authority=True, start=NOW - 10 * DAY)
ENDED = made("plant authority", authority=True, start=NOW - 1000 * DAY, end=NOW - DAY)
BACKDATED = made("plc", RENEWED, start=NOW - 11 * DAY)
OLD_LINE = made("line authority", ROOT, authority=True, start=NOW - 900 * DAY, end=NOW - DAY)


def trusted(*pairs: Pair, **more: object) -> Lists:
    return Lists([pair.certificate for pair in pairs], **more)  # type: ignore[arg-type]


def judge(lists: Lists, *chain: Pair, peer: Peer = PEER, now: datetime | None = NOW) -> str | None:
    found = fault([pair.certificate for pair in chain], lists, peer, now)
    return found.symbol if found else None


@pytest.mark.parametrize(
    ("lists", "chain"),
    [
        pytest.param(trusted(SELF), [SELF], id="its own certificate is trusted"),
        pytest.param(trusted(FROM_LINE), [FROM_LINE], id="itself trusted, its authority unknown"),
        pytest.param(trusted(ROOT), [FROM_ROOT], id="its authority is trusted"),
        pytest.param(trusted(ROOT), [FROM_LINE, LINE], id="it brings its chain"),
        pytest.param(trusted(ROOT, issuers=[LINE.certificate]), [FROM_LINE], id="its chain lies in issuers"),
        pytest.param(trusted(LINE), [FROM_LINE], id="an authority below the root is trusted"),
        pytest.param(trusted(RENEWED), [FROM_ROOT], id="its authority was renewed with the same key"),
        pytest.param(trusted(ENDED, RENEWED), [FROM_ROOT], id="it was renewed, the old one has expired"),
        pytest.param(trusted(RENEWED, ENDED), [FROM_ROOT], id="it was renewed, the old one comes last"),
        pytest.param(
            trusted(ROOT), [made("plc", RENEWED_LINE), RENEWED_LINE],
            id="the authority in its chain was renewed",
        ),
        pytest.param(
            trusted(ROOT, issuers=[RENEWED_LINE.certificate]), [FROM_LINE],
            id="the authority in issuers was renewed",
        ),
        pytest.param(trusted(RENEWED), [BACKDATED], id="it is dated before its authority"),
        pytest.param(
            trusted(ROOT, revocations=[revocations(ROOT, OTHER)]), [FROM_ROOT], id="another one was revoked"
        ),
        pytest.param(
            trusted(ROOT, revocations=[revocations(NAMESAKE, FROM_ROOT)]), [FROM_ROOT],
            id="a stranger of that name revoked it",
        ),
    ],
)  # fmt: skip
def test_what_is_trusted(lists: Lists, chain: list[Pair]) -> None:
    assert judge(lists, *chain) is None


EXPIRED = made("plc", end=NOW - DAY)
EARLY = made("plc", start=NOW + timedelta(hours=1))
NO_AUTHORITY = made("just a device")
ELLIPTIC = made("plc", own_key=ec.generate_private_key(ec.SECP256R1()))


@pytest.mark.parametrize(
    ("lists", "chain", "symbol"),
    [
        pytest.param(trusted(), [SELF], "BadCertificateUntrusted", id="nobody is trusted"),
        pytest.param(trusted(made("plc")), [SELF], "BadCertificateUntrusted", id="a twin is trusted"),
        pytest.param(trusted(OTHER), [SELF], "BadCertificateUntrusted", id="somebody else is trusted"),
        pytest.param(trusted(OTHER), [FROM_ROOT], "BadCertificateChainIncomplete", id="foreign authority"),
        pytest.param(trusted(NAMESAKE), [FROM_ROOT], "BadCertificateChainIncomplete", id="its namesake"),
        pytest.param(trusted(ROOT), [FROM_LINE], "BadCertificateChainIncomplete", id="a link is missing"),
        pytest.param(trusted(ROOT), [FROM_LINE, OTHER], "BadCertificateChainIncomplete", id="a wrong link"),
        pytest.param(
            Lists(issuers=[ROOT.certificate]), [FROM_ROOT], "BadCertificateChainIncomplete",
            id="only an issuer",
        ),
        pytest.param(
            trusted(NO_AUTHORITY), [made("plc", NO_AUTHORITY)], "BadCertificateChainIncomplete",
            id="a trusted device plays authority",
        ),
        pytest.param(trusted(EXPIRED), [EXPIRED], "BadCertificateTimeInvalid", id="trusted, but expired"),
        pytest.param(trusted(EARLY), [EARLY], "BadCertificateTimeInvalid", id="trusted, but of tomorrow"),
        pytest.param(
            trusted(ROOT), [made("plc", ROOT, end=NOW - DAY)], "BadCertificateTimeInvalid", id="expired"
        ),
        pytest.param(
            trusted(ROOT), [made("plc", ROOT, start=NOW + DAY)], "BadCertificateTimeInvalid", id="of tomorrow"
        ),
        pytest.param(
            trusted(ROOT), [made("plc", OLD_LINE), OLD_LINE], "BadCertificateIssuerTimeInvalid",
            id="its issuer expired",
        ),
        pytest.param(
            trusted(ROOT, revocations=[revocations(ROOT, FROM_ROOT)]), [FROM_ROOT], "BadCertificateRevoked",
            id="revoked",
        ),
        pytest.param(
            trusted(FROM_ROOT, issuers=[ROOT.certificate], revocations=[revocations(ROOT, FROM_ROOT)]),
            [FROM_ROOT], "BadCertificateRevoked", id="trusted itself, then revoked",
        ),
        pytest.param(
            trusted(ROOT, revocations=[revocations(ROOT, LINE)]), [FROM_LINE, LINE], "BadCertificateRevoked",
            id="its issuer was revoked",
        ),
        pytest.param(
            trusted(ROOT), [made("plc", ROOT, host="10.0.0.7")], "BadCertificateHostNameInvalid",
            id="of another host",
        ),
        pytest.param(
            trusted(ROOT), [made("plc", ROOT, host="plc-08")], "BadCertificateHostNameInvalid",
            id="of another host name",
        ),
        pytest.param(
            trusted(ROOT), [made("plc", ROOT, uri="urn:plc-08:mill")], "BadCertificateUriInvalid",
            id="of another application",
        ),
        pytest.param(
            trusted(ROOT), [made("plc", ROOT, uri=None)], "BadCertificateUriInvalid", id="of no application"
        ),
        pytest.param(
            trusted(ROOT), [made("plc", ROOT, usage=ExtendedKeyUsageOID.CLIENT_AUTH)],
            "BadCertificateUseNotAllowed", id="made for clients",
        ),
        pytest.param(
            trusted(made("plc", own_key=key("short", 1024))), [made("plc", own_key=key("short", 1024))],
            "BadCertificatePolicyCheckFailed", id="a short key",
        ),
        pytest.param(trusted(ELLIPTIC), [ELLIPTIC], "BadCertificatePolicyCheckFailed", id="no RSA key"),
        pytest.param(
            trusted(ROOT), [made("plc", ROOT, usage=UNREADABLE_USAGE)], "BadCertificateInvalid",
            id="an extension that cannot be read",
        ),
        pytest.param(
            trusted(ROOT), [Pair(unreadable(SELF, "key"), None)], "BadCertificateInvalid",
            id="a key that cannot be read",
        ),
        pytest.param(
            trusted(ROOT), [Pair(unreadable(SELF, "name"), None)], "BadCertificateInvalid",
            id="a name that cannot be read",
        ),
    ],
)  # fmt: skip
def test_what_is_not(lists: Lists, chain: list[Pair], symbol: str) -> None:
    assert judge(lists, *chain) == symbol


@pytest.mark.parametrize("part", ["name", "key"])
@pytest.mark.parametrize("place", ["trusted", "issuers"])
def test_a_broken_certificate_in_a_folder_harms_no_other(part: str, place: str) -> None:
    broken = unreadable(NAMESAKE, part)
    lists: dict[str, Any] = {"trusted": [ROOT.certificate], "issuers": []}
    lists[place].insert(0, broken)
    revoked = revocations(NAMESAKE, FROM_ROOT)
    assert judge(Lists(**lists, revocations=[revoked]), FROM_ROOT) is None
    assert judge(Lists(**lists, revocations=[revoked, revocations(ROOT, FROM_ROOT)]), FROM_ROOT) == (
        "BadCertificateRevoked"
    )


@pytest.mark.parametrize(
    ("authority", "leaf"),
    [
        (RENEWED, FROM_ROOT),
        (RENEWED, BACKDATED),
        (ENDED, FROM_ROOT),
        (ROOT, made("plc", ROOT, end=NOW - DAY)),
    ],
)
def test_without_a_clock_a_chain_has_no_age(authority: Pair, leaf: Pair) -> None:
    assert judge(trusted(authority), leaf, now=None) is None


@pytest.mark.parametrize("pair", [EXPIRED, EARLY])
def test_without_a_clock_no_certificate_is_too_old_or_too_new(pair: Pair) -> None:
    assert judge(trusted(pair), pair, now=None) is None


def test_what_is_accepted_as_it_is_may_have_expired() -> None:
    assert judge(Lists(expired=[EXPIRED.certificate]), EXPIRED) is None


def test_a_host_by_its_name() -> None:
    pair = made("plc", ROOT, host="PLC-07")
    assert judge(trusted(ROOT), pair, peer=PEER._replace(host="plc-07")) is None


def test_an_outdated_policy_takes_a_short_key() -> None:
    pair = made("plc", own_key=key("short", 1024))
    assert judge(trusted(pair), pair, peer=PEER._replace(policy="Basic256")) is None
