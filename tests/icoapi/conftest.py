"""A gateway with one STU, as each test here finds it."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.icoapi.bench import Bench, Contract, bench, busy, contract


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


@pytest.fixture(params=["bare", "busy"])
async def ico(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Contract]:
    """The contract alone, and while others keep the gateway busy."""
    async with (
        contract(tmp_path, cors=("http://web.example:5173",)) as made,
        busy(made) if request.param == "busy" else contextlib.nullcontext(),
    ):
        yield made
