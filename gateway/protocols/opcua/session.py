"""A live session with an OPC UA server: its calls, its watchdog, its secure channel."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from asyncua import Client, ua

from gateway.model import DeviceProblem
from gateway.protocols.opcua import Settings
from gateway.protocols.opcua.bounded import AT_MOST, decoded
from gateway.protocols.opcua.faults import TOO_MUCH, ServerSilent
from gateway.protocols.opcua.greeting import greets
from gateway.protocols.opcua.security import Choice
from gateway.protocols.opcua.trusting import Vetted

T = TypeVar("T")
R = TypeVar("R")

_PROBE_S = 3.0
"""After this silence the server is asked whether it still lives."""
_SLOW_S = 2.0
_LAST_S = 1.0
_LEAST_WAIT_S = 0.1
_LEAST_RENEWAL_S = 1.0
"""Whatever lifetime the server gives a channel."""


@dataclass(slots=True)
class Session:
    """A live session."""

    client: Client
    device: str
    settings: Settings
    choice: Choice
    insecure: str
    namespaces: list[str] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)
    """Most operations in one call of read, browse, translate, monitor, history."""
    resumed: bool = False
    """It is the session of before, taken up again over a new connection."""
    started: Any = None
    """When the server says that it started; it tells one life of it from the next."""
    kept: Any = None
    """What the session before left at the server (kept.Kept)."""
    level: int = 255
    """ServiceLevel (Part 4, 6.6.2.4.2): from 200 it is healthy, below it is degraded."""
    profile: str = ""
    """Which known kind of server it is (profiles.py)."""
    most_items: int = 1_000_000
    """Monitored items that the server takes in all."""
    publishing: int = 0
    """PublishRequests that wait at the server."""
    heard_ns: int = 0
    vetted: Vetted | None = None
    """The server's certificate as it was accepted; None over an open channel."""
    clock_offset_us: int | None = None
    """What the server's clock is ahead of ours."""

    @property
    def services(self) -> Any:
        """The session's services (asyncua's UaSession)."""
        return self.client.uaclient.session

    def silent_s(self) -> float:
        """Return for how long nothing came from the server."""
        return (time.monotonic_ns() - self.heard_ns) / 1e9

    def heard(self) -> None:
        """Note a sign of life."""
        self.heard_ns = time.monotonic_ns()

    async def call(self, request: Any, response_type: type, most_reads: int = AT_MOST) -> Any:
        """Send any request and decode its response; the service result is checked."""
        data = await self.services._send_request(request)
        response = await decoded(response_type, data, most_reads)
        response.ResponseHeader.ServiceResult.check()
        self.heard()
        return response

    async def ask(
        self, request_type: type, parameters: Any, response_type: type, most_reads: int = AT_MOST
    ) -> Any:
        """Call a service as asyncua does; a large answer is decoded beside the event loop."""
        request = request_type()
        request.Parameters = parameters
        return await self.call(request, response_type, most_reads)

    async def read(self, nodes: Sequence[ua.ReadValueId]) -> list[ua.DataValue]:
        """Read attributes, in one call."""
        parameters = ua.ReadParameters()
        parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        parameters.NodesToRead = list(nodes)
        response = await self.ask(ua.ReadRequest, parameters, ua.ReadResponse)
        results: list[ua.DataValue] = response.Results or []
        if len(results) != len(nodes):
            raise DeviceProblem(
                f"device {self.device}: the server answered a read of {len(nodes)} nodes "
                f"with {len(results)} values"
            )
        return results

    async def chunked(
        self, kind: str, asked: Sequence[T], call: Callable[[list[T]], Awaitable[list[R]]]
    ) -> list[R]:
        """Call with as many at a time as the limit of that kind, and with half where that was too much."""
        answers: list[R] = []
        while len(answers) < len(asked):
            chunk = list(asked[len(answers) : len(answers) + self.limits[kind]])
            try:
                got = await call(chunk)
            except ua.UaStatusCodeError as error:
                if error.code not in TOO_MUCH or len(chunk) == 1:
                    raise
                self.limits[kind] = len(chunk) // 2
                continue
            if len(got) != len(chunk):
                raise DeviceProblem(
                    f"device {self.device}: the server gave {len(got)} answers "
                    f"to {len(chunk)} questions ({kind})"
                )
            answers.extend(got)
        return answers

    async def watch(self) -> None:
        """Ask a server that is silent whether it still lives, for ever; raise when it does not answer."""
        while True:
            await asyncio.sleep(max(_PROBE_S - self.silent_s(), _LEAST_WAIT_S))
            if self.silent_s() >= _PROBE_S:
                await self.probe()

    async def renew(self) -> None:
        """Keep the secure channel from running out, for ever (Part 4, 5.5.2: at 75 % of its lifetime)."""
        while True:
            await asyncio.sleep(max(self.client.secure_channel_timeout / 1000 * 0.75, _LEAST_RENEWAL_S))
            await self.client.open_secure_channel(renew=True)
            self.client.uaclient.revolve_security_token()
            # A server may answer under the old token until it has seen the new one, and asyncua forgets the
            # old one at the end of its lifetime.
            await self.probe()

    async def probe(self) -> None:
        """Ask the server whether it still lives. ServerSilent: nothing at all came since."""
        asked_ns = time.monotonic_ns()
        state = ua.ReadValueId(NodeId=ua.NodeId(ua.ObjectIds.Server_ServerStatus_State))
        silent = False
        try:
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(self.read([state]))
                await asyncio.wait([asking], timeout=_SLOW_S)
                if not asking.done() and not self._busy() and await greets(self.settings.url):
                    # It talks to others at once, and not over this connection: that leads nowhere any more.
                    await asyncio.wait([asking], timeout=_LAST_S)
                    silent = not asking.done() and self.heard_ns < asked_ns
                    if silent:
                        asking.cancel()
        except* TimeoutError:
            silent = self.heard_ns < asked_ns
        if silent:
            raise ServerSilent(self.device, self.settings.url, self.silent_s())

    def _busy(self) -> bool:
        """Say whether the server is at work for us: many serve a connection's requests one by one."""
        pending = getattr(self.client.uaclient.protocol, "_callbackmap", None)
        return pending is None or len(pending) > self.publishing + 1
