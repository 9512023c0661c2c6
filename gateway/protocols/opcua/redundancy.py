"""Redundant servers: of several addresses the healthiest one is used (Part 4, 6.6.2.4)."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from asyncua import ua

from gateway.model import Device, DeviceProblem, GatewayError, Surroundings, WaitingForTrust
from gateway.protocols.opcua import Settings
from gateway.protocols.opcua.faults import problem
from gateway.protocols.opcua.opening import KEPT, open_session
from gateway.protocols.opcua.session import Session

_HEALTHY = 200
"""The least ServiceLevel of a server that has nothing to complain of (Part 4, table 105)."""
_LOOK_S = 5.0
_LOOK_ELSEWHERE_S = 60.0
_FAILURES = (GatewayError, ua.UaError, OSError, TimeoutError, BaseExceptionGroup)

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_healthiest(device: Device, settings: Settings, link: Surroundings) -> AsyncIterator[Session]:
    """Enter a session with the first healthy server, else with the least ill; raises as open_session."""
    if not settings.urls:
        async with open_session(device, settings, link) as session:
            yield session
        return
    async with AsyncExitStack() as stack:
        yield await _healthiest(device, settings, link, stack)


async def _healthiest(
    device: Device, settings: Settings, link: Surroundings, stack: AsyncExitStack
) -> Session:
    failures: list[GatewayError] = []
    ill: list[tuple[int, Settings]] = []
    for each in _servers(settings, link):
        try:
            session = await stack.enter_async_context(open_session(device, each, link))
        except _FAILURES as error:
            failures.append(problem(device.id, each.url, error))
            continue
        if session.level >= _HEALTHY:
            return session
        ill.append((session.level, each))
        await stack.aclose()
    if ill:
        _, least = max(ill, key=lambda one: one[0])
        return await stack.enter_async_context(open_session(device, least, link))
    kind = WaitingForTrust if any(isinstance(each, WaitingForTrust) for each in failures) else DeviceProblem
    raise kind("; ".join(str(each) for each in failures))


async def watch_health(session: Session, device: Device, settings: Settings, link: Surroundings) -> None:
    """Look at the ServiceLevel for ever; raise DeviceProblem where another server is healthier."""
    waited_s = 0.0
    while True:
        await link.clock.sleep(_LOOK_S)
        waited_s += _LOOK_S
        before, session.level = session.level, await _level(session)
        if session.level >= _HEALTHY:
            continue
        if session.level >= before and waited_s < _LOOK_ELSEWHERE_S:
            continue
        waited_s = 0.0
        others = [each for each in _servers(settings, link) if each.url != session.settings.url]
        for each in others:
            level = await _level_of(device, each, link)
            if level > session.level:
                raise DeviceProblem(
                    f"device {device.id}: {session.settings.url} says that it is not well "
                    f"(ServiceLevel {session.level}), {each.url} is better ({level})"
                )


def _servers(settings: Settings, link: Surroundings) -> Sequence[Settings]:
    """Return the settings for each address; first the one where a session was left."""
    urls = list(dict.fromkeys([settings.url, *settings.urls]))
    left = link.memory.get(KEPT)
    if left is not None:
        urls.sort(key=lambda url: url != left.url)
    return [replace(settings, url=url, urls=()) for url in urls]


async def _level(session: Session) -> int:
    node = ua.NodeId(ua.ObjectIds.Server_ServiceLevel)
    (data,) = await session.read([ua.ReadValueId(NodeId=node, AttributeId=ua.AttributeIds.Value)])
    said = data.Value.Value if data.Value is not None else None
    return said if isinstance(said, int) else session.level


async def _level_of(device: Device, settings: Settings, link: Surroundings) -> int:
    """Ask another server over a session of its own; -1 where it cannot be used."""
    try:
        async with open_session(device, settings, link) as session:
            return session.level
    except _FAILURES as error:
        _log.debug("%s: %s", device.id, problem(device.id, settings.url, error))
        return -1
