"""Calls of drivers, each in a thread of its own: they may take long, or never come back.

The executor that asyncio shares may be full of what waits for a disk, and the end of the process waits for
every thread of concurrent.futures.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def in_thread(name: str, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> "asyncio.Future[_T]":
    """Begin a call in a new thread, for which nothing waits at the end; return what will hold its outcome."""
    outcome = _Outcome[_T]()

    def work() -> None:
        with outcome:
            outcome.result = call(*args, **kwargs)

    threading.Thread(target=work, name=name, daemon=True).start()
    return outcome.future


class _Outcome(Generic[_T]):
    """Hands over to the event loop what its body returned or raised."""

    result: _T

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[_T] = self._loop.create_future()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, error)
        return True

    def _settle(self, error: BaseException | None) -> None:
        if self.future.cancelled():
            return
        if error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(error)
