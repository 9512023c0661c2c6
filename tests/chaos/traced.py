"""A writer's system calls on its files, from strace, as operations in order."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_CALLS = (
    "openat,write,pwrite64,pwritev,fsync,fdatasync,ftruncate,fallocate,rename,renameat2,unlink,unlinkat,"
    "sendfile,copy_file_range"
)
_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)(.*)")
_UNFINISHED = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")


@dataclass(frozen=True, slots=True)
class Operation:
    """`call`: write, sync, failed sync, truncate, extend, create, rename, unlink or report.

    `file` is a name in the folder; one of a folder in it ends in "/". A rename's `data` is the new name.
    """

    call: str
    file: str = ""
    at: int = 0
    data: bytes = b""


def run_traced(
    folder: Path, kind: str, start: int, commits: int, mutant: str = "", *, seed: int = 1, failing: str = ""
) -> list[Operation]:
    """Run a writer (`writers.main`) in folder/store; return what it did below the folder, and told, in order.

    `failing`: which of its syncs fail, each time some of what they were to write is lost ("40+90": the
    40th of a thread, then each 90th).
    """
    log = folder.with_name(f"{folder.name}.trace")
    command = ["strace", "-f", "-y", "-xx", "-s", "4000000", "-e", f"trace={_CALLS}", "-o", str(log)]
    if failing:
        command += ["-e", f"inject=fdatasync:error=EIO:when={failing}"]
    command += [sys.executable, "-m", "tests.chaos.writers", kind, str(folder / "store"), str(start)]
    command += [str(commits), mutant, str(seed)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    operations = Parser(folder).parse(log.read_text())
    log.unlink()
    reported = b"".join(operation.data for operation in operations if operation.call == "report").decode()
    assert reported == ended.stdout, "the trace is not what happened"
    return operations


class Parser:
    """Reads a trace. A write counts from where it begins, a sync from where it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ends: dict[str, int] = {}
        """File to where the next plain write goes."""

    def parse(self, trace: str) -> list[Operation]:
        operations: list[Operation] = []
        begun: dict[str, str] = {}
        for line in trace.splitlines():
            if match := _UNFINISHED.match(line):
                begun[match[1]] = f"{match[2]}({match[3]}"
                continue
            if match := _RESUMED.match(line):
                line = begun.pop(match[1]) + match[2]
            if match := _LINE.match(line):
                operations += self._operation(*match.groups())
        return operations

    def _operation(self, call: str, arguments: str, result: str, rest: str) -> list[Operation]:
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in re.findall(r'"((?:\\x..)*)"', arguments)]
        opened = re.match(r"(\d+)<((?:\\x..)*)", arguments)
        if call == "write" and opened and opened[1] == "1":
            return [Operation("report", data=texts[0])]
        if int(result) < 0:
            if call != "fdatasync" or "INJECTED" not in rest:
                return []
            call = "failed sync"
        if call in ("openat", "rename", "renameat2", "unlink", "unlinkat"):
            return self._entry(call, [self._name(os.fsdecode(text)) for text in texts], arguments)
        path = os.fsdecode(bytes.fromhex(opened[2].replace("\\x", ""))) if opened else ""
        name = self._name(path)
        if name is None or name.endswith("-shm"):
            return []
        if Path(path).is_dir() or name == "" or self._was_folder(name):
            return [Operation("sync", f"{name}/" if name else "")]
        plain = re.sub(r'<(?:\\x..)*>|"[^"]*"', "", arguments).split(",")
        return [self._on_file(call, name, plain, texts)]

    def _name(self, path: str) -> str | None:
        """Return a path as a name in the folder; None: it is elsewhere, or holds nothing."""
        where = Path(path)
        if where == self._folder:
            return ""
        known = where.is_relative_to(self._folder) and where.name != "reserve"  # a megabyte of nothing
        return str(where.relative_to(self._folder)) if known else None

    @staticmethod
    def _was_folder(name: str) -> bool:
        return name.endswith((".partial", "/history")) or name == "store"

    def _entry(self, call: str, names: list[str | None], arguments: str) -> list[Operation]:
        name = names[0]
        if name is None:
            return []
        if call.startswith("unlink"):
            return [] if name.endswith("-shm") else [Operation("unlink", name)]
        if call.startswith("rename"):
            assert names[1] is not None
            return [Operation("rename", name, data=names[1].encode())]
        if "O_CREAT" not in arguments or name.endswith("-shm"):
            return []
        self._ends[name] = 0
        created = [Operation("create", name)]
        return [*created, Operation("truncate", name, 0)] if "O_TRUNC" in arguments else created

    def _on_file(self, call: str, name: str, plain: list[str], texts: list[bytes]) -> Operation:
        match call:
            case "pwrite64":
                return Operation("write", name, int(plain[-1]), texts[0])
            case "write":
                at = self._ends[name]
                self._ends[name] += len(texts[0])
                return Operation("write", name, at, texts[0])
            case "fsync" | "fdatasync":
                return Operation("sync", name)
            case "failed sync":
                return Operation("failed sync", name)
            case "ftruncate":
                return Operation("truncate", name, int(plain[-1]))
            case "fallocate":
                return Operation("extend", name, int(plain[-2]) + int(plain[-1]))
        raise AssertionError(f"{call} on {name} is not modelled")
