"""The way into a session: a new client for each attempt, the best endpoint, closed on every way out."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from asyncua import Client, ua

from gateway.model import Device, DeviceProblem, Surroundings, WaitingForTrust
from gateway.protocols.opcua import Settings
from gateway.protocols.opcua.bounded import understood
from gateway.protocols.opcua.faults import REFUSED_PASSWORD, REFUSED_POLICY, REFUSED_US, cut_off, sentence
from gateway.protocols.opcua.greeting import with_port
from gateway.protocols.opcua.kept import Kept, reactivated
from gateway.protocols.opcua.learning import learn
from gateway.protocols.opcua.pki import Identity, Pki
from gateway.protocols.opcua.security import Choice, Offer, choices, downgraded, insecure
from gateway.protocols.opcua.selftest import guard
from gateway.protocols.opcua.server_clock import asked_for_endpoints, clock_note
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.trusting import Vetted, user_login, vet

_log = logging.getLogger(__name__)

_LEAVE_S = 1.5
_CHANNEL_LIFETIME_MS = 3_600_000
_CONNECT_S = 4.0
"""A host that is off, or a connection that leads nowhere, is given up sooner than a server that is slow."""
KEPT = "opcua kept"
"""Where the link remembers what was left at a server (kept.Kept)."""


@asynccontextmanager
async def open_session(device: Device, settings: Settings, link: Surroundings) -> AsyncIterator[Session]:
    """Enter a session over the best endpoint that works; raises DeviceProblem or WaitingForTrust."""
    pki = Pki(link.state / "pki")
    identity = await asyncio.to_thread(pki.identity, link.gateway_id)
    left: Kept | None = link.memory.get(KEPT)
    if left is not None and left.url != settings.url:
        left = None
    if left is not None:
        offer = Offer([left.choice], [], left.clock_offset_us)
    else:
        offer = await _offered(device, settings, link, pki, identity)
    refusals: list[str] = []
    for choice in offer.ways:
        vetted = await asyncio.to_thread(vet, device, settings, link, pki, choice)
        client = _client(device, settings, link, identity, choice, vetted)
        try:
            resumed = await _connect(client, device, settings, choice, offer, left, link)
        except ua.UaStatusCodeError as error:
            await _leave(client)
            link.memory.pop(KEPT, None)
            if error.code in REFUSED_POLICY:
                refusals.append(f"{choice}: {sentence(error)}")
                continue
            offset_us = offer.clock_offset_us
            raise _refused(device, settings, link, identity, choice, error, offset_us) from error
        except BaseException:
            await _leave(client)
            raise
        try:
            if choice.secured:
                await asyncio.to_thread(pki.remember_secured, device.id, str(choice))
            session = Session(client, device.id, settings, choice, insecure(choice, settings))
            session.resumed, session.kept = resumed, left
            session.vetted = vetted
            session.clock_offset_us = offer.clock_offset_us
            session.heard()
            await learn(session)
            yield session
        except BaseException as error:
            if cut_off(error):
                _abort(client)  # the session may live on, and is taken up again
            else:
                await _leave(client)
            raise
        await _leave(client)
        return
    raise DeviceProblem(f"device {device.id}: no endpoint of the server works: {'; '.join(refusals)}")


async def _offered(
    device: Device, settings: Settings, link: Surroundings, pki: Pki, identity: Identity
) -> Offer:
    """Ask the server for the ways in. DeviceProblem: none will do."""
    asking = _bare_client(settings, identity)
    try:
        await _open_socket(asking)
        endpoints, offset_us = await asked_for_endpoints(asking, link.clock)
    finally:
        _abort(asking)
    remembered = pki.secured_file(device.id)
    once = str(remembered) if await asyncio.to_thread(remembered.exists) else ""
    return Offer(choices(device.id, settings, endpoints, once_secured=once), endpoints, offset_us)


def _bare_client(settings: Settings, identity: Identity) -> Client:
    # asyncua's supervisor, watchdog and reconnection run only after Client.connect(), which is not used.
    client = Client(with_port(settings.url), timeout=settings.request_timeout_s)
    guard(client)
    client.application_uri = identity.application_uri
    client.product_uri = "urn:edge-gateway"
    return client


def _client(
    device: Device,
    settings: Settings,
    link: Surroundings,
    identity: Identity,
    choice: Choice,
    vetted: Vetted | None,
) -> Client:
    client = _bare_client(settings, identity)
    client.name = "edge-gateway"
    client.description = f"edge-gateway {link.gateway_id} {device.id}"
    client.session_timeout = round(settings.session_timeout_s * 1000)
    client.secure_channel_timeout = _CHANNEL_LIFETIME_MS
    if settings.user:
        client.set_user(settings.user)
    if settings.password is not None:
        client.set_password(settings.password.text)
    if settings.user_certificate is not None:
        client.user_certificate, client.user_private_key = user_login(device.id, settings.user_certificate)
    if vetted is not None:
        policy = choice.policy_class(
            vetted.certificate, identity.certificate, identity.key, choice.mode_value
        )
        client.security_policy = policy
        client.uaclient.set_security(policy)
    return client


async def _connect(
    client: Client,
    device: Device,
    settings: Settings,
    choice: Choice,
    offer: Offer,
    left: Kept | None,
    link: Surroundings,
) -> bool:
    """Open everything up to an active session; say whether it is the one that was `left` at the server."""
    await _open_socket(client)
    try:
        await client.open_secure_channel()
    except (ConnectionError, AssertionError) as error:
        if not choice.secured:
            raise ConnectionError("the server refused the connection") from error
        # Many servers hang up on a certificate they do not trust, or answer what asyncua does not expect.
        raise ua.UaStatusCodeError(ua.StatusCodes.BadSecurityChecksFailed) from error
    if left is not None:
        why = await reactivated(client, left)
        link.memory.pop(KEPT, None)
        if not why:
            return True
        _log.info("%s: the session of before is not taken up again: %s", device.id, why)
    with understood("the answer to CreateSession"):
        signed = await _create_session(client, offer.endpoints)
    if why := downgraded(settings, offer, choice, signed):
        raise DeviceProblem(
            f"device {device.id}: {why}: an attacker would do that to get the weaker {choice}; look at what "
            f"lies between, or, if the server itself is so, write `security: {choice}`"
        )
    if settings.user and choice.mode == "Sign":
        token = client.server_policy(ua.UserTokenType.UserName)
        if token.SecurityPolicyUri.endswith("#None"):
            raise DeviceProblem(
                f"device {device.id}: the server asks for the password unencrypted; it is not sent"
            )
    with understood("the answer to ActivateSession"):
        await client.activate_session(client._username, client._password, client.user_certificate)
    return False


async def _open_socket(client: Client) -> None:
    task = asyncio.current_task()
    cancelled = task.cancelling() if task is not None else 0
    async with asyncio.timeout(_CONNECT_S):
        await client.connect_socket()
        # asyncua waits with asyncio.wait_for, which before Python 3.12 swallows a cancellation that comes
        # together with the connection (CPython issue 86296): the device would never stop.
        if task is not None and task.cancelling() > cancelled:
            raise asyncio.CancelledError
        await client.send_hello()


async def _create_session(
    client: Client, offered: Sequence[ua.EndpointDescription]
) -> Sequence[ua.EndpointDescription]:
    """Create the session; return the endpoints that its answer tells: not all servers tell any.

    A cancellation waits a moment for it, so that it can be closed.
    """
    inner = client.uaclient
    signed: list[ua.EndpointDescription] = []
    create = inner.create_session

    async def answered(parameters: ua.CreateSessionParameters) -> ua.CreateSessionResult:
        answer = await create(parameters)
        signed.extend(answer.ServerEndpoints or ())
        answer.ServerEndpoints = signed or list(offered)  # asyncua takes our kind of login from there
        return answer

    inner.create_session = answered
    creating = asyncio.ensure_future(client.create_session())
    try:
        await asyncio.shield(creating)
    except asyncio.CancelledError:
        with contextlib.suppress(TimeoutError, ua.UaError, OSError):
            async with asyncio.timeout(_LEAVE_S):
                await creating
        raise
    return signed


def _refused(
    device: Device,
    settings: Settings,
    link: Surroundings,
    identity: Identity,
    choice: Choice,
    error: ua.UaStatusCodeError,
    offset_us: int | None,
) -> BaseException:
    """Return a refusal of the session as what a person can do about it."""
    clock = clock_note(error.code, offset_us, identity.certificate, link.clock)
    if clock:
        return DeviceProblem(f"device {device.id}: the server refuses us ({sentence(error)}): {clock}")
    if choice.secured and error.code in REFUSED_US:
        return WaitingForTrust(
            f"device {device.id}: the server does not accept our certificate {identity.thumbprint} "
            f"over {choice} ({sentence(error)}): trust it there (the file is {identity.path}, the server "
            "often keeps it under rejected), or write `security: none` on a network that you trust"
        )
    if error.code in REFUSED_PASSWORD:
        who = f"user {settings.user!r}" if settings.user else "an anonymous session"
        who = "the certificate of `user_certificate`" if settings.user_certificate is not None else who
        return DeviceProblem(f"device {device.id}: the server refuses {who}: {sentence(error)}")
    refusal: BaseException = error
    return refusal


async def _leave(client: Client) -> None:
    """Close the session with its subscriptions, the channel and the socket, in about two seconds at most."""
    try:
        async with asyncio.timeout(_LEAVE_S):
            await client.close_session()
            await client.close_secure_channel()
    except (ua.UaError, OSError, TimeoutError) as error:
        _log.debug("closing a session: %s", sentence(error))
    finally:
        _abort(client)


def _abort(client: Client) -> None:
    protocol = client.uaclient.protocol
    transport = protocol.transport if protocol is not None else None
    client.disconnect_socket()
    if transport is not None and client.uaclient.protocol is None and transport.get_write_buffer_size():
        transport.abort()  # a half-open connection never takes what is still to be sent
