"""A ring of boxes: upgraded, gone back where it got worse, stopped where a box cannot be reached."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.machine.conftest import variant
from tests.machine.nspawn import REPOSITORY, Machine
from tests.machine.test_package import UPLOADING, configure, numbers, receiver

DEPLOY = REPOSITORY / ".github/deploy/deploy.py"
INTO = "nsenter -t {box} -m -u -i -n -p -C -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin"
MARK = "~deb12_amd64.deb"
LIB = "usr/lib/edge-gateway/gateway"
NOBODY = str(2**22 - 2)
"""A process that is not there: a box that cannot be reached."""
MIGRATION = """

def _further(db):
    db["further"].create({"id": int}, pk="id")


MIGRATIONS = (*MIGRATIONS, _further)
"""


def append(file: str, text: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        with (root / LIB / file).open("a") as module:
            module.write(text)

    return edit


def unwell(root: Path) -> None:
    state = root / LIB / "api/state.py"
    text = state.read_text()
    state.write_text(
        text.replace('return json_answer({"status": "alive"})', "raise web.HTTPServiceUnavailable")
    )
    assert state.read_text() != text


def deaf(root: Path) -> None:
    append("protocols/push.py", "\n\nasync def run(device, settings, link):\n    raise OSError('deaf')\n")(
        root
    )


def hanging(root: Path) -> None:
    code = (
        "\n\nasync def _for_ever(*_a, **_m):\n    await asyncio.Event().wait()\n\n\nTarget.send = _for_ever\n"
    )
    append("uploaders/http.py", "\nimport asyncio\n" + code)(root)


def further(root: Path) -> None:
    append("store/schema.py", MIGRATION)(root)


def further_and_deaf(root: Path) -> None:
    further(root)
    deaf(root)


def ending(root: Path) -> None:
    postinst = root / "DEBIAN/postinst"
    postinst.write_text(postinst.read_text() + "\necho 'it cannot be configured'; exit 7\n")


@pytest.fixture(scope="module")
def now(packages: Path) -> Path:
    return packages / "edge-gateway-deb12.deb"


@pytest.fixture(scope="module")
def before(now: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package that the box has: 0.0.5."""
    made = tmp_path_factory.mktemp("before") / f"edge-gateway_0.0.5{MARK}"
    variant(now, made, "0.0.5~deb12", lambda root: None)
    return made


class Ring:
    """One box with values flowing, the packages for it, and what the deployment said."""

    def __init__(self, box: Machine, now: Path, folder: Path) -> None:
        self.box, self.folder = box, folder
        self.new, self.previous = folder / "new", folder / "previous"
        for each in (self.new, self.previous):
            each.mkdir(parents=True)
        self.acknowledged = folder / "acknowledged"
        self._now = now

    def package(self, folder: Path, version: str, edit: Callable[[Path], None], form: str = "") -> None:
        variant(self._now, folder / f"edge-gateway_{version}{MARK}", f"{version}~deb12", edit, form)

    def deploy(self, *boxes: str) -> tuple[int, str]:
        file = self.folder / "ring.txt"
        file.write_text(
            "# the boxes\n" + "".join(f"{box}\n" for box in boxes or (str(self.box.leader()), NOBODY))
        )
        command = [
            sys.executable,
            DEPLOY,
            "--ring",
            file,
            "--packages",
            self.new,
            "--previous",
            self.previous,
        ]
        limits = ["--remote", INTO, "--well", "40", "--settle", "4"]
        done = subprocess.run([*map(str, command), *limits], capture_output=True, text=True, timeout=280)
        return done.returncode, done.stdout + done.stderr + self.box.journal("edge-gateway-deploy")[-6000:]

    def version(self) -> str:
        return self.box.sh("dpkg-query -W -f '${Version} ${db:Status-Status}' edge-gateway")

    def stored(self) -> set[int]:
        rows = self.box.get("/v1/devices/scale/samples?limit=100000")["samples"]
        return {int(row["value"]) for row in rows}

    def values_flow(self) -> bool:
        before = numbers(self.acknowledged)
        until = time.monotonic() + 15
        while time.monotonic() < until:
            if len(numbers(self.acknowledged)) > len(before) + 5:
                return True
            time.sleep(0.2)
        return False


@pytest.fixture
def ring(boot: Callable[[str], Machine], now: Path, before: Path, tmp_path: Path) -> Iterator[Ring]:
    """Yield a ring whose box has 0.0.5, with values that come in and go out."""
    box = boot("bookworm")
    made = Ring(box, now, tmp_path / "deploy")
    shutil.copy(before, made.previous)
    shutil.copy(before, box.root / "root/before.deb")
    box.sh("apt-get install -y /root/before.deb")
    configure(box, UPLOADING)
    receiver(box, tmp_path / "receiver")
    box.sh("systemctl reload edge-gateway")
    box.client("push", box.token(), str(made.acknowledged))
    box.until("a delivery", 20, "edge-gateway status | grep -q '\"cloud\": [1-9]'")
    yield made


@pytest.mark.seed_row("L7")
def test_a_good_package_is_taken_and_the_next_box_that_is_away_stops_the_ring(ring: Ring) -> None:
    ring.package(ring.new, "0.0.6", lambda root: None)
    code, said = ring.deploy(str(ring.box.leader()), NOBODY, "pi@never-tried")
    assert re.search(r"^\d+: upgraded, has 0\.0\.6~deb12, ", said), said
    assert code == 1
    assert f"{NOBODY}: failed" in said
    assert "cannot be reached" in said
    assert f"the ring stops at {NOBODY}; boxes not tried: pi@never-tried" in said
    assert ring.version() == "0.0.6~deb12 installed"
    assert ring.values_flow()
    assert numbers(ring.acknowledged) - {max(numbers(ring.acknowledged))} <= ring.stored()
    # Once more: nothing to do; and it keeps the way back by itself, without --previous.
    code, said = ring.deploy(str(ring.box.leader()))
    assert code == 0, said
    assert ": unchanged, has 0.0.6~deb12" in said
    for each in (*ring.new.iterdir(), *ring.previous.iterdir()):
        each.unlink()
    ring.package(ring.new, "0.0.7", unwell)
    code, said = ring.deploy()
    assert code == 1
    assert ": rolled back, has 0.0.6~deb12" in said


@pytest.mark.seed_row("L7")
@pytest.mark.parametrize(
    ("edit", "form", "why"),
    [
        (unwell, "", "/healthz does not answer: HTTP Error 503"),
        (hanging, "", "upload cloud: nothing comes through any more"),
        (ending, "", "it cannot be configured"),
        (further_and_deaf, "hot3", "device scale was running, now: failed: "),
    ],
)
def test_a_bad_package_is_left_again_and_nothing_is_lost(
    ring: Ring, edit: Callable[[Path], None], form: str, why: str
) -> None:
    token = ring.box.token()
    ring.package(ring.new, "0.0.6", edit, form)
    until_then = numbers(ring.acknowledged)
    code, said = ring.deploy()
    assert code == 1
    assert re.search(r"^\d+: rolled back, has 0\.0\.5~deb12, ", said), said
    assert why in said
    assert f"boxes not tried: {NOBODY}" in said
    assert ring.version() == "0.0.5~deb12 installed"
    assert ring.box.sh("systemctl is-active edge-gateway; systemctl is-enabled edge-gateway").split() == [
        "active",
        "enabled",
    ]
    assert ring.box.token() == token
    assert ring.values_flow()
    stored = ring.stored()
    assert until_then <= stored
    lost = numbers(ring.acknowledged) - {max(numbers(ring.acknowledged))} - stored
    aside = ring.box.sh("ls /var/lib/edge-gateway").split()
    if not form:
        assert not lost
        assert "replaced-1" not in aside
        return
    # What came in between the backup and the way back is set aside, and the hole is recorded.
    assert "replaced-1" in aside
    held = ring.box.sh(
        "python3 -c \"import sqlite3; print(sqlite3.connect('file:/var/lib/edge-gateway/replaced-1/hot.db"
        "?mode=ro', uri=True).execute('select sum(n) from block').fetchone()[0])\""
    )
    assert int(held) >= len(lost)
    assert any("restored from a backup" in gap["reason"] for gap in ring.box.get("/v1/gaps")["gaps"])
    assert ring.box.sh("ls /var/lib/edge-gateway-deploy").split() == ["box.py", "installed.deb", "new.deb",
                                                                      "result.json"]  # fmt: skip


def test_a_store_that_went_on_without_its_package_saying_so_is_called_broken(ring: Ring) -> None:
    # The control of the test before: without another Store-Form nothing is restored, and the way back fails.
    ring.package(ring.new, "0.0.6", further_and_deaf)
    code, said = ring.deploy()
    assert code == 1
    assert ": broken, has 0.0.5~deb12" in said
    assert "going back to 0.0.5~deb12 failed" in said


def test_a_way_back_that_was_cut_is_gone_to_its_end_before_anything_else(ring: Ring) -> None:
    box = ring.box
    ring.package(ring.new, "0.0.6", further, "hot3")
    (bad,) = ring.new.iterdir()
    shutil.move(bad, box.root / "root/bad.deb")
    # What a power cut leaves: the package before is there again, the store is still that of the new one.
    box.sh(
        "install -d /var/lib/edge-gateway-deploy/backup; cd /var/lib/edge-gateway-deploy; "
        "cp /root/before.deb installed.deb; edge-gateway backup backup/store; "
        "dpkg -i /root/bad.deb; sleep 3; "
        "EDGE_GATEWAY_ALLOW_DOWNGRADE=1 dpkg -i /root/before.deb"
    )
    until_then = min(numbers(ring.acknowledged))
    box.until(
        "it cannot read the store", 20, "journalctl -u edge-gateway | grep -q 'made by a newer edge-gateway'"
    )
    ring.package(ring.new, "0.0.7", lambda root: None)
    code, said = ring.deploy()
    assert code == 1
    assert ": rolled back, has 0.0.5~deb12" in said
    assert "an earlier way back had not ended" in said
    assert ring.values_flow()
    assert until_then in ring.stored()
    code, said = ring.deploy(str(box.leader()))
    assert ": upgraded, has 0.0.7~deb12" in said


def test_without_a_way_back_nothing_is_changed(ring: Ring) -> None:
    ring.package(ring.new, "0.0.6", lambda root: None)
    pid = ring.box.property("MainPID")
    (before,) = ring.previous.iterdir()
    before.rename(ring.previous / f"edge-gateway_0.0.4{MARK}")
    code, said = ring.deploy()
    assert code == 1
    assert "previous has 0 packages edge-gateway_0.0.5~deb12_amd64.deb" in said
    # One that is of another version than its name says is found out on the box.
    (ring.previous / f"edge-gateway_0.0.4{MARK}").unlink()
    ring.package(ring.previous, "0.0.4", lambda root: None)
    (ring.previous / f"edge-gateway_0.0.4{MARK}").rename(before)
    code, said = ring.deploy()
    assert code == 1
    assert ": refused, has 0.0.5~deb12" in said
    assert "there is no package of 0.0.5~deb12 to go back to" in said
    assert ring.box.property("MainPID") == pid


def test_an_older_package_is_refused_and_the_service_goes_on(ring: Ring) -> None:
    pid = ring.box.property("MainPID")
    ring.package(ring.new, "0.0.4", lambda root: None)
    code, said = ring.deploy()
    assert code == 1
    assert ": refused, has 0.0.5~deb12" in said
    assert "is older than 0.0.5~deb12" in said
    assert ring.version() == "0.0.5~deb12 installed"
    assert ring.values_flow()
    assert ring.box.property("MainPID") == pid


def test_a_power_cut_during_the_watch_does_not_keep_the_next_package_out(ring: Ring) -> None:
    box = ring.box
    ring.package(ring.new, "0.0.6", lambda root: None)
    code, said = ring.deploy(str(box.leader()))
    assert ": upgraded, has 0.0.6~deb12" in said
    # What is left where the watch over 0.0.6 was cut; and there is no release of it to go back to.
    box.sh("cd /var/lib/edge-gateway-deploy; mv installed.deb new.deb; cp /root/before.deb installed.deb")
    for each in (*ring.new.iterdir(), *ring.previous.iterdir()):
        each.unlink()
    ring.package(ring.new, "0.0.7", lambda root: None)
    box.sh("systemd-run --quiet --collect --unit=edge-gateway-deploy sleep 600")
    code, said = ring.deploy(str(box.leader()))
    assert code == 1
    assert "an earlier deployment is at work there" in said
    box.sh("systemctl stop edge-gateway-deploy")
    code, said = ring.deploy(str(box.leader()))
    assert code == 0, said
    assert ": upgraded, has 0.0.7~deb12" in said
    assert ring.values_flow()
