"""The publish loop of a session: several requests under way for all its subscriptions."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncua import ua
from asyncua.common.utils import Buffer

from gateway.model import Link, Run
from gateway.protocols.opcua.encoded import publish_request
from gateway.protocols.opcua.notifications import Published, decode
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.subscription import Subscription

_IN_FLIGHT = 3
_MOST_IN_FLIGHT = 10
_MOST_OVERTAKEN = 20
_PAUSE_S = 0.05


@dataclass(eq=False, slots=True)
class _Sent:
    """A PublishRequest that is under way."""

    task: "asyncio.Task[tuple[Buffer | int, int]]"
    number: int = field(default_factory=itertools.count().__next__)
    overtaken: int = 0
    """Requests sent after it that were answered before it."""


class Publisher:
    """Sends PublishRequests, with acknowledgements, and hands each answer to its subscription."""

    def __init__(self, session: Session, link: Link, subscriptions: Sequence[Subscription]) -> None:
        """`subscriptions` may grow meanwhile."""
        self._session = session
        self._link = link
        self._subscriptions = subscriptions

    async def run(self, run: Run) -> None:
        """Receive until cancelled, or raise."""
        # One more than there are subscriptions: each can answer while an answer is on its way.
        wanted = min(max(_IN_FLIGHT, len(self._subscriptions) + 1), _MOST_IN_FLIGHT)
        async with asyncio.TaskGroup() as group:
            flight: list[_Sent] = []
            while True:
                flight.extend(_Sent(group.create_task(self._publish())) for _ in range(wanted - len(flight)))
                answered = await self._answered(flight)
                if not answered:
                    # Nothing comes though it should: the answers may be lost, but not the subscription.
                    flight.extend(_Sent(group.create_task(self._publish())) for _ in range(wanted))
                for sent in answered:
                    flight.remove(sent)
                    answer, arrived_us = sent.task.result()
                    if isinstance(answer, int):
                        if answer == ua.StatusCodes.BadTooManyPublishRequests:
                            wanted = max(1, min(wanted, len(flight)))
                        await self._link.clock.sleep(_PAUSE_S)  # it refuses at once: not asked in a loop
                        self._waited(_PAUSE_S)
                        continue
                    _give_up_lost(flight, sent)
                    if len(flight) < wanted:
                        # It leaves before this answer is worked on, with what is committed by now.
                        flight.append(_Sent(group.create_task(self._publish())))
                    await self._received(await decode(answer), run, arrived_us)

    async def _received(self, published: Published, run: Run, arrived_us: int) -> None:
        self._session.heard()
        for subscription in self._subscriptions:
            if subscription.id == published.subscription:
                await subscription.received(published, run, arrived_us)
                return

    async def _publish(self) -> tuple[Buffer | int, int]:
        """Send one PublishRequest; return the answer, or a refusal that is no failure, and when it came."""
        request = publish_request(
            [
                (subscription.id, number)
                for subscription in self._subscriptions
                for number in subscription.acknowledged()
            ]
        )
        try:
            # A PublishRequest waits at the server until there is something to tell: it has no time-out.
            answer = await self._session.services._send_request(request, timeout=0)
            return answer, self._link.clock.wall_us()
        except ua.UaStatusCodeError as error:
            if error.code in (ua.StatusCodes.BadTooManyPublishRequests, ua.StatusCodes.BadTimeout):
                return int(error.code), self._link.clock.wall_us()
            raise

    async def _answered(self, flight: Sequence[_Sent]) -> list[_Sent]:
        """Wait for answers; return none, once, where a subscription has been silent for too long.

        Only waiting counts: while the store takes nothing, no subscription can be heard. Raises where one
        stays silent.
        """
        while True:
            quietest = min(self._subscriptions, key=Subscription.patience_s)
            if quietest.patience_s() <= 0:
                if quietest.reminded:
                    raise await quietest.silent()
                quietest.reminded = True
                return []
            began = time.monotonic()
            self._session.publishing = len(flight)
            await asyncio.wait(
                [sent.task for sent in flight],
                timeout=quietest.patience_s(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            self._waited(time.monotonic() - began)
            if answered := [sent for sent in flight if sent.task.done()]:
                return answered

    def _waited(self, seconds: float) -> None:
        for subscription in self._subscriptions:
            subscription.waited_s += seconds


def _give_up_lost(flight: list[_Sent], answered: _Sent) -> None:
    """Drop requests that many later ones overtook: their answers are lost."""
    for sent in list(flight):
        sent.overtaken += sent.number < answered.number
        if sent.overtaken > _MOST_OVERTAKEN and not sent.task.done():
            flight.remove(sent)
            sent.task.cancel()
