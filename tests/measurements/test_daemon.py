"""The daemon measures at the simulated STU, is stopped meanwhile, and finishes the file at its next start."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.clock import SystemClock
from gateway.controls.sensor_nodes import SensorNodes
from gateway.daemon import Daemon
from gateway.measurements import Channel, Plan
from tests.icotronic.plant import SPINDLE, plant
from tests.measurements.node import DEVICE
from tests.measurements.reading import SENSORS, attributes, table

YAML = """
gateway: hall-3
http: {{listen: "127.0.0.1:0", tls: off}}
store: {{commit_interval: 100ms}}
measurements: {path}
devices:
  tools:
    icotronic: {{interface: virtual, channel: {channel}, node: Spindle}}
"""


@asynccontextmanager
async def running(file: Path, state: Path) -> AsyncIterator[Daemon]:
    daemon = await asyncio.to_thread(Daemon, file, state, {}, SystemClock())
    task = asyncio.create_task(daemon.run())
    try:
        while daemon.address is None or DEVICE not in daemon.devices or not await _connected(daemon):
            assert not task.done(), task
            await asyncio.sleep(0.02)
        yield daemon
    finally:
        daemon.stop()
        await task


async def _connected(daemon: Daemon) -> bool:
    control = daemon.devices[DEVICE].control(SensorNodes)  # type: ignore[type-abstract]
    return control is not None and control.connected is not None


async def test_a_measurement_survives_a_restart_of_the_daemon(tmp_path: Path) -> None:
    files, file = tmp_path / "files", tmp_path / "gateway.yaml"
    async with plant() as stage:
        await asyncio.to_thread(file.write_text, YAML.format(channel=stage.channel, path=files))
        async with running(file, tmp_path / "state") as daemon:
            m = await daemon.measurements.start(DEVICE, Plan((Channel(1, SENSORS[0]), None, None)))
            while m.received < 500:
                await asyncio.sleep(0.02)
            assert m.node == SPINDLE and stage.streaming == [SPINDLE]
            assert daemon._status()["parts"]["files of measurements"] == "running"
        assert stage.streaming == [], "the stream is ended at the node"
        async with running(file, tmp_path / "state") as daemon:
            again = await daemon.measurements.finished(m.name)
            assert again.received == m.received and again.ending == "the gateway was stopped"
            rows = table(files / again.file)
            assert len(rows) == 3 * m.received and "interrupted" in attributes(files / again.file)
            short = await daemon.measurements.start(
                DEVICE, Plan((Channel(1), Channel(2), None), duration_s=0.2)
            )
            assert (await daemon.measurements.finished(short.name)).loss == 0
            assert short.gateway == "hall-3" and short.name.startswith("tools__hall-3__")
