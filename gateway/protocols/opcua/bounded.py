"""asyncua's decoders on bytes of the network: never backwards, never for ever, never long in the event loop.

asyncua believes the lengths that it reads: a negative one moves its buffer back, and an array of Nulls takes
no bytes, so that a few of them decode for hours. Each of its decoders reads from a Buffer, which counts here.
"""

import asyncio
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from asyncua import ua
from asyncua.common.utils import Buffer, NotEnoughData
from asyncua.ua import ua_binary
from asyncua.ua.ua_binary import struct_from_binary

AT_ONCE = 500
"""Reads from a buffer that may be spent in the event loop: some milliseconds."""
AT_MOST = 50_000
"""Reads that a value, or an answer, may take on a thread: each can become an object of some hundred bytes."""
_SMALL_ANSWER = 20_000
"""Reads that an answer may take which asyncua itself decodes: of CreateSession, of GetEndpoints."""

BROKEN = (ua.UaError, struct.error, ValueError, TypeError, OverflowError, RecursionError, LookupError)
"""What asyncua's decoders raise on bytes that are not what they should be."""


class Spent(ua.UaError):  # type: ignore[misc]
    """Decoding took more reads than it may."""


class Bounded(Buffer):  # type: ignore[misc]
    """A Buffer with so many reads, shared with its copies."""

    def __init__(
        self, data: bytes, start_pos: int = 0, size: int = -1, left: list[int] | None = None
    ) -> None:
        super().__init__(data, start_pos, size)
        self._left = [_SMALL_ANSWER] if left is None else left

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._size:
            raise NotEnoughData(f"a length of {size} where {self._size} bytes are left")
        self._left[0] -= 1
        if self._left[0] < 0:
            raise Spent("it holds more parts than are taken")
        start: int = self._cur_pos
        end = start + size
        self._cur_pos: int = end
        self._size -= size
        return self._data[start:end]  # type: ignore[no-any-return]

    def copy(self, size: int = -1) -> "Bounded":
        if size < 0 or size > self._size:
            size = self._size
        return Bounded(self._data, self._cur_pos, size, self._left)

    def skip(self, size: int) -> None:
        if not 0 <= size <= self._size:
            raise NotEnoughData(f"a length of {size} where {self._size} bytes are left")
        super().skip(size)

    def again(self, reads: int) -> "Bounded":
        """Return what is left of it with so many reads of its own."""
        return Bounded(self._data, self._cur_pos, self._size, [reads])

    def start(self, size: int) -> bytes:
        """Return the next bytes without reading them."""
        return self._data[self._cur_pos : self._cur_pos + min(size, self._size)]  # type: ignore[no-any-return]

    def rest(self) -> tuple[bytes, int, int]:
        """Return the bytes, and where in them what is left begins and ends."""
        return self._data, self._cur_pos, self._cur_pos + self._size


class _CountedNull:
    """A Null takes no bytes; reading none of them counts it."""

    @staticmethod
    def pack(_: object) -> bytes:
        return b""

    @staticmethod
    def unpack(data: Any) -> None:
        data.read(0)


_DECODED = frozenset(
    ua.FourByteNodeId(getattr(ua.ObjectIds, f"{name}_Encoding_DefaultBinary"))
    for name in (
        "DataChangeNotification", "StatusChangeNotification", "EventNotificationList",
        "HistoryData", "HistoryModifiedData", "HistoryEvent",
        "Range", "EUInformation", "EnumValueType", "EnumDefinition", "StructureDefinition",
        "ServerStatusDataType",
    )
)  # fmt: skip
"""Structures that asyncua decodes for us; all others stay as they came."""
_by_class = ua_binary.extensionobject_from_binary


def _extension_object(data: Any) -> Any:
    """Decode an ExtensionObject: asyncua keeps a decoder for each type that a server ever named."""
    if not isinstance(data, Bounded) or ua_binary.nodeid_from_binary(data.copy()) in _DECODED:
        return _by_class(data)
    kind = ua_binary.nodeid_from_binary(data)
    content = ua_binary.Primitives.ByteString.unpack(data) if ord(data.read(1)) & 3 else None
    return ua.ExtensionObject(kind, content)


def bound_decoders() -> None:
    """Make asyncua's decoders count Nulls, fill up no matrix, and leave structures as they came."""
    if ua_binary.extensionobject_from_binary is not _extension_object:
        ua_binary.Primitives.Null = _CountedNull()
        ua_binary.extensionobject_from_binary = _extension_object
        for cached in ("uatype", "uatype_array", "dataclass", "type", "list"):
            getattr(ua_binary, f"_create_{cached}_deserializer").cache_clear()
        ua_binary.MAX_RESHAPE_ELEMENTS = 10_000


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Turn what asyncua stumbles over in an answer that it decodes itself into UaError."""
    try:
        yield
    except ua.UaError:
        raise
    except (*BROKEN, AttributeError) as error:
        raise ua.UaError(f"{what} of the server cannot be decoded: {why(error)}") from error


def by_asyncua(decoder: Callable[..., Any], *arguments: Any) -> Any:
    """Let asyncua decode; what it stumbles over raises one of `BROKEN`."""
    try:
        return decoder(*arguments)
    except (AttributeError, AssertionError) as error:
        raise ValueError(str(error)) from error


async def decoded(kind: Any, data: Buffer, most: int = AT_MOST) -> Any:
    """Decode an answer; a large one on a thread. UaError: it is not what it should be."""
    try:
        if not isinstance(data, Bounded):
            return struct_from_binary(kind, data)
        try:
            return by_asyncua(struct_from_binary, kind, data.again(AT_ONCE))
        except Spent:
            return await asyncio.to_thread(by_asyncua, struct_from_binary, kind, data.again(most))
    except BROKEN as error:
        raise ua.UaError(
            f"an answer of the server ({kind.__name__}) cannot be decoded: {why(error)}"
        ) from error


def why(error: BaseException) -> str:
    """Return what is wrong with bytes in one line of some words."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
