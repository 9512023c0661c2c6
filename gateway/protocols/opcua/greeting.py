"""Whether a server greets a new connection: what tells a dead connection from a server that hangs."""

import asyncio
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.ua.ua_binary import uatcp_to_binary

_PORT = 4840
"""The registered port of OPC UA, where an address names none."""
_PATIENCE_S = 2.0
_HEADER_BYTES = 8
_OUR_BUFFER = 65_535


def with_port(url: str) -> str:
    """Return the address with its port."""
    parts = urlsplit(url)
    return url if parts.port is not None else parts._replace(netloc=f"{parts.netloc}:{_PORT}").geturl()


async def greets(url: str) -> bool:
    """Say whether the server acknowledges a Hello on a new connection at once (Part 6, 7.1.2)."""
    parts = urlsplit(with_port(url))
    hello = ua.Hello(ReceiveBufferSize=_OUR_BUFFER, SendBufferSize=_OUR_BUFFER, EndpointUrl=url)
    writer = None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(uatcp_to_binary(ua.MessageType.Hello, hello))
            return (await reader.readexactly(_HEADER_BYTES)).startswith(b"ACK")
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()
