"""What is wrong with a bus, with its state in a word and the likely fix in the sentence."""

from typing import Final

from gateway.model import DeviceProblem

GAVE_UP: Final = (
    "the controller gave up after too many errors in sending; check the bit rate, the wiring and both "
    "terminating resistors (60 ohms between CAN_H and CAN_L)"
)


def first_of(error: BaseException) -> BaseException:
    """Return the first problem of those that ended tasks together (asyncio.TaskGroup)."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class BusProblem(DeviceProblem):
    """The bus cannot be used now. `bus_state`: absent, down, bus-off or lost."""

    def __init__(self, message: str, bus_state: str) -> None:
        super().__init__(message)
        self.bus_state = bus_state
