"""What the technician may set of the store."""

from dataclasses import dataclass
from pathlib import Path

from gateway.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class StoreSettings(Settings):
    """The `store:` part of the YAML."""

    SHORT = "path"

    path: Path | None = setting(
        None, help="folder of the store; the state directory unless given", example="/data/edge-gateway"
    )
    commit_interval_s: float = setting(
        1.0,
        help="samples are committed together this often; a power cut loses no more than that",
        low=0.05,
        high=60,
    )
    max_bytes: int = setting(
        4_000_000_000,
        help="the store grows no larger; then the oldest delivered samples go first",
        low=1_000_000,
        example="4GB",
    )
    chunk_minutes: int = setting(
        60,
        help="samples stay in blocks this long, then they are packed by series into the history",
        low=15,
        high=60,
    )
    keep_days: float = setting(
        0,
        help="history older than this many days of running time goes; 0: it goes only for room",
        low=0,
        example="90",
    )
    memory_bytes: int = setting(
        64 * 1024 * 1024,
        help="memory for samples that wait for their commit; while it is full, devices are read more slowly",
        low=1_000_000,
        example="64MiB",
    )
    endurance_bytes: int = setting(
        24_000_000_000_000,
        help="what the flash takes in its life (TBW in its data sheet); by it `years_left` is reckoned",
        low=1_000_000_000,
        example="24TB",
    )
