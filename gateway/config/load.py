"""Reads the configuration file, the environment laid over it, and the last good one in its place."""

import contextlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from gateway import protocols
from gateway.api.settings import POINTS_DEVICE, HttpSettings
from gateway.config.last_good import Source, keep_good, kept_file, read_good
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

    def unable(self) -> list[str]:
        """Name the devices and uploads that lack a secret, as "device press-07"."""
        devices = [f"device {each.id}" for each in self.devices.values() if each.lacking]
        return devices + [f"upload {each.id}" for each in self.uploads.values() if each.lacking]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The configuration to run with; `problems` says why it is the last good one, and what it lacks."""

    config: Config
    problems: tuple[str, ...] = ()
    from_last_good: bool = False


def load(path: Path, environ: Mapping[str, str] | None = None, *, root: Group | None = None) -> Config:
    """Read a configuration file and the environment laid over it. ConfigProblems: it cannot be used.

    The file may be missing where the environment names the devices, as in a container.
    """
    environ = os.environ if environ is None else environ
    config = _config(_source(path, environ), path, path, environ, root)
    if config.lacking:
        raise ConfigProblems(config.lacking)
    return config


def take(
    path: Path, state: Path, environ: Mapping[str, str] | None = None, unable: Collection[str] = ()
) -> Config:
    """Read a configuration file and keep it as the last good one.

    ConfigProblems: it cannot be used; a missing secret is no reason where only those need it that are
    `unable` already.
    """
    environ = os.environ if environ is None else environ
    config = _config(_source(path, environ), path, path, environ)
    if not {*config.unable()} <= {*unable}:
        raise ConfigProblems(config.lacking)
    return _kept(config, path, state)


def load_or_last_good(path: Path, state: Path, environ: Mapping[str, str] | None = None) -> Loaded:
    """Read a configuration file, or where it is broken the last valid one of this file.

    A secret that cannot be had costs only the device or upload that needs it, unless the file is an edit
    that was never valid. ConfigProblems: neither can be used; its `ever_valid` says whether there was a
    valid one.
    """
    environ = os.environ if environ is None else environ
    config = None
    try:
        config = _config(_source(path, environ), path, path, environ)
        problems = config.lacking
    except ConfigProblems as error:
        problems = error.problems
    if config is not None and not problems:
        return Loaded(_kept(config, path, state))
    kept = kept_file(state, path)
    try:
        source = read_good(state, path)
        if config is not None and source in (None, config.source):
            return Loaded(_kept(config, path, state), problems)
        if source is None:
            raise ConfigProblems(problems)
        good = _config(source, path, kept, environ)
        return Loaded(good, (*problems, *good.lacking), from_last_good=True)
    except OSError as error:
        sentence = f"{kept}: the last valid configuration cannot be read: {error.strerror}"
        raise ConfigProblems([*problems, sentence], ever_valid=True) from error
    except ConfigProblems as error:
        if error.problems == problems:
            raise
        raise ConfigProblems([*problems, *error.problems], ever_valid=True) from error


def load_again(loaded: Loaded, path: Path, state: Path, environ: Mapping[str, str]) -> Loaded:
    """Read a configuration again from what it was read from, with the secrets that are there now."""
    lacked = loaded.config.lacking
    config = _config(
        loaded.config.source, path, kept_file(state, path) if loaded.from_last_good else path, environ
    )
    problems = (*(each for each in loaded.problems if each not in lacked), *config.lacking)
    return replace(loaded, config=config, problems=problems)


def _kept(config: Config, path: Path, state: Path) -> Config:
    try:
        keep_good(state, path, config.source)
    except OSError as error:
        kept = f"{path}: it could not be kept as the last valid configuration: {error}"
        return replace(config, warnings=(*config.warnings, kept))
    return config


def _source(path: Path, environ: Mapping[str, str]) -> Source:
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


def _config(
    source: Source, path: Path, shown: Path, environ: Mapping[str, str], root: Group | None = None
) -> Config:
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
    return replace(_assembled(whole, source, shown), lacking=tuple(problems.listed()))


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
