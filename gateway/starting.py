"""A start that the disk holds up: it waits, and says so to systemd and on the control socket."""

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway import control_socket
from gateway.clock import Clock
from gateway.state_files import remember_store
from gateway.supervise import Supervisor
from gateway.systemd import Notifier, watchdog_interval_s

_log = logging.getLogger(__name__)
T = TypeVar("T")
_PASSING: Final = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_AGAIN_S: Final = 1.0
_LOOK_S: Final = 5.0
_PATIENCE_S: Final = 60.0
"""So long systemd waits, and what waits for it: `systemctl restart`, a boot, dpkg with its lock."""


class Start:
    """What of a start needs the disk. Ending would only begin a loop of restarts."""

    def __init__(self, notifier: Notifier, clock: Clock, state: Path) -> None:
        self._notifier, self._clock, self._state = notifier, clock, state
        self._refusing = ""
        self._since_ns = 0

    def refuses(self, sentence: str) -> None:
        """Take note of why the disk does not let the start go on now; "": it does."""
        if sentence and not self._refusing:
            self._since_ns = self._clock.mono_ns()
        self._refusing = sentence

    async def on(self, step: Callable[[], T]) -> T:
        """Run a step in a thread, again each second while the disk refuses."""
        while True:
            try:
                done = await asyncio.to_thread(step)
            except OSError as error:
                if error.errno not in _PASSING:
                    raise
                sentence = f"the state directory {self._state} refuses: {error}"
                if sentence != self._refusing:
                    _log.error("%s; it is tried again each second", sentence)
                self.refuses(sentence)
                await self._clock.sleep(_AGAIN_S)
            else:
                self.refuses("")
                return done

    def remember(self, store: Path) -> None:
        """Note where the store is; one that lies elsewhere works without that. Blocks."""
        try:
            remember_store(self._state, store)
        except OSError as error:
            _log.error("%s cannot note that the store is %s: %s", self._state, store, error.strerror)

    @asynccontextmanager
    async def told(self, supervisor: Supervisor) -> AsyncIterator[None]:
        """While entered, have systemd wait; once the disk refused for a minute, be up without a store."""
        telling = supervisor.start("start", self._tell())
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.wait([telling])

    async def _tell(self) -> None:
        while not self._refused_long():
            await self._notifier.tell("EXTEND_TIMEOUT_USEC=30000000", f"STATUS={self._sentence()}")
            await self._clock.sleep(_LOOK_S)
        await self._notifier.tell("READY=1")
        async with control_socket.listen(self._state, self._answer):
            while True:
                await self._notifier.tell("WATCHDOG=1", f"STATUS={self._sentence()}")
                await self._clock.sleep(watchdog_interval_s() or _LOOK_S)

    def _refused_long(self) -> bool:
        return bool(self._refusing) and self._clock.mono_ns() - self._since_ns >= _PATIENCE_S * 1e9

    def _sentence(self) -> str:
        return self._refusing or "opening the store"

    async def _answer(self, _request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"ok": False, "problems": [f"not started yet: {self._sentence()}"]}
