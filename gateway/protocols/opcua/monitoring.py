"""Monitored items: made in chunks that the server takes, each result looked at."""

from collections.abc import Sequence

from asyncua import ua

from gateway.model import DeviceProblem
from gateway.protocols.opcua.faults import NO_FILTER, NO_SUCH_TAG, TOO_MUCH, status_text
from gateway.protocols.opcua.items import Item
from gateway.protocols.opcua.session import Session


class Monitor:
    """The items of one subscription; an item's client handle is its place in `items`."""

    def __init__(self, session: Session, *, strict: bool) -> None:
        self._session = session
        self._strict = strict
        """What cannot be subscribed is bad, rather than read cyclically."""
        self.items: list[Item] = []

    async def add(self, subscription: int, items: Sequence[Item]) -> None:
        """Create the items; each is then subscribed, to be polled, or bad."""
        size = self._session.limits["monitor"]
        for start in range(0, len(items), size):
            await self._add_chunk(subscription, items[start : start + size])

    async def _add_chunk(self, subscription: int, items: Sequence[Item]) -> None:
        parameters = ua.CreateMonitoredItemsParameters()
        parameters.SubscriptionId = subscription
        parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        first = len(self.items)
        self.items.extend(items)
        parameters.ItemsToCreate = [_request(first + place, item) for place, item in enumerate(items)]
        try:
            response = await self._session.ask(
                ua.CreateMonitoredItemsRequest, parameters, ua.CreateMonitoredItemsResponse
            )
        except ua.UaStatusCodeError as error:
            if error.code in TOO_MUCH and len(items) > 1:
                half = len(items) // 2
                self._session.limits["monitor"] = min(self._session.limits["monitor"], half)
                await self._add_chunk(subscription, items[:half])
                await self._add_chunk(subscription, items[half:])
                return
            if error.code == ua.StatusCodes.BadTooManyMonitoredItems or error.code in TOO_MUCH:
                for item in items:
                    self._refused(item, error.code)
                return
            raise
        results = response.Results or []
        if len(results) != len(items):
            raise DeviceProblem(
                f"device {self._session.device}: the server answered {len(items)} monitored items "
                f"with {len(results)} results"
            )
        again = [item for item, result in zip(items, results, strict=True) if not self._made(item, result)]
        if again:
            await self._add_chunk(subscription, again)

    def _made(self, item: Item, result: ua.MonitoredItemCreateResult) -> bool:
        """Take a result; False where the item is to be tried again without its filter."""
        code = result.StatusCode.value
        item.polled = False
        if result.StatusCode.is_good():
            item.problem = ""
            return True
        if code in NO_FILTER and item.filtered:
            item.filtered = False
            return False
        self._refused(item, code)
        return True

    def _refused(self, item: Item, code: int) -> None:
        item.filtered = False
        if code in NO_SUCH_TAG or self._strict:
            item.problem = f"node {item.spec}: {status_text(code)}"
        else:
            item.polled = True


def _request(handle: int, item: Item) -> ua.MonitoredItemCreateRequest:
    request = ua.MonitoredItemCreateRequest()
    request.ItemToMonitor.NodeId = item.node
    request.ItemToMonitor.AttributeId = ua.AttributeIds.Value
    request.MonitoringMode = ua.MonitoringMode.Reporting
    parameters = request.RequestedParameters
    parameters.ClientHandle = handle
    parameters.SamplingInterval = float(item.sampling_ms)
    parameters.QueueSize = item.queue_size
    parameters.DiscardOldest = True
    if item.filtered:
        wanted = ua.DataChangeFilter()
        wanted.Trigger = ua.DataChangeTrigger.StatusValue
        wanted.DeadbandType = int(ua.DeadbandType.Absolute)
        # The server compares raw values, the setting is in the tag's unit.
        wanted.DeadbandValue = item.deadband / abs(item.scaling.scale)
        parameters.Filter = wanted
    return request
