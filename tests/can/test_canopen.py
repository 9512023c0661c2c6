"""CANopen process data as the canopen library has them."""

import random
import struct
from pathlib import Path

import canopen
import pytest

from gateway.protocols.can import from_eds
from gateway.protocols.can.database import Database, Unreadable
from tests.can.decoding import Bench

EDS = Path(__file__).parent / "axis.eds"
NODE = 5


def read(text: str | None = None) -> Database:
    data = EDS.read_bytes() if text is None else text.encode()
    messages, notes = from_eds.read(EDS, data, "axis", NODE)
    return Database(tuple(messages), tuple(notes))


def test_pdos_have_their_ids_and_names() -> None:
    database = read()
    assert not database.notes
    assert [(each.name, each.can_id, each.length, each.cycle_ms) for each in database.messages] == [
        ("axis.TPDO1", 0x185, 8, 100), ("axis.TPDO2", 0x285, 8, None),
        ("axis.Heartbeat", 0x705, 1, None), ("axis.Emergency", 0x085, 8, None),
    ]  # fmt: skip


def test_values_are_those_of_the_canopen_library() -> None:
    node = canopen.RemoteNode(NODE, str(EDS))
    canopen.Network().add_node(node)
    pdo = node.tpdo.map[1]
    pdo.read(from_od=True)
    bench, rng = Bench(read()), random.Random(1)
    for at in range(100):
        payload = rng.randbytes(8)
        pdo.on_message(pdo.cob_id, bytearray(payload), at)
        theirs = [(f"axis.TPDO1.{variable.name}", at, variable.raw, 0) for variable in pdo.map]
        assert len(theirs) == 3
        assert bench.take((at, 0x185, payload)) == theirs


def test_dummies_and_what_is_not_described_take_their_room() -> None:
    payload = bytes([0x81]) + struct.pack("<f", 21.5) + bytes([7]) + struct.pack("<H", 0x1237)
    assert Bench(read()).take((0, 0x285, payload)) == [
        ("axis.TPDO2.Inputs.Limit switch", 0, 1, 0),
        ("axis.TPDO2.Inputs.Temperature", 0, 21.5, 0),
        ("axis.TPDO2.3000h:00", 0, 7, 0),
        ("axis.TPDO2.Statusword", 0, 0x1237, 0),
    ]


def test_each_node_tells_its_state_and_emergencies() -> None:
    bench = Bench(read())
    rows = bench.take(
        (0, 0x705, b"\x05"), (1, 0x705, b"\x85"), (2, 0x085, bytes.fromhex("1023 01 0100000000"))
    )
    assert [row[:3] for row in rows] == [
        ("axis.Heartbeat.State", 0, 5), ("axis.Heartbeat.State", 1, 5),
        ("axis.Emergency.Error code", 2, 0x2310), ("axis.Emergency.Error register", 2, 1),
        ("axis.Emergency.Manufacturer error", 2, 1),
    ]  # fmt: skip
    about = bench.decoder.tag_states()["axis.Heartbeat.State"].about
    assert about is not None and about.enum["5"] == "operational"


def test_a_dcf_says_what_was_set() -> None:
    text = EDS.read_text().replace(
        "DefaultValue=$NODEID+0x180", "DefaultValue=$NODEID+0x180\nParameterValue=0x1C0"
    )
    assert read(text).messages[0].can_id == 0x1C0


RPDOS = """
[1400]
ParameterName=RPDO1 communication
ObjectType=0x9
SubNumber=4
[1400sub0]
ParameterName=Highest sub-index
ObjectType=0x7
DataType=0x0005
AccessType=ro
DefaultValue=5
[1400sub1]
ParameterName=COB-ID
ObjectType=0x7
DataType=0x0007
AccessType=rw
DefaultValue=$NODEID+0x200
[1400sub2]
ParameterName=Transmission type
ObjectType=0x7
DataType=0x0005
AccessType=rw
DefaultValue=255
[1400sub5]
ParameterName=Event timer
ObjectType=0x7
DataType=0x0006
AccessType=rw
DefaultValue=100
[1600]
ParameterName=RPDO1 mapping
ObjectType=0x9
SubNumber=3
[1600sub0]
ParameterName=Mapped objects
ObjectType=0x7
DataType=0x0005
AccessType=rw
DefaultValue=2
[1600sub1]
ParameterName=1st
ObjectType=0x7
DataType=0x0007
AccessType=rw
DefaultValue=0x60400010
[1600sub2]
ParameterName=2nd
ObjectType=0x7
DataType=0x0007
AccessType=rw
DefaultValue=0x60770010
[6040]
ParameterName=Controlword
ObjectType=0x7
DataType=0x0006
AccessType=rww
PDOMapping=1
"""


@pytest.mark.parametrize(
    ("place", "number", "can_id"), [(0, "", 0x205), (0, "0x2A0", 0x2A0), (3, "0x500", 0x505)]
)
def test_what_a_node_is_told_is_process_data_too(
    tmp_path: Path, place: int, number: str, can_id: int
) -> None:
    """Of a predefined id, of one of its own, and of one that a tool left without its node."""
    more = RPDOS.replace("[1400", f"[140{place}").replace("[1600", f"[160{place}")
    more = more.replace("$NODEID+0x200", number or "$NODEID+0x200")
    file = tmp_path / "axis.eds"
    file.write_text(EDS.read_text() + more)
    database = read(file.read_text())
    assert not database.notes
    found = {each.name: each for each in database.messages}[f"axis.RPDO{place + 1}"]
    assert (found.can_id, found.length, found.cycle_ms) == (can_id, 4, None)
    node = canopen.RemoteNode(NODE, str(file))
    canopen.Network().add_node(node)
    pdo = node.rpdo.map[place + 1]
    pdo.read(from_od=True)
    payload = bytes.fromhex("0f00 9cff")
    pdo.on_message(pdo.cob_id, bytearray(payload), 1)
    theirs = [(f"axis.RPDO{place + 1}.{variable.name}", 1, variable.raw, 0) for variable in pdo.map]
    assert Bench(database).take((1, can_id, payload)) == theirs


def test_what_a_frame_cannot_hold_is_not_used() -> None:
    text = EDS.read_text().replace("DefaultValue=0x60640020", "DefaultValue=0x606400FF").replace(
        "DefaultValue=0x60770010", "DefaultValue=0x607700FF")  # fmt: skip
    database = read(text)
    assert "axis.TPDO1" not in {message.name for message in database.messages}
    assert database.notes == ("axis.eds: TPDO1 is not used: it maps more than a frame holds",)


def test_a_node_without_process_data_is_told() -> None:
    database = read(EDS.read_text().replace("[18", "[19"))
    assert [message.name for message in database.messages] == ["axis.Heartbeat", "axis.Emergency"]
    [note] = database.notes
    assert "it maps no process data" in note


@pytest.mark.filterwarnings("ignore:The 'warn' method")
@pytest.mark.parametrize("text", ["", "nothing", "[1800]\nObjectType=0x9\n"])
def test_what_is_no_eds_is_told(text: str) -> None:
    try:
        assert read(text).notes
    except Unreadable as error:
        assert str(error).startswith(str(EDS))
