"""Metadata before and after a measurement: what is text, and what are pictures."""

import json
from collections.abc import Container, Mapping
from typing import Any

PRE, POST = "pre", "post"
MOST_BYTES = 12 * 1024 * 1024
"""Of metadata with its pictures: it waits in the store until the file is written."""
MOST_PICTURES, MOST_PICTURES_BYTES = 1000, 64 * 1024 * 1024
"""Parameters with pictures, and bytes of these in a file: each takes as many as its largest neighbour."""
_NAME_BYTES = 200


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
    _check_pictures(parted(metadata)[1])


def _check_pictures(pictures: Mapping[str, list[bytes]]) -> None:
    if len(pictures) > MOST_PICTURES:
        raise ValueError(
            f"the metadata has {len(pictures)} parameters with pictures, at most {MOST_PICTURES} are kept"
        )
    size = sum(len(texts) * max(map(len, texts)) for texts in pictures.values())
    if size > MOST_PICTURES_BYTES:
        raise ValueError(
            f"the pictures would take {size / 1e6:.1f} MB of the file, at most "
            f"{MOST_PICTURES_BYTES / 1e6:.1f} MB are kept: each takes as much as the largest one of its "
            f"parameter, so send large ones as parameters of their own"
        )


def parted(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """Return the metadata without its pictures, and the pictures by their parameter as a file can name it.

    Pictures are the parameters with "picture" in their name that hold texts by number.
    """
    rest, pictures = dict(metadata), dict[str, list[bytes]]()
    parameters = rest.get("parameters")
    if not isinstance(parameters, Mapping):
        return rest, pictures
    others = dict[str, Any]()
    for key, value in parameters.items():
        texts = list(value.values()) if "picture" in key and isinstance(value, Mapping) else []
        if texts and all(isinstance(text, str) for text in texts):
            pictures[_named(key, pictures)] = [text.encode("utf-8", "replace") for text in texts]
        else:
            others[key] = value
    rest["parameters"] = others
    return rest, pictures


def _named(key: str, taken: Container[str]) -> str:
    """Return a name that HDF5 takes, with a number behind it where another parameter has it."""
    raw = key.replace("/", "_").replace("\0", "_").encode("utf-8", "replace")
    name = raw[:_NAME_BYTES].decode("utf-8", "ignore")
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def as_text(metadata: Mapping[str, Any]) -> str:
    """Return it as JSON that every reader takes: half a character, as JavaScript cuts them, becomes a "?"."""
    whole = json.dumps(metadata, ensure_ascii=False).encode("utf-8", "replace")
    return json.dumps(json.loads(whole))
