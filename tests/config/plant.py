"""Protocols and uploaders of the tests' own: Settings of every kind that may be declared."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.config.layout import layout
from gateway.settings import Secret, setting
from gateway.settings import Settings as Group

ROOT = layout(
    {"plant": "tests.config.plant", "broken": "tests.config.not_there"}, {"cloud": "tests.config.cloud"}
)


def _even(value: int) -> None:
    if value % 2:
        raise ValueError("it must be even")


@dataclass(frozen=True, kw_only=True)
class Limits(Group):
    """A group within a group."""

    low: float = setting(0.0, help="Lower end.")
    high: float = setting(1.0, help="Upper end.")

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


@dataclass(frozen=True, kw_only=True)
class Certificate(Group):
    certificate: str = setting(help="PEM file.", example="a.pem")
    key: str = setting(help="PEM file.")


@dataclass(frozen=True, kw_only=True)
class Settings(Group):
    """Everything that a setting can be."""

    SHORT = "url"

    url: str = setting("plant://", help="Where it is.")
    enabled: bool = setting(default=True, help="A bool.")
    count: int = setting(4, help="A whole number.", low=0, high=100, check=_even)
    ratio: float = setting(0.5, help="A number.", low=0)
    mode: Literal["fast", "slow", "off"] = setting("fast", help="A word.")
    cycle_s: float = setting(1.0, help="A duration in seconds.", low=0.01, high=86400)
    wait_ms: int = setting(500, help="A duration in milliseconds.", low=0, high=60000)
    keep_s: Literal["forever"] | float | None = setting(None, help="A word, a duration or nothing.")
    buffer_bytes: int = setting(1 << 20, help="A size.")
    password: Secret | None = setting(None, help="A secret.")
    names: tuple[str, ...] = setting((), help="A list of texts.")
    waits_s: tuple[float, ...] = setting((1.0, 2.0), help="A list of durations.")
    headers: Mapping[str, str | Secret] = setting({}, help="Names with text or a secret.")
    options: Mapping[str, str | int | bool] = setting({}, help="Names with anything.")
    pace_per_s: int = setting(10, help="A rate.")
    limits: Limits = setting(Limits(), help="A group.")
    tls: Literal["self-signed", "off"] | Certificate = setting("self-signed", help="A word or a group.")
    folder: Path | None = setting(None, help="A path.")
    renamed_thing: int = setting(1, help="Called otherwise in the YAML.", yaml="thing")


@dataclass(frozen=True, kw_only=True)
class TagSettings(Group):
    """A tag."""

    SHORT = "node"

    node: str = setting(help="Where it is.")
    unit: str = setting("", help="Unit of measure.")
    scale: float = setting(1.0, help="A factor.")
