"""How a child process of ours is started: with the modules that this one runs with."""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Protocol, TypeVar


class Child(Protocol):
    """A process that was started."""

    def kill(self) -> None:
        """End it now."""

    def close(self) -> None:
        """Wait for its end. Blocks."""


C = TypeVar("C", bound=Child)


def child_command(module: str) -> tuple[str, ...]:
    """Return the command that runs a module of ours."""
    return sys.executable, "-P", "-m", module


def child_environment() -> dict[str, str]:
    """Return what the command needs to find our modules: the package's launcher alone knows their folder."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


async def started(start: Callable[[], C]) -> C:
    """Start a child in a thread; it ends where whoever starts it is cancelled meanwhile."""
    made: list[C] = []
    gone: list[bool] = []

    def make() -> C:
        made.append(start())
        if gone:
            _end(made[0])
        return made[0]

    try:
        return await asyncio.to_thread(make)
    except asyncio.CancelledError:
        gone.append(True)  # first this, then the look: one of the two sees the other
        if made:
            await asyncio.shield(asyncio.to_thread(_end, made[0]))
        raise


def _end(child: Child) -> None:
    child.kill()
    child.close()
