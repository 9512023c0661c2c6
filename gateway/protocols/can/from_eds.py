"""From a CANopen EDS or DCF to the messages of a node's process data. Only the child process imports this.

CiA 301, 7.5.2.33 to 7.5.2.38: communication of an RPDO (1400h) and of a TPDO (1800h), their mappings (1600h
and 1A00h); 7.3.3 for the ids that are predefined. CiA 306 is the EDS.
"""

import configparser
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from canopen import ObjectDictionary
from canopen.objectdictionary import FLOAT_TYPES, SIGNED_TYPES, ODVariable, eds

from gateway.canbus import EXTENDED
from gateway.protocols.can.database import Message, Signal, Unreadable
from gateway.protocols.can.generated import usable

_STATES = {0: "boot-up", 4: "stopped", 5: "operational", 127: "pre-operational"}
_MOST_PDOS = 512
_NOT_VALID, _EXTENDED_FRAME = 1 << 31, 1 << 29
_PREDEFINED = 4
"""So many PDOs of each direction have an id of their own, 0x100 apart."""


class _Direction(NamedTuple):
    """The PDOs that a node sends, or those that it takes."""

    name: str
    communication: int
    mapping: int
    first_id: int
    """Of node 0."""


_SENT: Final = _Direction("TPDO", 0x1800, 0x1A00, 0x180)
_TAKEN: Final = _Direction("RPDO", 0x1400, 0x1600, 0x200)


def read(path: Path, data: bytes, name: str, node: int) -> tuple[list[Message], list[str]]:
    """Return a node's messages, NAME.TPDO1..., NAME.RPDO1..., NAME.Heartbeat and NAME.Emergency.

    The sentences say what is not used. Unreadable: nothing of the file is.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    try:
        dictionary = eds.import_eds(io.StringIO(text), node)
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or next(
            (number for number, _ in getattr(error, "errors", ())), 1
        )
        said = " ".join(error.message.splitlines()[0].replace("'<???>'", "").split())
        raise Unreadable(f"{path}:{line}: {said}: is it an EDS file?") from error
    messages, notes = [], []
    for message in (
        each for way in (_SENT, _TAKEN) for each in _pdos(dictionary, way, name, node, path.name)
    ):
        if any(usable(signal, message) for signal in message.signals) or message.length > 64:
            pdo = message.name.removeprefix(f"{name}.")
            notes.append(f"{path.name}: {pdo} is not used: it maps more than a frame holds")
        else:
            messages.append(message)
    if not messages:
        notes.append(
            f"{path.name}: it maps no process data (1800h and 1A00h, 1400h and 1600h, with a COB-ID that is "
            "valid)"
        )
    return messages + _always(name, node, path.name), notes


def _pdos(
    dictionary: ObjectDictionary, way: _Direction, name: str, node: int, file: str
) -> Iterator[Message]:
    for number in range(_MOST_PDOS):
        if way.communication + number in dictionary and way.mapping + number in dictionary:
            message = _pdo(dictionary, way, name, node, number, file)
            if message is not None:
                yield message


def _pdo(
    dictionary: ObjectDictionary, way: _Direction, name: str, node: int, number: int, file: str
) -> Message | None:
    """Return the message of a PDO; None where it is switched off or maps nothing."""
    communication, mapping = dictionary[way.communication + number], dictionary[way.mapping + number]
    cob_id = _value(communication, 1)
    if number < _PREDEFINED and (cob_id is None or not cob_id & 0x7F):
        cob_id = way.first_id + 0x100 * number + node | (cob_id or 0) & _NOT_VALID
    if cob_id is None or cob_id & _NOT_VALID:
        return None
    entries = [_value(mapping, place + 1) or 0 for place in range(min(_value(mapping, 0) or 0, 64))]
    signals = tuple(_signals(dictionary, entries))
    if not signals:
        return None
    extended = cob_id & _EXTENDED_FRAME or cob_id & 0x1FFFFFFF > 0x7FF
    return Message(
        f"{name}.{way.name}{number + 1}",
        cob_id & 0x1FFFFFFF | (EXTENDED if extended else 0),
        (sum(entry & 0xFF for entry in entries) + 7) // 8,
        signals,
        cycle_ms=_value(communication, 5) or None if way is _SENT else None,  # else it is a deadline
        file=file,
    )


def _signals(dictionary: ObjectDictionary, entries: list[int]) -> Iterator[Signal]:
    start, seen = 0, set[str]()
    for entry in entries:
        index, subindex, length = entry >> 16, entry >> 8 & 0xFF, entry & 0xFF
        if index >= 0x20 and length:  # below are the data types: a dummy that fills up
            signal = _signal(_object(dictionary, index, subindex), index, subindex, start, length)
            if signal.name in seen:
                signal = replace(signal, name=f"{signal.name} {signal.comment}")
            seen.add(signal.name)
            yield signal
        start += length


def _signal(variable: ODVariable | None, index: int, subindex: int, start: int, length: int) -> Signal:
    place = f"{index:04X}h:{subindex:02X}"
    if variable is None:
        return Signal(place, start, length, comment=place)
    return Signal(
        " ".join(variable.qualname.split()) or place,
        start,
        length,
        signed=variable.data_type in SIGNED_TYPES,
        is_float=variable.data_type in FLOAT_TYPES,
        unit=variable.unit,
        scale=variable.factor,
        texts={int(raw): str(text) for raw, text in variable.value_descriptions.items()},
        comment=place,
    )


def _object(dictionary: ObjectDictionary, index: int, subindex: int) -> ODVariable | None:
    """Return what is mapped; None where the file does not have it, though its length is known."""
    found = dictionary.get(index)
    if found is None or isinstance(found, ODVariable):
        return found
    variable: ODVariable | None = found.get(subindex)
    return variable


def _value(record: object, subindex: int) -> int | None:
    """Return what a DCF sets, else the default of the EDS."""
    entry = record.get(subindex) if hasattr(record, "get") else None
    value = getattr(entry, "value", None)
    value = getattr(entry, "default", None) if value is None else value
    return value if isinstance(value, int) else None


def _always(name: str, node: int, file: str) -> list[Message]:
    """Return the state by heartbeat (CiA 301, 7.2.8.3.2) and emergencies (7.2.7)."""
    state = Signal("State", 0, 7, texts=_STATES)
    emergency = (
        Signal("Error code", 0, 16, texts={0: "no error"}),
        Signal("Error register", 16, 8),
        Signal("Manufacturer error", 24, 40),
    )
    return [
        Message(f"{name}.Heartbeat", 0x700 + node, 1, (state,), file=file),
        Message(f"{name}.Emergency", 0x080 + node, 8, emergency, file=file),
    ]
