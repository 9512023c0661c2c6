"""Our decoding beside asyncua's, for every built-in type; and what no decoder may be made to do."""

import math
import struct
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import nodeid_to_binary, struct_from_binary, struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocols.opcua import datavalues, selftest
from gateway.protocols.opcua import encoded as encoded_requests
from gateway.protocols.opcua import variants as variant_module
from gateway.protocols.opcua.bounded import bound_decoders
from gateway.protocols.opcua.browsing import description
from gateway.protocols.opcua.datavalues import decode_at_once
from gateway.protocols.opcua.extents import data_value_end
from gateway.protocols.opcua.values import Reading, reading
from gateway.store.values import MAX_VALUE_BYTES, value_bytes

bound_decoders()

_INTEGERS = {
    "SByte": (-(2**7), 2**7 - 1), "Byte": (0, 2**8 - 1), "Int16": (-(2**15), 2**15 - 1),
    "UInt16": (0, 2**16 - 1), "Int32": (-(2**31), 2**31 - 1), "UInt32": (0, 2**32 - 1),
    "Int64": (-(2**63), 2**63 - 1), "UInt64": (0, 2**64 - 1),
}  # fmt: skip
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_FILETIMES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 40),
    st.integers(133_000_000_000_000_000, 134_000_000_000_000_000),
    st.integers(datavalues._END_OF_TIME - 20, datavalues._END_OF_TIME + 20),
)
_NODES = st.one_of(
    st.builds(ua.NodeId, st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1)),
    st.builds(ua.NodeId, _TEXT, st.integers(0, 9)),
    st.builds(ua.NodeId, st.uuids(), st.integers(0, 9)),
    st.builds(ua.NodeId, st.binary(max_size=9), st.integers(0, 9)),
)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "Boolean": st.booleans(),
    **{name: st.integers(*bounds) for name, bounds in _INTEGERS.items()},
    "Float": st.floats(width=32),
    "Double": st.floats(),
    "String": st.one_of(
        st.none(), _TEXT, st.binary(max_size=9).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
    ),
    "DateTime": st.datetimes(timezones=st.just(UTC)),
    "Guid": st.uuids(),
    "ByteString": st.one_of(st.none(), st.binary(max_size=9)),
    "XmlElement": st.builds(ua.XmlElement, st.one_of(st.none(), _TEXT)),
    "NodeId": _NODES,
    "ExpandedNodeId": st.one_of(_NODES, st.builds(
        lambda node, uri, server: ua.ExpandedNodeId(
            node.Identifier, node.NamespaceIndex, node.NodeIdType, uri, server
        ),
        _NODES, st.one_of(st.none(), _TEXT), st.one_of(st.none(), st.integers(0, 2**32 - 1)),
    )),
    "StatusCode": st.builds(ua.StatusCode, st.integers(0, 2**32 - 1)),
    "QualifiedName": st.builds(ua.QualifiedName, _TEXT, st.integers(0, 2**15 - 1)),
    "LocalizedText": st.builds(ua.LocalizedText, st.one_of(st.none(), _TEXT), st.one_of(st.none(), _TEXT)),
    "ExtensionObject": st.one_of(
        st.builds(lambda low, high: ua.Range(low, high), st.floats(), st.floats()),
        st.builds(
            ua.ExtensionObject,
            # asyncua takes an identifier of 0 for none in every namespace.
            _NODES.filter(lambda node: node.NamespaceIndex > 0 and node.Identifier != 0),
            st.binary(max_size=9),
        ),
    ),
    "DataValue": st.builds(
        lambda value: ua.DataValue(ua.Variant(value, ua.VariantType.Int32)), st.integers(0, 9)
    ),
    "DiagnosticInfo": st.builds(
        ua.DiagnosticInfo, SymbolicId=st.one_of(st.none(), st.integers(0, 99)), AdditionalInfo=_TEXT
    ),
}  # fmt: skip


@st.composite
def variants(draw: st.DrawFn, kinds: Sequence[str] = tuple(SCALARS)) -> ua.Variant:
    name = draw(st.sampled_from(kinds))
    kind, one = ua.VariantType[name], SCALARS[name]
    form = draw(st.sampled_from(("scalar", "scalar", "array", "none", "matrix")))
    if form == "scalar":
        value = draw(one)
        if value is not None or name in ("String", "ByteString"):
            return ua.Variant(value, kind)
    if form == "none":
        return ua.Variant(None, kind, is_array=True)
    if form == "matrix":
        rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        flat = draw(st.lists(one, min_size=rows * columns, max_size=rows * columns))
        return ua.Variant(flat, kind, Dimensions=[rows, columns], is_array=True)
    return ua.Variant(draw(st.lists(one, max_size=5)), kind, is_array=True)


@st.composite
def encoded(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Return a DataValue as the standard lays it down, and as asyncua does: with picoseconds they differ."""
    mask, fields = 0, {}
    if draw(st.booleans()) or draw(st.booleans()):
        mask |= 1
        nested = draw(st.integers(0, 9)) == 0
        variant = (
            ua.Variant(draw(st.lists(variants(), max_size=3)), ua.VariantType.Variant, is_array=True)
            if nested
            else draw(variants())
        )
        fields[1] = ua.ua_binary.variant_to_binary(variant)
    for bit, code, values in (
        (2, "<I", st.sampled_from((0, 0x80310000, 0x40000480, 2**32 - 1))),
        (4, "<q", _FILETIMES), (8, "<q", _FILETIMES),
        (16, "<H", st.integers(0, 2**16 - 1)), (32, "<H", st.integers(0, 2**16 - 1)),
    ):  # fmt: skip
        if draw(st.booleans()):
            mask |= bit
            fields[bit] = struct.pack(code, draw(values))
    lead = bytes([mask])
    return tuple(
        lead + b"".join(fields.get(bit, b"") for bit in order)
        for order in ((1, 2, 4, 16, 8, 32), (1, 2, 4, 8, 16, 32))
    )  # type: ignore[return-value]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if type(one) is not type(other):
        return False
    return struct.pack("<d", one) == struct.pack("<d", other) if isinstance(one, float) else one == other


def theirs(raw: bytes) -> Reading:
    found = reading(struct_from_binary(ua.DataValue, Buffer(raw)))
    return found._replace(flags=int(found.flags))


def of(decoded: datavalues.Decoded) -> list[tuple[int, Reading]]:
    """Return what was decoded, one by one; the flags as plain integers."""
    return [(key, one._replace(flags=int(one.flags))) for columns in decoded.slices for key, one in columns]


@settings(deadline=None, max_examples=150)
@given(st.lists(encoded(), min_size=1, max_size=8), st.booleans(), st.integers(1, 3))
def test_values_are_those_that_asyncua_decodes(
    pairs: list[tuple[bytes, bytes]], keyed: bool, repeat: int
) -> None:
    wanted, parts, keys = [], [], []
    for place, (ours, asyncua) in enumerate(pair for pair in pairs for _ in range(repeat)):
        keys.append(place * 7 if keyed else place)
        parts.append((struct.pack("<I", keys[-1]) if keyed else b"") + ours)
        wanted.append(theirs(asyncua))
    data = b"before" + b"".join(parts) + b"after"
    decoded = decode_at_once(data, 6, len(data) - 5, len(parts), keyed=keyed)
    assert not decoded.broken
    got = of(decoded)
    assert [key for key, _ in got] == keys
    for (_, one), other in zip(got, wanted, strict=True):
        assert same(tuple(one), tuple(other)), (one, other)


@settings(deadline=None, max_examples=150)
@given(encoded(), st.binary(max_size=9))
def test_the_end_of_a_value_is_found_by_its_lengths(pair: tuple[bytes, bytes], after: bytes) -> None:
    raw = pair[0]
    data = b"before" + raw + after
    assert data_value_end(data, 6, len(data)) == 6 + len(raw)
    with pytest.raises(ValueError, match=r"ends too early"):
        data_value_end(data, 6, 5 + len(raw))


@pytest.mark.parametrize("name", SCALARS)
def test_every_type_takes_part(name: str) -> None:
    """A long run of one type: the cached structs, or asyncua's own decoding for each value."""
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    raw = []

    @settings(max_examples=1, deadline=None, database=None)
    @given(st.lists(SCALARS[name].filter(lambda value: value is not None), min_size=3, max_size=3))
    def gather(values: list[Any]) -> None:
        values = [*_INTEGERS.get(name, values[:2]), values[2]]
        raw[:] = [
            struct_to_binary(
                ua.DataValue(
                    ua.Variant(values[n % 3], ua.VariantType[name]),
                    SourceTimestamp=moment + timedelta(microseconds=n),
                    ServerTimestamp=moment,
                )
            )
            for n in range(151)
        ]

    gather()
    data = b"".join(raw)
    decoded = decode_at_once(data, 0, len(data), len(raw), keyed=False)
    got = of(decoded)
    assert len(got) == 151
    assert all(same(tuple(one), tuple(theirs(other))) for (_, one), other in zip(got, raw, strict=True))


def forget() -> None:
    for cached in (datavalues._fixed, datavalues._mask, variant_module._element):
        cached.cache_clear()


def test_the_mutant_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(variant_module.FIXED, 5, "h")
    forget()
    with pytest.raises(AssertionError):
        test_every_type_takes_part("UInt16")
    with pytest.raises(ValueError, match="not decoded as asyncua"):
        selftest._decoding()
    monkeypatch.undo()
    forget()


def test_what_a_mad_server_has_kept_is_bounded() -> None:
    """Each byte as encoding mask and as type once made 32,768 entries, 15 MB."""
    forget()
    for mask in range(256):
        for kind in range(256):
            for keyed in (False, True):
                data = bytes(4 * keyed) + bytes((mask, kind)) + bytes(62)
                decode_at_once(data, 0, len(data), 1, keyed=keyed)
    assert datavalues._fixed.cache_info().currsize <= 2 * (32 * len(variant_module.FIXED) + 32)


def test_picoseconds_as_the_standard_says() -> None:
    one = struct.pack("<BBdqHqH", 1 | 4 | 8 | 16 | 32, 11, 0.5, 133_000_000_000_000_000, 9999, 7, 8888)
    unknown = struct.pack("<BBdqHqH", 1 | 4 | 8 | 16 | 32, 11, 0.5, 0, 9999, 133_000_000_000_000_000, 8888)
    data = (one + unknown) * 3
    decoded = decode_at_once(data, 0, len(data), 6, keyed=False)
    us = 133_000_000_000_000_000 // 10 - 11_644_473_600_000_000
    assert [tuple(one) for _, one in of(decoded)] == [
        (0.5, us, 0, 0),
        (0.5, us, 0, 1),
    ] * 3


def value(variant: bytes) -> bytes:
    return struct.pack("<IB", 1, 1) + variant


HOSTILE = {
    "Nulls without end": b"\x80" + struct.pack("<i", 2**31 - 1),
    "Nulls without end in a Variant": b"\x98" + struct.pack("<i", 1) + b"\x80" + struct.pack("<i", 2**31 - 1),
    "texts that go back": b"\x8c" + struct.pack("<ii", 2**31 - 1, -4),
    "names that go back": b"\x94" + struct.pack("<iHi", 2**31 - 1, 0, -6),
    "a text larger than all": b"\x0c" + struct.pack("<i", 2**31 - 1),
    "an array larger than all": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "an array that multiplied is small": b"\x8b" + struct.pack("<i", 2**29),
    "a matrix larger than its array": b"\xc6" + struct.pack("<iiii", 1, 0, 1, 1_000_000),
    "Variants in Variants": b"\x18" * 50_000,
    "a matrix of many dimensions": b"\xc6" + struct.pack("<iii", 1, 0, 5000) + struct.pack("<i", 1) * 5000,
    "a type that is none": b"\x3f" + struct.pack("<i", -7),
    "many small Variants": b"\x98" + struct.pack("<i", 500_000) + bytes(500_001),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_values_end_soon(name: str) -> None:
    data = value(HOSTILE[name]) + bytes(100)
    began = time.process_time()
    decoded = await datavalues.decode(data, 0, len(data), 1, keyed=True)
    assert time.process_time() - began < 6
    assert [broken[:2] for broken in decoded.broken] == [(1, 1)]
    assert not any(len(columns) for columns in decoded.slices)


async def test_a_large_value_is_decoded_on_a_thread() -> None:
    texts = [ua.LocalizedText(f"text {n}", "en") for n in range(3000)]
    raw = struct_to_binary(ua.DataValue(ua.Variant(texts, ua.VariantType.LocalizedText)))
    one = struct_to_binary(ua.DataValue(ua.Variant(1, ua.VariantType.Int16)))
    data = one + raw + one
    decoded = await datavalues.decode(data, 0, len(data), 3, keyed=False)
    assert not decoded.broken
    got = [one.value for _, one in of(decoded)]
    assert got == [1, [f"text {n}" for n in range(3000)], 1]


def test_nan_and_minus_zero_bit_for_bit() -> None:
    odd = struct.pack("<Q", 0x7FF8_0000_0000_1234)
    data = b"".join(struct.pack("<BB", 1, 11) + raw for raw in (odd, struct.pack("<d", -0.0)))
    decoded = decode_at_once(data, 0, len(data), 2, keyed=False)
    nan, zero = decoded.slices[0].values
    assert struct.pack("<d", nan) == odd and math.copysign(1, zero) == -1


def test_requests_are_encoded_as_asyncua_does() -> None:
    nodes = [
        ua.NodeId(1),
        ua.NodeId("a", 3),
        ua.NodeId(70_000, 2),
        ua.NodeId(b"1", 1),
        ua.NodeId(UUID(int=5), 1),
    ]
    reading_both = ua.ReadParameters(TimestampsToReturn=ua.TimestampsToReturn.Both)
    reading_both.NodesToRead = [ua.ReadValueId(NodeId=node, AttributeId=13) for node in nodes]
    assert encoded_requests.read_request(nodes, 13).parameters == struct_to_binary(reading_both)
    browse = ua.BrowseParameters(RequestedMaxReferencesPerNode=1000)
    browse.View.Timestamp = datetime(1601, 1, 1, tzinfo=UTC)
    browse.NodesToBrowse = [description(node) for node in nodes]
    for one in browse.NodesToBrowse:
        one.ResultMask = ua.BrowseResultMask.NodeClass | ua.BrowseResultMask.BrowseName
    assert encoded_requests.browse_request(nodes, 1000).parameters == struct_to_binary(browse)
    publish = ua.PublishParameters(
        [ua.SubscriptionAcknowledgement(5, 6), ua.SubscriptionAcknowledgement(5, 7)]
    )
    assert encoded_requests.publish_request([(5, 6), (5, 7)]).parameters == struct_to_binary(publish)


def test_the_header_of_a_request_is_as_asyncua_encodes_it() -> None:
    token = ua.NodeId("token", 1)
    request = encoded_requests.publish_request([]).with_header(nodeid_to_binary(token), 77, 1.5)
    decoded = struct_from_binary(ua.PublishRequest, Buffer(request))
    header = decoded.RequestHeader
    assert (header.AuthenticationToken, header.RequestHandle, header.TimeoutHint) == (token, 77, 1500)
    assert abs((datetime.now(UTC) - header.Timestamp).total_seconds()) < 60
    again = struct_to_binary(decoded)  # asyncua cuts the time to microseconds
    time_at = 4 + len(nodeid_to_binary(token))
    assert again[:time_at] == request[:time_at] and again[time_at + 8 :] == request[time_at + 8 :]


def doubles(count: int) -> bytes:
    return b"".join(struct.pack("<IBBd", 1000 + place, 1, 11, place) for place in range(count))


ONE_A_TEXT = struct.pack("<i", 1) + b"a"
LARGE_MATRIX = b"\xc6" + struct.pack("<5i", 1, 0, 2, 1000, 1000)
TOO_MUCH = {
    "texts": b"\x8c" + struct.pack("<i", 26_000) + ONE_A_TEXT * 26_000,
    "texts within Variants": b"\x98" + struct.pack("<i", 26_000) + (b"\x0c" + ONE_A_TEXT) * 26_000,
    "names as a matrix": b"\xd4" + struct.pack("<i", 26_000) + (b"\0\0" + ONE_A_TEXT) * 26_000
    + struct.pack("<iii", 2, 2, 13_000),
    "numbers": b"\x84" + struct.pack("<i", 400_001) + bytes(800_002),
    "a matrix larger than its array": LARGE_MATRIX,
}  # fmt: skip


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("name", TOO_MUCH)
async def test_what_is_not_decoded_leaves_its_neighbours_alone(name: str, keyed: bool) -> None:
    good, bad = doubles(1)[4:], b"\x01" + TOO_MUCH[name]
    parts = [good] * 20 + [bad] + [good] * 20 + [bad, good]
    data = b"".join(struct.pack("<I", 7 * place) * keyed + part for place, part in enumerate(parts))
    decoded = await datavalues.decode(data, 0, len(data), len(parts), keyed=keyed)
    step = 7 if keyed else 1
    assert [key for key, _ in of(decoded)] == [step * place for place in range(43) if place not in (20, 41)]
    assert [broken[:2] for broken in decoded.broken] == [(20 * step, 1), (41 * step, 1)]
    for columns in decoded.slices:  # what was passed over lies between two of them
        assert columns.keys == [*range(columns.keys[0], columns.keys[-1] + 1, step)]


async def test_where_the_end_is_not_told_the_rest_is_lost() -> None:
    """Beside one that asyncua refuses, a structure of old servers: its length is -1, and it has a body."""
    range_of_two_bytes = b"\x01\x00" + struct.pack("<h", 886) + b"\x01" + struct.pack("<i", 2) + b"ab"
    endless = b"\x01\x00" + struct.pack("<h", 886) + b"\x01" + struct.pack("<i", -1) + bytes(16)
    broken = value(b"\x98" + struct.pack("<i", 2) + b"\x16" + range_of_two_bytes + b"\x16" + endless)
    data = doubles(5) + broken + doubles(5)
    decoded = await datavalues.decode(data, 0, len(data), 11, keyed=True)
    assert [one.value for _, one in of(decoded)] == [*range(5)]
    assert [broken[:2] for broken in decoded.broken] == [(1, 6)]


async def test_a_message_is_passed_over_only_so_often() -> None:
    data = value(LARGE_MATRIX) * 300
    decoded = await datavalues.decode(data, 0, len(data), 300, keyed=True)
    assert sum(broken.lost for broken in decoded.broken) == 300
    assert len(decoded.broken) == 101


@pytest.mark.parametrize(("code", "size", "fits"), [(4, 2, False), (11, 8, True)])
async def test_the_arrays_of_a_message_take_bounded_memory_and_time(code: int, size: int, fits: bool) -> None:
    """16 MiB of small integers would be 300 MB of Python's; of doubles all are taken."""
    count = 200_000 // size * 2
    each = value(bytes([0x80 | code]) + struct.pack("<i", count) + b"\x7f\x3e" * (count * size // 2))
    many = 2**24 // len(each) - 1
    data = each * many + doubles(20)
    decoded = await datavalues.decode(data, 0, len(data), many + 20, keyed=True)
    numbers = [len(one.value) for _, one in of(decoded) if isinstance(one.value, list)]
    assert (sum(numbers) == many * count) is fits
    assert sum(numbers) * 36 <= 80 * 2**20
    assert sum(numbers) * 36 + len(decoded.broken) * count * 36 >= 80 * 2**20 or fits
    assert [one.value for _, one in of(decoded) if isinstance(one.value, float)] == [*range(20)]
    of_a_slice = [
        sum(len(value) for value in columns.values if isinstance(value, list)) for columns in decoded.slices
    ]
    assert max(of_a_slice) < 64_000 + count


def test_what_the_store_refuses_is_not_decoded() -> None:
    """Of one value; so its gap names the tag and is told once a minute."""
    most = variant_module._MOST_ELEMENTS
    assert value_bytes([0.5] * most) <= MAX_VALUE_BYTES
    assert value_bytes([0.5] * most) > 0.9 * MAX_VALUE_BYTES


async def test_structures_come_in_small_slices() -> None:
    """Each slice becomes JSON in one go."""
    one = value(b"\x16" + bytes((1, 2, 5, 0, 1)) + struct.pack("<i", 76_000) + bytes(76_000))
    data = one * 100
    decoded = await datavalues.decode(data, 0, len(data), 100, keyed=True)
    assert sum(map(len, decoded.slices)) == 100
    assert max(map(len, decoded.slices)) <= 3
