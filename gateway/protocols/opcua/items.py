"""The tags of a session: what each reads, how it is read, and what is wrong with it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gateway.controls.devices import TagAbout, TagState
from gateway.model import Batch, Device, Link, Value
from gateway.protocols.opcua import Settings, TagSettings, queue_size
from gateway.protocols.opcua.patterns import is_pattern
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
    """Changed by `scale_by` alone."""
    deadband: float
    newest: Newest
    unit: str = ""
    """As the YAML gives it."""
    node: Any = None
    """Its asyncua NodeId in this session, once resolved."""
    polled: bool = False
    """Read cyclically rather than subscribed."""
    refusal: str = ""
    """Why it is read cyclically though a subscription was wanted."""
    filtered: bool = False
    """The server applies the deadband."""
    kept: Value = None
    """The value that the deadband compares with."""
    first: int | None = None
    """Time of the first value in this session, or since a loss; `heard` where it gave none."""
    heard: bool = False
    """A value of it came in this session."""
    queued: bool = False
    """The server keeps more than one value of it, and says where it could not."""
    historic: bool | None = None
    """The server keeps its history, once asked."""
    events: Any = None
    """What it takes of a node's events (events.Wanted); None for a variable."""
    about: TagAbout | None = None
    """What the server says of it beside its values, once asked."""
    care: int = field(init=False)
    """What a reading of it takes: AS_IT_IS, SCALED or A_LOOK."""
    _problem: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.problem = ""

    def scale_by(self, scaling: Scaling) -> None:
        """Have its values turned into others from now on."""
        self.scaling = scaling
        self.problem = self.problem  # what a reading takes has changed

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

    def poll(self, why: str) -> None:
        """Have it read cyclically, for that reason; events cannot be."""
        if self.events is not None:
            self.problem = f"node {self.spec}: its events come by subscription only" + f" ({why})" * bool(why)
        else:
            self.polled, self.refusal = True, why
            self.filtered = False  # what is read, no server filters

    def named(self) -> str:
        return f"{self.tag} ({self.where})" if self.where else self.tag

    def begin(self, ts: int | None) -> None:
        """Note that a value of that time came."""
        self.heard = True
        if self.first is None:
            self.first = ts

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
    item.begin(reading.ts)
    small = item.within_deadband(reading)
    item.newest[item.series] = reading
    if small:
        return
    value = item.scaling(reading.value)
    item.kept = value
    ts, flags = (reading.ts, reading.flags) if reading.ts is not None else link.stamp()
    batch.add(item.series, ts, value, reading.status, flags)


def listed(device: Device, settings: Settings, link: Link, newest: Newest) -> list[Item]:
    """Return the items of the tags that the YAML names one by one, not resolved yet."""
    return [
        item(name, tag.node, tag, settings, link, newest, where=device.where.get(name, ""))
        for name, tag in device.tags.items()
        if tag.node and not is_pattern(tag.node)
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
        # Without one in the YAML the series keeps the unit that the server told last, until it tells again.
        series=link.tag(name, unit=tag.unit or None),
        unit=tag.unit,
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

    remark: str = ""
    """What is to be known besides."""

    def report(self) -> None:
        bad = [item for item in self.items if item.problem]
        sentences = list(self.notes)
        if bad:
            sentences.append(f"{len(bad)} of {len(self.items)} tags are bad: {_few(bad)}")
        state = "degraded" if sentences else "running"
        polled = [item for item in self.items if item.polled]
        if self.auto and polled:
            reasons = ", ".join(dict.fromkeys(item.refusal for item in polled if item.refusal))
            why = f" ({reasons})" if reasons else ""
            sentences.append(
                f"{len(polled)} of {len(self.items)} tags are read cyclically, not subscribed{why}"
            )
        sentences.extend(filter(None, (self.remark, self.insecure)))
        self.link.report(state, "; ".join(sentences))

    def tag_states(self) -> dict[str, TagState]:
        """Return how each tag is (controls.TagStates)."""
        return {item.tag: _state(item) for item in self.items}


def _state(item: Item) -> TagState:
    if item.problem:
        return TagState("bad", item.spec, item.problem, alive=False, about=item.about)
    way = "polled" if item.polled else "subscribed"
    return TagState(way, item.spec, item.refusal, alive=item.heard, about=item.about)


def _few(bad: Iterable[Item], most: int = 3) -> str:
    named = [f"{item.named()}: {item.problem}" for item in bad]
    more = f", and {len(named) - most} more" if len(named) > most else ""
    return ", ".join(named[:most]) + more
