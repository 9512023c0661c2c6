"""The child process that reads one database or EDS file, so that a broken or hostile one harms nobody.

    python -P -m gateway.protocols.can.reading '{"path": "press.dbc", "encoding": null, "j1939": null}'

It prints one JSON object: {"messages": ..., "notes": ...}, or {"problem": "a sentence"}.
"""

import json
import logging
import os
import resource
import stat
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from gateway.protocols.can.database import Message, Unreadable, packed

DATA_BYTES = 320 * 1024 * 1024
"""Of memory, for some 40,000 signals: the service's MemoryHigh has so much beside the daemon."""
CPU_S = 100
_MOST_FILE_BYTES = 64 * 1024 * 1024
_MOST_ANSWER_BYTES = 24 * 1024 * 1024


def main(request: dict[str, Any]) -> None:
    path = Path(request["path"])
    _limit()
    logging.disable()  # what libraries warn of is told in our words

    def unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Any error at all may come of a broken file, and is a sentence about it."""
        why = f"it takes more than {DATA_BYTES >> 20} MB to read" if kind is MemoryError else ""
        _answer({"problem": f"{path}: {why or f'it cannot be read ({kind.__name__}: {error})'}"})

    sys.excepthook = unexpected
    try:
        messages, notes = _read(path, request)
    except Unreadable as error:
        _answer({"problem": str(error)})
    else:
        _answer({"messages": packed(messages), "notes": notes})


def _read(path: Path, request: dict[str, Any]) -> tuple[list[Message], list[str]]:
    data = _contents(path)
    if "node" in request:
        from gateway.protocols.can import from_eds

        return from_eds.read(path, data, request["name"], request["node"])
    from gateway.protocols.can import from_cantools

    return from_cantools.read(path, data, request["encoding"], j1939=request["j1939"])


def _limit() -> None:
    """Limit this process; where that is refused, the parent's patience and the service's limits remain."""
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.nice(5)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"no limits: {error}\n")


def _contents(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unreadable(f"{path}: this is not a regular file")
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(_MOST_FILE_BYTES + 1)
    except OSError as error:
        remedy = "does the path hold, from the folder of gateway.yaml on?"
        if isinstance(error, PermissionError):
            remedy = "let the service's user (edge-gateway) read it"
        raise Unreadable(f"{path}: {error.strerror}: {remedy}") from error
    if len(data) > _MOST_FILE_BYTES:
        raise Unreadable(f"{path}: it is larger than {_MOST_FILE_BYTES >> 20} MB")
    return data


def _answer(answer: dict[str, Any]) -> None:
    text = json.dumps(answer)
    if len(text) > _MOST_ANSWER_BYTES:
        count = len(answer["messages"])
        text = json.dumps({"problem": f"its {count} messages are too many: save those that the bus has"})
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
