"""What the STU and the connected sensor node can be asked, each a request or a few."""

from collections.abc import Awaitable, Callable

from gateway.controls.sensor_nodes import (
    AdcConfiguration,
    FoundNode,
    NodeProblem,
    Refused,
    SensorMap,
    UnitInformation,
    Unsupported,
)
from gateway.protocols.icotronic import messages
from gateway.protocols.icotronic.messages import SELF, STH, STU, Request, bluetooth

Ask = Callable[[Request], Awaitable[bytes]]
_DIVIDER = 5.7
"""Of the supply voltage before the ADC: (470 + 100) / 100 kOhm."""
FULL_SCALE = 65_535


class _Unit:
    """What both kinds have; `receiver` is their number on the bus."""

    def __init__(self, device: str, ask: Ask, receiver: int) -> None:
        self._device = device
        self._ask = ask
        self._receiver = receiver

    async def name(self, number: int = SELF) -> str:
        parts = [
            await self._ask(bluetooth("tell a name", self._receiver, sub, number))
            for sub in (messages.NAME_1, messages.NAME_2)
        ]
        return messages.text(b"".join(part[2:8] for part in parts))

    async def mac(self, number: int = SELF) -> str:
        return messages.mac_text(
            await self._ask(bluetooth("tell a MAC", self._receiver, messages.MAC, number))
        )

    async def rssi_dbm(self, number: int = SELF) -> int:
        answer = await self._ask(bluetooth("tell its RSSI", self._receiver, messages.RSSI, number))
        return int.from_bytes(answer[2:3], signed=True)

    async def state(self) -> int:
        """Return its state byte: 0x25 where it operates."""
        answer = await self._ask(Request("tell its state", 0x00, 0x02, self._receiver, b"\0", least=1))
        return answer[0]

    async def reset(self) -> None:
        await self._ask(Request("restart", 0x00, 0x01, self._receiver, b""))

    async def information(self) -> UnitInformation:
        return UnitInformation(
            name=await self.name(),
            mac=await self.mac(),
            hardware_version=_version(await self._product_data(0x01)),
            firmware_version=_version(await self._product_data(0x02)),
            release_name=messages.text(await self._product_data(0x03)),
            serial_number=messages.text(b"".join([await self._product_data(n) for n in range(0x04, 0x08)])),
        )

    async def _product_data(self, command: int) -> bytes:
        return await self._ask(Request("tell its product data", 0x3E, command, self._receiver, least=3))


class Stu(_Unit):
    """The stationary transceiver unit: finds sensor nodes and holds the radio link to one."""

    def __init__(self, device: str, ask: Ask) -> None:
        super().__init__(device, ask, STU)

    async def activate(self) -> None:
        """Let it look for nodes."""
        await self._ask(bluetooth("look for sensor nodes", STU, messages.ACTIVATE))

    async def deactivate(self) -> None:
        """Let it end the radio link and look for nodes no more."""
        await self._ask(bluetooth("end the radio link", STU, messages.DEACTIVATE))

    async def count(self) -> int:
        """Return how many nodes it has found until now; they are numbered from 0."""
        answer = await self._ask(bluetooth("count sensor nodes", STU, messages.COUNT))
        digits = messages.text(answer[2:8])
        return min(int(digits), SELF) if digits.isascii() and digits.isdigit() else 0

    async def nodes(self) -> list[FoundNode]:
        """Return the nodes that it found until now."""
        found = []
        for number in range(await self.count()):
            mac, rssi_dbm = await self.mac(number), await self.rssi_dbm(number)
            found.append(FoundNode(number, await self.name(number), mac, rssi_dbm))
        return [node for node in found if node.mac != messages.NO_MAC]

    async def connect(self, number: int) -> bool:
        """Let it connect a node that it found; False: it does not begin to."""
        answer = await self._ask(bluetooth("connect a sensor node", STU, messages.CONNECT, number))
        return bool(answer[2])

    async def connected(self) -> bool:
        """Say whether it holds a link."""
        answer = await self._ask(bluetooth("tell whether a node is connected", STU, messages.CONNECTED))
        return bool(answer[2])


class Node(_Unit):
    """The connected sensor node."""

    def __init__(self, device: str, ask: Ask) -> None:
        super().__init__(device, ask, STH)

    async def rename(self, name: str) -> None:
        """Give it a name of 1 to 8 bytes. ValueError: it is none."""
        raw = messages.name_bytes(name)
        for sub, part in ((messages.SET_NAME_1, raw[:6]), (messages.SET_NAME_2, raw[6:])):
            await self._ask(bluetooth("take a name", STH, sub, SELF, part))
        if await self.name() != name.strip():
            raise NodeProblem(f"device {self._device}: the sensor node did not take the name {name!r}")

    async def supply_voltage_v(self) -> float:
        adc = await self.adc()
        answer = await self._ask(Request("tell its supply voltage", 0x04, 0x20, STH, b"\x21", least=4))
        raw = int.from_bytes(answer[2:4], "little")
        return raw * _DIVIDER * adc.reference_voltage_v / FULL_SCALE

    async def adc(self) -> AdcConfiguration:
        answer = await self._ask(Request("tell its ADC configuration", 0x28, 0x00, STH, least=5))
        try:
            return messages.adc_configuration(answer)
        except ValueError as error:
            raise NodeProblem(
                f"device {self._device}: the sensor node samples in a way that we do not know: {error}"
            ) from error

    async def set_adc(self, adc: AdcConfiguration) -> None:
        data = messages.adc_bytes(adc)
        await self._ask(Request("take an ADC configuration", 0x28, 0x00, STH, data))
        taken = await self.adc()
        if taken != adc:
            raise NodeProblem(
                f"device {self._device}: the sensor node did not take the ADC configuration: it has {taken}"
            )

    async def sensor_map(self) -> SensorMap:
        try:
            answer = await self._ask(Request("tell its sensors", 0x28, 0x01, STH, least=4))
        except Refused as refused:
            raise Unsupported(f"{refused}: its firmware knows no sensors") from refused
        return answer[1], answer[2], answer[3]

    async def set_sensor_map(self, sensors: SensorMap) -> None:
        data = messages.sensor_map_bytes(sensors)
        try:
            await self._ask(Request("take a channel-to-sensor map", 0x28, 0x01, STH, data))
        except Refused as refused:
            raise Unsupported(f"{refused}: its firmware knows no sensors, or not these") from refused

    async def start_stream(self, form: int, frame_rate_hz: float) -> None:
        """Begin a stream; its first frame is the answer."""
        data = bytes((form,))
        await self._ask(Request("stream", 0x04, 0x00, STH, data, (form,), takes_s=1 / frame_rate_hz))

    async def stop_stream(self) -> None:
        """End any stream; also where none runs."""
        stop = bytes((messages.STOP,))
        await self._ask(Request("end its stream", 0x04, 0x00, STH, stop, (messages.STOP,), most=1))


def _version(answer: bytes) -> str:
    return ".".join(str(number) for number in answer[-3:])
