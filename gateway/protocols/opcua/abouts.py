"""What the server says of the tags of a session: the types before the first value, the rest beside them."""

import asyncio
import logging
from collections.abc import Sequence

from asyncua import ua

from gateway.model import DeviceProblem, Link
from gateway.protocols.opcua.datatypes import DataTypes
from gateway.protocols.opcua.faults import sentence
from gateway.protocols.opcua.items import Item
from gateway.protocols.opcua.metadata import data_types, described
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.structures import AsJson

_AT_ONCE = 1000
_LONGEST_UNIT = 64
_UNTOLD = (ua.UaError, DeviceProblem, TimeoutError, ValueError)
"""What a server may answer to questions that not every server understands."""

_log = logging.getLogger(__name__)


class Abouts:
    """Reads it once for each item; what the server does not tell costs nothing but itself."""

    def __init__(self, session: Session, link: Link) -> None:
        self._session = session
        self._link = link
        self._types = DataTypes()
        self._wanted: asyncio.Queue[tuple[Item, ua.NodeId | None]] = asyncio.Queue()

    async def learn(self, items: Sequence[Item]) -> None:
        """Have structures decoded where their types can be read; to be called before they are subscribed."""
        resolved = [item for item in items if item.node is not None and item.events is None]
        kinds: Sequence[ua.NodeId | None] = [None] * len(resolved)
        try:
            kinds = await data_types(self._session, [item.node for item in resolved])
            await self._types.learn(self._session, [kind for kind in kinds if kind is not None])
        except _UNTOLD as error:
            _log.info("%s: the types of its tags cannot be read: %s", self._session.device, sentence(error))
        for item, kind in zip(resolved, kinds, strict=True):
            if kind in self._types.by_type:
                item.scale_by(AsJson(structures=self._types.by_encoding))
            self._wanted.put_nowait((item, kind))

    async def run(self) -> None:
        """Ask for units, ranges and texts, for ever."""
        while True:
            asked = [await self._wanted.get()]
            while len(asked) < _AT_ONCE and not self._wanted.empty():
                asked.append(self._wanted.get_nowait())
            try:
                await self._describe(asked)
            except _UNTOLD as error:
                _log.info("%s: units and ranges cannot be read: %s", self._session.device, sentence(error))

    async def _describe(self, asked: Sequence[tuple[Item, ua.NodeId | None]]) -> None:
        kinds = [kind for _, kind in asked]
        abouts = await described(self._session, [item.node for item, _ in asked], kinds, self._types)
        for (item, _), about in zip(asked, abouts, strict=True):
            item.about = about
            if not item.unit:
                # A scaled value is no longer in the server's unit.
                self._link.tag(item.tag, unit=about.unit[:_LONGEST_UNIT] if item.scaling.identity else "")
