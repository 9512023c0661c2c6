"""What the unit's drop-in says of a configuration, and who notices that it is stale."""

import shutil
import stat
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import protocols
from gateway.config import Config, load
from gateway.config import dropin as module
from gateway.config.dropin import dropin, hosts, needed, refused_by_sandbox, stale, write
from gateway.model import GatewayError
from gateway.protocols import push

Read = Callable[[str], Config]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def reading(text: str) -> Config:
        file = tmp_path / "gateway.yaml"
        file.write_text(text)
        return load(file, {})

    return reading


@pytest.fixture
def with_nodes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give the `push` protocol device nodes, as one that opens them would have."""

    def give(*nodes: str) -> None:
        monkeypatch.setattr(push, "device_nodes", lambda _settings: nodes, raising=False)

    return give


DEVICES = "devices: {a: {push: {}}, b: {push: {}}}\n"


def test_the_unit_will_do_for_most(read: Read) -> None:
    assert dropin(read("devices: {a: {opcua: 'opc.tcp://plc:4840'}}"), Path("f")) == ""


def test_exactly_the_named_nodes_are_allowed(read: Read, with_nodes: Callable[..., None]) -> None:
    with_nodes("/dev/ttyNONE7", "/dev/piControlNONE r")
    text = dropin(read(DEVICES), Path("/etc/edge-gateway/gateway.yaml"))
    assert text.splitlines()[1:] == [
        "[Service]",
        "PrivateDevices=no",
        "DeviceAllow=/dev/piControlNONE r",
        "DeviceAllow=/dev/ttyNONE7 rw",
        "SupplementaryGroups=dialout",
    ]


def test_a_usb_serial_port_is_allowed_by_its_kind_whether_it_is_there_or_not(
    read: Read, with_nodes: Callable[..., None]
) -> None:
    with_nodes("/dev/ttyACM0", "/dev/serial/by-id/usb-nobody-has-this", "/dev/ttyAMA0")
    assert dropin(read(DEVICES), Path("f")).splitlines()[1:] == [
        "[Unit]",
        "Wants=modprobe@cdc_acm.service",
        "After=modprobe@cdc_acm.service",
        "Wants=modprobe@usbserial.service",
        "After=modprobe@usbserial.service",
        "[Service]",
        "PrivateDevices=no",
        "DeviceAllow=/dev/ttyAMA0 rw",
        "DeviceAllow=char-ttyACM rw",
        "DeviceAllow=char-ttyUSB rw",
        "SupplementaryGroups=dialout",
    ]
    with_nodes("/dev/ttyUSB3")
    lines = needed(read(DEVICES))
    assert "DeviceAllow=char-ttyUSB rw" in lines
    assert not any("/dev/" in line or "ACM" in line for line in lines)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("control", [False, True])
def test_systemd_reads_the_path_of_a_store_as_it_was_written(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, control: bool
) -> None:
    if control:  # the paths as they are: systemd complains
        monkeypatch.setattr(module, "_quoted", lambda path: path)
    unit = tmp_path / "one.service"
    text = dropin(read("""store: '/data/my "store" 100%x/o''clock'\n"""), Path("f"))
    unit.write_text(text + "ExecStart=/bin/true\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert ("one.service" in done.stderr) is control, done.stderr
    assert control or r'ReadWritePaths="-/data/my \"store\" 100%%x/o\'clock"'.replace("\\'", "'") in text


def test_the_group_of_a_node_is_that_which_may_open_it(
    read: Read, with_nodes: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = types.SimpleNamespace(st_gid=20, st_mode=stat.S_IFCHR | 0o660)
    monkeypatch.setattr(module.Path, "stat", lambda _path: found)
    with_nodes("/dev/x")
    assert "SupplementaryGroups=dialout" in needed(read(DEVICES))  # 20 in every Debian
    found.st_mode |= 0o006
    assert not any("Groups" in line for line in needed(read(DEVICES)))


def test_a_store_elsewhere_and_a_low_port(read: Read) -> None:
    lines = needed(read("store: /data/gateway\nhttp: {listen: '0.0.0.0:443'}\n"))
    assert "ReadWritePaths=-/data/gateway" in lines
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in lines
    assert needed(read("store: /var/lib/edge-gateway/store\nhttp: {listen: '0.0.0.0:8443'}")) == []


def test_the_allow_list_names_every_host(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_name_servers", lambda: ["192.0.2.53"])
    config = read(
        "devices: {a: {opcua: 'opc.tcp://127.0.0.1:4840'}}\nuploads: {c: {http: 'https://localhost/x'}}"
    )
    text = dropin(config, Path("f"), ["192.0.2.0/24"])
    assert hosts(config) == ["127.0.0.1", "localhost"]
    allowed = [line for line in text.splitlines() if line.startswith("IPAddress")]
    assert allowed[:4] == [
        "IPAddressDeny=any",
        "IPAddressAllow=localhost",
        "IPAddressAllow=192.0.2.0/24",
        "IPAddressAllow=192.0.2.53",
    ]
    assert "# allowed: localhost = " in text


@pytest.mark.parametrize("network", ["192.168.0.1/24", "x"])
def test_a_network_that_is_none_is_refused(read: Read, network: str) -> None:
    with pytest.raises(GatewayError, match="--allow"):
        dropin(read(DEVICES), Path("f"), [network])


def test_a_stale_drop_in_is_named_with_the_command(
    read: Read, with_nodes: Callable[..., None], tmp_path: Path
) -> None:
    path = tmp_path / "d" / "50.conf"
    config = read(DEVICES)
    assert stale(config, path) == ""
    with_nodes("/dev/ttyNONE7")
    assert "lacks PrivateDevices=no, DeviceAllow=/dev/ttyNONE7 rw" in stale(config, path)
    assert "sudo edge-gateway systemd-dropin" in stale(config, path)
    write(dropin(config, Path("f")), path)
    assert stale(config, path) == ""
    with_nodes()
    assert "too much" in stale(config, path)
    write(dropin(config, Path("f")), path)
    assert not path.exists()


def test_an_allow_list_is_stale_when_a_host_is_new(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "50.conf"
    write(
        dropin(read("devices: {a: {opcua: 'opc.tcp://127.0.0.1:4840'}}"), Path("f"), ["192.0.2.0/24"]), path
    )
    assert stale(read("devices: {a: {opcua: 'opc.tcp://127.0.0.1:4840'}}"), path) == ""
    assert "the address of plc-9" in stale(read("devices: {a: {opcua: 'opc.tcp://plc-9:4840'}}"), path)


@pytest.mark.parametrize(
    ("error", "named"),
    [(PermissionError(1, "no"), True), (FileNotFoundError(2, "no"), True), (OSError(5, "io"), False)],
)
def test_a_refusal_names_the_drop_in(
    error: OSError,
    named: bool,
    read: Read,
    with_nodes: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrapped = GatewayError("it cannot be opened")
    wrapped.__cause__ = error
    settings: Any = push.Settings()
    monkeypatch.setenv("INVOCATION_ID", "x")
    assert refused_by_sandbox(wrapped, "push", settings) == ""
    with_nodes("/dev/ttyNONE7")
    assert ("systemd-dropin" in refused_by_sandbox(wrapped, "push", settings)) is named
    current = tmp_path / "50.conf"
    current.write_text(dropin(read(DEVICES), Path("f")))
    said = refused_by_sandbox(wrapped, "push", settings, current)
    assert ("sudo systemctl restart" in said) is named
    assert "systemd-dropin" not in said
    monkeypatch.delenv("INVOCATION_ID")
    assert refused_by_sandbox(wrapped, "push", settings) == ""


def test_protocols_without_nodes_name_none() -> None:
    assert protocols.device_nodes("push", push.Settings()) == ()
    assert "gateway.protocols.push" in sys.modules
