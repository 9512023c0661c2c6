"""SAE J1939: frames by parameter group, values that are none, messages in many packets."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gateway.protocols.can.database import Database, Message, Signal
from gateway.protocols.can.j1939 import indicators, pgn_filter, pgn_of
from gateway.protocols.can.tags import DecodingSettings, TagSettings
from gateway.protocols.can.transport import Assembled, Reassembly
from tests.can.decoding import Bench, Names, read

EXTENDED = 0x80000000
EVERY = DecodingSettings(keep_interval_ms=0)
SPEED = bytes([0xF0, 0xFF, 125, 0x80, 0x3E, 0, 0b0001, 0])  # 2000 rpm, 0 %
ANY = range(1 << 18)
UNAVAILABLE, FAILED = 0x809E0000, 0x808C0000


def frame(pgn: int, source: int, *, priority: int = 6, destination: int = 0xFF) -> int:
    specific = pgn if pgn >> 8 & 0xFF >= 240 else pgn | destination
    return EXTENDED | priority << 26 | specific << 8 | source


@pytest.mark.parametrize(
    ("can_id", "pgn"),
    [
        (0xCF00400, 0xF004),
        (0x18FEF117, 0xFEF1),
        (0x18EAFF27, 0xEA00),
        (0x18EA0527, 0xEA00),
        (0x1DF00400, 0x1F004),
    ],
)
def test_a_parameter_group_is_known_from_an_id(can_id: int, pgn: int) -> None:
    assert pgn_of(can_id) == pgn
    number, mask = pgn_filter(pgn)
    assert can_id & mask == number & mask & ~EXTENDED


def test_source_and_priority_are_ignored() -> None:
    bench = Bench(read("j1939.dbc"))
    rows = bench.take(
        (0, frame(0xF004, 0x11, priority=3), SPEED), (1, frame(0xF004, 0x11, priority=6), SPEED)
    )
    assert [row[1:3] for row in rows if row[0] == "EEC1.EngineSpeed"] == [(0, 2000.0), (1, 2000.0)]


def test_groups_for_a_destination_are_known_whatever_it_is() -> None:
    bench = Bench(read("j1939.dbc"))
    asked = b"\xec\xfe\x00"
    rows = bench.take(*((n, frame(0xEA00, 9, destination=to), asked) for n, to in enumerate((0, 0x20, 0xFF))))
    assert rows == [("Request.Asked", n, 0xFEEC, 0) for n in range(3)]
    assert not bench.take((0, frame(0xEB99, 9), asked))


def test_a_remote_frame_is_no_data() -> None:
    bench = Bench(read("j1939.dbc"), DecodingSettings(keep_interval_ms=0, raw_frames="all"))
    assert not bench.take((0, 0x40000000 | frame(0xF004, 3), bytes(8)))


def test_the_same_from_two_senders_are_two_tags() -> None:
    names = Names()
    bench = Bench(read("j1939.dbc"), names=names)
    first, second = frame(0xF004, 0x00), frame(0xF004, 0x01)
    rows = bench.take((0, first, SPEED), (1, second, bytes(8)), (2, first, SPEED))
    assert [row[:3] for row in rows if "EngineSpeed" in row[0]] == [
        ("EEC1.EngineSpeed", 0, 2000.0), ("EEC1.EngineSpeed", 2, 2000.0), ("EEC1@0x01.EngineSpeed", 1, 0.0),
    ]  # fmt: skip
    # After a reconnection the names are the same, whoever comes first.
    again = Bench(read("j1939.dbc"), names=names)
    assert ("EEC1@0x01.EngineSpeed", 3, 2000.0, 0) in again.take((3, second, SPEED))


def test_a_listed_tag_takes_one_sender_and_says_so() -> None:
    tags = {"speed": TagSettings(signal="EEC1.EngineSpeed")}
    bench = Bench(read("j1939.dbc"), EVERY, tags)
    rows = bench.take((0, frame(0xF004, 0), SPEED), (1, frame(0xF004, 1), SPEED))
    assert rows == [("speed", 0, 2000.0, 0)]
    assert bench.decoder.sentences(1) == [
        "EEC1 comes from source address 0x01 too, and only that of 0x00 is kept: give the tags a `source`"
    ]
    tags |= {"second": TagSettings(signal="EEC1.EngineSpeed", source=1)}
    tags["speed"] = TagSettings(signal="EEC1.EngineSpeed", source=0)
    bench = Bench(read("j1939.dbc"), EVERY, tags)
    rows = bench.take(
        (0, frame(0xF004, 1), SPEED), (1, frame(0xF004, 0), SPEED), (2, frame(0xF004, 2), SPEED)
    )
    assert rows == [("second", 0, 2000.0, 0), ("speed", 1, 2000.0, 0)]


def test_an_id_that_changes_with_every_frame_makes_no_tags_without_end() -> None:
    bench = Bench(read("j1939.dbc"))
    for source in range(254):
        bench.take((source, frame(0xF004, source), SPEED))
    assert len(bench.names.tags) == 32 * 6
    assert bench.decoder.sentences(0) == [
        "EEC1 comes from more than 32 source addresses: those that came first are kept"
    ]


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        (bytes([0xF0, 0xFF, 0xFA, 0xFF, 0xFA, 0xFF, 0, 0]), (125, 0, 0xFAFF * 0.125, 0)),
        (bytes([0xF0, 0xFF, 0xFF, 0x00, 0xFF, 0xFF, 0, 0]), (None, UNAVAILABLE, None, UNAVAILABLE)),
        (bytes([0xF0, 0xFF, 0xFE, 0x12, 0xFE, 0xFF, 0, 0]), (None, FAILED, None, FAILED)),
    ],
)
def test_raw_values_that_stand_for_none_are_statuses(payload: bytes, values: tuple[object, ...]) -> None:
    rows = {row[0]: row[2:] for row in Bench(read("j1939.dbc")).take((0, frame(0xF004, 0), payload))}
    assert rows["EEC1.ActualTorque"] + rows["EEC1.EngineSpeed"] == values


def test_few_bits_stand_for_none_unless_the_database_has_a_text_for_them() -> None:
    def switch(number: int) -> dict[str, tuple[object, int]]:
        payload = bytes([0xF0, 0xFF, 125, 0, 0, 0, number | number << 2, 0])
        rows = Bench(read("j1939.dbc")).take((0, frame(0xF004, 0), payload))
        return {row[0]: row[2:] for row in rows}

    assert switch(1)["EEC1.Switch"] == (1, 0)
    assert switch(2)["EEC1.Switch"] == (None, FAILED)
    assert switch(3)["EEC1.Switch"] == (None, UNAVAILABLE)
    assert [switch(number)["EEC1.Chosen"] for number in range(4)] == [(0, 0), (1, 0), (2, 0), (3, 0)]


@pytest.mark.parametrize(
    ("length", "found"),
    [
        (1, None), (2, (3, 2)), (4, (15, 14)), (8, (0xFF, 0xFE)), (10, (1023, 1022)), (12, (0xFF0, 0xFE0)),
        (16, (0xFF00, 0xFE00)), (32, (0xFF000000, 0xFE000000)), (128, None),
    ],
)  # fmt: skip
def test_ranges_of_j1939_71(length: int, found: tuple[int, int] | None) -> None:
    assert indicators(Signal("a", 0, length)) == found


def test_an_ordinary_message_has_no_such_values() -> None:
    rows = Bench(read("plain.dbc")).take((0, 256, b"\xff" * 8))
    assert all(status == 0 for *_, status in rows)


def test_the_yaml_can_say_what_is_j1939() -> None:
    assert all(message.pgn is None for message in read("j1939.dbc", j1939=False).messages)
    pgns = {message.name: message.pgn for message in read("plain.dbc", j1939=True).messages}
    assert pgns == {
        "EngineData": None,
        "Extended": 0,
        "Short": None,
        "Empty": None,
        "NoSignals": None,
    }


# -- the transport protocol ----------------------------------------------------------------------------


def broadcast(pgn: int, payload: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the frames of a BAM and its packets, as (PGN, payload)."""
    packets = (len(payload) + 6) // 7
    yield 0xEC00, bytes([32, *len(payload).to_bytes(2, "little"), packets, 0xFF, *pgn.to_bytes(3, "little")])
    yield from data(payload)


def data(payload: bytes) -> Iterator[tuple[int, bytes]]:
    for number, start in enumerate(range(0, len(payload), 7), 1):
        yield 0xEB00, bytes([number]) + payload[start : start + 7].ljust(7, b"\xff")


def control(kind: int, size: int, pgn: int, *rest: int) -> tuple[int, bytes]:
    packets = (size + 6) // 7
    body = rest or (*size.to_bytes(2, "little"), packets, 0xFF)
    return 0xEC00, bytes([kind, *body, *pgn.to_bytes(3, "little")])


def fed(
    reassembly: Reassembly, frames: Iterator[tuple[int, bytes]] | list[tuple[int, bytes]], *, source: int = 5,
    destination: int = 0xFF, at_us: int = 0, step_us: int = 50_000,
) -> list[Assembled]:  # fmt: skip
    found = []
    for pgn, payload in frames:
        whole = reassembly.take(frame(pgn, source, destination=destination), payload, at_us)
        at_us += step_us
        if whole is not None:
            found.append(whole)
    return found


@pytest.mark.parametrize("size", [9, 14, 15, 20, 1785])
def test_a_broadcast_is_put_together(size: int) -> None:
    payload, reassembly = random.Random(size).randbytes(size), Reassembly(ANY)
    assert fed(reassembly, broadcast(0xFEEC, payload)) == [Assembled(0xFEEC, 5, payload)]
    assert not reassembly.lost


def test_senders_may_be_interleaved() -> None:
    payloads = {source: random.Random(source).randbytes(9 + source) for source in range(200)}
    frames = [
        (place, source, each)
        for source, payload in payloads.items()
        for place, each in enumerate(broadcast(0xFEEC, payload))
    ]
    reassembly, found = Reassembly(ANY), {}
    for place, source, (pgn, payload) in sorted(frames, key=lambda each: each[:2]):
        whole = reassembly.take(frame(pgn, source), payload, place * 100_000)
        if whole is not None:
            found[whole.source] = whole.payload
    assert found == payloads


@pytest.mark.parametrize("missing", range(1, 4))
def test_a_packet_that_is_missing_loses_the_message_and_is_counted(missing: int) -> None:
    frames = list(broadcast(0xFEEC, bytes(20)))
    del frames[missing]
    reassembly = Reassembly(ANY)
    assert not fed(reassembly, frames)
    reassembly.expire(10_000_000)
    assert reassembly.lost == {0xFEEC: 1}
    assert len(fed(reassembly, broadcast(0xFEEC, bytes(20)), at_us=20_000_000)) == 1


def test_a_broadcast_comes_in_order() -> None:
    frames = list(broadcast(0xFEEC, bytes(23)))
    for wrong in ([0, 2, 1, 3, 4], [0, 1, 1, 2, 3, 4]):
        reassembly = Reassembly(ANY)
        assert not fed(reassembly, [frames[place] for place in wrong])
        assert reassembly.lost == {0xFEEC: 1}


def test_a_message_under_way_is_given_up_after_its_time() -> None:
    reassembly = Reassembly(ANY)
    assert not fed(reassembly, broadcast(0xFEEC, bytes(20)), step_us=751_000)
    assert reassembly.lost == {0xFEEC: 1}
    assert fed(reassembly, broadcast(0xFEEC, bytes(20)), step_us=749_000, at_us=10_000_000)


def test_a_new_announcement_ends_the_one_before() -> None:
    reassembly = Reassembly(ANY)
    frames = [*list(broadcast(0xFEEC, bytes(20)))[:2], *broadcast(0xFEE3, b"\x01" * 9)]
    assert fed(reassembly, frames) == [Assembled(0xFEE3, 5, b"\x01" * 9)]
    assert reassembly.lost == {0xFEEC: 1}


def test_packets_that_a_receiver_asks_for_again() -> None:
    payload = bytes(range(23))
    packets = list(data(payload))
    reassembly, to = Reassembly(ANY), {"destination": 0x20}
    assert not fed(reassembly, [control(16, 23, 0xFEEC)], **to)
    answer = frame(0xEC00, 0x20, destination=5)
    reassembly.take(answer, control(17, 23, 0xFEEC, 4, 1, 0xFF, 0xFF)[1], 60_000)
    assert not fed(reassembly, [packets[0], packets[2], packets[3]], at_us=100_000, **to)
    reassembly.take(answer, control(17, 23, 0xFEEC, 1, 2, 0xFF, 0xFF)[1], 1_300_000)
    assert fed(reassembly, [packets[1]], at_us=2_000_000, **to) == [Assembled(0xFEEC, 5, payload)]
    reassembly.take(answer, control(19, 23, 0xFEEC)[1], 2_100_000)
    assert not reassembly.lost


@pytest.mark.parametrize("from_receiver", [True, False])
def test_an_abort_ends_a_message(from_receiver: bool) -> None:
    reassembly, to = Reassembly(ANY), {"destination": 0x20}
    fed(reassembly, [control(16, 20, 0xFEEC), *list(data(bytes(20)))[:1]], **to)
    ids = frame(0xEC00, 0x20, destination=5), frame(0xEC00, 5, destination=0x20)
    reassembly.take(ids[not from_receiver], control(255, 0, 0xFEEC, 1, 0xFF, 0xFF, 0xFF)[1], 100_000)
    assert not fed(reassembly, list(data(bytes(20)))[1:], at_us=150_000, **to)
    assert reassembly.lost == {0xFEEC: 1}


def test_nonsense_announces_nothing() -> None:
    reassembly = Reassembly(ANY)
    for size, packets in ((8, 2), (1786, 255), (20, 4), (0, 0)):
        body = bytes([32, *size.to_bytes(2, "little"), packets, 0xFF, 0xEC, 0xFE, 0])
        fed(reassembly, [(0xEC00, body), *data(bytes(20))])
    assert reassembly.lost == {0xFEEC: 4}
    rng = random.Random(1)
    for n in range(20_000):
        source, destination = rng.randrange(256), rng.randrange(256)
        pgn = rng.choice((0xEC00, 0xEB00))
        body = bytes([rng.choice((16, 17, 19, 32, 255, rng.randrange(256)))]) + rng.randbytes(
            rng.choice((7, 7, 3))
        )
        reassembly.take(frame(pgn, source, destination=destination), body, n * 10)
    assert len(reassembly._open) <= 256


def test_what_is_put_together_is_decoded_and_its_losses_are_told() -> None:
    bench = Bench(read("j1939.dbc"))
    vin = b"WDB9634031L123456*\x00\x00"
    frames = [(n, frame(pgn, 3), each) for n, (pgn, each) in enumerate(broadcast(0xFEEC, vin))]
    assert bench.take(*frames[:2], (1, frame(0xF004, 3), SPEED))
    assert bench.take(*frames[2:]) == [("VIN.Text", 3, vin, 0)]
    bench.take(*frames[:2])
    bench.flush(5_000_000)
    assert bench.decoder.sentences(5_000_000) == [
        "PGN 65260: 1 messages of the transport protocol came without all their packets"
    ]


@pytest.mark.parametrize("one_batch", [True, False])
@pytest.mark.parametrize("keep_interval_ms", [0, 1000])
def test_a_message_comes_now_in_one_frame_and_now_in_packets(one_batch: bool, keep_interval_ms: int) -> None:
    """As DM1 does (J1939-73, 5.7.1): with two faults or more it needs packets, repaired it is as before."""
    lamp = Message("DM1", frame(0xFECA, 0xFE), 8, (Signal("Lamp", 0, 8), Signal("SPN", 16, 16)), pgn=0xFECA)
    bench = Bench(Database((lamp,)), DecodingSettings(keep_interval_ms=keep_interval_ms))
    calm, faults = bytes(8), bytes([0x10, 0xFF, 5, 0, 0, 0, 6, 0, 0, 0])
    sent = [(0xFECA, calm), *broadcast(0xFECA, faults), (0xFECA, calm), *broadcast(0xFECA, faults)]
    frames = [(n * 500_000, frame(pgn, 3), payload) for n, (pgn, payload) in enumerate(sent)]
    rows = bench.take(*frames) if one_batch else [row for each in frames for row in bench.take(each)]
    found = {tag: [row[1:3] for row in rows if row[0] == tag] for tag in ("DM1.Lamp", "DM1.SPN")}
    times = (0, 1_500_000, 2_000_000, 3_500_000)
    assert found["DM1.Lamp"] == list(zip(times, (0, 0x10, 0, 0x10), strict=True))
    assert found["DM1.SPN"] == list(zip(times, (0, 5, 0, 5), strict=True))


def test_what_nobody_wants_is_no_loss() -> None:
    """A foreign parameter group, and one of the database of which no tag is listed."""
    for pgn, tags in ((0xFECA, None), (0xFEEC, {"speed": TagSettings(signal="EEC1.EngineSpeed")})):
        bench = Bench(read("j1939.dbc"), tags=tags)
        frames = enumerate(list(broadcast(pgn, bytes(20)))[:-1])  # its last packet does not come
        bench.take(*((n, frame(each, 3), payload) for n, (each, payload) in frames))
        bench.flush(5_000_000)
        assert not bench.decoder.sentences(5_000_000)


def test_what_is_put_together_is_overdue_too() -> None:
    database = read("j1939.dbc")
    messages = tuple(
        replace(each, cycle_ms=1000 if each.name == "VIN" else None) for each in database.messages
    )
    names = Names()
    bench = Bench(replace(database, messages=messages), DecodingSettings(), names=names)
    frames = list(enumerate(broadcast(0xFEEC, b"WDB9634031L123456*\x00\x00")))
    for _ in range(3):
        bench.take(*((n, frame(pgn, 3), each) for n, (pgn, each) in frames))
        names.clock.us += 4_000_000
        assert not bench.flush(names.clock.us)
    names.clock.us += 2_000_000
    assert bench.flush(names.clock.us) == [("VIN.Text", names.clock.us, None, 0x80310000)]
    assert "VIN" in bench.decoder.sentences(0)[0] and "6 s" in bench.decoder.sentences(0)[0]


def test_the_kernel_is_asked_for_groups_and_packets() -> None:
    filters = Bench(read("j1939.dbc"), EVERY, {"a": TagSettings(signal="EEC1.Switch")}).decoder.filters()

    def passes(can_id: int) -> bool:
        return any(can_id & mask == number & mask for number, mask in filters)

    assert passes(frame(0xF004, 9, priority=3)) and passes(frame(0xEB00, 1)) and passes(frame(0xEC00, 1))
    assert (
        not passes(frame(0xFEE5, 9))
        and not passes(0xF00400 & 0x7FF)
        and not passes(0x40000000 | frame(0xF004, 9))
    )
