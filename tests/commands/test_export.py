"""`export`: every type of value exact in each format, nothing a spreadsheet would run, flat memory."""

import asyncio
import base64
import csv
import io
import json
import math
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gateway.api.values import read
from gateway.clock import SystemClock
from gateway.commands.backup import back_up
from gateway.export.cells import Times, harmless
from gateway.model import Batch, Flag, Sample, Value
from gateway.store import Store, StoreSettings
from gateway.store.values import same_value
from tests.chaos.oracle import START_US, unit, value
from tests.commands.conftest import ALL, HALF, Said, command, filled

NAN = math.nan
VALUES: list[Value] = [
    None, True, False, 0, 1, 1.0, -1, -(2**63), 2**63 - 1, 2**63, 2**64 - 1, 0.1, -0.0, 1e308, 5e-324, 1 / 3,
    NAN, math.inf, -math.inf,
    "", "plain", "=1+1", "@SUM(A1)", "-2+3", "+1", "\tx", "\rx", "'quoted", '"a",b;c\r\n',
    "\uff1d1", "true", "12", "ünï ☃ 😀", "a\x00b", b"", b"\x00\xff", base64.b64decode("+/+/"),
    [], [1, 2.5, "x", None, True],
    [1.0, NAN, -math.inf], [b"\x01", "text", NAN, [b""]], [[2**64 - 1], [-(2**63)]],
]  # fmt: skip
START = -62_135_596_800_000_000  # year 1; each value a day and a microsecond later
DAY = 86_400_000_001
TAG, UNIT = "=cmd|' /C calc'!A0", "@°C"


async def store_of_values(folder: Path) -> None:
    async with Store.open(folder, StoreSettings(commit_interval_s=0.02), SystemClock()) as store:
        series, batch = store.series('plc, "1"', TAG, UNIT), Batch()
        for place, each in enumerate(VALUES):
            batch.add(series, START + place * DAY, each, (0, 0x40000000, 0x80010000, 2**32 - 1)[place % 4])
        await (await store.put(batch))


def typed(kind: str, text: str) -> Value:
    """Read back a cell of the CSV."""
    plain = text[1:] if text.startswith("'") else text
    match kind.split(" of "):
        case ["null"]:
            return None
        case ["boolean"]:
            return {"true": True, "false": False}[text]
        case ["integer"]:
            return int(text)
        case ["float"]:
            return float(text)
        case ["text"]:
            return plain
        case ["bytes"]:
            return base64.b64decode(plain)
        case ["array", *leaf]:
            return read(json.loads(text), leaf[0] if leaf else None)
    raise AssertionError(kind)


def from_csv(out: bytes) -> list[tuple[str, Value, int]]:
    rows = list(csv.DictReader(io.StringIO(out.decode(), newline="")))
    for row in rows:
        risky = [row[name] for name in ("device", "tag", "unit", "time")]
        risky += [row["value"]] if row["type"] in ("text", "bytes") else []
        assert not any(text.startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d")) for text in risky), row
        assert (row["device"], row["tag"][1:], row["unit"][1:]) == ('plc, "1"', TAG, UNIT)
    return [(row["time"], typed(row["type"], row["value"]), int(row["status"])) for row in rows]


def from_ndjson(out: bytes) -> list[tuple[str, Value, int]]:
    rows = [json.loads(line) for line in out.decode().splitlines()]
    assert {(row["device"], row["tag"], row["unit"]) for row in rows} == {('plc, "1"', TAG, UNIT)}
    return [(row["time"], read(row["value"], row.get("type")), row["status"]) for row in rows]


def from_parquet(out: bytes) -> list[tuple[str, Value, int]]:
    found = []
    table = pq.read_table(io.BytesIO(out))
    times = table["time"].cast("int64").to_pylist()
    for ts, row in zip(times, table.drop(["time"]).to_pylist(), strict=True):
        kind, _, leaf = row["type"].partition(" of ")
        name = "unsigned" if kind == "integer" and row["integer"] is None else kind
        each = None if kind == "null" else row[name]
        found.append(
            (
                Times().text(ts),
                read(json.loads(each), leaf or None) if kind == "array" else each,
                row["status"],
            )
        )
    return found


READERS: dict[str, Callable[[bytes], list[tuple[str, Value, int]]]] = {
    "csv": from_csv, "ndjson": from_ndjson, "parquet": from_parquet,
}  # fmt: skip


@pytest.mark.parametrize("kind", READERS)
async def test_every_value_comes_back_bit_for_bit(tmp_path: Path, kind: str) -> None:
    await store_of_values(tmp_path / "store")
    said = await command(
        "export", "--state", tmp_path / "store", "--format", kind, "--output", tmp_path / "out"
    )
    assert said.code == 0 and f"{len(VALUES)} samples" in said.out, said
    found = READERS[kind]((tmp_path / "out").read_bytes())
    assert len(found) == len(VALUES)
    for place, (time, each, status) in enumerate(found):
        assert type(each) is type(VALUES[place]) and same_value(each, VALUES[place]), (each, VALUES[place])
        assert status == (0, 0x40000000, 0x80010000, 2**32 - 1)[place % 4]
        assert time == Times().text(START + place * DAY)
    assert found[1][0] == "0001-01-02T00:00:00.000001Z"


def test_times_beyond_the_years_that_python_knows() -> None:
    times = Times()
    assert times.text(0) == "1970-01-01T00:00:00.000000Z"
    assert times.text(-1) == "1969-12-31T23:59:59.999999Z"
    assert times.text(253_402_300_799_999_999) == "9999-12-31T23:59:59.999999Z"
    assert times.text(253_402_300_800_000_000) == "+010000-01-01T00:00:00.000000Z"
    assert times.text(START - 1) == "+000000-12-31T23:59:59.999999Z"
    assert times.text(START - 366 * 86_400_000_000 - 1) == "-000001-12-31T23:59:59.999999Z"
    assert times.text(2**62) == "+148108-07-06T14:00:27.387904Z"


def lines(said: Said) -> list[dict[str, Any]]:
    assert said.code == 0, said
    return [json.loads(line) for line in said.out.splitlines()]


async def test_blocks_chunks_a_running_store_and_a_backup_give_the_same_samples(tmp_path: Path) -> None:
    folder = tmp_path / "store"

    def right(rows: list[dict[str, Any]], numbers: range) -> None:
        assert len(rows) == len(numbers)
        for n, row in zip(numbers, rows, strict=True):
            assert (row["tag"], row["unit"]) == (f"tag-{n % 20}", unit(n % 20))
            assert (row["time"], row["value"], row["status"]) == (
                Times().text(START_US + n * 1000),
                value(n),
                n % 3,
            )

    async with filled(folder) as store:
        assert store.state().segments == 1 and store.state().blocks > 1
        right(lines(await command("export", "--state", folder, "--format", "ndjson")), range(ALL))
        window = (
            "--from",
            str(START_US + (HALF - 100) * 1000),
            "--to",
            Times().text(START_US + (HALF + 99) * 1000),
        )
        right(
            lines(await command("export", "--state", folder, "--format", "ndjson", *window)),
            range(HALF - 100, HALF + 100),
        )
        few = ("--device", "plc", "--tag", "tag-3", "--tag", "tag-7")
        rows = lines(await command("export", "--state", folder, "--format", "ndjson", *few))
        assert [row["tag"] for row in rows] == ["tag-3", "tag-7"] * (ALL // 20)
        await asyncio.to_thread(back_up, folder, folder, tmp_path / "copy", 0)
    right(lines(await command("export", "--store", tmp_path / "copy", "--format", "ndjson")), range(ALL))
    right(lines(await command("export", "--state", folder, "--format", "ndjson")), range(ALL))


async def test_what_is_asked_wrongly_is_said_in_a_sentence(tmp_path: Path) -> None:
    async with filled(tmp_path):
        pass
    for arguments, sentence in (
        (["--device", "plq"], 'the store has no device "plq"; it has: plc'),
        (["--device", "plc", "--tag", "x"], 'device "plc" has no tag "x"'),
        (["--from", "yesterday"], "argument --from: 'yesterday' is neither microseconds"),
        (["--output", tmp_path / "hot.db"], "overwrites nothing"),
        (["--output", tmp_path / "no" / "such"], "cannot be written: No such file or directory"),
        (["--store", tmp_path / "history"], "there is no store in"),
    ):
        said = await command("export", "--state", tmp_path, *arguments)
        assert said.code in (1, 2) and sentence in said.err and not said.out, said
    assert not list(tmp_path.glob("*.partial"))


async def test_what_cannot_be_read_is_named_and_the_rest_is_written(tmp_path: Path) -> None:
    async with filled(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "hot.db") as conn:
        conn.execute("UPDATE block SET data = CAST(substr(data, 1, 99) AS BLOB) WHERE seq = 10")
    conn.close()
    said = await command("export", "--state", tmp_path)
    assert said.code == 1 and "block 10 is damaged: its samples are left out" in said.err, said
    assert len(said.out.splitlines()) == 1 + ALL - 250


@pytest.mark.parametrize(
    ("site", "remedy"), [([], "`pip install pyarrow`"), (["-I", "-S"], "the package does not have")]
)
async def test_without_pyarrow_it_says_what_to_do(tmp_path: Path, site: list[str], remedy: str) -> None:
    async with filled(tmp_path):
        pass
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}; sys.modules['pyarrow'] = None; "
        "from gateway.__main__ import main; sys.exit(main())"
    )
    line = [sys.executable, *site, "-c", program, "export", "--state", tmp_path, "--format", "parquet"]
    done = await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True)
    assert done.returncode == 1 and "needs the library pyarrow" in done.stderr, done.stderr
    assert remedy in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
async def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path, kind: str) -> None:
    async with filled(tmp_path):
        pass
    line = f"PYTHONUNBUFFERED=1 {sys.executable} -m gateway export --state {tmp_path} --format {kind}"
    line += " | head -n 1; exit ${PIPESTATUS[0]}"
    done = await asyncio.to_thread(subprocess.run, ["bash", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (141, "", 1)


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_memory_does_not_grow_with_what_is_exported(tmp_path: Path) -> None:
    async with Store.open(tmp_path, StoreSettings(commit_interval_s=0.02), SystemClock()) as store:
        series = [store.series("plc", str(n)) for n in range(10)]
        for first in range(0, 400_000, 20_000):
            batch = Batch.of(
                Sample(series[n % 10], START_US + n * 1000, n * 0.25, 0, Flag.OWN_TIME)
                for n in range(first, first + 20_000)
            )
            await (await store.put(batch))
    peaks = []
    for count in (20_000, 400_000):
        program = (
            "import resource, sys; from gateway.__main__ import main; code = main(sys.argv[1:]);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
        )
        to = str(START_US + count * 1000 - 1)
        line = [sys.executable, "-c", program, "export", "--state", str(tmp_path), "--to", to]
        done = await asyncio.to_thread(subprocess.run, line, capture_output=True)
        assert done.stdout.count(b"\n") == count + 1
        peaks.append(int(done.stderr))
    assert peaks[1] - peaks[0] < 25_000, peaks


def test_a_text_made_harmless_is_given_back_by_taking_one_quote_away() -> None:
    for text in ("=1", "'x", "''", "x=1", "", "-", "1"):
        safe = harmless(text)
        assert (safe[1:] if safe.startswith("'") else safe) == text
