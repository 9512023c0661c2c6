"""What the YAML says of a CAN bus, the same for every protocol on one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from gateway.settings import Settings as Group
from gateway.settings import setting

Interface: TypeAlias = Literal[
    "socketcan",
    "socketcand",
    "slcan",
    "gs_usb",
    "pcan",
    "kvaser",
    "serial",
    "seeedstudio",
    "robotell",
    "canalystii",
    "cantact",
    "udp_multicast",
    "virtual",
]


@dataclass(frozen=True, kw_only=True)
class Settings(Group):
    """The way to a CAN bus."""

    interface: Interface = setting(
        "socketcan", help="What the bus is reached by: the kernel's network interface, or one of python-can."
    )
    channel: str = setting(
        "can0", help="Its name there: a network interface, a serial port, a number.", example="can0"
    )
    bitrate: int | None = setting(
        None,
        help="Bits per second. socketcan takes it from the system; here it serves the load in percent.",
        low=1_000,
        high=1_000_000,
        example="500000",
    )
    data_bitrate: int | None = setting(
        None, help="Bits per second of the data part of CAN FD frames.", low=1_000, high=16_000_000
    )
    fd: bool = setting(default=False, help="Whether there are CAN FD frames on the bus.")
    host: str | None = setting(None, help="socketcand: where it runs.", example="192.168.0.10")
    port: int | None = setting(None, help="socketcand: its port, else 29536.", low=1, high=65_535)
    options: Mapping[str, str | int | float | bool] = setting(
        {},
        help="Further arguments that python-can takes for this interface.",
        example="{tty_baudrate: 115200}",
    )

    def __post_init__(self) -> None:
        if self.interface == "socketcand":
            if self.host is None:
                raise ValueError("socketcand wants `host`, the address of the machine where it runs")
        elif self.host is not None or self.port is not None:
            raise ValueError(f"{self.interface} has neither `host` nor `port`: those are for socketcand")
        if self.data_bitrate is not None and not self.fd:
            raise ValueError("`data_bitrate` is for CAN FD: add `fd: true`, or remove it")
        if self.options and self.interface in ("socketcan", "socketcand"):
            raise ValueError(f"{self.interface} takes no `options`")


def device_nodes(settings: Settings) -> list[str]:
    """Return the device nodes that have to be opened: a serial port, or what USB adapters hang at."""
    if settings.interface in ("slcan", "serial", "seeedstudio", "robotell"):
        port = settings.channel.partition("@")[0]
        return [port] if port.startswith("/dev/") else []
    if settings.interface in ("gs_usb", "canalystii", "cantact"):
        return ["char-usb_device"]
    if settings.interface == "pcan":
        return ["char-pcan"]
    return []
