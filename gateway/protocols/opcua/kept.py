"""A session that was cut off and may live on at the server: taken up again, or its subscriptions moved."""

from dataclasses import dataclass
from typing import Any

from asyncua import Client, ua

from gateway.protocols.opcua.faults import sentence
from gateway.protocols.opcua.items import Item
from gateway.protocols.opcua.security import Choice
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.subscriptions import Subscriptions

_TRANSFERRED = frozenset({ua.StatusCodes.Good, ua.StatusCodes.BadNothingToDo})


@dataclass(frozen=True, slots=True)
class Kept:
    """What is needed to go on with a session over a new connection (Part 4, 5.7.3 and 6.7)."""

    url: str
    choice: Choice
    token: ua.NodeId
    nonce: bytes | None
    policies: Any
    certificate: bytes | None
    clock_offset_us: int | None
    started: Any
    """When the server said that it started."""
    items: list[Item]
    notes: list[str]
    subscriptions: Subscriptions | None


def kept(
    session: Session, items: list[Item], notes: list[str], subscriptions: Subscriptions | None
) -> Kept | None:
    """Return what a session leaves behind; None where it cannot go on elsewhere."""
    if subscriptions is not None and not subscriptions.movable:
        return None
    client = session.client
    return Kept(
        url=session.settings.url,
        choice=session.choice,
        token=session.services.authentication_token,
        nonce=client._server_nonce,
        policies=client._policy_ids,
        certificate=client.security_policy.peer_certificate,
        clock_offset_us=session.clock_offset_us,
        started=session.started,
        items=items,
        notes=notes,
        subscriptions=subscriptions,
    )


async def reactivated(client: Client, left: Kept) -> str:
    """Take the session up over this client's new channel; return "" or why the server does not let us."""
    client._server_nonce, client._policy_ids = left.nonce, left.policies
    if client.security_policy.peer_certificate is None:
        client.security_policy.peer_certificate = left.certificate
    services = client.uaclient.session
    services.restore_authentication_token(left.token)
    try:
        await client.activate_session(client._username, client._password, client.user_certificate)
    except ua.UaStatusCodeError as error:
        services.reset_authentication_token()
        return sentence(error)
    return ""


async def transferred(session: Session, left: Kept) -> bool:
    """Have the server move the subscriptions of the lost session into this one (Part 4, 5.14.7).

    Only within the same life of the server: after a restart the same numbers are somebody else's.
    """
    if left.subscriptions is None or left.started is None or session.started != left.started:
        return False
    parameters = ua.TransferSubscriptionsParameters()
    parameters.SubscriptionIds = left.subscriptions.ids
    parameters.SendInitialValues = False
    try:
        results = await session.services.transfer_subscriptions(parameters)
    except ua.UaStatusCodeError:
        return False
    session.heard()
    codes = [result.StatusCode.value for result in results]
    if codes and all(code in _TRANSFERRED for code in codes):
        return True
    moved = [
        number
        for number, code in zip(left.subscriptions.ids, codes, strict=False)
        if code == ua.StatusCodes.Good
    ]
    if moved:  # some are no use: they are all made anew
        await session.services.delete_subscriptions(moved)
    return False
