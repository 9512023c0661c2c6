"""A bus from its frames to the store: what is stored, what is told, and what is recorded as lost."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import can as python_can
import pytest

from gateway.canbus.frames import ERROR
from tests.can.plant import OIL, RAM, plant, ram, settings
from tests.can.standin import Machine
from tests.opcua.plant import Plant
from tests.stepped_clock import DAY_US, SteppedClock


async def rows(site: Plant) -> list[tuple[str, int, Any]]:
    samples = await site.samples()
    names = {series: name for name, series in site.session.tags.items()}
    return sorted((names[sample.series], sample.ts, sample.value) for sample in samples)


async def values(site: Plant, tag: str) -> list[Any]:
    return [value for name, _ts, value in await rows(site) if name == tag]


def stored(site: Plant, tag: str, *wanted: Any) -> Callable[[], Awaitable[bool]]:
    async def so() -> bool:
        return await values(site, tag) == list(wanted)

    return so


def told(site: Plant, state: str, words: str = "") -> Callable[[], Awaitable[bool]]:
    async def so() -> bool:
        health = site.keeper.health
        return health.state == state and words in health.detail

    return so


async def running(site: Plant) -> None:
    await site.until(told(site, "running"))


async def test_signals_are_stored_with_the_kernels_time(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    async with plant(tmp_path, settings(tmp_path)) as site:
        await running(site)
        before_us = site.session.clock.wall_us()
        machine.send(RAM, ram(12.5, 340))
        machine.send(OIL, (1234).to_bytes(2, "little"))
        machine.send(0x7FF, b"unknown")
        after_us = site.session.clock.wall_us()
        await site.until(stored(site, "Oil.Pressure", 12.34))
        assert await values(site, "Ram.Force") == [12.5]
        assert await values(site, "Ram.Stroke") == [340]
        times = {ts for name, ts, _value in await rows(site) if not name.startswith("bus:")}
        assert all(before_us - 50_000 <= ts <= after_us + 50_000 for ts in times)
        assert await values(site, "bus:state") == ["error-active"]
        masks = dict(machine.filters)
        assert set(masks) == {RAM, OIL}
        assert masks[RAM] & 0x800007FF == 0x800007FF


async def test_listed_tags_only(machine: Machine, tmp_path: Path) -> None:
    from gateway.protocols.can import TagSettings

    machine.plug()
    tags = {
        "force": TagSettings(signal="Ram.Force", unit="t", scale=0.1),
        "gone": TagSettings(signal="Ram.No"),
    }
    async with plant(tmp_path, settings(tmp_path), tags) as site:
        await site.until(told(site, "degraded", "Ram.No"))
        machine.send(RAM, ram(20))
        await site.until(stored(site, "force", 2.0))
        assert {name for name, _ts, _value in await rows(site)} <= {
            "force", "bus:state", "bus:dropped", "bus:overruns",
        }  # fmt: skip


async def test_a_bus_that_goes_and_comes(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    async with plant(tmp_path, settings(tmp_path, bitrate=250_000)) as site:
        await running(site)
        machine.send(RAM, ram(1))
        await site.until(stored(site, "Ram.Force", 1.0))
        for gone, back, word, fix in [
            (lambda: machine.write("can0", flags="0x40080"), lambda: machine.write("can0", flags="0x40081"),
             "down", "ip link set can0 up type can bitrate 250000"),
            (lambda: machine.send(ERROR | 0x40, bytes(8)) or machine.write("can0", carrier=0),
             lambda: machine.write("can0", carrier=1), "bus-off", "terminating resistors"),
            (machine.unplug, machine.plug, "absent", "plugged in"),
        ]:  # fmt: skip
            gone()
            await site.until(told(site, "failed", fix))
            assert "can0" in site.keeper.health.detail
            await site.until(stored_last(site, "bus:state", word))
            back()
            await running(site)
            await site.whole()  # before any frame: it is listened to
            # The same value as before: a signal that has not changed is stored anew after a hole.
            machine.send(RAM, ram(1))
            await site.until(stored_last(site, "bus:state", "error-active"))
        await site.until(stored(site, "Ram.Force", 1.0, 1.0, 1.0, 1.0))
        reasons = [gap.reason for gap in await site.gaps()]
        assert len(reasons) == 3
        assert {"down", "bus-off", "can0"} <= set(" ".join(reasons).replace(":", "").split())
        for gap in await site.gaps():
            assert gap.device == "press"
            assert 0 < gap.to_us - gap.from_us < 10_000_000


def stored_last(site: Plant, tag: str, wanted: Any) -> Callable[[], Awaitable[bool]]:
    async def so() -> bool:
        return (await values(site, tag))[-1:] == [wanted]

    return so


async def test_no_bus_at_start(machine: Machine, tmp_path: Path) -> None:
    async with plant(tmp_path, settings(tmp_path)) as site:
        await site.until(told(site, "failed", "can0 does not exist"))
        machine.plug()
        await running(site)
        machine.send(RAM, ram(3))
        await site.until(stored(site, "Ram.Force", 3.0))


async def test_every_frame_is_received_or_counted_in_a_gap(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.canbus import socketcan

    monkeypatch.setattr(socketcan, "_BUFFER_BYTES", 50_000)
    machine.plug()
    async with plant(tmp_path, settings(tmp_path, keep_interval_ms=0)) as site:
        await running(site)
        sent = 0
        for _ in range(20):
            for _ in range(200):
                machine.send(RAM, ram(sent / 10))
                sent += 1
            await asyncio.sleep(0.02)
        await site.until(told(site, "degraded", "frames were lost"))
        received = len(await values(site, "Ram.Force"))

        async def complete() -> bool:
            lost = sum(gap.count or 0 for gap in await site.gaps())
            return lost > 0 and len(await values(site, "Ram.Force")) + lost == sent

        await site.until(complete)
        assert received < sent
        assert len(await site.gaps()) < 5  # those that follow each other are one


async def test_a_controller_that_runs_over_is_told_and_recorded(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    async with plant(tmp_path, settings(tmp_path)) as site:
        await running(site)
        machine.send(RAM, ram(1))
        await site.until(stored(site, "Ram.Force", 1.0))
        machine.send(ERROR | 0x204, bytes([0, 1, 0, 0, 0, 0, 0, 0]))
        machine.count(overruns=3)
        await site.until(told(site, "degraded", "the memory of the CAN controller ran over 3 times"))

        async def recorded() -> bool:
            return [gap.count for gap in await site.gaps() if "ran over 3 times" in gap.reason] == [3]

        await site.until(recorded)


async def test_a_full_memory_is_told_and_what_was_lost_comes_again(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    async with plant(tmp_path, settings(tmp_path)) as site:
        await running(site)
        machine.send(RAM, ram(1))
        await site.until(stored(site, "Ram.Force", 1.0))
        budget = site.store.budget
        room = budget.limit_bytes - budget.used_bytes
        assert budget.try_take(room)
        await asyncio.sleep(1.1)  # the interval at which a changing signal is stored
        machine.send(RAM, ram(2))
        await site.until(told(site, "degraded", "memory for those that wait was full"))
        budget.give(room)
        async with asyncio.timeout(10):
            while await values(site, "Ram.Force") != [1.0, 2.0]:
                machine.send(RAM, ram(2))  # unchanged since, but the store does not have it
                await asyncio.sleep(0.1)

        async def recorded() -> bool:
            return any("memory" in gap.reason and gap.count for gap in await site.gaps())

        await site.until(recorded)


async def test_the_state_of_the_bus_that_a_full_memory_lost_is_stored_later(
    machine: Machine, tmp_path: Path
) -> None:
    machine.plug()
    async with plant(tmp_path, settings(tmp_path)) as site:
        await site.until(stored_last(site, "bus:state", "error-active"))
        budget = site.store.budget
        room = budget.limit_bytes - budget.used_bytes
        assert budget.try_take(room)
        machine.send(ERROR | 0x204, bytes([0, 0x10, 0, 0, 0, 0, 3, 140]))
        await site.until(told(site, "degraded", "memory for those that wait was full"))
        budget.give(room)
        await site.until(stored_last(site, "bus:state", "error-passive"))


async def test_a_link_that_went_while_the_memory_was_full_is_stored_later(
    machine: Machine, tmp_path: Path
) -> None:
    machine.plug()
    async with plant(tmp_path, settings(tmp_path)) as site:
        await site.until(stored_last(site, "bus:state", "error-active"))
        budget = site.store.budget
        room = budget.limit_bytes - budget.used_bytes
        assert budget.try_take(room)
        machine.write("can0", flags="0x40080")
        await site.until(told(site, "failed", "is down"))
        budget.give(room)
        await site.until(stored_last(site, "bus:state", "down"))


async def test_a_silent_bus(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    async with plant(tmp_path, settings(tmp_path, silence_ms=500)) as site:
        await running(site)
        machine.send(RAM, ram(1))
        await site.until(told(site, "degraded", "no frame came for 0.5 s"))
        assert not await site.gaps()
        machine.send(RAM, ram(2))
        await site.until(stored(site, "Ram.Force", 1.0, 2.0))
        gap = (await site.gaps())[-1]
        assert "no frame came" in gap.reason
        assert gap.to_us - gap.from_us >= 500_000


async def test_a_clock_that_is_set_makes_no_gap_longer(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    clock = SteppedClock()
    async with plant(tmp_path, settings(tmp_path, silence_ms=500), clock=clock) as site:
        await running(site)
        machine.send(RAM, ram(1))
        await site.until(told(site, "degraded", "no frame came"))
        clock.set_by_us = 3 * DAY_US
        machine.send(RAM, ram(2))
        await site.until(stored(site, "Ram.Force", 1.0, 2.0))
        [gap] = [gap for gap in await site.gaps() if "no frame came" in gap.reason]
        assert 500_000 <= gap.to_us - gap.from_us < DAY_US
        assert abs(gap.to_us - clock.wall_us()) < DAY_US


async def test_the_wrong_database(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    async with plant(tmp_path, settings(tmp_path, silence_ms=500)) as site:
        await site.until(told(site, "degraded", "no frame came"))
        machine.count(rx=500, rx_bytes=4000)
        await site.until(told(site, "degraded", "none that the database knows"))


async def test_a_bus_with_errors(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    async with plant(tmp_path, settings(tmp_path)) as site:
        await running(site)
        machine.send(ERROR | 0x208, bytes([0, 0, 4, 0, 0, 0, 0, 140]))
        machine.send(ERROR | 0x204, bytes([0, 0x10, 0, 0, 0, 0, 3, 140]))
        await site.until(told(site, "degraded", "is error-passive (REC 140, TEC 3): frames arrive damaged"))
        assert "bit rate" in site.keeper.health.detail
        await site.until(stored_last(site, "bus:state", "error-passive"))
        machine.send(ERROR | 0x204, bytes([0, 0x40, 0, 0, 0, 0, 0, 90]))
        await running(site)
        await site.until(stored_last(site, "bus:state", "error-active"))
        await asyncio.sleep(1.3)  # looked at again, and nothing new
        assert await values(site, "bus:state") == ["error-active", "error-passive", "error-active"]


async def test_fd_is_asked_for_and_the_link_has_none(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    async with plant(tmp_path, settings(tmp_path, fd=True)) as site:
        await site.until(told(site, "degraded", "dbitrate 2000000 fd on"))


async def test_another_interface(tmp_path: Path) -> None:
    async with plant(tmp_path, settings(tmp_path, interface="virtual", channel="session")) as site:
        await running(site)
        with python_can.Bus(interface="virtual", channel="session") as other:
            other.send(python_can.Message(arbitration_id=RAM, is_extended_id=False, data=ram(7.5)))
            await site.until(stored(site, "Ram.Force", 7.5))
        assert await values(site, "bus:state") == ["up"]
