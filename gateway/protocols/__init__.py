"""The one list of protocols; what the YAML does not name is not imported."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from gateway.model import ProtocolModule

PROTOCOLS: Mapping[str, str] = MappingProxyType(
    {
        "opcua": "gateway.protocols.opcua",
        "push": "gateway.protocols.push",
        "revpi": "gateway.protocols.revpi",
    }
)
"""Kind (the key in the YAML) to module path."""


def load(kind: str) -> ProtocolModule:
    """Import the module of a kind. KeyError: there is no such kind."""
    return cast(ProtocolModule, importlib.import_module(PROTOCOLS[kind]))
