"""What the deployment stands on, without a box: versions, tags, rings, assets, the form of the store."""

import importlib.util
import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gateway.store import chunk, codec, schema, segment, tombstones

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / ".github/deploy"


def module(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = made
    spec.loader.exec_module(made)
    return made


def run(*command: object, **keywords: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=30, **keywords)  # type: ignore[call-overload,no-any-return]


def newer(one: str, other: str) -> bool:
    return run("dpkg", "--compare-versions", one, "gt", other).returncode == 0


def test_the_form_of_the_store_is_what_the_modules_write() -> None:
    said = run("python3", ROOT / "debian/store_form.py").stdout.strip()
    assert said == (
        f"hot{len(schema.MIGRATIONS)}.segment{segment.VERSION}.block{codec.VERSION}.chunk{chunk.VERSION}"
        f".deletion{tombstones.VERSION}"
    )
    assert "Store-Form: ${store:Form}" in (ROOT / "debian/control").read_text()


@pytest.mark.seed_row("L7")
def test_each_commit_is_newer_than_the_one_before_and_older_than_its_release(tmp_path: Path) -> None:
    for name in (".github/deploy/snapshot.sh", "debian/changelog", "setup.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (release,) = re.findall(
        r"^edge-gateway \((.*?)\)", (ROOT / "debian/changelog").read_text().splitlines()[0]
    )
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.invalid")
    run(*git, "init", "-q", cwd=tmp_path, env=environ)
    versions = []
    for _ in range(11):
        run(*git, "add", "-A", cwd=tmp_path, env=environ)
        run(*git, "commit", "-q", "--allow-empty", "-m", "x", cwd=tmp_path, env=environ)
        done = run(tmp_path / ".github/deploy/snapshot.sh", env=environ)
        assert done.returncode == 0, done.stderr
        first = (tmp_path / "debian/changelog").read_text().splitlines()[0]
        versions += re.findall(r"\((.*?)\)", first)
        run("git", "checkout", "-q", "debian/changelog", cwd=tmp_path, env=environ)
    assert versions[0] == f"{release}~a1"
    for before, after in itertools.pairwise(versions):
        assert newer(f"{after}~deb12", f"{before}~deb12")
    assert newer(f"{release}~deb12", f"{versions[-1]}~deb13")


@pytest.mark.seed_row("L7")
def test_a_tag_is_the_released_version_of_the_changelog(tmp_path: Path) -> None:
    script = tmp_path / ".github/deploy/tag-is-version.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(DEPLOY / script.name, script)
    (tmp_path / "debian").mkdir()
    changelog = tmp_path / "debian/changelog"
    changelog.write_text("edge-gateway (1.2.3) bookworm; urgency=medium\n")
    assert run(script, "v1.2.3").returncode == 0
    assert "is not v1.2.3" in run(script, "v1.2.4").stderr
    changelog.write_text("edge-gateway (1.2.3) UNRELEASED; urgency=medium\n")
    assert "UNRELEASED" in run(script, "v1.2.3").stderr


def test_a_ring_names_boxes_and_no_options_of_ssh(tmp_path: Path) -> None:
    deploy = module(DEPLOY / "deploy.py")
    ring = tmp_path / "ring.txt"
    ring.write_text("# the first\npi@press-3.plant.example  # beside the press\n\n10.0.0.7\n")
    assert deploy.ring(ring) == ["pi@press-3.plant.example", "10.0.0.7"]
    ring.write_text("pi@press-3\n-oProxyCommand=x\n")
    with pytest.raises(deploy.Problem, match=r"ring.txt:2: '-oProxyCommand=x' is no box"):
        deploy.ring(ring)
    ring.write_text("# nobody\n")
    with pytest.raises(deploy.Problem, match="has no box"):
        deploy.ring(ring)


@pytest.mark.seed_row("L7")
def test_a_ring_without_a_box_is_nothing_to_do_and_an_unknown_one_is_a_mistake(tmp_path: Path) -> None:
    environ = {"PATH": "/usr/bin:/bin", "SSH_KEY": "", "KNOWN_HOSTS": ""}
    here = tmp_path / "deploy"
    (here / "rings").mkdir(parents=True)
    shutil.copy(DEPLOY / "run.sh", here)
    (here / "rings/later.txt").write_text("# none yet\n\n")
    done = run(here / "run.sh", "later", tmp_path, env=environ)
    assert (done.returncode, done.stdout) == (0, "the ring later has no box yet: nothing to upgrade\n")
    assert run(here / "run.sh", "nowhere", tmp_path, env=environ).returncode == 1
    assert "is no name of a ring" in run(here / "run.sh", "../later", tmp_path, env=environ).stderr


@pytest.mark.parametrize(
    ("gh", "code", "previous"),
    [
        ('case "$2" in list) echo v1 ;; download) touch "$4/a.deb" ;; esac', 0, "a.deb"),
        ('[ "$2" = list ]', 0, ""),
        ("exit 1", 1, None),
        ('[ "$2" = list ] && echo v1', 1, None),
    ],
    ids=["a release", "no release yet", "a token refused", "a download that breaks"],
)
def test_only_a_repository_without_a_release_gives_nothing_to_go_back_to(
    tmp_path: Path, gh: str, code: int, previous: str | None
) -> None:
    here, tools = tmp_path / "deploy", tmp_path / "bin"
    for folder in (here / "rings", tools):
        folder.mkdir(parents=True)
    shutil.copy(DEPLOY / "run.sh", here)
    (here / "rings/canary.txt").write_text("pi@press-3\n")
    (here / "deploy.py").write_text(
        "import os, sys; print('previous:', *os.listdir(sys.argv[sys.argv.index('--previous') + 1]))"
    )
    (tools / "gh").write_text(f"#!/bin/sh\n{gh}\n")
    (tools / "gh").chmod(0o755)
    environ = {"PATH": f"{tools}:/usr/bin:/bin", "SSH_KEY": "", "KNOWN_HOSTS": ""}
    done = run(here / "run.sh", "canary", tmp_path, env=environ)
    assert done.returncode == code, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("previous:")]
    assert said == ([] if previous is None else [f"previous: {previous}".strip()])


@pytest.mark.seed_row("L7")
def test_a_release_has_its_sboms_its_image_and_checksums_of_all_of_it(tmp_path: Path) -> None:
    image = "registry.example/Plant/edge-gateway@sha256:00"
    for suite in ("deb12", "deb13"):
        for architecture in ("amd64", "arm64"):
            name = f"edge-gateway_1.2.3~{suite}_{architecture}"
            package = tmp_path / "made" / name
            (package / "DEBIAN").mkdir(parents=True)
            (package / "DEBIAN/control").write_text(
                f"Package: edge-gateway\nVersion: 1.2.3~{suite}\nArchitecture: {architecture}\n"
                "Maintainer: a <a@b.invalid>\nDescription: a\n"
            )
            sbom = package / "usr/share/edge-gateway/sbom.cdx.json"
            sbom.parent.mkdir(parents=True)
            sbom.write_text(name)
            (tmp_path / "dist").mkdir(exist_ok=True)
            if (suite, architecture) == ("deb13", "arm64"):
                assert "make four" in run(DEPLOY / "assets.sh", tmp_path / "dist", image).stderr
            run("dpkg-deb", "-Znone", "-b", package, tmp_path / "dist" / f"{name}.deb")
    done = run(DEPLOY / "assets.sh", tmp_path / "dist", image)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "dist").iterdir()}
    assert len(names) == 4 + 4 + 2
    assert (tmp_path / "dist/image.txt").read_text() == "registry.example/plant/edge-gateway@sha256:00\n"
    assert (tmp_path / "dist/edge-gateway_1.2.3~deb13_arm64.cdx.json").read_text().endswith("deb13_arm64")
    listed = {line.split()[1] for line in (tmp_path / "dist/SHA256SUMS").read_text().splitlines()}
    assert listed == names - {"SHA256SUMS"}
    assert run("sha256sum", "--check", "SHA256SUMS", cwd=tmp_path / "dist").returncode == 0
