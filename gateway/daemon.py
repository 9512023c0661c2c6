"""The one file that knows every part: start, reload by difference, stop."""

import asyncio
import contextlib
import functools
import logging
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from gateway import control_socket, protocols
from gateway.api.contracts import ConfigInfo, LogFilesInfo
from gateway.api.tokens import Tokens
from gateway.clock import Clock
from gateway.config import Config, ConfigProblems, DeviceConfig, UploadConfig, load_or_last_good, take
from gateway.config.dropin import refused_by_sandbox
from gateway.config.projection import project
from gateway.controls import Certificates
from gateway.delivered import remember_store
from gateway.documents import Applied, Documents
from gateway.forward import Forwarder
from gateway.identity import gateway_id, version
from gateway.intake import DeviceSession
from gateway.listeners import Listeners
from gateway.logs import Logs
from gateway.measurements import Catalogue, Measurements
from gateway.model import BatchListener, DeviceProblem, GatewayError
from gateway.own_time import OwnTime
from gateway.redaction import Redaction, secrets_in
from gateway.store import Store
from gateway.supervise import Backoff, Health, Keeper, Supervisor, describe
from gateway.systemd import Notifier, Watchdog, Watched, watchdog_interval_s

_log = logging.getLogger(__name__)
C = TypeVar("C")
# Together with the store's close (3.5 s where the disk refuses) less than the 10 s that a stop may take.
_STOP_DEVICES_S = 4.0
_STOP_UPLOADS_S = 1.5
# With an attempt that leads nowhere, given up after 4 s, a device that is back is in use within 10 s.
_DEVICE_BACKOFF_S = 5.0
_WRITER_LIMIT_S = 60.0
_FORWARDER_LIMIT_S = 120.0
SWITCH_S = 0.001
"""So long the loop waits for each thread of the store that is busy in Python; unset it is 5 ms."""


@dataclass(slots=True)
class _DevicePart:
    config: DeviceConfig
    session: DeviceSession
    keeper: Keeper

    @property
    def keepers(self) -> list[Keeper]:
        return [self.keeper]


@dataclass(slots=True)
class _UploadPart:
    config: UploadConfig
    forwarder: Forwarder
    keeper: Keeper
    files: Keeper | None
    """Of what sends its files, where it takes any."""

    @property
    def keepers(self) -> list[Keeper]:
        return [self.keeper, *([self.files] if self.files is not None else [])]


class Daemon:
    """The running gateway: made for one configuration file and one state directory."""

    def __init__(
        self,
        file: Path,
        state: Path,
        environ: Mapping[str, str],
        clock: Clock,
        logs: Logs | None = None,
    ) -> None:
        self.file, self.state, self.clock = file, state, clock
        self.id, self.version = "", version()
        self.started_ns = clock.mono_ns()
        self.tokens = Tokens(state, clock)
        self._logs = logs
        self.store: Store
        self._environ = environ
        self._written: Config
        self._config: Config
        self._loaded_us = self._projected = 0
        self._problems: tuple[str, ...] = ()
        self._listeners: list[BatchListener] = []
        self._devices: dict[str, _DevicePart] = {}
        self._uploads: dict[str, _UploadPart] = {}
        self._notifier = Notifier()
        self._watchdog = Watchdog(self._notifier, clock, self._watched)
        self._supervisor = Supervisor(clock)
        self._http = Listeners(self, self._supervisor, state)
        self.measurements: Measurements
        self.documents = Documents(state, clock, self._document_changed)
        self.files: Catalogue
        self._own_time: OwnTime
        self._reloading = asyncio.Lock()
        self._stopping = asyncio.Event()

    # -- what the API sees (api/contracts.py: GatewayView) -------------------------------------

    @property
    def devices(self) -> Mapping[str, DeviceSession]:
        return {name: part.session for name, part in self._devices.items()}

    @property
    def uploads(self) -> Mapping[str, Forwarder]:
        return {name: part.forwarder for name, part in self._uploads.items()}

    @functools.cached_property
    def certificates(self) -> Certificates:
        from gateway.protocols.opcua.pki import Pki  # what the YAML does not name is not imported

        return Pki(self.state / "pki")

    @property
    def logs(self) -> Logs | None:
        return self._logs

    def config(self) -> ConfigInfo:
        warnings = [*self._config.warnings, *self.documents.problems, *self._outvoted()]
        return ConfigInfo(str(self.file), self._loaded_us, warnings, self._problems, self._projected)

    def compat(self) -> Mapping[str, Health]:
        return self._http.compat

    def log_files(self) -> LogFilesInfo | None:
        files = self._logs.files if self._logs is not None else None
        return LogFilesInfo(str(files.folder), files.bytes_written, files.dropped) if files else None

    @contextlib.contextmanager
    def subscribe(self, listener: BatchListener) -> Iterator[None]:
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    # -- life -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until SIGTERM, SIGINT or `stop`. ConfigProblems: no valid configuration ever existed."""
        sys.setswitchinterval(SWITCH_S)
        loaded = await asyncio.to_thread(load_or_last_good, self.file, self.state, self._environ)
        await asyncio.to_thread(self.documents.open)
        self._took(loaded.config, loaded.problems)
        self.id = self._config.gateway.id or await asyncio.to_thread(gateway_id, self.state)
        async with AsyncExitStack() as stack:
            folder = Path(self._config.store.path or self.state)
            await asyncio.to_thread(remember_store, self.state, folder)
            # A disk that refuses at the start is waited for: systemd must not take that for a hang.
            waiting = self._supervisor.start("start of the store", self._extend_start())
            self.store = await stack.enter_async_context(Store.open(folder, self._config.store, self.clock))
            waiting.cancel()
            self._own_time = OwnTime(self.clock, self.store.newest_own_us, self.store.gap)
            await asyncio.to_thread(self.tokens.open)
            stack.push_async_callback(self._supervisor.close)
            files = Path(self._config.measurements.path or self.state / "measurements")
            self.measurements = await stack.enter_async_context(
                Measurements.open(self.store, self.clock, self._supervisor, files, self.id, self._offered)
            )
            self.files = Catalogue(self.measurements, self.store)
            await self.files.clear()
            await stack.enter_async_context(control_socket.listen(self.state, self._answer))
            self._http.start_api(self._config.http)
            await self._http.wait()
            await self._apply(self._config)
            self._http.start_compat(self._config.http)
            stack.callback(self._handle_signals())
            self._start_watchdog()
            await self._notifier.tell("READY=1", f"STATUS={self._status_line()}")
            _log.info("running as %s, version %s: %s", self.id, self.version, self._status_line())
            await self._stopping.wait()
            await self._stop()
        _log.info("stopped")

    async def _extend_start(self) -> None:
        while True:
            await self._notifier.tell("EXTEND_TIMEOUT_USEC=30000000", "STATUS=opening the store")
            await self.clock.sleep(10)

    def stop(self) -> None:
        self._stopping.set()

    @property
    def address(self) -> tuple[str, int] | None:
        """Where the API listens, once it does."""
        return self._http.address

    def _offered(self, device: str, contract: type[C]) -> C | None:
        """Return what a device's live session offers."""
        part = self._devices.get(device)
        return part.session.control(contract) if part is not None else None

    async def _stop(self) -> None:
        await self._notifier.tell("STOPPING=1", "STATUS=stopping")
        await self.measurements.close()
        await self._stop_parts([part.keeper for part in self._devices.values()], _STOP_DEVICES_S)
        keepers = [keeper for part in self._uploads.values() for keeper in part.keepers]
        await self._stop_parts([*keepers, *self._http.keepers], _STOP_UPLOADS_S)

    async def _stop_parts(self, keepers: list[Keeper], limit_s: float) -> None:
        if not keepers:
            return
        tasks = {keeper.task: keeper.name for keeper in keepers if keeper.task is not None}
        for task in tasks:
            task.cancel()
        _done, late = await asyncio.wait(tasks, timeout=limit_s)
        for task in late:
            _log.warning("%s did not end within %.0f s; going on without it", tasks[task], limit_s)

    def _handle_signals(self) -> Any:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(
            signal.SIGHUP, lambda: self._supervisor.start("reload", self._reload_by_signal())
        )

        def forget() -> None:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

        return forget

    # -- configuration ---------------------------------------------------------------------------

    def _took(self, config: Config, problems: tuple[str, ...]) -> None:
        self._problems, self._loaded_us = problems, self.clock.wall_us()
        if self._logs is not None:
            self._logs.apply(config.logs)
        self._lay_out(config)
        for sentence in config.warnings:
            _log.warning("%s", sentence)
        for sentence in problems:
            _log.error("%s", sentence)
        if problems:
            _log.error("%s is broken; running the last valid configuration", self.file)

    def _lay_out(self, config: Config) -> None:
        """Let what the documents make run beside what the YAML names."""
        self._written = config
        self._config = replace(config, uploads={**self.documents.uploads(), **config.uploads})
        self._projected = project(self._config).bytes_per_day
        if self._logs is not None:
            self._logs.feed.redact = Redaction([*secrets_in(self._config), *self.documents.passwords()])

    def _outvoted(self) -> list[str]:
        """Return what a document wants to be and cannot: the YAML has the last word."""
        both = self.documents.uploads().keys() & self._written.uploads.keys()
        named = f"{self.file.name} names an upload"
        return [f'{named} "{name}" of its own; that of {name}.yaml is not used' for name in sorted(both)]

    async def _document_changed(self) -> Applied:
        async with self._reloading:
            self._lay_out(self._written)
            return Applied(await self._apply(self._config), self._outvoted())

    async def reload(self) -> Mapping[str, Any]:
        """Take the edited file: restart what changed in it, or change nothing and say why."""
        async with self._reloading:
            await self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={self.clock.mono_ns() // 1000}")
            try:
                return await self._reload()
            finally:
                await self._notifier.tell("READY=1", f"STATUS={self._status_line()}")

    async def _reload(self) -> Mapping[str, Any]:
        try:
            config = await asyncio.to_thread(take, self.file, self.state, self._environ)
        except ConfigProblems as error:
            self._problems = error.problems
            for sentence in error.problems:
                _log.error("%s", sentence)
            _log.error("reload refused: %s is broken; nothing was changed", self.file)
            return {"ok": False, "problems": list(error.problems)}
        before = self._config
        self._took(config, ())
        config = self._config
        notes = self._needs_restart(before, config)
        if config.http != before.http:
            await self._stop_parts(self._http.keepers, _STOP_UPLOADS_S)
            self._http.start_api(config.http)
        changed = await self._apply(config)
        if config.http != before.http:
            self._http.start_compat(config.http)
        for note in notes:
            _log.warning("%s", note)
        _log.info("reloaded %s; restarted: %s", self.file, ", ".join(changed) or "nothing")
        return {"ok": True, "changed": changed, "warnings": [*config.warnings, *notes]}

    def _needs_restart(self, before: Config, after: Config) -> list[str]:
        notes = []
        if before.store != after.store:
            notes.append("store: changes there take effect when the service is restarted")
        if before.gateway != after.gateway:
            notes.append("gateway: changes there take effect when the service is restarted")
        if before.measurements != after.measurements:
            notes.append("measurements: changes there take effect when the service is restarted")
        return notes

    async def _reload_by_signal(self) -> None:
        await self.reload()

    async def _apply(self, config: Config) -> list[str]:
        """Stop and start the devices and uploads that differ from what runs; return their names."""
        gone: list[_DevicePart | _UploadPart] = [
            *(p for n, p in self._devices.items() if config.devices.get(n) != p.config),
            *(p for n, p in self._uploads.items() if config.uploads.get(n) != p.config),
        ]
        await self._stop_parts([keeper for part in gone for keeper in part.keepers], _STOP_DEVICES_S)
        devices = {n: c for n, c in config.devices.items() if self._running(self._devices.get(n)) != c}
        uploads = {n: c for n, c in config.uploads.items() if self._running(self._uploads.get(n)) != c}
        changed = sorted({part.keeper.name for part in gone})
        for name in self._devices.keys() - config.devices.keys():
            del self._devices[name]
        for name in self._uploads.keys() - config.uploads.keys():
            del self._uploads[name]
        self.store.pin(list({*config.uploads, *self.documents.waiting()}))
        for name, device in devices.items():
            self._devices[name] = await self._start_device(device)
        for name, upload in uploads.items():
            self._uploads[name] = self._start_upload(upload)
        return sorted({*changed, *(f"device {n}" for n in devices), *(f"upload {n}" for n in uploads)})

    def _running(self, part: _DevicePart | _UploadPart | None) -> DeviceConfig | UploadConfig | None:
        return part.config if part is not None else None

    # -- parts -----------------------------------------------------------------------------------

    async def _start_device(self, config: DeviceConfig) -> _DevicePart:
        before = self._devices.get(config.id)
        session = DeviceSession(
            config.id,
            config.kind,
            store=self.store,
            clock=self.clock,
            own_time=self._own_time,
            state=self.state,
            gateway_id=self.id,
            listeners=self._listeners,
            url=config.url,
            tags=config.device.tags,
        )
        if before is not None and before.session.last_heard_us is not None:
            session.was_heard(before.session.last_heard_us, "its configuration was changed")
        else:
            await session.take_over()

        async def attempt(keeper: Keeper) -> None:
            session.attempt_began(keeper)
            module = await asyncio.to_thread(protocols.load, config.kind)
            try:
                await module.run(config.device, config.settings, session)
            except (OSError, GatewayError) as error:
                if hint := refused_by_sandbox(error, config.kind, config.settings):
                    raise DeviceProblem(f"{describe(error)}; {hint}") from error
                raise

        keeper = self._supervisor.keep(
            f"device {config.id}",
            attempt,
            backoff=Backoff(cap_s=_DEVICE_BACKOFF_S),
            ended=session.attempt_ended,
        )
        session.keeper = keeper
        return _DevicePart(config, session, keeper)

    def _start_upload(self, config: UploadConfig) -> _UploadPart:
        forwarder = Forwarder(
            config.id, config.kind, config.settings, self.store, self.clock, self.id, files=self.files
        )
        backoff = Backoff(first_s=1.0, cap_s=60.0)
        keeper = self._supervisor.keep(f"upload {config.id}", forwarder.run, backoff=backoff)
        files = None
        if forwarder.files is not None:
            name = f"files of upload {config.id}"
            files = self._supervisor.keep(name, forwarder.files.run, backoff=backoff)
        return _UploadPart(config, forwarder, keeper, files)

    # -- systemd and the command line -----------------------------------------------------------

    def _start_watchdog(self) -> None:
        interval_s = watchdog_interval_s()
        if interval_s is not None:
            self._supervisor.start("watchdog", self._watchdog.run(interval_s))

    def _watched(self) -> Iterator[Watched]:
        yield Watched("the store's writer", self.store, _WRITER_LIMIT_S)
        for name, part in self._uploads.items():
            yield Watched(f"the forwarder of upload {name}", part.forwarder, _FORWARDER_LIMIT_S)

    def _status_line(self) -> str:
        running = sum(part.keeper.health.state == "running" for part in self._devices.values())
        line = f"{running} of {len(self._devices)} devices running, {len(self._uploads)} uploads"
        return f"{line}; {self.file.name} is broken, last valid one runs" if self._problems else line

    async def _answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        match request.get("command"):
            case "reload":
                return await self.reload()
            case "reload-soon":
                self._supervisor.start("reload", self._reload_by_signal())
                return {"ok": True}
            case "status":
                return self._status()
            case "health":
                return self._health()
        return {"ok": False, "problems": [f"unknown command {request.get('command')!r}"]}

    def _status(self) -> Mapping[str, Any]:
        store = self.store.state()
        return {
            "ok": not self._problems,
            "id": self.id,
            "version": self.version,
            "address": self._http.address,
            "url": self._http.url,
            "fingerprint": self._http.fingerprint,
            "file": str(self.file),
            "store": str(self.store.folder.absolute()),
            "flash": str(store.flash),
            "commits": store.newest_seq,
            "delivered_units": {name: part.forwarder.counters.units for name, part in self._uploads.items()},
            "warnings": [each for each in (store.refusing, store.disk.warning, store.flash.warning) if each],
            "problems": list(self._problems),
            "parts": {
                keeper.name: f"{keeper.health.state}{keeper.health.detail and ': '}{keeper.health.detail}"
                for keeper in self._keepers()
            },
        }

    def _health(self) -> Mapping[str, Any]:
        """Say what a new start could mend: a part that stands, an API that does not listen."""
        standing = self._watchdog.standing()
        api = self._http.api
        problems = [standing] if standing else []
        if api.state != "running":
            problems.append(f"the API does not listen: {api.detail or api.state}")
        return {"ok": not problems, "problems": problems}

    def _keepers(self) -> list[Keeper]:
        devices = [part.keeper for part in self._devices.values()]
        uploads = [keeper for part in self._uploads.values() for keeper in part.keepers]
        files = self.measurements.keeper
        return [*self._http.keepers, *([files] if files else []), *devices, *uploads]
