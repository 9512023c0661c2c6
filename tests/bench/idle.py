"""Print what the whole daemon takes beside a small plant: `python -m tests.bench.idle [SECONDS]` (600).

One OPC UA server with eight variables, a RevPi with four modules, the listener with TLS, as in a fresh
installation. Memory at the end; CPU of the last half, and of the start.
"""

import asyncio
import json
import random
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.process import Taken, taken
from tests.e2e.gateway_process import GatewayProcess, gateway
from tests.e2e.test_edits import plc
from tests.revpi import plant

SECONDS = 600
CONFIG = """\
http: {{listen: "127.0.0.1:{port}"}}
devices:
  line: {{opcua: "opc.tcp://127.0.0.1:{plc}/demo"}}
  box: {{revpi: {{image: "{box.image}", configuration: "{box.rsc}"}}}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def move(box: plant.Box) -> None:
    """A temperature that moves a little twice a second, and a door now and then."""
    while True:
        box.place("InputValue_1", 2000 + random.randrange(5))
        box.place("I_1", random.random() < 0.1)
        await asyncio.sleep(0.5)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[GatewayProcess]:
    """Enter a daemon beside its plant."""
    box = plant.Box(folder, plant.core(105, "Connect"), plant.dio(32), plant.aio(33), plant.mio(34))
    port, at = free_port(), free_port()
    async with plc(port), gateway(folder / "gw", at) as process:
        process.folder.mkdir()
        process.file.write_text(CONFIG.format(port=at, plc=port, box=box))
        moving = asyncio.create_task(move(box))
        await process.start()
        yield process
        moving.cancel()


async def measure(seconds: float) -> tuple[Taken, Taken, Taken]:
    """Return what was taken after a minute or a quarter, at half time, and at the end."""
    early_s = min(60, seconds / 4)
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder)) as process:
            assert process.process is not None
            found = []
            for wait_s in (early_s, seconds / 2 - early_s, seconds / 2):
                await asyncio.sleep(wait_s)
                found.append(taken(process.process.pid))
            said = (await process.run("status", "--state", str(process.state)))[1]
            assert all(part.startswith("running") for part in json.loads(said)["parts"].values()), said
    return found[0], found[1], found[2]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    early, half, end = asyncio.run(measure(seconds))
    share = (end.cpu_s - half.cpu_s) / (seconds / 2)
    sys.stdout.write(
        f"a fresh gateway with one OPC UA and one RevPi device after {seconds:.0f} s: {end.processes} "
        f"process of {end.threads} threads, RSS {end.rss_mib:.1f} MiB ({early.rss_mib:.1f} at first; PSS "
        f"{end.pss_mib:.1f}, its own {end.own_mib:.1f}), {100 * share:.2f} % of a core; {early.cpu_s:.1f} s "
        f"of CPU for the start and the first {min(60, seconds / 4):.0f} s\n"
    )


if __name__ == "__main__":
    main()
