"""The simulated bus in a process of its own: `python -m gateway.demo.bus --port N --control-port M`.

The bus is reached by socketcand's protocol on `--port`, as channel can0; on it are an STU with three sensor
nodes and a press (press.dbc). `POST /faults` on `--control-port` makes the STU fail, `GET /state` tells what
it does.
"""

import argparse
import asyncio
import json
import signal

from aiohttp import web

from gateway.demo.bus.bus import SimulatedBus
from gateway.demo.bus.press import Press
from gateway.demo.bus.socketcand import serve
from gateway.demo.bus.stu import Stu


def control(stu: Stu) -> web.Application:
    """Return the application that sets faults and shows the STU's state."""

    async def faults(request: web.Request) -> web.Response:
        try:
            stu.faults.tell(await request.json())
        except (ValueError, AttributeError) as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return web.Response()

    async def state(_request: web.Request) -> web.Response:
        return web.json_response(stu.state(), dumps=json.dumps)

    app = web.Application()
    app.add_routes([web.post("/faults", faults), web.get("/state", state)])
    return app


async def run(port: int, control_port: int) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stu = Stu()
    bus = SimulatedBus([stu, Press()])
    runner = web.AppRunner(control(stu), access_log=None)
    await runner.setup()
    async with serve(bus, port) as served:
        site = web.TCPSite(runner, "127.0.0.1", control_port)
        await site.start()
        print(f"socketcand {served}, control {runner.addresses[0][1]}", flush=True)
        async with asyncio.TaskGroup() as group:
            passing = group.create_task(bus.run())
            await stop.wait()
            passing.cancel()
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control-port", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.port, arguments.control_port))
