"""A database that is saved while its bus is collected from."""

import socket
from pathlib import Path
from typing import Any

import pytest

from gateway.canbus import socketcan
from gateway.protocols.can import collect
from tests.can.plant import PRESS, RAM, plant, ram, settings
from tests.can.standin import Machine
from tests.can.test_session import running, stored, told, values
from tests.stepped_clock import DAY_US, SteppedClock

pytestmark = pytest.mark.timeout(30)  # child processes on a busy machine


@pytest.fixture(autouse=True)
def looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "_FILES_S", 0.1)


async def test_a_database_that_was_saved_is_taken(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    async with plant(tmp_path, settings(tmp_path)) as site:
        await running(site)
        machine.send(RAM, ram(12.5))
        await site.until(stored(site, "Ram.Force", 12.5))
        opened = len(machine.receivers)
        (tmp_path / "press.dbc").write_text(PRESS.replace("(0.1,0)", "(1,0)"))
        await site.until(lambda: another(machine, opened))
        machine.send(RAM, ram(12.5))
        await site.until(stored(site, "Ram.Force", 12.5, 125))
        [(_, gap)] = await site.store.gaps(limit=10)
        assert gap.reason == "the bus was opened again with a new database"
        assert gap.to_us - gap.from_us < 5_000_000


async def test_a_clock_that_is_set_meanwhile_makes_no_gap_longer(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.plug()
    clock, opened = SteppedClock(), machine.raw_socket

    def set_and_open(*arguments: Any, **how: Any) -> socket.socket:
        clock.set_by_us = len(machine.receivers) * 3 * DAY_US  # by the second opening on
        return opened(*arguments, **how)

    monkeypatch.setattr(socketcan, "raw_socket", set_and_open)
    async with plant(tmp_path, settings(tmp_path), clock=clock) as site:
        await running(site)
        (tmp_path / "press.dbc").write_text(PRESS.replace("(0.1,0)", "(1,0)"))
        await site.until(lambda: another(machine, 1))
        await running(site)
        [gap] = [gap for gap in await site.gaps() if "new database" in gap.reason]
        assert gap.to_us - gap.from_us < DAY_US and clock.set_by_us


async def another(machine: Machine, opened: int) -> bool:
    return len(machine.receivers) > opened


async def test_a_mistake_is_told_and_the_one_before_stays_in_use(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    async with plant(tmp_path, settings(tmp_path)) as site:
        await running(site)
        file, opened = tmp_path / "press.dbc", len(machine.receivers)
        file.write_text(PRESS.replace("(0.1,0)", "0.1,0)"))
        await site.until(told(site, "degraded", "press.dbc:6:"))
        assert "until then the one before is used" in site.keeper.health.detail
        machine.send(RAM, ram(12.5))
        await site.until(stored(site, "Ram.Force", 12.5))
        assert len(machine.receivers) == opened
        file.write_text(PRESS)
        await site.until(told(site, "running"))
        machine.send(RAM, ram(13.0))
        await site.until(stored(site, "Ram.Force", 12.5, 13.0))


async def test_a_database_that_was_never_right_is_told_until_it_is(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    press = settings(tmp_path)
    (tmp_path / "press.dbc").write_text("nonsense")
    async with plant(tmp_path, press) as site:
        await site.until(told(site, "failed", "press.dbc:1:1: this is not understood"))
        (tmp_path / "press.dbc").write_text(PRESS)
        await running(site)
        machine.send(RAM, ram(1.0))
        await site.until(stored(site, "Ram.Force", 1.0))
        assert await values(site, "Ram.Stroke") == [0]
