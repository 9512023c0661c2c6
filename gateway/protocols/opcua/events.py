"""Events and alarms as samples: what is asked of the server, and what comes of its answers.

Part 4, 7.22.3 (EventFilter), Part 5, 6.4 (BaseEventType), Part 9, 5.5 to 5.8 (conditions and their refresh).
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from asyncua import ua

from gateway.model import Batch, Device, Flag, Link, Value
from gateway.protocols.opcua import Settings
from gateway.protocols.opcua.bounded import BROKEN, why
from gateway.protocols.opcua.faults import status_text
from gateway.protocols.opcua.items import Item, Newest, item
from gateway.protocols.opcua.nodes import BadNode, node_id, spelled
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.values import Reading
from gateway.protocols.opcua.variants import INT32, UINT32, VariantReader

_IDS = ua.ObjectIds
_FIELDS = (
    ("EventId", _IDS.BaseEventType, ("EventId",)),
    ("EventType", _IDS.BaseEventType, ("EventType",)),
    ("SourceName", _IDS.BaseEventType, ("SourceName",)),
    ("Time", _IDS.BaseEventType, ("Time",)),
    ("Message", _IDS.BaseEventType, ("Message",)),
    ("Severity", _IDS.BaseEventType, ("Severity",)),
    ("ConditionName", _IDS.ConditionType, ("ConditionName",)),
    ("ActiveState", _IDS.AlarmConditionType, ("ActiveState", "Id")),
    ("AckedState", _IDS.AcknowledgeableConditionType, ("AckedState", "Id")),
    ("Retain", _IDS.ConditionType, ("Retain",)),
)
_REFRESH = (_IDS.RefreshStartEventType, _IDS.RefreshEndEventType, _IDS.RefreshRequiredEventType)
_REFRESH_START, _REFRESH_END, _REFRESH_REQUIRED = (f"i={number}" for number in _REFRESH)
_OVERFLOW = f"i={_IDS.EventQueueOverflowEventType}"
_QUEUE = 1000
_READS = 20_000
"""Of all events of one message: some ten milliseconds."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Event = tuple[int, list[Value]]
"""Client handle, and the fields in our order."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Wanted:
    """What a tag takes of a source's events."""

    least_severity: int
    types: Sequence[str]
    filtered: bool = True
    """The server judges severity and type."""

    def loosen(self) -> bool:
        """Have the server send all, where it can judge nothing; False: the types only it can tell."""
        if not self.filtered or self.types:
            return False
        self.filtered = False
        return True

    def filter(self, namespaces: Sequence[str]) -> ua.EventFilter:
        """Return what the server is asked for. BadNode: there is no such event type."""
        asked = ua.EventFilter()
        asked.SelectClauses = [_operand(kind, path) for _, kind, path in _FIELDS]
        types = [_type(spec, namespaces) for spec in self.types]
        if self.filtered:
            asked.WhereClause.Elements = _where(self.least_severity, types)
        return asked


def event_items(device: Device, settings: Settings, link: Link, newest: Newest) -> list[Item]:
    """Return the items of the tags with events, not resolved yet."""
    items = []
    for name, tag in device.tags.items():
        if tag.events:
            made = item(name, tag.events, tag, settings, link, newest, where=device.where.get(name, ""))
            made.events = Wanted(tag.least_severity, tag.event_types)
            made.queue_size = tag.queue_size or settings.queue_size or _QUEUE
            made.historic = False
            items.append(made)
    return items


def judged(item: Item, namespaces: Sequence[str]) -> bool:
    """Say whether what the item takes can be asked for; if not, that is its problem."""
    if item.events is None:
        return True
    try:
        item.events.filter(namespaces)
    except BadNode as error:
        item.problem = f"node {item.spec}: {error}"
        return False
    return True


def decode_events(data: bytes, at: int, end: int) -> tuple[list[Event], tuple[int, int, str] | None]:
    """Decode the events of an EventNotificationList, and say what is lost where one cannot be.

    The latter is as in Published.undecoded: client handle, how many events, why.
    """
    reader = VariantReader(data, end)
    reader.reads = _READS
    events: list[Event] = []
    handle, left = 2**32, 1
    try:
        (left,) = reader.unpack(INT32, at)
        at += 4
        while left > 0:
            (handle,), (count,) = reader.unpack(UINT32, at), reader.unpack(INT32, at + 4)
            at += 8
            fields: list[Value] = []
            for _ in range(count):
                value, at = reader.variant(at)
                fields.append(value)
            events.append((handle, fields))
            left -= 1
    except BROKEN as error:
        return events, (handle, left, why(error))
    return events, None


class Taker:
    """Takes the events of one subscription."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._refreshing = False
        self.refresh_due = False
        """The server asks us to ask for its conditions again, or some are lost."""

    def take(self, item: Item, fields: Sequence[Value], namespaces: Sequence[str], batch: Batch) -> None:
        """Add an event to a batch as a sample; those that tell of a refresh or a loss are none."""
        told = dict(zip((name for name, _, _ in _FIELDS), fields, strict=False))
        kind = told.get("EventType")
        if kind in (_REFRESH_START, _REFRESH_END):
            self._refreshing = kind == _REFRESH_START
            return
        ts = _microseconds(told.get("Time"))
        if kind == _OVERFLOW:
            self._overflowed(item, ts)
        if kind in (_REFRESH_REQUIRED, _OVERFLOW):
            self.refresh_due = True
            return
        severity = told.get("Severity")
        if item.events.filtered or not isinstance(severity, int) or severity >= item.events.least_severity:
            self._add(item, _text(told, namespaces), ts, batch)

    def _add(self, item: Item, text: str, ts: int | None, batch: Batch) -> None:
        flags = Flag.HISTORY if self._refreshing else Flag(0)
        if ts is None:
            ts, own = self._link.stamp()
            flags |= own
        item.begin(ts)
        item.newest[item.series] = Reading(text, ts, 0, int(flags))
        batch.add(item.series, ts, text, 0, int(flags))

    def _overflowed(self, item: Item, ts: int | None) -> None:
        now = self._link.clock.wall_us()
        last = item.last.ts if item.last is not None else None
        self._link.gap(
            last if last is not None else now,
            ts if ts is not None else now,
            f"the server's queue of events overflowed for {item.named()}: give a larger `queue_size`",
        )


async def refresh(session: Session, subscription: int) -> None:
    """Have the server send its conditions as they are; those that have none, or cannot, are left alone."""
    call = ua.CallMethodRequest()
    call.ObjectId = ua.NodeId(_IDS.ConditionType)
    call.MethodId = ua.NodeId(_IDS.ConditionType_ConditionRefresh)
    call.InputArguments = [ua.Variant(subscription, ua.VariantType.UInt32)]
    try:
        response = await session.ask(ua.CallRequest, ua.CallParameters([call]), ua.CallResponse)
        code = response.Results[0].StatusCode.value if response.Results else 0
    except ua.UaStatusCodeError as error:
        code = error.code
    if code >> 31:
        _log.info("%s: no refresh of its conditions: %s", session.device, status_text(code))


def _operand(kind: int, path: Sequence[str]) -> ua.SimpleAttributeOperand:
    operand = ua.SimpleAttributeOperand()
    operand.TypeDefinitionId = ua.NodeId(kind)
    operand.BrowsePath = [ua.QualifiedName(name) for name in path]
    operand.AttributeId = ua.AttributeIds.Value
    return operand


def _where(least_severity: int, types: Sequence[ua.NodeId]) -> list[ua.ContentFilterElement]:
    """Return (severity AND one of the types) OR what tells of a refresh, as a tree in a list; [] for all."""
    wanted: list[Any] = []
    if least_severity > 1:
        severity = _operand(_IDS.BaseEventType, ("Severity",))
        least = ua.LiteralOperand(ua.Variant(least_severity, ua.VariantType.UInt16))
        wanted.append((ua.FilterOperator.GreaterThanOrEqual, severity, least))
    if types:
        wanted.append(_any(types))
    if not wanted:
        return []
    both = wanted[0] if len(wanted) == 1 else (ua.FilterOperator.And, *wanted)
    tree = (ua.FilterOperator.Or, both, _any([ua.NodeId(number) for number in _REFRESH]))
    elements: list[ua.ContentFilterElement] = []
    _flatten(tree, elements)
    return elements


def _any(types: Sequence[ua.NodeId]) -> Any:
    first = (ua.FilterOperator.OfType, ua.LiteralOperand(ua.Variant(types[0], ua.VariantType.NodeId)))
    return first if len(types) == 1 else (ua.FilterOperator.Or, first, _any(types[1:]))


def _flatten(tree: Any, elements: list[ua.ContentFilterElement]) -> int:
    """Append a tree of (operator, operands); an operand that is one is named by its place (Part 4, 7.7.1)."""
    element = ua.ContentFilterElement()
    element.FilterOperator = tree[0]
    place = len(elements)
    elements.append(element)
    element.FilterOperands = [
        ua.ElementOperand(_flatten(operand, elements)) if isinstance(operand, tuple) else operand
        for operand in tree[1:]
    ]
    return place


def _type(spec: str, namespaces: Sequence[str]) -> ua.NodeId:
    found = node_id(spec, namespaces)
    if found is None and isinstance(number := getattr(_IDS, spec, None), int):
        found = ua.NodeId(number)
    if found is None:
        raise BadNode(f"{spec!r} is no event type: a node id, or a name of the standard (AlarmConditionType)")
    return found


def _text(told: dict[str, Value], namespaces: Sequence[str]) -> str:
    shown: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    if isinstance(number := shown.get("EventId"), bytes):
        shown["EventId"] = number.hex()
    if isinstance(kind := shown.get("EventType"), str):
        with suppress(*BROKEN):  # a text that is no node id stays as it is
            node = ua.NodeId.from_string(kind)
            standard = ua.ObjectIdNames.get(node.Identifier) if node.NamespaceIndex == 0 else None
            shown["EventType"] = standard or spelled(node, namespaces)
    return orjson.dumps(shown, default=_hex).decode()


def _hex(value: object) -> str:
    """Return text that is no UTF-8, which is kept as its bytes, in hex."""
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError


def _microseconds(text: Value) -> int | None:
    """Return what a DateTime was before it became text; None where it is none."""
    if not isinstance(text, str) or not text.endswith("Z"):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment - _EPOCH) // timedelta(microseconds=1) if moment.year > 1601 else None
    except ValueError:
        return None
