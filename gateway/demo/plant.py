"""The demo: a simulated PLC, a CAN bus, a dataspace and the gateway between them, each a process."""

import asyncio
import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from gateway.demo.bus.press import DATABASE
from gateway.model import GatewayError

_CONFIG = """\
# Made by `edge-gateway demo`; edit it, but not its ports, and run: edge-gateway reload --wait --state {state}
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
_PORTS = {"plc": 4840, "cloud": 8081, "api": 8080, "bus": 28600, "faults": 28601}
_MADE = "demo.json"
"""With which ports `gateway.yaml` was made, and its SHA-256 then."""
_PASSWORD = "dataspace-password"
_READY_S = 60
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
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
    with _alone(folder.absolute()):
        return asyncio.run(_until_stopped(folder.absolute(), seconds))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder. GatewayError: a demo runs in it, whose files another would overwrite."""
    with (folder / "demo.lock").open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise GatewayError(
                f"a demo runs in {folder} already (process {lock.read().strip()}); --folder names another"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


async def _until_stopped(folder: Path, seconds: float | None) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await _run(folder, seconds)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):  # after SIGHUP there is no terminal any more
            print(flush=True)
        return 0


async def _run(folder: Path, seconds: float | None) -> int:
    state, config = folder / "state", folder / "gateway.yaml"
    ports = await asyncio.to_thread(_prepared, folder, config)
    daemon = ("gateway", "run", "--config", str(config), "--state", str(state), "--log-level", "WARNING")
    cloud = ("gateway.demo.dataspace", "--port", str(ports["cloud"]), "--folder", str(folder / "dataspace"))
    async with AsyncExitStack() as stack:
        plc = ("gateway.demo.plc", "--port", str(ports["plc"]))
        bus = ("gateway.demo.bus", "--port", str(ports["bus"]), "--control-port", str(ports["faults"]))
        parts: dict[str, Process] = {}
        for module, port in ((plc, ports["plc"]), (cloud, ports["cloud"]), (bus, ports["bus"])):
            part = parts[module[0]] = await stack.enter_async_context(_process(folder, *module))
            await _listens(port, part, module[0])
        parts["gateway"] = await stack.enter_async_context(_process(folder, *daemon))
        token = await _token(state, parts["gateway"])
        print(_WELCOME.format(token=token, config=config, **ports), flush=True)
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{ports['api']}", headers=headers) as session:
            return await _watch(session, f"http://127.0.0.1:{ports['cloud']}/ledger", parts, seconds)


def _port(wanted: int) -> int:
    """Return the wanted port, or a free one where it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def _prepared(folder: Path, config: Path) -> dict[str, int]:
    """Write the files that the parts need; return their ports. A configuration that was edited stays.

    GatewayError: it stays, and cannot be used.
    """
    made = folder / _MADE
    before: dict[str, Any] = (
        json.loads(made.read_text()) if made.exists() else {"ports": _PORTS, "sha256": ""}
    )
    edited = config.exists() and _sha256(config) != before["sha256"]
    if edited and not made.exists():
        raise GatewayError(f"{config} is of no demo: name another --folder")
    wanted = before["ports"] if edited else _PORTS
    ports = {name: _port(port) for name, port in wanted.items()}
    taken = [str(port) for name, port in wanted.items() if ports[name] != port]
    if edited and taken:
        raise GatewayError(
            f"{config} was edited and stays, but somebody else has its port {', '.join(taken)}: end that "
            "program, or remove the file"
        )
    _write(folder)
    if edited:
        print(f"{config} was edited: it stays as it is")
    else:
        config.write_text(_text(folder, ports), encoding="utf-8")
        made.write_text(json.dumps({"ports": ports, "sha256": _sha256(config)}))
    return ports


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _write(folder: Path) -> None:
    password = folder / _PASSWORD
    if not password.exists():
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(16), encoding="ascii")
    shutil.copyfile(DATABASE, folder / DATABASE.name)


def _text(folder: Path, ports: dict[str, int]) -> str:
    state, password = shlex.quote(str(folder / "state")), str(folder / _PASSWORD)
    return _CONFIG.format(state=state, password=json.dumps(password, ensure_ascii=False), **ports)


@contextlib.asynccontextmanager
async def _process(folder: Path, *module: str) -> AsyncIterator[Process]:
    log = await asyncio.to_thread((folder / f"{module[0]}.log").open, "ab")
    with log:
        # A Ctrl-C in the terminal reaches the whole foreground group: each child is to be told by us alone.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *module),
            stdout=log,
            stderr=log,
            env=os.environ,
            start_new_session=True,
            preexec_fn=_end_with_us,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def _end_with_us() -> None:
    """Let the kernel end this child where the demo is killed."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


async def _listens(port: int, process: Process, name: str) -> None:
    """Wait until a process takes connections. GatewayError: it does not."""
    try:
        async with asyncio.timeout(_READY_S):
            while process.returncode is None:
                with contextlib.suppress(OSError):
                    _reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise GatewayError(f"{name} takes no connections; see its log in the demo's folder") from None
    raise GatewayError(f"{name} ended by itself; see its log in the demo's folder")


async def _token(state: Path, gateway: Process) -> str:
    file = state / "admin-token"
    for _ in range(_READY_S * 10):
        if await asyncio.to_thread(file.exists):
            break
        if gateway.returncode is not None:
            raise GatewayError(f"the gateway ended; see {state.parent / 'gateway.log'}")
        await asyncio.sleep(0.1)
    else:
        raise GatewayError(f"the gateway makes no token; see {state.parent / 'gateway.log'}")
    return (await asyncio.to_thread(file.read_text, encoding="ascii")).strip()


async def _watch(
    session: aiohttp.ClientSession, ledger: str, parts: Mapping[str, Process], seconds: float | None
) -> int:
    """Print a line a second (every fifth where nobody watches a terminal); return the exit code."""
    terminal = sys.stdout.isatty()
    loop = asyncio.get_running_loop()
    start = loop.time()
    for tick in range(1, sys.maxsize):
        await asyncio.sleep(1)
        for name, part in parts.items():  # another demo that began at the same moment may have its port
            if part.returncode is not None:
                print(f"\n{name} ended by itself; see {name}.log in the demo's folder")
                return 1
        if terminal or tick % 5 == 0:
            line = f"{loop.time() - start:5.0f} s   " + await _progress(session, ledger)
            print(f"\r{line:<100.100}" if terminal else line, end="" if terminal else "\n", flush=True)
        if seconds is not None and loop.time() - start >= seconds:
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
