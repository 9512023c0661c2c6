"""The service on a machine that really boots: edits, stops, hangs, power cuts, credentials, devices."""

import time
from pathlib import Path

import pytest

from tests.machine.nspawn import Machine
from tests.machine.test_package import PUSHING, UPLOADING, configure, numbers

STUCK = """\
#!/usr/bin/python3 -IS
import asyncio, os, sys
sys.path.insert(0, "/usr/lib/edge-gateway")
from gateway import __main__, daemon
from gateway.uploaders import http

async def for_ever(*_arguments, **_more):
    await asyncio.Event().wait()

daemon._FORWARDER_LIMIT_S = 3
if not os.path.exists("/var/lib/edge-gateway/was-stuck"):
    open("/var/lib/edge-gateway/was-stuck", "w").close()
    http.Target.send = for_ever
sys.exit(__main__.main())
"""

OPENING = """

_run = run


def device_nodes(settings):
    return ["/dev/node7"]


async def run(device, settings, link):
    open("/dev/node7", "rb").close()
    await _run(device, settings, link)
"""


def values(machine: Machine) -> int:
    """Return how many samples the store has."""
    answer = machine.get("/v1/devices/scale/samples?limit=100000")
    return len(answer["samples"])


def test_a_broken_edit_fails_the_reload_and_values_keep_flowing_over_a_power_cut(
    box: Machine, tmp_path: Path
) -> None:
    configure(box, PUSHING)
    box.sh("systemctl reload edge-gateway")
    pusher = box.client("push", box.token(), str(tmp_path / "acknowledged"))
    time.sleep(1)
    configure(box, PUSHING + "devices2:\n  x: 1\n")
    done = box.run("systemctl", "reload", "edge-gateway", check=False)
    assert done.returncode
    assert "/etc/edge-gateway/gateway.yaml:2:1: " in box.journal()
    before = values(box)
    time.sleep(1)
    assert values(box) > before
    box.cut()
    pusher.kill()
    pusher.wait()
    box.boot()
    box.until("active", 20, "systemctl is-active --quiet edge-gateway")
    pusher = box.client("push", box.token(), str(tmp_path / "acknowledged2"))
    time.sleep(2)
    pusher.kill()
    pusher.wait()
    acknowledged = numbers(tmp_path / "acknowledged") | numbers(tmp_path / "acknowledged2")
    stored = {int(each["value"]) for each in box.get("/v1/devices/scale/samples?limit=100000")["samples"]}
    assert acknowledged <= stored
    assert values(box) >= len(numbers(tmp_path / "acknowledged")) + len(numbers(tmp_path / "acknowledged2"))
    assert "running the last valid configuration" in box.journal()
    assert box.get("/v1/state")["config"]["problems"]


def test_it_stops_within_ten_seconds(box: Machine, tmp_path: Path) -> None:
    configure(box, UPLOADING)
    box.sh("systemctl reload edge-gateway")
    box.client("push", box.token(), str(tmp_path / "acknowledged"))
    time.sleep(1)
    began = time.monotonic()
    box.sh("systemctl stop edge-gateway")
    assert time.monotonic() - began < 10
    assert box.property("Result") == "success"


@pytest.mark.seed_row(45)
def test_a_stopped_process_is_restarted_by_the_watchdog(box: Machine) -> None:
    pid = box.property("MainPID")
    box.sh(f"kill -STOP {pid}")
    # WatchdogSec, TimeoutAbortSec, RestartSec, and what a start takes.
    box.until("restarted", 15 + 3 + 2 + 5, f"test $(systemctl show -P MainPID edge-gateway) -gt {pid} && "
              "systemctl is-active --quiet edge-gateway")  # fmt: skip
    assert "Watchdog timeout" in box.journal()
    assert box.get("/v1/state")["version"]


def test_a_hung_forwarder_is_restarted_by_the_watchdog(box: Machine, tmp_path: Path) -> None:
    (box.root / "usr/local/bin/stuck").write_text(STUCK)
    folder = box.root / "etc/systemd/system/edge-gateway.service.d"
    folder.mkdir()
    (folder / "stuck.conf").write_text("[Service]\nExecStart=\nExecStart=stuck run\n")
    box.sh("chmod 755 /usr/local/bin/stuck")
    configure(box, UPLOADING)
    box.sh("systemctl daemon-reload; systemctl restart edge-gateway")
    pid = box.property("MainPID")
    pusher = box.client("push", box.token(), str(tmp_path / "acknowledged"))
    box.until("restarted", 60, f"test $(systemctl show -P MainPID edge-gateway) -gt {pid} && "
              "systemctl is-active --quiet edge-gateway")  # fmt: skip
    assert "no watchdog ping: the forwarder of upload cloud has not turned over" in box.journal()
    time.sleep(1)
    pusher.kill()
    pusher.wait()
    stored = {int(each["value"]) for each in box.get("/v1/devices/scale/samples?limit=100000")["samples"]}
    assert numbers(tmp_path / "acknowledged") <= stored


def test_a_file_that_was_never_valid_is_not_tried_for_ever(box: Machine) -> None:
    box.sh("systemctl stop edge-gateway; rm -rf /var/lib/edge-gateway")
    configure(box, "devices: [\n")
    box.sh("systemctl start edge-gateway || true; sleep 4")
    assert box.property("ExecMainStatus") == "78"
    assert box.property("ActiveState") == "failed"
    assert "/etc/edge-gateway/gateway.yaml:" in box.journal()


def test_a_credential_is_read_at_start_and_a_reload_says_so(box: Machine) -> None:
    named = UPLOADING.replace(
        '"http://127.0.0.1:8099/ingest"', '{url: "https://127.0.0.1:8099/ingest", token: {credential: cloud}}'
    )
    configure(box, named)
    secret = "s3cr3t-canary"
    box.sh(f"umask 077; echo {secret} > /etc/edge-gateway/secrets/cloud")
    assert box.run("systemctl", "reload", "edge-gateway", check=False).returncode
    assert "restart the service" in box.journal()
    box.sh("edge-gateway check /etc/edge-gateway/gateway.yaml")
    box.sh("systemctl restart edge-gateway")
    assert "cloud" in box.get("/v1/state")["uploads"]
    assert secret not in box.journal()
    assert secret not in box.sh("grep -r . /var/log/edge-gateway || true")
    box.sh("cd /root; edge-gateway support-bundle b.tar.gz; tar -xzf b.tar.gz")
    bundle = box.sh("find /root/b -type f -exec cat {} +")
    assert "Started edge-gateway.service" in bundle
    assert secret not in bundle
    assert box.token() not in bundle


def test_networkd_understands_the_examples_for_can(box: Machine) -> None:
    box.sh("cp /usr/share/edge-gateway/networkd/*.network /etc/systemd/network/")
    box.sh("systemctl restart systemd-networkd")
    assert "/etc/systemd/network/" not in box.journal("systemd-networkd")
    box.sh("echo 'Speed=1' >> /etc/systemd/network/80-can0.network")
    box.sh("systemctl restart systemd-networkd")
    assert "/etc/systemd/network/80-can0.network" in box.journal("systemd-networkd")


def test_a_usb_serial_port_that_is_not_plugged_in_is_allowed_by_its_kind(box: Machine) -> None:
    configure(box, "devices: {bus: {can: {interface: slcan, channel: /dev/ttyACM0, raw_frames: all}}}\n")
    box.sh("edge-gateway systemd-dropin; systemctl restart edge-gateway")
    assert "char-ttyACM rw" in box.sh("systemctl show -P DeviceAllow edge-gateway")
    assert "modprobe@cdc_acm.service" in box.sh("systemctl show -P Wants edge-gateway")
    assert box.sh("systemd-analyze verify edge-gateway.service") == ""
    box.sh("systemd-analyze security --no-pager --threshold=20 edge-gateway.service")
    assert "stale" not in box.sh("edge-gateway check /etc/edge-gateway/gateway.yaml")
    box.until("active", 5, "systemctl is-active --quiet edge-gateway")


def test_a_device_node_is_opened_after_the_drop_in_alone(box: Machine) -> None:
    # The device of FUSE, which each kernel has, stands for a serial port: the sandbox refuses both alike.
    with (box.root / "usr/lib/edge-gateway/gateway/protocols/push.py").open("a") as module:
        module.write(OPENING)
    box.sh("mknod -m 660 /dev/node7 c 10 229; chgrp dialout /dev/node7")
    configure(box, PUSHING)
    box.sh("systemctl restart edge-gateway")
    assert "is stale" in box.sh("edge-gateway check /etc/edge-gateway/gateway.yaml")
    box.until("named", 10, "journalctl -u edge-gateway | grep -q 'sudo edge-gateway systemd-dropin'")
    box.sh("edge-gateway systemd-dropin; systemctl restart edge-gateway")
    assert "stale" not in box.sh("edge-gateway check /etc/edge-gateway/gateway.yaml")
    box.sh("systemd-analyze security --no-pager --threshold=20 edge-gateway.service")
    assert box.sh("systemd-analyze verify edge-gateway.service") == ""
    time.sleep(1)
    assert box.get("/v1/state")["devices"]["scale"]["state"] == "running"
    other = box.sh("systemctl show -P DeviceAllow edge-gateway")
    assert "/dev/node7" in other
    # An allow list beside it: this machine and its loopback stay, and a network that is not in it does not.
    box.sh("edge-gateway systemd-dropin --allow 192.0.2.0/24; systemctl restart edge-gateway")
    assert box.get("/v1/state")["devices"]["scale"]["state"] == "running"
    assert "192.0.2.0/24" in box.sh("systemctl show -P IPAddressAllow edge-gateway")
    assert "stale" not in box.sh("edge-gateway check /etc/edge-gateway/gateway.yaml")
