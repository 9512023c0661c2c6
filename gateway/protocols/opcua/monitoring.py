"""Monitored items: made in chunks that the server takes, each result looked at."""

from collections.abc import Sequence

from asyncua import ua

from gateway.model import DeviceProblem
from gateway.protocols.opcua.faults import NO_FILTER, NO_ROOM, NO_SUCH_TAG, TOO_MUCH, status_text
from gateway.protocols.opcua.items import Item
from gateway.protocols.opcua.session import Session


class Monitor:
    """The items of one subscription; an item's client handle is its place in `items`."""

    def __init__(self, session: Session, *, strict: bool) -> None:
        self.session = session
        self._strict = strict
        """What cannot be subscribed is bad, rather than read cyclically."""
        self.items: list[Item] = []
        self._places: dict[int, int] = {}
        """By series; an item that is tried again takes its place of before."""
        self._made: dict[int, tuple[Item, int]] = {}
        """By series the items that the server has, each with its id there."""

    def subscribed(self) -> list[Item]:
        """Return the items that it really has."""
        return [item for item, _ in self._made.values() if not item.polled]

    def has(self, item: Item) -> bool:
        return item.series in self._made

    async def drop(self, subscription: int, items: Sequence[Item]) -> None:
        """Give items back to the server; those that it does not know any more are gone as well."""
        ids = [self._made.pop(item.series)[1] for item in items if item.series in self._made]

        async def deleted(some: list[int]) -> list[ua.StatusCode]:
            parameters = ua.DeleteMonitoredItemsParameters()
            parameters.SubscriptionId = subscription
            parameters.MonitoredItemIds = some
            kinds = ua.DeleteMonitoredItemsRequest, ua.DeleteMonitoredItemsResponse
            response = await self.session.ask(kinds[0], parameters, kinds[1])
            return list(response.Results or ())

        await self.session.chunked("monitor", ids, deleted)

    async def add(self, subscription: int, items: Sequence[Item]) -> list[Item]:
        """Create the items; each is then subscribed, to be polled, or bad.

        Returns those that it has no room for: further ones are not even tried.
        """
        left = list(items)
        while left:
            chunk = left[: self.session.limits["monitor"]]
            refused = await self._add_chunk(subscription, chunk)
            left = left[len(chunk) :]
            if refused:
                return refused + left
        return []

    async def _add_chunk(self, subscription: int, items: Sequence[Item]) -> list[Item]:
        parameters = ua.CreateMonitoredItemsParameters()
        parameters.SubscriptionId = subscription
        parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        namespaces = self.session.namespaces
        parameters.ItemsToCreate = [_request(self._placed(item), item, namespaces) for item in items]
        try:
            response = await self.session.ask(
                ua.CreateMonitoredItemsRequest, parameters, ua.CreateMonitoredItemsResponse
            )
        except ua.UaStatusCodeError as error:
            if error.code in NO_ROOM:
                return list(items)
            if error.code not in TOO_MUCH:
                raise
            if len(items) == 1:
                self._refused(items[0], error.code)
                return []
            self.session.limits["monitor"] = len(items) // 2
            return await self.add(subscription, items)
        results = response.Results or []
        if len(results) != len(items):
            raise DeviceProblem(
                f"device {self.session.device}: the server answered {len(items)} monitored items "
                f"with {len(results)} results"
            )
        again, full = [], []
        for item, result in zip(items, results, strict=True):
            code = result.StatusCode.value
            if code in NO_ROOM:
                full.append(item)
            elif code in NO_FILTER and item.events is not None and item.events.loosen():
                again.append(item)
            elif code in NO_FILTER and item.filtered:
                item.filtered = False
                again.append(item)
            else:
                self._take(item, result)
        return full + (await self._add_chunk(subscription, again) if again else [])

    def _placed(self, item: Item) -> int:
        place = self._places.setdefault(item.series, len(self.items))
        self.items[place : place + 1] = [item]
        return place

    def _take(self, item: Item, result: ua.MonitoredItemCreateResult) -> None:
        item.polled, item.refusal = False, ""
        # A queue of one overflows without a word (Part 4, 7.22.2).
        item.queued = result.RevisedQueueSize > 1
        if result.StatusCode.is_good():
            self._made[item.series] = item, result.MonitoredItemId
        else:
            self._refused(item, result.StatusCode.value)

    def _refused(self, item: Item, code: int) -> None:
        item.filtered = False
        if item.events is not None:
            item.problem = f"node {item.spec}: it gives no events: {status_text(code)}"
        elif code in NO_SUCH_TAG or self._strict:
            item.problem = f"node {item.spec}: {status_text(code)}"
        else:
            item.polled, item.refusal = True, status_text(code)


def _request(handle: int, item: Item, namespaces: Sequence[str]) -> ua.MonitoredItemCreateRequest:
    request = ua.MonitoredItemCreateRequest()
    request.ItemToMonitor.NodeId = item.node
    request.ItemToMonitor.AttributeId = ua.AttributeIds.Value
    request.MonitoringMode = ua.MonitoringMode.Reporting
    parameters = request.RequestedParameters
    parameters.ClientHandle = handle
    parameters.SamplingInterval = float(item.sampling_ms)
    parameters.QueueSize = item.queue_size
    parameters.DiscardOldest = True
    if item.events is not None:
        request.ItemToMonitor.AttributeId = ua.AttributeIds.EventNotifier
        parameters.SamplingInterval = 0.0
        parameters.Filter = item.events.filter(namespaces)
    if item.filtered:
        wanted = ua.DataChangeFilter()
        wanted.Trigger = ua.DataChangeTrigger.StatusValue
        wanted.DeadbandType = int(ua.DeadbandType.Absolute)
        # The server compares raw values, the setting is in the tag's unit.
        wanted.DeadbandValue = item.deadband / abs(item.scaling.scale)
        parameters.Filter = wanted
    return request
