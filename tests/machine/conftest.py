"""Machines to test in, and the packages to install there."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.machine.nspawn import REPOSITORY, ROOTS, SUITES, Machine, machine, why_not


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.machine)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session", autouse=True)
def able() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory, able: None) -> Path:
    """Return a folder with each suite's package (built where dist/ has none), and an older one."""
    folder = tmp_path_factory.mktemp("packages")
    for suite, mark in SUITES.items():
        shipped = shutil.copy(built(suite, "amd64"), folder / f"edge-gateway-{mark}.deb")
        variant(shipped, folder / f"older-{mark}.deb", "0.0.1", another_starter)
    return folder


def another_starter(root: Path) -> None:
    with (root / "usr/share/edge-gateway/starter.yaml").open("a") as starter:
        starter.write("# As an older version had it.\n")


def built(suite: str, arch: str) -> Path:
    """Return the package for a suite and a processor, built where it is not there yet."""
    folder = Path(os.environ.get("PACKAGES", REPOSITORY / "dist"))
    pattern = f"edge-gateway_*~{SUITES[suite]}_{arch}.deb"
    if not any(folder.glob(pattern)):
        build = [str(REPOSITORY / "debian" / "build-in-root.sh"), suite, arch, str(folder)]
        subprocess.run(build, check=True, env={**os.environ, "ROOTS": str(ROOTS)})
    return sorted(folder.glob(pattern))[-1]


def variant(
    package: Path, to: Path, version: str, edit: Callable[[Path], None] | None = None, form: str = ""
) -> None:
    """Make a package of another version, of another Store-Form if given, with its files edited.

    There is no released one yet.
    """
    work = to.with_suffix("")
    subprocess.run(["dpkg-deb", "-R", package, work], check=True)
    fields = {"Version": version} | ({"Store-Form": form} if form else {})
    control = work / "DEBIAN" / "control"
    for file, changed in (
        (control, fields),
        (next(work.glob("usr/lib/edge-gateway/edge_gateway-*.dist-info/METADATA")),
         {"Version": version.partition("~deb")[0]}),
    ):  # fmt: skip
        text = file.read_text()
        for name, value in changed.items():
            text = re.sub(rf"^{name}: .*$", f"{name}: {value}", text, count=1, flags=re.MULTILINE)
        file.write_text(text)
    if edit is not None:
        edit(work)
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "-b", work, to], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(work)


@pytest.fixture
def boot(packages: Path, tmp_path: Path) -> Iterator[Callable[[str], Machine]]:
    """Return a function that boots a fresh machine of a suite, without the package."""
    with_exit = []

    def booting(suite: str) -> Machine:
        entered = machine(suite, tmp_path / suite, packages)
        with_exit.append(entered)
        return entered.__enter__()

    try:
        yield booting
    finally:
        for entered in with_exit:
            entered.__exit__(None, None, None)


@pytest.fixture(params=sorted(SUITES))
def bare(request: pytest.FixtureRequest, boot: Callable[[str], Machine]) -> Machine:
    """Return a fresh machine of each suite."""
    return boot(request.param)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, able: None) -> Path:
    """Return a folder with the files of every library that the locks name, for Debian 12's Python."""
    folder = tmp_path_factory.mktemp("files")
    subprocess.run([REPOSITORY / "debian" / "fetch.sh", "3.11", "x86_64", folder], check=True)
    return folder


@pytest.fixture
def box(boot: Callable[[str], Machine]) -> Machine:
    """Return a fresh Debian 12 machine with the package installed."""
    made = boot("bookworm")
    made.install("edge-gateway-deb12.deb")
    return made
