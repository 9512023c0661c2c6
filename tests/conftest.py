"""For every test: a blocking call in the event loop fails it."""

import os
import socket
from collections.abc import Callable, Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

# The same cases each time, so that a change is judged by itself; `make chaos` looks for new ones.
settings.register_profile("same", derandomize=True, database=None)
if "CHAOS_SEED" not in os.environ:
    settings.load_profile("same")


@pytest.fixture(autouse=True)
def blocking_calls_fail() -> Iterator[BlockBuster]:
    """Make any blocking file, socket, lock or sleep call inside the event loop raise BlockingError.

    Only our code is held to it: peers of the tests (asyncua's server) may do as they like.
    """
    with blockbuster_ctx("gateway") as buster:
        yield buster


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Return a loopback TCP port that nobody listened on a moment ago."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find
