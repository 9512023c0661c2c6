"""A writer's system calls on the store's files, from strace, as operations in order."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.writers import read_report

_CALLS = "openat,write,pwrite64,pwritev,fsync,fdatasync,ftruncate,fallocate,rename,renameat2,unlink,unlinkat"
_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
_UNFINISHED = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")


@dataclass(frozen=True, slots=True)
class Operation:
    """`call` is write, sync, truncate, extend, create, unlink or report; `file` a name in the folder."""

    call: str
    file: str = ""
    at: int = 0
    data: bytes = b""


def run_traced(folder: Path, commits: int, mutant: str = "") -> list[Operation]:
    """Run a writer under strace; return what it did to its files and what it reported, in order."""
    log = folder.with_name(folder.name + ".trace")
    command = ["strace", "-f", "-y", "-xx", "-s", "4000000", "-e", f"trace={_CALLS}", "-o", str(log)]
    writer = [sys.executable, "-m", "tests.chaos.writers", str(folder), str(commits), mutant]
    ended = subprocess.run([*command, *writer], stdout=subprocess.PIPE, text=True, check=True)
    operations = parse(log.read_text(), folder)
    reported = b"".join(operation.data for operation in operations if operation.call == "report").decode()
    assert reported == ended.stdout, "the trace is not what happened"
    assert len(read_report(reported)[0]) >= commits
    return operations


def parse(trace: str, folder: Path) -> list[Operation]:
    """Read a trace. A write counts from where it begins, a sync from where it ends."""
    operations: list[Operation] = []
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        if match := _UNFINISHED.match(line):
            begun[match[1]] = f"{match[2]}({match[3]}"
            continue
        if match := _RESUMED.match(line):
            line = begun.pop(match[1]) + match[2]
        if (match := _LINE.match(line)) and int(match[3]) >= 0:
            operations += _operation(match[1], match[2], folder)
    return operations


def _operation(call: str, arguments: str, folder: Path) -> list[Operation]:
    texts = [bytes.fromhex(text.replace("\\x", "")) for text in re.findall(r'"((?:\\x..)*)"', arguments)]
    opened = re.match(r"(\d+)<((?:\\x..)*)", arguments)
    path = os.fsdecode(bytes.fromhex(opened[2].replace("\\x", ""))) if opened else ""
    plain = re.sub(r'<(?:\\x..)*>|"[^"]*"', "", arguments).split(",")
    if call == "write" and opened and opened[1] == "1":
        return [Operation("report", data=texts[0])]
    if call in ("openat", "rename", "renameat2", "unlink", "unlinkat"):
        name = Path(os.fsdecode(texts[0]))
        if name.parent != folder or (call == "openat" and "O_CREAT" not in arguments):
            return []
        assert "rename" not in call, "no rename is known of the store"
        return [Operation("create" if call == "openat" else "unlink", name.name)]
    if Path(path) == folder:
        return [Operation("sync", "")]
    if Path(path).parent != folder or path.endswith("-shm"):
        return []
    name = Path(path).name
    match call:
        case "pwrite64":
            return [Operation("write", name, int(plain[-1]), texts[0])]
        case "fsync" | "fdatasync":
            return [Operation("sync", name)]
        case "ftruncate":
            return [Operation("truncate", name, int(plain[-1]))]
        case "fallocate":
            return [Operation("extend", name, int(plain[-2]) + int(plain[-1]))]
    raise AssertionError(f"{call} on {name} is not modelled")
