#!/usr/bin/python3 -I
"""Upgrades edge-gateway on this box, watches it, and goes back by itself where it got worse.

deploy.py puts this file and the packages into /var/lib/edge-gateway-deploy and starts it as a unit of its
own, so that a link that breaks does not leave a box half way. Nothing but Debian's python3 is needed. The
outcome goes to result.json there:

upgraded, unchanged   the new version runs, and nothing is worse than it was
refused               nothing was changed
rolled back           the version before runs again, as well as it did
broken                neither runs well: somebody must look

Going back keeps the store as it is where both packages write the same form (their field Store-Form). Where
they do not, a backup is made before the upgrade and restored for the way back; what came in since is moved
aside.
"""

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path("/var/lib/edge-gateway-deploy")
NEW, KEPT, RESULT = FOLDER / "new.deb", FOLDER / "installed.deb", FOLDER / "result.json"
BACKUP = FOLDER / "backup"
UNIT, USER = "edge-gateway.service", "edge-gateway"
QUIET = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1", "APT_LISTCHANGES_FRONTEND": "none"}


@dataclass(frozen=True)
class Limits:
    """How long is waited until it is well, and for how long it must stay so."""

    well_s: float
    settle_s: float
    """What came through within so long before must come through again after."""


class Refused(Exception):
    """Nothing was changed, and why."""


class Failed(Exception):
    """It was changed, and is not well."""


@dataclass(frozen=True)
class Seen:
    """How the service is."""

    active: bool
    restarts: str
    status: dict[str, Any]
    """What `edge-gateway status` says; empty where nobody answers."""

    @property
    def running(self) -> set[str]:
        parts = self.status.get("parts", {})
        return {name for name, state in parts.items() if state.split(":")[0] == "running"}

    @property
    def counts(self) -> dict[str, int]:
        """What grows while values come in and go out."""
        units = self.status.get("delivered_units", {})
        return {"the store": self.status.get("commits", 0)} | {f"upload {n}": c for n, c in units.items()}

    def grown(self, since: "Seen") -> frozenset[str]:
        return frozenset(name for name, count in self.counts.items() if count > since.counts.get(name, 0))


@dataclass(frozen=True)
class Before:
    """What must not get worse."""

    running: frozenset[str]
    flowing: frozenset[str]
    """Where something came through while it was looked at."""
    store: str


def run(*command: str, check: bool = True, timeout_s: float = 900, **environ: str) -> str:
    """Run a command; return what it printed. Failed: it did not succeed, with its last words."""
    try:
        done = subprocess.run(
            command, check=False, env={**os.environ, **QUIET, **environ}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout_s,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[0]} did not end within {timeout_s:.0f} s") from None
    print(f"$ {' '.join(command)}\n{done.stdout}", flush=True)
    if check and done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise Failed(f"{command[0]} ended with {done.returncode}: {' / '.join(lines[-6:])}")
    return done.stdout


def installed(field: str) -> str:
    """Return a field of the installed package, "" where there is none."""
    return run("dpkg-query", "-W", f"-f=${{{field}}}", "edge-gateway", check=False).strip()


def packaged(package: Path, field: str) -> str:
    return run("dpkg-deb", "-f", str(package), field, check=False).strip()


def older(one: str, other: str) -> bool:
    command = ("dpkg", "--compare-versions", one, "lt", other)
    return subprocess.run(command, check=False).returncode == 0


def look() -> Seen:
    shown = run("systemctl", "show", "-p", "ActiveState", "-p", "NRestarts", UNIT, check=False).splitlines()
    state = dict(line.partition("=")[::2] for line in shown)
    status = {}
    with contextlib.suppress(Failed, OSError, ValueError):  # it hangs, is half installed, or says nothing
        status = json.loads(run("edge-gateway", "status", check=False, timeout_s=30))
    return Seen(state.get("ActiveState") == "active", state.get("NRestarts", ""), status)


def before(limit: Limits) -> Before:
    """Look for as long as the new version will be looked at."""
    first = look()
    time.sleep(limit.settle_s if first.status else 0)
    second = look()
    return Before(frozenset(second.running), second.grown(first), str(second.status.get("store", "")))


def healthz(status: dict[str, Any]) -> str:
    """Return why /healthz does not answer, or ""."""
    if not status.get("address"):
        return "the API does not listen"
    host, port = status["address"][:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # its own certificate, on this machine
    why = ""
    for scheme in ("https", "http"):
        try:
            with urllib.request.urlopen(f"{scheme}://{at}/healthz", timeout=10, context=context):
                return ""
        except (OSError, urllib.error.URLError) as error:
            why = why or f"/healthz does not answer: {error}"
    return why


def worse(was: Before, now: Seen, version: str) -> str:
    """Return what is worse than it was, or ""."""
    if not now.active:
        return f"{UNIT} is not active"
    if not now.status:
        return "the daemon does not answer"
    # 1.2~rc1~deb12 is 1.2rc1 to Python.
    wanted = version.partition("~deb")[0].replace("~", "")
    if now.status.get("version") != wanted:
        return f"version {now.status.get('version')} runs, not {wanted}"
    if why := healthz(now.status):
        return why
    if gone := sorted(was.running - now.running):
        parts = now.status.get("parts", {})
        return "; ".join(f"{name} was running, now: {parts.get(name, 'gone')}" for name in gone)
    return ""


def watch(was: Before, version: str, limit: Limits) -> None:
    """Wait until it is as well as it was, and stays so. Failed: it is not, in time."""
    until, why = time.monotonic() + limit.well_s, ""
    since, first = 0.0, None  # since when it is well, and how it was then
    while time.monotonic() < until:
        now = look()
        why = worse(was, now, version)
        if why:
            first = None
        elif first is None or now.restarts != first.restarts:
            since, first = time.monotonic(), now
        elif time.monotonic() - since >= limit.settle_s:
            stuck = was.flowing - now.grown(first)
            if not stuck:
                return
            why = f"{', '.join(sorted(stuck))}: nothing comes through any more"
        time.sleep(1)
    raise Failed(why or "it did not stay well")


def back_up(was: Before) -> None:
    """Copy the store while it runs. Refused: it cannot be."""
    shutil.rmtree(BACKUP, ignore_errors=True)
    run("install", "-d", "-o", USER, "-g", USER, "-m", "700", str(BACKUP))
    as_user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    store = ("--store", was.store) if was.store else ()
    try:
        FOLDER.chmod(0o711)
        run(*as_user, "edge-gateway", "backup", *store, str(BACKUP / "store"), timeout_s=3600)
    except Failed as error:
        shutil.rmtree(BACKUP, ignore_errors=True)
        raise Refused(
            f"the new version writes the store in another form, and no backup can be made: {error}"
        ) from None
    finally:
        FOLDER.chmod(0o700)


def go_back(was: Before, version: str, limit: Limits) -> None:
    """Install the package before again, and its store where the form is another. Failed: it is not well."""
    restoring = (BACKUP / "store").exists()
    if restoring:
        # The version before must not meet the store of the new one.
        run("systemctl", "mask", "--runtime", "--now", UNIT)
    try:
        run("dpkg", "--install", str(KEPT), EDGE_GATEWAY_ALLOW_DOWNGRADE="1")
        if restoring:
            store = ("--store", was.store) if was.store else ()
            run("edge-gateway", "restore", "--force", *store, str(BACKUP / "store"), timeout_s=3600)
            shutil.rmtree(BACKUP)
    finally:
        if restoring:
            run("systemctl", "unmask", "--runtime", UNIT)
    run("systemctl", "start", UNIT)
    watch(was, version, limit)


def gone_back(was: Before, kept: str, why: str, limit: Limits) -> tuple[str, str]:
    """Go back; return the outcome and the reason."""
    try:
        if (installed("Version"), installed("db:Status-Status")) == (kept, "installed"):
            shutil.rmtree(BACKUP, ignore_errors=True)
            watch(was, kept, limit)
            return "refused", why
        go_back(was, kept, limit)
    except Failed as error:
        return "broken", f"{why}; and going back to {kept} failed: {error}"
    return "rolled back", why


def prepare(was: Before, version: str, kept: str) -> None:
    """See to the way back. Refused: there is none."""
    if kept != version:
        raise Refused(f"there is no package of {version} to go back to: give it with --previous")
    form = installed("Store-Form")
    if not form or form != packaged(NEW, "Store-Form"):
        back_up(was)


def upgrade(limit: Limits) -> tuple[str, str]:
    """Return the outcome and the reason for it."""
    version, new = installed("Version"), packaged(NEW, "Version")
    kept = packaged(KEPT, "Version") if KEPT.exists() else ""
    if installed("db:Status-Status") in ("", "not-installed", "config-files"):
        raise Refused("edge-gateway is not installed here")
    if not new:
        raise Refused(f"{NEW} is no package")
    was = before(limit)
    if version == kept and (BACKUP / "store").exists() and not look().status:
        go_back(was, kept, limit)
        return "rolled back", "an earlier way back had not ended; now it has"
    if older(new, version):
        raise Refused(f"{new} is older than {version}: it may not be able to read the store")
    try:
        if version != new:
            prepare(was, version, kept)
            run("apt-get", "install", "-y", "--no-install-recommends",
                "-o", "DPkg::Lock::Timeout=300", str(NEW))  # fmt: skip
        watch(was, new, limit)
    except Failed as error:
        if kept in ("", new):  # it was there before, and is not well: there is nothing to go back to
            return "broken", str(error)
        return gone_back(was, kept, str(error), limit)
    NEW.replace(KEPT)
    shutil.rmtree(BACKUP, ignore_errors=True)
    return ("upgraded" if kept != new else "unchanged"), ""


def main() -> int:
    limit = Limits(*map(float, sys.argv[1:]))
    try:
        outcome, why = upgrade(limit)
    except Refused as error:
        outcome, why = "refused", str(error)
    except Failed as error:
        outcome, why = "broken", str(error)
    draft = RESULT.with_suffix(".new")
    draft.write_text(json.dumps({"outcome": outcome, "why": why, "version": installed("Version")}))
    draft.replace(RESULT)
    return 0 if outcome in ("upgraded", "unchanged") else 1


if __name__ == "__main__":
    sys.exit(main())
