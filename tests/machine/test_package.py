"""The package on machines that really boot: installed, upgraded, refused, removed, purged."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.machine.nspawn import SUITES, Machine

CONFIG = "/etc/edge-gateway/gateway.yaml"
PUSHING = "devices: {scale: {push: {}}}\n"
UPLOADING = PUSHING + 'uploads: {cloud: {http: "http://127.0.0.1:8099/ingest"}}\n'


def package(machine: Machine, kind: str = "edge-gateway") -> str:
    return f"{kind}-{SUITES[machine.suite]}.deb"


def configure(machine: Machine, text: str) -> None:
    (machine.root / CONFIG[1:]).write_text(text)


def push_for(machine: Machine, file: Path, seconds: float) -> None:
    pusher = machine.client("push", machine.token(), str(file))
    time.sleep(seconds)
    pusher.kill()
    pusher.wait()


def numbers(file: Path) -> set[int]:
    return {int(line) for line in file.read_text().splitlines() if line}


def receiver(machine: Machine, folder: Path) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return machine.beside(
        sys.executable, "-m", "gateway.demo.dataspace", "--port", "8099", "--folder", str(folder)
    )


def received(machine: Machine) -> list[int]:
    """Return the values in the receiver's ledger."""
    code = (
        "import json, urllib.request as r; "
        "print([json.loads(x)['value'] for x in r.urlopen('http://127.0.0.1:8099/ledger?show=samples')])"
    )
    asked = machine.beside(sys.executable, "-c", code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    text, _ = asked.communicate(timeout=30)
    return [int(each) for each in text.strip("[]\n").split(",") if each.strip()]


def until_received(machine: Machine, wanted: set[int], within_s: float) -> list[int]:
    until = time.monotonic() + within_s
    while not wanted <= set(got := received(machine)):
        assert time.monotonic() < until, f"{len(wanted - set(got))} of {len(wanted)} did not arrive"
        time.sleep(0.5)
    return got


@pytest.mark.seed_row(45)
def test_installed_without_network_it_runs_and_a_purge_leaves_nothing(bare: Machine) -> None:
    for _ in range(2):
        bare.install(package(bare))
        took_s = bare.until("active", 5, "systemctl is-active --quiet edge-gateway")
        assert took_s < 5
        assert bare.property("SubState") == "running"
        assert bare.property("NRestarts") == "0"
        assert bare.sh("systemd-analyze verify edge-gateway.service") == ""
        bare.sh("systemd-analyze security --no-pager --threshold=13 edge-gateway.service")
        assert bare.get("/v1/state")["version"]
        journal = bare.journal()
        assert "/var/lib/edge-gateway/admin-token" in journal
        assert "SHA-256 fingerprint" in journal
        assert bare.token() not in journal
        assert bare.sh("stat -c '%a %U' /var/lib/edge-gateway/admin-token").split() == ["600", "edge-gateway"]
        assert bare.sh("stat -c '%a %U' /etc/edge-gateway/secrets").split() == ["700", "root"]
        assert bare.sh(f"stat -c '%a %U' {CONFIG}").split() == ["644", "root"]
        assert bare.sh("dpkg-query -W -f '${Conffiles}' edge-gateway").strip() == ""
        bare.until("a log file", 15, "test -s /var/log/edge-gateway/edge-gateway.log")
        bare.sh("apt-get purge -y edge-gateway")
        left = bare.sh("find / -xdev -name '*edge-gateway*' -not -path '/proc/*' -not -path '/packages*' "
                       "-not -path '/var/lib/apt/*' -not -path '/var/cache/*'")  # fmt: skip
        assert left.split() == []


def test_no_file_is_the_owner_s_secret_or_nobody_s(box: Machine) -> None:
    assert box.sh("dpkg --verify edge-gateway; debsums 2>/dev/null || true") == ""
    files = box.sh("dpkg -L edge-gateway").split()
    known = set(box.sh("cat /usr/lib/edge-gateway/*.dist-info/RECORD | cut -d, -f1").split())
    for file in files:
        inside = file.removeprefix("/usr/lib/edge-gateway/")
        if inside == file or "__pycache__" in file or (box.root / file[1:]).is_dir():
            continue
        assert inside in known, f"{file} belongs to no component"


def test_an_upgrade_keeps_the_backlog_the_edit_and_every_acknowledged_sample(
    bare: Machine, tmp_path: Path
) -> None:
    bare.install(package(bare, "older"))
    configure(bare, UPLOADING)
    bare.sh("systemctl reload edge-gateway")
    acknowledged = tmp_path / "acknowledged"
    pusher = bare.client("push", bare.token(), str(acknowledged))
    time.sleep(3)
    token = bare.token()
    bare.install(package(bare))
    bare.until("active", 10, "systemctl is-active --quiet edge-gateway")
    time.sleep(2)
    pusher.kill()
    pusher.wait()
    pushed = numbers(acknowledged)
    assert len(pushed) > 5
    assert (bare.root / CONFIG[1:]).read_text() == UPLOADING
    assert bare.token() == token
    assert "0.0.1" not in bare.sh("dpkg-query -W edge-gateway")
    receiver(bare, tmp_path / "receiver")
    got = until_received(bare, pushed, 60)
    assert len(got) == len(set(got))


def test_a_downgrade_is_refused_with_a_clear_word(box: Machine) -> None:
    pid = box.property("MainPID")
    done = box.install("older-deb12.deb", check=False)
    assert done.returncode
    assert "refusing to go back" in done.stderr + done.stdout
    assert "0.0.1" not in box.sh("dpkg-query -W edge-gateway")
    box.sh("systemctl is-active edge-gateway")
    assert box.property("MainPID") == pid


def test_a_purge_keeps_what_was_not_delivered_for_root_only(box: Machine, tmp_path: Path) -> None:
    configure(box, UPLOADING)
    box.sh("systemctl reload edge-gateway; echo canary > /etc/edge-gateway/secrets/cloud")
    push_for(box, tmp_path / "acknowledged", 2)
    said = box.sh("apt-get purge -y edge-gateway")
    (kept,) = box.sh("ls -d /var/lib/edge-gateway*").split()
    assert f"it was kept, for root only: {kept}" in said
    assert box.sh(f"stat -c '%a %U' {kept}").split() == ["700", "root"]
    assert box.sh(f"find {kept} ! -user root").split() == []
    names = set(box.sh(f"ls -A {kept}").split())
    assert "hot.db" in names
    assert names <= {"hot.db", "hot.db-wal", "hot.db-shm", "history", "gateway-id", "measurements"}
    assert not (box.root / "etc/edge-gateway").exists()
    code = (
        f"import sqlite3; c = sqlite3.connect('{kept}/hot.db'); "
        "print(c.execute('select sum(n) from block').fetchone())"
    )
    held = int(box.sh(f'python3 -c "{code}"').strip("(,)\n"))
    assert held >= len(numbers(tmp_path / "acknowledged")) > 0
    box.install("edge-gateway-deb12.deb")
    box.until("active", 5, "systemctl is-active --quiet edge-gateway")


def test_a_purge_takes_a_store_that_was_delivered(box: Machine, tmp_path: Path) -> None:
    configure(box, UPLOADING)
    receiver(box, tmp_path / "receiver")
    box.sh("systemctl reload edge-gateway")
    push_for(box, tmp_path / "acknowledged", 2)
    until_received(box, numbers(tmp_path / "acknowledged"), 20)
    time.sleep(1)  # the acknowledgement's own commit
    said = box.sh("apt-get remove -y edge-gateway; apt-get purge -y edge-gateway")
    assert "was kept" not in said
    assert box.sh("ls /var/lib").find("edge-gateway") == -1


def test_a_purge_keeps_what_a_restore_moved_aside(box: Machine, tmp_path: Path) -> None:
    configure(box, PUSHING)
    box.sh("systemctl reload edge-gateway")
    push_for(box, tmp_path / "acknowledged", 2)
    box.sh("edge-gateway backup /root/backup && systemctl stop edge-gateway")
    box.sh("edge-gateway restore /root/backup --force && rm -r /var/lib/edge-gateway/hot.db")
    said = box.sh("apt-get purge -y edge-gateway")
    (kept,) = box.sh("ls -d /var/lib/edge-gateway*").split()
    assert f"it was kept, for root only: {kept}" in said
    assert "hot.db" in box.sh(f"ls -A {kept}/replaced-1").split()


def test_a_store_elsewhere_is_purged_without_its_neighbours(box: Machine, tmp_path: Path) -> None:
    box.sh("install -d -o edge-gateway -g edge-gateway /data/store && touch /data/store/mine")
    configure(box, UPLOADING + "store: /data/store\n")
    box.sh("edge-gateway systemd-dropin && systemctl restart edge-gateway")
    receiver(box, tmp_path / "receiver")
    push_for(box, tmp_path / "acknowledged", 2)
    until_received(box, numbers(tmp_path / "acknowledged"), 20)
    time.sleep(1)
    box.sh("apt-get purge -y edge-gateway")
    assert box.sh("ls -A /data/store").split() == ["mine"]


def test_an_undelivered_store_elsewhere_is_kept_beside_its_neighbours(box: Machine, tmp_path: Path) -> None:
    box.sh("install -d -o edge-gateway -g edge-gateway /data/store && touch /data/store/mine")
    configure(box, UPLOADING + "store: /data/store\n")
    box.sh("edge-gateway systemd-dropin && systemctl restart edge-gateway")
    push_for(box, tmp_path / "acknowledged", 2)
    said = box.sh("apt-get purge -y edge-gateway")
    kept, mine = sorted(box.sh("ls -A /data/store").split())
    assert mine == "mine"
    assert f"/data/store/{kept}" in said
    assert "hot.db" in box.sh(f"ls -A /data/store/{kept}").split()
    assert box.sh(f"stat -c '%a %U' /data/store/{kept}").split() == ["700", "root"]


@pytest.mark.parametrize("script", ["postinst configure", "prerm remove", "postrm purge"])
def test_a_maintainer_script_may_be_run_again(box: Machine, script: str) -> None:
    name, *arguments = script.split()
    run = f"/var/lib/dpkg/info/edge-gateway.{name} {' '.join(arguments)}"
    environ = "DPKG_MAINTSCRIPT_PACKAGE=edge-gateway"
    for _ in range(2):
        box.sh(f"{environ} {run}")
    box.sh("apt-get purge -y edge-gateway")
    box.install("edge-gateway-deb12.deb")
    box.until("active", 5, "systemctl is-active --quiet edge-gateway")


def test_an_installation_that_was_cut_is_completed(bare: Machine) -> None:
    # dpkg is killed while it unpacks, and again before the postinst has ended.
    for at in ("Unpacking", "Setting up"):
        said = bare.sh(
            f"dpkg -i /packages/{package(bare)} > /root/log 2>&1 & pid=$!; "
            f"while kill -0 $pid 2>/dev/null && ! grep -sq '{at}' /root/log; do sleep 0.01; done; "
            "kill -9 $pid; cat /root/log"
        )
        assert at in said
    bare.sh("dpkg --configure -a || true")
    bare.sh(f"dpkg -i /packages/{package(bare)}")
    bare.until("active", 5, "systemctl is-active --quiet edge-gateway")
    assert bare.sh("dpkg --audit") == ""
