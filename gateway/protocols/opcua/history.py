"""HistoryRead of raw values (Part 11, 6.5.3): page by page, and never more than half of the time."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from asyncua import ua

from gateway.protocols.opcua.faults import TOO_MUCH, sentence, status_text
from gateway.protocols.opcua.session import Session

_VALUES_A_CALL = 1000
"""Of all nodes together: decoding them holds the event loop some 20 ms, not more."""
_LEAST_REST_S = 0.01
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_IDLE = 20
"""Pages of a node in a row that bring nothing newer."""
_ENDLESS = "its history gives pages without end"
_HISTORY_READ = 4
"""Of an AccessLevel (Part 3, 8.57)."""


class Page(NamedTuple):
    """Some values of one node, in order of time; or why there are none."""

    place: int
    """Of the node among those asked for."""
    values: Sequence[ua.DataValue]
    problem: str = ""


async def historic(session: Session, nodes: Sequence[ua.NodeId]) -> list[bool]:
    """Say which nodes have a history that is being written and may be read."""
    wanted = [
        ua.ReadValueId(NodeId=node, AttributeId=attribute)
        for node in nodes
        for attribute in (ua.AttributeIds.UserAccessLevel, ua.AttributeIds.Historizing)
    ]
    values = [
        data.Value.Value if data.Value is not None else None
        for data in await session.chunked("read", wanted, session.read)
    ]
    return [
        isinstance(access, int) and bool(access & _HISTORY_READ) and written is True
        for access, written in zip(values[::2], values[1::2], strict=True)
    ]


async def pages(
    session: Session, nodes: Sequence[ua.NodeId], from_us: int, to_us: int
) -> AsyncIterator[Page]:
    """Yield what each node had between two source times, both inclusive."""
    window = ua.ReadRawModifiedDetails()
    window.IsReadModified = window.ReturnBounds = False
    window.StartTime = _EPOCH + timedelta(microseconds=from_us)
    # Ours are cut to microseconds, the server's have 100 ns: one more holds them all.
    window.EndTime = _EPOCH + timedelta(microseconds=to_us + 1)
    course = _Course()
    asked: list[tuple[int, bytes | None]] = [(place, None) for place in range(len(nodes))]
    while asked:
        chunk = asked[: session.limits["history"]]
        window.NumValuesPerNode = max(1, _VALUES_A_CALL // len(chunk))
        began = time.monotonic()
        try:
            results = await _read(session, window, [(nodes[place], point) for place, point in chunk])
        except (ua.UaStatusCodeError, TimeoutError) as error:
            if isinstance(error, ua.UaStatusCodeError) and error.code in TOO_MUCH and len(chunk) > 1:
                session.limits["history"] = len(chunk) // 2
                continue
            for place, _ in asked:
                yield Page(place, (), f"its history cannot be read: {sentence(error)}")
            return
        # What goes on is asked for next: a server has few continuation points.
        further: list[tuple[int, bytes | None]] = []
        for (place, point), result in zip(chunk, results, strict=True):
            if result.StatusCode.value == ua.StatusCodes.BadNoContinuationPoints and len(chunk) > 1:
                further.append((place, point))
                session.limits["history"] = len(chunk) // 2
            elif result.StatusCode.is_bad():
                yield Page(place, (), f"its history cannot be read: {status_text(result.StatusCode.value)}")
            else:
                values = getattr(result.HistoryData, "DataValues", None) or ()
                endless = bool(result.ContinuationPoint) and not course.goes_on(place, values)
                yield Page(place, values, _ENDLESS if endless else "")
                if result.ContinuationPoint and not endless:
                    further.append((place, result.ContinuationPoint))
        asked = further + asked[len(chunk) :]
        # Live values go first: the server gets as much time for them, and for itself.
        await asyncio.sleep(max(_LEAST_REST_S, time.monotonic() - began))


class _Course:
    """Tells a long history from pages without end."""

    def __init__(self) -> None:
        self._newest: dict[int, datetime] = {}
        self._idle: Counter[int] = Counter()

    def goes_on(self, place: int, values: Sequence[ua.DataValue]) -> bool:
        """Say whether a node's pages came to newer values, at least now and then."""
        newest = max((data.SourceTimestamp for data in values if data.SourceTimestamp), default=_EPOCH)
        if newest > self._newest.get(place, _EPOCH):
            self._newest[place], self._idle[place] = newest, 0
            return True
        self._idle[place] += 1
        return self._idle[place] < _MOST_IDLE


async def _read(
    session: Session, window: ua.ReadRawModifiedDetails, asked: Sequence[tuple[ua.NodeId, bytes | None]]
) -> list[ua.HistoryReadResult]:
    parameters = ua.HistoryReadParameters()
    parameters.HistoryReadDetails = window
    parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
    parameters.ReleaseContinuationPoints = False
    parameters.NodesToRead = [
        ua.HistoryReadValueId(NodeId=node, ContinuationPoint=point) for node, point in asked
    ]
    results: list[ua.HistoryReadResult] = await session.services.history_read(parameters)
    session.heard()
    if len(results) != len(asked):
        raise ua.UaStatusCodeError(ua.StatusCodes.BadUnexpectedError)
    return results
