"""What is stored of the bus itself. Its tags begin with "bus:", which no name in a DBC can."""

from gateway.canbus import BusHealth
from gateway.model import Batch, Link, Value

_PREFIX = "bus:"
_NUMBERS_NS = 10_000_000_000
"""So often the numbers are stored, where they changed."""


class BusTags:
    """The series of one bus."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._kept: dict[str, Value] = {}
        self._numbers_ns: int | None = None

    def forget(self) -> None:
        """Samples of before did not get into the store: they are stored again."""
        self._kept.clear()
        self._numbers_ns = None

    def state(self, state: str) -> Batch:
        """Return the sample of a state where it is another one."""
        return self._changed({"state": state})

    def look(self, health: BusHealth, dropped: int, overruns: int) -> Batch:
        """Return the samples of what changed; `dropped`, `overruns`: since the session began."""
        batch = self.state(health.state)
        now_ns = self._link.clock.mono_ns()
        if self._numbers_ns is None or now_ns - self._numbers_ns >= _NUMBERS_NS:
            self._numbers_ns = now_ns
            load = health.load_percent
            numbers: dict[str, Value] = {
                "load": None if load is None else round(load, 1),
                "receive_errors": health.receive_errors,
                "transmit_errors": health.transmit_errors,
                "dropped": dropped,
                "overruns": overruns,
            }
            batch.extend(self._changed({name: n for name, n in numbers.items() if n is not None}))
        return batch

    def _changed(self, values: dict[str, Value]) -> Batch:
        batch = Batch()
        for name, value in values.items():
            if self._kept.get(name) != value:
                self._kept[name] = value
                series = self._link.tag(_PREFIX + name, unit="%" if name == "load" else "")
                batch.add(series, *self._stamped(value))
        return batch

    def _stamped(self, value: Value) -> tuple[int, Value, int, int]:
        ts, flags = self._link.stamp()
        return ts, value, 0, flags
