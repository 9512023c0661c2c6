"""What is wrong with a bus, with its state in a word and the likely fix in the sentence."""

from gateway.model import DeviceProblem


class BusProblem(DeviceProblem):
    """The bus cannot be used now. `bus_state`: absent, down, bus-off or lost."""

    def __init__(self, message: str, bus_state: str) -> None:
        super().__init__(message)
        self.bus_state = bus_state
