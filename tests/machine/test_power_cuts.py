"""Power cuts of a whole machine under load: what was acknowledged is there once, here and at the receiver.

Some are whole cuts, one after another: QEMU is killed, and boots from what its disk was left with. More are
of a machine that goes on: what a cut would leave is written into an image, and systemd-nspawn boots that.

CUTS=100 for the full count of the first (half a minute each), CUT_IMAGES=100 of the others (seconds each),
CUT_SEED for the choices of an earlier run.
"""

import http.client
import json
import logging
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.machine import qemu
from tests.machine.nspawn import REPOSITORY, MachineOfImage, booted, machine
from tests.machine.qemu import Box
from tests.machine.test_package import configure

CUTS = int(os.environ.get("CUTS", "3"))
CUT_IMAGES = int(os.environ.get("CUT_IMAGES", "6"))
SEED = int(os.environ.get("CUT_SEED", random.randrange(1 << 32)))
CLIENTS = 4
BATCH = 20
READY_WITHIN_S = 240
CONFIG = """\
store: {{commit_interval: 100ms, chunk_minutes: 15}}
devices: {{scale: {{push: {{}}}}}}
uploads: {{cloud: {{http: "http://{host}:{port}/ingest"}}}}
"""
SCHEMA = "usr/lib/edge-gateway/gateway/store/schema.py"

_log = logging.getLogger(__name__)

pytestmark = [
    pytest.mark.timeout(600 + 150 * CUTS + 60 * CUT_IMAGES),
    pytest.mark.skipif(bool(qemu.why_not()), reason=qemu.why_not()),
]


def value(client: int, number: int) -> int:
    return (number * 7919 + client) % 100_003


class Load:
    """Clients that each push numbered samples, in order, a batch again until it is acknowledged."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.began_us = time.time_ns() // 1000 - 7_200_000_000
        self.sent = [0] * CLIENTS
        self.acknowledged = [0] * CLIENTS
        self.refused: list[str] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._push, args=(each,)) for each in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def ended(self) -> None:
        """Wait until every client has noticed that the machine is gone."""
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive()
        assert not self.refused

    def ts(self, number: int) -> int:
        return self.began_us + 1000 * number

    def _push(self, client: int) -> None:
        with closing(self.box.connect()) as connection:
            while True:
                numbers = range(self.acknowledged[client] + 1, self.acknowledged[client] + 1 + BATCH)
                samples = [
                    {"tag": f"line{client}", "ts": self.ts(n), "value": value(client, n)} for n in numbers
                ]
                self.sent[client] = max(self.sent[client], numbers[-1])
                try:
                    answer = self.box.ask(connection, "/v1/devices/scale/samples", {"samples": samples})
                except qemu.Refused as error:
                    self.refused.append(str(error))
                    return
                except (OSError, http.client.HTTPException):
                    return  # the power is gone
                if answer["moved"] or answer["added"] + answer["same"] != BATCH:
                    self.refused.append(f"client {client}, {numbers}: {answer}")
                self.acknowledged[client] = numbers[-1]

    def look(self, since: list[int]) -> int:
        """Compare what the gateway has, from some numbers on; return how many samples that were."""
        seen = 0
        with closing(self.box.connect()) as connection:
            known = [each["tag"] for each in self.box.ask(connection, "/v1/devices/scale")["tags"]]
            for client in range(CLIENTS):
                found = []
                if f"line{client}" in known:
                    query = f"tags=line{client}&limit=1000000&from={self.ts(since[client] + 1)}"
                    answer = self.box.ask(connection, f"/v1/devices/scale/samples?{query}")
                    found = [(each["ts"], each["value"]) for each in answer["samples"]]
                self.compare(client, found, since[client])
                seen += len(found)
        return seen

    def compare(
        self, client: int, found: list[tuple[int, object]], since: int = 0, acknowledged: int | None = None
    ) -> None:
        held = set(found)
        until = self.acknowledged[client] if acknowledged is None else acknowledged
        wanted = {(self.ts(n), value(client, n)) for n in range(since + 1, until + 1)}
        possible = {(self.ts(n), value(client, n)) for n in range(since + 1, self.sent[client] + 1)}
        assert wanted <= held, f"{len(wanted - held)} acknowledged samples of client {client} are lost"
        assert held <= possible, f"never sent: {sorted(held - possible)[:5]}"
        assert len(found) == len(held), f"{len(found) - len(held)} samples of client {client} are doubled"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[int]:
    """Run the simulated dataspace on this machine; yield its port."""
    port = qemu.free_port()
    command = [
        sys.executable,
        "-m",
        "gateway.demo.dataspace",
        "--port",
        str(port),
        "--folder",
        str(tmp_path / "ledger"),
    ]
    started = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    yield port
    started.send_signal(signal.SIGTERM)
    started.wait()


@pytest.fixture
def installed(packages: Path, tmp_path: Path, receiver: int) -> Iterator[Callable[[str], Box]]:
    """Return a function that makes the machine, after a change of the store's schema.py (or none)."""
    made: list[Box] = []

    def make(synchronous: str) -> Box:
        with machine("bookworm", tmp_path / "m", packages) as nspawn:
            nspawn.install("edge-gateway-deb12.deb")
            nspawn.sh("systemctl stop edge-gateway")
            configure(nspawn, CONFIG.format(host=qemu.HOST, port=receiver))
            module = nspawn.root / SCHEMA
            text = module.read_text()
            assert "synchronous=FULL" in text
            if synchronous != "FULL":
                module.write_text(text.replace("synchronous=FULL", f"synchronous={synchronous}"))
            token = nspawn.token()
            nspawn.shut_down()
            qemu.disk_of(nspawn.root, tmp_path / "disk.img")
        made.append(Box(tmp_path / "disk.img", tmp_path / "box", token))
        return made[-1]

    yield make
    for box in made:
        box.close()


def ready(box: Box) -> float:
    took_s = box.until_ready(READY_WITHIN_S)
    said = box.said()
    assert "Main process exited" not in said, said[-4000:]
    assert not re.search("damaged|set aside|Traceback", said), said[-4000:]
    return took_s


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
        else:
            box.start()
            took_s = ready(box)
            looked = load.look(since)
            since = list(load.acknowledged)
            load.start()
            time.sleep(chance.uniform(0.5, 5))
            cut = box.cut(chance)
            load.ended()
            _log.info("cut %d: ready in %.0f s, %d samples compared, %d acknowledged; the disk: %s",
                      number, took_s, looked, sum(load.acknowledged), cut)  # fmt: skip
    box.start()
    ready(box)
    load.look([0] * CLIENTS)


def left_behind(box: Box, load: Load, chance: random.Random, file: Path) -> list[int]:
    """Write into a file what a power cut would leave; return what had been acknowledged until then."""
    time.sleep(chance.uniform(0, 1.5))
    assert box.disk.hold(60), "nothing was committed in a minute"
    acknowledged = list(load.acknowledged)
    cut = box.disk.leave(file, chance)
    box.disk.go_on()
    _log.info("%d acknowledged; the disk: %s", sum(acknowledged), cut)
    return acknowledged


def examine(image: Path, folder: Path, load: Load, since: list[int], acknowledged: list[int]) -> None:
    """Boot an image, and compare."""
    with booted(MachineOfImage(image, folder)) as found:
        found.until("active", 60, "systemctl is-active --quiet edge-gateway")
        assert not re.search("damaged|set aside|Traceback", journal := found.journal()), journal
        known = [each["tag"] for each in found.get("/v1/devices/scale")["tags"]]
        for client in range(CLIENTS):
            samples = []
            if f"line{client}" in known:
                query = f"tags=line{client}&limit=1000000&from={load.ts(since[client] + 1)}"
                samples = found.get(f"/v1/devices/scale/samples?{query}")["samples"]
            pairs = [(each["ts"], each["value"]) for each in samples]
            load.compare(client, pairs, since[client], acknowledged[client])


def survive_as_images(box: Box, load: Load, chance: random.Random, count: int, folder: Path) -> None:
    """Boot once and push; boot in systemd-nspawn what a cut at so many moments would have left."""
    box.start()
    ready(box)
    load.start()
    before = [0] * CLIENTS
    for number in range(count):
        acknowledged = left_behind(box, load, chance, folder / "left.img")
        with box.paused():
            # All of it now and then, else what came since the last one.
            since = before if number % 10 else [0] * CLIENTS
            examine(folder / "left.img", folder / "left", load, since, acknowledged)
        before = acknowledged
    box.cut(chance)
    load.ended()
    assert min(before) > 0


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
        load.compare(client, delivered(ledger, client))


def test_no_acknowledged_sample_is_missing_in_what_a_cut_would_leave(
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
    with pytest.raises(AssertionError, match="are lost"):
        survive_as_images(box, load, random.Random(1), 3, tmp_path)
