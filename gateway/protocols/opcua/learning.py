"""What differs between servers and sessions: namespaces, limits, kind of server, its start and its health."""

from typing import Any

from asyncua import ua

from gateway.protocols.opcua.profiles import profile_of
from gateway.protocols.opcua.session import Session

_IDS = ua.ObjectIds
_LIMITS = {
    "read": _IDS.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
    "browse": _IDS.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
    "translate": _IDS.Server_ServerCapabilities_OperationLimits_MaxNodesPerTranslateBrowsePathsToNodeIds,
    "monitor": _IDS.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
    "history": _IDS.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData,
}
_UNSAID = {"read": 500, "browse": 500, "translate": 500, "monitor": 500, "history": 10}
_MOST = {"read": 1000, "browse": 1000, "translate": 1000, "monitor": 1000, "history": 100}
_ANY = 1_000_000
_DESCRIBED = {
    "namespaces": _IDS.Server_NamespaceArray,
    "manufacturer": _IDS.Server_ServerStatus_BuildInfo_ManufacturerName,
    "product": _IDS.Server_ServerStatus_BuildInfo_ProductName,
    "started": _IDS.Server_ServerStatus_StartTime,
    "level": _IDS.Server_ServiceLevel,
    "items": _IDS.Server_ServerCapabilities_MaxMonitoredItems,
}


async def learn(session: Session) -> None:
    """Read it all, in one call where the server bears that, and obey it from now on."""
    session.limits.update(_UNSAID)
    asked = {**_LIMITS, **_DESCRIBED}
    nodes = [
        ua.ReadValueId(NodeId=ua.NodeId(number), AttributeId=ua.AttributeIds.Value)
        for number in asked.values()
    ]
    values = await session.chunked("read", nodes, session.read)
    said: dict[str, Any] = {
        name: data.Value.Value if data.Value is not None else None
        for name, data in zip(asked, values, strict=True)
    }
    session.namespaces = [str(name) for name in said["namespaces"] or ["http://opcfoundation.org/UA/"]]
    session.started = said["started"]
    session.level = said["level"] if isinstance(said["level"], int) else session.level
    profile = profile_of(str(said["manufacturer"] or ""), str(said["product"] or ""))
    for name in _LIMITS:
        bearable = min(_MOST[name], profile.limits.get(name, _MOST[name]))
        usual = min(profile.limits.get(name, _UNSAID[name]), bearable)
        session.limits[name] = min(_number(said[name]) or usual, bearable)
    session.profile = profile.name
    session.most_items = min(_number(said["items"]) or _ANY, profile.items or _ANY)


def _number(said: object) -> int:
    return said if isinstance(said, int) and said > 0 else 0
