"""What every command does with a terminal of another encoding, a closed pipe, and a user who may not."""

import contextlib
import ctypes
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import control_socket
from gateway.__main__ import main
from gateway.model import GatewayError

_LINE = [sys.executable, "-m", "gateway"]
_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


def said(*words: object, **more: str) -> tuple[int, str, str]:
    """Run a command as somebody whom the permissions of files hold up, though it be root."""

    def obeys_permissions() -> None:
        for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
            ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)

    done = subprocess.run(
        [*_LINE, *map(str, words)],
        env=os.environ | more,
        capture_output=True,
        timeout=60,
        preexec_fn=obeys_permissions if os.geteuid() == 0 else None,
    )
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Path]:
    """A state folder of somebody else."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o700 if os.geteuid() == 0 else 0)
    with contextlib.suppress(PermissionError):
        os.chown(folder, 4242, 4242)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize(
    "words",
    [
        "token make",
        "token list",
        "export",
        "verify",
        "backup {there}",
        "browse opc.tcp://127.0.0.1:1",
        "status",
        "health",
        "reload",
        "trust",
        "tail",
    ],
)
def test_who_may_not_is_told_what_to_do(foreign: Path, words: str) -> None:
    line = words.format(there=foreign.parent / "there").split()
    code, out, err = said(*line, "--state", foreign)
    assert (code, out) == (1, "")
    assert "Permission denied; try it as root" in err and str(foreign) in err
    assert len(err.splitlines()) == 1, err


@pytest.mark.parametrize("action", ["make", "list", "revoke"])
def test_tokens_of_a_folder_that_is_not_there(
    tmp_path: Path, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", action, "--state", str(tmp_path / "wrong")]) == 1
    assert "there is no state folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", ["settings", "settings --schema", "check {file}"])
def test_a_reader_who_has_enough_is_no_failure(tmp_path: Path, words: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("devices:\n" + "".join(f"  d{n}: {{nothing: }}\n" for n in range(2000)))
    line = shlex.join([*_LINE, *words.format(file=file).split()])
    done = subprocess.run(
        ["bash", "-c", f"{line} | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_terminal_cannot_show_is_escaped(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("devices:\n  \N{RIGHTWARDS ARROW}x: {push: , t\xe4gs: 1}\n", encoding="utf-8")
    code, out, err = said("check", file, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (code, err) == (1, "")
    shown = out.encode("latin-1").decode(encoding)
    assert ("t\\xe4gs" if encoding == "ascii" else "t\xe4gs") in shown
    assert ("\N{RIGHTWARDS ARROW}x" if encoding == "utf-8" else "\\u2192x") in shown


def test_what_a_device_says_in_an_error_is_shown_and_not_obeyed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def hostile(*_: object) -> None:
        raise GatewayError("first\nsecond \x1b[2Jx")

    monkeypatch.setattr(control_socket, "ask", hostile)
    assert main(["status", "--state", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "edge-gateway: first\nsecond \N{REPLACEMENT CHARACTER}[2Jx\n"
