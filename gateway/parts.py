"""The devices and uploads that run, each in its session or forwarder; started and stopped by what differs."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway import protocols
from gateway.clock import Clock
from gateway.config import Config, DeviceConfig, UploadConfig
from gateway.config.dropin import refused_by_sandbox
from gateway.forward import Forwarder
from gateway.intake import DeviceSession
from gateway.measurements import Catalogue
from gateway.model import BatchListener, DeviceProblem, GatewayError
from gateway.own_time import OwnTime
from gateway.store import Store
from gateway.supervise import Backoff, Keeper, Supervisor, describe, stopped

# Together with the store's close (3.5 s where the disk refuses) less than the 10 s that a stop may take.
_STOP_DEVICES_S: Final = 4.0
_STOP_UPLOADS_S: Final = 1.5
# With an attempt that leads nowhere, given up after 4 s, a device that is back is in use within 10 s.
_DEVICE_BACKOFF_S: Final = 5.0
_UPLOAD_BACKOFF_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class DevicePart:
    config: DeviceConfig
    session: DeviceSession
    keeper: Keeper

    @property
    def keepers(self) -> list[Keeper]:
        return [self.keeper]


@dataclass(frozen=True, slots=True)
class UploadPart:
    config: UploadConfig
    forwarder: Forwarder
    keeper: Keeper
    files: Keeper | None
    """Of what sends its files, where it takes any."""

    @property
    def keepers(self) -> list[Keeper]:
        return [self.keeper, *([self.files] if self.files is not None else [])]


class Parts:
    """What of a configuration runs beside the API."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        own_time: OwnTime,
        files: Catalogue,
        supervisor: Supervisor,
        *,
        state: Path,
        gateway_id: str,
        listeners: list[BatchListener],
    ) -> None:
        self._store, self._clock, self._own_time, self._files = store, clock, own_time, files
        self._supervisor, self._state, self._gateway_id = supervisor, state, gateway_id
        self._listeners = listeners
        self.devices: dict[str, DevicePart] = {}
        self.uploads: dict[str, UploadPart] = {}

    @property
    def keepers(self) -> list[Keeper]:
        return [*(part.keeper for part in self.devices.values()), *self._upload_keepers()]

    async def apply(self, config: Config, waiting: Iterable[str]) -> list[str]:
        """Stop and start what differs from what runs; return the names.

        What its uploads, and those `waiting` to come back, have not delivered stays stored.
        """
        gone: list[DevicePart | UploadPart] = [
            *(part for name, part in self.devices.items() if config.devices.get(name) != part.config),
            *(part for name, part in self.uploads.items() if config.uploads.get(name) != part.config),
        ]
        await stopped([keeper for part in gone for keeper in part.keepers], _STOP_DEVICES_S)
        changed = {part.keeper.name for part in gone}
        for name in self.devices.keys() - config.devices.keys():
            del self.devices[name]
        for name in self.uploads.keys() - config.uploads.keys():
            del self.uploads[name]
        self._store.pin(list({*config.uploads, *waiting}))
        for name, device in config.devices.items():
            if (known := self.devices.get(name)) is None or known.config != device:
                self.devices[name] = self._start_device(device, known, "its configuration was changed")
                changed.add(f"device {name}")
        for name, upload in config.uploads.items():
            if name not in self.uploads or self.uploads[name].config != upload:
                self.uploads[name] = self._start_upload(upload)
                changed.add(f"upload {name}")
        return sorted(changed)

    async def reconnect(self, name: str) -> Keeper | None:
        """End a device's session and begin a new one at once; None where there is no such device."""
        if (part := self.devices.get(name)) is None:
            return None
        await stopped([part.keeper], _STOP_DEVICES_S)
        begun = self.devices[name] = self._start_device(part.config, part, "it was told to reconnect")
        return begun.keeper

    async def stop(self, others: Iterable[Keeper]) -> None:
        """Stop the devices, then the uploads and the `others`."""
        await stopped([part.keeper for part in self.devices.values()], _STOP_DEVICES_S)
        await stopped([*self._upload_keepers(), *others], _STOP_UPLOADS_S)

    def _upload_keepers(self) -> list[Keeper]:
        return [keeper for part in self.uploads.values() for keeper in part.keepers]

    def _start_device(self, config: DeviceConfig, before: DevicePart | None, why: str) -> DevicePart:
        session = DeviceSession(
            config.id,
            config.kind,
            store=self._store,
            clock=self._clock,
            own_time=self._own_time,
            state=self._state,
            gateway_id=self._gateway_id,
            listeners=self._listeners,
            url=config.url,
            tags=config.device.tags,
        )
        taken_over = False
        if before is not None and before.session.last_heard_us is not None:
            session.follow(before.session, why)
            taken_over = True

        async def attempt(keeper: Keeper) -> None:
            nonlocal taken_over
            session.attempt_began(keeper)
            if not taken_over:  # here, where a store that cannot be read now is asked again
                await session.take_over()
                taken_over = True
            if config.lacking:
                raise DeviceProblem(config.lacking)
            module = await asyncio.to_thread(protocols.load, config.kind)
            try:
                await module.run(config.device, config.settings, session)
            except (OSError, GatewayError) as error:
                hint = await asyncio.to_thread(refused_by_sandbox, error, config.kind, config.settings)
                if hint:
                    raise DeviceProblem(f"{describe(error)}; {hint}") from error
                raise

        keeper = self._supervisor.keep(
            f"device {config.id}",
            attempt,
            backoff=Backoff(cap_s=_DEVICE_BACKOFF_S),
            ended=session.attempt_ended,
        )
        session.keeper = keeper
        return DevicePart(config, session, keeper)

    def _start_upload(self, config: UploadConfig) -> UploadPart:
        forwarder = Forwarder(
            config.id,
            config.kind,
            config.settings,
            self._store,
            self._clock,
            self._gateway_id,
            files=self._files,
            lacking=config.lacking,
        )
        backoff = Backoff(first_s=1.0, cap_s=_UPLOAD_BACKOFF_S)
        keeper = self._supervisor.keep(f"upload {config.id}", forwarder.run, backoff=backoff)
        files = None
        if forwarder.files is not None:
            name = f"files of upload {config.id}"
            files = self._supervisor.keep(name, forwarder.files.run, backoff=backoff)
        return UploadPart(config, forwarder, keeper, files)
