"""InfluxDB line protocol: what it says, what it must not say, and that nothing of a wrong body is stored."""

import gzip
import re
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.line_protocol import WrongLine, samples
from gateway.controls.devices import PushedSample
from gateway.model import Flag
from tests.api.plant import Plant

SAMPLES = "/v1/devices/box/samples"
OWN = (77, int(Flag.OWN_TIME))


def read(text: str, precision: str = "us") -> list[tuple[str, Any, int | None]]:
    return [(each.tag, each.value, each.ts) for each in samples(text, precision, OWN)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("m f=1 5", [("m/f", 1.0, 5)]),
        ("m f=1i,g=2u,h=-3i 5", [("m/f", 1, 5), ("m/g", 2, 5), ("m/h", -3, 5)]),
        ("m f=1e3,g=-.5,h=2. -5", [("m/f", 1000.0, -5), ("m/g", -0.5, -5), ("m/h", 2.0, -5)]),
        ("m f=t,g=FALSE,h=True", [("m/f", True, 77), ("m/g", False, 77), ("m/h", True, 77)]),
        ('m f="a, b=\\"c\\" \\\\ \\n" 1', [("m/f", 'a, b="c" \\ \\n', 1)]),
        ('m f="two\nlines" 1\nn f=1 2', [("m/f", "two\nlines", 1), ("n/f", 1.0, 2)]),
        ('m f="" 1', [("m/f", "", 1)]),
        ("m,b=2,a=1 f=1 5", [("m/a=1/b=2/f", 1.0, 5)]),
        ("my\\ m\\,x,t\\ a\\=g=v\\,1 my\\ f=1 5", [("my m,x/t a=g=v,1/my f", 1.0, 5)]),
        ("C:\\temp f\\g=1 5", [("C:\\temp/f\\g", 1.0, 5)]),
        ("m=x f=1 5", [("m=x/f", 1.0, 5)]),
        ("# comment\n\n  \r\nm f=1   5  \r\n#x\nm f=2\r\n", [("m/f", 1.0, 5), ("m/f", 2.0, 77)]),
        ("température,où=là °C=1.5 5", [("température/où=là/°C", 1.5, 5)]),
        (f"m f={2**64 - 1}u,g={-(2**63)}i 1", [("m/f", 2**64 - 1, 1), ("m/g", -(2**63), 1)]),
        ("", []),
        ("#", []),
    ],
)
def test_what_a_line_says(line: str, expected: list[Any]) -> None:
    found = read(line)
    assert found == expected
    assert [type(value) for _, value, _ in found] == [type(value) for _, value, _ in expected]


def test_a_sample_without_a_timestamp_is_of_the_gateways_time() -> None:
    given_, own = samples("m f=1 5\nm f=1", "us", OWN)
    assert (given_.flags, own.flags) == (0, Flag.OWN_TIME)


@pytest.mark.parametrize(
    ("precision", "ts"),
    [
        ("ns", 1_000_000),
        ("n", 1_000_000),
        ("us", 1_000_000_001),
        ("u", 1_000_000_001),
        ("ms", 1_000_000_001_000),
        ("s", 1_000_000_001_000_000),
    ],
)
def test_precision(precision: str, ts: int) -> None:
    assert read("m f=1 1000000001", precision) == [("m/f", 1.0, ts)]
    if precision in ("ns", "n"):
        assert read("m f=1 -1", precision) == [("m/f", 1.0, -1)], "rounded down, also before 1970"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("m", "line 1 has no field"),
        ("m f", "line 1 has no = after the field 'f'"),
        ("m f= 1", "line 1 has no value after ="),
        ("m =1", "line 1 has no field"),
        (",t=1 f=1", "line 1 has no measurement"),
        ("m,t= f=1", "line 1 has no value of the tag 't'"),
        ("m,t f=1", "line 1 has no = after the tag 't'"),
        ("m, f=1", "line 1 has no tag"),
        ("m f=1,", "line 1 has no field"),
        ("m f=abc", "line 1 has a value that is none: 'abc'; a text stands in quotes"),
        ("m f=1.5i", "line 1 has a value that is none"),
        ("m f=NaN", "line 1 has a value that is none"),
        ("m f=1e999", "line 1 has a value that is none"),
        ("m f=-1u", "line 1 has an integer beyond 64 bits"),
        (f"m f={2**63}i", "line 1 has an integer beyond 64 bits"),
        ('m f="open', "line 1 has a value that is none"),
        ('m f="a"b 1', "line 1 goes on where it should end: 'b 1'"),
        ("m f=1 1x", "line 1 goes on where it should end: 'x'"),
        ("m f=1 1 2", "line 1 goes on where it should end: '2'"),
        ("m f=1 99999999999999999999999", "line 1 has a timestamp more than 140 000 years from 1970"),
        (f"m f=1 {2**62}\nm f=1 {2**62 + 1}", "line 2 has a timestamp more than 140 000 years from 1970"),
        (f"m f=1 {-(2**62) - 1}", "line 1 has a timestamp more than 140 000 years from 1970"),
        ("#c\nm f=1\n\nm f=x", "line 4 has a value"),
        ('m f="a\nb"\nm f=x', "line 3 has a value"),
        ("m f=\u0661", "line 1 has a value that is none"),
    ],
)
def test_what_is_no_line(text: str, problem: str) -> None:
    with pytest.raises(WrongLine, match="^" + re.escape(problem)):
        read(text)


def test_a_text_that_the_store_would_not_keep() -> None:
    assert len(read('m f="' + "é" * 4_300_000 + '"')) == 1
    with pytest.raises(WrongLine, match="line 1 cannot be stored: its value of 17200"):
        read('m f="' + "é" * 4_300_000 + '\U0001f600"')


NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\\#"), min_size=1)
FINITE = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)


def escaped(name: str, characters: str) -> str:
    return re.sub(f"([{characters}])", r"\\\1", name)


def written(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, bool):
        return "t" if value else "f"
    return f"{value}i" if isinstance(value, int) else repr(value)


@given(
    NAMES,
    st.dictionaries(NAMES, NAMES, max_size=3),
    st.dictionaries(NAMES, FINITE | st.text(st.characters(exclude_categories=("Cs",))), min_size=1),
    st.integers(-(2**50), 2**50),
)
def test_whatever_is_written_is_read(
    name: str, tags: dict[str, str], fields: dict[str, Any], ts: int
) -> None:
    head = ",".join(
        [escaped(name, ", "), *(f"{escaped(key, ', =')}={escaped(tags[key], ', =')}" for key in tags)]
    )
    body = ",".join(f"{escaped(key, ', =')}={written(value)}" for key, value in fields.items())
    series = "/".join([name, *sorted(f"{key}={tags[key]}" for key in tags)])
    assert read(f"{head} {body} {ts}") == [(f"{series}/{key}", value, ts) for key, value in fields.items()]


@given(st.text(st.sampled_from('m,f=1 "\\\n#ti5é\r')))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        assert all(isinstance(each, PushedSample) for each in samples(text, "ns", OWN))
    except WrongLine as error:
        assert 1 <= error.line <= text.count("\n") + 1


async def post(
    client: aiohttp.ClientSession, body: bytes, query: str = "", **headers: str
) -> tuple[int, Any]:
    headers = {"Content-Type": "text/plain; charset=utf-8"} | headers
    async with client.post(SAMPLES + query, data=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_it_is_stored_and_sent_again_it_is_the_same(
    admin: aiohttp.ClientSession, gateway: Plant
) -> None:
    body = b"weather,city=here temp=12.5,wet=t 1763690000123456789\nweather,city=here temp=13\n"
    status, said = await post(admin, body)
    assert (status, said["added"]) == (200, 3)
    status, said = await post(
        admin, gzip.compress(body[:54]), "?precision=ns", **{"Content-Encoding": "gzip"}
    )
    assert (status, said) == (200, {"added": 0, "same": 2, "moved": 0})
    async with admin.get(SAMPLES, params={"tags": "weather/city=here/temp"}) as answer:
        rows = (await answer.json())["samples"]
    assert rows[0] == {"tag": "weather/city=here/temp", "ts": 1763690000123456, "value": 12.5, "status": 0}
    assert "own_time" in rows[1]["flags"]


@pytest.mark.parametrize(
    ("body", "query", "status", "sentence"),
    [
        (b"m f=1 1\nm f= 2", "", 400, "Nothing was stored; line 2 has no value"),
        (b"m f=\xff 1", "", 400, "The body is not UTF-8 at byte 4."),
        (b"m f=1 1", "?precision=h", 422, "A parameter is wrong"),
        (b"m f=1 1", "?db=x", 422, "A parameter is wrong"),
        (b"m" * 300 + b" f=1 1", "", 422, "Nothing was stored; a tag name has 1 to 200 characters"),
        (b'm f="a",\x00=1 1', "", 422, "control character"),
    ],
)
async def test_nothing_of_a_wrong_body_is_stored(
    admin: aiohttp.ClientSession, gateway: Plant, body: bytes, query: str, status: int, sentence: str
) -> None:
    found, said = await post(admin, b"m good=1 1\n" + body if status == 422 else body, query)
    assert found == status and sentence in said["error"]["message"]
    assert not gateway.devices["box"].tags


async def test_precision_is_of_lines_alone(admin: aiohttp.ClientSession) -> None:
    async with admin.post(SAMPLES + "?precision=ms", json=[]) as answer:
        assert answer.status == 422
        assert (await answer.json())["error"]["details"][0]["field"] == "precision"
