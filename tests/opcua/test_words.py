"""What the YAML may say of a node, and how values are read; no server needed."""

import uuid
from datetime import UTC, datetime

import pytest
from asyncua import ua
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.model import Flag
from gateway.protocols import PROTOCOLS, load, opcua
from gateway.protocols.opcua.datatypes import text
from gateway.protocols.opcua.discovery import _element, unique_names
from gateway.protocols.opcua.faults import sentence
from gateway.protocols.opcua.greeting import with_port
from gateway.protocols.opcua.nodes import BadNode, node_id, path, spelled
from gateway.protocols.opcua.patterns import Pattern, is_pattern, plain, split
from gateway.protocols.opcua.values import overflowed, reading

NAMESPACES = ["http://opcfoundation.org/UA/", "urn:own", "urn:plc;v=1"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("i=2258", ua.NodeId(2258, 0)),
        ("ns=2;s=a;b=c", ua.NodeId("a;b=c", 2)),
        ("nsu=urn:own;i=70000", ua.NodeId(70000, 1)),
        ("nsu=urn:plc;v=1;s=Line1.Speed", ua.NodeId("Line1.Speed", 2)),
        (
            "ns=1;g=72962b91-fa75-4ae6-8d28-b404dc7daf63",
            ua.NodeId(uuid.UUID("72962b91-fa75-4ae6-8d28-b404dc7daf63"), 1),
        ),
        ("ns=1;b=AAH/", ua.NodeId(b"\0\1\xff", 1)),
    ],
)
def test_node_ids(spec: str, expected: ua.NodeId) -> None:
    found = node_id(spec, NAMESPACES)
    assert found == expected
    assert node_id(spelled(found, NAMESPACES), NAMESPACES) == expected


@given(st.text(min_size=1).filter(lambda text: text.strip() == text), st.integers(0, 2))
def test_every_spelled_node_id_is_read_back(name: str, index: int) -> None:
    node = ua.NodeId(name, index)
    assert node_id(spelled(node, NAMESPACES), NAMESPACES) == node


@pytest.mark.parametrize(
    "spec", ["nsu=urn:other;s=a", "ns=9;s=a", "i=x", "ns=1;g=no", "i=-1", "i=4294967296", "ns=1;b=ü"]
)
def test_bad_node_ids(spec: str) -> None:
    with pytest.raises(BadNode):
        node_id(spec, NAMESPACES)


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("Line1/2:Speed", [[(1, "Line1"), (2, "Line1"), (0, "Line1")], [(2, "Speed")]]),
        ("/Objects/1:a", [[(1, "a")]]),
        ("/1:Types", [[], [(1, "Types")]]),
        ("1:a&/b", [[(1, "a/b")]]),
        ("1:a&:b&&", [[(1, "a:b&")]]),
        ("1:a:b", [[(1, "a:b")]]),
        ("/Objects", []),
    ],
)
def test_paths(spec: str, names: list[list[tuple[int, str]]]) -> None:
    assert node_id(spec, NAMESPACES) is None
    assert [[(n.NamespaceIndex, n.Name) for n in step] for step in path(spec, NAMESPACES)] == names


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
@example("2:abc")
@example("..")
@example("a&:b")
def test_a_discovered_name_is_a_path(name: str) -> None:
    if name.strip() != name or not name:
        return
    steps = path(f"Line/{_element(name)}", NAMESPACES)
    assert len(steps) == 2
    assert {candidate.Name for candidate in steps[1]} == {name}


def test_an_empty_element_is_refused() -> None:
    with pytest.raises(BadNode, match="empty element"):
        path("a//b", NAMESPACES)


def test_names_are_unique_and_short() -> None:
    variables = [
        ("a/b", ua.NodeId("x", 1)),
        ("a/b", ua.NodeId("y", 2)),
        ("c", ua.NodeId("z", 1)),
        ("d" * 300, ua.NodeId("1", 1)),
        ("d" * 301, ua.NodeId("2", 1)),
    ]
    names = unique_names([(name, spelled(node, NAMESPACES)) for name, node in variables])
    assert names[:3] == ["a/b [nsu=urn:own;s=x]", "a/b [nsu=urn:plc;v=1;s=y]", "c"]
    assert len(set(names)) == 5
    assert max(map(len, names)) == 200


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("Line*/Temp", "Line1/Temp", True),
        ("Line*/Temp", "Line1/Zone/Temp", False),
        ("Line*/Temp", "Line/Temp", True),
        ("Line?/Temp", "Line/Temp", False),
        ("Line*", "Line1/Temp", False),
        ("**/Temp", "Temp", True),
        ("**/Temp", "Line1/Zone/Temp", True),
        ("Line1/**/Temp", "Line1/Temp", True),
        ("Line1/**", "Line1/Zone/Temp", True),
        ("Line1/**/T*/**/x", "Line1/Tank/a/b/x", True),
        ("Line1/**/T*/**/x", "Line1/a/b/x", False),
        ("a&*/*", "a*/b", True),
        ("a&*/*", "ab/b", False),
        ("a&?*", "a?b", True),
        ("2:*/b", "a/b", True),
        ("1:*/b", "a/b", False),
        ("[ab]*", "[ab]x", True),
        ("[ab]*", "ax", False),
        ("*&/b", "a&/b", True),
    ],
)
def test_wildcards(pattern: str, path: str, matches: bool) -> None:
    assert is_pattern(pattern)
    wanted = Pattern(pattern)
    places = wanted.start
    for element in split(path):
        places = wanted.step(places, plain(element), 2)
    assert wanted.complete(places) == matches


@pytest.mark.parametrize("path", ["Line1/Temp", "a&*b", "a&?", "2:Line", "/Objects/a", "a&&&*"])
def test_what_is_no_pattern(path: str) -> None:
    assert not is_pattern(path)


def test_a_name_without_a_slash_is_met_anywhere_where_that_is_asked_for() -> None:
    anywhere = Pattern("T*", anywhere=True)
    below = anywhere.step(anywhere.start, "Line1", 1)
    assert not anywhere.complete(below)
    assert anywhere.complete(anywhere.step(below, "Temp", 1))
    assert not Pattern("T*").step(Pattern("T*").start, "Line1", 1)


def value(variant: ua.Variant, **extra: object) -> ua.DataValue:
    return ua.DataValue(variant, **extra)


def test_times() -> None:
    moment = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    one = ua.Variant(1, ua.VariantType.Int32)
    assert reading(value(one, SourceTimestamp=moment, ServerTimestamp=moment))[1:] == (-1, 0, 0)
    assert reading(value(one, ServerTimestamp=moment))[1:] == (-1, 0, Flag.SERVER_TIME)
    never = datetime(1601, 1, 1, tzinfo=UTC)
    assert reading(value(one, SourceTimestamp=never, ServerTimestamp=never)).ts is None


def test_values_that_need_care() -> None:
    broken = reading(value(ua.Variant("a\udcff", ua.VariantType.String))).value
    assert broken == b"a\xff"
    mixed = ua.Variant(
        [ua.Variant(1, ua.VariantType.Byte), ua.Variant("a", ua.VariantType.String)], ua.VariantType.Variant
    )
    assert reading(value(mixed)).value == [1, "a"]
    assert reading(value(ua.Variant(None, ua.VariantType.String))).value is None
    assert reading(value(ua.Variant([], ua.VariantType.Int32))).value == []
    enumerated = reading(value(ua.Variant(ua.ServerState.Running, ua.VariantType.Int32))).value
    assert type(enumerated) is int


def test_overflow_is_told_by_its_bits() -> None:
    assert overflowed(0x00000480)
    assert overflowed(0x40000480)
    assert not overflowed(0)
    assert not overflowed(0x80340000)


@pytest.mark.parametrize(
    "url", ["http://plc", "plc:4840", "opc.tcp://", "opc.tcp://u:p@plc:4840", "opc.tcp://plc:0"]
)
def test_bad_addresses(url: str) -> None:
    check = opcua.Settings.__dataclass_fields__["url"].metadata["declared"].check
    with pytest.raises(ValueError, match=r"opc\.tcp|address|port"):
        check(url)


def test_an_address_without_a_port_means_4840() -> None:
    assert with_port("opc.tcp://plc-07/a") == "opc.tcp://plc-07:4840/a"
    assert with_port("opc.tcp://[::1]") == "opc.tcp://[::1]:4840"
    assert with_port("opc.tcp://plc:1/a") == "opc.tcp://plc:1/a"


def test_queue_size_holds_what_is_sampled_between_two_publishes() -> None:
    settings = opcua.Settings(url="opc.tcp://plc", publishing_interval_ms=500)
    assert opcua.queue_size(settings, 100) == 7
    assert opcua.queue_size(settings, 500) == 3
    assert opcua.queue_size(settings, 0) == 52


def test_every_protocol_of_the_list_is_there() -> None:
    for kind in PROTOCOLS:
        module = load(kind)
        assert module.Settings and module.TagSettings and module.run


def test_the_settings_do_not_import_asyncua() -> None:
    import subprocess
    import sys

    code = "import gateway.protocols.opcua, sys; sys.exit('asyncua' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_texts_of_a_server_that_knows_no_utf_8_can_be_read() -> None:
    """As asyncua decodes a Latin-1 degree sign; a server whose texts are UTF-8 keeps its own."""
    latin1 = b"\xb0C".decode("utf-8", "surrogateescape")
    assert text(ua.LocalizedText(latin1)) == "°C" == text(ua.LocalizedText("°C"))
    assert sentence(ValueError(f"node {latin1}")) == "node °C"
