"""For every test: a blocking call in the event loop fails it."""

import socket
from collections.abc import Callable, Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


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
