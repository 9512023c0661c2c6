"""`make demo` does the main job: values of the simulated PLC on the API and in the simulated dataspace."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


async def test_the_demo_brings_values_from_the_plc_to_the_dataspace(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "demo", "--folder", str(tmp_path / "demo"), "--seconds", "15"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 80)
    said = output.decode()
    assert process.returncode == 0, said
    assert re.search(r"dashboard +http://127\.0\.0\.1:\d+/", said)
    stored, delivered = map(int, re.findall(r"(\d+) samples stored +(\d+) in the dataspace", said)[-1])
    assert stored > 100, said
    assert delivered > 50, said
    for device, tags in (
        ("press", {"PressStatus.Force", "PressTemperatures.Oil"}),
        ("tools", {"vibration", "battery"}),
    ):
        exported = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "export", "--device", device),
            *("--state", str(tmp_path / "demo" / "state")),
            stdout=asyncio.subprocess.PIPE,
        )
        rows, _ = await asyncio.wait_for(exported.communicate(), 30)
        assert tags <= {row.split(",")[1] for row in rows.decode().splitlines()}, said
    assert "ERROR" not in (tmp_path / "demo" / "gateway.log").read_text()
