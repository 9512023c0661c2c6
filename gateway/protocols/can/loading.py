"""Reads databases and EDS files, each in a child process with limits, and makes one Database of them."""

import asyncio
import json
import os
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gateway.child_process import child_command, child_environment
from gateway.model import DeviceProblem
from gateway.protocols.can.database import Database, Message, id_text, unpacked
from gateway.protocols.can.j1939 import source_of
from gateway.protocols.can.tags import DecodingSettings

_PATIENCE_S = 120.0
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "PYTHON")
_MEMORY = "can databases"

Signature = tuple[int, int, int]
"""Inode, time of change in nanoseconds, size; (0, 0, 0) where there is no file."""


class _File(NamedTuple):
    """A file to read, and how."""

    path: Path
    request: str


class Read(NamedTuple):
    """What a file gave."""

    messages: tuple[Message, ...]
    notes: tuple[str, ...]


async def load(device: str, settings: DecodingSettings, memory: dict[str, Any]) -> Database:
    """Return what the files of a device say. DeviceProblem: one cannot be used.

    `memory` (of the link) keeps what was read: a file is read again where it has changed.
    """
    kept: dict[tuple[_File, Signature], Read] = memory.get(_MEMORY, {})
    used: dict[tuple[_File, Signature], Read] = {}
    for file in _files(settings):
        key = file, await asyncio.to_thread(_signature, file.path)
        used[key] = kept.get(key) or await _read(device, file)
    memory[_MEMORY] = used
    return merged(used.values())


async def signatures(settings: DecodingSettings) -> list[Signature]:
    """Return what the files are now."""
    return [await asyncio.to_thread(_signature, file.path) for file in _files(settings)]


def merged(parts: Iterable[Read]) -> Database:
    """Return one database: of an id that several know the first is taken, names are made unique."""
    by_key: dict[tuple[str, int], Message] = {}
    names: set[str] = set()
    notes: list[str] = []
    for part in parts:
        notes += part.notes
        for each in part.messages:
            message = each
            key = ("id", message.can_id)
            if message.pgn is not None:
                key = ("source", message.pgn << 8 | source_of(message.can_id))
            first = by_key.get(key)
            if first is not None:
                notes.append(_twice(message, first))
                continue
            if message.name in names:
                message = replace(message, name=f"{message.name}_{id_text(message.can_id)}")
            names.add(message.name)
            by_key[key] = message
    return Database(tuple(by_key.values()), tuple(notes))


def _twice(message: Message, first: Message) -> str:
    what = f"id {id_text(message.can_id)}" if message.pgn is None else f"PGN {message.pgn} and source address"
    who = f"{message.file}: message {message.name}"
    return f"{who} is not used: {first.name} of {first.file} has the same {what}"


def _files(settings: DecodingSettings) -> list[_File]:
    how = {"encoding": settings.encoding, "j1939": settings.j1939}
    databases = [_File(path, json.dumps({"path": str(path), **how})) for path in settings.databases]
    nodes = [
        _File(each.eds, json.dumps({"path": str(each.eds), "name": name, "node": each.node}))
        for name, each in settings.canopen.items()
    ]
    return databases + nodes


def _signature(path: Path) -> Signature:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size


async def _read(device: str, file: _File) -> Read:
    answer, ended = b"", 0
    process = await asyncio.create_subprocess_exec(
        *child_command("gateway.protocols.can.reading"), file.request,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in os.environ if name.startswith(_ENVIRONMENT)}
        | child_environment(),
    )  # fmt: skip
    try:
        async with asyncio.timeout(_PATIENCE_S):
            answer, _ = await process.communicate()
            ended = process.returncode or 0
    except TimeoutError:
        ended = -signal.SIGXCPU  # as where its own limit ends it
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    found = await asyncio.to_thread(_understood, answer)
    if isinstance(found, str):
        raise DeviceProblem(f"device {device}: {found or _ending(file.path, ended)}")
    return found


def _understood(answer: bytes) -> Read | str:
    """Return what a file gave, or why it cannot be used; "": the child does not say."""
    try:
        told = json.loads(answer)
    except ValueError:
        return ""
    if "problem" in told:
        return str(told["problem"])
    return Read(unpacked(told["messages"]), tuple(told["notes"]))


def _ending(path: Path, code: int) -> str:
    if code == -signal.SIGXCPU:
        return f"{path}: it takes too long to read: save in it only the messages that the bus has"
    why = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return f"{path}: reading it ended {why}: is it a database of a CAN bus, and not too large?"
