"""What the installed service takes beside one OPC UA server and one CAN bus on which nobody speaks.

In a whole machine, for there are no CAN interfaces elsewhere. It looks at the service's control group. Its
processor is emulated: the share of it is divided by how much longer a loop of Python takes there than here.

IDLE_S=600 for the ten minutes that the figures are promised after.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.machine import qemu
from tests.machine.nspawn import REPOSITORY, Machine, machine
from tests.machine.qemu import HOST, VCAN, Box
from tests.machine.test_package import configure

IDLE_S = int(os.environ.get("IDLE_S", "90"))
MOST_RSS_MB = 100
MOST_SHARE = 0.01
READY_WITHIN_S = 240
CONFIG = f"""\
devices:
  line: {{{{opcua: "opc.tcp://{HOST}:{{port}}/demo"}}}}
  press: {{{{can: {{{{interface: socketcan, channel: {VCAN}, database: /etc/edge-gateway/press.dbc}}}}}}}}
"""
LOOP = """
import time
began, total = time.process_time(), 0
for number in range(1_000_000):
    total += number * number % 7
print("a loop", time.process_time() - began, flush=True)
"""
RESTLESS = """
sh -c 'echo $$ > /sys/fs/cgroup/system.slice/edge-gateway.service/cgroup.procs; while :; do :; done' &
"""
LOOK = """
sleep 30
python3 /usr/local/share/loop.py
group=/sys/fs/cgroup/system.slice/edge-gateway.service
while :; do
  kib=0; processes=0
  for pid in $(cat $group/cgroup.procs); do
    kib=$((kib + $(sed -n 's/^Rss: *\\([0-9]*\\) kB/\\1/p' /proc/$pid/smaps_rollup)))
    processes=$((processes + 1))
  done
  read up _ < /proc/uptime
  echo "taken $up $processes $kib $(sed -n 's/^usage_usec //p' $group/cpu.stat)"
  sleep 10
done
"""
UNIT = """
[Unit]
After=edge-gateway.service
[Service]
ExecStart=/bin/sh /usr/local/share/look.sh
"""

pytestmark = [
    pytest.mark.timeout(900 + 2 * IDLE_S),
    pytest.mark.skipif(bool(qemu.why_not()), reason=qemu.why_not()),
]


class Taken(NamedTuple):
    """Of all processes of the service."""

    up_s: float
    processes: int
    rss_kib: int
    cpu_us: int


@pytest.fixture
def plc() -> Iterator[int]:
    """Run the simulated PLC on this machine; yield its port."""
    port = qemu.free_port()
    command = (sys.executable, "-m", "gateway.demo.plc", "--port", str(port))
    started = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    yield port
    started.terminate()
    started.wait()


@pytest.fixture
def installed(packages: Path, tmp_path: Path, plc: int) -> Iterator[Callable[[str], Box]]:
    """Return a function that makes the machine; `more` is what runs before its look."""
    made: list[Box] = []

    def make(more: str = "") -> Box:
        with machine("bookworm", tmp_path / "m", packages) as prepared:
            prepared.install("edge-gateway-deb12.deb")
            prepared.sh("systemctl stop edge-gateway")
            shutil.copy(REPOSITORY / "gateway/demo/bus/press.dbc", prepared.root / "etc/edge-gateway")
            configure(prepared, CONFIG.format(port=plc))
            look_at_it(prepared, more)
            qemu.patient(prepared.root)
            token = prepared.token()
            prepared.shut_down()
            qemu.disk_of(prepared.root, tmp_path / "disk.img")
        made.append(Box(tmp_path / "disk.img", tmp_path / "box", token))
        return made[-1]

    yield make
    for box in made:
        box.close()


def look_at_it(prepared: Machine, more: str) -> None:
    share = prepared.root / "usr/local/share"
    share.mkdir(parents=True, exist_ok=True)
    (share / "loop.py").write_text(LOOP)
    (share / "look.sh").write_text(more + LOOK)
    (prepared.root / "etc/systemd/system/look.service").write_text(UNIT)
    wants = prepared.root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "look.service").symlink_to("../look.service")


def looks(box: Box) -> list[Taken]:
    found = re.findall(r"taken ([\d.]+) (\d+) (\d+) (\d+)", box.said())
    return [Taken(float(up), int(processes), int(kib), int(us)) for up, processes, kib, us in found]


def looked_at(box: Box, idle_s: float) -> tuple[Taken, float]:
    """Return the last look, and the share of a core of this machine that it took since half time."""
    box.start()
    box.until_ready(READY_WITHIN_S)
    until = time.monotonic() + READY_WITHIN_S + 2 * idle_s
    while not (found := looks(box)) or found[-1].up_s - found[0].up_s < idle_s:
        assert time.monotonic() < until, box.said()[-4000:]
        time.sleep(1)
    half, end = found[len(found) // 2], found[-1]
    emulated, slower = (end.cpu_us - half.cpu_us) / 1e6 / (end.up_s - half.up_s), times_slower(box)
    sys.stdout.write(
        f"after {end.up_s:.0f} s: {end.processes} process, RSS {end.rss_kib * 1.024e-3:.1f} MB, "
        f"{100 * emulated:.1f} % of an emulated core, which is {slower:.1f} times slower than this one: "
        f"{100 * emulated / slower:.2f} %\n"
    )
    return end, emulated / slower


def times_slower(box: Box) -> float:
    here = subprocess.run(["/usr/bin/python3", "-c", LOOP], check=True, capture_output=True, text=True).stdout
    there = re.search(r"a loop [\d.]+", box.said())
    assert there
    return float(there[0].split()[-1]) / float(here.split()[-1])


def test_one_opcua_server_and_an_idle_can_bus(installed: Callable[[str], Box]) -> None:
    box = installed("")
    end, share = looked_at(box, IDLE_S)
    with closing(box.connect()) as connection:
        devices = box.ask(connection, "/v1/devices")["devices"]
    states = {each["id"]: each["health"]["state"] for each in devices}
    assert states == {"line": "running", "press": "degraded"}, "a bus on which nobody speaks is told"
    assert end.rss_kib * 1024 <= MOST_RSS_MB * 1e6
    assert share <= MOST_SHARE


def test_a_process_of_the_service_that_does_not_rest_is_seen(installed: Callable[[str], Box]) -> None:
    _, share = looked_at(installed(RESTLESS), 30)
    assert share > MOST_SHARE
