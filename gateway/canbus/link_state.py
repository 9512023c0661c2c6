"""A network interface as /sys/class/net shows it: absent, down, without carrier (bus-off), or up."""

from dataclasses import dataclass
from pathlib import Path

from gateway.canbus.problems import GAVE_UP, BusProblem

NET = Path("/sys/class/net")
_CAN = 280  # ARPHRD_CAN
_UP = 0x1  # IFF_UP
_FD_MTU = 72


@dataclass(frozen=True, slots=True)
class Traffic:
    """Counters of an interface since it was made: frames and bytes of data in both directions."""

    frames: int
    data_bytes: int
    overruns: int
    """Frames that the controller itself lost."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """An interface that is up."""

    index: int
    fd: bool
    traffic: Traffic


def look(device: str, channel: str, bitrate: int | None) -> LinkState:
    """Return the state of an interface; blocks briefly. BusProblem: it is not there, no CAN one, not up."""
    folder = NET / channel
    name = f"device {device}: {channel}"
    try:
        kind = _number(folder / "type")
        flags = int((folder / "flags").read_text(), 16)
        if kind != _CAN:
            raise BusProblem(f"{name} is no CAN interface; {_others()}", "absent")
        if not flags & _UP:
            raise BusProblem(f"{name} is down: {up_command(channel, bitrate)}", "down")
        if _number(folder / "carrier") == 0:
            raise BusProblem(f"{name} is bus-off: {bus_off(channel)}", "bus-off")
        statistics = folder / "statistics"
        traffic = Traffic(
            _number(statistics / "rx_packets") + _number(statistics / "tx_packets"),
            _number(statistics / "rx_bytes") + _number(statistics / "tx_bytes"),
            _number(statistics / "rx_over_errors"),
        )
        return LinkState(_number(folder / "ifindex"), _number(folder / "mtu") >= _FD_MTU, traffic)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BusProblem(
            f"{name} does not exist: is the adapter plugged in and its driver loaded (`ip link`, `dmesg`)? "
            f"{_others()}",
            "absent",
        ) from error
    except (OSError, ValueError) as error:  # it went away or down while it was looked at
        raise BusProblem(f"{name} cannot be looked at in {folder}: {error}", "down") from error


def up_command(channel: str, bitrate: int | None) -> str:
    """Return how an interface is brought up, now and at each boot."""
    if channel.startswith(("vcan", "vxcan")):
        return f"`sudo ip link set {channel} up`"
    rate = bitrate or 500_000
    given = "" if bitrate else " (with the bit rate that the bus has)"
    return (
        f"`sudo ip link set {channel} up type can bitrate {rate} restart-ms 100`{given}, "
        "and for every boot a file for systemd-networkd, see docs/can.md"
    )


def bus_off(channel: str) -> str:
    """Return what is to be done about a controller that took itself off the bus."""
    return (
        f"{GAVE_UP}, then `sudo ip link set {channel} type can restart`; with `restart-ms 100` it comes back "
        "by itself"
    )


def _number(file: Path) -> int:
    return int(file.read_text())


def _others() -> str:
    found = []
    for folder in sorted(NET.iterdir()) if NET.is_dir() else []:
        try:
            if _number(folder / "type") == _CAN:
                found.append(folder.name)
        except (OSError, ValueError):
            continue
    return f"CAN interfaces here: {', '.join(found) or 'none'}"
