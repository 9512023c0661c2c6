"""A simulated ICOtronic STU with its sensor nodes: answers requests, holds the radio link, passes streams on.

Source: MyTooliT protocol, as the icotronic library 4.1.0 speaks it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.demo.bus.faults import Faults
from gateway.demo.bus.frames import EXTENDED, Timed
from gateway.demo.bus.sensor_node import GENERAL, NOT_AVAILABLE, ErrorAck, Product, SensorNode

STH, STU = 1, 17
_BROADCAST = 0
_SELF = 0xFF
_OPERATING = 0x25
_TWICE_S = 0.03
_LINK_TIMEOUT_S = 1.0
"""The STU gives up a link to a node that is out of range after this."""


@dataclass(frozen=True, slots=True)
class _Request:
    """A request as it came: its id taken apart, and its payload."""

    block: int
    command: int
    sender: int
    receiver: int
    data: bytes

    def answer_id(self, sender: int, *, error: bool = False) -> int:
        return EXTENDED | self.block << 22 | self.command << 14 | error << 12 | sender << 6 | self.sender


def three_nodes() -> list[SensorNode]:
    """Return the demo's nodes; the third has old firmware that knows no sensors."""
    names = ((b"Spindle", -51, (3, 2, 1)), (b"Chuck", -64, (3, 2, 1)), (b"OldTool", -72, (2, 1, 10)))
    nodes = []
    for n, (name, rssi_dbm, firmware) in enumerate(names, 1):
        product = Product(
            bytes((0x08, 0x6B, 0xD7, 0x01, 0xDE, 0x80 + n)), f"STH-{n:04d}", "ICOtronic STH", firmware
        )
        sensors = None if n == len(names) else [1, 2, 3]
        nodes.append(SensorNode(name, product, rssi_dbm, sensors, supply_count=11_000 - 500 * n))
    return nodes


class Stu:
    """The unit at the bus; one node at most is connected, and answers as STH 1."""

    def __init__(self, nodes: Sequence[SensorNode] | None = None, faults: Faults | None = None) -> None:
        self.nodes = list(three_nodes() if nodes is None else nodes)
        self.faults = faults or Faults()
        self.product = Product(
            bytes((0x08, 0x6B, 0xD7, 0x01, 0xDE, 0x10)), "STU-0001", "ICOtronic STU", (2, 1, 10)
        )
        self.connected: SensorNode | None = None
        self.resets = 0
        self.heard: list[tuple[float, int, bytes]] = []
        """The last requests that were understood: when, id, payload."""
        self._searching_s: float | None = None
        """Since when Bluetooth is active."""
        self._asked = False
        """Whether somebody asked for the nodes: before that, none is connected."""
        self._connecting: tuple[float, SensorNode] | None = None
        self._unheard_s: float | None = None
        self._pending: list[Timed] = []

    def state(self) -> dict[str, Any]:
        """Return what it does now, for those who watch."""
        return {
            "bluetooth": self._searching_s is not None,
            "connected": self.connected and self.connected.name.decode("utf-8", "replace"),
            "resets": self.resets,
            "nodes": {
                node.name.decode("utf-8", "replace"): {
                    "streams": node.streams,
                    "sent": node.counted.sent,
                    "lost": node.counted.lost,
                    "adc": list(node.adc),
                    "sensors": node.sensors,
                }
                for node in self.nodes
            },
        }

    # -- the bus ---------------------------------------------------------------------------------

    def receive(self, now_s: float, can_id: int, data: bytes) -> None:
        """Take a frame; what is no request to the STU or the connected node is ignored."""
        asked = can_id & 0x2000 and can_id & EXTENDED and not can_id & 0x1000
        receiver = can_id & 0x1F
        self._pass_time(now_s)
        if not asked or self.faults.mute or receiver not in (_BROADCAST, STH, STU):
            return
        request = _Request(can_id >> 22 & 0x3F, can_id >> 14 & 0xFF, can_id >> 6 & 0x1F, receiver, data)
        if self.faults.take("lose_requests"):
            return
        self.heard = [*self.heard[-999:], (time.time(), can_id, data)]
        for unit in (STU, STH):
            if receiver in (unit, _BROADCAST):
                self._handle(now_s, unit, request)

    def due(self, now_s: float) -> list[Timed]:
        """Return answers and frames of the stream until now."""
        self._pass_time(now_s)
        ready = [frame for frame in self._pending if frame.at_s <= now_s]
        self._pending = [frame for frame in self._pending if frame.at_s > now_s]
        node = self.connected
        if node is not None and node.streams is not None:
            # Data of STH 1 to SPU 1: block streaming, command data.
            frames = node.frames(now_s, self.faults)
            if self._audible(node) and not self.faults.mute:
                ready += [Timed(at_s, EXTENDED | 0x0100004F, data) for at_s, data in frames]
        return ready

    def _audible(self, node: SensorNode) -> bool:
        return not self.faults.hang and not self._out_of_range(node)

    def _out_of_range(self, node: SensorNode) -> bool:
        return node.name in [name.encode() for name in self.faults.unreachable]

    def _pass_time(self, now_s: float) -> None:
        if self._connecting is not None and now_s >= self._connecting[0]:
            node, self._connecting = self._connecting[1], None
            if self._audible(node):
                self.connected, self._unheard_s = node, None
        linked = self.connected
        if linked is None or not self._out_of_range(linked):
            self._unheard_s = None
        elif self._unheard_s is None:
            self._unheard_s = now_s
        elif now_s - self._unheard_s > _LINK_TIMEOUT_S:
            self._drop()

    def _drop(self) -> None:
        if self.connected is not None:
            self.connected.streams = None
        self.connected = self._connecting = None

    # -- requests --------------------------------------------------------------------------------

    def _handle(self, now_s: float, unit: int, request: _Request) -> None:
        node = self.connected
        if unit == STH and (node is None or not self._audible(node)):
            return
        error = False
        try:
            if self.faults.take("error_acks"):
                raise ErrorAck(self.faults.error_number)
            if unit == STH and node is not None:
                answer = self._of_node(now_s, node, request)
            else:
                answer = self._of_stu(now_s, request)
        except ErrorAck as refused:
            answer, error = bytes((refused.number,)), True
        if answer is None or self.faults.take("lose_acks"):
            return
        frame = Timed(now_s + self.faults.delay_s, request.answer_id(unit, error=error), answer)
        self._pending.append(frame)
        if self.faults.doubled_acks:
            self._pending.append(frame._replace(at_s=frame.at_s + _TWICE_S))

    def _of_node(self, now_s: float, node: SensorNode, request: _Request) -> bytes | None:
        if request.block == 0x04:
            return node.streaming(request.command, request.data, now_s)
        if request.block == 0x28:
            return node.configuration(request.command, request.data)
        if (request.block, request.command) == (0x00, 0x0B):
            return self._node_bluetooth(node, request.data)
        return self._common(node.product, request, self._drop)

    def _of_stu(self, now_s: float, request: _Request) -> bytes:
        if (request.block, request.command) == (0x00, 0x0B):
            return self._bluetooth(now_s, request.data)
        return self._common(self.product, request, self._restart)

    def _restart(self) -> None:
        self._drop()
        self._searching_s, self._asked = None, False
        self.resets += 1

    def _common(self, product: Product, request: _Request, reset: Callable[[], None]) -> bytes:
        if request.block == 0x3E:
            return product.read(request.command)
        if request.block == 0x00 and request.command == 0x01:
            reset()
            return request.data
        if request.block == 0x00 and request.command == 0x02:
            return bytes((_OPERATING,))
        if request.block == 0x00 and request.command in (0x05, 0x06):
            return bytes((0x0A if request.command == 0x05 else 0, 0, 0, 0))
        raise ErrorAck(NOT_AVAILABLE)

    # -- Bluetooth -------------------------------------------------------------------------------

    def _visible(self, now_s: float) -> list[SensorNode]:
        """Return the nodes that advertise themselves and were found; a connected one does not."""
        if self._searching_s is None:
            return []
        found = int((now_s - self._searching_s) / self.faults.find_s)
        near = [node for node in self.nodes if node is not self.connected and self._audible(node)]
        return near[:found]

    def _bluetooth(self, now_s: float, data: bytes) -> bytes:
        sub, number, value = data[0], data[1], data[2:8].ljust(6, b"\0")
        visible = self._visible(now_s)
        node = visible[number] if number < len(visible) else None
        if sub == 1:
            self._searching_s = now_s if self._searching_s is None else self._searching_s
            return self._ack(sub, number, b"")
        if sub == 2:
            self._asked = True
            return self._ack(sub, number, str(len(visible)).encode())
        if sub == 7:
            return self._ack(sub, number, bytes((self._connect(now_s, node),)))
        if sub == 8:
            return self._ack(sub, number, bytes((self.connected is not None,)))
        if sub == 9:
            self._drop()
            self._searching_s, self._asked = None, False
            return self._ack(sub, number, b"")
        if sub == 18:
            wanted = next((n for n in visible if n.product.mac[::-1] == value), None)
            return self._ack(sub, number, value if self._connect(now_s, wanted) else b"")
        if number == _SELF:
            return self._about(sub, number, b"STU", self.product.mac, 0)
        if node is None:
            return self._about(sub, number, b"", bytes(6), 0)
        return self._about(sub, number, node.name, node.product.mac, node.rssi_dbm)

    def _connect(self, now_s: float, node: SensorNode | None) -> bool:
        if node is None or not self._asked or self.faults.take("refuse_connects"):
            return False
        if self.connected is None and self._connecting is None:
            self._connecting = (now_s + self.faults.connect_s, node)
        return True

    def _node_bluetooth(self, node: SensorNode, data: bytes) -> bytes:
        sub, number, value = data[0], data[1], data[2:8].ljust(6, b"\0")
        if sub in (3, 4):
            name = node.name.ljust(8, b"\0")
            node.name = (value + name[6:] if sub == 3 else name[:6] + value[:2]).rstrip(b"\0")
            return self._ack(sub, number, value)
        if sub in (13, 15):
            return self._ack(sub, number, node.energy[sub])
        if sub in (14, 16):
            node.energy[sub - 1] = value
            return self._ack(sub, number, value)
        return self._about(sub, number, node.name, node.product.mac, node.rssi_dbm)

    def _about(self, sub: int, number: int, name: bytes, mac: bytes, rssi_dbm: int) -> bytes:
        if sub in (5, 6):
            return self._ack(sub, number, name[:6] if sub == 5 else name[6:8])
        if sub == 12:
            return self._ack(sub, number, rssi_dbm.to_bytes(1, "little", signed=True))
        if sub == 17:
            return self._ack(sub, number, mac[::-1])
        raise ErrorAck(GENERAL)

    def _ack(self, sub: int, number: int, value: bytes) -> bytes:
        if self.faults.wrong_bytes:
            if sub in (4, 17):
                number = (number + 1) & 0xFF
            if sub in (14, 16):
                sub, number = 0, 0
        return bytes((sub, number)) + value.ljust(6, b"\0")
