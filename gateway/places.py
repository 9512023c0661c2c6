"""Where an installed gateway has its files; the unit and the package say the same."""

from pathlib import Path
from typing import Final

CONFIG: Final = Path("/etc/edge-gateway/gateway.yaml")
STATE: Final = Path("/var/lib/edge-gateway")
"""All that the unit lets the service write to."""
