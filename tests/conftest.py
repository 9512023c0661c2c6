"""For every test: a blocking call in the event loop fails it, and it may run beside others (`make test`)."""

import fcntl
import os
import secrets
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

pytest_plugins = ["tests.seed_features"]

# The same cases each time, so that a change is judged by itself; `make chaos` looks for new ones.
settings.register_profile("same", derandomize=True, database=None)
if "CHAOS_SEED" not in os.environ:
    settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Beside other workers: what takes long begins first, and time limits count for a share of one core."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1:
        return
    for item in items:
        item.add_marker(pytest.mark.timeout(workers * _limit_s(item)), append=False)
    items.sort(key=_when)


def _limit_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0] if marker else item.config.getini("timeout"))


def _when(item: pytest.Item) -> float:
    if item.get_closest_marker("alone"):
        return 1
    return -_limit_s(item) if item.get_closest_marker("slow") else 0


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that is marked `alone` wait until no other runs; that wait is no part of its time."""
    with Path(__file__).open() as turn:
        fcntl.flock(turn, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        return (yield)


@pytest.fixture(autouse=True)
def blocking_calls_fail() -> Iterator[BlockBuster]:
    """Make any blocking file, socket, lock or sleep call inside the event loop raise BlockingError.

    Only our code is held to it: peers of the tests (asyncua's server) may do as they like.
    """
    with blockbuster_ctx("gateway") as buster:
        yield buster


@pytest.fixture
def free_port() -> Iterator[Callable[[], int]]:
    """Return a function that finds loopback TCP ports, which are this test's until it ends.

    So a server that was killed gets its port again: they lie below those that the kernel gives to outgoing
    connections, and an abstract socket named by the port keeps other workers away from it.
    """
    with ExitStack() as held:

        def find() -> int:
            while True:
                port = 10_000 + secrets.randbelow(20_000)
                with ExitStack() as kept, socket.socket() as probe:
                    claim = kept.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                    try:
                        claim.bind(f"\0edge-gateway-test-port-{port}")
                        probe.bind(("127.0.0.1", port))
                    except OSError:
                        continue
                    held.push(kept.pop_all())
                    return port

        yield find
