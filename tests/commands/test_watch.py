"""`edge-gateway tail` and `edge-gateway plot` against a running gateway, here and from elsewhere."""

import asyncio
import contextlib
import json
import os
import re
import signal
import ssl
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.commands import charts
from gateway.commands.charts import Column, Curve
from tests.commands.conftest import Said
from tests.e2e.gateway_process import GatewayProcess, gateway
from tests.timeseries.bench import ROBIN, SERIES, USERS, write_users

pytestmark = [pytest.mark.timeout(90), pytest.mark.slow]
Port = Callable[[], int]
YAML = """\
http:
  listen: 127.0.0.1:{port}
  compat: {{timeseries: {{listen: "127.0.0.1:{contract}", tls: off, users: users.json}}}}
store: {{commit_interval: 50ms}}
devices:
  box: {{push: , tags: {{speed: rpm, state: , bad: }}}}
"""


@dataclass
class Here:
    """A gateway with TLS of its own, and a client that pushes to it."""

    running: GatewayProcess
    client: aiohttp.ClientSession
    contract: str

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.running.port}"

    @property
    def token(self) -> str:
        return (self.running.state / "admin-token").read_text().strip()

    async def push(self, **values: Any) -> None:
        rows = [{"tag": tag, "value": value} for tag, value in values.items()]
        await self.rows(rows)

    async def rows(self, rows: list[dict[str, Any]]) -> None:
        headers = {"Authorization": f"Bearer {self.token}"}
        path = f"{self.url}/v1/devices/box/samples"
        async with self.client.post(path, json=rows, headers=headers) as answer:
            assert answer.status == 200, await answer.text()

    async def streams(self) -> int:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.client.get(f"{self.url}/v1/state", headers=headers) as answer:
            return int((await answer.json())["streams"])

    async def points(self, *fields: dict[str, Any]) -> int:
        async with self.client.put(self.contract + "/series/new", json=SERIES) as answer:
            series: int = await answer.json()
        for each in fields:
            body = {"token": ROBIN, "series_id": series, "fields": each}
            async with self.client.put(self.contract + "/point/new", json=body) as answer:
                assert answer.status == 201, await answer.text()
        return series


@pytest.fixture
async def here(tmp_path: Path, free_port: Port) -> AsyncIterator[Here]:
    folder, contract = tmp_path / "g", free_port()
    folder.mkdir()
    write_users(folder / "users.json", json.dumps(USERS))
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    connector = aiohttp.TCPConnector(ssl=unverified)
    async with gateway(folder, free_port()) as running, aiohttp.ClientSession(connector=connector) as client:
        running.file.write_text(YAML.format(port=running.port, contract=contract))
        await running.start()
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with client.get(f"http://127.0.0.1:{contract}/series"):
                        break
                await asyncio.sleep(0.05)
        yield Here(running, client, f"http://127.0.0.1:{contract}")
        assert await running.stop() == 0


@contextlib.asynccontextmanager
async def started(*arguments: object, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUTF8": "1", "COLUMNS": "80", **environ},
        # What a shell starts in the background is not interrupted, and neither is what that starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def said(*arguments: object, **environ: str) -> Said:
    async with started(*arguments, **environ) as process:
        out, err = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode is not None
        return Said(process.returncode, out.decode(), err.decode())


async def until(process: asyncio.subprocess.Process, pattern: str) -> str:
    """Read lines until one fits."""
    assert process.stdout is not None and process.stderr is not None
    async with asyncio.timeout(20):
        while line := (await process.stdout.readline()).decode():
            if re.search(pattern, line):
                return line
    raise AssertionError(f"it ended without {pattern}: {(await process.stderr.read()).decode()}")


async def test_tail_of_the_gateway_here_goes_on_after_a_restart(here: Here) -> None:
    await here.push(speed=1.5, state="on")
    async with started("tail", "--state", here.running.state) as process:
        line = await until(process, "speed")
        when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}"
        assert re.fullmatch(when + r"  box  speed  1\.5 rpm  \[own_time\](  \[unsynced\])?\n", line)
        await until(process, r'state  "on"')
        await here.push(speed=2.5)
        await until(process, "speed  2.5 rpm")
        await here.rows([{"tag": "bad", "ts": 5, "value": "\x1b[2J\x9b", "status": 0x80000000}])
        line = await until(process, "bad")
        assert "[status 0x80000000]" in line and "\x1b" not in line and "\x9b" not in line
        here.running.file.write_text(here.running.file.read_text().replace("rpm", "1/min"))
        assert (await said("reload", "--state", here.running.state)).code == 0
        await here.push(speed=3.25)
        await until(process, "speed  3.25 1/min")
        await here.running.kill()
        await here.running.start()
        assert process.stderr is not None
        assert b"trying again" in await asyncio.wait_for(process.stderr.readline(), 10)
        async with asyncio.timeout(20):
            while not await here.streams():
                await asyncio.sleep(0.1)
        await here.push(speed=3.5)
        line = await until(process, "speed")
        assert "speed  3.5 1/min" in line, "what was shown before is not shown again"
        process.send_signal(2)
        assert await asyncio.wait_for(process.wait(), 10) == 130


async def test_tail_of_some_as_json_into_a_pipe_that_is_closed(here: Here) -> None:
    await here.push(speed=1.5, state="on")
    line = f"{sys.executable} -m gateway tail box --tag speed --json --state {here.running.state} | head -1"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-o", "pipefail", "-c", line),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    talking = asyncio.ensure_future(process.communicate())
    async with asyncio.timeout(30):
        while not talking.done():
            await here.push(speed=1.5)
            await asyncio.sleep(0.2)
    out, err = await talking
    assert (process.returncode, err) == (141, b"")
    sample = json.loads(out)
    assert (sample["device"], sample["tag"], sample["value"], sample["unit"]) == ("box", "speed", 1.5, "rpm")


async def test_from_elsewhere_by_fingerprint_and_token(here: Here, tmp_path: Path) -> None:
    await here.push(speed=1.5)
    token, state = tmp_path / "token", ("--state", tmp_path / "none")
    token.write_text(here.token + "\n")
    url = ("--url", here.url)
    refused = await said("plot", "box", *url, "--token-file", token, *state)
    assert refused.code == 1 and "does not trust the certificate" in refused.err
    (shown,) = re.findall(r"SHA-256 ([0-9A-F:]{95})", refused.err)
    assert shown in here.running.log.read_text()
    for digits in (shown, shown.lower().replace(":", "")):
        done = await said("plot", "box", *url, "--fingerprint", digits, *state, EDGE_GATEWAY_TOKEN=here.token)
        assert (done.code, done.err) == (0, "") and done.out.startswith("speed: 1.5 to 1.5 rpm")
    other = "00" * 32
    wrong = await said("tail", *url, "--fingerprint", other, "--token-file", token, *state)
    assert wrong.code == 1 and "shows another certificate" in wrong.err and shown in wrong.err
    pinned = (*url, "--fingerprint", shown, *state)
    for command in ("plot", "tail"):
        nobody = await said(command, *pinned)
        assert nobody.code == 1 and "wants a token" in nobody.err
        guessed = await said(command, *pinned, EDGE_GATEWAY_TOKEN="egw_wrong")
        assert guessed.code == 1 and "does not take the token" in guessed.err
        assert "egw_wrong" not in guessed.err
    missing = await said("tail", "bxo", *pinned, "--token-file", token)
    assert missing.code == 1 and "there is no device bxo" in missing.err
    unknown = await said("plot", "bxo", *pinned, "--token-file", token)
    assert unknown.code == 1 and 'There is no device "bxo"' in unknown.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("tail", "--url", "ftp://x"), "--url is written https://HOST:PORT"),
        (("tail", "--url", "https://a:b@x"), "without user name or query"),
        (("plot", "--url", "https://127.0.0.1:9", "--fingerprint", "12"), "64 hex digits"),
        (("plot", "--url", "http://127.0.0.1:9", "--fingerprint", "12" * 32), "goes with https"),
        (("plot", "--url", "http://127.0.0.1:9"), "does not answer"),
        (("tail", "--url", "http://127.0.0.1:9"), "does not answer"),
        (("tail", "--url", "http://127.0.0.1:9", "--token-file", "/nowhere/x"), "/nowhere/x cannot be read"),
        (("tail", "--series", "1"), "--series goes with the --url"),
        (("plot", "box", "--series", "1", "--url", "http://127.0.0.1:9"), "--series goes with the --url"),
        (("plot", "--series", "../x", "--url", "http://127.0.0.1:9"), "--series takes the number"),
        (("tail", "--every", "0"), "--every is a number"),
        (("tail",), "no daemon answers"),
    ],
)
async def test_a_command_line_that_cannot_be(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    done = await said(*words, "--state", tmp_path)
    assert done.code == 1 and sentence in done.err and "Traceback" not in done.err


async def test_plot_draws_what_the_api_has(here: Here, tmp_path: Path) -> None:
    state = ("--state", here.running.state)
    assert (await said("plot", "box", *state)).code == 1
    start = time.time_ns() // 1000 - 1_000_000_000
    rows = [{"tag": "speed", "ts": start + n * 1_000_000, "value": n % 100} for n in range(1000)]
    await here.rows([*rows, {"tag": "state", "value": "on"}])
    listed = await said("plot", *state)
    assert listed.code == 0 and listed.out.splitlines()[0] == "box  push  running"
    assert any(re.search(r"  speed  99 rpm", line) for line in listed.out.splitlines())
    drawn = await said("plot", "box", *state)
    head, *chart, times = drawn.out.splitlines()
    assert head == "speed: 0 to 99 rpm, mean 49.5, 1000 values"
    assert len(chart) == 10 and all(len(line) <= 80 for line in [*chart, times])
    assert chart[0].startswith("99 ┤") and chart[-1].startswith(" 0 ┤")
    assert sum("\u2801" <= each <= "\u28ff" for line in chart for each in line) > 50
    plain = await said("plot", "box", "--last", "30m", *state, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert plain.code == 0 and plain.out.isascii() and "*" in plain.out
    file = tmp_path / "box.svg"
    done = await said("plot", "box", "--tag", "speed", "--svg", file, *state)
    assert (done.code, done.out) == (0, f"wrote {file}: speed\n")
    root = ET.fromstring(file.read_text())
    (line,) = root.iter("{http://www.w3.org/2000/svg}polyline")
    query = {"from": str(start - 10**9), "to": str(start + 10**10), "bucket": "1h"}
    assert len(line.get("points", "").split()) > 20
    headers = {"Authorization": f"Bearer {here.token}"}
    async with here.client.get(f"{here.url}/v1/devices/box/samples", params=query, headers=headers) as answer:
        assert sum(each["count"] for each in (await answer.json())["buckets"]) == 1000
    link = tmp_path / "link.svg"
    link.symlink_to(tmp_path / "elsewhere.svg")
    for there in (file, link):
        refused = await said("plot", "box", "--svg", there, *state)
        assert refused.code == 1 and "is there already" in refused.err
    assert ET.fromstring(file.read_text()) is not None and not (tmp_path / "elsewhere.svg").exists()
    for wrong, sentence in (
        (("--last", "1y"), "is not a duration"),
        (("--from", "yesterday"), "neither ISO 8601"),
        (("--from", "2026-01-01", "--to", "2025-01-01"), "the window is empty"),
        (("--tag", "spede"), 'has no tag "spede"'),
    ):
        done = await said("plot", "box", *wrong, *state)
        assert done.code == 1 and sentence in done.err, done


async def test_plot_draws_the_sensor_that_just_failed(here: Here) -> None:
    start = time.time_ns() // 1000 - 1_000_000_000
    values = {"speed": (1.5, None), "state": (2.5, "NaN"), "bad": (None, None)}
    for tag, (first, last) in values.items():
        failed = {"type": "float"} if last == "NaN" else {"status": 0x80000000}
        await here.rows(
            [
                {"tag": tag, "ts": start, "value": first},
                {"tag": tag, "ts": start + 1_000_000, "value": last, **failed},
            ]
        )
    drawn = await said("plot", "box", "--state", here.running.state)
    assert drawn.code == 0
    assert [line for line in drawn.out.splitlines() if "mean" in line] == [
        "speed: 1.5 to 1.5 rpm, mean 1.5, 1 values",
        "state: 2.5 to 2.5, mean 2.5, 1 values",
    ]
    assert drawn.err == "edge-gateway: no number in this window: bad\n"


async def test_series_of_a_timeseries_api(here: Here, tmp_path: Path) -> None:
    """Row 54: the output of list and plot is what the API says."""
    url = ("--url", here.contract, "--state", tmp_path)
    series = await here.points({"temp_C": 13}, {"temp_C": 15, "batt_V": 3.3}, {"temp_C": 14, "note": "x"})
    async with here.client.get(here.contract + "/series") as answer:
        (info,) = (await answer.json()).values()
    listed = await said("plot", "--series", *url, EDGE_GATEWAY_TOKEN=here.token)
    made = info["timestamp"][:16].replace("T", " ")
    assert (listed.code, listed.out) == (0, f"{series:>8}  {info['desc']:<40}  {made}  {3:>8}\n")
    drawn = await said("plot", "--series", series, *url)
    heads = [line for line in drawn.out.splitlines() if "values" in line]
    assert heads == ["temp_C: 13 to 15, mean 14, 3 values", "batt_V: 3.3 to 3.3, mean 3.3, 1 values"]
    assert (await said("plot", "--series", series, "--to", "2020-01-01", *url)).code == 1
    gone = await said("plot", "--series", "77", *url)
    assert gone.code == 1 and "Series 77 doesn't exist." in gone.err
    async with started("tail", "--series", series, "--every", "0.1", *url) as process:
        await until(process, f"series {series}  temp_C  13$")
        await until(process, 'note  "x"')
        body = {"token": ROBIN, "series_id": series, "fields": {"temp_C": 16}}
        async with here.client.put(here.contract + "/point/new", json=body) as answer:
            assert answer.status == 201
        line = await until(process, "temp_C")
        assert line.endswith("temp_C  16\n"), "each point once"


async def test_nothing_of_the_gateways_token_goes_to_a_timeseries_api(
    free_port: Port, tmp_path: Path
) -> None:
    port, heads = free_port(), list[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port):
        url = ("--url", f"http://127.0.0.1:{port}", "--state", tmp_path)
        done = await said("plot", "--series", *url, EDGE_GATEWAY_TOKEN="egw_secret")
        assert done.code == 1 and "does not answer as timeseries-api does" in done.err
        await said("plot", "box", *url, EDGE_GATEWAY_TOKEN="egw_secret")
    assert [b"egw_secret" in head for head in heads] == [False, True]


def test_a_chart_shows_every_peak() -> None:
    columns = [Column(n * 10, 0.0, 9.0 if n == 50 else 0.0, 0.0, 1) for n in range(100)]
    curve = Curve("x", "", columns)
    *lines, _ = charts.text_chart(curve, 0, 1000, 60, 8, braille=True)
    assert all(line[3:].strip() for line in lines), "the one peak reaches from the bottom to the top"
    *lines, _ = charts.text_chart(Curve("x", "", columns[:50]), 0, 1000, 60, 8, braille=False)
    assert sum(bool(line[3:].strip()) for line in lines) == 1, "a constant is one line"
    step = [Column(n * 10, float(n > 50), float(n > 50), 0.0, 1) for n in range(100)]
    *lines, _ = charts.text_chart(Curve("x", "", step), 0, 1000, 60, 8, braille=True)
    assert all(line[3:].strip() for line in lines), "neighbours are joined"
    wide = Curve("x", "", [Column(0, -1.7e308, 1.7e308, 0.0, 2), Column(999, 0.0, 0.0, 0.0, 1)])
    assert len(charts.text_chart(wide, 0, 1000, 60, 8, braille=True)) == 9
    holed = ET.fromstring(charts.svg([Curve("x", "", columns[:30] + columns[60:])], 0, 1000, "x"))
    assert len(list(holed.iter("{http://www.w3.org/2000/svg}polyline"))) == 2, "a hole stays one"
    assert ET.fromstring(charts.svg([Curve("<a&\x00", "°", columns), wide], 0, 1000, "<&")) is not None
