"""A simulated PLC: an OPC UA server with a packaging line on it. `python -m gateway.demo.plc --port N`."""

import argparse
import asyncio
import contextlib
import logging
import math
import random
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from asyncua import Server, ua
from asyncua.common.node import Node

NAMESPACE = "urn:edge-gateway:demo:plc"
_PERIOD_S = 0.1


@dataclass(frozen=True, slots=True)
class Simulated:
    """A variable of the line and how it moves: f(seconds since start) -> value."""

    path: str
    type: ua.VariantType
    value: Callable[[float], object]
    every_s: float = _PERIOD_S


def _state(t: float) -> str:
    return ("running", "running", "running", "changeover", "stopped")[int(t / 12) % 5]


def _speed(t: float) -> float:
    return 0.0 if _state(t) == "stopped" else round(1240 + 15 * math.sin(t / 7) + random.gauss(0, 2), 1)


LINE = (
    Simulated("Line1/Speed", ua.VariantType.Double, _speed),
    Simulated("Line1/State", ua.VariantType.String, _state, 1.0),
    Simulated("Line1/Pieces", ua.VariantType.UInt32, lambda t: int(t * 2.5)),
    Simulated("Line1/DoorOpen", ua.VariantType.Boolean, lambda t: int(t) % 60 in (7, 8, 9), 0.5),
    Simulated(
        "Line1/Press/Force",
        ua.VariantType.Float,
        lambda t: round(max(0.0, 80 * math.sin(t * 2.5)) + random.gauss(0, 0.4), 2),
    ),
    Simulated(
        "Line1/Press/Temperature",
        ua.VariantType.Double,
        lambda t: round(62.4 + 3 * math.sin(t / 45) + random.gauss(0, 0.05), 2),
        0.5,
    ),
    Simulated("Line1/Press/Strokes", ua.VariantType.UInt64, lambda t: int(t * 2.5 / 6.2832)),
    Simulated(
        "Line1/Oven/Zones",
        ua.VariantType.Double,
        lambda t: [round(180 + zone * 12 + math.sin(t / 30 + zone), 1) for zone in range(4)],
        1.0,
    ),
    Simulated("Energy/Power", ua.VariantType.Double, lambda t: round(41 + 9 * math.sin(t / 20), 2), 0.5),
    Simulated("Energy/Total", ua.VariantType.Double, lambda t: round(t * 41 / 3600, 4), 1.0),
)


@contextlib.asynccontextmanager
async def serve(port: int) -> AsyncIterator[list[tuple[Simulated, Node]]]:
    """Run the server on loopback while entered; yields the line's variables."""
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/demo")
    server.set_server_name("Demo PLC")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(NAMESPACE)
    nodes = [(simulated, await _add(server, index, simulated)) for simulated in LINE]
    async with server:
        yield nodes


async def _add(server: Server, index: int, simulated: Simulated) -> Node:
    folder = server.nodes.objects
    *parents, name = simulated.path.split("/")
    for depth, parent in enumerate(parents, 1):
        node_id = ua.NodeId(".".join(parents[:depth]), index)
        child = server.get_node(node_id)
        try:
            await child.read_browse_name()
        except ua.UaStatusCodeError:
            child = await folder.add_folder(node_id, ua.QualifiedName(parent, index))
        folder = child
    return await folder.add_variable(
        ua.NodeId(simulated.path.replace("/", "."), index),
        ua.QualifiedName(name, index),
        simulated.value(0.0),
        simulated.type,
    )


async def run(port: int) -> None:
    """Serve and move the values until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(port) as nodes:
        start = asyncio.get_running_loop().time()
        due = dict.fromkeys((simulated.path for simulated, _ in nodes), 0.0)
        while not stop.is_set():
            t = asyncio.get_running_loop().time() - start
            for simulated, node in nodes:
                if t >= due[simulated.path]:
                    due[simulated.path] = t + simulated.every_s
                    await node.write_value(ua.Variant(simulated.value(t), simulated.type))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _PERIOD_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(run(parser.parse_args().port))
