"""The whole: devices with one kind, ids, places, warnings, equality, the environment laid over it."""

import importlib
import sys
from pathlib import Path

import pytest

from gateway.config import ConfigProblems, load
from gateway.config.yaml_source import MAX_BYTES, MAX_DEPTH, MAX_NODES
from tests.config.conftest import Problems, Read
from tests.config.plant import Limits

YAML = """\
gateway: {id: hall-3}
devices:
  press-07:
    plant: plant://a
    tags:
      speed: n1
      force:
        node: n2
  Press.08:
    plant: {url: "plant://user:pass@b"}
uploads:
  cloud_1:
    cloud: https://cloud
"""


def test_it_holds_what_was_written(read: Read, tmp_path: Path) -> None:
    config = read(YAML)
    press = config.devices["press-07"]
    assert (config.gateway.id, press.id, press.kind, press.url) == (
        "hall-3",
        "press-07",
        "plant",
        "plant://a",
    )
    assert list(config.devices) == ["press-07", "Press.08"]
    assert config.uploads["cloud_1"].settings.url == "https://cloud"
    file = tmp_path / "gateway.yaml"
    assert press.device.where == {"": f"{file}:3", "speed": f"{file}:6", "force": f"{file}:7"}


def test_a_url_is_shown_without_its_password(read: Read) -> None:
    config = read(YAML)
    assert config.devices["Press.08"].url == "plant://b"
    assert config.devices["Press.08"].settings.url == "plant://user:pass@b"


def test_a_moved_line_is_no_change_and_a_changed_value_is_one(read: Read) -> None:
    before = read(YAML)
    moved = read("# a comment\n\n" + YAML)
    assert moved == before
    changed = read(YAML.replace("node: n2", "node: n3"))
    assert changed.devices["press-07"] != before.devices["press-07"]
    assert changed.devices["Press.08"] == before.devices["Press.08"]


def test_two_devices_with_one_url_are_a_warning(read: Read, tmp_path: Path) -> None:
    config = read("devices:\n  a: {plant: 'plant://x'}\n  b: {plant: 'plant://x'}\n")
    assert config.warnings == (
        f'{tmp_path}/gateway.yaml:3:3: "b" and "a" are the same plant device, plant://x',
    )


def test_a_kind_that_nobody_names_is_not_imported(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tests.config.cloud", raising=False)
    read("devices: {a: {plant: }}\n")
    assert "tests.config.cloud" not in sys.modules
    importlib.import_module("tests.config.cloud")


def test_a_kind_that_cannot_be_imported_is_a_problem(problems: Problems) -> None:
    (line,) = problems("devices:\n  a:\n    broken: x\n")
    assert line.startswith('gateway.yaml:3:5: "broken" cannot be used here: No module named')


def test_two_kinds_and_the_problems_within_them(problems: Problems) -> None:
    assert problems("devices:\n  a:\n    plant: {count: 3}\n    broken: {x: 1}\n    tags: {t: {}}\n")[:2] == [
        'gateway.yaml:3:20: "count" will not do: it must be even',
        'gateway.yaml:4:5: "a" has a protocol already, "plant"; keep one of them',
    ]


@pytest.mark.parametrize("name", ["missing.yaml", ".", "/dev/null", "a\0b", "x" * 300])
def test_a_file_that_cannot_be_read_is_a_problem(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigProblems) as caught:
        load(tmp_path / name, {})
    assert len(caught.value.problems) == 1


def test_the_bounds_hold(problems: Problems) -> None:
    assert problems(b"#" * (MAX_BYTES + 1)) == [
        f"gateway.yaml:1:1: the file is larger than {MAX_BYTES} bytes"
    ]
    deep = "a: " + "[" * 3000 + "]" * 3000
    assert problems(deep) == [f"gateway.yaml:1:35: the nesting is deeper than {MAX_DEPTH} levels"]
    wide = "a: [" + "1," * MAX_NODES + "]"
    assert problems(wide)[0].endswith(f"the file has more than {MAX_NODES} values")


def test_thousands_of_problems_are_not_all_listed(problems: Problems) -> None:
    found = problems("".join(f"unknown-{n}: 1\n" for n in range(1500)))
    assert len(found) == 1001
    assert found[-1] == "gateway.yaml: 500 more problems are not listed"


def test_a_byte_order_mark_and_windows_line_ends_are_taken(read: Read, problems: Problems) -> None:
    assert read(b"\xef\xbb\xbf" + YAML.replace("\n", "\r\n").encode()) == read(YAML)
    assert problems(b"\xef\xbb\xbfdevices:\r\n  a:\r\n    plnt: x\r\n")[0].startswith("gateway.yaml:3:5: ")


@pytest.mark.seed_row("L8")
def test_the_environment_goes_before_the_file(read: Read) -> None:
    config = read(
        YAML,
        {
            "EDGE_GATEWAY__GATEWAY__ID": "12",
            "EDGE_GATEWAY__HTTP__LISTEN": "[::1]:8080",
            "EDGE_GATEWAY__DEVICES__PRESS_07__PLANT__COUNT": "8",
            "EDGE_GATEWAY__DEVICES__PRESS_07__PLANT__LIMITS": "{low: 1, high: 2}",
            "EDGE_GATEWAY__DEVICES__PRESS_07__PLANT__OPTIONS": "{baud: 9600, echo: true, a: '2', b: N}",
            "EDGE_GATEWAY__DEVICES__PRESS_07__TAGS__SPEED__UNIT": "rpm",
            "EDGE_GATEWAY__DEVICES__PRESS_08__PLANT__PACE_PER_S": "20",
            "EDGE_GATEWAY__DEVICES__PRESS_08__PLANT__TLS__CERTIFICATE": "a.pem",
            "EDGE_GATEWAY__DEVICES__PRESS_08__PLANT__TLS__KEY": "a.key",
            "EDGE_GATEWAY__UPLOADS__CLOUD_1__CLOUD__TOKEN__ENV": "TOKEN",
            "TOKEN": "hunter2",
            "EDGE_GATEWAY_HOME": "not a setting",
        },
    )
    press = config.devices["press-07"]
    assert (config.gateway.id, config.http.listen) == ("12", "[::1]:8080")
    assert (press.settings.url, press.settings.count) == ("plant://a", 8)
    assert press.settings.limits == Limits(low=1, high=2)
    assert press.settings.options == {"baud": 9600, "echo": True, "a": "2", "b": "N"}
    assert (press.device.tags["speed"].node, press.device.tags["speed"].unit) == ("n1", "rpm")
    assert config.devices["Press.08"].settings.tls.key == "a.key"
    assert config.devices["Press.08"].settings.pace_per_s == 20, "a rate is a number, no duration"
    assert config.uploads["cloud_1"].settings.token.text == "hunter2"


def test_problems_of_the_environment_name_the_variable(problems: Problems) -> None:
    assert problems(
        YAML,
        {
            "EDGE_GATEWAY__HTPP__LISTEN": "127.0.0.1:8080",
            "EDGE_GATEWAY__DEVICES__PRESS_09__PLANT": "plant://c",
            "EDGE_GATEWAY__DEVICES__PRESS_07__PLANT__COUNT": "7",
            "EDGE_GATEWAY__DEVICES__PRESS_07__PLANT__RATIO": "[",
            "EDGE_GATEWAY__DEVICES__PRESS_07__PLANT__URL__HOST": "x",
            "EDGE_GATEWAY__UPLOADS__CLOUD_1__CLOUD__TOKEN": "hunter2",
            "EDGE_GATEWAY__": "x",
        },
    ) == [
        'EDGE_GATEWAY__: no setting is meant by "" here; there is GATEWAY, HTTP, STORE, LOGS, '
        "MEASUREMENTS, DEVICES, ...",
        'EDGE_GATEWAY__DEVICES__PRESS_07__PLANT__COUNT: "count" will not do: it must be even',
        "EDGE_GATEWAY__DEVICES__PRESS_07__PLANT__RATIO: a value is missing here",
        'EDGE_GATEWAY__DEVICES__PRESS_07__PLANT__URL__HOST: "url" has no settings within it, '
        '"HOST" cannot be set',
        'EDGE_GATEWAY__DEVICES__PRESS_09__PLANT: no setting is meant by "PRESS_09" here; '
        'did you mean "Press.08"?',
        'EDGE_GATEWAY__HTPP__LISTEN: no setting is meant by "HTPP" here; did you mean "http"?',
        'EDGE_GATEWAY__UPLOADS__CLOUD_1__CLOUD__TOKEN: "token" is a secret, which is never written in the '
        "file itself; write {env: NAME}, {file: PATH} or {credential: NAME}",
    ]


def test_a_variable_that_could_mean_two_devices_is_a_problem(problems: Problems) -> None:
    yaml = "devices:\n  a-b: {plant: }\n  a.b: {plant: }\n"
    assert problems(yaml, {"EDGE_GATEWAY__DEVICES__A_B__PLANT__URL": "plant://x"}) == [
        'EDGE_GATEWAY__DEVICES__A_B__PLANT__URL: no setting is meant by "A_B" here; it could be a-b or a.b'
    ]


def test_a_variable_of_a_kind_that_cannot_be_imported_is_a_problem(problems: Problems) -> None:
    found = problems("devices:\n  a: {broken: }\n", {"EDGE_GATEWAY__DEVICES__A__BROKEN__URL": "x"})
    assert '"broken" cannot be used here' in found[0]


def test_text_that_no_file_could_hold_is_a_problem(problems: Problems) -> None:
    (line,) = problems(YAML, {"EDGE_GATEWAY__HTTP__LISTEN": "127.0.0.1:80\udcff"})
    assert line.startswith("EDGE_GATEWAY__HTTP__LISTEN: the control character U+DCFF cannot stand")


def test_a_problem_is_one_line_whatever_it_quotes(problems: Problems) -> None:
    (line,) = problems('devices:\n  a: {plant: {password: {env: "A\\nB\\x1b"}}}\n')
    assert line.endswith("the environment variable A\\x0aB\\x1b is not set")


def test_a_name_with_two_underscores_is_found(read: Read) -> None:
    config = read("devices:\n  a__b: {plant: }\n", {"EDGE_GATEWAY__DEVICES__A__B__PLANT__URL": "plant://x"})
    assert config.devices["a__b"].url == "plant://x"
