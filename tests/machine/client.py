"""A client of the gateway in a machine, run in that machine's network.

python -m tests.machine.client get TOKEN PATH       prints the JSON
python -m tests.machine.client post TOKEN SAMPLES   pushes once; prints the answer
python -m tests.machine.client push TOKEN FILE      pushes; what is acknowledged goes to FILE
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

BASE = os.environ.get("GATEWAY", "https://127.0.0.1:8443")
DEVICE = "scale"


def ask(token: str, path: str, body: object = None) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(BASE + path, headers={"Authorization": f"Bearer {token}"})
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=15, context=context) as answer:
        return answer.read()


def push(token: str, file: Path) -> None:
    """Push samples with times of their own, each again until it is acknowledged."""
    number = 0
    with file.open("a") as acknowledged:
        while True:
            number += 1
            sample = {"tag": "weight", "ts": time.time_ns() // 1000, "value": number}
            while True:
                try:
                    ask(token, f"/v1/devices/{DEVICE}/samples", {"samples": [sample]})
                    break
                except (OSError, urllib.error.URLError):
                    time.sleep(0.2)  # it restarts, or is full
            acknowledged.write(f"{number}\n")
            acknowledged.flush()
            time.sleep(0.05)


if __name__ == "__main__":
    command, token, argument = sys.argv[1:]
    if command == "push":
        push(token, Path(argument))
    elif command == "post":
        sys.stdout.write(ask(token, f"/v1/devices/{DEVICE}/samples", json.loads(argument)).decode())
    else:
        sys.stdout.write(ask(token, argument).decode())
