"""A gateway with one STU, as each test here finds it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.icoapi.bench import Bench, bench


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made
