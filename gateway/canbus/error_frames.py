"""What the controller says of itself and of the bus, in error frames (linux/can/error.h)."""

from gateway.canbus.frames import BusHealth

MASK = 0x1FFFFFFF
"""CAN_ERR_MASK: every class."""

# classes, in the id
_CONTROLLER = 0x004
_ACKNOWLEDGE = 0x020
BUS_OFF = 0x040
_RESTARTED = 0x100
_COUNTERS = 0x200
_DAMAGED = 0x088  # CAN_ERR_PROT, CAN_ERR_BUSERROR

# controller, in data[1]
_OVERFLOW = 0x01
_WARNING = 0x0C
_PASSIVE = 0x30
_ACTIVE = 0x40


def take(health: BusHealth, can_id: int, data: bytes) -> None:
    """Note an error frame in the health of its bus."""
    health.error_frames += 1
    data = data.ljust(8, b"\0")  # socketcand may leave it away
    controller = data[1] if can_id & _CONTROLLER else 0
    if can_id & BUS_OFF:
        health.state = "bus-off"
    elif controller & _PASSIVE:
        health.state = "error-passive"
    elif controller & _WARNING:
        health.state = "error-warning"
    elif can_id & _RESTARTED or controller & _ACTIVE:
        health.state = "error-active"
    # Drivers before Linux 6.0 give the counters without saying so.
    if can_id & _COUNTERS or (can_id & (_CONTROLLER | _DAMAGED) and any(data[6:8])):
        health.transmit_errors, health.receive_errors = data[6], data[7]
    if can_id & _ACKNOWLEDGE:
        health.cause = "nothing acknowledges what is sent"
    elif can_id & _DAMAGED:
        health.cause = "frames arrive damaged"


def overran(can_id: int, data: bytes) -> bool:
    """Say whether an error frame tells that the controller had no room for a frame."""
    return bool(can_id & _CONTROLLER and data[1:2] and data[1] & _OVERFLOW)
