"""What `check` says of files that the installed service will not see."""

from pathlib import Path

import pytest

from gateway import places
from gateway.config import sandbox
from gateway.config.check import check

TEXT = """\
devices:
  bus: {{can: {{database: [{0}/press.dbc, seen.dbc, /etc/edge-gateway/oven.dbc]}}}}
uploads:
  cloud: {{http: {{url: 'https://cloud.example', ca: {0}/ca.pem, token: {{file: {0}/token}}}}}}
http:
  tls: {{certificate: {0}/tls.pem, key: /srv/link/tls.key}}
  compat: {{timeseries: {{users: {0}/users.json}}}}
store: {{path: {0}/store}}
measurements: {{path: /home/pi/files}}
"""


@pytest.mark.parametrize("installed", [True, False])
def test_check_names_what_the_sandbox_hides(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit, home, etc = tmp_path / "edge-gateway.service", tmp_path / "pi", tmp_path / "etc"
    home.mkdir()
    etc.mkdir()
    monkeypatch.setattr(places, "UNITS", (unit,))
    monkeypatch.setattr(sandbox, "_HIDDEN", (str(tmp_path), "/home"))
    resolve = Path.resolve
    monkeypatch.setattr(
        Path, "resolve", lambda path: Path("/home/x") if "link" in path.parts else resolve(path)
    )
    if installed:
        unit.touch()
    (home / "token").touch(0o600)
    (home / "token").write_text("hunter2")
    file = etc / "gateway.yaml"
    file.write_text(TEXT.format(home))
    checked = check(file, {})
    assert checked.code == 0
    said = [line.split(": its unit")[0] for line in checked.lines if "does not see" in line]
    not_seen = "the service does not see"
    expected = [
        f"{file}:2: {not_seen} {home}/press.dbc",
        f"{file}: uploads.cloud: {not_seen} {home}/ca.pem",
        f"{file}: uploads.cloud: {not_seen} {home}/token",
        f"{file}:5:1: {not_seen} {home}/tls.pem",
        f"{file}:5:1: {not_seen} /srv/link/tls.key",
        f"{file}:5:1: {not_seen} {home}/users.json",
        f"{file}: store.path: {not_seen} {home}/store",
        f"{file}: measurements.path: {not_seen} /home/pi/files",
    ]
    assert said == (expected if installed else [])
    assert all(line.endswith("(a warning)") for line in checked.lines if "does not see" in line)


@pytest.mark.parametrize("path", ["/home/pi/x", "/root/x", "/run/user/1000/x", "/tmp/x", "/var/tmp/x"])
def test_what_the_unit_says_is_what_is_hidden(path: str) -> None:
    unit = (Path(__file__).parents[2] / "systemd" / "edge-gateway.service").read_text().splitlines()
    assert {"ProtectHome=yes", "PrivateTmp=yes"} <= {*unit}
    assert path.startswith(sandbox._HIDDEN)
