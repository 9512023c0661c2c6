"""What the technician may set of measurements."""

from dataclasses import dataclass

from gateway.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class MeasurementSettings(Settings):
    """The `measurements:` part of the YAML."""

    SHORT = "path"

    path: str = setting(
        "",
        help="folder of the files of measurements; empty: `measurements` in the state directory",
        example="/data/measurements",
    )
