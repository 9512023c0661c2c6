"""Every kind of setting as written, and what is said where it will not do."""

from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Secret
from tests.config.conftest import Problems, Read
from tests.config.plant import Certificate, Limits, Settings, TagSettings


def plant(lines: str) -> str:
    return f"devices:\n  press:\n    plant: {{{lines}}}\n"


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ("enabled: false", "enabled", False),
        ("enabled: TRUE", "enabled", True),
        ("count: 0x10", "count", 16),
        ("count: 0o10", "count", 8),
        ("count: 010", "count", 10),
        ("ratio: 1e3", "ratio", 1000.0),
        ("ratio: .5", "ratio", 0.5),
        ("ratio: 3", "ratio", 3.0),
        ("mode: off", "mode", "off"),
        ("cycle: 500ms", "cycle_s", 0.5),
        ("cycle: 1.5 m", "cycle_s", 90.0),
        ("cycle: 1d", "cycle_s", 86400.0),
        ("wait: 0", "wait_ms", 0),
        ("wait: 1.5s", "wait_ms", 1500),
        ('wait: "2s"', "wait_ms", 2000),
        ("keep: forever", "keep_s", "forever"),
        ("keep: 1h", "keep_s", 3600.0),
        ("keep: null", "keep_s", None),
        ("buffer: 64MiB", "buffer_bytes", 64 << 20),
        ("buffer: 4GB", "buffer_bytes", 4_000_000_000),
        ("buffer: 1.5kB", "buffer_bytes", 1500),
        ("names: [no, off, on, 'yes', \"12\", 2024-01-01, '12:30:45']", "names",
         ("no", "off", "on", "yes", "12", "2024-01-01", "12:30:45")),
        ("names: ", "names", ()),
        ("waits: [1s, 250ms]", "waits_s", (1.0, 0.25)),
        ("headers: {X-Key: a}", "headers", {"X-Key": "a"}),
        ("headers: ", "headers", {}),
        ("limits: {high: 3}", "limits", Limits(low=0.0, high=3.0)),
        ("limits: ", "limits", Limits()),
        ("tls: off", "tls", "off"),
        ("tls: {certificate: a, key: b}", "tls", Certificate(certificate="a", key="b")),
        ("tls: ", "tls", "self-signed"),
        ("thing: 7", "renamed_thing", 7),
        ("url: 12:30:45", "url", "12:30:45"),
        ("url: 'true'", "url", "true"),
    ],
)  # fmt: skip
def test_a_setting_as_written(read: Read, written: str, field: str, value: Any) -> None:
    found = getattr(read(plant(written)).devices["press"].settings, field)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("enabled: on", '3:22: "enabled" wants true or false, found "on"; write true'),
        ("enabled: 0", '3:22: "enabled" wants true or false, found the number 0; write false'),
        ("count: 7", '3:20: "count" will not do: it must be even'),
        ("count: 101", '3:20: "count" must be 0 to 100, found 101'),
        ("count: 1.0", '3:20: "count" wants a whole number, found the number 1.0'),
        ("ratio: -1", '3:20: "ratio" must be at least 0, found -1'),
        ("ratio: .inf", '3:20: "ratio" wants a finite number, found the number .inf'),
        ("ratio: 1e400", '3:20: "ratio" is too large a number, found the number 1e400'),
        ("mode: fats", '3:19: "mode" must be fast, slow or off, found "fats"; did you mean "fast"?'),
        ("mode: no", '3:19: "mode" must be fast, slow or off, found "no"'),
        ("cycle: 10", '3:20: "cycle" needs a unit, as in "10s", found the number 10'),
        ("wait: 10", '3:19: "wait" needs a unit, as in "10ms", found the number 10'),
        ("cycle: 2d", '3:20: "cycle" must be 10ms to 1d, found 2d'),
        ("wait: 0.1ms", '3:19: "wait" is not a whole number of milliseconds, found "0.1ms"'),
        ("cycle: 1 week",
         '3:20: "cycle" has an unknown unit; the units are ms, s, m, h and d, found "1 week"'),
        ("keep: forevr",
         '3:19: "keep" wants forever or a duration such as "500ms", "1s", "2m", "1h" or "1d", '
         'found "forevr"; did you mean "forever"?'),
        ("names: a", '3:20: "names" wants a list, found "a"; a list of one is written [...]'),
        ("names: [a, [b]]", '3:24: "names" wants text, found a list'),
        ("headers: [a]", '3:22: "headers" wants a group of names, found a list'),
        ("limits: {low: 2}", '3:13: "limits" will not do: low is above high'),
        ("limits: 3", '3:21: "limits" wants a group (low: ..., high: ...), found the number 3'),
        ("tls: {certificate: a}", '3:13: "tls" needs the setting "key"'),
        ("tls: [a]",
         '3:18: "tls" wants self-signed or off or a group (certificate: ..., key: ...), found a list'),
        ("cycle: ", '3:13: "cycle" has no value; it wants a duration such as "500ms", "1s", "2m", "1h" or '
         '"1d", or remove the line'),
        ("url: http://a:hunter2@b, count: http://a:hunter2@b",
         '3:45: "count" wants a whole number, found "http://b"'),
        ("cycle_s: 1s", '3:13: "cycle_s" is not a known setting here; did you mean "cycle"?'),
    ],
)  # fmt: skip
def test_what_is_said_of_a_wrong_value(problems: Problems, written: str, sentence: str) -> None:
    assert problems(plant(written)) == [f"gateway.yaml:{sentence}"]


def test_a_long_number_is_a_problem_and_nothing_worse(problems: Problems) -> None:
    assert problems(plant(f"count: {'9' * 5000}"))[0].startswith(
        'gateway.yaml:3:20: "count" has too many digits'
    )


def test_a_bare_scalar_is_short_for_its_group(read: Read) -> None:
    config = read(
        "devices:\n  press:\n    plant: plant://a\n    tags: {speed: n1, force: {node: n2, unit: N}}\n"
    )
    assert config.devices["press"].settings == Settings(url="plant://a")
    assert config.devices["press"].device.tags == {
        "speed": TagSettings(node="n1"),
        "force": TagSettings(node="n2", unit="N"),
    }


def test_nothing_at_all_means_all_defaults(read: Read) -> None:
    config = read("gateway:\nhttp:\nstore:\ndevices:\n  press:\n    plant:\n    tags:\nuploads:\n")
    assert config.devices["press"].settings == Settings()
    assert config.uploads == {}
    assert config.http == type(config.http)()


def test_a_path_starts_at_the_folder_of_the_file(read: Read, tmp_path: Path) -> None:
    assert read(plant("folder: trust")).devices["press"].settings.folder == tmp_path / "trust"
    assert read(plant("folder: /etc/trust")).devices["press"].settings.folder == Path("/etc/trust")


@pytest.mark.parametrize("by_environment", [False, True])
def test_one_of_several_texts_may_be_a_secret(read: Read, *, by_environment: bool) -> None:
    headers, environ = "{X-Site: hall 3, X-Api-Key: {env: KEY}}", {"KEY": "hunter2"}
    if by_environment:
        environ["EDGE_GATEWAY__DEVICES__PRESS__PLANT__HEADERS"] = headers
    config = read(plant("" if by_environment else f"headers: {headers}"), environ)
    found = config.devices["press"].settings.headers
    assert found == {"X-Site": "hall 3", "X-Api-Key": Secret("env KEY", "hunter2")}
    assert "hunter2" not in f"{config} {config!r}"


def test_a_secret_prints_its_reference_only(read: Read) -> None:
    config = read(plant("password: {env: PASSWORD}"), {"PASSWORD": "hunter2\n"})
    secret = config.devices["press"].settings.password
    assert secret == Secret("env PASSWORD", "hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {config} {config!r}"
