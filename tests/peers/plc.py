"""A PLC on asyncua's server: `python -m tests.peers.plc PORT [--tags N] ...`.

It tells on its output, a JSON object a line, when it is ready and exactly what it wrote, and takes
commands on its input, a line each:

    write ROUNDS INTERVAL_MS    every tag gets the next number in each round; "done" follows
    add NAME                    a late variable appears
    texts NAME COUNT            a variable with an array of so many texts appears
    event SEVERITY TEXT         the server raises an event; "raised" follows
"""

import argparse
import asyncio
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from asyncua import Server, ua
from asyncua.common.structures104 import new_enum, new_struct, new_struct_field
from asyncua.server.user_managers import PermissiveUserManager

URI = "urn:edge-gateway:plc"


def say(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class Plc:
    """Numbered values: tag k holds (round * 1000 + k)."""

    def __init__(self, server: Server, index: int) -> None:
        self.server = server
        self.index = index
        self.tags: dict[str, Any] = {}
        self.number = 0

    async def add(self, parent: Any, name: str) -> None:
        node = ua.NodeId(f"Line1.{name}", self.index)
        self.tags[name] = await parent.add_variable(node, ua.QualifiedName(name, self.index), 0.0)
        await self.write(name, float(len(self.tags)))

    async def write(self, name: str, value: float) -> None:
        moment = datetime.now(UTC)
        data = ua.DataValue(ua.Variant(value, ua.VariantType.Double), SourceTimestamp=moment)
        # The ledger comes first: what a client got is then always in it.
        ts = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution)
        say(tag=name, ts=ts, value=value)
        await self.tags[name].write_value(data)

    async def rounds(self, rounds: int, interval_ms: float) -> None:
        for _ in range(rounds):
            self.number += 1
            for place, name in enumerate(self.tags):
                await self.write(name, float(self.number * 1000 + place))
            await asyncio.sleep(interval_ms / 1000)
        say(event="done")


async def populate_space(server: Server, index: int) -> None:
    space = await server.nodes.objects.add_object(ua.NodeId("Space", index), ua.QualifiedName("Space", index))
    gear = await new_enum(server, index, "Gear", ["Neutral", "First"])
    wheel, _ = await new_struct(
        server,
        index,
        "Wheel",
        [
            new_struct_field("Radius", ua.VariantType.Float),
            new_struct_field("Bolts", ua.VariantType.UInt16, array=True),
            new_struct_field("Maker", ua.VariantType.String, optional=True),
        ],
    )
    await new_struct(
        server,
        index,
        "Axle",
        [new_struct_field("Wheels", wheel, array=True), new_struct_field("Since", ua.VariantType.DateTime)],
    )
    made = await server.load_data_type_definitions()
    wheels = [
        made["Wheel"](Radius=0.5, Bolts=[1, 2], Maker="ACME"),
        made["Wheel"](Radius=0.25, Bolts=[], Maker=None),
    ]
    axle = made["Axle"](wheels, datetime(2020, 1, 2, tzinfo=UTC))
    await space.add_variable(ua.NodeId("Axle", index), ua.QualifiedName("Axle", index), axle)
    await space.add_variable(
        ua.NodeId("Gear", index), ua.QualifiedName("Gear", index), 1, ua.VariantType.Int32, gear.nodeid
    )


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--tags", type=int, default=5)
    parser.add_argument("--space", help="with structures and an enumeration, below Space")
    parser.add_argument("--before", nargs="*", default=[], help="namespaces registered before ours")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    server = Server(user_manager=PermissiveUserManager())
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{options.port}/plc")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    for uri in options.before:
        await server.register_namespace(uri)
    index = await server.register_namespace(URI)
    line = await server.nodes.objects.add_object(ua.NodeId("Line1", index), ua.QualifiedName("Line1", index))
    plc = Plc(server, index)
    for number in range(options.tags):
        await plc.add(line, f"Tag{number}")
    if options.space:
        await populate_space(server, index)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with server:
        say(event="ready", url=f"opc.tcp://127.0.0.1:{options.port}/plc", index=index)
        writing = set()
        while words := (await reader.readline()).decode().split():
            match words:
                case ["write", rounds, interval_ms]:
                    task = asyncio.create_task(plc.rounds(int(rounds), float(interval_ms)))
                    writing.add(task)
                    task.add_done_callback(writing.discard)
                case ["event", severity, *text]:
                    generator = await server.get_event_generator()
                    generator.event.Severity = int(severity)
                    await generator.trigger(message=" ".join(text))
                    say(event="raised")
                case ["texts", name, count]:
                    texts = ua.Variant(["a"] * int(count), ua.VariantType.String)
                    node = ua.NodeId(f"Line1.{name}", index)
                    await line.add_variable(node, ua.QualifiedName(name, index), texts)
                    say(event="added")
                case ["add", name]:
                    await plc.add(line, name)
                    say(event="added")


if __name__ == "__main__":
    asyncio.run(main())
