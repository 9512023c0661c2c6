"""What a configuration will write to the flash, as far as it can be known before it runs."""

from dataclasses import dataclass

from gateway.config.load import Config
from gateway.logs.files import BATCH_EVERY_S
from gateway.store.flash import warning, years_left

_COMMIT_BYTES = 20_000
_SAMPLE_BYTES = 20
"""Sectors written to ext4 for a sample's whole life, and for a commit whatever it holds: a line through what
was measured at 100 and 1000 samples a commit (docs/store.md)."""
_LOG_BYTES = 8_000
"""For a batch of the log files, each 10 s where something is always logged; measured likewise."""
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Projection:
    """An upper bound: as if every tag changed whenever it is looked at, and something were always logged."""

    samples_per_s: float
    unknown: tuple[str, ...]
    """Devices of which nobody can say before how much comes; they are not in it."""
    bytes_per_day: int
    years_left: float | None
    endurance_bytes: int

    @property
    def warning(self) -> str:
        return warning(self.bytes_per_day, self.years_left, self.endurance_bytes)

    def __str__(self) -> str:
        if self.unknown and not self.samples_per_s:
            return f"flash: how much is written is not known before it runs ({', '.join(self.unknown)})"
        more = f"; not known of {', '.join(self.unknown)}" if self.unknown else ""
        years = (
            f", {self.years_left:g} years of its {self.endurance_bytes / 1e12:g} TB"
            if self.years_left
            else ""
        )
        rate = f"at most {self.samples_per_s:g} samples/s"
        return f"flash: {rate}, about {self.bytes_per_day / 1e9:.2f} GB a day{years}{more}"


def project(config: Config) -> Projection:
    rates = {name: d.settings.most_samples_per_s(d.device.tags) for name, d in config.devices.items()}
    total = sum(rate for rate in rates.values() if rate is not None)
    commits_per_s = min(total, 1 / config.store.commit_interval_s)
    store_per_s = commits_per_s * _COMMIT_BYTES + total * _SAMPLE_BYTES
    per_day = round((store_per_s + _LOG_BYTES / BATCH_EVERY_S) * _DAY_S)
    endurance = config.store.endurance_bytes
    unknown = tuple(name for name, rate in rates.items() if rate is None)
    return Projection(round(total, 3), unknown, per_day, years_left(per_day, endurance), endurance)
