"""Power cuts of a whole machine under load: what was acknowledged is there once, here and at the receiver.

Some are whole cuts, one after another: QEMU is killed, and boots from what its disk was left with. More are
of a machine that goes on: what a cut would leave is written into an image, and systemd-nspawn boots that.

CUTS=100 for the full count of the first (half a minute each), CUT_IMAGES=100 of the others (seconds each),
CUT_SEED for the choices of an earlier run.
"""

import json
import logging
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.machine import qemu
from tests.machine.load import CLIENTS, Load
from tests.machine.nspawn import REPOSITORY, MachineOfImage, booted, machine
from tests.machine.qemu import Box
from tests.machine.test_package import configure

CUTS = int(os.environ.get("CUTS", "3"))
CUT_IMAGES = int(os.environ.get("CUT_IMAGES", "6"))
SEED = int(os.environ.get("CUT_SEED", random.randrange(1 << 32)))
READY_WITHIN_S = 240
CONFIG = """\
store: {{commit_interval: 100ms, chunk_minutes: 15}}
devices: {{scale: {{push: {{}}}}}}
uploads: {{cloud: {{http: "http://{host}:{port}/ingest"}}}}
"""
SCHEMA = "usr/lib/edge-gateway/gateway/store/schema.py"
SUSPICIOUS = re.compile("damaged|set aside|Traceback|Main process exited")

_log = logging.getLogger(__name__)

pytestmark = [
    pytest.mark.timeout(600 + 150 * CUTS + 60 * CUT_IMAGES),
    pytest.mark.skipif(bool(qemu.why_not()), reason=qemu.why_not()),
]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[int]:
    """Run the simulated dataspace on this machine; yield its port."""
    port = qemu.free_port()
    module = (sys.executable, "-m", "gateway.demo.dataspace")
    started = subprocess.Popen(
        (*module, "--port", str(port), "--folder", tmp_path / "ledger"),
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    yield port
    started.terminate()
    started.wait()


@pytest.fixture
def installed(packages: Path, tmp_path: Path, receiver: int) -> Iterator[Callable[[str], Box]]:
    """Return a function that makes the machine; its store commits with a `synchronous` of its own."""
    made: list[Box] = []

    def make(synchronous: str) -> Box:
        with machine("bookworm", tmp_path / "m", packages) as prepared:
            prepared.install("edge-gateway-deb12.deb")
            prepared.sh("systemctl stop edge-gateway")
            configure(prepared, CONFIG.format(host=qemu.HOST, port=receiver))
            qemu.patient(prepared.root)
            module = prepared.root / SCHEMA
            text = module.read_text()
            assert "synchronous=FULL" in text
            if synchronous != "FULL":
                module.write_text(text.replace("synchronous=FULL", f"synchronous={synchronous}"))
            token = prepared.token()
            prepared.shut_down()
            qemu.disk_of(prepared.root, tmp_path / "disk.img")
        made.append(Box(tmp_path / "disk.img", tmp_path / "box", token))
        return made[-1]

    yield make
    for box in made:
        box.close()


def ready(box: Box) -> float:
    took_s = box.until_ready(READY_WITHIN_S)
    assert not SUSPICIOUS.search(said := box.said()), said[-4000:]
    return took_s


def look(box: Box, load: Load, since: list[int]) -> int:
    """Compare; a machine that emulates on a busy one may be too slow for a handshake, and is asked again."""
    until = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            with closing(box.connect()) as connection:
                return load.check(partial(box.ask, connection), since, load.acknowledged)
        except (OSError, HTTPException, qemu.NotNow):
            if time.monotonic() > until:
                raise


def cut_while_starting(box: Box, chance: random.Random) -> None:
    box.start()
    until = time.monotonic() + READY_WITHIN_S
    while "Starting edge-gateway.service" not in box.said() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(chance.uniform(0, 20))
    box.cut(chance)


def survive(box: Box, load: Load, chance: random.Random, cuts: int) -> None:
    """Boot, look, push, cut, so many times; some cuts fall into a start."""
    since = list(load.acknowledged)
    for number in range(cuts):
        if number % 5 == 4:
            cut_while_starting(box, chance)
            continue
        box.start()
        took_s = ready(box)
        looked = look(box, load, since)
        since = list(load.acknowledged)
        load.start()
        time.sleep(chance.uniform(0.5, 5))
        cut = box.cut(chance)
        load.end()
        _log.info("cut %d: ready in %.0f s, %d samples compared, %d acknowledged; the disk: %s",
                  number, took_s, looked, sum(load.acknowledged), cut)  # fmt: skip
    box.start()
    ready(box)
    look(box, load, [0] * CLIENTS)


def delivered(ledger: Path, client: int) -> list[tuple[int, object]]:
    with closing(sqlite3.connect(ledger)) as db:
        rows = db.execute("SELECT ts, value FROM sample WHERE tag = ?", (f"line{client}",)).fetchall()
    return [(ts, json.loads(text)) for ts, text in rows]


def test_no_acknowledged_sample_is_lost_or_doubled_by_power_cuts(
    installed: Callable[[str], Box], tmp_path: Path
) -> None:
    _log.info("CUT_SEED=%d", SEED)
    box = installed("FULL")
    load = Load(box)
    survive(box, load, random.Random(SEED), CUTS)
    assert min(load.acknowledged) > 0
    ledger = tmp_path / "ledger" / "ledger.db"
    until = time.monotonic() + 120
    while any(len(delivered(ledger, each)) < load.acknowledged[each] for each in range(CLIENTS)):
        assert time.monotonic() < until, "not all of it was delivered"
        time.sleep(1)
    for client in range(CLIENTS):
        load.compare(client, delivered(ledger, client), 0, load.acknowledged[client])


def left_behind(box: Box, load: Load, chance: random.Random, image: Path) -> list[int]:
    """Write what a power cut would leave into an image; return what had been acknowledged until then."""
    time.sleep(chance.uniform(0, 1.5))
    assert box.disk.hold(60), "nothing was committed in a minute"
    acknowledged = list(load.acknowledged)
    cut = box.disk.leave(image, chance)
    box.disk.go_on()
    _log.info("%d acknowledged; the disk: %s", sum(acknowledged), cut)
    return acknowledged


def survive_as_images(box: Box, load: Load, chance: random.Random, count: int, folder: Path) -> None:
    """Boot once and push; boot in systemd-nspawn what a cut at so many moments would have left."""
    box.start()
    ready(box)
    load.start()
    image, before = folder / "left.img", [0] * CLIENTS
    for number in range(count):
        acknowledged = left_behind(box, load, chance, image)
        with box.paused(), booted(MachineOfImage(image, folder / "left")) as found:
            found.until("active", 60, "systemctl is-active --quiet edge-gateway")
            assert not SUSPICIOUS.search(journal := found.journal()), journal
            # All of it now and then, else what came since the last one.
            load.check(found.get, before if number % 10 else [0] * CLIENTS, acknowledged)
        before = acknowledged
    box.cut(chance)
    load.end()
    assert min(before) > 0


def test_no_acknowledged_sample_is_missing_from_what_a_cut_would_leave(
    installed: Callable[[str], Box], tmp_path: Path
) -> None:
    _log.info("CUT_SEED=%d", SEED)
    box = installed("FULL")
    survive_as_images(box, Load(box), random.Random(SEED), CUT_IMAGES, tmp_path)


def test_a_store_that_acknowledges_before_the_disk_has_it_is_told(
    installed: Callable[[str], Box], tmp_path: Path
) -> None:
    box = installed("NORMAL")
    load = Load(box)
    with pytest.raises(AssertionError, match=r"are lost|its WAL is damaged"):  # its shared memory outlived it
        survive_as_images(box, load, random.Random(1), 3, tmp_path)
