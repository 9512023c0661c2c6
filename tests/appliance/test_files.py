"""What the tree says of the package: the unit, the version, the locks, the licences, the manual."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway.__main__ import command_line
from gateway.config import load
from gateway.config.dropin import dropin
from gateway.places import STATE
from tests.appliance.test_deployment import module

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "systemd" / "edge-gateway.service"
LOCK = ROOT / "debian" / "requirements.lock"
analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def locked(file: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)", file.read_text(), re.MULTILINE))


def exposure(unit: Path, tenths: int) -> subprocess.CompletedProcess[str]:
    command = [
        "systemd-analyze",
        "security",
        "--no-pager",
        "--offline=true",
        f"--threshold={tenths}",
        str(unit),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.seed_row(45)
@analyze
def test_the_unit_is_exposed_no_more_than_1_3() -> None:
    done = exposure(UNIT, 13)
    assert done.returncode == 0, done.stdout[-200:]


@analyze
def test_a_weaker_unit_is_found(tmp_path: Path) -> None:
    """The positive control."""
    weaker = tmp_path / UNIT.name
    weaker.write_text(UNIT.read_text().replace("NoNewPrivileges=yes", "NoNewPrivileges=no"))
    assert exposure(weaker, 13).returncode


@analyze
def test_with_device_nodes_it_is_exposed_no_more_than_2(tmp_path: Path) -> None:
    with_nodes, file = tmp_path / UNIT.name, tmp_path / "gateway.yaml"
    bus = "{{can: {{interface: slcan, channel: {}, raw_frames: all}}}}"
    named = ("/dev/ttyACM0", "/dev/serial/by-id/usb-x", "/dev/ttyAMA0")
    buses = "".join(f"  bus-{number}: {bus.format(node)}\n" for number, node in enumerate(named))
    file.write_text(f"devices:\n  box: {{revpi: {{}}}}\n{buses}")
    text = dropin(load(file, {}), file)
    added = text.split("[Service]")[1]
    assert all(f"DeviceAllow={each}" in added for each in ("/dev/piControl0 r", "char-ttyACM", "char-ttyUSB"))
    with_nodes.write_text(UNIT.read_text().replace("\n[Install]", added + "\n[Install]"))
    done = exposure(with_nodes, 20)
    assert done.returncode == 0, done.stdout[-200:]


@analyze
def test_with_an_allow_list_it_is_exposed_no_more_than_1_2(tmp_path: Path) -> None:
    allowing = tmp_path / UNIT.name
    text = dropin(load(ROOT / "config" / "starter.yaml", {}), Path("f"), ["192.168.0.0/24"])
    allowing.write_text(UNIT.read_text().replace("\n[Install]", text.split("[Service]")[1] + "\n[Install]"))
    done = exposure(allowing, 12)
    assert done.returncode == 0, done.stdout[-200:]


def test_the_version_is_that_of_the_changelog() -> None:
    first = (ROOT / "debian" / "changelog").read_text().split("\n", 1)[0]
    assert f"edge-gateway ({metadata.version('edge-gateway')})" == first.split(") ")[0] + ")"
    asked = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert asked.stdout.split()[-1] == metadata.version("edge-gateway")


def test_the_lock_is_of_this_pyproject() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    versions = locked(LOCK)
    for line in wanted:
        requirement = Requirement(line)
        version = versions.get(canonicalize_name(requirement.name), "")
        assert version and requirement.specifier.contains(version, prereleases=True), f"{line}: make lock"


@pytest.mark.parametrize("file", ["requirements.lock", "tools.lock"])
def test_a_lock_names_hashes_and_no_host(file: str) -> None:
    text = (ROOT / "debian" / file).read_text()
    assert "//" not in text
    for block in re.split(r"\n(?=[a-z])", text.strip()):
        assert "--hash=sha256:" in block, block.split("\n")[0]


def test_each_library_is_of_one_version_for_every_python() -> None:
    """`pip download --python-version` judges markers by the Python that runs it, not by that one."""
    lock = (ROOT / "debian" / "requirements.lock").read_text()
    names = re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)
    assert len(names) == len(set(names)) > 20
    assert not re.findall(r"^.*python_full_version >.*$", lock, re.MULTILINE)


def test_every_component_stands_in_the_copyright_file_with_its_licence() -> None:
    text = (ROOT / "debian" / "copyright").read_text()
    paragraphs = [dict(re.findall(r"^(\w+): (.*)$", each, re.MULTILINE)) for each in text.split("\n\n")]
    named = {each["Comment"]: each["License"] for each in paragraphs if "Files" in each and "Comment" in each}
    assert {name for name in named if ", inside " not in name} == set(locked(LOCK)), "make lock"
    texts = {each["License"] for each in paragraphs if "Files" not in each and "License" in each}
    assert set(named.values()) == texts
    assert named["asyncua"] == "LGPL-3.0-or-later"
    assert "License: undecided" in text


def test_the_notices_of_what_is_inside_a_library_are_installed_too() -> None:
    """A wheel brings its own licence, seldom that of the C library in it."""
    components = module(ROOT / "debian/components.py")
    text = (ROOT / "debian" / "copyright").read_text()
    for of, parts in components.INSIDE.items():
        files = [each for each in metadata.files(of) or () if "licen" in str(each).lower()]
        brought = " ".join(Path(str(each.locate())).read_text(errors="replace") for each in files)
        for name, licence, holder, _files in parts:
            who = re.split(r", | and ", holder)[0]
            if name in components._WITHOUT_TEXT:
                (stanza,) = re.findall(rf"^License: {re.escape(licence)}\n((?: .*\n?)+)", text, re.MULTILINE)
                said = re.findall(r"^ That of (.*):$", stanza, re.MULTILINE)
                assert name in ", ".join(said).split(", ")
                assert components._TEXTS[licence] in stanza
                assert f"Copyright: {holder}\n" in text
            elif licence not in components._COMMON:
                assert who in brought, f"{of} has no notice of {name}: add it to _WITHOUT_TEXT, make lock"


def test_the_copyright_file_names_files_alike_for_each_processor() -> None:
    named = re.findall(r"usr/lib/edge-gateway/(\S+)", (ROOT / "debian" / "copyright").read_text())
    assert "_cffi_backend*" in named
    assert not [each for each in named if ".so" in each or "cpython" in each or "x86_64" in each]


def test_the_starter_is_valid_and_needs_no_device() -> None:
    config = load(ROOT / "config" / "starter.yaml", {})
    assert not config.devices
    assert not config.uploads


def test_the_unit_and_the_code_mean_the_same_folders() -> None:
    assert f"StateDirectory={STATE.name}" in UNIT.read_text()
    assert "LoadCredential=secrets:/etc/edge-gateway/secrets" in UNIT.read_text()


def test_the_manual_names_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, str(ROOT / "debian" / "manual.py"), "man"]
    page = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    help_text = command_line().format_help()
    commands = re.findall(r"^    ([a-z-]+)(?: |$)", help_text, re.MULTILINE)
    assert "systemd-dropin" in commands
    for name in commands:
        assert f".B {name}".replace("-", "\\-") in page


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_scripts_are_clean() -> None:
    scripts = [*(ROOT / "debian").glob("*.sh"), *(ROOT / ".github/deploy").glob("*.sh"), ROOT / "install.sh"]
    scripts += [
        ROOT / "debian" / f"edge-gateway.{name}" for name in ("preinst", "postinst", "prerm", "postrm")
    ]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
