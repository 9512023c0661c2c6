"""Runs the simulated CAN bus, with its STU and its press, in a process of its own."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def bus(port: int, control_port: int = 0) -> AsyncIterator[asyncio.subprocess.Process]:
    """Yield it once it is served by socketcand's protocol; whatever runs at the end is killed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.demo.bus", "--port", str(port)),
        *("--control-port", str(control_port)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
