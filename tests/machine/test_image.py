"""The container's image: what is in it, and the same smoke test as the package's, with the host's network."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.machine.container import STATE, Container, Containers, why_not

pytestmark = pytest.mark.timeout(900)
IMAGE = "localhost/edge-gateway:test"


@pytest.fixture(scope="module")
def containers(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    if reason := why_not():
        pytest.skip(reason)
    made = Containers(tmp_path_factory.mktemp("containers"))
    try:
        made.build(IMAGE)
        yield made
    finally:
        made.close()


@pytest.fixture
def container(containers: Containers, free_port: Callable[[], int]) -> Iterator[Container]:
    made = Container(containers, IMAGE, f"egw-{os.getpid()}", free_port())
    try:
        yield made
    finally:
        made.close()


def plc(container: Container, port: int) -> str:
    """Start a PLC on the loopback; return the devices that have it."""
    container.beside(sys.executable, "-m", "gateway.demo.plc", "--port", str(port))
    return f'{{press: {{opcua: "opc.tcp://127.0.0.1:{port}/demo"}}}}'


def newest(container: Container) -> int:
    rows = container.get("/v1/devices/press/samples?limit=100000")["samples"]
    return max((row["ts"] for row in rows), default=0)


def until_newer(container: Container, than: int, within_s: float = 30) -> int:
    until = time.monotonic() + within_s
    while (found := newest(container)) <= than:
        assert time.monotonic() < until, container.log()
        time.sleep(0.3)
    return found


@pytest.mark.seed_row(45, "L7")
def test_it_runs_read_only_and_without_rights_and_keeps_store_and_identity_over_a_restart(
    container: Container, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    file = tmp_path / "gateway.yaml"
    devices = plc(container, free_port())
    file.write_text(f"devices: {devices}\n")
    file.chmod(0o644)
    tmp_path.chmod(0o755)
    container.run("--read-only-tmpfs=false", f"--volume={tmp_path}:/etc/edge-gateway:ro")
    container.until_healthy()
    first = until_newer(container, 0)
    status = container.inside("cat", "/proc/1/status").stdout
    assert re.search(r"^Uid:\t10001\t10001\t10001\t10001$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert container.inside("touch", "/usr/x", check=False).returncode
    assert container.inside("touch", "/tmp/x", check=False).returncode
    assert container.inside("stat", "-c", "%a %u", f"{STATE}/admin-token").stdout.split() == ["600", "10001"]
    log, token = container.log(), container.token()
    assert f"{STATE}/admin-token" in log
    assert token not in log
    (fingerprint,) = re.findall(r"SHA-256 fingerprint (\S+)", log)
    assert "<6>" not in log

    file.write_text("devices: [\n")
    reloaded = container.inside("edge-gateway", "reload", "--wait", check=False)
    assert reloaded.returncode
    assert "/etc/edge-gateway/gateway.yaml:" in reloaded.stderr
    assert container.health() == 0
    file.write_text(f"devices: {devices}\ngateway: {{id: other}}\n")
    container.podman("kill", "--signal=HUP")
    time.sleep(1)
    assert "reloaded /etc/edge-gateway/gateway.yaml" in container.log()
    file.write_text(f"devices: {devices}\n")

    identity = container.get("/v1/state")["id"]
    assert container.stop() < 10
    container.podman("start")
    container.until_healthy()
    assert container.get("/v1/state")["id"] == identity
    assert container.token() == token
    assert newest(container) >= first
    until_newer(container, newest(container))
    assert re.findall(r"SHA-256 fingerprint (\S+)", container.log()) == [fingerprint, fingerprint]


def test_the_environment_and_a_secret_configure_it_without_a_file(
    container: Container, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    devices = plc(container, free_port())
    secret = tmp_path / "secrets/cloud"
    secret.parent.mkdir()
    secret.write_text("s3cr3t-canary\n")
    secret.chmod(0o400)
    for each in (secret, secret.parent):
        os.chown(each, 10001, 10001)
    upload = "{cloud: {http: {url: 'https://127.0.0.1:1/x', token: {credential: cloud}}}}"
    container.run(
        f"--env=EDGE_GATEWAY__DEVICES={devices}",
        f"--env=EDGE_GATEWAY__UPLOADS={upload}",
        f"--volume={secret.parent}:/etc/edge-gateway/secrets:ro",
    )
    container.until_healthy()
    until_newer(container, 0)
    assert "cloud" in container.get("/v1/state")["uploads"]
    assert "s3cr3t-canary" not in container.log()


def test_without_a_configuration_it_ends_and_says_what_it_lacks(container: Container) -> None:
    container.run()
    assert container.podman("wait").stdout.strip() == "78"
    assert "there is no such file: write it, or name the devices in the environment" in container.log()


def test_a_process_that_hangs_is_not_healthy(container: Container) -> None:
    container.run("--env=EDGE_GATEWAY__DEVICES={}")
    container.until_healthy()
    pid = int(container.podman("inspect", "--format={{.State.Pid}}").stdout)
    subprocess.run(["kill", "-STOP", str(pid)], check=True)
    assert container.health() == 1
    subprocess.run(["kill", "-CONT", str(pid)], check=True)
    container.until_healthy()


def test_it_says_what_it_is_and_holds_what_the_package_holds(
    containers: Containers, packages: Path, tmp_path: Path
) -> None:
    version = containers.run("dpkg-parsechangelog", "-S", "Version").stdout.strip()
    revision = containers.run("git", "rev-parse", "HEAD").stdout.strip()
    seen = containers.inspect(IMAGE)
    labels = {name.rpartition(".")[2]: text for name, text in seen["Labels"].items()}
    assert (labels["version"], labels["revision"]) == (version, revision)
    assert seen["Config"]["User"] == "10001:10001"
    subprocess.run(["dpkg-deb", "-x", packages / "edge-gateway-deb12.deb", tmp_path], check=True)
    with containers.mounted(IMAGE) as root:
        for tool in ("gcc", "cc", "ld", "make", "pip", "pip3", "perl5.36"):
            assert not (root / "usr/bin" / tool).exists()
        for folder in ("usr/lib/edge-gateway", "usr/share/edge-gateway/sbom.cdx.json"):
            subprocess.run(["diff", "-r", root / folder, tmp_path / folder], check=True)


def test_two_builds_have_the_same_layers(containers: Containers) -> None:
    again = "localhost/edge-gateway:again"
    containers.build(again)
    assert containers.inspect(again)["RootFS"] == containers.inspect(IMAGE)["RootFS"]
