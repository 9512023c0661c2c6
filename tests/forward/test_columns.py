"""The encoding "columns": the same bytes always, everything back bit for bit, and valid JSON."""

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Batch, Encoding, Gap, Sample, SeriesInfo, Unit, UploadProblem, Value
from gateway.uploaders import columns
from gateway.uploaders.encoders import encoder

SERIES = {n: SeriesInfo("press", f"t{n}", "mm" if n else "") for n in range(4)}
FLOATS = st.floats(allow_nan=True, allow_infinity=True) | st.binary(min_size=8, max_size=8).map(
    lambda raw: struct.unpack(">d", raw)[0]
)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # NUL and lone surrogates included
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | FLOATS | ANY_TEXT | st.binary(max_size=20)
)
VALUES = st.recursive(SCALARS, lambda items: st.lists(items, max_size=4), max_leaves=8)
SAMPLES = st.lists(
    st.builds(
        Sample,
        st.integers(0, 3),
        st.integers(-(2**63), 2**63 - 1),
        VALUES,
        st.sampled_from([0, 0, 0x80000000, 0x40000000]),
        st.sampled_from([0, 0, 1, 4]),
    ),
    max_size=30,
)


def unit(samples: list[Sample], gaps: tuple[Gap, ...] = ()) -> Unit:
    return Unit(
        "gw/e/u/1-2", "gw", "u", "live", 1, 2, Encoding("columns", 1), Batch.of(samples), SERIES, gaps
    )


def bits(value: Value) -> Any:
    """Return what two values must have in common to be the same bit for bit."""
    if isinstance(value, float):
        return struct.pack(">d", value)
    return [bits(item) for item in value] if isinstance(value, list) else (type(value), value)


@settings(deadline=None, max_examples=200)
@given(SAMPLES)
def test_what_goes_in_comes_out(samples: list[Sample]) -> None:
    made = unit(samples)
    body = columns.encode(made)
    json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    _, read = columns.decode(body)
    order = columns.order(made)
    assert sorted(order) == list(range(len(samples)))
    for place, got in zip(order, read, strict=True):
        sent = samples[place]
        assert (got.tag, got.ts, got.status, got.flags) == (f"t{sent.series}", *sent[1:2], *sent[3:])
        assert bits(got.value) == bits(sent.value)


@settings(deadline=None, max_examples=50)
@given(SAMPLES)
def test_the_bytes_are_always_the_same(samples: list[Sample]) -> None:
    assert columns.encode(unit(samples)) == columns.encode(unit(list(samples)))


def test_the_body_is_as_documented() -> None:
    samples = [
        Sample(1, 1000, 1.5),
        Sample(0, 2000, math.nan, 0x80000000),
        Sample(1, 1500, 2, 0, 4),
        Sample(0, 2010, "a\x00\ud800"),
    ]
    gap = Gap(5, 6, "broken", device="press", count=3)
    assert json.loads(columns.encode(unit(samples, (gap,)))) == {
        "encoding": "columns",
        "version": 1,
        "gateway": "gw",
        "upload": "u",
        "lane": "live",
        "key": "gw/e/u/1-2",
        "from_seq": 1,
        "to_seq": 2,
        "series": [
            {
                "device": "press",
                "tag": "t1",
                "unit": "mm",
                "t0": 1000,
                "dt": [500],
                "v": [1.5, 2],
                "f": [0, 4],
            },
            {
                "device": "press",
                "tag": "t0",
                "t0": 2000,
                "dt": [10],
                "v": [{"float": "NaN"}, {"wtf8": "YQDtoIA="}],
                "s": [0x80000000, 0],
            },
        ],
        "gaps": [{"device": "press", "upload": None, "from": 5, "to": 6, "count": 3, "reason": "broken"}],
    }


def test_the_body_of_version_1_never_changes() -> None:
    """A unit in flight over an upgrade goes out with the same bytes: these."""
    samples = [
        Sample(1, 1000, 0.1),
        Sample(1, 1500, -0.0),
        Sample(1, 1400, 2**64 - 1),
        Sample(1, 1401, b"\x01"),
    ]
    assert columns.encode(unit(samples)) == (
        b'{"encoding":"columns","version":1,"gateway":"gw","upload":"u","lane":"live","key":"gw/e/u/1-2",'
        b'"from_seq":1,"to_seq":2,"series":[{"device":"press","tag":"t1","unit":"mm","t0":1000,'
        b'"dt":[500,-100,1],"v":[0.1,-0.0,18446744073709551615,{"base64":"AQ=="}]}],"gaps":[]}'
    )


def test_a_unit_of_a_newer_version_is_a_problem_with_a_sentence() -> None:
    newer = Unit("k", "gw", "u", "live", 1, 2, Encoding("columns", 7), Batch(), SERIES)
    with pytest.raises(UploadProblem, match=r"the encoding columns version 7.*knows only columns 1.*install"):
        encoder(newer)
