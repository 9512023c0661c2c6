"""The last valid configuration of each configuration file, kept in the state directory."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.durable import write

_FOLDER: Final = "config"
_MARK: Final = b"# environment: "


@dataclass(frozen=True, slots=True)
class Source:
    """What a configuration was read from: the YAML as it was, and the variables laid over it."""

    yaml: bytes
    overrides: Mapping[str, str]


def kept_file(state: Path, file: Path) -> Path:
    """Return where the last good configuration of a file is kept; two files of one name do not meet."""
    name = hashlib.sha256(os.fsencode(os.path.abspath(file))).hexdigest()[:16]  # noqa: PTH100  # links stay
    return state / _FOLDER / f"{name}.yaml"


def keep_good(state: Path, file: Path, source: Source) -> None:
    """Keep a valid configuration, so that it survives a power cut; nothing is written where it is the same.

    OSError: it could not be kept.
    """
    kept = kept_file(state, file)
    content = source.yaml + b"\n" + _MARK + json.dumps(dict(source.overrides)).encode() + b"\n"
    with contextlib.suppress(OSError):
        if kept.read_bytes() == content:
            return
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write(kept, content)


def read_good(state: Path, file: Path) -> Source | None:
    """Return what was kept of a file, None where there is nothing. OSError: it cannot be read."""
    try:
        content = kept_file(state, file).read_bytes()
    except FileNotFoundError:
        return None
    yaml, mark, variables = content.rpartition(b"\n" + _MARK)
    if not mark:
        return Source(content, {})
    try:
        overrides = json.loads(variables)
    except ValueError:
        return Source(content, {})
    return Source(yaml, overrides if _are_texts(overrides) else {})


def _are_texts(overrides: object) -> bool:
    return isinstance(overrides, dict) and all(isinstance(each, str) for each in overrides.values())
