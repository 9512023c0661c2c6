"""No input whatever brings anything but a Config or ConfigProblems."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import Config, ConfigProblems, load
from tests.config.plant import ROOT
from tests.config.test_broken import BROKEN

_VALID = """\
# a comment
gateway: {id: hall-3}
http: {listen: "127.0.0.1:8080", tls: off}
devices:
  press-07:
    plant:
      url: plant://a
      enabled: true
      count: 4
      cycle: 500ms
      buffer: 64MiB
      names: [a, "b", 'c']
      waits:
      - 1s
      - 2s
      headers: {a: b}
      password: {env: PASSWORD}
      tls:
        certificate: |
          a block
          of text
        key: >-
          folded
    tags:
      speed: n1
      force: {node: n2, unit: N, scale: 1e3}
uploads:
  cloud: {cloud: "https://cloud"}
"""
_PLACE = re.compile(
    r"[^\n]*gateway\.yaml(:[1-9][0-9]*:[1-9][0-9]*)?: \S[^\n]*|EDGE_GATEWAY__[^\n]*: \S[^\n]*"
)
SEEDS = [_VALID.encode(), *(file.read_bytes() for file in sorted(BROKEN.glob("*.yaml")))]
TOKENS = [b"\t", b"\0", b"\xff", b"&a ", b"*a", b"!!int ", b"<<: ", b"- ", b": ", b"{", b"}", b"[", b"]",
          b'"', b"'", b"|\n",
          b">\n", b"---\n", b"...\n", b"%YAML 1.1\n", b"? ", b"#", b"\r", b"\xc2\x85",
          b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"~", b"null", b"true", b"1e999", b".nan", b"9" * 400, b"@", b"`",
          b"[" * 40, b"{a: " * 40, b"plant", b"tags", b"\\", b"\xf0\x9f\x98\x80", b"\x1b", b"0x", b"-1s",
          b"{env: A}", b"{file: /}", b"{file: \"\\0\"}", b"{credential: ..}"]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Bytes of a valid or broken file with some cut out, doubled, or put in."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 40)))
        match draw(st.integers(0, 3)):
            case 0:
                del data[at:to]
            case 1:
                data[at:at] = draw(st.sampled_from(TOKENS))
            case 2:
                data[at:at] = data[at:to]
            case _:
                data[at:at] = draw(st.binary(max_size=4))
    return bytes(data)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "gateway.yaml"


def judge(file: Path, data: bytes, environ: dict[str, str]) -> None:
    file.write_bytes(data)
    try:
        assert isinstance(load(file, environ, root=ROOT), Config)
    except ConfigProblems as error:
        assert error.problems
        for line in error.problems:
            assert _PLACE.fullmatch(line), line
            assert line.isprintable()
            assert "hunter2" not in line or not _named_secret(data), line


def _named_secret(data: bytes) -> bool:
    """Whether each secret still has a name before it, that it can be known by."""
    return all(re.search(rb"(?i)password|token|secret", part) for part in data.split(b"hunter2")[:-1])


_often = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


@_often
@given(mutated())
def test_mutated_files(file: Path, data: bytes) -> None:
    judge(file, data, {"PASSWORD": "hunter2"})


@_often
@given(st.text(max_size=200))
def test_any_text(file: Path, text: str) -> None:
    judge(file, text.encode("utf-8", "surrogatepass"), {})


@_often
@given(
    st.lists(
        st.sampled_from(["DEVICES", "PRESS_07", "PLANT", "TAGS", "SPEED", "HTTP", "LISTEN", "TLS", "PASSWORD",
                         "HEADERS", "NAMES", "ENV", "CERTIFICATE", "", "_", "X", "UPLOADS", "CLOUD"]),
        max_size=6,
    ),
    st.one_of(
        st.text(max_size=30),
        st.sampled_from([token.decode("utf-8", "surrogateescape") for token in TOKENS]),
    ),
)  # fmt: skip
def test_any_variable(file: Path, path: list[str], value: str) -> None:
    judge(file, SEEDS[0], {"PASSWORD": "hunter2", "__".join(["EDGE_GATEWAY", *path]): value})


@pytest.mark.parametrize(
    "text",
    [
        "devices:\n  press-08:\nteway, password: hunter2}\n",  # found by test_mutated_files
        "devices:\n  ga\n  teway, password: hunter2}\n",
        "devices: {a: {plant: {url: x, password: [hunter2]}}}\n",
        "devices: {a: {plant: {passwordhunter2}}}\n",
        "http: {tls: passwordhunter2}\n",
        "gateway: {id: 'password hunter2'}\n",
        "http:\n  token: hunter2\n  listen: {password: hunter2}\n",
        "uploads: {token: hunter2, b: [{token: hunter2}]}\n",
    ],
)
def test_a_secret_in_a_wrong_place_is_not_shown(file: Path, text: str) -> None:
    with pytest.raises(ConfigProblems):
        load(file_with(file, text), {}, root=ROOT)
    judge(file, text.encode(), {})


def file_with(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def test_the_valid_seed_is_valid(file: Path) -> None:
    file.write_bytes(SEEDS[0])
    assert load(file, {"PASSWORD": "hunter2"}, root=ROOT).devices["press-07"].settings.count == 4
