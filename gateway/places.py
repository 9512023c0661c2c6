"""Where an installed gateway has its files; the unit and the package say the same."""

from pathlib import Path
from typing import Final

CONFIG: Final = Path("/etc/edge-gateway/gateway.yaml")
SECRETS: Final = CONFIG.parent / "secrets"
STATE: Final = Path("/var/lib/edge-gateway")
"""All that the unit lets the service write to."""
UNITS: Final = tuple(
    Path(folder) / "edge-gateway.service"
    for folder in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
)


def unit_installed() -> bool:
    """Say whether systemd runs the gateway of this machine, and not a container or a hand. Blocks."""
    return any(unit.exists() for unit in UNITS)
