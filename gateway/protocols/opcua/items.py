"""The tags of a session: what each reads, how it is read, and what is wrong with it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gateway.model import Batch, Device, Link, Value
from gateway.protocols.opcua import Settings, TagSettings, queue_size
from gateway.protocols.opcua.values import Reading
from gateway.scaling import Scaling

AS_IT_IS, SCALED, A_LOOK = range(3)
Newest: TypeAlias = "dict[int, tuple[Value, int | None, int, int]]"
"""By series the newest reading as the server gave it; the items of a session share one."""


@dataclass(slots=True)
class Item:
    """One tag in one session."""

    tag: str
    series: int
    spec: str
    """What names it in the YAML: a node id or a path."""
    where: str
    """"file:line", or "" where it was found by browsing."""
    sampling_ms: int
    queue_size: int
    scaling: Scaling
    deadband: float
    newest: Newest
    node: Any = None
    """Its asyncua NodeId in this session, once resolved."""
    polled: bool = False
    """Read cyclically rather than subscribed."""
    filtered: bool = False
    """The server applies the deadband."""
    kept: Value = None
    """The value that the deadband compares with."""
    care: int = field(init=False)
    """What a reading of it takes: AS_IT_IS, SCALED or A_LOOK."""
    _problem: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.problem = ""

    @property
    def problem(self) -> str:
        """What is wrong with the tag, or ""."""
        return self._problem

    @problem.setter
    def problem(self, problem: str) -> None:
        self._problem = problem
        self.care = A_LOOK if problem or self.deadband else AS_IT_IS if self.scaling.identity else SCALED

    @property
    def last(self) -> Reading | None:
        """The newest reading as the server gave it."""
        found = self.newest.get(self.series)
        return None if found is None else Reading(*found)

    def named(self) -> str:
        return f"{self.tag} ({self.where})" if self.where else self.tag

    def unchanged(self, reading: Reading) -> bool:
        """Say whether a cyclic read found what the last one did.

        Without a source time a good value counts each time; a bad status only when it begins.
        """
        last = self.last
        if last is None or reading.status != last.status:
            return False
        same = type(reading.value) is type(last.value) and reading.value == last.value
        if reading.flags or reading.ts is None:
            return same and reading.value is None and reading.status >> 31 == 1
        return same and reading.ts == last.ts

    def within_deadband(self, reading: Reading) -> bool:
        """Say whether the change is too small to be kept, where the server does not judge that itself."""
        if not self.deadband or self.filtered or self.last is None or reading.status != self.last.status:
            return False
        new, old = self.scaling(reading.value), self.kept
        if not _number(new) or not _number(old):
            return False
        return bool(abs(new - old) <= self.deadband)  # type: ignore[operator]


def _number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def take(item: Item, reading: Reading, link: Link, batch: Batch) -> None:
    """Add one reading to a batch as a sample, unless it lies within the deadband."""
    small = item.within_deadband(reading)
    item.newest[item.series] = reading
    if small:
        return
    value = item.scaling(reading.value)
    item.kept = value
    ts, flags = (reading.ts, reading.flags) if reading.ts is not None else link.stamp()
    batch.add(item.series, ts, value, reading.status, flags)


def listed(device: Device, settings: Settings, link: Link) -> list[Item]:
    """Return the items of the tags in the YAML, not resolved yet."""
    newest: Newest = {}
    return [
        item(name, tag.node, tag, settings, link, newest, where=device.where.get(name, ""))
        for name, tag in device.tags.items()
    ]


def item(
    name: str, spec: str, tag: TagSettings, settings: Settings, link: Link, newest: Newest, *, where: str = ""
) -> Item:
    """Return a tag as an item, the device's settings standing in for those it does not give."""
    sampling_ms = tag.sampling_interval_ms
    if sampling_ms is None:
        sampling_ms = settings.sampling_interval_ms
    if sampling_ms is None:
        sampling_ms = settings.publishing_interval_ms
    return Item(
        tag=name,
        series=link.tag(name, unit=tag.unit),
        spec=spec,
        where=where,
        sampling_ms=sampling_ms,
        queue_size=tag.queue_size or queue_size(settings, sampling_ms),
        scaling=Scaling(tag.scale, tag.offset),
        deadband=settings.deadband if tag.deadband is None else tag.deadband,
        newest=newest,
    )


@dataclass(slots=True)
class Condition:
    """How the device is, in one sentence: what `link.report` is told."""

    link: Link
    items: list[Item]
    notes: list[str]
    """What is wrong with the device as a whole though it runs (too many tags)."""
    insecure: str = ""
    auto: bool = False
    """Tags that are polled are so because the server does not subscribe them, which is said."""

    def report(self) -> None:
        bad = [item for item in self.items if item.problem]
        sentences = list(self.notes)
        if bad:
            sentences.append(f"{len(bad)} of {len(self.items)} tags are bad: {_few(bad)}")
        state = "degraded" if sentences else "running"
        polled = sum(item.polled for item in self.items)
        if self.auto and polled:
            sentences.append(f"{polled} of {len(self.items)} tags are read cyclically, not subscribed")
        if self.insecure:
            sentences.append(self.insecure)
        self.link.report(state, "; ".join(sentences))


def _few(bad: Iterable[Item], most: int = 3) -> str:
    named = [f"{item.named()}: {item.problem}" for item in bad]
    more = f", and {len(named) - most} more" if len(named) > most else ""
    return ", ".join(named[:most]) + more
