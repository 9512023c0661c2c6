"""Reads the configuration file, and the environment laid over it."""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from gateway import protocols
from gateway.api.settings import POINTS_DEVICE, HttpSettings
from gateway.config.last_good import Source
from gateway.config.layout import GatewaySettings, Whole, layout
from gateway.config.overrides import PREFIX, lay_over, overrides_in
from gateway.config.problems import ConfigProblems, Place, Problems, without_userinfo
from gateway.config.reading import INVALID, At, Kinded, Reader
from gateway.config.shapes import Group
from gateway.config.yaml_source import MAX_BYTES, MapNode, RefusedNode, ScalarNode, parse_bytes
from gateway.logs import LogSettings
from gateway.measurements.settings import MeasurementSettings
from gateway.model import Device
from gateway.settings import Settings
from gateway.store.settings import StoreSettings

_DEVICES: Final = f"{PREFIX}DEVICES"
_NO_FILE: Final = b"{}\n"
_MISSING: Final = f"there is no such file: write it, or name the devices in the environment, in {_DEVICES}"
_EMPTY: Final = 'the file says nothing; write "devices:" and under it your devices'


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """A device as configured; equal where a running session need not be restarted."""

    id: str
    kind: str
    device: Device
    settings: Any
    """The Settings of its kind's module."""
    url: str
    """For display: without user name and password; "" where the kind has none."""
    lacking: str = ""
    """Why it cannot be used: secrets that it needs and that cannot be had."""


@dataclass(frozen=True, slots=True)
class UploadConfig:
    """An upload as configured; equal where it need not be restarted."""

    id: str
    kind: str
    settings: Any
    lacking: str = ""
    """Why it cannot be used: secrets that it needs and that cannot be had."""


@dataclass(frozen=True, slots=True)
class Config:
    """A valid configuration."""

    gateway: GatewaySettings
    http: HttpSettings
    store: StoreSettings
    logs: LogSettings
    measurements: MeasurementSettings
    devices: Mapping[str, DeviceConfig]
    uploads: Mapping[str, UploadConfig]
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What is allowed and yet probably not meant, as `file:line:column: sentence`."""
    lacking: tuple[str, ...] = field(default=(), compare=False)
    """The secrets that could not be had, as `file:line:column: sentence`; what needs them cannot be used."""
    source: Source = field(default=Source(b"", {}), compare=False, repr=False)
    http_at: str = field(default="", compare=False)
    """Where `http` is written, as file:line:column."""

    def unable(self) -> list[str]:
        """Name the devices and uploads that lack a secret, as "device press-07"."""
        devices = [f"device {each.id}" for each in self.devices.values() if each.lacking]
        return devices + [f"upload {each.id}" for each in self.uploads.values() if each.lacking]


def load(path: Path, environ: Mapping[str, str] | None = None, *, root: Group | None = None) -> Config:
    """Read a configuration file and the environment laid over it. ConfigProblems: it cannot be used.

    The file may be missing where the environment names the devices, as in a container.
    """
    environ = os.environ if environ is None else environ
    config = config_of(source_of(path, environ), path, path, environ, root)
    if config.lacking:
        raise ConfigProblems(config.lacking)
    return config


def source_of(path: Path, environ: Mapping[str, str]) -> Source:
    """Return what a configuration is to be read from. ConfigProblems: the file cannot be read."""
    problems = Problems()
    overrides = overrides_in(environ)
    without = _DEVICES in overrides and not os.path.lexists(path)
    data = _NO_FILE if without else _bytes(path, problems)
    if data is None:
        raise ConfigProblems(problems.listed())
    return Source(data, overrides)


def _bytes(path: Path, problems: Problems) -> bytes | None:
    """Return at most one byte more than is taken."""
    whole = Place(str(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as handle:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                problems.add(whole, "this is not a regular file")
                return None
            return handle.read(MAX_BYTES + 1)
    except FileNotFoundError:
        problems.add(whole, _MISSING)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        problems.add(whole, f"the file cannot be read: {reason}")
    return None


def config_of(
    source: Source, path: Path, shown: Path, environ: Mapping[str, str], root: Group | None = None
) -> Config:
    """Return the configuration of a source, with the secrets it lacks. ConfigProblems: it cannot be used.

    `path`: whose folder relative names are of; `shown`: what the places name.
    """
    problems = Problems()
    root = root or layout()
    beginning = Place(str(shown), 1, 1)
    tree = parse_bytes(source.yaml, str(shown), problems)
    if isinstance(tree, ScalarNode) and tree.plain and not tree.text:
        tree = None
    if tree is None and not problems.found:
        problems.add(beginning, _EMPTY)
    elif isinstance(tree, MapNode):
        lay_over(tree, root, source.overrides, problems)
    elif tree is not None and not isinstance(tree, RefusedNode):
        problems.add(tree.place, 'names and their values are wanted here, as in "devices:"')
        tree = None
    reader = Reader(problems, environ, path.absolute().parent)
    whole = reader.read(root, tree, At("gateway.yaml", beginning)) if tree is not None else INVALID
    if isinstance(whole, Whole):
        _check_points_device(whole, problems)
    if not problems.only_secrets() or whole is INVALID:
        raise ConfigProblems(problems.listed())
    assert isinstance(whole, Whole)
    http = tree.entries.get("http") if isinstance(tree, MapNode) else None
    http_at = str(http.key_place if http is not None else beginning)
    return replace(_assembled(whole, source, shown), lacking=tuple(problems.listed()), http_at=http_at)


def _check_points_device(whole: Whole, problems: Problems) -> None:
    taken = whole.devices.get(POINTS_DEVICE) if whole.http.compat.timeseries is not None else None
    if taken is not None and taken.kind != "push":
        problems.add(
            taken.places[""],
            f'"{POINTS_DEVICE}" takes the points of http.compat.timeseries, so it is a device that pushes; '
            f"give this one another name",
        )


def _assembled(whole: Whole, source: Source, shown: Path) -> Config:
    devices = {name: _device(name, kinded) for name, kinded in whole.devices.items()}
    if whole.http.compat.timeseries is not None and POINTS_DEVICE not in devices:
        settings = protocols.load("push").Settings()
        devices[POINTS_DEVICE] = DeviceConfig(POINTS_DEVICE, "push", Device(POINTS_DEVICE), settings, "")
    uploads = {
        name: UploadConfig(name, each.kind, each.settings, each.lacking)
        for name, each in whole.uploads.items()
    }
    warnings = tuple(_warnings(whole, devices, shown))
    return Config(
        whole.gateway, whole.http, whole.store, whole.logs, whole.measurements, devices, uploads, warnings,
        source=source,
    )  # fmt: skip


def _device(name: str, kinded: Kinded) -> DeviceConfig:
    where = {tag: f"{place.source}:{place.line}" for tag, place in kinded.places.items()}
    url = without_userinfo(str(getattr(kinded.settings, "url", "") or ""))
    device = Device(name, kinded.tags, where)
    return DeviceConfig(name, kinded.kind, device, kinded.settings, url, kinded.lacking)


def _warnings(whole: Whole, devices: Mapping[str, DeviceConfig], shown: Path) -> Iterable[str]:
    first: dict[tuple[str, str], str] = {}
    for name, device in devices.items():
        same = first.setdefault((device.kind, device.url), name)
        if device.url and same != name:
            what = f"the same {device.kind} device, {device.url}"
            yield f'{whole.devices[name].places[""]}: "{name}" and "{same}" are {what}'
    for name, each in (*whole.devices.items(), *whole.uploads.items()):
        for file in _missing(each.settings):
            yield f'{each.places[""]}: "{name}": there is no file {file}'
    for file in _missing(whole.http):
        yield f"{shown}: http: there is no file {file}"


def _missing(settings: Settings) -> Iterator[Path]:
    for file in settings.files():
        # A folder that whoever asks may not look into, as /etc/ssl/private, says nothing.
        with contextlib.suppress(PermissionError):
            if not file.is_file():
                yield file
