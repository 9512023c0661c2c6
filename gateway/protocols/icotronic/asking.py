"""What the API and measurements may ask of the live session (controls.SensorNodes, Recording, TagStates)."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from gateway.clock import Clock
from gateway.controls.devices import TagState
from gateway.controls.sensor_nodes import (
    AdcConfiguration,
    ConnectedNode,
    FoundNode,
    NoAnswer,
    NodeLost,
    NotConnected,
    SensorMap,
    Stream,
    UnitInformation,
)
from gateway.protocols.icotronic.messages import name_bytes
from gateway.protocols.icotronic.radio import Radio
from gateway.protocols.icotronic.samples import Samples

CONNECT_S = 20.0
_RESTART_S = 5.0
_LOOK_S = 0.2


class Asking:
    """Carries out what is asked; `took` and `let_go` hear which node somebody connected or disconnected."""

    def __init__(
        self,
        device: str,
        clock: Clock,
        radio: Radio,
        samples: Samples,
        *,
        took: Callable[[ConnectedNode], None],
        let_go: Callable[[ConnectedNode], None],
    ) -> None:
        self._device = device
        self._clock = clock
        self._radio = radio
        self._samples = samples
        self._took, self._let_go = took, let_go

    def tag_states(self) -> Mapping[str, TagState]:
        return self._samples.tag_states(self._radio.connected, self._radio.stream)

    @property
    def connected(self) -> ConnectedNode | None:
        return self._radio.connected

    async def search(self) -> Sequence[FoundNode]:
        return await self._radio.search()

    async def connect(self, node: str | int) -> ConnectedNode:
        async with self._radio.my_turn():
            connected = await self._radio.connect(node, within_s=CONNECT_S)
        self._took(connected)
        return connected

    async def disconnect(self) -> None:
        async with self._radio.my_turn():
            if self._radio.connected is not None:
                self._let_go(self._radio.connected)
            await self._radio.disconnect()

    async def rename(self, name: str, node: str | int | None = None) -> ConnectedNode:
        name_bytes(name)
        radio = self._radio
        async with radio.my_turn():
            own = radio.connected is None
            before = radio.need() if node is None else await radio.connect(node, within_s=CONNECT_S)
            try:
                await radio.node.rename(name)
                if radio.connected is not None:  # else the link broke
                    radio.connected = ConnectedNode(name.strip(), before.mac)
                    radio.news.set()
            finally:
                if own:
                    with contextlib.suppress(NotConnected):
                        await radio.disconnect()
        return before

    async def rssi_dbm(self) -> int:
        self._radio.need()
        return await self._radio.node.rssi_dbm()

    async def supply_voltage_v(self) -> float:
        self._radio.need()
        return await self._radio.node.supply_voltage_v()

    async def adc(self) -> AdcConfiguration:
        self._radio.need()
        return await self._radio.node.adc()

    async def set_adc(self, configuration: AdcConfiguration) -> None:
        async with self._radio.my_turn():
            self._radio.need()
            await self._radio.pause_stream()
            await self._radio.node.set_adc(configuration)

    async def sensor_map(self) -> SensorMap:
        self._radio.need()
        return await self._radio.node.sensor_map()

    async def set_sensor_map(self, sensors: SensorMap) -> None:
        async with self._radio.my_turn():
            self._radio.need()
            await self._radio.pause_stream()
            await self._radio.node.set_sensor_map(sensors)

    async def node_information(self) -> UnitInformation:
        self._radio.need()
        return await self._radio.node.information()

    async def stu_information(self) -> UnitInformation:
        return await self._radio.stu.information()

    async def reset_node(self) -> None:
        async with self._radio.my_turn():
            node = self._radio.need()
            await self._radio.node.reset()
            self._radio.forget(NodeLost(f"device {self._device}: {node.name} was restarted"))

    async def reset_stu(self) -> None:
        async with self._radio.my_turn():
            await self._radio.stu.reset()
            self._radio.forget(NodeLost(f"device {self._device}: the STU was restarted"))
            until_ns = self._clock.mono_ns() + int(_RESTART_S * 1e9)
            while True:
                try:
                    await self._radio.stu.state()
                    return
                except NoAnswer:
                    if self._clock.mono_ns() > until_ns:
                        raise
                await self._clock.sleep(_LOOK_S)

    @contextlib.asynccontextmanager
    async def stream(self, channels: tuple[bool, bool, bool]) -> AsyncIterator[Stream]:
        stream = await self._radio.record(channels)
        try:
            yield stream
        finally:
            await self._radio.close_stream(stream)
