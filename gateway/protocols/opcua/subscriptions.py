"""All subscriptions of a session, as many as the tags need; what fits in none is read cyclically."""

import asyncio
import logging
from collections.abc import Iterable, Sequence

from asyncua import ua

from gateway.model import Link, Run
from gateway.protocols.opcua import Settings
from gateway.protocols.opcua.backfill import Backfill
from gateway.protocols.opcua.faults import NO_SUBSCRIPTION, status_text
from gateway.protocols.opcua.items import Condition, Item
from gateway.protocols.opcua.public_subscription import PublicSubscription
from gateway.protocols.opcua.publishing import Publisher
from gateway.protocols.opcua.selftest import fast_path_works
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.subscription import Subscription

_FULL = "the server subscribes no more tags"

_log = logging.getLogger(__name__)


class Subscriptions:
    """The subscriptions of one session, or of several that follow each other at the same server."""

    def __init__(
        self, session: Session, settings: Settings, link: Link, condition: Condition, backfill: Backfill
    ) -> None:
        self._session = session
        self._settings = settings
        self._link = link
        self._condition = condition
        self._backfill = backfill
        self._all: list[Subscription] = []
        self._own = fast_path_works()
        self._kept = False
        """They were made in an earlier session."""

    @property
    def ids(self) -> list[int]:
        return [subscription.id for subscription in self._all]

    @property
    def movable(self) -> bool:
        """Whether they can go on in another session.

        asyncua's own publish loop cannot, and those that were moved and never said a word had better not.
        """
        silent = self._kept and not any(subscription.heard for subscription in self._all)
        return self._own and bool(self._all) and not silent

    def covered(self) -> set[int]:
        """Return the series whose values the server queued while the session was cut off."""
        return {
            item.series
            for subscription in self._all
            for item in subscription.monitor.subscribed()
            if item.queued
        }

    def has(self, item: Item) -> bool:
        """Say whether the tag is subscribed, well or badly."""
        return any(subscription.monitor.has(item) for subscription in self._all)

    async def drop(self, items: Sequence[Item]) -> None:
        """Give the monitored items of these tags back to the server."""
        for subscription in self._all:
            await subscription.monitor.drop(subscription.id, items)

    async def add(self, items: Iterable[Item]) -> None:
        """Subscribe items that are resolved, in further subscriptions where one is full.

        UaStatusCodeError: the server makes no subscription at all, or a tag must not be polled instead.
        """
        if not self._all:
            await self._made()
        left = await self._all[-1].add(self._within(list(items)))
        while left:
            try:
                further = await self._made()
            except ua.UaStatusCodeError as error:
                if error.code not in NO_SUBSCRIPTION:
                    raise
                self._poll(left, status_text(error.code))
                return
            before = len(left)
            left = await further.add(left)
            if len(left) == before:
                # It is the server that is full, not the subscription.
                self._all.remove(further)
                await further.delete()
                self._poll(left, _FULL)
                return

    def _within(self, items: list[Item]) -> list[Item]:
        """Return what the server says that it can take; the others are read cyclically."""
        most = self._session.most_items
        room = max(0, most - sum(len(subscription.monitor.subscribed()) for subscription in self._all))
        if len(items) > room:
            self._poll(items[room:], f"the server subscribes {most} tags at most")
        return items[:room]

    def move(self, session: Session, condition: Condition, backfill: Backfill) -> None:
        """Go on in another session, to which the server has moved them."""
        self._session, self._condition, self._backfill = session, condition, backfill
        self._kept = True
        for subscription in self._all:
            subscription.move(session, condition, backfill)

    async def run(self) -> None:
        """Receive until cancelled, or raise."""
        try:
            async with self._link.run("subscription") as run:
                if self._kept:
                    for subscription in self._all:
                        await subscription.catch_up(run)
                self._backfill.caught_up.set()
                await self._receive(run)
        finally:
            for subscription in self._all:
                subscription.close()

    async def _receive(self, run: Run) -> None:
        if self._own:
            await Publisher(self._session, self._link, self._all).run(run)
            return
        async with asyncio.TaskGroup() as group:
            for subscription in self._all:
                if isinstance(subscription, PublicSubscription):
                    group.create_task(subscription.receive(run))
            await asyncio.Event().wait()  # in the body, as in collect.py

    async def _made(self) -> Subscription:
        kind = Subscription if self._own else PublicSubscription
        made = kind(self._session, self._settings, self._link, self._condition, self._backfill)
        await made.create()
        made.others = self._all
        self._all.append(made)
        return made

    def _poll(self, items: Sequence[Item], why: str) -> None:
        for item in items:
            item.filtered = False
            if self._settings.mode == "subscribe":
                item.problem = f"node {item.spec}: {why}"
            else:
                item.poll(why)
        _log.info("%s: %d tags are read cyclically: %s", self._session.device, len(items), why)
