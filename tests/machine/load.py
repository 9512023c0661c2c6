"""Clients that push numbered samples to a machine, and know out here what it acknowledged."""

import contextlib
import http.client
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from tests.machine.qemu import Box, NotNow, Refused

CLIENTS = 4
BATCH = 20
DEVICE = "/v1/devices/scale"


class Load:
    """Each client pushes in order, a batch again until it is acknowledged."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._began_us = time.time_ns() // 1000 - 7_200_000_000
        self.sent = [0] * CLIENTS
        """The last number of each client, here and below."""
        self.acknowledged = [0] * CLIENTS
        self.wrong: list[str] = []
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()

    def start(self) -> None:
        self._over.clear()
        self._threads = [
            threading.Thread(target=self._push, args=(each,), daemon=True) for each in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """End the clients. The machine is gone."""
        self._over.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive()
        assert not self.wrong, self.wrong[:5]

    def check(self, ask: Callable[[str], Any], since: list[int], acknowledged: list[int]) -> int:
        """Compare what a gateway has from some numbers on, asked by `ask`; return how many samples it has."""
        seen = 0
        known = [each["tag"] for each in ask(DEVICE)["tags"]]
        for client in range(CLIENTS):
            samples = []
            if f"line{client}" in known:  # its first batch may not have been committed
                query = f"tags=line{client}&limit=1000000&from={self._ts(since[client] + 1)}"
                samples = ask(f"{DEVICE}/samples?{query}")["samples"]
            pairs = [(each["ts"], each["value"]) for each in samples]
            self.compare(client, pairs, since[client], acknowledged[client])
            seen += len(pairs)
        return seen

    def compare(self, client: int, found: list[tuple[int, object]], since: int, acknowledged: int) -> None:
        """Compare pairs of time and value with what the client sent, behind the number `since`."""
        held = set(found)
        sent = {n: (self._ts(n), _value(client, n)) for n in range(since + 1, self.sent[client] + 1)}
        lost = {sent[n] for n in range(since + 1, acknowledged + 1)} - held
        assert not lost, f"{len(lost)} acknowledged samples of client {client} are lost"
        never = held - set(sent.values())
        assert not never, f"client {client} never sent {sorted(never, key=str)[:5]}"
        assert len(found) == len(held), f"{len(found) - len(held)} samples of client {client} are doubled"

    def _push(self, client: int) -> None:
        while not self._over.is_set():
            # Where an answer does not come, the machine is gone or stood still for long.
            with contextlib.suppress(OSError, http.client.HTTPException), closing(self._box.connect()) as to:
                while True:
                    self._push_batch(to, client)
            self._over.wait(0.1)

    def _push_batch(self, connection: http.client.HTTPSConnection, client: int) -> None:
        numbers = range(self.acknowledged[client] + 1, self.acknowledged[client] + 1 + BATCH)
        tag = f"line{client}"
        samples = [{"tag": tag, "ts": self._ts(n), "value": _value(client, n)} for n in numbers]
        self.sent[client] = numbers[-1]
        try:
            answer = self._box.ask(connection, f"{DEVICE}/samples", {"samples": samples})
        except Refused as error:
            self.wrong.append(str(error))
            raise ConnectionError from error
        except NotNow:
            return  # a commit took over 10 s: what was sent is sent again
        if answer["moved"] or answer["added"] + answer["same"] != BATCH:
            self.wrong.append(f"client {client}, {numbers}: {answer}")
        self.acknowledged[client] = numbers[-1]

    def _ts(self, number: int) -> int:
        return self._began_us + 1000 * number


def _value(client: int, number: int) -> int:
    return (number * 7919 + client) % 100_003
