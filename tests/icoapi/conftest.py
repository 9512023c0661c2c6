"""A gateway with one STU, as each test here finds it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.icoapi.bench import Bench, Contract, bench, contract


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


@pytest.fixture
async def ico(tmp_path: Path) -> AsyncIterator[Contract]:
    async with contract(tmp_path, cors=("http://web.example:5173",)) as made:
        yield made
