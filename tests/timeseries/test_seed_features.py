"""Each row of the seeds' feature table that is timeseries-api's, but the plot page (row 53)."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from gateway.controls.devices import Push, PushedSample
from tests.timeseries.bench import Bench
from tests.timeseries.seed_features import PAGE, ROWS, in_page


@pytest.mark.timeout(60)
@pytest.mark.parametrize("load", ["bare", "under load"])
@pytest.mark.parametrize("number", ROWS)
async def test_row(api: Bench, number: int, load: str) -> None:
    async with busy(api) if load == "under load" else contextlib.nullcontext():
        await ROWS[number].verify(api)


@contextlib.asynccontextmanager
async def busy(api: Bench) -> AsyncIterator[None]:
    """Others send thousands of samples a second and ask the same listener, rightly and wrongly."""
    push = api.plant.devices["box"].control(Push)
    assert push is not None
    await push.push([PushedSample("a", 0, 0)])
    stored = rightly = wrongly = 0

    async def send() -> None:
        nonlocal stored
        for start in itertools.count(1, 500):
            stored += (await push.push([PushedSample("a", n, n) for n in range(start, start + 500)])).added

    async def ask() -> None:
        nonlocal rightly, wrongly
        while True:
            rightly += (await api.ask("GET", "/points/count"))[0] == 200
            wrongly += (await api.ask("GET", "/series/9999999"))[0] == 404
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(send()), group.create_task(ask()), group.create_task(ask())]
        try:
            yield
            async with asyncio.timeout(20):
                while not (stored and rightly and wrongly):
                    await asyncio.sleep(0.01)
        finally:
            for task in tasks:
                task.cancel()


def test_every_row_is_here_and_the_page_has_them() -> None:
    assert sorted(ROWS) == [46, 47, 48, 49, 50, 51, 52, 54, 55]
    assert all(row.verify.__doc__ for row in ROWS.values())
    page = PAGE.read_text(encoding="utf-8")
    assert in_page(page) == page, "python -m tests.timeseries.seed_features writes it"
