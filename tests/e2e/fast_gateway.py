"""The gateway with a clock that runs 60 times as fast: an hour passes in a minute.

`python -m tests.e2e.fast_gateway run ...` as `python -m gateway run ...`. With BLOCK_FORWARDER set in the
environment a send never comes back, whatever its deadline: the watchdog has to find that.
"""

import asyncio
import os
import sys
import time
from typing import Any

from gateway import __main__ as command_line
from gateway.uploaders import http

SPEED = 60


class FastClock:
    """gateway.clock.Clock, 60 seconds to the second."""

    def __init__(self) -> None:
        self._wall_us, self._start_ns = time.time_ns() // 1000, time.monotonic_ns()

    def wall_us(self) -> int:
        return self._wall_us + self.mono_ns() // 1000

    def mono_ns(self) -> int:
        return (time.monotonic_ns() - self._start_ns) * SPEED

    def synchronised(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / SPEED)


async def _for_ever(*_arguments: Any, **_more: Any) -> Any:
    await asyncio.Event().wait()


if __name__ == "__main__":
    command_line.SystemClock = FastClock  # type: ignore[assignment,misc]  # the one the daemon is handed
    if os.environ.get("BLOCK_FORWARDER"):
        http.Target.send = _for_ever  # type: ignore[method-assign]  # it is to be broken
    sys.exit(command_line.main())
