"""An upgrade to a package whose store has another form, killed while it changes the form; and back."""

import random
import time
from pathlib import Path

from gateway.store import schema
from tests.machine.conftest import variant
from tests.machine.nspawn import Machine
from tests.machine.test_package import (
    UPLOADING,
    configure,
    numbers,
    receiver,
    until_received,
)

KILLS_IN_EACH = 4
NEXT = len(schema.MIGRATIONS) + 2
BLOCKS = 40
CONFIG = UPLOADING + "store: {commit_interval: 50ms}\n"
STATE = "var/lib/edge-gateway"
# No released version has an older form of the store. So this is a next version: what is shipped now, and two
# more migrations, killed at each row that a file names.
MIGRATIONS = """

import hashlib
import os
import signal


def _may_be_killed(step, row):
    try:
        os.unlink(f"/var/lib/edge-gateway/kill-at-{step}-{row}")
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _first_of_next(db):
    db["digest"].create({"seq": int, "sha256": bytes}, pk="seq")
    for row, (seq, data) in enumerate(db.execute("SELECT seq, data FROM block").fetchall()):
        db.execute("INSERT INTO digest VALUES (?, ?)", (seq, hashlib.sha256(data).digest()))
        _may_be_killed(1, row)


def _second_of_next(db):
    _may_be_killed(2, "begin")
    db["digest_of_block"].create({"seq": int, "hex": str}, pk="seq")
    for row, (seq, digest) in enumerate(db.execute("SELECT seq, sha256 FROM digest").fetchall()):
        db.execute("INSERT INTO digest_of_block VALUES (?, ?)", (seq, digest.hex()))
        _may_be_killed(2, row)
    db["digest"].drop()
    _may_be_killed(2, "end")


MIGRATIONS += (_first_of_next, _second_of_next)
"""
LOOK = """
import hashlib, sqlite3
db = sqlite3.connect("file:/var/lib/edge-gateway/hot.db?mode=ro", uri=True)
rows = db.execute("SELECT hex, data FROM digest_of_block JOIN block USING (seq)").fetchall()
assert all(digest == hashlib.sha256(data).hexdigest() for digest, data in rows)
print(db.execute("PRAGMA user_version").fetchone()[0], len(rows))
"""


def make_next(packages: Path) -> None:
    def change(folder: Path) -> None:
        with (folder / "usr/lib/edge-gateway/gateway/store/schema.py").open("a") as module:
            module.write(MIGRATIONS)

    shipped = packages / "edge-gateway-deb12.deb"
    variant(shipped, packages / "next-deb12.deb", "99.0", change)


def push(machine: Machine, file: Path, count: int) -> None:
    """Push until so many samples were acknowledged, each committed before the next was sent."""
    pusher = machine.client("push", machine.token(), str(file))
    until = time.monotonic() + 60
    while not file.exists() or len(numbers(file)) < count:
        assert time.monotonic() < until
        time.sleep(0.1)
    pusher.kill()
    pusher.wait()


def test_an_upgrade_killed_in_its_migrations_loses_nothing_and_there_is_no_way_back(
    box: Machine, packages: Path, tmp_path: Path
) -> None:
    make_next(packages)
    configure(box, CONFIG)
    box.sh("systemctl restart edge-gateway")
    push(box, tmp_path / "before", BLOCKS)
    chance = random.Random(4)
    rows = {(step, row) for step in (1, 2) for row in chance.sample(range(BLOCKS), KILLS_IN_EACH)}
    kills = rows | {(2, "begin"), (2, "end")}
    for step, row in kills:
        (box.root / STATE / f"kill-at-{step}-{row}").touch()
    box.install("next-deb12.deb")  # the first kill is while apt waits for the service
    box.until("active", 120, "systemctl is-active --quiet edge-gateway")
    assert not list((box.root / STATE).glob("kill-at-*"))
    assert box.sh("dpkg --audit") == ""
    assert int(box.property("NRestarts")) >= len(kills) - 1
    version, digests = map(int, box.sh(f"python3 -c '{LOOK}'").split())
    assert version == NEXT
    assert digests >= BLOCKS
    assert "damaged" not in box.journal()
    assert not any("damaged" in gap["reason"] for gap in box.get("/v1/gaps")["gaps"])

    refused = box.install("edge-gateway-deb12.deb", check=False)
    assert refused.returncode
    assert "refusing to go back" in refused.stderr + refused.stdout
    box.sh(
        "EDGE_GATEWAY_ALLOW_DOWNGRADE=1 dpkg -i --force-downgrade /packages/edge-gateway-deb12.deb || true"
    )
    box.until(
        "said", 20, f"journalctl -u edge-gateway | grep -q 'version {NEXT}, made by a newer edge-gateway'"
    )
    box.install("next-deb12.deb")
    box.until("active", 60, "systemctl is-active --quiet edge-gateway")

    push(box, tmp_path / "after", 5)
    pushed = numbers(tmp_path / "before"), numbers(tmp_path / "after")
    stored = [int(each["value"]) for each in box.get("/v1/devices/scale/samples?limit=100000")["samples"]]
    for each in pushed:
        assert each <= set(stored)
    # Both clients count from 1; a sample whose answer was cut off may be there too.
    assert len(stored) <= len(pushed[0]) + len(pushed[1]) + 2
    receiver(box, tmp_path / "receiver")
    until = time.monotonic() + 60
    got: list[int] = []
    while len(got) < len(stored):
        assert time.monotonic() < until, f"{len(stored) - len(got)} of {len(stored)} did not arrive"
        got = until_received(box, pushed[0] | pushed[1], 60)
    assert sorted(got) == sorted(stored)
