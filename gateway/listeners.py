"""The listeners: the API's, and one for each old contract that the YAML names."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway.api import tls
from gateway.api.app import build_app
from gateway.api.contracts import GatewayView
from gateway.api.server import serve
from gateway.api.settings import HttpSettings
from gateway.model import GatewayError
from gateway.supervise import Health, Keeper, Supervisor

_UP_S: Final = 5.0
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
                wrong.append(f"{error} What was loaded before is used on.")
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
        async with serve(build_app(self._gateway, http), http, self._state) as self.address:
            self.fingerprint = await asyncio.to_thread(tls.fingerprint, http, self._state)
            self._tls = http.tls != "off"
            keeper.report("running", "listening on {}:{}".format(*self.address))
            self._up.set()
            await asyncio.Event().wait()

    async def _serve_timeseries(self, keeper: Keeper, http: HttpSettings) -> None:
        from gateway.api.compat import timeseries  # what the YAML does not name is not imported

        assert http.compat.timeseries is not None
        await timeseries.run(self._gateway, http, http.compat.timeseries, self._state, keeper.report)

    async def _serve_icoapi(self, keeper: Keeper, http: HttpSettings) -> None:
        from gateway.api.compat import icoapi

        assert http.compat.icoapi is not None
        await icoapi.run(self._gateway, http, http.compat.icoapi, self._state, keeper.report)
