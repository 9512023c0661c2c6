"""The child process, killed at one of its system calls: `python -m tests.measurements.killed_child FILE`.

FILE holds the number of the call (each counts before and after), or is missing. It goes before the kill, so
that the next process lives; one that lives leaves the number of its calls there.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from gateway.measurements import file_process

_CALLS = {
    "fsync", "posix_fadvise", "rename", "replace", "unlink", "mkstemp", "open", "close", "create",
    "create_dataset", "resize", "write", "flush", "add", "finish", "read_back",
}  # fmt: skip


def main(file: Path) -> None:
    at = int(file.read_text()) if file.exists() else 0
    calls = 0

    def count(frame: Any, event: str, what: Any) -> None:
        nonlocal calls
        name = what.__name__ if event.startswith("c_") else frame.f_code.co_name
        ours = frame.f_globals.get("__name__", "").startswith("gateway.")
        if name not in _CALLS or not (ours or event in ("c_call", "c_return")):
            return
        calls += 1
        if calls == at:
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    file_process.main()
    sys.setprofile(None)
    file.write_text(str(calls))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
