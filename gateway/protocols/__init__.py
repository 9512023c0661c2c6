"""The one list of protocols; what the YAML does not name is not imported."""

import importlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from gateway.model import Device, ProtocolModule

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


def file_problems(kind: str, device: Device, settings: Any) -> Sequence[str]:
    """Return sentences on the files that these settings name (a CAN database): what a session would run into.

    A module whose protocol reads any has a function `file_problems(device, settings)` beside its Settings.
    """
    judge = getattr(load(kind), "file_problems", None)
    return tuple(judge(device, settings)) if judge is not None else ()


def device_nodes(kind: str, settings: Any) -> Sequence[str]:
    """Return the paths under /dev that are opened with these settings: what the service must be let to.

    A module whose protocol opens any has a function `device_nodes(settings)` beside its Settings. A path that
    is only read may say so: "/dev/piControl0 r".
    """
    named = getattr(load(kind), "device_nodes", None)
    return tuple(named(settings)) if named is not None else ()
