"""Readings as parallel columns: what decoding gives and a batch takes, without an object for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

from gateway.model import Value
from gateway.protocols.opcua.values import Reading


@dataclass(slots=True)
class Columns:
    """DataValues in our terms, in the order sent."""

    keys: list[int] = field(default_factory=list)
    """Client handle of each, or its place in the answer to a read."""
    values: list[Value] = field(default_factory=list)
    ts: list[Any] = field(default_factory=list)
    """Microseconds since 1970, or None where neither source nor server gave a time."""
    statuses: list[int] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    timed: bool = True
    """Each has a time."""

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[tuple[int, Reading]]:
        readings = map(Reading, self.values, self.ts, self.statuses, self.flags)
        return zip(self.keys, readings, strict=True)

    def add(self, key: int, reading: Reading) -> None:
        self.keys.append(key)
        self.values.append(reading.value)
        self.ts.append(reading.ts)
        self.statuses.append(reading.status)
        self.flags.append(reading.flags)
        self.timed = self.timed and reading.ts is not None

    def chosen(self, marks: Sequence[bool]) -> "Columns":
        keys, values, ts, statuses, flags = (
            list(compress(column, marks))
            for column in (self.keys, self.values, self.ts, self.statuses, self.flags)
        )
        return Columns(keys, values, ts, statuses, flags, self.timed)

    def part(self, start: int, end: int) -> "Columns":
        return Columns(
            self.keys[start:end], self.values[start:end], self.ts[start:end], self.statuses[start:end],
            self.flags[start:end], self.timed,
        )  # fmt: skip
