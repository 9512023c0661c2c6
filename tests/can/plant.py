"""The CAN protocol over the real intake and the real store, in this process: holes and gaps are true."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.clock import Clock, SystemClock
from gateway.intake import DeviceSession
from gateway.model import Device
from gateway.own_time import OwnTime
from gateway.protocols import can
from gateway.store import Store, StoreSettings
from gateway.supervise import Keeper, Supervisor
from tests.opcua.plant import Plant

PRESS = """VERSION ""
NS_ :
BS_:
BU_: press
BO_ 256 Ram: 8 press
 SG_ Force : 0|16@1- (0.1,0) [-3000|3000] "kN" press
 SG_ Stroke : 16|16@1+ (1,0) [0|65535] "mm" press
BO_ 2566844672 Oil: 2 press
 SG_ Pressure : 0|16@1+ (0.01,0) [0|655] "bar" press
"""
RAM, OIL = 0x100, 0x98FEF100


def ram(force: float, stroke: int = 0) -> bytes:
    return round(force * 10).to_bytes(2, "little", signed=True) + stroke.to_bytes(2, "little") + bytes(4)


def settings(folder: Path, **more: Any) -> can.Settings:
    """Return the settings of a device with the database PRESS."""
    file = folder / "press.dbc"
    file.write_text(PRESS)
    return can.Settings(database=file, **more)


@asynccontextmanager
async def plant(
    folder: Path,
    settings: can.Settings,
    tags: dict[str, can.TagSettings] | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Plant]:
    """Enter a bus that is collected from, with everything behind it."""
    clock = clock or SystemClock()
    state = folder / "state"
    state.mkdir(exist_ok=True)
    async with Store.open(state, StoreSettings(commit_interval_s=0.05), clock) as store:
        session = DeviceSession(
            "press", "can", store=store, clock=clock, own_time=OwnTime(clock, 0, store.gap),
            state=state, gateway_id="test-gateway", listeners=[], tags=tags or {},
        )  # fmt: skip
        await session.take_over()

        async def attempt(keeper: Keeper) -> None:
            session.attempt_began(keeper)
            await can.run(Device("press", tags or {}), settings, session)

        keeper = Supervisor(clock).keep("device press", attempt, ended=session.attempt_ended)
        session.keeper = keeper
        try:
            yield Plant(store, session, keeper)
        finally:
            await keeper.stop()
