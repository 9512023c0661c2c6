"""The one list of protocols; what the YAML does not name is not imported."""

import importlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from gateway.model import ProtocolModule

PROTOCOLS: Mapping[str, str] = MappingProxyType(
    {
        "can": "gateway.protocols.can",
        "icotronic": "gateway.protocols.icotronic",
        "opcua": "gateway.protocols.opcua",
        "push": "gateway.protocols.push",
        "revpi": "gateway.protocols.revpi",
    }
)
"""Kind (the key in the YAML) to module path."""


def load(kind: str) -> ProtocolModule:
    """Import the module of a kind. KeyError: there is no such kind."""
    return cast(ProtocolModule, importlib.import_module(PROTOCOLS[kind]))


def device_nodes(kind: str, settings: Any) -> Sequence[str]:
    """Return the paths under /dev that are opened with these settings: what the service must be let to.

    A module whose protocol opens any has a function `device_nodes(settings)` beside its Settings. A path that
    is only read may say so: "/dev/piControl0 r".
    """
    named = getattr(load(kind), "device_nodes", None)
    return tuple(named(settings)) if named is not None else ()
