"""What may stand below `can:`, and what the service has to be let to for it."""

from pathlib import Path
from typing import Any

import pytest

from gateway.config import ConfigProblems, load
from gateway.config.dropin import hosts, needed
from gateway.protocols import can


def read(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "gateway.yaml"
    file.write_text(f"devices:\n  cell-bus:\n    can: {text}\n")
    return load(file, {})


def test_the_example_of_the_design(tmp_path: Path) -> None:
    config = read(tmp_path, "{interface: socketcan, channel: can0, database: press.dbc}")
    settings = config.devices["cell-bus"].settings
    assert settings == can.Settings(database=tmp_path / "press.dbc")
    assert settings == read(tmp_path, "press.dbc").devices["cell-bus"].settings
    assert needed(config) == []


def test_how_much_listed_tags_can_give() -> None:
    settings = can.Settings(database=Path("a.dbc"))
    slow, each = can.TagSettings(signal="A.B", keep_interval_ms=10_000), can.TagSettings(signal="A.B")
    assert settings.most_samples_per_s({"slow": slow, "b": each}) == pytest.approx(1.1)
    assert settings.most_samples_per_s({}) is None
    every = can.TagSettings(signal="A.B", keep_interval_ms=0)
    assert settings.most_samples_per_s({"slow": slow, "every": every}) is None
    raw = can.Settings(database=Path("a.dbc"), raw_frames="all")
    assert raw.most_samples_per_s({"slow": slow}) is None  # every payload is kept beside


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "nothing says what the frames mean: add `database`, as press.dbc"),
        ("{database: a.dbc, interface: socketcand}", "socketcand wants `host`"),
        ("{database: a.dbc, host: pi}", "socketcan has neither `host` nor `port`"),
        ("{database: a.dbc, interface: slkan}", 'found "slkan"; did you mean "slcan"?'),
        ("{database: a.dbc, data_bitrate: 2000000}", "`data_bitrate` is for CAN FD"),
        ("{database: a.dbc, options: {x: 1}}", "socketcan takes no `options`"),
        ("{database: a.dbc, bitrate: 500}", "must be 1000 to 1000000"),
    ],
)
def test_what_will_not_do(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigProblems) as problems:
        read(tmp_path, text)
    (problem,) = problems.value.problems
    assert problem.startswith(f"{tmp_path}/gateway.yaml:3:")
    assert sentence in problem


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "{database: a.dbc, interface: slcan, channel: /dev/ttyNONE9@2000000}",
            "DeviceAllow=/dev/ttyNONE9 rw",
        ),
        ("{database: a.dbc, interface: gs_usb, channel: '0'}", "DeviceAllow=char-usb_device rw"),
        ("{database: a.dbc, interface: socketcand, host: 192.0.2.7}", ""),
    ],
)
def test_what_the_service_is_let_to(text: str, lines: str, tmp_path: Path) -> None:
    config = read(tmp_path, text)
    assert [line for line in needed(config) if "DeviceAllow" in line] == ([lines] if lines else [])
    assert hosts(config) == ([] if lines else ["192.0.2.7"])
