"""What the unit's sandbox hides from the service, and whoever runs `check` sees."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gateway.config.load import Config
from gateway.places import unit_installed
from gateway.redaction import secrets_of

_HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""By ProtectHome=yes and PrivateTmp=yes (systemd.exec(5))."""


def hidden(config: Config, file: Path) -> list[str]:
    """Return a sentence for each file or folder that a configuration names and the service cannot see.

    None where no unit is installed. What lies beside the configuration goes where that goes. Blocks.
    """
    if not unit_installed():
        return []
    beside = file.absolute().parent
    return [
        f"{where}: the service does not see {path}: its unit hides {root} from it; put it elsewhere, a file "
        "into /etc/edge-gateway"
        for where, path in _named(config, file, beside)
        if not path.is_relative_to(beside) and (root := _hiding(path))
    ]


def _hiding(path: Path) -> str:
    ways = (path, path.resolve())
    return next((root for root in _HIDDEN if any(way.is_relative_to(root) for way in ways)), "")


def _named(config: Config, file: Path, beside: Path) -> Iterator[tuple[str, Path]]:
    for device in config.devices.values():
        for path in _read(device.settings, beside):
            yield device.device.where.get("", str(file)), path
    for upload in config.uploads.values():
        for path in _read(upload.settings, beside):
            yield f"{file}: uploads.{upload.id}", path
    http = [*config.http.files(), *([t.users] if (t := config.http.compat.timeseries) is not None else [])]
    yield from ((config.http_at, path) for path in http)
    for name, folder in (("store", config.store.path), ("measurements", config.measurements.path)):
        if folder is not None:
            yield f"{file}: {name}.path", folder


def _read(settings: Any, beside: Path) -> Iterator[Path]:
    yield from settings.files()
    for secret in secrets_of(settings):
        form, _, name = secret.reference.partition(" ")
        if form == "file":
            yield beside / name
