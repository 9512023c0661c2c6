"""The one file that knows every part: start, reload by difference, stop."""

import asyncio
import contextlib
import functools
import logging
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from gateway import control_socket
from gateway.api import tls
from gateway.api.contracts import ConfigInfo, LogFilesInfo
from gateway.api.tokens import Tokens
from gateway.clock import Clock
from gateway.config import Config, ConfigProblems, Loaded, edited, keep, load_again, load_or_last_good
from gateway.controls.certificates import Certificates
from gateway.documents import Applied, Documents
from gateway.forward import Forwarder
from gateway.identity import gateway_id, version
from gateway.in_force import InForce
from gateway.intake import DeviceSession
from gateway.listeners import Listeners
from gateway.logs import Logs
from gateway.measurements import Catalogue, Measurements
from gateway.memory import return_what_is_freed
from gateway.model import BatchListener, GatewayError
from gateway.own_time import OwnTime
from gateway.parts import Parts
from gateway.starting import Start
from gateway.store import Store
from gateway.supervise import Health, Keeper, Supervisor
from gateway.systemd import Notifier, Watchdog, Watched, watchdog_interval_s

_log = logging.getLogger(__name__)
C = TypeVar("C")
_WRITER_LIMIT_S = 60.0
_FORWARDER_LIMIT_S = 120.0
_SETTLED_S = 25.0
"""A sensor node that is to stay connected may take 20 s."""
_SECRETS_S = 10.0
SWITCH_S = 0.001
"""So long the loop waits for each thread of the store that is busy in Python; unset it is 5 ms."""


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
        self.logs = logs
        self.store: Store
        self._environ = environ
        self._listeners: list[BatchListener] = []
        self._notifier = Notifier()
        self._watchdog = Watchdog(self._notifier, clock, self._watched)
        self._supervisor = Supervisor(clock)
        self._http = Listeners(self, self._supervisor, state)
        self.measurements: Measurements
        self.documents = Documents(state, clock, self._document_changed)
        self._in_force = InForce(file, clock, self.documents, logs)
        self.files: Catalogue
        self._parts: Parts
        self._reloading = asyncio.Lock()
        self._stopping = asyncio.Event()

    # -- what the API sees (api/contracts.py: GatewayView) -------------------------------------

    @property
    def devices(self) -> Mapping[str, DeviceSession]:
        return {name: part.session for name, part in self._parts.devices.items()}

    @property
    def uploads(self) -> Mapping[str, Forwarder]:
        return {name: part.forwarder for name, part in self._parts.uploads.items()}

    @functools.cached_property
    def certificates(self) -> Certificates:
        from gateway.protocols.opcua.pki import Pki  # what the YAML does not name is not imported

        return Pki(self.state / "pki")

    def config(self) -> ConfigInfo:
        return self._in_force.info()

    def compat(self) -> Mapping[str, Health]:
        return self._http.compat

    def log_files(self) -> LogFilesInfo | None:
        files = self.logs.files if self.logs is not None else None
        return LogFilesInfo(str(files.folder), files.bytes_written, files.dropped) if files else None

    @contextlib.contextmanager
    def subscribe(self, listener: BatchListener) -> Iterator[None]:
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    async def reconnect(self, device: str) -> None:
        async with self._reloading:
            keeper = await self._parts.reconnect(device)
        if keeper is not None:
            await keeper.settled(_SETTLED_S)

    # -- life -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until SIGTERM, SIGINT or `stop`. ConfigProblems: no valid configuration ever existed."""
        sys.setswitchinterval(SWITCH_S)
        return_what_is_freed()
        loaded = await asyncio.to_thread(load_or_last_good, self.file, self.state, self._environ, tls.prove)
        await asyncio.to_thread(self.documents.open)
        self._in_force.take(loaded)
        config = self._in_force.config
        async with AsyncExitStack() as stack:
            folder = config.store.path or self.state
            start = Start(self._notifier, self.clock, self.state)
            async with start.told(self._supervisor):
                await asyncio.to_thread(start.remember, folder)
                opening = Store.open(folder, config.store, self.clock, start.refuses)
                self.store = await stack.enter_async_context(opening)
                self.id = config.gateway.id or await start.on(lambda: gateway_id(self.state))
                await start.on(self.tokens.open)
            own_time = OwnTime(self.clock, self.store.newest_own_us, self.store.gap)
            stack.push_async_callback(self._supervisor.close)
            files = config.measurements.path or self.state / "measurements"
            self.measurements = await stack.enter_async_context(
                Measurements.open(
                    self.store, self.clock, self._supervisor, files, self.id, self._offered, stamp=own_time
                )
            )
            self.files = Catalogue(self.measurements, self.store)
            await self.files.clear()
            self._parts = Parts(
                self.store,
                self.clock,
                own_time,
                self.files,
                self._supervisor,
                state=self.state,
                gateway_id=self.id,
                listeners=self._listeners,
            )
            self._start_watchdog()
            async with self._reloading:  # what is edited meanwhile is taken afterwards
                await stack.enter_async_context(control_socket.listen(self.state, self._answer))
                self._http.start_api(config.http)
                await self._http.wait()
                await self._apply()
                self._http.start_compat(config.http)
            stack.callback(self._handle_signals())
            self._supervisor.start("wait for secrets", self._secrets_may_come())
            await self._notifier.tell("READY=1", f"STATUS={self._status_line()}")
            _log.info("running as %s, version %s: %s", self.id, self.version, self._status_line())
            await self._stopping.wait()
            await self._stop()
        _log.info("stopped")

    def stop(self) -> None:
        self._stopping.set()

    @property
    def address(self) -> tuple[str, int] | None:
        """Where the API listens, once it does."""
        return self._http.address

    def _offered(self, device: str, contract: type[C]) -> C | None:
        """Return what a device's live session offers."""
        part = self._parts.devices.get(device)
        return part.session.control(contract) if part is not None else None

    async def _stop(self) -> None:
        await self._notifier.tell("STOPPING=1", "STATUS=stopping")
        await self.measurements.close()
        await self._parts.stop(self._http.keepers)

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

    async def _apply(self) -> list[str]:
        return await self._parts.apply(self._in_force.config, self.documents.waiting())

    async def _document_changed(self) -> Applied:
        async with self._reloading:
            self._in_force.lay_out()
            return Applied(await self._apply(), self._in_force.outvoted())

    async def reload(self) -> Mapping[str, Any]:
        """Take the edited file: restart what changed in it, or change nothing and say why."""
        async with self._reloading:
            await self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={self.clock.mono_ns() // 1000}")
            try:
                return await self._reload()
            finally:
                await self._notifier.tell("READY=1", f"STATUS={self._status_line()}")

    async def _reload(self) -> Mapping[str, Any]:
        before = self._in_force.config
        try:
            unable = self._in_force.loaded.config.unable()
            config = await asyncio.to_thread(edited, self.file, self._environ, unable)
            if config.http != before.http:
                await self._listen(before, config)
        except ConfigProblems as error:
            self._in_force.refuse(error.problems)
            for sentence in error.problems:
                _log.error("%s", sentence)
            _log.error("reload refused: %s is broken; nothing was changed", self.file)
            return {"ok": False, "problems": list(error.problems)}
        config = await asyncio.to_thread(keep, config, self.file, self.state)
        self._in_force.take(Loaded(config, config.lacking))
        notes = [*self._in_force.needs_restart(), *filter(None, [self._http.trouble()])]
        certificates, wrong = await self._http.renew(config.http)
        notes += wrong
        changed = [*await self._apply(), *certificates]
        if config.http != before.http:
            self._http.start_compat(config.http)
        for note in notes:
            _log.warning("%s", note)
        _log.info("reloaded %s; restarted: %s", self.file, ", ".join(changed) or "nothing")
        return {"ok": True, "changed": changed, "warnings": [*config.warnings, *config.lacking, *notes]}

    async def _listen(self, before: Config, config: Config) -> None:
        try:
            await self._http.change(before.http, config.http)
        except GatewayError as error:
            raise ConfigProblems([f"{config.http_at}: {error}"]) from error

    async def _secrets_may_come(self) -> None:
        """Begin what lacked a secret at the start once it is there: on a mount that came late, say."""
        while self._in_force.loaded.config.lacking:
            await self.clock.sleep(_SECRETS_S)
            async with self._reloading:
                before = self._in_force.loaded
                now = await asyncio.to_thread(load_again, before, self.file, self.state, self._environ)
                if now.config.lacking != before.config.lacking:
                    self._in_force.take(now)
                    _log.info("secrets are there now; restarted: %s", ", ".join(await self._apply()))

    async def _reload_by_signal(self) -> None:
        await self.reload()

    # -- systemd and the command line -----------------------------------------------------------

    def _start_watchdog(self) -> None:
        interval_s = watchdog_interval_s()
        if interval_s is not None:
            self._supervisor.start("watchdog", self._watchdog.run(interval_s))

    def _watched(self) -> Iterator[Watched]:
        yield Watched("the store's writer", self.store, _WRITER_LIMIT_S)
        for name, part in self._parts.uploads.items():
            yield Watched(f"the forwarder of upload {name}", part.forwarder, _FORWARDER_LIMIT_S)

    def _status_line(self) -> str:
        running = sum(part.keeper.health.state == "running" for part in self._parts.devices.values())
        line = f"{running} of {len(self._parts.devices)} devices running, {len(self._parts.uploads)} uploads"
        return "; ".join(filter(None, [line, self._in_force.trouble()]))

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
        problems = [*self._in_force.loaded.problems, *filter(None, [self._http.trouble()])]
        return {
            "ok": not problems,
            "id": self.id,
            "version": self.version,
            "address": self._http.address,
            "url": self._http.url,
            "fingerprint": self._http.fingerprint,
            "file": str(self.file),
            "store": str(self.store.folder.absolute()),
            "flash": str(store.flash),
            "commits": store.newest_seq,
            "delivered_units": {
                name: part.forwarder.counters.units for name, part in self._parts.uploads.items()
            },
            "warnings": [each for each in (store.refusing, store.disk.warning, store.flash.warning) if each],
            "problems": problems,
            "parts": {
                keeper.name: f"{keeper.health.state}{keeper.health.detail and ': '}{keeper.health.detail}"
                for keeper in self._keepers()
            },
        }

    def _health(self) -> Mapping[str, Any]:
        """Say what a new start could mend: a part that stands, an API that does not listen."""
        standing = self._watchdog.standing()
        problems = [*filter(None, [standing, self._http.trouble()])]
        return {"ok": not problems, "problems": problems}

    def _keepers(self) -> list[Keeper]:
        files = self.measurements.keeper
        return [*self._http.keepers, *([files] if files else []), *self._parts.keepers]
