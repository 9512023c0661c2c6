"""The same subscription over nothing but asyncua's public names: the fall-back."""

import asyncio
import functools

from asyncua import ua

from gateway.model import Link, Run
from gateway.protocols.opcua import Settings
from gateway.protocols.opcua.backfill import Backfill
from gateway.protocols.opcua.items import Condition
from gateway.protocols.opcua.notifications import Published, converted
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.subscription import Subscription


class PublicSubscription(Subscription):
    """The same over asyncua's own publish loop, which acknowledges when our callback returns: after COMMIT.

    It is slower to the next request, and used only where the private names have gone.
    """

    def __init__(
        self, session: Session, settings: Settings, link: Link, condition: Condition, backfill: Backfill
    ) -> None:
        super().__init__(session, settings, link, condition, backfill)
        self._answers: asyncio.Queue[tuple[Published, int, asyncio.Future[None]]] = asyncio.Queue()

    async def create(self) -> None:
        self._created(await self._session.services.create_subscription(self._parameters(), self._callback))
        self._session.heard()

    async def receive(self, run: Run) -> None:
        """Receive until cancelled, or raise."""
        while True:
            try:
                async with asyncio.timeout(self._silence_s):
                    published, arrived_us, taken = await self._answers.get()
            except TimeoutError:
                raise await self.silent() from None
            self._session.heard()
            ticket = await self.received(published, run, arrived_us)
            if ticket is not None:
                ticket.add_done_callback(functools.partial(_set, taken))
            else:
                _set(taken)

    async def _callback(self, result: ua.PublishResult) -> None:
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        published = converted(
            result.SubscriptionId, result.NotificationMessage, result.AvailableSequenceNumbers or ()
        )
        self._answers.put_nowait((published, self._link.clock.wall_us(), taken))
        await taken


def _set(taken: asyncio.Future[None], *_: object) -> None:
    if not taken.done():
        taken.set_result(None)
