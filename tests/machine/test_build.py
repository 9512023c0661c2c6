"""The package as a file: two builds are the same, it says what is in it, lintian has nothing to say."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.machine.nspawn import REPOSITORY

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def unpacked(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["dpkg-deb", "-x", packages / "edge-gateway-deb12.deb", folder], check=True)
    return folder


def test_the_sbom_the_files_and_the_copyright_file_agree(unpacked: Path) -> None:
    lib = unpacked / "usr/lib/edge-gateway"
    sbom = json.loads((unpacked / "usr/share/edge-gateway/sbom.cdx.json").read_text())
    listed = {each["name"]: each for each in sbom["components"]}
    installed = {path.name.split("-")[0].replace("_", "-").lower() for path in lib.glob("*.dist-info")}
    inside = {name for name, each in listed.items() if each["purl"].startswith("pkg:generic/")}
    assert set(listed) - inside == installed - {"edge-gateway"}
    text = (unpacked / "usr/share/doc/edge-gateway/copyright").read_text()
    paragraphs = [dict(re.findall(r"^(\w+): (.*)$", each, re.MULTILINE)) for each in text.split("\n\n")]
    licences = {
        p["Comment"].split(",")[0]: p["License"] for p in paragraphs if {"Files", "Comment"} <= set(p)
    }
    for name, each in listed.items():
        licence = each["licenses"][0]
        expression = licence.get("expression") or licence["license"].get("id") or licence["license"]["name"]
        assert licences.pop(name) == re.sub(r"[()]", "", expression).replace(" AND ", " and ").replace(
            " OR ", " or "
        )
    assert not licences, f"{licences} are in debian/copyright alone: make lock"
    for pattern in re.findall(r"usr/lib/edge-gateway/(\S+)", text):
        assert any(lib.glob(pattern)), f"{pattern} in debian/copyright is no file of the package: make lock"


def test_the_sbom_is_valid_cyclonedx(unpacked: Path) -> None:
    sbom = json.loads((unpacked / "usr/share/edge-gateway/sbom.cdx.json").read_text())
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    refs = {each["bom-ref"] for each in sbom["components"]} | {sbom["metadata"]["component"]["bom-ref"]}
    for each in sbom["dependencies"]:
        assert {each["ref"], *each.get("dependsOn", ())} <= refs
    assert "serialNumber" not in sbom


@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not installed")
def test_lintian_has_nothing_to_say(packages: Path) -> None:
    command = [
        "lintian",
        "--allow-root",
        "--fail-on",
        "error,warning",
        str(packages / "edge-gateway-deb12.deb"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(
    'VERSION_ID="12"' not in Path("/etc/os-release").read_text(), reason="this is not Debian 12"
)
def test_two_builds_are_the_same(tmp_path: Path) -> None:
    # In folders and at times of their own, from trees whose files have other times and modes.
    trees = [tmp_path / "tree", tmp_path / "another-tree"]
    copy_tree(trees[0])
    shutil.copytree(trees[0], trees[1], copy_function=shutil.copy)
    made = []
    for tree, umask in zip(trees, ("022", "077"), strict=True):
        subprocess.run(["sh", "-ec", f"umask {umask}; make deb"], cwd=tree, check=True, capture_output=True)
        (package,) = (tree / "dist").glob("*.deb")
        made.append(hashlib.sha256(package.read_bytes()).hexdigest())
    assert made[0] == made[1]


def copy_tree(to: Path) -> None:
    listing = ["git", "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=REPOSITORY, check=True, capture_output=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        source = REPOSITORY / name
        if source.is_file() and not source.is_symlink():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, to / name)


@pytest.mark.seed_row("L7")
@pytest.mark.parametrize("arch", ["arm64"])
def test_the_other_processor_is_built_without_running_it(tmp_path: Path, arch: str) -> None:
    subprocess.run(["make", "deb", f"ARCH={arch}"], cwd=REPOSITORY, check=True, capture_output=True)
    (package,) = (REPOSITORY / "dist").glob(f"edge-gateway_*~deb*_{arch}.deb")
    subprocess.run(["dpkg-deb", "-x", package, tmp_path], check=True)
    modules = list(tmp_path.rglob("*.so"))
    assert len(modules) > 10
    for module in modules:
        assert module.read_bytes()[18:20] == b"\xb7\x00", f"{module} is not for AArch64"
