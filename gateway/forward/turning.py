"""Waits for work while the watchdog is told that the state machine moves."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.forward.gate import TURN_S

T = TypeVar("T")


async def turning(
    work: Awaitable[T],
    turn: Callable[[], None],
    began: Callable[["asyncio.Task[T]"], None] = lambda _: None,
) -> T:
    """Return what the work returns, or raise what it raises; `began` is given its task, to cancel it."""
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_whole(work))
            began(task)
            while not task.done():
                turn()
                await asyncio.wait([task], timeout=TURN_S)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    turn()
    return task.result()


async def _whole(work: Awaitable[T]) -> T:
    return await work
