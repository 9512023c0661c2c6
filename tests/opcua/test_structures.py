"""Structures from the wire: what does not fit stays bytes, and nothing takes long. No server needed."""

import json
import struct
import time

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import nodeid_to_binary
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocols.opcua.datavalues import decode_at_once
from gateway.protocols.opcua.structures import AsJson, Field, Structure, json_text

DOUBLE, STRING, INT32, VARIANT, EXTENSION = 11, 12, 6, 24, 22
POINT = Structure("Point", fields=[Field("X", DOUBLE), Field("Y", DOUBLE)])
EMPTY = Structure("Empty")
LOOP = Structure("Loop")
LOOP.fields = [Field("Next", LOOP)]
TREE = Structure("Tree")
TREE.fields = [Field("Name", STRING), Field("Below", TREE, rank=1)]
GRID = Structure("Grid", fields=[Field("Cells", INT32, rank=2)])
MIXED = Structure(
    "Mixed", fields=[Field("Any", VARIANT), Field("More", EXTENSION), Field("None", EMPTY, rank=1)]
)
EITHER = Structure("Either", union=True, fields=[Field("A", INT32), Field("B", POINT)])
MAYBE = Structure(
    "Maybe", masked=True, fields=[Field("A", INT32, optional=True), Field("B", STRING, optional=True)]
)
ALL = {
    ua.NodeId(n, 2): kind for n, kind in enumerate((POINT, EMPTY, LOOP, TREE, GRID, MIXED, EITHER, MAYBE), 1)
}


def encoded(kind: Structure, body: bytes) -> bytes:
    (node,) = [node for node, each in ALL.items() if each is kind]
    return bytes(nodeid_to_binary(node)) + b"\x01" + struct.pack("<i", len(body)) + body


def text(words: str) -> bytes:
    return struct.pack("<i", len(words)) + words.encode()


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (POINT, struct.pack("<dd", 1, float("-inf")), {"X": 1.0, "Y": "-Infinity"}),
        (EMPTY, b"", {}),
        (
            TREE,
            text("a") + struct.pack("<i", 1) + text("b") + struct.pack("<i", -1),
            {"Name": "a", "Below": [{"Name": "b", "Below": None}]},
        ),
        (GRID, struct.pack("<3i6i", 2, 2, 3, 1, 2, 3, 4, 5, 6), {"Cells": [[1, 2, 3], [4, 5, 6]]}),
        (EITHER, struct.pack("<Ii", 1, 7), {"A": 7}),
        (EITHER, struct.pack("<I", 0), {}),
        (MAYBE, struct.pack("<I", 2) + text("b"), {"B": "b"}),
        (MAYBE, struct.pack("<I", 0), {}),
        (
            MIXED,
            b"\x06" + struct.pack("<i", 5) + encoded(EMPTY, b"") + struct.pack("<i", 2),
            {"Any": 5, "More": {}, "None": [{}, {}]},
        ),
        (
            MIXED,
            b"\x00" + bytes(nodeid_to_binary(ua.NodeId(99, 2))) + b"\x01" + text("?") + struct.pack("<i", 0),
            {"Any": None, "More": {"TypeId": "ns=2;i=99", "Body": "Pw=="}, "None": []},
        ),
    ],
)
def test_bodies(kind: Structure, body: bytes, expected: object) -> None:
    found = json_text(encoded(kind, body), ALL)
    assert isinstance(found, str)
    assert json.loads(found) == expected
    # One byte more or less does not fit, and is kept as it came.
    for wrong in (body + b"\0", body[:-1]):
        if len(wrong) != len(body) and (body or wrong):
            raw = encoded(kind, wrong)
            assert json_text(raw, ALL) == raw


def test_what_is_not_known_is_kept_as_it_came() -> None:
    raw = encoded(POINT, bytes(16))
    assert json_text(raw, {}) == raw
    assert AsJson(structures=ALL)([raw, 5, "text"]) == ['{"X":0.0,"Y":0.0}', 5, "text"]
    assert json_text(b"\0\0\0", ALL) is None


@given(st.sampled_from(list(ALL.values())), st.binary(max_size=200))
def test_whatever_comes_it_is_json_or_the_bytes(kind: Structure, body: bytes) -> None:
    raw = encoded(kind, body)
    found = json_text(raw, ALL)
    assert found == raw or isinstance(json.loads(str(found)), dict)


@given(st.binary(max_size=60))
def test_whatever_comes_instead_of_a_structure(raw: bytes) -> None:
    found = json_text(raw, ALL)
    assert found is None or found == raw or isinstance(found, str)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (LOOP, b""),
        (TREE, (text("") + struct.pack("<i", 1)) * 10_000),
        (MIXED, b"\x00" + encoded(EMPTY, b"") + struct.pack("<i", 2**31 - 1)),
        (GRID, struct.pack("<3i", 2, 2**31 - 1, 2**31 - 1)),
        (GRID, struct.pack("<3i", 2, 2**31 - 1, 0)),
    ],
)
def test_what_would_take_for_ever_ends(kind: Structure, body: bytes) -> None:
    raw = encoded(kind, body)
    began = time.process_time()
    found = json_text(raw, ALL)
    assert found == raw or found == '{"Cells":[]}'
    assert time.process_time() - began < 1


def test_a_broken_structure_leaves_its_neighbours_alone() -> None:
    """Its length is told: what comes after it is found, also where asyncua knows the type."""
    standard = bytes(nodeid_to_binary(ua.NodeId(ua.ObjectIds.Range_Encoding_DefaultBinary)))
    broken = standard + b"\x01" + struct.pack("<i", 3) + b"abc"
    one = b"\x01\x16" + broken
    data = one + b"\x01\x06" + struct.pack("<i", 7) + b"\x01\x96" + struct.pack("<i", 2) + broken * 2
    decoded = decode_at_once(data, 0, len(data), 3, keyed=False)
    assert not decoded.broken
    assert [reading.value for part in decoded.slices for _, reading in part] == [broken, 7, [broken, broken]]


def test_an_array_of_structures_is_read_as_far_as_it_is_quick() -> None:
    """What is beyond stays as it came; what is broken at once costs little."""
    raw = encoded(TREE, text("") + struct.pack("<i", 9_000) + (text("") + struct.pack("<i", -1)) * 9_000)
    found = AsJson(structures=ALL)([b"none"] * 1000 + [raw] * 20)
    assert found[:1000] == [b"none"] * 1000
    turned = [isinstance(each, str) for each in found[1000:]]
    assert turned == [True] * 5 + [False] * 15


def test_numbers_within_a_structure_are_weighed() -> None:
    count = 400_000
    raw = encoded(GRID, struct.pack("<3i", 2, 1, count) + bytes(4 * count))
    assert json_text(raw, ALL) == raw
    few = encoded(GRID, struct.pack("<3i", 2, 1, 1000) + bytes(4000))
    assert isinstance(json_text(few, ALL), str)
