"""One subscription: its life, the sequence of its messages, what it emits."""

import asyncio
import math
from collections.abc import Sequence

from asyncua import ua

from gateway.model import Batch, DeviceProblem, Link, Run, Ticket
from gateway.protocols.opcua import Settings
from gateway.protocols.opcua.backfill import Backfill
from gateway.protocols.opcua.events import Taker, judged, refresh
from gateway.protocols.opcua.faults import NO_SUCH_TAG, status_text
from gateway.protocols.opcua.items import Condition, Item
from gateway.protocols.opcua.monitoring import Monitor
from gateway.protocols.opcua.notifications import Published, decode_again
from gateway.protocols.opcua.overflow import Overflow, Undecoded, notable_us
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.taking import take_changes
from gateway.protocols.opcua.values import Reading, overflowed

_KEEP_ALIVE_S = 2.5
_LATE_S = 1.5
"""A keep-alive that is later than this is missed."""
_MOST_A_MESSAGE = 1000
"""Values in one notification: decoding them holds the event loop some 10 ms, not more."""
_UNDER_WAY_US = 250_000
"""What the next message holds may be as much older than the arrival of this one."""
_MOST_LATE_US = 10_000_000
"""An older value is no measure of the way here: it did not change, or a clock is wrong."""
_LAST_SEQUENCE = 2**32 - 1
_MOST_REPUBLISHED = 100
_MOST_CAUGHT_UP = 1000
"""Messages; what is missing after that is asked for when the next one comes."""
_NOT_AGAIN = frozenset(
    {
        ua.StatusCodes.BadMessageNotAvailable,
        ua.StatusCodes.BadServiceUnsupported,
        ua.StatusCodes.BadNotImplemented,
    }
)
"""The server has no more to send again, or never does."""


class Subscription:
    """One subscription; what arrives for it is handed to `received`."""

    def __init__(
        self, session: Session, settings: Settings, link: Link, condition: Condition, backfill: Backfill
    ) -> None:
        self._session = session
        self._settings = settings
        self._link = link
        self._condition = condition
        self._backfill = backfill
        self.monitor = Monitor(session, strict=settings.mode == "subscribe")
        self._acks: list[int] = []
        self._lateness_us = 0
        """Of the message before."""
        self._expected = 1  # the first message of a subscription (Part 4, 7.22)
        self._under_way: Published | None = None
        """The message that is being handed over; what of it was taken is in `_batch`."""
        self._batch = Batch()
        self._heard_us, self._heard_ns = link.clock.wall_us(), link.clock.mono_ns()
        """Until when all that the server had to tell by it came."""
        self.others: Sequence[Subscription] = ()
        """All subscriptions of the session; there may be more of them later."""
        self._overflow = Overflow(link, backfill, session.clock_offset_us)
        self._undecodable = Undecoded(link)
        self._events = Taker(link)
        self.id = 0
        self._keep_alive_s = self._silence_s = 0.0
        self.waited_s = 0.0
        """Waited in vain for a sign of life."""
        self.reminded = False
        """More PublishRequests were sent because it was silent."""
        self.heard = False
        """There was an answer in this session."""

    async def create(self) -> None:
        """Create the subscription. UaStatusCodeError: the server makes none."""
        request = ua.CreateSubscriptionRequest()
        request.Parameters = self._parameters()
        response = await self._session.call(request, ua.CreateSubscriptionResponse)
        self._created(response.Parameters)

    async def delete(self) -> None:
        """Give it back to the server. UaStatusCodeError where the server does not know it."""
        for status in await self._session.services.delete_subscriptions([self.id]):
            status.check()

    async def add(self, items: Sequence[Item]) -> list[Item]:
        """Subscribe items that are resolved; return those that the server has no room for."""
        for item in items:
            item.filtered = item.deadband > 0 and item.scaling.scale != 0
        items = [item for item in items if judged(item, self._session.namespaces)]
        left = await self.monitor.add(self.id, items)
        if any(item.events is not None and not item.problem for item in items):
            await refresh(self._session, self.id)
        return left

    def move(self, session: Session, condition: Condition, backfill: Backfill) -> None:
        """Go on in another session, to which the server has moved it."""
        self._session, self._condition, self._backfill = session, condition, backfill
        self.monitor.session = session
        self._overflow = Overflow(self._link, backfill, session.clock_offset_us)
        self.waited_s = 0.0
        self.reminded = self.heard = False

    async def catch_up(self, run: Run) -> None:
        """Have sent again what was sent while nobody listened (Part 4, 6.7)."""
        if self._under_way is not None:
            await self._emit(self._under_way, run)
        for _ in range(_MOST_CAUGHT_UP):
            try:
                message = await self._again(self._expected)
            except ua.UaStatusCodeError as error:
                if error.code in _NOT_AGAIN:
                    return
                raise
            self._session.heard()
            self._expected = _after(message.sequence)
            await self._emit(message, run)

    def acknowledged(self) -> list[int]:
        """Take the numbers of the messages that are committed since last asked."""
        acks, self._acks = self._acks, []
        return acks

    def patience_s(self) -> float:
        """Return for how long it may still be silent, until it is reminded or else given up."""
        return (self._silence_s if self.reminded else self._keep_alive_s + _LATE_S) - self.waited_s

    async def received(self, published: Published, run: Run, arrived_us: int) -> Ticket | None:
        """Take one answer: fill a hole in the sequence first, then emit its values.

        `arrived_us` is the gateway's time when it came, which may be long before the store takes it.
        """
        self.waited_s, self.reminded = 0.0, False
        if not self._late(published):
            for missed in await self._missed(published):
                self._expected = _after(missed.sequence)
                await self._emit(missed, run)
            self._expected = published.sequence if published.empty else _after(published.sequence)
        if published.ended is not None:
            raise DeviceProblem(
                f"device {self._session.device}: the server ended the subscription: "
                f"{status_text(published.ended)}"
            )
        before_us = self._link.clock.wall_us()
        ticket = await self._emit(published, run)
        self._heard_us = min(arrived_us, before_us - self._lateness_us) - _UNDER_WAY_US
        self._heard_ns = self._link.clock.mono_ns() - 1000 * (self._link.clock.wall_us() - self._heard_us)
        if self._events.refresh_due:
            self._events.refresh_due = False
            await refresh(self._session, self.id)
        if not self.heard:
            self._condition.report()
            self.heard = True
        return ticket

    def close(self) -> None:
        """Tell what has not been told yet."""
        self._overflow.tell(now=True)
        self._undecodable.tell(now=True)

    def _parameters(self) -> ua.CreateSubscriptionParameters:
        interval_ms = self._settings.publishing_interval_ms
        keep_alive = max(1, math.ceil(_KEEP_ALIVE_S * 1000 / interval_ms))
        parameters = ua.CreateSubscriptionParameters()
        parameters.RequestedPublishingInterval = float(interval_ms)
        parameters.RequestedMaxKeepAliveCount = keep_alive
        parameters.RequestedLifetimeCount = max(
            3 * keep_alive, math.ceil(self._settings.session_timeout_s * 1000 / interval_ms)
        )
        parameters.MaxNotificationsPerPublish = _MOST_A_MESSAGE
        parameters.PublishingEnabled = True
        return parameters

    def _created(self, result: ua.CreateSubscriptionResult) -> None:
        self.id = result.SubscriptionId
        interval_s = result.RevisedPublishingInterval / 1000
        self._keep_alive_s = interval_s * max(1, result.RevisedMaxKeepAliveCount)
        self._silence_s = 2 * self._keep_alive_s + _LATE_S + self._settings.request_timeout_s

    async def silent(self) -> DeviceProblem:
        """Return the failure that its silence is. ServerSilent: the whole server is."""
        await self._session.probe()
        return DeviceProblem(
            f"device {self._session.device}: the subscription has been silent for {self._silence_s:.0f} s, "
            "without even a keep-alive; it is made anew"
        )

    def _late(self, published: Published) -> bool:
        """Say whether a message comes after its successors: nothing is missing then."""
        return (published.sequence - self._expected) % _LAST_SEQUENCE > _LAST_SEQUENCE // 2

    async def _missed(self, published: Published) -> list[Published]:
        """Return the messages between the expected one and this, sent again; the others are told as lost."""
        expected = self._expected
        if published.sequence == expected:
            return []
        count = (published.sequence - expected) % _LAST_SEQUENCE
        again: list[Published] = []
        if count <= _MOST_REPUBLISHED:
            number = expected
            while number != published.sequence:
                try:
                    again.append(await self._again(number))
                except ua.UaStatusCodeError as error:
                    if error.code != ua.StatusCodes.BadMessageNotAvailable:
                        break
                number = _after(number)
        if len(again) < count:
            self._backfill.missed(
                self.monitor.subscribed(),
                self._heard_us,
                f"{count - len(again)} messages of the subscription did not arrive "
                f"(from number {expected}), and the server cannot send them again",
            )
        return again

    async def _again(self, number: int) -> Published:
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = self.id
        request.Parameters.RetransmitSequenceNumber = number
        message = await decode_again(await self._session.services._send_request(request), self.id)
        if message.empty or message.sequence != number:
            # asyncua's server answers so, with Good, where it has no such message.
            raise ua.UaStatusCodeError(ua.StatusCodes.BadMessageNotAvailable)
        return message

    async def _emit(self, published: Published, run: Run) -> Ticket | None:
        """Hand over what a message holds; where that is cancelled, `catch_up` goes on with it."""
        self._under_way = published
        while published.changes:
            columns = published.changes.pop(0)
            take_changes(columns, self.monitor.items, self._link, self._batch, self._look)
            if published.changes:
                # More than it was asked for, or structures that become JSON: the others get their turns.
                await asyncio.sleep(0)
        self._take_others(published, run)
        self._overflow.tell()
        self._undecodable.tell()
        self._lateness_us = self._late_us(self._batch)
        taken_ns = self._link.clock.mono_ns()
        ticket = await self._link.emit(self._batch) if len(self._batch) else None
        # Until the store has room, what follows waits at the server: the device is not heard meanwhile.
        now_ns = self._link.clock.mono_ns()
        late_us = self._lateness_us + (now_ns - taken_ns) // 1000
        unheard_us = ((now_ns - other._heard_ns) // 1000 for other in self.others if other is not self)
        run.add(len(self._batch), max(late_us, max(unheard_us, default=0)))
        self._batch, self._under_way = Batch(), None
        if ticket is not None:
            ticket.add_done_callback(lambda kept: self._acks.append(published.sequence) if kept else None)
        elif not published.empty:
            self._acks.append(published.sequence)
        return ticket

    def _take_others(self, published: Published, run: Run) -> None:
        """Take what is no plain value out of a message."""
        for handle, fields in published.events:
            if handle < len(self.monitor.items):
                self._events.take(self.monitor.items[handle], fields, self._session.namespaces, self._batch)
        for handle, lost, why in published.undecoded:
            self._undecoded(handle, lost, why, run)
        published.events.clear()
        published.undecoded.clear()

    def _late_us(self, batch: Batch) -> int:
        """Return how old the newest of a message is: what the next one holds may be no younger.

        Where this process had no turn for a while, more than what `arrived_us` tells.
        """
        if not len(batch):
            return 0
        age_us = self._link.clock.wall_us() - max(batch.ts) + notable_us(self._session.clock_offset_us)
        return age_us if 0 < age_us < _MOST_LATE_US else 0

    def _look(self, item: Item, new: Reading) -> bool:
        if overflowed(new.status):
            self._overflow.add(item, new)
        self._judge(item, new.status)
        return True

    def _judge(self, item: Item, status: int) -> None:
        """Note a node that went away, or came back: PLC programs are loaded anew under live sessions."""
        if status & 0xFFFF0000 in NO_SUCH_TAG:
            problem = f"node {item.spec}: {status_text(status)}"
        elif item.problem:
            problem = ""
        else:
            return
        if problem != item.problem:
            item.problem = problem
            self._condition.report()

    def _undecoded(self, handle: int, lost: int, why: str, run: Run) -> None:
        items = self.monitor.items
        named = items[handle].named() if handle < len(items) else f"item {handle}"
        sentence = f"a value of {named} cannot be decoded ({why})"
        run.problem(sentence)
        self._undecodable.add(named, sentence, lost, self._heard_us)


def _after(sequence: int) -> int:
    """Return the next sequence number; 0 is never used (Part 4, 7.22)."""
    return sequence + 1 if sequence < _LAST_SEQUENCE else 1
