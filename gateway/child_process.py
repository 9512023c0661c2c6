"""How a child process of ours is started: with the modules that this one runs with."""

import os
import sys


def child_command(module: str) -> tuple[str, ...]:
    """Return the command that runs a module of ours."""
    return sys.executable, "-P", "-m", module


def child_environment() -> dict[str, str]:
    """Return what the command needs to find our modules: the package's launcher alone knows their folder."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
