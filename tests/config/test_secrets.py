"""Secrets by reference: from the environment, files and credentials."""

from pathlib import Path

import pytest

from gateway import places
from gateway.config.secret_reference import resolve


def secret_file(folder: Path, name: str, text: str, mode: int = 0o600) -> Path:
    file = folder / name
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.mark.parametrize("written", ["hunter2", "hunter2\n", "hunter2\r\n"])
def test_a_trailing_newline_is_no_part_of_it(written: str, tmp_path: Path) -> None:
    secret_file(tmp_path, "a.txt", written)
    assert resolve("file", "a.txt", {}, tmp_path).text == "hunter2"
    assert resolve("env", "A", {"A": written}, tmp_path).text == "hunter2"


def test_other_space_is_part_of_it(tmp_path: Path) -> None:
    secret_file(tmp_path, "a.txt", " a\nb \n")
    assert resolve("file", "a.txt", {}, tmp_path).text == " a\nb "


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o666])
def test_a_file_for_everybody_is_refused(mode: int, tmp_path: Path) -> None:
    secret_file(tmp_path, "a.txt", "hunter2", mode)
    with pytest.raises(ValueError, match="every user of this machine") as caught:
        resolve("file", "a.txt", {}, tmp_path)
    assert "hunter2" not in str(caught.value)


def test_a_file_for_the_group_is_taken(tmp_path: Path) -> None:
    secret_file(tmp_path, "a.txt", "hunter2", 0o640)
    assert resolve("file", str(tmp_path / "a.txt"), {}, Path("/")).text == "hunter2"


def test_a_credential_has_its_own_name_before_the_prefixed_one(tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    secret_file(tmp_path, "secrets_cloud", "prefixed", 0o444)
    found = resolve("credential", "cloud", environ, Path("/"))
    assert (found.text, found.reference) == ("prefixed", "credential cloud")
    secret_file(tmp_path, "cloud", "plain", 0o444)
    assert resolve("credential", "cloud", environ, Path("/")).text == "plain"


def test_a_link_is_refused_where_systemd_passes_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, unit = tmp_path / "secrets", tmp_path / "edge-gateway.service"
    folder.mkdir()
    secret_file(tmp_path, "cloud.txt", "hunter2", 0o400)
    (folder / "cloud").symlink_to(tmp_path / "cloud.txt")
    monkeypatch.setattr(places, "SECRETS", folder)
    monkeypatch.setattr(places, "UNITS", (unit,))
    environ = {"CREDENTIALS_DIRECTORY": str(folder)}
    assert resolve("credential", "cloud", environ, Path("/")).text == "hunter2"  # as in a container
    unit.touch()
    with pytest.raises(ValueError, match=r"secrets/cloud is a link, .*put the secret itself there"):
        resolve("credential", "cloud", environ, Path("/"))
    (folder / "plain").symlink_to("cloud")
    monkeypatch.setattr(places, "SECRETS", tmp_path)
    assert resolve("credential", "plain", environ, Path("/")).text == "hunter2"  # a folder of one's own


@pytest.mark.parametrize("name", ["../cloud", "/etc/passwd", ".", "..", "a\0b", ""])
def test_a_credential_is_no_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a credential's name"):
        resolve("credential", name, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, tmp_path)


def test_what_cannot_be_read_says_so_without_its_text(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"hunter2\xff")
    binary.chmod(0o600)
    large = secret_file(tmp_path, "large", "hunter2" * 10_000)
    for name in (binary.name, large.name, "absent", "a\0b", "x" * 300, "."):
        with pytest.raises(ValueError, match=r"^the file ") as caught:
            resolve("file", name, {}, tmp_path)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, OSError)
