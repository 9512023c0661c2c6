"""The unmodified icotronic library at socketcand: `python -m tests.icotronic.library PORT`, prints JSON.

HOME has to be a folder of its own: the library keeps its log there.
"""

import asyncio
import json
import logging
import os
import sys
from typing import Any

FRAMES = 400
STREAMS = [(True, False, False), (False, False, True), (True, True, False), (True, True, True)]


async def _streamed(node: Any, channels: tuple[bool, bool, bool]) -> dict[str, Any]:
    from icotronic.can.streaming import StreamingConfiguration

    counters, values, lost = [], [], 0
    async with node.open_data_stream(StreamingConfiguration(*channels)) as stream:
        async for data, missing in stream:
            counters.append(data.counter)
            values.extend(data.values)
            lost += missing
            if len(counters) == FRAMES:
                break
        loss = stream.dataloss()
    return {"channels": channels, "counters": counters, "values": values, "lost": lost, "loss": loss}


async def _node(stu: Any, identifier: Any) -> dict[str, Any]:
    from icotronic.can.error import UnsupportedFeatureException
    from icotronic.measurement.sensor import SensorConfiguration

    async with stu.connect_sensor_node(identifier) as node:
        name = await node.get_name()
        await node.set_name(f"{name}X"[:8])
        said: dict[str, Any] = {
            "name": name,
            "renamed": await node.get_name(),
            "mac": str(await node.get_mac_address()),
            "rssi": await node.get_rssi(),
            "voltage": await node.get_supply_voltage(),
            "adc": dict(await node.get_adc_configuration()),
            "firmware": str(await node.get_firmware_version()),
            "serial": await node.get_serial_number(),
            "state": str(await node.get_state()),
        }
        await node.set_name(name)
        await node.set_energy_mode_reduced()
        await node.set_energy_mode_lowest()
        await node.set_adc_configuration(3.3, 2, 8, 256)
        said["rate"] = (await node.get_adc_configuration()).sample_rate()
        try:
            await node.set_sensor_configuration(SensorConfiguration(first=3, second=0, third=1))
            sensors = await node.get_sensor_configuration()
            said["sensors"] = [sensors.first, sensors.second, sensors.third]
        except UnsupportedFeatureException:
            said["sensors"] = "unsupported"
        said["streams"] = [await _streamed(node, channels) for channels in STREAMS]
        return said


async def main() -> dict[str, Any]:
    from icotronic.can.connection import Connection
    from netaddr import EUI

    async with Connection() as stu:
        found = sorted(await stu.collect_sensor_nodes(), key=lambda node: node.sensor_node_number)
        return {
            "stu": [
                await stu.get_name(),
                str(await stu.get_mac_address()),
                str(await stu.get_firmware_version()),
            ],
            "found": [
                [node.sensor_node_number, node.name, str(node.mac_address), node.rssi] for node in found
            ],
            "nodes": [
                await _node(stu, 0),
                await _node(stu, found[1].name),
                await _node(stu, EUI(str(found[2].mac_address))),
            ],
            "connected": await stu.is_connected(),
        }


if __name__ == "__main__":
    logging.getLogger("can").setLevel(logging.ERROR)
    os.environ["DYNACONF_CAN__LINUX__INTERFACE"] = "socketcand"
    os.environ["CAN_CONFIG"] = json.dumps({"host": "127.0.0.1", "port": int(sys.argv[1])})
    json.dump(asyncio.run(main()), sys.stdout)
