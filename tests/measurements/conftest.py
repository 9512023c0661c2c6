"""A store, a service of measurements on it, and a node."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from gateway.clock import SystemClock
from gateway.measurements import Measurements
from gateway.measurements.finishing import CHILD
from gateway.store import Store, StoreSettings
from gateway.supervise import Supervisor
from tests.measurements.node import DEVICE, Node

C = TypeVar("C")
SETTINGS = StoreSettings(commit_interval_s=0.05)  # type: ignore[arg-type]


@dataclass
class Gateway:
    """What a measurement needs of a gateway, opened anew as often as a test likes."""

    folder: Path
    node: Node
    settings: StoreSettings = SETTINGS
    child: Sequence[str] = CHILD
    up: bool = True

    def find(self, device: str, contract: type[C]) -> C | None:
        there = self.up and device == DEVICE and isinstance(self.node, contract)
        return self.node if there else None  # type: ignore[return-value]

    @property
    def files(self) -> Path:
        return self.folder / "measurements"

    def opened_store(self, **settings: object) -> AbstractAsyncContextManager[Store]:
        return Store.open(self.folder / "store", replace(self.settings, **settings), SystemClock())  # type: ignore[arg-type]

    @asynccontextmanager
    async def opened(self, **settings: object) -> AsyncIterator[tuple[Measurements, Store]]:
        clock, supervisor = SystemClock(), Supervisor(SystemClock())
        async with self.opened_store(**settings) as store:
            try:
                async with Measurements.open(
                    store, clock, supervisor, self.files, "gw-1", self.find, child=self.child
                ) as measurements:
                    yield measurements, store
            finally:
                await supervisor.close()


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def gateway(tmp_path: Path, node: Node) -> Gateway:
    return Gateway(tmp_path, node)
