"""A child process that writes files or looks into them, and its pipes. These block: threads talk to it."""

import os
import subprocess
from collections.abc import Sequence

from gateway.child_process import child_environment

_NO_PLUGINS = {"HDF5_PLUGIN_PRELOAD": "::"}
"""A file may ask for any filter: HDF5 is not to load one from a folder (H5PLprivate.h, H5PL_NO_PLUGIN)."""


class PipedChild:
    """The process. What it does not foresee it tells on our stderr: the journal."""

    def __init__(self, command: Sequence[str]) -> None:
        environ = os.environ | child_environment() | {"OPENBLAS_NUM_THREADS": "1"} | _NO_PLUGINS
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environ
        )

    def _write(self, data: bytes) -> None:
        """Write all of it. OSError: the child has ended."""
        assert self._process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self._process.stdin.write(view) :]

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        with self._process:
            pass
