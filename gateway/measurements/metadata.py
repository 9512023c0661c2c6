"""Metadata before and after a measurement: what is text, and what are pictures."""

import json
from collections.abc import Mapping
from typing import Any

PRE, POST = "pre", "post"
MOST_BYTES = 12 * 1024 * 1024
"""Of metadata with its pictures: it waits in the store until the file is written."""


def check(metadata: Mapping[str, Any]) -> None:
    """Raise ValueError, with a sentence, where it cannot be kept."""
    try:
        size = len(json.dumps(metadata))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the metadata is no JSON: {error}") from error
    if size > MOST_BYTES:
        raise ValueError(
            f"the metadata has {size / 1e6:.1f} MB, at most {MOST_BYTES / 1e6:.1f} MB are kept: send smaller "
            f"pictures"
        )


def parted(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """Return the metadata without its pictures, and the pictures by their parameter.

    Pictures are the parameters with "picture" in their name that hold texts by number.
    """
    rest, pictures = dict(metadata), dict[str, list[bytes]]()
    parameters = rest.get("parameters")
    if not isinstance(parameters, Mapping):
        return rest, pictures
    for key, value in parameters.items():
        if "picture" in key and isinstance(value, Mapping) and value:
            texts = list(value.values())
            if all(isinstance(text, str) for text in texts):
                pictures[key.replace("/", "_")] = [text.encode("utf-8", "replace") for text in texts]
    rest["parameters"] = {
        key: value for key, value in parameters.items() if key.replace("/", "_") not in pictures
    }
    return rest, pictures
