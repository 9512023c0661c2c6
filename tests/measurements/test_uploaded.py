"""The daemon measures at the simulated STU, and the file arrives at the simulated dataspace by itself."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.measurements import Channel, Plan
from tests.forward.folder import the_only_object
from tests.forward.plant import until
from tests.icotronic.plant import plant
from tests.measurements.node import DEVICE
from tests.measurements.reading import SENSORS
from tests.measurements.test_daemon import YAML, running
from tests.peers.receiver import Receiver, receiver

UPLOADS = """
uploads:
  cloud:
    dataspace: {{url: "{url}", user: hall-3, password: {{file: "{secret}"}}, timeout: 5s, gather: 1h}}
  plain:
    http: "{url}/ingest"
"""


@pytest.mark.timeout(60)
async def test_a_measurement_arrives_at_the_dataspace_whatever_comes_between(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    files, file, secret = tmp_path / "files", tmp_path / "gateway.yaml", tmp_path / "secret"
    await asyncio.to_thread(secret.write_text, "right")
    secret.chmod(0o600)
    async with plant() as stage, receiver(free_port(), tmp_path / "d", started=False) as peer:
        alone = YAML.format(channel=stage.channel, path=files)
        both = alone + UPLOADS.format(url=peer.url, secret=secret)
        await asyncio.to_thread(file.write_text, both)
        async with running(file, tmp_path / "state") as daemon:
            m = await daemon.measurements.start(
                DEVICE, Plan((Channel(1, SENSORS[0]), None, None), duration_s=0.2)
            )
            await daemon.measurements.finished(m.name)
            lane = daemon.uploads["cloud"].files
            assert lane is not None and daemon.uploads["plain"].files is None
            await until(lambda: lane.status.waiting == 1, "queued", 20)
            assert "files of upload cloud" in daemon._status()["parts"]
        await peer.start()
        async with running(file, tmp_path / "state") as daemon:
            await until(lambda: _arrived(peer), "the file", 20)
            lane = daemon.uploads["cloud"].files
            assert lane is not None
            await until(lambda: lane.status.waiting == 0, "settled", 20)
            await asyncio.to_thread(file.write_text, alone)
            assert (await daemon.reload())["ok"] and not daemon.uploads
            await asyncio.to_thread(file.write_text, both)
            assert (await daemon.reload())["ok"]
            lane = daemon.uploads["cloud"].files
            assert lane is not None
            await until(lambda: lane.status.delivered == 1, "looked for at the target, and found", 20)
    md5 = hashlib.md5((files / m.file).read_bytes()).hexdigest()
    async with receiver(free_port(), tmp_path / "d") as again:
        await the_only_object(again, m.file, md5)
        assert [each["stores"] for each in await again.files() if each["name"] == m.file] == [1]


async def _arrived(peer: Receiver) -> bool:
    return any(file["state"] == "available" and file["name"].endswith(".hdf5") for file in await peer.files())
