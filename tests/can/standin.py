"""A CAN interface where there is none: its folder of /sys, and a datagram socket in place of the raw one.

The records on the socket are those of linux/can.h, with the kernel's time of each and its count of drops, so
the gateway's reader runs as it is. Not tried here is AF_CAN itself: that is for machines that boot.
"""

import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from gateway.canbus import link_state, socketcan

CAN, ETHERNET = 280, 1


class Machine:
    """A machine with interfaces."""

    def __init__(self, net: Path, *, anyone: bool = False) -> None:
        """`anyone`: every socket may send to the receivers, not `sender` alone; the gateway cannot answer."""
        self.net = net
        self._anyone = anyone
        self.receivers: list[socket.socket] = []
        self.filters: list[tuple[int, int]] = []
        self.fd = False
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sender.settimeout(0)
        self.refuses: OSError | None = None
        self._index = 0

    def plug(self, name: str = "can0", *, kind: int = CAN, mtu: int = 16, up: bool = True) -> None:
        """Make an interface, as plugging in or `ip link add` does."""
        self._index += 1
        folder = self.net / name
        (folder / "statistics").mkdir(parents=True, exist_ok=True)
        self.write(name, type=kind, mtu=mtu, ifindex=self._index, carrier=1)
        self.write(name, flags="0x40081" if up else "0x40080")
        self.count(name)

    def unplug(self, name: str = "can0") -> None:
        folder = self.net / name
        folder.rename(self.net.parent / f"gone-{name}-{self._index}")

    def write(self, name: str, **files: Any) -> None:
        """Write files of an interface; sysfs is never seen half written."""
        for file, value in files.items():
            path = self.net / name / file
            draft = path.with_name(f".{file}")
            draft.write_text(f"{value}\n")
            draft.replace(path)

    def count(self, name: str = "can0", *, rx: int = 0, rx_bytes: int = 0, overruns: int = 0) -> None:
        self.write(
            f"{name}/statistics",
            tx_packets=0,
            tx_bytes=0,
            rx_packets=rx,
            rx_bytes=rx_bytes,
            rx_over_errors=overruns,
        )

    def raw_socket(self, _channel: str, filters: Any, *, fd: bool) -> socket.socket:
        """Stand in for socketcan.raw_socket."""
        if self.refuses is not None:
            raise self.refuses
        self.filters, self.fd = list(filters), fd
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.settimeout(0)
        receiver.bind(("127.0.0.1", 0))
        self.sender.connect(receiver.getsockname())
        if not self._anyone:
            receiver.connect(self.sender.getsockname())
        self.receivers.append(receiver)
        return receiver

    def send(self, can_id: int, data: bytes = b"", *, fd: bool = False) -> None:
        self.sender.send(record(can_id, data, fd=fd))

    def sent(self) -> tuple[int, bytes]:
        """Return the next frame that the gateway sent."""
        can_id, length, data = struct.unpack("=IB3x64s", self.sender.recv(72).ljust(72, b"\0"))
        return can_id, data[:length]

    def close(self) -> None:
        self.sender.close()
        for receiver in self.receivers:
            receiver.close()


def record(can_id: int, data: bytes, *, fd: bool = False) -> bytes:
    """Return a struct can_frame, or canfd_frame."""
    if fd:
        return struct.pack("=IBB2x64s", can_id, len(data), 0x04, data)
    return struct.pack("=IB3x8s", can_id, len(data), data)


def machine_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    net = tmp_path / "sys-class-net"
    net.mkdir()
    machine = Machine(net)
    monkeypatch.setattr(link_state, "NET", net)
    monkeypatch.setattr(socketcan, "raw_socket", machine.raw_socket)
    return machine
