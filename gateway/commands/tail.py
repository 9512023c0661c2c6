"""`edge-gateway tail`: samples as they come, from the stream of a gateway or from a timeseries-api."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final

from gateway.commands.api_client import Access, NotReached, connected, printable, refused
from gateway.commands.timeseries_client import point_us, read_series
from gateway.local_time import shown
from gateway.model import GatewayError

_Sample = tuple[str, dict[str, Any], str]
"""Device, sample as the API gives it, unit of measure."""
_LONGEST_VALUE: Final = 200
_FIRST_POINTS: Final = 10
_RETRY_S: Final = (1.0, 2.0, 5.0)
_LOGIN_FAILED: Final = 4401


def tail(to: Access, arguments: argparse.Namespace) -> int:
    """Print samples until Ctrl-C."""
    told = _points(to, arguments.series, arguments.every) if arguments.series else _samples(to, arguments)
    show = _as_json if arguments.json else as_text

    async def follow() -> None:
        async with aclosing(told):
            async for sample in told:
                if not arguments.tag or sample[1]["tag"] in arguments.tag:
                    print(show(*sample), flush=True)

    asyncio.run(follow())
    return 0


def _as_json(device: str, sample: dict[str, Any], unit: str) -> str:
    return json.dumps({"device": device, **sample, **({"unit": unit} if unit else {})})


def as_text(device: str, sample: dict[str, Any], unit: str) -> str:
    """Return a sample as a line for people."""
    value = json.dumps(sample["value"], ensure_ascii=False)
    if len(value) > _LONGEST_VALUE:
        value = value[: _LONGEST_VALUE - 3] + "..."
    parts = [shown(sample["ts"], fraction=True), device, sample["tag"], f"{value} {unit}".rstrip()]
    if sample.get("status"):
        parts.append(f"[status 0x{sample['status']:08X}]")
    return printable("  ".join(parts + [f"[{each}]" for each in sample.get("flags", [])]))


async def _samples(to: Access, arguments: argparse.Namespace) -> AsyncGenerator[_Sample]:
    """Yield what the stream brings; a gateway that goes away is waited for."""
    heard = _Heard(arguments.devices)
    while True:
        try:
            async with aclosing(_stream(to, arguments, heard)) as samples:
                async for sample in samples:
                    yield sample
        except NotReached as error:
            if not heard.reached:
                raise
            if not heard.failures:
                print(f"edge-gateway: {error}; trying again", file=sys.stderr)
            await asyncio.sleep(_RETRY_S[min(heard.failures, len(_RETRY_S) - 1)])
            heard.failures += 1


class _Heard:
    """What the stream said so far."""

    def __init__(self, wanted: Sequence[str]) -> None:
        self._wanted = wanted
        self._newest: dict[tuple[str, str], int] = {}
        self._units: dict[tuple[str, str], str] = {}
        self.reached = False
        self.failures = 0

    def samples(self, message: dict[str, Any]) -> Iterator[_Sample]:
        """Yield the samples of a message that were not told before. GatewayError: a device is not there."""
        if message["type"] == "samples":
            for sample in message["samples"]:
                yield self._told(message["device"], sample)
        elif message["type"] == "tags":
            self._units |= {(message["device"], each["tag"]): each["unit"] for each in message["tags"]}
        elif message["type"] == "state":
            self.reached, self.failures = True, 0
            if message["skipped"]:
                skipped = f"{message['skipped']} samples came too fast to be shown"
                print(f"edge-gateway: {skipped}", file=sys.stderr)
            yield from sorted(self._of_state(message["devices"]), key=lambda told: int(told[1]["ts"]))

    def _of_state(self, devices: list[dict[str, Any]]) -> Iterator[_Sample]:
        missing = set(self._wanted) - {device["id"] for device in devices}
        if missing:
            raise GatewayError(
                f"there is no device {sorted(missing)[0]}: `edge-gateway plot` lists what there is"
            )
        for device in devices:
            for sample in device["tags"]:
                key = device["id"], sample["tag"]
                self._units[key] = sample.pop("unit")
                if "ts" in sample and sample["ts"] > self._newest.get(key, -(2**63)):
                    yield self._told(device["id"], sample)

    def _told(self, device: str, sample: dict[str, Any]) -> _Sample:
        key = device, sample["tag"]
        self._newest[key] = max(sample["ts"], self._newest.get(key, -(2**63)))
        return device, sample, self._units.get(key, "")


async def _stream(to: Access, arguments: argparse.Namespace, heard: _Heard) -> AsyncGenerator[_Sample]:
    query = {"devices": ",".join(arguments.devices)} if arguments.devices else {}
    if arguments.tag and not any("," in tag for tag in arguments.tag):
        query["tags"] = ",".join(arguments.tag)
    async with (
        connected(to) as session,
        session.ws_connect(to.url + "/v1/stream", params=query, heartbeat=20, max_msg_size=0) as socket,
    ):
        async for message in socket:
            for sample in heard.samples(json.loads(message.data)):
                yield sample
        if socket.close_code == _LOGIN_FAILED:
            raise refused(to, 401)
    raise NotReached(f"{to.url} ended the stream")


async def _points(to: Access, series: str, every_s: float) -> AsyncGenerator[_Sample]:
    """Yield the points of a series as they come, first the last few that there are."""
    seen: set[Any] | None = None
    since: dict[str, str] = {}
    while True:
        try:
            async with connected(to) as session:
                points = await read_series(session, to, series, since)
        except NotReached as error:
            if seen is None:
                raise
            print(f"edge-gateway: {error}; trying again", file=sys.stderr)
            points = []
        new = points[-_FIRST_POINTS:] if seen is None else [each for each in points if each["id"] not in seen]
        for point in new:
            for name, value in point["fields"].items():
                yield f"series {series}", {"tag": name, "ts": point_us(point), "value": value}, ""
        if points:
            since = {"from": points[-1]["timestamp"]}
            seen = {each["id"] for each in points}
        seen = seen or set()
        await asyncio.sleep(every_s)
