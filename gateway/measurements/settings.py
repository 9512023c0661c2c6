"""What the technician may set of measurements."""

from dataclasses import dataclass
from pathlib import Path

from gateway.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class MeasurementSettings(Settings):
    """The `measurements:` part of the YAML."""

    SHORT = "path"

    path: Path | None = setting(
        None,
        help="folder of the files of measurements; `measurements` in the state directory unless given",
        example="/data/measurements",
    )
