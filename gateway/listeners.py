"""The listeners: the API's, and one for each old contract that the YAML names."""

import asyncio
import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway.api import tls
from gateway.api.app import build_app
from gateway.api.connections import Limits, bind
from gateway.api.contracts import GatewayView
from gateway.api.server import serve
from gateway.api.settings import HttpSettings, split_address
from gateway.model import GatewayError
from gateway.supervise import Health, Keeper, Supervisor, stopped

_UP_S: Final = 5.0
_STOP_S: Final = 1.5
_WHY: Final = {
    errno.EADDRINUSE: "another program listens there (`ss -ltnp` names it), or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address now (`ip address`); 0.0.0.0 stands for all it has",
    errno.EACCES: "below 1024: sudo edge-gateway systemd-dropin && sudo systemctl restart edge-gateway",
}
_HERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Listeners:
    """What of a gateway listens, kept running by its supervisor; a changed `http:` starts all of it anew."""

    def __init__(self, gateway: GatewayView, supervisor: Supervisor, state: Path) -> None:
        self._gateway, self._supervisor, self._state = gateway, supervisor, state
        self._api: Keeper | None = None
        self._compat: dict[str, Keeper] = {}
        self._tls = False
        self._up = asyncio.Event()
        self.address: tuple[str, int] | None = None
        """Where the API listens, once it does."""
        self.fingerprint = ""
        """SHA-256 of its certificate in hex; "" for plain HTTP."""

    @property
    def keepers(self) -> list[Keeper]:
        return [*([self._api] if self._api is not None else []), *self._compat.values()]

    @property
    def api(self) -> Health:
        return self._api.health if self._api is not None else Health()

    @property
    def compat(self) -> Mapping[str, Health]:
        """How the listeners of the old contracts are, by name."""
        return {name: keeper.health for name, keeper in self._compat.items()}

    @property
    def url(self) -> str:
        """Where a command on this machine reaches the API; "" where it does not listen."""
        if self.address is None:
            return ""
        host, port = _HERE.get(self.address[0], self.address[0]), self.address[1]
        scheme = "https" if self._tls else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def trouble(self) -> str:
        """Say why the API does not listen, "" where it does."""
        if self.api.state == "running":
            return ""
        return f"the API does not listen: {self.api.detail or self.api.state}"

    async def change(self, before: HttpSettings, http: HttpSettings) -> None:
        """Listen as `http` says, the old contracts after `start_compat` only.

        GatewayError: it cannot be; all listens as `before` says.
        """
        await self._prove(before, http)
        listened = self.address is not None
        await self._restart(http)
        if listened and self.address is None:
            trouble = self.trouble()
            await self._restart(before)
            self.start_compat(before)
            raise GatewayError(trouble)

    async def _prove(self, before: HttpSettings, http: HttpSettings) -> None:
        await asyncio.to_thread(tls.prove, http)
        held = {split_address(listen) for listen in before.listens().values()}
        ports = {port for _host, port in held}
        for setting, listen in http.listens().items():
            host, port = split_address(listen)
            if (host, port) in held:
                continue
            try:  # of a port that is held here already, whether the address is this machine's
                sockets = await bind(host, 0 if port in ports else port, Limits(http))
            except OSError as error:
                why = _WHY.get(error.errno or 0, os.strerror(error.errno or 0))
                raise GatewayError(f"{setting}: {listen} cannot be listened on: {why}") from error
            for each in sockets:
                each.close()

    async def _restart(self, http: HttpSettings) -> None:
        await stopped(self.keepers, _STOP_S)
        self.start_api(http)
        await self.wait()

    def start_api(self, http: HttpSettings) -> None:
        self._up.clear()
        self._api = self._supervisor.keep("api", lambda keeper: self._serve(keeper, http))

    async def renew(self, http: HttpSettings) -> tuple[list[str], list[str]]:
        """Take certificates that were renewed under their names; return what was taken, and what is wrong."""
        taken, wrong = [], []
        for files in http.tls_files():
            try:
                if await tls.renew(files):
                    taken.append(f"certificate {files.certificate}")
            except GatewayError as error:
                on = " What was loaded before is used on." if tls.loaded(files) else ""
                wrong.append(f"{error}{on}")
        if taken:
            self.fingerprint = await asyncio.to_thread(tls.fingerprint, http, self._state)
        return taken, wrong

    async def wait(self) -> None:
        """Wait until the API listens, but not for long: its address may be in use."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_UP_S):
                await self._up.wait()

    def start_compat(self, http: HttpSettings) -> None:
        """Start the old contracts that are configured; the devices that take their points run already."""
        self._compat.clear()
        if http.compat.timeseries is not None:
            self._compat["timeseries"] = self._supervisor.keep(
                "http.compat.timeseries", lambda keeper: self._serve_timeseries(keeper, http)
            )

        if http.compat.icoapi is not None:
            self._compat["icoapi"] = self._supervisor.keep(
                "http.compat.icoapi", lambda keeper: self._serve_icoapi(keeper, http)
            )

    async def _serve(self, keeper: Keeper, http: HttpSettings) -> None:
        async with serve(build_app(self._gateway, http), http, self._state) as address:
            try:
                self.fingerprint = await asyncio.to_thread(tls.fingerprint, http, self._state)
                self.address, self._tls = address, http.tls != "off"
                keeper.report("running", "listening on {}:{}".format(*address))
                self._up.set()
                await asyncio.Event().wait()
            finally:  # before the connections end, which takes a while: another may listen then
                self.address, self.fingerprint = None, ""

    async def _serve_timeseries(self, keeper: Keeper, http: HttpSettings) -> None:
        from gateway.api.compat import timeseries  # what the YAML does not name is not imported

        assert http.compat.timeseries is not None
        await timeseries.run(self._gateway, http, http.compat.timeseries, self._state, keeper.report)

    async def _serve_icoapi(self, keeper: Keeper, http: HttpSettings) -> None:
        from gateway.api.compat import icoapi

        assert http.compat.icoapi is not None
        await icoapi.run(self._gateway, http, http.compat.icoapi, self._state, keeper.report)
