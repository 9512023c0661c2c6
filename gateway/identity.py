"""What a gateway is called: made at first start and kept in the state directory."""

import re
import secrets
import socket
from importlib import metadata
from pathlib import Path

from gateway.durable import write

_FILE = "gateway-id"
ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


def version() -> str:
    return metadata.version("edge-gateway")


def gateway_id(state: Path) -> str:
    """Return the kept id, or make one: the host's name and 32 random bits. Blocks."""
    file = state / _FILE
    try:
        kept = file.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        kept = ""
    if ID.match(kept):
        return kept
    host = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-")[:40] or "gateway"
    made = f"{host}-{secrets.token_hex(4)}"
    write(file, f"{made}\n".encode("ascii"), mode=0o644)
    return made
