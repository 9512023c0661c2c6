"""The event loop of the daemon: asyncio's, but name look-ups take no thread that other work waits for.

glibc waits for dead name servers for up to 40 s, and nothing ends a look-up before: in the threads that
asyncio shares, a few hosts without a name would keep everything else waiting, and the end of the process too.
"""

import asyncio
import socket
from typing import Any, Final

from gateway.own_thread import in_thread

MOST_LOOKUPS: Final = 32
"""At a time; the unit allows 128 threads and processes in all."""


class EventLoop(asyncio.SelectorEventLoop):
    """Looks names up in threads of their own; who asks what is being looked up gets the same answer."""

    def __init__(self) -> None:
        super().__init__()
        self._lookups: dict[tuple[object, ...], asyncio.Future[list[Any]]] = {}

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002  # the name in socket.getaddrinfo
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """As socket.getaddrinfo; gaierror EAI_AGAIN too where MOST_LOOKUPS others wait already."""
        asked = (host, port, family, type, proto, flags)
        if (lookup := self._lookups.get(asked)) is None:
            if len(self._lookups) >= MOST_LOOKUPS:
                raise socket.gaierror(
                    socket.EAI_AGAIN, f"{MOST_LOOKUPS} other names are being looked up: is DNS down?"
                )
            lookup = self._lookups[asked] = in_thread("name look-up", socket.getaddrinfo, *asked)
            lookup.add_done_callback(lambda done: self._looked_up(asked, done))
        return await asyncio.shield(lookup)

    def _looked_up(self, asked: tuple[object, ...], done: "asyncio.Future[list[Any]]") -> None:
        del self._lookups[asked]
        done.exception()  # seen, also where all who asked have given up
