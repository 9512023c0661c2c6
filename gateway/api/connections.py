"""Connections count from their acceptance to their end: a TLS handshake alone takes 0.3 MiB of memory."""

import asyncio
import os
import socket
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from gateway.api.settings import HttpSettings

UNREAD_S: Final = 30
"""A client that takes nothing of what waits for it for so long is cut off, whatever was asked for."""


class Limits:
    """Open connections, in all and by address."""

    def __init__(self, settings: HttpSettings) -> None:
        self._most, self._most_per_address = settings.max_connections, settings.max_connections_per_address
        self._by_address: Counter[str] = Counter()
        self.open = 0

    def enter(self, address: str) -> bool:
        if self.open >= self._most or self._by_address[address] >= self._most_per_address:
            return False
        self.open += 1
        self._by_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        self.open -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


class Listener(socket.socket):
    """A listening socket that closes at once what is beyond the limits."""

    def __init__(self, limits: Limits, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self._limits = limits
        # Each connection inherits it. Closing a transport would wait for the client to read what is left.
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(UNREAD_S * 1000))

    def accept(self) -> tuple[socket.socket, Any]:
        accepted, peer = super().accept()
        address = str(peer[0])
        if not self._limits.enter(address):
            accepted.close()
            raise BlockingIOError  # asyncio does something else, then it asks again
        return _Connected(accepted, lambda: self._limits.leave(address)), peer


class _Connected(socket.socket):
    """A connection that says when it is closed, whoever gave it up."""

    def __init__(self, accepted: socket.socket, left: Callable[[], None]) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._left = weakref.finalize(self, left)
        self._left.atexit = False

    def close(self) -> None:
        super().close()
        self._left()


async def bind(host: str, port: int, limits: Limits) -> list[Listener]:
    """Return a socket for each address of the host. OSError: one is in use or not ours."""
    bound = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    try:
        return [Listener(limits, os.dup(each.fileno())) for each in bound.sockets]
    finally:
        bound.close()
