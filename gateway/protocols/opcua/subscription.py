"""A subscription: several publish requests under way, acknowledgements only after COMMIT."""

import asyncio
import math
from collections import deque
from collections.abc import Iterable

from asyncua import ua
from asyncua.common.utils import Buffer

from gateway.model import Batch, DeviceProblem, Link, Run, Ticket
from gateway.protocols.opcua import Settings
from gateway.protocols.opcua.encoded import publish_request
from gateway.protocols.opcua.faults import NO_SUCH_TAG, status_text
from gateway.protocols.opcua.items import Condition, Item
from gateway.protocols.opcua.monitoring import Monitor
from gateway.protocols.opcua.notifications import Published, decode, decode_again
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.taking import take_changes
from gateway.protocols.opcua.values import Reading, overflowed

_IN_FLIGHT = 3
_PAUSE_S = 0.05
_KEEP_ALIVE_S = 5.0
_MOST_A_MESSAGE = 1000
"""Values in one notification: decoding them holds the event loop some 10 ms, not more."""
_LAST_SEQUENCE = 2**32 - 1
_MOST_REPUBLISHED = 100
_OVERFLOW_REPORT_US = 10_000_000


class Subscription:
    """One subscription with its own publish loop."""

    def __init__(self, session: Session, settings: Settings, link: Link, condition: Condition) -> None:
        self._session = session
        self._settings = settings
        self._link = link
        self._condition = condition
        self._monitor = Monitor(session, strict=settings.mode == "subscribe")
        self._acks: list[int] = []
        self._expected = 1  # the first message of a subscription (Part 4, 7.22)
        self._heard_us = link.clock.wall_us()
        self._overflow = _Overflow(link)
        self._id = 0
        self._silence_s = 0.0

    async def create(self) -> None:
        """Create the subscription. UaStatusCodeError: the server makes none."""
        request = ua.CreateSubscriptionRequest()
        request.Parameters = self._parameters()
        response = await self._session.call(request, ua.CreateSubscriptionResponse)
        self._created(response.Parameters)

    async def add(self, items: Iterable[Item]) -> None:
        """Subscribe items that are resolved."""
        wanted = list(items)
        for item in wanted:
            item.filtered = item.deadband > 0 and item.scaling.scale != 0
        await self._monitor.add(self._id, wanted)

    async def run(self) -> None:
        """Receive until cancelled, or raise."""
        try:
            await self._receive()
        finally:
            self._overflow.tell(now=True)

    async def _receive(self) -> None:
        async with self._link.run("subscription") as run, asyncio.TaskGroup() as group:
            flight = deque(group.create_task(self._publish()) for _ in range(_IN_FLIGHT))
            reported = False
            while True:
                answer = await self._answer(flight.popleft())
                if isinstance(answer, int):
                    await self._link.clock.sleep(
                        _PAUSE_S
                    )  # a server that refuses at once is not asked in a loop
                    if answer != ua.StatusCodes.BadTooManyPublishRequests or not flight:
                        flight.append(group.create_task(self._publish()))
                    continue
                # The next request leaves before this answer is worked on, with what is committed by now.
                flight.append(group.create_task(self._publish()))
                await self.received(await decode(answer), run)
                if not reported:
                    self._condition.report()
                    reported = True

    async def received(self, published: Published, run: Run) -> Ticket | None:
        """Take one answer: fill a hole in the sequence first, then emit its values."""
        self._session.heard()
        if published.subscription != self._id:
            return None
        if not self._late(published):
            for missed in await self._missed(published):
                await self._emit(missed, run)
            self._expected = published.sequence if published.empty else _after(published.sequence)
        if published.ended is not None:
            raise DeviceProblem(
                f"device {self._session.device}: the server ended the subscription: "
                f"{status_text(published.ended)}"
            )
        ticket = await self._emit(published, run)
        self._heard_us = self._link.clock.wall_us()
        return ticket

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
        self._id = result.SubscriptionId
        keep_alive_s = result.RevisedPublishingInterval * max(1, result.RevisedMaxKeepAliveCount) / 1000
        self._silence_s = keep_alive_s + self._settings.request_timeout_s

    async def _publish(self) -> Buffer | int:
        """Send one PublishRequest; return the answer, or the status of a refusal that is no failure."""
        acks, self._acks = self._acks, []
        request = publish_request([(self._id, ack) for ack in acks])
        try:
            # A PublishRequest waits at the server until there is something to tell: it has no time-out.
            return await self._session.services._send_request(request, timeout=0)
        except ua.UaStatusCodeError as error:
            if error.code in (ua.StatusCodes.BadTooManyPublishRequests, ua.StatusCodes.BadTimeout):
                return int(error.code)
            raise

    async def _answer(self, request: "asyncio.Task[Buffer | int]") -> Buffer | int:
        try:
            async with asyncio.timeout(self._silence_s):
                return await request
        except TimeoutError:
            raise self.silent() from None

    def silent(self) -> DeviceProblem:
        return DeviceProblem(
            f"device {self._session.device}: the subscription has been silent for {self._silence_s:.0f} s, "
            "without even a keep-alive"
        )

    def _late(self, published: Published) -> bool:
        """Say whether a message comes after its successors: nothing is missing then."""
        return (published.sequence - self._expected) % _LAST_SEQUENCE > _LAST_SEQUENCE // 2

    async def _missed(self, published: Published) -> list[Published]:
        """Return the messages between the expected one and this, sent again; a gap where they cannot be."""
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
                except ua.UaStatusCodeError:
                    break
                number = _after(number)
        if len(again) < count:
            self._link.gap(
                self._heard_us,
                self._link.clock.wall_us(),
                f"{count - len(again)} messages of the subscription did not arrive "
                f"(from number {expected}), and the server cannot send them again",
            )
        return again

    async def _again(self, number: int) -> Published:
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = self._id
        request.Parameters.RetransmitSequenceNumber = number
        return await decode_again(await self._session.services._send_request(request), self._id)

    async def _emit(self, published: Published, run: Run) -> Ticket | None:
        batch = Batch()
        for columns in published.changes:
            take_changes(columns, self._monitor.items, self._link, batch, self._look)
            if len(batch) > _MOST_A_MESSAGE:
                await asyncio.sleep(0)  # more than it was asked for: the others get their turns
        for handle, lost, why in published.undecoded:
            self._undecoded(handle, lost, why, run)
        self._overflow.tell()
        run.add(len(batch))
        if not len(batch):
            if not published.empty:
                self._acks.append(published.sequence)
            return None
        ticket = await self._link.emit(batch)
        ticket.add_done_callback(lambda kept: self._acks.append(published.sequence) if kept else None)
        return ticket

    def _look(self, item: Item, new: Reading) -> bool:
        if overflowed(new.status):
            self._overflow.add(item, new.ts)
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
        now = self._link.clock.wall_us()
        named = self._monitor.items[handle].named() if handle < len(self._monitor.items) else f"item {handle}"
        sentence = f"a value of {named} cannot be decoded ({why})"
        run.problem(sentence)
        self._link.gap(self._heard_us, now, f"{sentence}; what came with it is lost too", lost)


class _Overflow:
    """Values that the server dropped from its queues, told as one gap for some seconds."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._tags: dict[str, None] = {}
        self._from_us = self._to_us = self._told_us = 0

    def add(self, item: Item, ts: int | None) -> None:
        now = self._link.clock.wall_us()
        before = item.last.ts if item.last is not None and item.last.ts is not None else now
        self._from_us = min(self._from_us, before) if self._tags else before
        self._to_us = max(self._to_us, ts if ts is not None else now)
        self._tags[item.named()] = None

    def tell(self, *, now: bool = False) -> None:
        at_us = self._link.clock.wall_us()
        if not self._tags or (not now and 0 <= at_us - self._told_us < _OVERFLOW_REPORT_US):
            return
        names = list(self._tags)
        named = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        self._link.gap(
            self._from_us,
            self._to_us,
            f"the server's queue overflowed for {named}: give a larger `queue_size` "
            "or a longer `sampling_interval`",
        )
        self._tags.clear()
        self._told_us, self._to_us = at_us, 0


def _after(sequence: int) -> int:
    """Return the next sequence number; 0 is never used (Part 4, 7.22)."""
    return sequence + 1 if sequence < _LAST_SEQUENCE else 1
