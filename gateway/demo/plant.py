"""The demo: a simulated PLC, a CAN bus, a dataspace and the gateway between them, each a process."""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from gateway.demo.bus.press import DATABASE

_CONFIG = """\
# Made by `edge-gateway demo`; edit it and run: edge-gateway reload --wait --state {state}
http:
  listen: 127.0.0.1:{api}
  tls: off
devices:
  line-1:
    opcua: opc.tcp://127.0.0.1:{plc}/demo
  press:
    can: {{interface: socketcand, host: 127.0.0.1, port: {bus}, database: press.dbc}}
  tools:
    icotronic: {{interface: socketcand, host: 127.0.0.1, port: {bus}, node: Spindle, stream: true}}
    tags:
      vibration: {{signal: channel_1, aggregate: rms, unit: g, scale: 75.76, offset: -125.0}}
      peak: {{signal: channel_1, aggregate: max, unit: g, scale: 75.76, offset: -125.0}}
      battery: supply_voltage
      reception: rssi
      data-loss: data_loss
uploads:
  plant-cloud:
    dataspace:
      url: http://127.0.0.1:{cloud}
      user: demo
      password: {{file: {password}}}
      gather: 5s
"""
_READY_S = 60
_WELCOME = """
  A simulated plant is running, with the gateway between PLC and cloud:

    dashboard      http://127.0.0.1:{api}/
    API, Swagger   http://127.0.0.1:{api}/docs
    token          {token}
    configuration  {config}
    PLC            opc.tcp://127.0.0.1:{plc}/demo
    CAN bus        socketcand 127.0.0.1:{bus}, channel can0: a press, and an ICOtronic STU
    dataspace      http://127.0.0.1:{cloud}/ledger

  Try: curl -H "Authorization: Bearer {token}" http://127.0.0.1:{api}/v1/devices
       curl http://127.0.0.1:{faults}/faults -d '{{"unreachable": ["Spindle"]}}'
  Ctrl-C ends it.
"""


def run(folder: Path, seconds: float | None) -> int:
    """Run the demo in `folder` until Ctrl-C, or for that many seconds; return the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(_run(folder.absolute(), seconds))
    return 0


async def _run(folder: Path, seconds: float | None) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    wanted = {"plc": 4840, "cloud": 8081, "api": 8080, "bus": 28600, "faults": 28601}
    ports = {name: _port(port) for name, port in wanted.items()}
    state, config = folder / "state", folder / "gateway.yaml"
    await asyncio.to_thread(_write, folder, config, ports)
    daemon = ("gateway", "run", "--config", str(config), "--state", str(state), "--log-level", "WARNING")
    cloud = ("gateway.demo.dataspace", "--port", str(ports["cloud"]), "--folder", str(folder / "dataspace"))
    async with AsyncExitStack() as stack:
        plc = ("gateway.demo.plc", "--port", str(ports["plc"]))
        bus = ("gateway.demo.bus", "--port", str(ports["bus"]), "--control-port", str(ports["faults"]))
        for module, port in ((plc, ports["plc"]), (cloud, ports["cloud"]), (bus, ports["bus"])):
            await _listens(port, await stack.enter_async_context(_process(folder, *module)), module[0])
        gateway = await stack.enter_async_context(_process(folder, *daemon))
        token = await _token(state, gateway)
        print(_WELCOME.format(token=token, config=config, **ports), flush=True)
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{ports['api']}", headers=headers) as session:
            return await _watch(session, f"http://127.0.0.1:{ports['cloud']}/ledger", gateway, stop, seconds)


def _port(wanted: int) -> int:
    """Return the wanted port, or a free one where it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def _write(folder: Path, config: Path, ports: dict[str, int]) -> None:
    password = folder / "dataspace-password"
    if not password.exists():
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(16), encoding="ascii")
    shutil.copyfile(DATABASE, folder / DATABASE.name)
    config.write_text(_CONFIG.format(state=folder / "state", password=password, **ports), encoding="utf-8")


@contextlib.asynccontextmanager
async def _process(folder: Path, *module: str) -> AsyncIterator[Process]:
    log = await asyncio.to_thread((folder / f"{module[0]}.log").open, "ab")
    with log:
        # A Ctrl-C in the terminal reaches the whole foreground group: each child is to be told by us alone.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *module), stdout=log, stderr=log, env=os.environ, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _listens(port: int, process: Process, name: str) -> None:
    """Wait until a process takes connections."""
    async with asyncio.timeout(_READY_S):
        while process.returncode is None:
            with contextlib.suppress(OSError):
                _reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.1)
    raise SystemExit(f"{name} ended by itself; see its log in the demo's folder")


async def _token(state: Path, gateway: Process) -> str:
    file = state / "admin-token"
    async with asyncio.timeout(_READY_S):
        while not await asyncio.to_thread(file.exists):
            if gateway.returncode is not None:
                raise SystemExit(f"the gateway ended; see {state.parent / 'gateway.log'}")
            await asyncio.sleep(0.1)
    return (await asyncio.to_thread(file.read_text, encoding="ascii")).strip()


async def _watch(
    session: aiohttp.ClientSession, ledger: str, gateway: Process, stop: asyncio.Event, seconds: float | None
) -> int:
    """Print a line a second (every fifth where nobody watches a terminal); return the exit code."""
    terminal = sys.stdout.isatty()
    loop = asyncio.get_running_loop()
    start = loop.time()
    for tick in range(1, sys.maxsize):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1)
        if gateway.returncode is not None:
            print("\nthe gateway ended by itself; see its log in the demo's folder")
            return 1
        if terminal or tick % 5 == 0:
            line = f"{loop.time() - start:5.0f} s   " + await _progress(session, ledger)
            print(f"\r{line:<100.100}" if terminal else line, end="" if terminal else "\n", flush=True)
        if stop.is_set() or (seconds is not None and loop.time() - start >= seconds):
            print()
            return 0
    return 0


async def _progress(session: aiohttp.ClientSession, ledger: str) -> str:
    try:
        device = await _json(session, "/v1/devices/line-1")
        state = await _json(session, "/v1/state")
        delivered = await _json(session, ledger)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"starting ({type(error).__name__})"
    return (
        f"line-1 is {device['health']['state']}, {len(device['tags'])} tags   "
        f"{state['store']['counters']['added']:>7} samples stored   "
        f"{delivered['samples']:>7} in the dataspace"
    )


async def _json(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as answer:
        answer.raise_for_status()
        return await answer.json()
