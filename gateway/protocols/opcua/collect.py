"""What runs for one device: a session, its tags, and the ways their values come in."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from asyncua import ua

from gateway.model import Device, DeviceProblem, Link
from gateway.protocols.opcua import Settings, TagSettings
from gateway.protocols.opcua.abouts import Abouts
from gateway.protocols.opcua.backfill import Backfill
from gateway.protocols.opcua.browse import Browser
from gateway.protocols.opcua.discovery import CURRENT_READ, discovered
from gateway.protocols.opcua.events import event_items
from gateway.protocols.opcua.faults import NO_SUBSCRIPTION, cut_off, problem, sentence
from gateway.protocols.opcua.items import Condition, Item, Newest, listed
from gateway.protocols.opcua.kept import Kept, kept, transferred
from gateway.protocols.opcua.nodes import resolve
from gateway.protocols.opcua.opening import KEPT
from gateway.protocols.opcua.patterns import is_pattern
from gateway.protocols.opcua.polling import Poller
from gateway.protocols.opcua.reads import access_levels
from gateway.protocols.opcua.redundancy import open_healthiest, watch_health
from gateway.protocols.opcua.selftest import fast_path_works
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.subscriptions import Subscriptions
from gateway.protocols.opcua.trust_watch import TrustWatch
from gateway.protocols.opcua.wildcards import matched, wildcards

_RETRY_S = 30.0
"""Tags that the server did not know are looked for again after this time."""

_MUTE = "subscribed, it sends no value"

_log = logging.getLogger(__name__)


async def collect(device: Device, settings: Settings, link: Link) -> None:
    """Collect until cancelled; every failure leaves as a DeviceProblem."""
    # Below WARNING asyncua formats whole notifications, at a cost that no small box can bear; and what it
    # warns of (refusals, broken connections) is met here and told in our words.
    logging.getLogger("asyncua").setLevel(logging.ERROR)
    await asyncio.to_thread(fast_path_works)  # it takes some 50 ms, once
    url = settings.url
    try:
        async with open_healthiest(device, settings, link) as session:
            url = session.settings.url
            acquisition = _Acquisition(session, device, settings, link)
            try:
                await acquisition.run()
            except BaseException as error:
                if cut_off(error):
                    link.memory[KEPT] = acquisition.kept()
                raise
    except (BaseExceptionGroup, ua.UaError, OSError, TimeoutError) as error:
        raise problem(device.id, url, error) from error


class _Acquisition:
    """The tags of one session, and how each is read."""

    def __init__(self, session: Session, device: Device, settings: Settings, link: Link) -> None:
        self._session = session
        self._device = device
        self._settings = settings
        self._link = link
        self._items: list[Item] = []
        self._newest: Newest = {}
        self._condition = Condition(link, [], [], session.insecure, auto=settings.mode == "auto")
        if settings.urls:
            self._condition.remark = f"at {session.settings.url}, ServiceLevel {session.level}"
        self._poller = Poller(session, link, self._condition)
        self._abouts = Abouts(session, link)
        self._backfill = Backfill(session, settings, link)
        self._subscriptions: Subscriptions | None = None
        self._ready = False

    async def run(self) -> None:
        if not await self._taken_over():
            await self._find()
            self._backfill.before(self._items)
            await self._subscribe()
        self._ready = True
        if self._subscriptions is None:
            self._backfill.caught_up.set()
        if self._subscriptions is None and not self._polled():
            self._condition.report()  # all tags are bad: nothing else would say so
        trust = TrustWatch(self._session, self._device, self._settings, self._link)
        with (
            self._link.mending() as hole,
            self._link.offer(Browser(self._session), trust.channel, self._condition),
        ):
            async with asyncio.TaskGroup() as group:
                group.create_task(trust.run())
                group.create_task(self._session.watch())
                group.create_task(self._session.renew())
                group.create_task(self._backfill.run(hole))
                group.create_task(self._abouts.run())
                group.create_task(self._poller.on_request(self._readable))
                group.create_task(self._poller.cycle(self._settings.poll_interval_ms, self._polled))
                if self._subscriptions is not None:
                    group.create_task(self._subscriptions.run())
                    group.create_task(self._unheard())
                if self._settings.urls:
                    group.create_task(watch_health(self._session, self._device, self._settings, self._link))
                # In the body: where a child fails while Python 3.11 waits in __aexit__, the task stays marked
                # as cancelled, and what leaves the session after that could have no time-out.
                await self._retry()

    def kept(self) -> Kept | None:
        """Return what may go on at the server although we were cut off."""
        if not self._ready:
            return None
        return kept(self._session, self._items, self._condition.notes, self._subscriptions)

    async def _taken_over(self) -> bool:
        """Go on with what a session before this one left at the server, if it can."""
        left = self._session.kept
        if left is None or not (self._session.resumed or await transferred(self._session, left)):
            return False
        self._items = self._condition.items = left.items
        self._newest = left.items[0].newest
        self._condition.notes.extend(left.notes)
        covered: set[int] = set()
        if left.subscriptions is not None:
            left.subscriptions.move(self._session, self._condition, self._backfill)
            self._subscriptions = left.subscriptions
            covered = left.subscriptions.covered()
        self._backfill.before([item for item in self._items if item.series not in covered])
        if unasked := [item for item in self._items if item.about is None]:
            await self._abouts.learn(unasked)
        return True

    def _readable(self) -> Sequence[Item]:
        return [item for item in self._items if item.events is None]

    def _polled(self) -> Sequence[Item]:
        return [item for item in self._items if item.polled]

    async def _find(self) -> None:
        if self._device.tags:
            self._items = listed(self._device, self._settings, self._link, self._newest)
            self._items += event_items(self._device, self._settings, self._link, self._newest)
            await resolve(self._session, self._items)
            wild, notes = await self._matched(wildcards(self._device))
            self._items += wild
            self._condition.notes += notes
        else:
            self._items, note = await discovered(self._session, self._settings, self._link)
            if note:
                self._condition.notes.append(note)
        if not self._items:
            raise DeviceProblem(
                f"device {self._device.id}: the server has no readable variable below {self._settings.root}"
            )
        self._condition.items = self._items
        await self._abouts.learn(self._items)

    async def _matched(self, wanted: Mapping[str, TagSettings]) -> tuple[list[Item], list[str]]:
        return await matched(self._session, self._device, self._settings, self._link, self._newest, wanted)

    async def _matched_now(self, bad: Sequence[Item]) -> list[Item]:
        """Return the new items of wildcards that matched nothing before."""
        wanted = {item.tag: self._device.tags[item.tag] for item in bad}
        items, notes = await self._matched(wanted)
        found = [item for item in items if item.node is not None]
        kept = [item for item in self._items if item.tag not in wanted]
        self._items[:] = kept + items
        self._condition.notes += notes
        return found

    async def _subscribe(self) -> None:
        """Subscribe what can be, and mark the rest to be polled."""
        if self._settings.mode == "poll":
            self._poll_all("")
            return
        made = Subscriptions(self._session, self._settings, self._link, self._condition, self._backfill)
        try:
            await made.add(item for item in self._items if item.node is not None)
        except ua.UaStatusCodeError as error:
            if self._settings.mode == "subscribe" or error.code not in NO_SUBSCRIPTION:
                raise
            _log.info("%s: no subscription (%s), read cyclically", self._device.id, sentence(error))
            self._poll_all(sentence(error))
            return
        self._subscriptions = made

    def _poll_all(self, why: str) -> None:
        for item in self._items:
            if item.node is not None:
                item.poll(why)

    async def _retry(self) -> None:
        """Look again for the tags that the server did not have: it may still be starting."""
        there: set[int] = set()
        while True:
            # In this time a subscription that works tells what it has to tell.
            await self._link.clock.sleep(max(_RETRY_S, self._settings.publishing_interval_ms / 1000))
            bad = [item for item in self._items if item.problem and not item.polled]
            subscribed = [item for item in bad if self._is_subscribed(item)]
            before, there = there, await self._there(subscribed)
            dead = [item for item in subscribed if item.series in before & there]
            bad = [item for item in bad if not self._is_subscribed(item)]
            if bad or dead:
                await self._try_again(bad, dead)
                self._condition.report()

    def _is_subscribed(self, item: Item) -> bool:
        return self._subscriptions is not None and self._subscriptions.has(item)

    async def _there(self, subscribed: Sequence[Item]) -> set[int]:
        """Find the nodes of bad tags anew; return the series of those that the server has and lets us read.

        Where a node was deleted and made anew, as PLC programs are loaded, many servers never tell of it.
        """
        sought = [replace(item) for item in subscribed]
        await resolve(self._session, sought)
        found = [item for item in sought if item.node is not None]
        levels = await self._session.chunked(
            "read", [item.node for item in found], lambda nodes: access_levels(self._session, nodes)
        )
        there = {
            item.series: item.node
            for item, level in zip(found, levels, strict=True)
            if isinstance(level, int) and level & CURRENT_READ
        }
        for item in subscribed:
            item.node = there.get(item.series, item.node)
        return set(there)

    async def _try_again(self, bad: Sequence[Item], dead: Sequence[Item]) -> None:
        await resolve(self._session, [item for item in bad if not is_pattern(item.spec)])
        found = [item for item in bad if item.node is not None]
        found += await self._matched_now([item for item in bad if is_pattern(item.spec)])
        await self._abouts.learn(found)
        if self._subscriptions is not None:
            await self._subscriptions.drop(dead)
            await self._subscriptions.add([*found, *dead])
        else:
            for item in found:
                item.poll("")

    async def _unheard(self) -> None:
        """Read cyclically what is subscribed and does not even send its first value."""
        patience_s = 2 * self._settings.publishing_interval_ms / 1000 + self._settings.request_timeout_s
        suspects: set[int] = set()
        while True:
            await self._link.clock.sleep(patience_s)
            mute = [
                item
                for item in self._items
                if not (item.heard or item.polled or item.problem or item.events is not None)
            ]
            for item in mute:
                if item.series not in suspects:
                    continue
                if self._settings.mode == "subscribe":
                    item.problem = f"node {item.spec}: {_MUTE}"
                else:
                    item.poll(_MUTE)
            if suspects.intersection(item.series for item in mute):
                self._condition.report()
            suspects = {item.series for item in mute}
