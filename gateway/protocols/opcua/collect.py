"""What runs for one device: a session, its tags, and the ways their values come in."""

import asyncio
import logging
from collections.abc import Sequence

from asyncua import ua

from gateway.model import Device, DeviceProblem, Link
from gateway.protocols.opcua import Settings
from gateway.protocols.opcua.browse import Browser
from gateway.protocols.opcua.discovery import discovered
from gateway.protocols.opcua.faults import NO_SUBSCRIPTION, problem, sentence
from gateway.protocols.opcua.items import Condition, Item, listed
from gateway.protocols.opcua.nodes import resolve
from gateway.protocols.opcua.opening import open_session
from gateway.protocols.opcua.polling import Poller
from gateway.protocols.opcua.public_subscription import PublicSubscription
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.subscription import Subscription, private_names_exist
from gateway.protocols.opcua.trust_watch import TrustWatch

_RETRY_S = 30.0
"""Tags that the server did not know are looked for again after this time."""

_log = logging.getLogger(__name__)


async def collect(device: Device, settings: Settings, link: Link) -> None:
    """Collect until cancelled; every failure leaves as a DeviceProblem."""
    # asyncua formats whole notifications below WARNING, at a cost that no small box can bear.
    logging.getLogger("asyncua").setLevel(logging.WARNING)
    try:
        async with open_session(device, settings, link) as session:
            await _Acquisition(session, device, settings, link).run()
    except (BaseExceptionGroup, ua.UaError, OSError, TimeoutError) as error:
        raise problem(device.id, settings.url, error) from error


class _Acquisition:
    """The tags of one session, and how each is read."""

    def __init__(self, session: Session, device: Device, settings: Settings, link: Link) -> None:
        self._session = session
        self._device = device
        self._settings = settings
        self._link = link
        self._items: list[Item] = []
        self._condition = Condition(link, [], [], session.insecure, auto=settings.mode == "auto")
        self._poller = Poller(session, link, self._condition)
        self._subscription: Subscription | None = None

    async def run(self) -> None:
        await self._find()
        await self._subscribe()
        if self._subscription is None and not self._polled():
            self._condition.report()  # all tags are bad: nothing else would say so
        trust = TrustWatch(self._session, self._device, self._settings, self._link)
        with self._link.offer(Browser(self._session), trust.channel):
            async with asyncio.TaskGroup() as group:
                group.create_task(trust.run())
                group.create_task(self._session.watch())
                group.create_task(self._session.renew())
                group.create_task(self._poller.on_request(lambda: self._items))
                group.create_task(self._poller.cycle(self._settings.poll_interval_ms, self._polled))
                if self._subscription is not None:
                    group.create_task(self._subscription.run())
                group.create_task(self._retry())

    def _polled(self) -> Sequence[Item]:
        return [item for item in self._items if item.polled]

    async def _find(self) -> None:
        if self._device.tags:
            self._items = listed(self._device, self._settings, self._link)
            await resolve(self._session, self._items)
        else:
            self._items, note = await discovered(self._session, self._settings, self._link)
            if note:
                self._condition.notes.append(note)
        if not self._items:
            raise DeviceProblem(
                f"device {self._device.id}: the server has no readable variable below {self._settings.root}"
            )
        self._condition.items = self._items

    async def _subscribe(self) -> None:
        """Subscribe what can be, and mark the rest to be polled."""
        if self._settings.mode == "poll":
            self._poll_all()
            return
        kind = Subscription if private_names_exist() else PublicSubscription
        subscription = kind(self._session, self._settings, self._link, self._condition)
        try:
            await subscription.create()
        except ua.UaStatusCodeError as error:
            if self._settings.mode == "subscribe" or error.code not in NO_SUBSCRIPTION:
                raise
            _log.info("%s: no subscription (%s), read cyclically", self._device.id, sentence(error))
            self._poll_all()
            return
        self._subscription = subscription
        await subscription.add(item for item in self._items if item.node is not None)
        polled = len(self._polled())
        if polled:
            _log.info("%s: %d of %d tags are read cyclically", self._device.id, polled, len(self._items))

    def _poll_all(self) -> None:
        for item in self._items:
            item.polled = item.node is not None

    async def _retry(self) -> None:
        """Look again for the tags that the server did not have: it may still be starting."""
        while True:
            await self._link.clock.sleep(_RETRY_S)
            bad = [item for item in self._items if item.problem and not item.polled]
            if not bad:
                continue
            await resolve(self._session, bad)
            found = [item for item in bad if item.node is not None]
            if self._subscription is not None:
                await self._subscription.add(found)
            else:
                for item in found:
                    item.polled = True
            self._condition.report()
