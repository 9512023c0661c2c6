"""Guards asyncua's receive path: what a server says of sizes is not believed beyond what was agreed."""

from asyncua import Client

_MOST_FRAME = 65_535
"""Our receive buffer, as the Hello says it."""
_MOST_MESSAGE = 64 * 1024 * 1024
_MOST_CHUNKS = 4096


def guard(client: Client) -> None:
    """Cut the connection at a frame larger than our buffer; asyncua would gather it for ever.

    To be called before the socket is opened.
    """
    make = client.uaclient._make_protocol

    def guarded() -> object:
        protocol = make()
        receive = protocol.data_received

        def data_received(data: bytes) -> None:
            receive(data)
            rest = protocol.receive_buffer
            if rest and len(rest) >= 8 and int.from_bytes(rest[4:8], "little") > _MOST_FRAME:
                protocol.receive_buffer = None
                protocol.transport.abort()

        protocol.data_received = data_received
        return protocol

    client.uaclient._make_protocol = guarded


def limit(client: Client) -> None:
    """Set our own limits anew: the server's Acknowledge has overwritten them with its own."""
    limits = client.uaclient.protocol._connection._limits
    limits.max_message_size = _MOST_MESSAGE
    limits.max_chunk_count = _MOST_CHUNKS
