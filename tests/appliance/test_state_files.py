"""The list of what a gateway keeps: a running one, the package's scripts and install.sh hold to it."""

import asyncio
import contextlib
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from gateway.commands.backup import back_up
from gateway.commands.restore import restore
from gateway.commands.support_bundle import support_bundle
from gateway.state_files import BACKED_UP, IN_STATE, IN_STORE, LINK, Kept, Kind, kind_of
from tests.appliance.test_delivered import filled
from tests.e2e.gateway_process import gateway
from tests.timeseries.bench import SERIES, USERS, write_users

ROOT = Path(__file__).resolve().parents[2]
PURGE_KEEPS = {Kind.STORE, Kind.MEASUREMENT, Kind.IDENTITY}
ASIDE = ("restoring", "replaced-[0-9]*")
IN_SUBFOLDERS = {
    "history": "000001.db", "measurements": "a.hdf5", "config": "0123456789abcdef.yaml", "pki": "own/key.pem",
    "pki/trusted": "a.der", "pki/secured": "a.json", "documents": "backup/sensors__20260101T000000Z.yaml",
    "documents/secrets": "dataspace-0123456789abcdef", "tls": "self-signed.pem",
}  # fmt: skip


def names(*tables: tuple[Kept, ...]) -> list[str]:
    """Return a file for each line of the tables, but what a restore moved aside."""
    patterns = [each.pattern for table in tables for each in table]
    made = [f"{each}/{IN_SUBFOLDERS[each]}" if each in IN_SUBFOLDERS else each for each in patterns]
    made += ["hot.db.corrupt-1", "hot.db.salvaged-2-wal", "hot.db.renewed"] if IN_STORE in tables else []
    made += ["documents/dataspace.yaml"] if IN_STATE in tables else []
    return [each for each in made if each not in (*ASIDE, LINK, ".all-delivered", "hot.db.*")]


def laid_out(folder: Path, wanted: list[str]) -> None:
    for name in wanted:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("canary")


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    }


class Box:
    """The folders of a box below another root, and the scripts made to mean them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state, self.etc = root / "var/lib/edge-gateway", root / "etc/edge-gateway"
        self.mounts: dict[Path, Path] = {}
        self.debhelper = False
        """Whether the last script reached what debhelper adds to it."""
        self.state.mkdir(parents=True)
        laid_out(self.etc, ["gateway.yaml", "secrets/cloud"])

    def purge(self) -> str:
        return self.run("debian/edge-gateway.postrm", "purge")

    def run(self, script: str, *arguments: str) -> str:
        """Run a script, with every folder of `mounts` bound over its place; return what it says."""
        text = (ROOT / script).read_text().replace("#DEBHELPER#", "echo debhelper >&2")
        for top in ("/var/", "/etc/", "/opt/", "/usr/local/"):
            text = text.replace(top, f"{self.root}{top}")
        text = text.replace("root:root", f"{os.geteuid()}:{os.getegid()}")
        command = ["sh", "-c", text, script, *arguments]
        if self.mounts:
            bind = "".join(f"mount --bind {folder} {at}; " for at, folder in self.mounts.items())
            own = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
            command = [*own, "sh", "-ec", f'{bind}exec "$@"', "sh", *command]
        done = subprocess.run(command, capture_output=True, text=True)
        self.debhelper = "debhelper" in done.stderr
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_kept_state_directory_has_samples_and_nothing_else(box: Box) -> None:
    every = names(IN_STORE, IN_STATE)
    aside = [name for name in every if kind_of(name) is Kind.STORE]
    laid_out(box.state, every)
    laid_out(box.state / "replaced-1", [*aside, "gateway-id", "dataspace.yaml", "0-tokens.json"])
    laid_out(box.state, ["what-nobody-knows"])
    said = box.purge()
    (kept,) = (box.root / "var/lib").iterdir()
    assert f"it was kept, for root only: {kept}" in said
    assert kept.stat().st_mode & 0o777 == 0o700
    assert files(kept) == {
        *(name for name in every if kind_of(name) in PURGE_KEEPS),
        *(f"replaced-1/{name}" for name in (*aside, "gateway-id")),
    }
    assert not box.etc.exists()
    assert box.purge() == ""


def test_a_kept_store_elsewhere_has_samples_and_nothing_else(box: Box) -> None:
    data, every = box.root / "data", names(IN_STORE)
    laid_out(data, [*every, "replaced-1/hot.db", "replaced-1/dataspace.yaml", "mine"])
    laid_out(box.state, names(IN_STATE)[:1])  # a measurement
    (box.state / LINK).symlink_to(data)
    box.purge()
    kept = next(path for path in data.iterdir() if path.name != "mine")
    assert files(kept) == {"replaced-1/hot.db", *(n for n in every if kind_of(n) in PURGE_KEEPS)}
    assert files(data) == {"mine", *(f"{kept.name}/{name}" for name in files(kept))}
    (state,) = (box.root / "var/lib").iterdir()
    assert files(state) == {"measurements/a.hdf5"}


def test_a_delivered_store_goes_wherever_it_is(box: Box) -> None:
    data = box.root / "data"
    laid_out(data, [*names(IN_STORE), "replaced-1/hot.db", "mine"])
    laid_out(box.state, [*names(IN_STATE), ".all-delivered"])
    (box.state / LINK).symlink_to(data)
    assert box.purge() == ""
    assert files(data) == {"mine"}
    assert not box.state.exists()


def test_install_sh_deletes_all_that_is_listed(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    data, tools = box.root / "data", box.root / "bin"
    laid_out(data, [*names(IN_STORE), "replaced-1/hot.db", "restoring/hot.db", "mine"])
    laid_out(box.state, names(IN_STATE))
    (box.state / LINK).symlink_to(data)
    for name, text in {"systemctl": "exit 0", "dpkg-query": "exit 1", "id": "echo 0"}.items():
        laid_out(tools, [name])
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    box.run("install.sh", "--uninstall", "--delete-data")
    assert files(data) == {"mine"}
    assert not box.state.exists()
    assert not box.etc.exists()


async def test_a_backup_has_no_secret_and_a_restore_leaves_nothing_of_the_store_before(
    tmp_path: Path,
) -> None:
    state, target = tmp_path / "state", tmp_path / "backup"
    await filled(state, upload=True, acknowledged=True)

    def replaced() -> None:
        laid_out(state, [*names(IN_STATE), "documents/secrets/x.yaml", "pki/own/certificate.der"])
        made, _notes = back_up(state, state, target, 1)
        assert {kind_of(name) for name in made.files} == {Kind.STORE, Kind.IDENTITY, Kind.CONFIGURATION}
        assert all(BACKED_UP.fullmatch(name) for name in made.files)
        laid_out(state, ["hot.db.renewed", "hot.db.corrupt-1"])
        _made, aside = restore(target, state, state, 2, force=True, damaged=False)
        assert {path.name for path in aside} >= {"hot.db", "hot.db.renewed", "hot.db.corrupt-1"}
        assert not list(state.glob("hot.db.*"))

    await asyncio.to_thread(replaced)


def test_a_support_bundle_has_nothing_of_a_file_that_is_a_secret(tmp_path: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "bundle.tar.gz"
    every = names(IN_STORE, IN_STATE)
    laid_out(state, every)
    for number, name in enumerate(every):
        (state / name).write_text(
            f"canary-{number}-secret" if kind_of(name) is Kind.SECRET else "open-canary"
        )
    support_bundle(out, tmp_path / "gateway.yaml", state, {}, tmp_path)
    with tarfile.open(out) as bundle:
        parts = [bundle.extractfile(each).read().decode() for each in bundle.getmembers()]  # type: ignore[union-attr]
    assert not [part for part in parts if "-secret" in part]
    assert [part for part in parts if "open-canary" in part]


EVERYTHING = """\
http:
  listen: '127.0.0.1:{port}'
  tls: off
  compat:
    timeseries: {{listen: '127.0.0.1:{timeseries}', tls: off, users: users.json}}
    icoapi: {{listen: '127.0.0.1:{icoapi}', anonymous: operate}}
devices:
  box: {{push: }}
  plc: {{opcua: "opc.tcp://127.0.0.1:{nobody}"}}
  tools: {{icotronic: {{interface: virtual, channel: nobody-there}}}}
uploads: {{cloud: {{http: "http://127.0.0.1:{nobody}/ingest"}}}}
store: {{path: {store}}}
"""


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_all_that_a_gateway_with_every_feature_leaves_is_listed(
    tmp_path: Path, free_port: Callable[[], int], elsewhere: bool
) -> None:
    async with gateway(tmp_path / "g", free_port()) as running, aiohttp.ClientSession() as client:
        store = tmp_path / "data" if elsewhere else running.state
        running.folder.mkdir()
        write_users(running.folder / "users.json", json.dumps(USERS))
        ports = {name: free_port() for name in ("timeseries", "icoapi", "nobody")}
        running.file.write_text(EVERYTHING.format(port=running.port, store=store, **ports))
        await running.start()
        wanted = {
            "admin-token", "tokens.json", "timeseries-users.json", "timeseries-series.json", "gateway-id",
            "tls/self-signed.pem", "pki/own/key.pem", "control.sock",
        }  # fmt: skip
        async with asyncio.timeout(30):
            while not wanted <= await asyncio.to_thread(files, running.state):
                with contextlib.suppress(aiohttp.ClientError):
                    await client.put(f"http://127.0.0.1:{ports['timeseries']}/series/new", json=SERIES)
                await asyncio.sleep(0.2)
        await running.kill()
        left = await asyncio.to_thread(files, running.state)
        assert [name for name in left if kind_of(name) is None] == []
        assert (LINK in left) is elsewhere
        in_store = await asyncio.to_thread(files, store)
        assert "hot.db" in in_store
        if elsewhere:
            assert [name for name in in_store if not any(each.has(name) for each in IN_STORE)] == []
            assert not (running.state / "hot.db").exists()
            target = tmp_path / "backup"
            for command in (("verify",), ("backup", str(target)), ("restore", str(target), "--force")):
                code, said = await running.run(*command, "--state", str(running.state))
                assert code == 0, said
            assert (store / "replaced-1" / "hot.db").exists()
            assert not (running.state / "hot.db").exists()
