"""What the tests of CAN buses share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.can.standin import Machine, machine_at


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine on whose interfaces the gateway's SocketCAN code works."""
    machine = machine_at(tmp_path, monkeypatch)
    yield machine
    machine.close()
