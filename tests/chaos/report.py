"""What a writer of numbered samples tells of itself on a file descriptor, line by line.

    i N          the numbers below N may be put from now on
    a A B        A to B-1 are acknowledged
    x T A B      of tag T, those from A to B-1 may be deleted from now on
    d T A B      they were deleted, which was acknowledged
    r A B        retention may take A to B-1 from now on
    b NAME       a backup of what is acknowledged begins
    f M P        block P of the measurement begun at the number M is acknowledged
    g M          the blocks of that measurement may be dropped from now on
    m HEX        the head of the WAL's shared memory as it is now

Sets of numbers are integers here, a bit for each: a million judgements compare them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.chaos.oracle import TAGS


@dataclass(slots=True)
class Report:
    """All that was told so far."""

    issued: int = 0
    """Numbers below it may have been put."""
    acked: int = 0
    deleted: int = 0
    """Never to be served again."""
    doubtful: int = 0
    """Deleted, or taken by retention, or about to be."""
    blocks: dict[str, int] = field(default_factory=dict)
    """Of measurements, those acknowledged and not to be dropped."""
    backups: dict[str, int] = field(default_factory=dict)
    """What had been acknowledged when each of them began."""
    shared: list[bytes] = field(default_factory=list)
    """Heads of the shared memory, the newest last."""
    _rest: str = ""

    @property
    def kept(self) -> int:
        """What must be served."""
        return self.acked & ~self.doubtful

    def take(self, text: str) -> None:
        """Read on; a line may end in the next part."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            word, *fields = line.split(" ")
            self._take(word, fields)

    def _take(self, word: str, fields: list[str]) -> None:
        match word:
            case "i":
                self.issued = max(self.issued, int(fields[0]))
            case "a":
                self.acked |= span(int(fields[0]), int(fields[1]))
            case "x" | "d":
                tag, first, end = map(int, fields)
                gone = bits(n for n in range(first, end) if n % TAGS == tag)
                self.doubtful |= gone
                self.deleted |= gone if word == "d" else 0
            case "r":
                self.doubtful |= span(int(fields[0]), int(fields[1]))
            case "f":
                name = f"m{fields[0]}"
                self.blocks[name] = self.blocks.get(name, 0) | 1 << int(fields[1])
            case "g":
                self.blocks.pop(f"m{fields[0]}", None)
            case "b":
                self.backups[fields[0]] = self.acked
            case "m":
                self.shared.append(bytes.fromhex(fields[0]))


def read_report(text: str) -> Report:
    """Read all of what a writer told."""
    report = Report()
    report.take(text)
    return report


def span(first: int, end: int) -> int:
    """Return the numbers from `first` to `end` - 1."""
    return (1 << end) - (1 << first)


def bits(some: Iterable[int]) -> int:
    found = 0
    for n in some:
        found |= 1 << n
    return found


def numbers(found: int) -> list[int]:
    return [n for n in range(found.bit_length()) if found >> n & 1] if found else []
