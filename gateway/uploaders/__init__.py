"""The one list of uploaders: the kind in the YAML -> the module, imported only when the YAML names it."""

import importlib
from collections.abc import Mapping
from typing import cast

from gateway.model import UploaderModule

UPLOADERS: Mapping[str, str] = {
    "http": "gateway.uploaders.http",
    "dataspace": "gateway.uploaders.dataspace",
}


def load(kind: str) -> UploaderModule:
    """Import the uploader of a kind. KeyError: there is none."""
    return cast(UploaderModule, importlib.import_module(UPLOADERS[kind]))
