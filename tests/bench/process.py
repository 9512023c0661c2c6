"""What a process and its children take, as the kernel counts it."""

import os
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Taken(NamedTuple):
    """Of a process and all that it started."""

    processes: int
    threads: int
    rss_mib: float
    """Resident pages, those shared with other programs (libraries) counted whole."""
    pss_mib: float
    """The same, each shared page divided by the number of its users."""
    own_mib: float
    """Pages of its own that no file backs."""
    most_mib: float
    """The most that ever was resident."""
    cpu_s: float
    """User and system, since the start."""
    read_mb: float
    """What came from the disk, not out of the page cache, since the start."""


def taken(pid: int) -> Taken:
    """Look at a process tree now. OSError: it has ended."""
    tree = _tree(pid)
    memory = [_memory_kib(each) for each in tree]
    rss, pss, own = (sum(each[name] for each in memory) / 1024 for name in ("Rss", "Pss", "Private_Dirty"))
    threads = sum(len(list(Path(f"/proc/{each}/task").iterdir())) for each in tree)
    most = sum(map(_most_kib, tree)) / 1024
    read = sum(map(_read_bytes, tree)) / 1e6
    return Taken(len(tree), threads, rss, pss, own, most, sum(map(_cpu_s, tree)), read)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += _tree(int(child))
    return found


def _memory_kib(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


def _most_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def _cpu_s(pid: int) -> float:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_name[11:15])) / _TICKS


def _read_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/io").read_text().partition("\nread_bytes:")[2].split()[0])
