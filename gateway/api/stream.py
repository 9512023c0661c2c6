"""`WS /v1/stream`: the state first, then the changes, straight from intake and before COMMIT."""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.api.contracts import DeviceView, GatewayView
from gateway.api.values import Row, dumps, row
from gateway.model import Batch, Sample, SeriesInfo, Value

GATHER_S: Final = 0.02
"""Changes of so long go out as one message."""
_DAY_US: Final = 86_400_000_000
MESSAGE_SAMPLES: Final = 5000
QUEUE_BYTES: Final = 1024 * 1024
QUEUE_MESSAGES: Final = 256


@dataclass(frozen=True, slots=True)
class Filter:
    """What a client wants: None means all."""

    devices: frozenset[str] | None = None
    tags: frozenset[str] | None = None

    def wants(self, device: str) -> bool:
        return self.devices is None or device in self.devices


@dataclass(eq=False, slots=True)
class Client:
    """What waits for one WebSocket. A slow one's queue is dropped, and the state sent anew."""

    filter: Filter = field(default_factory=Filter)
    queue: deque[str] = field(default_factory=deque)
    bytes: int = 0
    skipped: int = 0
    """Samples dropped since the last state."""
    stale: bool = True
    """The state has to be sent, before any change."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, text: str, samples: int) -> None:
        if self.stale:
            self.skipped += samples  # the state to come has the newest of them
        elif self.bytes + len(text) > QUEUE_BYTES or len(self.queue) >= QUEUE_MESSAGES:
            self.renew()
            self.skipped += samples
        else:
            self.queue.append(text)
            self.bytes += len(text)
        self.wake.set()

    def renew(self) -> None:
        """Drop what waits; the state is sent next."""
        self.queue.clear()
        self.bytes, self.stale = 0, True
        self.wake.set()

    def take(self) -> str | None:
        if not self.queue:
            self.wake.clear()
            return None
        text = self.queue.popleft()
        self.bytes -= len(text)
        return text


class Streams:
    """Between intake and the WebSockets: each change is written once for all clients who want the same."""

    def __init__(self, gateway: GatewayView) -> None:
        self._gateway = gateway
        self._clients: set[Client] = set()
        self._latest: dict[int, tuple[int, Value, int, int]] = {}
        self._told: dict[int, SeriesInfo] = {}
        """As which a series was last told to those who listen already."""
        self._gathered: list[tuple[str, Batch]] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def clients(self) -> int:
        return len(self._clients)

    def join(self, client: Client) -> None:
        self._clients.add(client)

    def leave(self, client: Client) -> None:
        self._clients.discard(client)

    def heard(self, device: str, batch: Batch) -> None:
        """Take what intake accepted (a BatchListener)."""
        latest, horizon_us = self._latest, self._gateway.clock.wall_us() + _DAY_US
        for series, ts, value, status, flags in _rows(batch):
            known = latest.get(series)
            if (known is None or known[0] <= ts) and ts <= horizon_us:  # the store's own measure of plausible
                latest[series] = ts, value, status, flags
        if not self._clients:
            return
        self._gathered.append((device, batch))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._flush)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _flush(self) -> None:
        self._timer = None
        gathered, self._gathered = self._gathered, []
        by_device: dict[str, list[Batch]] = {}
        for device, batch in gathered:
            by_device.setdefault(device, []).append(batch)
        for device, batches in by_device.items():
            count = sum(map(len, batches))
            if count <= MESSAGE_SAMPLES:
                self._tell_tags(device, batches)
                self._send("samples", device, self._rows(batches))
            else:
                self._skip(device, count)

    def _skip(self, device: str, count: int) -> None:
        """Spare everybody a flood (a backfill, a bulk push): the state that follows has the newest."""
        for client in self._clients:
            if client.filter.wants(device):
                client.renew()
                client.skipped += count

    def _tell_tags(self, device: str, batches: Iterable[Batch]) -> None:
        """Say which tags are new, or have another unit, before the first sample that this holds for."""
        info, told, rows = self._gateway.store.info, self._told, []
        for series in {series for batch in batches for series in batch.series}:
            if told.get(series) is not (now := info(series)):
                told[series] = now
                rows.append({"tag": now.tag, "unit": now.unit})
        if rows:
            self._send("tags", device, rows)

    def _rows(self, batches: Iterable[Batch]) -> list[Row]:
        info = self._gateway.store.info
        names: dict[int, str] = {}
        rows = []
        for batch in batches:
            for series, ts, value, status, flags in _rows(batch):
                tag = names.get(series)
                if tag is None:
                    tag = names[series] = info(series).tag
                rows.append(row(tag, ts, value, status, flags))
        return rows

    def _send(self, kind: str, device: str, rows: list[Row]) -> None:
        written: dict[frozenset[str] | None, tuple[str, int]] = {}
        for client in self._clients:
            if client.filter.wants(device):
                tags = client.filter.tags
                if tags not in written:
                    chosen = rows if tags is None else [item for item in rows if item["tag"] in tags]
                    written[tags] = (_message(kind, device, chosen) if chosen else "", len(chosen))
                text, count = written[tags]
                if count:
                    client.put(text, count if kind == "samples" else 0)

    def state(self, client: Client) -> str:
        """Return the whole state as this client wants it; changes that come later go on from it."""
        gateway, skipped = self._gateway, client.skipped
        client.stale, client.skipped = False, 0
        devices = [device for device in gateway.devices.values() if client.filter.wants(device.id)]
        return dumps(
            {
                "type": "state",
                "id": gateway.id,
                "version": gateway.version,
                "now_us": gateway.clock.wall_us(),
                "skipped": skipped,
                "devices": [_device(item) | {"tags": self._last(item, client.filter)} for item in devices],
            }
        ).decode()

    def devices(self, client: Client) -> str:
        """Return how the devices are; sent again whenever it differs from what was sent."""
        devices = [item for item in self._gateway.devices.values() if client.filter.wants(item.id)]
        return dumps({"type": "devices", "devices": [_device(item) for item in devices]}).decode()

    def _last(self, device: DeviceView, wanted: Filter) -> list[Mapping[str, Any]]:
        store = self._gateway.store
        rows: list[Mapping[str, Any]] = []
        for tag, series in device.tags.items():
            if wanted.tags is None or tag in wanted.tags:
                newest = self._newest(series, store.last(series))
                made = {"tag": tag} if newest is None else row(tag, *newest)
                rows.append(made | {"unit": store.info(series).unit})
        return rows

    def _newest(self, series: int, committed: Sample | None) -> tuple[int, Value, int, int] | None:
        """Return the newer of the last committed sample and the last one heard, which may not be yet."""
        heard = self._latest.get(series)
        if committed is None or (heard is not None and heard[0] >= committed.ts):
            return heard
        return committed.ts, committed.value, committed.status, committed.flags


def _rows(batch: Batch) -> "zip[tuple[int, int, Value, int, int]]":
    return zip(batch.series, batch.ts, batch.values, batch.statuses, batch.flags, strict=True)


def _device(device: DeviceView) -> dict[str, Any]:
    health = device.health
    return {
        "id": device.id,
        "kind": device.kind,
        "url": device.url,
        "insecure": device.insecure,
        "state": health.state,
        "detail": health.detail,
        "since_us": health.since_us,
    }


def _message(kind: str, device: str, rows: list[Row]) -> str:
    document: dict[str, Any] = {"type": kind, "device": device, kind: rows}
    if kind == "samples":
        document["committed"] = False
    return dumps(document).decode()
