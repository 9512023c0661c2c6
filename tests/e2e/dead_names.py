"""The gateway where no name server ever answers for the names under .invalid (RFC 6761).

`python -m tests.e2e.dead_names run ...` as `python -m gateway run ...`. Each look-up is a line on stderr.
"""

import socket
import sys
import threading
from typing import Any

from gateway.__main__ import main

_look_up = socket.getaddrinfo


def _never(host: Any, *arguments: Any, **more: Any) -> Any:
    if not str(host).endswith(".invalid"):
        return _look_up(host, *arguments, **more)
    sys.stderr.write(f"looking up {host}\n")
    threading.Event().wait()
    return None


if __name__ == "__main__":
    socket.getaddrinfo = _never
    sys.exit(main())
