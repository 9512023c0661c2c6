"""`edge-gateway check FILE`: says whether a configuration would be taken, and what it holds."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.config import Config, ConfigProblems, load
from gateway.config.dropin import stale
from gateway.config.projection import project
from gateway.config.sandbox import hidden
from gateway.protocols import file_problems


@dataclass(frozen=True, slots=True)
class Checked:
    """The exit code and the lines to print."""

    code: int
    lines: tuple[str, ...]


def check(path: Path, environ: Mapping[str, str] | None = None) -> Checked:
    """Read a configuration as the daemon would: 0 with a summary, or 1 with every problem."""
    try:
        config = load(path, environ)
    except ConfigProblems as error:
        count = len(error.problems)
        return Checked(1, (*error.problems, f"{path}: {count} problem{'s' if count > 1 else ''}"))
    projected = project(config)
    flash = f"{path}: store.endurance: {projected.warning}" if projected.warning else ""
    files = [
        f"{device.device.where.get('', path)}: {sentence}"
        for device in config.devices.values()
        for sentence in file_problems(device.kind, device.device, device.settings)
    ]
    found = (*config.warnings, *files, *hidden(config, path), flash, stale(config))
    warnings = (f"{line} (a warning)" for line in found if line)
    return Checked(0, (*warnings, f"{path}: OK, {_summary(config)}", f"{path}: {projected}"))


def _summary(config: Config) -> str:
    tags = sum(len(device.device.tags) for device in config.devices.values())
    devices = _counted("device", (device.kind for device in config.devices.values()))
    uploads = _counted("upload", (upload.kind for upload in config.uploads.values()))
    return f"{devices}, {tags} listed tag{'' if tags == 1 else 's'}, {uploads}"


def _counted(noun: str, kinds: Iterable[str]) -> str:
    count = Counter(kinds)
    total = count.total()
    each = ", ".join(f"{number} {kind}" for kind, number in sorted(count.items()))
    return f"{total} {noun}{'' if total == 1 else 's'}{f' ({each})' if each else ''}"
