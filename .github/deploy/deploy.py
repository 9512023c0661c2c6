#!/usr/bin/env python3
"""Upgrades a ring of boxes, one after the other, and stops at the first that is not well afterwards.

deploy.py --ring .github/deploy/rings/canary.txt --packages dist [--previous FOLDER]

A ring is a file with a box a line, as ssh names it (pi@press-3), # begins a comment. --packages holds those
of each suite and architecture; a box takes its own. A box goes back by itself to the package that was
deployed before, which it keeps; before the first time it comes from --previous. box.py says what happens on
a box.
"""

import argparse
import hashlib
import json
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

REMOTE = "ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 {box} sudo -n"
FOLDER = "/var/lib/edge-gateway-deploy"
JOB = "edge-gateway-deploy"
BOX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:-]*")
"""What cannot be taken for an option of ssh."""
LONGEST_S = 3 * 3600
"""A box with a full store on slow flash, its backup, and the way back."""
AWAY_S = 900
"""Contact may be lost for so long during the upgrade: the box goes on without us."""
WELL = ("upgraded", "unchanged")
"""The outcomes after which the ring goes on."""


class Problem(Exception):
    """A box was not upgraded, and why."""


@dataclass(frozen=True)
class Box:
    """What a box is, and what is reached on it by root's shell."""

    name: str
    remote: str

    def sh(self, script: str, timeout_s: float = 120) -> str:
        """Run a script there, as root. Problem: it failed, or the box cannot be reached."""
        return self._run(("sh", "-s"), script.encode(), timeout_s)

    def put(self, file: Path, name: str) -> None:
        """Copy a file there. Problem: it did not arrive whole."""
        data = file.read_bytes()
        self._run(("dd", f"of={FOLDER}/{name}", "status=none", "conv=fsync"), data, 1800)
        if hashlib.sha256(data).hexdigest() not in self.sh(f"sha256sum {FOLDER}/{name}"):
            raise Problem(f"{file.name} did not arrive whole")

    def _run(self, command: tuple[str, ...], given: bytes, timeout_s: float) -> str:
        prefix = [part.replace("{box}", self.name) for part in shlex.split(self.remote)]
        try:
            done = subprocess.run(
                [*prefix, *command], check=False, input=given, capture_output=True, timeout=timeout_s
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Problem(f"it cannot be reached: {error}") from None
        if done.returncode:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise Problem(f"it cannot be reached, or refuses: {' '.join(last) or done.returncode}")
        return done.stdout.decode(errors="replace")


def ring(file: Path) -> list[str]:
    """Return the boxes of a ring. Problem: a line is none."""
    boxes = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        name = line.partition("#")[0].strip()
        if name and not BOX.fullmatch(name):
            raise Problem(f"{file}:{number}: {name!r} is no box; write it as ssh names it, as pi@press-3")
        boxes += [name] if name else []
    if not boxes:
        raise Problem(f"{file}: the ring has no box")
    return boxes


def package_for(folder: Path, mark: str, version: str = "*") -> Path:
    """Return the package of a suite and an architecture. Problem: there is none, or more than one."""
    found = sorted(folder.glob(f"edge-gateway_{version}{mark}.deb"))
    if len(found) != 1:
        raise Problem(f"{folder} has {len(found)} packages edge-gateway_{version}{mark}.deb, one is wanted")
    return found[0]


def upgrade(box: Box, given: argparse.Namespace) -> dict[str, str]:
    """Upgrade a box; return its result. Problem: it could not be, or its state is not known."""
    said = box.sh(
        f"if systemctl is-active -q {JOB}; then "
        f"echo 'an earlier deployment is at work there; see: journalctl -fu {JOB}' >&2; exit 1; fi; "
        ". /etc/os-release; dpkg --print-architecture; echo ${VERSION_ID:-none}; "
        f"install -d -m 700 {FOLDER}; "
        "dpkg-query -W -f '${Version}\\n' edge-gateway || echo none; "
        f"for file in installed new; do dpkg-deb -f {FOLDER}/$file.deb Version 2>/dev/null || echo none; done"
    ).split()
    architecture, suite, version, kept, brought = said
    package = package_for(given.packages, f"~deb{suite}_{architecture}")
    box.put(Path(__file__).with_name("box.py"), "box.py")
    if kept != version and version not in ("none", package.name.split("_")[1]):
        if brought == version:
            # A power cut ended the watch over it: it is looked at now, and is then the way back.
            result = work(box, given)
            if result["outcome"] not in WELL:
                return result
        elif given.previous:
            upstream = version.removesuffix(f"~deb{suite}")
            box.put(package_for(given.previous, f"~deb{suite}_{architecture}", upstream), "installed.deb")
    box.put(package, "new.deb")
    return work(box, given)


def work(box: Box, given: argparse.Namespace) -> dict[str, str]:
    """Let the box take its new.deb; return its result. Problem: there is none."""
    box.sh(
        f"rm -f {FOLDER}/result.json; systemctl reset-failed {JOB} 2>/dev/null || true; "
        f"systemd-run --quiet --collect --unit={JOB} "
        f"/usr/bin/python3 -I {FOLDER}/box.py {given.well} {given.settle}"
    )
    return outcome(box)


def outcome(box: Box) -> dict[str, str]:
    """Wait for the result of a box, over broken links too. Problem: there is none."""
    began = heard = time.monotonic()
    while time.monotonic() - began < LONGEST_S:
        try:
            text = box.sh(
                f"i=0; while [ $i -lt 60 ] && systemctl is-active -q {JOB}; do sleep 1; i=$((i + 1)); done; "
                f"systemctl is-active -q {JOB} || cat {FOLDER}/result.json 2>/dev/null || echo none"
            ).strip()
        except Problem as problem:
            if time.monotonic() - heard > AWAY_S:
                raise Problem(f"contact was lost during the upgrade: {problem}") from None
            time.sleep(5)
            continue
        heard = time.monotonic()
        if text == "none":
            break
        if text:
            result: dict[str, str] = json.loads(text)
            return result
    raise Problem(f"its upgrade has no result; there: journalctl -u {JOB}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ring", type=Path, required=True, metavar="FILE")
    parser.add_argument("--packages", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--previous", type=Path, metavar="FOLDER", help="packages of what runs there now")
    parser.add_argument("--remote", default=REMOTE, help="reaches root of a {box}, default: %(default)s")
    parser.add_argument("--well", type=float, default=150, metavar="S", help="to be well within, %(default)s")
    parser.add_argument("--settle", type=float, default=15, metavar="S", help="to stay so for, %(default)s")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    try:
        boxes = ring(given.ring)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    for number, name in enumerate(boxes):
        began = time.monotonic()
        try:
            result = upgrade(Box(name, given.remote), given)
        except Problem as problem:
            result = {"outcome": "failed", "why": str(problem), "version": "an unknown version"}
        why = f": {result['why']}" if result["why"] else ""
        took_s = time.monotonic() - began
        print(f"{name}: {result['outcome']}, has {result['version']}, {took_s:.0f} s{why}", flush=True)
        if result["outcome"] not in WELL:
            left = ", ".join(boxes[number + 1 :]) or "none"
            print(f"the ring stops at {name}; boxes not tried: {left}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
