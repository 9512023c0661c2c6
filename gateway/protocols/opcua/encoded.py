"""Requests that are sent again and again: encoded once."""

from dataclasses import dataclass, field
from typing import Any

from asyncua import ua


@dataclass(slots=True)
class Encoded:
    """A request whose parameters were encoded before; only over a connection with the frame guard."""

    type_id: ua.NodeId
    parameters: bytes
    RequestHeader: Any = field(default_factory=ua.RequestHeader)  # asyncua's name
