"""The support bundle: everything that helps, and no canary."""

import base64
import json
import tarfile
import time
import urllib.parse
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.commands.support_bundle import support_bundle
from gateway.redaction import Redaction

CANARY = "cÄnary/7f3a+9 b"
"""With characters that each encoding writes differently."""
PLAIN = "canary7f3a9b"
GOOD = """\
devices: {a: {opcua: {url: "opc.tcp://plc:4840", user: me, password: {credential: plc}}}}
uploads: {c: {http: {url: "https://cloud/x", token: {env: CLOUD}}}}
"""
BROKEN = f"""\
devices:
  a: {{opcua: {{url: "opc.tcp://me:{PLAIN}@plc:4840", password: {PLAIN}}}}}
  b:
    opcua:
      url: opc.tcp://b:4840
      "password" : '{PLAIN}'
      passphrase: |
        {PLAIN}

        second {PLAIN}
      user: visible
"""


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    made = {name: tmp_path / name for name in ("state", "logs", "secrets")}
    for folder in made.values():
        folder.mkdir()
    (made["state"] / "admin-token").write_text(f"egw_{PLAIN}\n")
    (made["state"] / "tls").mkdir()
    (made["state"] / "tls" / "self-signed.pem").write_text(f"-----BEGIN PRIVATE KEY-----\n{PLAIN}\n")
    (made["secrets"] / "plc").write_text(CANARY + "\n")
    (made["secrets"] / "unused").write_text("first line\nunused-" + PLAIN)
    return made


def texts(out: Path) -> dict[str, str]:
    with tarfile.open(out) as bundle:
        return {
            each.name.partition("/")[2]: bundle.extractfile(each).read().decode()  # type: ignore[union-attr]
            for each in bundle.getmembers()
        }


def encodings(secret: str) -> list[str]:
    data = secret.encode()
    return [
        secret,
        urllib.parse.quote(secret),
        urllib.parse.quote(secret, safe=""),
        urllib.parse.quote_plus(secret),
        base64.b64encode(data).decode(),
        data.hex(),
        secret.encode("unicode_escape").decode(),
    ]


@pytest.mark.parametrize("yaml", [GOOD, BROKEN], ids=["valid", "broken"])
def test_no_canary_is_in_it(yaml: str, tmp_path: Path, folders: dict[str, Path]) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml)
    known = CANARY if yaml is GOOD else "no secret is known"
    (folders["logs"] / "edge-gateway.log").write_text(
        "device a: the session ended\n"
        + "\n".join(f"somebody logged {form}" for form in encodings(CANARY))
        + f"\nGET / with Authorization: Bearer {PLAIN}\ntoken egw_{PLAIN}\nhttps://me:{PLAIN}@cloud/x\n"
    )
    (folders["logs"] / "edge-gateway.log.1").write_text(f'{{"message": "unused-{PLAIN} and first line"}}\n')
    environ = {"CREDENTIALS_DIRECTORY": str(folders["secrets"]), "CLOUD": PLAIN}
    out = tmp_path / "bundle.tar.gz"
    support_bundle(out, file, folders["state"], environ, folders["logs"])
    assert out.stat().st_mode & 0o777 == 0o600
    held = texts(out)
    for name, text in held.items():
        assert PLAIN not in text, name
        for form in encodings(CANARY):
            assert form not in text, (name, known)
    assert "device a: the session ended" in held["logs/edge-gateway.log"]
    assert "opcua" in held["gateway.yaml"]
    assert "tls/self-signed.pem" in held["state.txt"]
    assert "plc:4840" in held["gateway.yaml"]
    if yaml is GOOD:
        assert "password: {credential: plc}" in held["gateway.yaml"]
        assert "token: {env: CLOUD}" in held["gateway.yaml"]
    else:
        assert "user: visible" in held["gateway.yaml"]
        assert "gateway.yaml:2:" in held["check.txt"]


def test_a_canary_would_be_found(
    tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control: without the redaction the test above fails."""
    monkeypatch.setattr(Redaction, "__call__", lambda _self, text: text)
    file = tmp_path / "gateway.yaml"
    file.write_text(BROKEN)
    out = tmp_path / "bundle.tar.gz"
    support_bundle(out, file, folders["state"], {}, folders["logs"])
    assert any(PLAIN in text for text in texts(out).values())


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("password: hunter2, user: me", "password: <secret>, user: me"),
        ('{"token": "a b", "x": 1}', '{"token": <secret>, "x": 1}'),
        ("Server=db;Uid=me;Pwd=hunter2;", "Server=db;Uid=me;Pwd=<secret>"),
        ("Cookie: session=hunter2; a=hunter2\nHost: x", "Cookie: <secret>\nHost: x"),
        ("< set-cookie: sid=hunter2; HttpOnly", "< set-cookie: <secret>"),
        ("token: {credential: cloud}", "token: {credential: cloud}"),
        ("X-Api-Key: 0f0f", "X-Api-Key: <secret>"),
        ("headers: {Ocp-Apim-Subscription-Key: '0f 0f'}", "headers: {Ocp-Apim-Subscription-Key: <secret>}"),
        ("  Authorization: ApiKey 0f0f", "  Authorization: <secret>"),
        ("X-Api-Key: {credential: cloud}", "X-Api-Key: {credential: cloud}"),
        ("no secret here", "no secret here"),
        ("https://u:p@host/", "https://<secret>@host/"),
        ("url: opc.tcp://user:pa@ss@plc:4840", "url: opc.tcp://<secret>@plc:4840"),
        ("password:\n  hunter2\nuser: me", "password:\n  <secret>\nuser: me"),
        ("  password:\n    file: /etc/key\n", "  password:\n    file: /etc/key\n"),
        ("http://h/b?a=1&X-Amz-Signature=0f0f&b=2", "http://h/b?a=1&X-Amz-Signature=<secret>&b=2"),
        ("http://h/b?sv=1&sig=a%2Bb%3D'", "http://h/b?sv=1&sig=<secret>'"),
        ("url: https://h/api/in?code=0f0f==", "url: https://h/api/in?code=<secret>"),
    ],
)
def test_what_looks_like_a_secret_goes(text: str, left: str) -> None:
    assert Redaction([])(text) == left


KEY = "-----BEGIN {0}PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7hunter2\nq/hunter2==\n-----END {0}PRIVATE KEY-----"


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "ENCRYPTED ", "OPENSSH "])
def test_a_private_key_is_a_secret_wherever_it_stands(kind: str) -> None:
    key = KEY.format(kind)
    redact = Redaction([])
    assert redact(f"before\n{key}\nafter {key} end") == "before\n<secret>\nafter <secret> end"
    assert redact(json.dumps({"key": key, "x": 1})) == '{"key": "<secret>", "x": 1}'
    assert "hunter2" not in redact(key[:60])  # cut short
    certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
    assert redact(certificate) == certificate


def test_each_line_of_a_known_secret_is_one() -> None:
    key = KEY.format("")
    redact = Redaction([f"{key}\nshort\n"])
    assert redact("a line: MIIEpAIBAAKCAQEA7hunter2, short") == "a line: <secret>, short"
    assert redact(KEY.format("").partition("\n")[0] + "?") == "<secret>"
    assert redact("-----END PRIVATE KEY-----") == "-----END PRIVATE KEY-----"


@pytest.mark.parametrize("word", ["x", "token", "password-", "my_secret:x="])
def test_a_long_word_costs_no_more_than_its_length(word: str) -> None:
    """Whoever gets a line into the log, by the path of a request perhaps, must not stop who reads it."""
    text = word * (400_000 // len(word)) + "\npassword: hunter2\n"
    before = time.process_time()
    assert "hunter2" not in Redaction(["nothing here"])(text)
    assert time.process_time() - before < 5  # the square of it takes minutes


@pytest.mark.parametrize("link", [False, True])
def test_nothing_that_is_there_is_overwritten(
    tmp_path: Path, folders: dict[str, Path], capsys: pytest.CaptureFixture[str], link: bool
) -> None:
    out, theirs = tmp_path / "bundle.tar.gz", tmp_path / "theirs"
    if link:
        out.symlink_to(theirs)
    else:
        out.write_text("theirs")
    arguments = ["support-bundle", str(out), "--state", str(folders["state"])]
    assert main([*arguments, "--config", str(tmp_path / "gateway.yaml")]) == 1
    assert f"{out} is there already" in capsys.readouterr().err
    assert not theirs.exists()
    assert link or out.read_text() == "theirs"
