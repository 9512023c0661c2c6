"""What the two ways of taking damaged files in have in common: names, deletions, files and times."""

from collections.abc import Callable, Generator
from pathlib import Path

from gateway.model import Gap, SeriesInfo
from gateway.store.history import CORRUPT, SALVAGED, History
from gateway.store.tombstones import Tombstone
from gateway.store.work import Work

Names = dict[int, SeriesInfo]
Mapping = dict[int, int]
"""Number of a series in the damaged file to its number now."""
Ask = Callable[[Names], Generator[Work | None, None, Mapping]]
"""Learns by which numbers series are known now; yields until it is told."""

_MOST_GAPS = 100


def restored(found: list[Tombstone], history: History, next_id: int) -> list[Tombstone]:
    """Have the deletions of a damaged file hold again; return those to be written."""
    there = {each[1:] for each in history.deleted}
    fresh = [each for each in dict.fromkeys(each._replace(id=0) for each in found) if each[1:] not in there]
    fresh = [each._replace(id=next_id + place) for place, each in enumerate(fresh)]
    history.deleted = history.deleted.changed(fresh)
    return fresh


def merged(gaps: list[Gap]) -> list[Gap]:
    """Return a bounded number of gaps: beyond it the last one stands for the rest."""
    if len(gaps) <= _MOST_GAPS:
        return gaps
    rest = gaps[_MOST_GAPS - 1 :]
    last = Gap(rest[0].from_us, max(gap.to_us for gap in rest), f"{len(rest)} times: {rest[0].reason}")
    return [*gaps[: _MOST_GAPS - 1], last]


def changed_us(path: Path) -> int:
    """Return when a file or its WAL was last written."""
    parts = (path, path.with_name(path.name + "-wal"))
    return int(max((part.stat().st_mtime for part in parts if part.exists()), default=0) * 1_000_000)


def born_us(folder: Path) -> int:
    """Return when a store was made: its lock file keeps that time."""
    try:
        return int((folder / "store.lock").stat().st_mtime * 1_000_000)
    except OSError:
        return 0


def searched(path: Path) -> None:
    """Rename a file that is done with, and what belongs to it."""
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(part.with_name(part.name.replace(f".{CORRUPT}", f".{SALVAGED}")))
