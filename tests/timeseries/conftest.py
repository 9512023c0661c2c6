"""The contract, as each test here finds it."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.timeseries.bench import Bench, bench, busy


@pytest.fixture(params=["bare", "busy"])
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """The contract alone, and while others keep the gateway busy."""
    async with (
        bench(tmp_path) as made,
        busy(made) if request.param == "busy" else contextlib.nullcontext(),
    ):
        yield made
