"""Databases are read in a child process: what is wrong with one is a sentence, and nothing else happens."""

import asyncio
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import child_process
from gateway.model import DeviceProblem
from gateway.protocols.can import Settings, loading, reading
from gateway.protocols.can.database import Database, Message, Signal
from gateway.protocols.can.loading import Read, load, merged, signatures
from gateway.protocols.can.tags import DecodingSettings, NodeSettings
from tests.can.decoding import CORPUS, DATABASES, Bench, read

pytestmark = pytest.mark.timeout(30)  # child processes on a busy machine
MUTATIONS = int(os.environ.get("CAN_MUTATIONS", "24"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
HEAD = 'VERSION ""\nNS_ :\nBS_:\nBU_: A\n'


def of(path: Path, **how: Any) -> DecodingSettings:
    return DecodingSettings(database=path, **how)


async def problem(path: Path, **how: Any) -> str:
    with pytest.raises(DeviceProblem) as caught:
        await load("press", of(path, **how), {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


BROKEN = {
    "a bracket is missing": (
        'BO_ 256 M: 8 A\n SG_ S : 0|8@1+ 1,0) [0|0] "" A\n',
        "bad.dbc:6:17: this is not understood",
    ),
    "cut off": ('BO_ 256 M: 8 A\n SG_ S : 0|8@1+ (1,0) [0|0] "', "bad.dbc:6:"),
    "an id too long": (
        "BO_ 2560 M: 8 A\n",
        "bad.dbc:5: Standard frame id 0xa00 is more than 11 bits in message M. An id of 29 bits is written",
    ),
    "no bits": (
        'BO_ 256 M: 8 A\n SG_ S : 0|0@1+ (1,0) [0|0] "" A\n',
        "bad.dbc:6: The signal S length 0 is not greater than 0 in message M.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
async def test_an_error_names_file_and_line(case: str, tmp_path: Path) -> None:
    text, sentence = BROKEN[case]
    path = tmp_path / "bad.dbc"
    path.write_text(HEAD + text)
    assert f"{tmp_path}/{sentence}" in await problem(path)


async def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    assert "No such file or directory: does the path hold" in await problem(tmp_path / "none.dbc")
    (tmp_path / "folder.dbc").mkdir()
    assert "folder.dbc: this is not a regular file" in await problem(tmp_path / "folder.dbc")
    os.mkfifo(tmp_path / "pipe.dbc")
    assert "pipe.dbc: this is not a regular file" in await problem(tmp_path / "pipe.dbc")
    for name in ("empty.kcd", "empty.arxml", "empty.sym"):
        (tmp_path / name).write_text("")
        assert name in await problem(tmp_path / name)
    (tmp_path / "other.kcd").write_text("<a/>")
    assert "other.kcd" in await problem(tmp_path / "other.kcd")
    (tmp_path / "bytes.dbc").write_bytes(random.Random(1).randbytes(1000))
    assert "bytes.dbc" in await problem(tmp_path / "bytes.dbc")
    (tmp_path / "text.dbc").write_bytes((DATABASES / "cp1252.dbc").read_bytes())
    assert "text.dbc:10: its text is not utf-8" in await problem(tmp_path / "text.dbc", encoding="utf-8")


async def test_what_takes_too_much_memory_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = tmp_path / "bomb.dbc"
    text = (DATABASES / "extended_multiplexed.dbc").read_text()
    bomb.write_text(text.replace("S1 1-1", "S1 0-4294967295"))
    assert "bomb.dbc" in await problem(bomb)
    laughs = tmp_path / "laughs.kcd"
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    laughs.write_text(f'<!DOCTYPE x [<!ENTITY l0 "lol">{entities}]><x>&l11;</x>')
    assert "laughs.kcd" in await problem(laughs)


async def test_what_takes_too_long_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_PATIENCE_S", 0.01)
    assert "plain.dbc: it takes too long to read" in await problem(DATABASES / "plain.dbc")
    assert not children()


async def test_a_load_that_is_cancelled_leaves_no_process() -> None:
    task = asyncio.ensure_future(load("press", of(DATABASES / "plain.dbc"), {}))
    while not children():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()


def children() -> list[str]:
    """Return the processes of ours that read a database."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                line, parent = (
                    (folder / "cmdline").read_bytes(),
                    (folder / "stat").read_text().rsplit(")", 1)[1],
                )
            except OSError:
                continue
            if b"gateway.protocols.can.reading" in line and int(parent.split()[1]) == os.getpid():
                found.append(folder.name)
    return found


async def test_a_child_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process.sys, "executable", "/bin/false")
    assert "reading it ended with exit code 1" in await problem(DATABASES / "plain.dbc")


async def test_a_file_is_read_again_only_where_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, memory = tmp_path / "a.dbc", dict[str, Any]()
    path.write_bytes((DATABASES / "plain.dbc").read_bytes())
    settings = of(path)
    first = await load("press", settings, memory)
    seen = await signatures(settings)
    with monkeypatch.context() as patched:
        patched.setattr(child_process.sys, "executable", "/bin/false")
        assert await load("press", settings, memory) == first
        with pytest.raises(DeviceProblem):  # read in another way, it is another file
            await load("press", replace(settings, encoding="latin-1"), memory)
    path.write_bytes((DATABASES / "signed.dbc").read_bytes())
    assert await signatures(settings) != seen
    assert {message.name for message in (await load("press", settings, memory)).messages} == {
        "Signs",
        "SignsBig",
    }


async def test_several_databases_are_one() -> None:
    settings = Settings(database=(DATABASES / "plain.dbc", DATABASES / "axis.kcd"))
    database = await load("press", settings, {})
    assert {"EngineData", "Axis"} <= {message.name for message in database.messages}
    assert {message.file for message in database.messages} == {"plain.dbc", "axis.kcd"}


def test_of_an_id_known_twice_the_first_is_taken_and_names_are_made_unique() -> None:
    first = Message("M", 1, 8, (Signal("a", 0, 8),), file="one.dbc")
    parts = [
        Read((first, replace(first, can_id=2)), ("a note",)),
        Read((replace(first, file="two.dbc"),), ()),
    ]
    assert merged(parts) == Database(
        (first, replace(first, can_id=2, name="M_0x002")),
        ("a note", "two.dbc: message M is not used: M of one.dbc has the same id 0x001"),
    )


async def test_nothing_is_lost_on_the_way_from_the_child() -> None:
    for name in ("fd.dbc", "extended_multiplexed.dbc", "sensor.sym", "press.arxml", "j1939.dbc"):
        assert await load("press", of(DATABASES / name), {}) == read(name)


def test_signals_that_cannot_be_decoded_are_named() -> None:
    database = merged([Read(*map(tuple, from_text(HEAD + UNUSABLE)))])  # type: ignore[arg-type]
    assert [signal.name for signal in database.messages[0].signals] == ["Good"]
    assert database.notes == (
        "x.dbc: signal Huge of message M is not decoded: it is scaled with inf",
        "x.dbc: signal Float of message M is not decoded: a float has 16, 32 or 64 bits, this one 24",
        "x.dbc: signal Beyond of message M is not decoded: it does not fit into the 8 bytes of the message",
        "x.dbc: signal Page of message N is not decoded: a multiplexer is an integer of at most 64 bits",
        "x.dbc: signal Twice of message N is not decoded: there are 2 signals of that name",
        "x.dbc: signal There of message N is not decoded: its multiplexer Page is not",
    )


UNUSABLE = """BO_ 256 M: 8 A
 SG_ Good : 0|8@1+ (1,0) [0|0] "" A
 SG_ Beyond : 60|8@1+ (1,0) [0|0] "" A
 SG_ Huge : 8|8@1+ (1e999,0) [0|0] "" A
 SG_ Float : 16|24@1- (1,0) [0|0] "" A
BO_ 257 N: 20 A
 SG_ Page M : 0|80@1+ (1,0) [0|0] "" A
 SG_ Twice : 80|8@1+ (1,0) [0|0] "" A
 SG_ Twice : 88|8@1+ (1,0) [0|0] "" A
 SG_ There m0 : 96|8@1+ (1,0) [0|0] "" A
SIG_VALTYPE_ 256 Float : 1;
"""


def from_text(text: str) -> tuple[list[Message], list[str]]:
    from gateway.protocols.can import from_cantools

    return from_cantools.read(Path("x.dbc"), text.encode(), None, j1939=None)


def mutated(rng: random.Random) -> tuple[str, bytes]:
    """Return a file of the corpus with some bytes changed, left out, doubled or exchanged."""
    path = rng.choice(CORPUS)
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        place, size = rng.randrange(len(data)), rng.choice((1, 1, 1, 2, 10, 100))
        match rng.randrange(5):
            case 0:
                data[place : place + size] = b""
            case 1:
                data[place : place + size] = rng.randbytes(size)
            case 2:
                data[place:place] = data[place : place + size] * rng.choice((1, 1, 50))
            case 3:
                data[place : place + 1] = rng.choice(
                    (b"9", b"-", b'"', b";", b"(", b"0", b"<", b"99999999999")
                )
            case _:
                other = rng.randrange(len(data))
                data[place : place + size] = data[other : other + size]
    return path.suffix, bytes(data)


async def one_mutation(number: int, folder: Path) -> bool:
    """Read one mutated file, and what it gives is used; say whether it could be read."""
    rng = random.Random(SEED * 1_000_000 + number)
    suffix, data = mutated(rng)
    path = folder / f"{number}{suffix}"
    path.write_bytes(data)
    try:
        database = await load("press", of(path), {})
    except DeviceProblem as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return False
    use(database, rng)
    return True


def use(database: Database, rng: random.Random) -> None:
    for keep_ms in (0, 1000):
        bench = Bench(database, DecodingSettings(keep_interval_ms=keep_ms))
        for at in range(20):
            bench.take(
                *((at, each.can_id, rng.randbytes(rng.choice((each.length, each.length, 8)))) for each in (
                    *database.messages, Message("none", rng.getrandbits(32), 8)))
            )  # fmt: skip
        bench.flush(2**62)
        bench.decoder.filters()
        bench.decoder.tag_states()
        bench.decoder.sentences(0)


@pytest.mark.timeout(30 + MUTATIONS)
async def test_mutated_files_harm_nobody(tmp_path: Path) -> None:
    """CAN_MUTATIONS=10000 (and CHAOS_SEED) for more."""
    read_ = 0
    for start in range(0, MUTATIONS, 2):
        done = await asyncio.gather(*(one_mutation(start + n, tmp_path) for n in range(2)))
        read_ += sum(done)
    assert 0 < read_ < MUTATIONS


def test_the_daemon_imports_neither_cantools_nor_canopen() -> None:
    script = """
import asyncio, sys
from pathlib import Path
from gateway.protocols.can import Settings, collect
from gateway.protocols.can.loading import load
from gateway.protocols.can.tags import NodeSettings
assert not {"can", "cantools", "canopen"} & sys.modules.keys()
settings = Settings(database=Path(sys.argv[1]), canopen={"axis": NodeSettings(node=5, eds=Path(sys.argv[2]))})
assert len(asyncio.run(load("press", settings, {})).messages) == 9
assert not {"cantools", "canopen", "bitstruct"} & sys.modules.keys()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, DATABASES / "plain.dbc", DATABASES.parent / "axis.eds"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_child_limits_itself() -> None:
    script = """
import resource, sys
from gateway.protocols.can import reading
reading._limit()
try:
    hold = bytearray(400 << 20)
except MemoryError:
    print(resource.getrlimit(resource.RLIMIT_CPU)[0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(reading.CPU_S)


async def test_an_eds_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bad.eds"
    path.write_text("[FileInfo]\nnonsense without a value\n")
    with pytest.raises(DeviceProblem, match=r"bad.eds:2: "):
        await load("press", DecodingSettings(canopen={"axis": NodeSettings(node=5, eds=path)}), {})
