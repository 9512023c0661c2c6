"""A real store and a real dataspace process for every test."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.store import Store
from tests.forward.plant import dataspace_settings, http_settings, open_store
from tests.peers.receiver import Receiver, receiver


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "store") as store:
        yield store


@pytest.fixture
async def peer(tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Receiver]:
    async with receiver(free_port(), tmp_path / "dataspace") as peer:
        yield peer


@pytest.fixture(params=["http", "dataspace"])
def settings_of(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return http_settings if request.param == "http" else dataspace_settings
