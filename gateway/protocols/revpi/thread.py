"""A thread for calls that may hang in a driver."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")


class DriverThread:
    """Does one call after another. A daemon: one that hangs does not keep the process from ending.

    The threads of an executor are waited for at the end of the interpreter, whatever they do.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, work: Callable[..., T], *arguments: object) -> "Future[T]":
        """Have a call done behind those that wait; what it raises is the future's."""
        future: Future[T] = Future()

        def call() -> None:
            if future.set_running_or_notify_cancel():
                with _Raising(future):
                    future.set_result(work(*arguments))

        self._calls.put(call)
        return future

    def end(self) -> None:
        """End it behind what it still has to do. Nobody waits."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class _Raising:
    """What is raised within is the future's."""

    def __init__(self, future: "Future[T]") -> None:
        self._set_exception = future.set_exception

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None:
            self._set_exception(error)
        return True
