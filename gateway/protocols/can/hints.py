"""What ids and payloads that no database knows look like: a beginning for who has to find out."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from gateway.canbus import EXTENDED
from gateway.protocols.can.j1939 import destination_of, pgn_of, source_of

_GROUPS: Final = {
    59904: "request", 60160: "TP.DT", 60416: "TP.CM", 60928: "address claimed", 61443: "EEC2", 61444: "EEC1",
    61445: "ETC2", 65226: "DM1, active faults", 65227: "DM2", 65242: "software", 65253: "engine hours",
    65254: "time and date", 65257: "fuel consumption", 65260: "VIN", 65262: "ET1, engine temperatures",
    65263: "EFL/P1, engine pressures", 65265: "CCVS, vehicle speed", 65266: "LFE, fuel economy",
    65269: "AMB, ambient", 65270: "IC1, inlet and exhaust", 65271: "VEP1, electrical",
    65276: "DD, dash display",
}  # fmt: skip
_OBJECTS: Final = {
    1: "emergency", 3: "TPDO1", 4: "RPDO1", 5: "TPDO2", 6: "RPDO2", 7: "TPDO3", 8: "RPDO3", 9: "TPDO4",
    10: "RPDO4", 11: "SDO answer", 12: "SDO request", 14: "heartbeat",
}  # fmt: skip
"""CANopen's predefined connection set (CiA 301, 7.3.3) by function code."""
_STATES: Final = (0, 4, 5, 127)
_FEW = 8


def canopen_nodes(heard: dict[int, bytes]) -> set[int]:
    """Return the nodes whose heartbeat is among the newest payloads by id."""
    return {
        can_id - 0x700
        for can_id, payload in heard.items()
        if 0x700 < can_id <= 0x77F and len(payload) == 1 and payload[0] & 0x7F in _STATES
    }


def of_id(can_id: int, nodes: set[int]) -> str:
    """Return what an id means in a protocol that is likely."""
    if can_id & EXTENDED:
        pgn, destination = pgn_of(can_id), destination_of(can_id)
        name = f" ({_GROUPS[pgn]})" if pgn in _GROUPS else ""
        to = f" to 0x{destination:02X}" if destination != 0xFF else ""
        return f"if J1939: PGN {pgn}{name} from 0x{source_of(can_id):02X}{to}"
    if can_id & 0x7F in nodes and can_id >> 7 in _OBJECTS:
        return f"CANopen: {_OBJECTS[can_id >> 7]} of node {can_id & 0x7F}"
    if nodes and can_id in (0x000, 0x080, 0x100):
        return {0x000: "CANopen: NMT", 0x080: "CANopen: SYNC", 0x100: "CANopen: time"}[can_id]
    if 0x7DF <= can_id <= 0x7EF:
        return "diagnosis (OBD, UDS)"
    return ""


def of_payloads(payloads: Sequence[bytes]) -> Iterator[str]:
    """Yield what payloads of one id, one after the other, look like."""
    size = min(map(len, payloads), default=0)
    if len(payloads) < _FEW or not size:
        return
    moving = moving_bits(payloads)
    if not moving:
        return
    yield f"moving bits: {_ranges(moving, 8 * size)}"
    counters = [name for byte in range(size) for name in _counters(payloads, byte)]
    if counters:
        yield f"counter: {', '.join(counters)}"
    check = _checksum(payloads, size)
    if check is not None and not any(name.startswith(f"byte {check}") for name in counters):
        yield f"checksum? byte {check}"
    if size >= 4 and all(32 <= each < 127 or each in (0, 0xFF) for payload in payloads for each in payload):
        yield "text?"


def moving_bits(payloads: Sequence[bytes]) -> int:
    """Return the bits that differ between payloads, as an integer whose bit n is a DBC's bit n."""
    size = min(map(len, payloads))
    first, moving = int.from_bytes(payloads[0][:size], "little"), 0
    for payload in payloads:
        moving |= int.from_bytes(payload[:size], "little") ^ first
    return moving


def _ranges(bits: int, count: int) -> str:
    found, start = [], None
    for place in range(count + 1):
        on = bits >> place & 1
        if on and start is None:
            start = place
        elif not on and start is not None:
            found.append(str(start) if place == start + 1 else f"{start}-{place - 1}")
            start = None
    return ", ".join(found)


def _counters(payloads: Sequence[bytes], byte: int) -> Iterator[str]:
    """Yield a byte, or a half of it, that goes up by one with nearly every frame."""
    values = [payload[byte] for payload in payloads]
    halves = (f"byte {byte} low half", 0, 16), (f"byte {byte} high half", 4, 16)
    for name, shift, size in ((f"byte {byte}", 0, 256), *halves):
        steps = [(b >> shift) - (a >> shift) for a, b in pairwise(values)]
        if sum(step % size == 1 for step in steps) >= 0.9 * len(steps):
            yield name
            return


def _checksum(payloads: Sequence[bytes], size: int) -> int | None:
    """Return the first or last byte where it takes very different values and changes whenever others do."""
    for byte in (size - 1, 0):
        changes = kept = 0
        for a, b in pairwise(payloads):
            if a[:byte] + a[byte + 1 :] != b[:byte] + b[byte + 1 :]:
                changes += 1
                kept += a[byte] != b[byte]
        values = {payload[byte] for payload in payloads}
        if changes >= _FEW and kept >= 0.9 * changes and max(values) - min(values) > 128 and len(values) > 12:
            return byte
    return None
