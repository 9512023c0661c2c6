"""Frames as records of a datagram socket: what is read, its times, and the exact count of what was not."""

import os
import random
import socket
import time
from collections.abc import Iterator

import pytest

from gateway.canbus.frames import ERROR, EXTENDED, REMOTE, Frames
from gateway.canbus.records import Records
from tests.can.standin import record

FD_LENGTHS = [0, 1, 5, 8, 12, 16, 20, 24, 32, 48, 64]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        yield sender, receiver


def everything(records: Records) -> tuple[Frames, list[tuple[int, bytes]]]:
    frames, errors = Frames(), []
    while True:
        more, bad = records.read()
        if not more and not bad:
            return frames, errors
        frames.extend(more)
        errors += bad


def test_every_kind_of_frame(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    records = Records(receiver)
    chance = random.Random(6)
    sent = []
    before_us = time.time_ns() // 1000
    for number in range(3000):
        can_id = chance.choice([number % 0x800, number * 7 | EXTENDED, number | REMOTE])
        # Whole calls of one length, and mixed ones: they are parsed in different ways.
        length = 8 if number < 1100 else chance.choice(FD_LENGTHS if number > 2000 else FD_LENGTHS[:4])
        data = chance.randbytes(length)
        sender.send(record(can_id, data, fd=length > 8))
        sent.append((can_id, data))
    frames, errors = everything(records)
    assert list(zip(frames.ids, frames.data, strict=True)) == sent
    assert errors == []
    assert sorted(frames.ts) == frames.ts
    assert before_us <= frames.ts[0] <= frames.ts[-1] <= time.time_ns() // 1000
    assert records.drops == 0


def test_error_frames_come_apart(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    records = Records(receiver)
    for number in range(10):
        sender.send(record(number, b"12345678"))
        if number % 3 == 0:
            sender.send(record(ERROR | 0x4, bytes([0, number, 0, 0, 0, 0, 0, 0])))
    frames, errors = everything(records)
    assert frames.ids == list(range(10))
    assert len(frames.ts) == len(frames.data) == 10
    assert [(can_id, data[1]) for can_id, data in errors] == [(ERROR | 0x4, n) for n in (0, 3, 6, 9)]


def test_times_are_those_of_arrival(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    records = Records(receiver)
    time.sleep(0.1)  # the kernel begins to stamp a little after it was asked to
    for number in range(3):
        sender.send(record(number, b""))
        time.sleep(0.05)
    frames, _ = records.read()
    first, second, third = frames.ts
    assert second - first >= 50_000
    assert third - second >= 50_000
    assert time.time_ns() // 1000 - third >= 50_000  # not the time at which it was read


def test_what_finds_no_room_is_counted_exactly(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
    records = Records(receiver)
    received = 0
    for burst in (10, 3000, 1, 500):
        for number in range(burst):
            sender.send(record(number % 0x800, os.urandom(8)))
        received += len(everything(records)[0])
        # No later frame is needed for it to be known.
        assert received + records.drops == {10: 10, 3000: 3010, 1: 3011, 500: 3511}[burst]
    assert records.drops > 0


def test_a_closed_socket_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    _, receiver = pair
    records = Records(receiver)
    receiver.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        records.read()
